"""The session of a torch scheduler: opened by whichever of its possible descriptions it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pacesetter._client import Client
from pacesetter._errors import ConflictError
from pacesetter._from_torch import Conversion
from pacesetter._session import Session
from pacesetter.distributed import open_session


def open_converted(
    client: Client, name: str, candidates: Sequence[Conversion], spec: Mapping[str, Any]
) -> Session:
    """Return the session of a name, created by the first description, or existing by another.

    Args:
        client: The connection.
        name: The session's name.
        candidates: The descriptions that it may have, likeliest first.
        spec: Further parts of its description.

    Raises:
        ConflictError: The name is taken by a session of none of these descriptions.
    """
    likeliest, *others = candidates
    try:
        return _opened(client, name, likeliest, spec)
    except ConflictError as error:
        if not others:
            raise
        conflict = error
    try:
        return _opened(client, name, others[0], spec)
    except ConflictError:
        raise conflict.saying(
            f"{conflict.detail.rstrip('.')}. The optimizer was loaded before it was converted, and"
            " which rate the training began at is not certain: to resume it, load the optimizer"
            " after from_torch"
        ) from None


def _opened(client: Client, name: str, found: Conversion, spec: Mapping[str, Any]) -> Session:
    described = dict(found.description)
    if "continues" in spec:
        described.pop("start_step", None)  # it has that from the session that it continues
    session = open_session(client, name, **{**described, **spec})
    found.log()
    return session
