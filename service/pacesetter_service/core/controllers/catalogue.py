"""The catalogue: every controller kind with its parameters, rule, source and an example."""

import inspect
from typing import Any

from pacesetter_service.core.controllers.base import Controller, NamedController
from pacesetter_service.core.errors import UnknownKindError


def kinds() -> list[str]:
    """Give the names of all controller kinds, sorted."""
    return sorted(Controller.kinds)


def describe(kind: str) -> dict[str, Any]:
    """Describe one kind as JSON types; `watches` are the metrics that its example reads.

    Raises:
        UnknownKindError: There is no such kind.
    """
    member = Controller.kinds.get(kind)
    if member is None:
        raise UnknownKindError(kind, kinds(), Controller.elsewhere.get(kind), family="controller")
    example = {"kind": kind, **member.example}
    return {
        "kind": kind,
        "family": "preset" if issubclass(member, NamedController) else "rule",
        "description": inspect.cleandoc(member.__doc__ or ""),
        "formula": member.formula,
        "source": member.source,
        "guards": member.guards,
        "parameters": member.model_json_schema(),
        "example": example,
        "watches": list(Controller.parse(example).watches),
    }
