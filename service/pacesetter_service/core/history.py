"""What was measured, step by step, and which steps of a long record are shown.

A record is thinned out piece by piece, so that one of any length costs the memory of one piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.forecast import decimate
from pacesetter_service.core.measurements import Measurement, close
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.spec import SessionSpec

PIECE = 2**20
"""The most values in a piece, over all columns: it is all that is held in memory at once."""

ByStep = Mapping[int, float]


class Piece(NamedTuple):
    """The steps `start` to `end`, and how many of them are wanted."""

    start: int
    end: int
    points: int


def pieces(start: int, end: int, columns: int, points: int) -> Iterator[Piece]:
    """Cut the steps `start` to `end` into pieces that share `points`; each gets at least one."""
    size = max(PIECE // columns, 1)
    count = -(-(end - start) // size)
    edges = [start + (end - start) * index // max(count, 1) for index in range(count + 1)]
    for first, last in pairwise(edges):
        yield Piece(first, last, max(points // count, 1))


def measured(spec: SessionSpec, metric: str, readings: Sequence[Reading]) -> dict[int, float]:
    """Give a metric's value at each step that some rank has reported, as the session aggregates it.

    Ranks that have not reported are left out. With the aggregate `rank0` it is that rank's value.
    """
    said = spec.metric(metric).model_copy(update={"ranks": spec.ranks, "quorum": 1})
    last = max((reading.step for reading in readings), default=-1)
    closed = close(readings, {metric: said}, until=last)
    return {each.step: each.value for each in closed if isinstance(each, Measurement)}


def shown(
    start: int, series: Sequence[Values], metrics: Sequence[ByStep], points: int
) -> NDArray[np.int64]:
    """Choose the steps of a piece that are shown: about `points`, with every curve's extremes.

    NaN is an extreme: of each stretch that has one, one is kept.

    Args:
        start: The step of the first value of each series.
        series: Values of all steps of the piece.
        metrics: For each metric its values, at some of these steps.
        points: How many steps are wanted.

    Returns:
        int64 steps, ascending, without repetition.
    """
    share = max(points // (1 + len(metrics)), 1)
    rates = decimate({str(index): row for index, row in enumerate(series)}, share) + start
    return np.unique(np.concatenate([rates, *(_extremes(each, share) for each in metrics)]))


def _extremes(values: ByStep, points: int) -> NDArray[np.int64]:
    if not values:
        return np.array([], dtype=np.int64)
    steps = np.array(sorted(values), dtype=np.int64)
    row = np.array([values[step] for step in steps.tolist()])
    # NaN is where the one is highest and where the other is lowest.
    high = np.where(np.isnan(row), np.inf, row)
    low = np.where(np.isnan(row), -np.inf, row)
    return steps[decimate({"high": high, "low": low}, points)]
