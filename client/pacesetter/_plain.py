"""What is sent, as JSON: numbers of NumPy and of tensors are numbers, and what is no data is named.

Nothing is rounded: a float32 is sent as the float64 that has its very value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

SCHEDULERS = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body in JSON.

    Raises:
        TypeError: Something in it is no data; the message says where it stands, and what to do.
        ValueError: A number in it is NaN or infinite, or it stands in itself.
    """
    try:
        text = json.dumps(body, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise next(_mistakes(body, ""), error) from None
    return text.encode()


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever json does not know
    """Return a mapping, a number or an array as JSON has it."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy's, and torch's tensors
        return value.tolist()
    raise TypeError(type(value).__name__)


def _mistakes(value: object, place: str) -> Iterator[Exception]:
    """Name what cannot be sent, with its place, as in `groups.head.base_lr`."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _mistakes(each, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _mistakes(each, f"{place}[{index}]")
    elif isinstance(value, float) and not isfinite(value):
        yield ValueError(f"{place} is {value}, which JSON has no number for: give a finite one")
    elif not (value is None or isinstance(value, str | int | float | bool)):
        yield from _strangers(value, place)


def _strangers(value: object, place: str) -> Iterator[Exception]:
    try:
        plain = _plain(value)
    except TypeError:
        yield TypeError(f"{place} is {described(value)}")
    else:
        yield from _mistakes(plain, place)


def described(value: object) -> str:
    """Say what a value is that is no data, and what to give instead."""
    kind = type(value)
    if kind.__module__ in SCHEDULERS:
        return (
            f"torch's {kind.__name__}, which is no data: RemoteLR.from_torch(scheduler, name) makes"
            " a session of it, or describe the schedule by its kind, as in"
            ' {"kind": "cosine", "total_steps": 1000}'
        )
    return (
        f"a {kind.__module__}.{kind.__qualname__}, which is no data:"
        " give numbers, texts, lists and mappings"
    )
