"""Whether an optimizer really used what was sealed.

Optimizers hold rates as Python floats or, in tensors, as float32. So a value agrees to the bit
(`exact`), or as the float32 nearest to what was sealed (`float32`), or not at all (`differs`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np

Precision = Literal["exact", "float32", "differs"]

KEPT = 8
"""How many values of one rank are told apart, those that differ first; all are compared."""


class Compared(NamedTuple):
    """What was applied of one series, and what was sealed."""

    series: str
    applied: float
    sealed: float
    precision: Precision


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a rank applied at a step beside what was sealed for it.

    Attributes:
        step: The step of the values.
        precision: How well they agree: as well as the one that agrees least.
        differing: How many differ.
        values: Each of them, those that agree least first.
    """

    step: int
    precision: Precision
    differing: int
    values: tuple[Compared, ...]


def precision(applied: float, sealed: float) -> Precision:
    """Tell how well an applied value, which may be NaN or infinite, agrees with the sealed one."""
    if applied == sealed:
        return "exact"
    return "float32" if isfinite(applied) and applied == _float32(sealed) else "differs"


def compare(step: int, applied: Mapping[str, float], sealed: Mapping[str, float]) -> Comparison:
    """Compare what was applied at a step with what was sealed for it; at least one series."""
    compared = [
        Compared(series, value, sealed[series], precision(value, sealed[series]))
        for series, value in applied.items()
    ]
    compared.sort(key=lambda each: _AGREEMENT[each.precision])
    differing = sum(each.precision == "differs" for each in compared)
    return Comparison(step, compared[0].precision, differing, tuple(compared))


_AGREEMENT: Mapping[Precision, int] = {"differs": 0, "float32": 1, "exact": 2}


def _float32(value: float) -> float:
    with np.errstate(all="ignore"):  # beyond the range of float32 it is infinite, or 0
        return float(np.float32(value))
