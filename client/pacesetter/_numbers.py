"""Numbers of other libraries as JSON has them: converted exactly, or named in an error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

Number: TypeAlias = SupportsFloat
"""A number: of Python, a NumPy scalar, or a tensor of no dimension."""

Steps: TypeAlias = SupportsIndex | Mapping[str, SupportsFloat]
"""A number of steps, or a length such as `{"epochs": 3}`, which the session makes steps of."""


def plain(value: Any, at: str = "") -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return a value as JSON has it, numbers of other libraries as Python's, to the bit.

    Arrays and tensors become lists, those of no dimension numbers; a mapping's values and a
    sequence's items are converted likewise.

    Args:
        value: What is to be sent.
        at: Where it stands in what is sent, for the message.

    Raises:
        TypeError: JSON cannot say it, or no float64 is exactly that number; the message says where.
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
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [plain(each, _below(at, index)) for index, each in enumerate(value)]
    return _exactly(value, at)


def given(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
    """Return the fields that were given: those that are not None, as JSON has them."""
    return {name: plain(value, name) for name, value in fields.items() if value is not None}


def _of_python(value: Any, at: str) -> str | float:  # noqa: ANN401 - one of these types
    """Return what derives from a type of Python's, as NumPy's float64 does, as that type."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return _finite(float(value), at)
    return int(value) if isinstance(value, int) else str(value)


def _of_an_array(array: Any, at: str) -> Any:  # noqa: ANN401 - NumPy's, torch's, JAX's
    """Return an array as lists, one of no dimension as a number."""
    if array.ndim:
        return plain(array.tolist(), at)
    number = array.item()
    return _exactly(number, at) if getattr(number, "ndim", None) == 0 else plain(number, at)


def _exactly(value: Any, at: str) -> float:  # noqa: ANN401 - whatever was given as a number
    """Return a number of a type that JSON does not know, if a float64 is exactly that.

    Raises:
        TypeError: None is, or it is no number.
    """
    try:
        number = float(value)
        same = number == value or number != number  # noqa: PLR0124 - NaN is told below
    except (TypeError, ValueError, OverflowError):
        same = False
    if not same:
        raise TypeError(
            f"{_named(at)} is {_short(value)} of type {type(value).__name__}, which is no number"
            " that can be sent exactly: give a float or an int"
        )
    return _finite(number, at)


def _finite(number: float, at: str) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{_named(at)} is {number}: give a finite number")
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
