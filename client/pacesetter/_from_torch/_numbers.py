"""Arguments of torch's schedulers, checked, and recovered where torch keeps only quotients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError

ENOUGH_DIGITS = (0, 1, 2, 3, 4, 6, 8, 10, 12)
"""To how many digits numbers are rounded, in turn, to find one that a user has typed."""


def number(value: Any, what: str, *, least: float = 0.0, most: float = math.inf) -> float:  # noqa: ANN401
    """Return an argument as a finite number.

    Raises:
        UnsupportedSchedulerError: The value is not valid, or lies outside of what a session takes.
    """
    found = float(value)
    if not math.isfinite(found) or not least <= found <= most:
        range_ = f"from {least:g} on" if most == math.inf else f"between {least:g} and {most:g}"
        raise UnsupportedSchedulerError(f"{what}={value!r}: make it a finite number {range_}")
    return found


def above_zero(value: Any, what: str) -> float:  # noqa: ANN401
    """Return an argument as a number above 0.

    Raises:
        UnsupportedSchedulerError: The value is not valid.
    """
    if number(value, what) == 0.0:
        raise UnsupportedSchedulerError(f"{what}={value!r}: make it a number above 0")
    return float(value)


def whole(value: Any, what: str, *, least: int = 0) -> int:  # noqa: ANN401
    """Return an argument as a whole number of steps.

    Raises:
        UnsupportedSchedulerError: The value is not valid, or too low.
    """
    if not math.isfinite(value) or float(value) != int(value):
        raise UnsupportedSchedulerError(f"{what}={value!r}: make it a whole number of steps")
    if value < least:
        raise UnsupportedSchedulerError(f"{what}={value!r}: make it at least {least}")
    return int(value)


def typed(inexact: float, reproduces: Callable[[float], bool]) -> float:
    """Return the number that a user is likely to have typed: the roundest with the same effect."""
    rounded = [r for r in (round(inexact, n) for n in ENOUGH_DIGITS) if r]
    near = [inexact, math.nextafter(inexact, math.inf), math.nextafter(inexact, 0.0)]
    return next(filter(reproduces, [*rounded, *near]), inexact)


def divisor(numerator: float, quotient: float, what: str) -> float | str:
    """Return the divisor of a rate; `"inf"` if nothing is left of it.

    Raises:
        UnsupportedSchedulerError: It is not one that a session takes.
    """
    if quotient == 0.0:
        return "inf"
    found = typed(numerator / quotient, lambda each: numerator / each == quotient)
    return above_zero(found, what)


def factor(wanted: float, of: float) -> float:
    """Return the factor that makes one number of another."""
    return typed(wanted / of, lambda each: each * of == wanted)
