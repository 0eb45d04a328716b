"""Whether an optimizer really used the sealed values.

Optimizers hold rates as Python floats or, in tensors, as float32. So an applied value agrees with
the sealed one to the bit (`exact`), or is the float32 nearest to it (`float32`), or neither
(`differs`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

import numpy as np

Precision = Literal["exact", "float32", "differs"]

KEPT = 8
"""How many values of one rank are kept, those that differ first; all of them are compared."""


class Compared(NamedTuple):
    """The applied value of one series, and the sealed one."""

    series: str
    applied: float
    sealed: float
    precision: Precision


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a rank applied at a step, compared with what was sealed for it.

    Attributes:
        step: The step of the values.
        precision: How well they agree: the worst precision among them.
        differing: How many differ.
        values: Each of them, the worst agreement first.
    """

    step: int
    precision: Precision
    differing: int
    values: tuple[Compared, ...]


def precision(applied: float, sealed: float) -> Precision:
    """Return how well an applied value, perhaps NaN or infinite, agrees with the sealed one."""
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
    with np.errstate(all="ignore"):  # beyond the range of float32 a value becomes infinite, or 0
        return float(np.float32(value))
