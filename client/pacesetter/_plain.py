"""Arguments as JSON: numbers of NumPy and of tensors are numbers; an error names what is no data.

Nothing is rounded: a float32 is sent as the float64 of exactly its value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

Number: TypeAlias = SupportsFloat
"""A number of Python, a NumPy scalar, or a tensor without dimensions."""

Steps: TypeAlias = SupportsIndex | Mapping[str, SupportsFloat]
"""A number of steps, or a length such as `{"epochs": 3}`, which the session converts to steps."""

SCHEDULERS = ("torch.optim.lr_scheduler", "torch.optim.swa_utils")


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises:
        TypeError: Something in it is not data; the message says where, and what to do.
        ValueError: A number in it is NaN or infinite, or it contains itself.
    """
    try:
        text = json.dumps(body, allow_nan=False, separators=(",", ":"), default=plain)
    except (TypeError, ValueError):
        # Encode again, more slowly, to find out where it is.
        text = json.dumps(_without_end(body), allow_nan=False, separators=(",", ":"))
    return text.encode()


def _without_end(body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as JSON has it
    try:
        return plain(body)
    except RecursionError:
        raise ValueError("what is to be sent stands in itself: give a copy of it") from None


def plain(value: Any, at: str = "") -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return a value as JSON takes it, with numbers of other libraries as Python's, to the bit.

    Arrays and tensors become lists, those without dimensions numbers; a mapping's values and a
    sequence's items are converted likewise.

    Args:
        value: The value to send.
        at: Its place in what is sent, for the message.

    Raises:
        TypeError: JSON cannot express it, or no float64 is exactly that number; the message says
            where.
        ValueError: It is NaN or an infinity; the message says where.
    """
    if value is None or type(value) in {bool, int, str}:
        return value
    if isinstance(value, Mapping):
        return {_key(key, at): plain(each, _below(at, key)) for key, each in value.items()}
    if isinstance(value, str | int | float | datetime):
        return _of_python(value, at)
    if isinstance(getattr(value, "ndim", None), int):
        return _of_an_array(value, at)
    # A set has no order to keep, so it is not a list.
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | AbstractSet):
        return [plain(each, _below(at, index)) for index, each in enumerate(value)]
    return _exactly(value, at)


def given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
    """Return the fields that were given: those that are not None, as JSON takes them."""
    return {name: plain(value, name) for name, value in fields.items() if value is not None}


def _of_python(value: Any, at: str) -> str | float:  # noqa: ANN401 - one of these types
    """Return an instance of a subclass of a Python type, such as NumPy's float64, as that type."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return _finite(float(value), at)
    return int(value) if isinstance(value, int) else str(value)


def _of_an_array(array: Any, at: str) -> Any:  # noqa: ANN401 - NumPy's, torch's, JAX's
    """Return an array as lists, one without dimensions as a number."""
    if array.ndim:
        return plain(array.tolist(), at)
    number = array.item()
    return _exactly(number, at) if getattr(number, "ndim", None) == 0 else plain(number, at)


def _exactly(value: Any, at: str) -> float:  # noqa: ANN401 - whatever was given as a number
    """Return a number of a type that JSON does not know, if a float64 is exactly that.

    Raises:
        TypeError: None is, or the value is not a number.
    """
    try:
        number = float("" if isinstance(value, bytes | bytearray) else value)  # which may be text
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{_named(at)} is {described(value)}") from None
    if number not in (value, math.inf, -math.inf) and not math.isnan(number):
        raise TypeError(
            f"{_named(at)} is {_short(value)}, which no float64 is exactly: give a float"
        )
    return _finite(number, at)


def described(value: object) -> str:
    """Say what kind of value this is, which is not data, and what to give instead."""
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


def _finite(number: float, at: str) -> float:
    if not math.isfinite(number):
        raise ValueError(
            f"{_named(at)} is {number}, which JSON has no number for: give a finite one"
        )
    return number


def _key(key: object, at: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{_named(at)} has the key {_short(key)}: give text as names")
    return str(key)


def _below(at: str, key: object) -> str:
    if isinstance(key, int):
        return f"{at}[{key}]"
    return f"{at}.{key}" if at else str(key)


def _named(at: str) -> str:
    return at or "what was given"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:79] + "…"
