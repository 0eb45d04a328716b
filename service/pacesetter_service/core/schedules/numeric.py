"""Arithmetic whose bits are part of the project's promises.

NumPy's `power`, `exp`, `log` and `tanh` take different code paths on different CPUs, and their
results differ in the last place. The functions of the C library, which Python and `float_power`
call, do not. Laws must give torch's bits, and the same bits on every replica, so these functions go
through the C library.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_EXPONENT = math.log(sys.float_info.max)
"""Above it `exp` overflows."""


def power_of(base: float, exponents: Floats) -> Floats:
    """Return `base ** e` for each exponent, bit for bit as Python does; overflow gives infinity."""
    return _power(base, exponents)


def power_to(bases: Floats, exponent: float) -> Floats:
    """Return `b ** exponent` for each base, none negative, bit for bit as Python does."""
    if exponent == 1.0:
        return bases
    return _power(bases, exponent)


def exp(x: Floats) -> Floats:
    """Return `e ** x` for each number, bit for bit as Python does; overflow gives infinity."""
    range_policy = x > LARGEST_EXPONENT
    values = _each(math.exp, np.where(range_policy, 0.0, x))
    values[range_policy] = math.inf
    return values


def log(x: Floats) -> Floats:
    """Return the natural logarithm of each number, bit for bit as Python does; NaN from 0 down."""
    return _each(_log, x)


def tanh(x: Floats) -> Floats:
    """Return the hyperbolic tangent of each number, bit for bit as Python does."""
    return _each(math.tanh, x)


def power(bases: Floats, exponents: Floats) -> Floats:
    """Return `b ** e` pair by pair, bit for bit as Python does; NaN if that is no real number."""
    return _power(bases, exponents)


def raised(base: float, exponent: float) -> float:
    """Return `base ** exponent` of one number, none negative; overflow gives infinity."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def tan(x: Floats) -> Floats:
    """Return the tangent of each number, bit for bit as Python does; NaN from infinity."""
    return _each(_tan, x)


def _each(function: Callable[[float], float], x: Floats) -> Floats:
    return np.fromiter(map(function, x.tolist()), np.float64, x.size)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else math.nan


def _tan(x: float) -> float:
    return math.tan(x) if math.isfinite(x) else math.nan


def _power(bases: Floats | float, exponents: Floats | float) -> Floats:
    """Raise to powers with the C library, which `float_power` calls and `power` does not."""
    with np.errstate(all="ignore"):
        powers: Floats = np.float_power(bases, exponents)
    return powers
