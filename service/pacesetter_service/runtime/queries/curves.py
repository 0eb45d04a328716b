"""Curves: values of a range of steps, thinned out for drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pacesetter_service.core.forecast import decimate
from pacesetter_service.runtime.windows import Block

MAX_CURVE = 1_000_000
"""The most steps that one curve may span."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at some steps.

    Attributes:
        names: The series.
        steps: The steps that are shown.
        block: Their values, a row for each series.
        sealed_until: The first step whose value is not final.
    """

    names: list[str]
    steps: list[int]
    block: Block
    sealed_until: int = 0


def thinned(
    names: Sequence[str], block: Block, start: int, points: int, sealed_until: int = 0
) -> Curve:
    """Return a curve of about `points` points, among them the extremes of each series."""
    kept = decimate(dict(zip(names, block, strict=True)), points)
    return Curve(list(names), (kept + start).tolist(), block[:, kept], sealed_until)
