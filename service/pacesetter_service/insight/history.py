"""The measurements step by step, and which steps of a long record are shown.

A record is thinned out piece by piece, so that one of any length needs the memory of one piece.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.forecast import decimate
from pacesetter_service.core.measuring import Measurement, Pending, close
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.spec import SessionSpec

PIECE = 2**20
"""The most values in a piece, over all columns; only one piece is in memory at any time."""


class Track(NamedTuple):
    """The measurements of a metric: ascending steps, int64, and a value for each, float64."""

    steps: NDArray[np.int64]
    values: Values


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


def track(steps: Sequence[int], values: Sequence[float | None]) -> Track:
    """Build a track from columns; None becomes NaN."""
    return Track(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))


def merged(tracks: Sequence[Track]) -> Track:
    """Merge tracks; if several have a step, the value of the first one counts."""
    if not tracks:
        return track([], [])
    steps = np.concatenate([each.steps for each in tracks])
    values = np.concatenate([each.values for each in tracks])
    ascending, first = np.unique(steps, return_index=True)
    return Track(ascending, values[first])


def measured(spec: SessionSpec, metric: str, readings: Sequence[Reading]) -> Track:
    """Return a metric's value at each step that some rank has reported, as the session defines it.

    Ranks that have not reported are left out. With the aggregate `rank0` it is that rank's value.
    """
    said = spec.metric(metric).model_copy(update={"ranks": spec.ranks, "quorum": 1})
    last = max((reading.step for reading in readings), default=-1)
    closed = close(Pending(readings), {metric: said}, until=last)
    found = [each for each in closed if isinstance(each, Measurement)]
    return track([each.step for each in found], [each.value for each in found])


def at_steps(metric: Track, steps: NDArray[np.int64]) -> list[float | None]:
    """Return a metric's values at some steps; None where it was not measured."""
    if not len(metric.steps):
        return [None] * len(steps)
    places = np.minimum(np.searchsorted(metric.steps, steps), len(metric.steps) - 1)
    there = (metric.steps[places] == steps).tolist()
    values = metric.values[places].tolist()
    return [value if here else None for value, here in zip(values, there, strict=True)]


def shown(
    start: int, series: Sequence[Values], metrics: Sequence[Track], points: int
) -> NDArray[np.int64]:
    """Choose the steps of a piece to show: about `points`, with every curve's extremes.

    NaN counts as an extreme: of each stretch that contains any, one is kept.

    Args:
        start: The step of the first value of each series.
        series: Values of all steps of the piece.
        metrics: The measurements at some of these steps.
        points: How many steps are wanted.

    Returns:
        int64 steps, ascending, without repetition.
    """
    share = max(points // (1 + len(metrics)), 1)
    rates = decimate({str(index): row for index, row in enumerate(series)}, share) + start
    return np.unique(np.concatenate([rates, *(_extremes(each, share) for each in metrics)]))


def _extremes(metric: Track, points: int) -> NDArray[np.int64]:
    if not len(metric.steps):
        return metric.steps
    # NaN is the highest value of the one curve and the lowest of the other.
    high = np.where(np.isnan(metric.values), np.inf, metric.values)
    low = np.where(np.isnan(metric.values), -np.inf, metric.values)
    return metric.steps[decimate({"high": high, "low": low}, points)]
