"""Whether a training keeps to its family: the finished trainings of the same template.

The losses of trainings that differ only in seed, length or size fall on one curve, up to a factor,
when the step is expressed as a fraction of the whole training, and the loss as its distance from a
floor (Qiu et al., Scaling Collapse Reveals Universal Dynamics in Compute-Optimally Trained Neural
Networks, arXiv 2507.02119). A cell is a hundredth of the training, and `L` is the mean of the
losses measured in it. A member's curve is

    y = log(L - L0),    y_i(cell) = m(cell) + level_i + deviation_i(cell)

with the family's floor `L0`, chosen so that its members lie closest. A training is judged by the
same residual `y - m` in two ways: by its level, compared with the levels of the members; and by its
shift from its own last cells, compared with the shifts of the members. The shift shows what has
just happened, however well the run stood before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELLS = 100
"""The number of cells, the parts of equal length into which a training is cut."""

MIDDLES = np.arange(CELLS) + 0.5

LEAST_MEMBERS = 5
"""With fewer finished trainings nothing is reported: four hardly give a spread."""

FALSE_ALARMS = 0.02
"""About which fraction of the trainings that keep to their family is reported anyway."""

SHIFTS, LEVELS = 60, 15
"""How many independent looks at a training its shifts, and its levels, amount to: neighbours are
alike, and their levels even more so."""

WIDTHS = (1, 2, 3, 4)
"""The numbers of cells over which a shift is averaged."""

BEFORE, LEAST_BEFORE = 10, 3
"""A shift is measured from the mean of this many cells before those, at most and at least."""

LEVEL_WIDTH = 3
"""The number of cells over which the level is averaged."""

NEAR, AROUND = 1, 8
"""The spread of members at a cell is estimated from this many cells on either side, too."""

LEAST_SPREAD = 5e-4
"""Members that lie closer than this, as a fraction, are taken to be this far apart."""

TOO_FAR = 0.1
"""If a shift must exceed this fraction of the loss to be noticed, no departure is reported."""

FLOORS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.85, 0.9)
"""The fractions of the lowest final loss that are tried as the floor."""

BACK = 3
"""For this many cells a training must be near its family again before it can leave it once more."""

SETTLED = 6
"""After this many cells at another level, a training can leave that level too."""

WHOLE = 0.97
"""A finished training must have been measured up to this fraction of its plan."""

DIFFERENCES = 4096
"""The scatter is estimated from this many of the newest differences."""

SAME_PATH, FIRST_CELLS = 0.05, 5
"""Trainings take the same path if their learning rates differ by at most this fraction of the peak;
the first cells are ignored, because a warmup of some steps is another part of a longer training."""

MEASURED = 0.5
"""A member was measured in at least this fraction of the cells."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The measurements of one training, by cells.

    Attributes:
        name: The session's name.
        means: The mean loss in each cell; NaN where none was measured; float64[CELLS].
        counts: The number of measurements in each mean.
        places: Their mean position, in cells; NaN where there are none.
        scatter: The standard deviation of a single measurement, as a fraction of the loss.
    """

    name: str
    means: Floats
    counts: Floats
    places: Floats
    scatter: float

    @property
    def reached(self) -> int:
        """How many cells are complete: a later cell was measured, or it is the last."""
        known = np.flatnonzero(self.counts)
        if not len(known):
            return 0
        last = int(known[-1])
        return CELLS if last == CELLS - 1 else last


class Gathering:
    """Collects the measurements of a training by cells, as they come in."""

    def __init__(self) -> None:
        self._sums, self._counts, self._places = (np.zeros(CELLS) for _ in range(3))
        self._apart = np.zeros(0)

    def add(self, parts: Floats, losses: Floats, first: int = 0) -> None:
        """Take all measurements from a cell on, in place of those known so far.

        Args:
            parts: Where each loss was measured, as a fraction of the training from 0 to below 1,
                ascending; those below the cell are left out.
            losses: The losses measured there; those that are not above 0 and finite are left out.
            first: The cell.
        """
        known = np.isfinite(losses) & (losses > 0) & (parts >= first / CELLS) & (parts < 1)
        at, losses = (parts[known] * CELLS).astype(np.int64), losses[known]
        self._sums[first:] = np.bincount(at, losses, CELLS)[first:]
        self._counts[first:] = np.bincount(at, None, CELLS)[first:]
        self._places[first:] = np.bincount(at, parts[known] * CELLS, CELLS)[first:]
        apart = np.abs(np.diff(np.log(losses)))
        self._apart = np.concatenate((self._apart, apart))[-DIFFERENCES:]

    def curve(self, name: str) -> Curve:
        """Return the curve so far."""
        with np.errstate(invalid="ignore"):
            means, places = self._sums / self._counts, self._places / self._counts
        # From differences of neighbours, which the fall of the loss hardly affects; by their
        # median, which outliers do not affect.
        middle = float(np.median(self._apart)) if len(self._apart) else 0.0
        return Curve(name, means, self._counts.copy(), places, middle / 0.6745 / 2**0.5)


def curve_of(name: str, parts: Floats, losses: Floats) -> Curve:
    """Return the curve of a training that was measured at some fractions of it, ascending."""
    gathering = Gathering()
    gathering.add(parts, losses)
    return gathering.curve(name)


def is_whole(curve: Curve) -> bool:
    """Return whether a curve can be a member's: it falls, and was measured to the end."""
    known = np.flatnonzero(curve.counts)
    if len(known) < MEASURED * CELLS or known[-1] < WHOLE * CELLS - 1:
        return False
    quarter = max(len(known) // 4, 1)
    return bool(curve.means[known[:quarter]].mean() > curve.means[known[-quarter:]].mean())


def leaves_path(rates: Floats, others: Floats) -> int:
    """Return the first cell in which a training's learning rate differs from its family's.

    Args:
        rates: The training's rate in the middle of each cell so far.
        others: The family's rates, in the same unit or another one: only the shape counts.
    """
    count = min(len(rates), len(others))
    if not count or rates[:count].max() <= 0 or others[:count].max() <= 0:
        return 0
    mine, theirs = (each[:count] / each[:count].max() for each in (rates, others))
    far = np.flatnonzero(np.abs(mine - theirs)[FIRST_CELLS:] > SAME_PATH)
    return FIRST_CELLS + int(far[0]) if len(far) else CELLS


class Departure(NamedTuple):
    """One time that a training left its family.

    Attributes:
        since: The first of the cells that were too far off.
        found: The cell at whose end the departure was seen.
        apart: How far its loss is above what the family predicts, as a fraction of the loss; below
            0 if the loss is below it.
        back: The cell from which on it was near again; None if it is not.
    """

    since: int
    found: int
    apart: float
    back: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """How a training compares with its family.

    Attributes:
        cells: The complete cells that were measured; int64[n].
        losses: The loss in each.
        expected: What the family predicts there, from where the training stood before.
        reach: How far it may be off in one cell, as a fraction of the loss.
        departures: When it left, in their order.
    """

    cells: NDArray[np.int64]
    losses: Floats
    expected: Floats
    reach: Floats
    departures: tuple[Departure, ...]


class Family:
    """The finished trainings of one template, by one loss."""

    def __init__(self, members: Sequence[Curve]) -> None:
        """Bring members onto one curve.

        Args:
            members: Curves that are whole (`is_whole`).

        Raises:
            ValueError: There are fewer than `LEAST_MEMBERS`.
        """
        if len(members) < LEAST_MEMBERS:
            raise ValueError(f"a family has {LEAST_MEMBERS} members at least")
        self.members = tuple(members)
        losses = np.stack([_filled(each) for each in members])
        lowest = float(losses.min())
        self.floor = min((part * lowest for part in FLOORS), key=lambda each: _apart(losses, each))
        self._mean = np.log(losses - self.floor).mean(axis=0)
        self._counts = np.stack([each.counts for each in members]).mean(axis=0)
        self._scatter = float(np.sqrt(np.mean([each.scatter**2 for each in members])))

    @cached_property
    def _residuals(self) -> Floats:
        """The residual of each member from the mean of the others."""
        count, cells = len(self.members), np.arange(CELLS)
        found = np.empty((count, CELLS))
        for row, member in zip(found, self.members, strict=True):
            known = np.flatnonzero(member.counts)
            apart = self._apart(member, known)
            row[:] = np.interp(cells, known, apart) * count / (count - 1)
        return found

    def _apart(self, curve: Curve, cells: NDArray[np.int64]) -> Floats:
        """Return how far a curve is above the family's mean in some cells that it has."""
        losses = curve.means[cells]
        # A loss below the family's floor counts as far below it.
        above = np.log(np.maximum(losses - self.floor, 1e-3 * losses))
        # Early on, where the loss falls steeply, the measurements' position in a cell matters.
        found: Floats = above - np.interp(curve.places[cells], MIDDLES, self._mean)
        return found

    @property
    def least(self) -> float:
        """The least lasting shift that is noticed in mid-training, as a fraction of the loss."""
        cells = np.arange(FIRST_CELLS, CELLS)
        looks = self._looks(cells, np.maximum(self._counts[cells], 1), self._scatter, 1)
        width = looks[len(WIDTHS) - 1]
        share = 1 - self.floor / (np.exp(self._mean[cells]) + self.floor)
        return float(np.median((width.limit * width.spread * share)[LEAST_BEFORE + 4 :]))

    def judged(self, run: Curve, until: int = CELLS, metrics: int = 1) -> Judgement:
        """Judge a training.

        Args:
            run: Its measurements so far.
            until: The first cell that is no longer judged.
            metrics: How many of its losses are judged: the more, the stricter each test must be.
        """
        cells = np.flatnonzero(run.counts)
        cells = cells[(cells >= FIRST_CELLS) & (cells < min(run.reached, until))]
        if not len(cells):
            return Judgement(cells, np.zeros(0), np.zeros(0), np.zeros(0), ())
        losses, counts = run.means[cells], run.counts[cells]
        residual = self._apart(run, cells)
        share = np.maximum(losses - self.floor, 1e-3 * losses) / losses
        looks = self._looks(cells, counts, run.scatter, metrics)
        departures = tuple(_departures(residual, looks, share, cells))
        near = _shifts(residual, 1, np.zeros(len(cells), np.int64))
        before = residual - np.where(np.isnan(near), residual, near)
        mean = np.interp(run.places[cells], MIDDLES, self._mean)
        expected = self.floor + np.exp(mean + before)
        return Judgement(
            cells, losses, expected, looks[0].limit * looks[0].spread * share, departures
        )

    def _looks(
        self, cells: NDArray[np.int64], counts: Floats, scatter: float, metrics: int
    ) -> list["_Look"]:
        """Return the tests to apply at the cells in which a training was measured."""
        from scipy.special import stdtrit  # noqa: PLC0415 - takes long, and few ask for this

        residuals, own = self._residuals[:, cells], np.maximum(self._counts[cells], 1)
        free, chance = len(self.members) - 1, FALSE_ALARMS / metrics / 4
        share = 1 - self.floor / (np.exp(self._mean[cells]) + self.floor)
        noise = [(scatter / share) ** 2 / counts, (self._scatter / share) ** 2 / own]
        found = []
        first = np.zeros(len(cells), np.int64)
        for width in WIDTHS:
            shifts = _shifts(residuals, width, first)
            spread = _spread(shifts)
            # A run that scatters more, or is measured less often, than members shifts more.
            mine, theirs = (_mean_of(each, width) * (1 / width + 1 / BEFORE) for each in noise)
            limit = max(float(-stdtrit(3 * free, chance / SHIFTS)), _largest(shifts, spread))
            wide = np.sqrt(spread**2 + np.maximum(mine - theirs, 0) + LEAST_SPREAD**2)
            found.append(_Look(width, limit, wide, shift=True))
        levels = _levels(residuals, LEVEL_WIDTH)
        spread = _spread(levels)
        limit = max(float(-stdtrit(free, chance / LEVELS)), _largest(levels, spread))
        mine, theirs = (_mean_of(each, LEVEL_WIDTH) / LEVEL_WIDTH for each in noise)
        wide = np.sqrt(spread**2 + np.maximum(mine - theirs, 0) + LEAST_SPREAD**2)
        found.append(_Look(LEVEL_WIDTH, limit, wide, shift=False))
        return found


class _Look(NamedTuple):
    """One test: over how many cells, the limit in spreads, and the spread."""

    width: int
    limit: float
    spread: Floats
    shift: bool

    def values(self, residual: Floats, first: int) -> Floats:
        """Return the tested values of a training whose last return to the family was at `first`."""
        if self.shift:
            return _shifts(residual, self.width, np.full(len(residual), first))
        return _levels(residual, self.width)


def _departures(
    residual: Floats, looks: Sequence[_Look], share: Floats, cells: NDArray[np.int64]
) -> list[Departure]:
    """Return when a training left its family, going through its cells in order.

    A training that has left, and neither comes back nor settles, is reported once. A training that
    has settled away from its family can leave again: whatever happens to it then is news.
    """
    told, away = list[Departure](), list[Departure]()
    shifts = [look for look in looks if look.shift]
    level, near = _is_level(residual, looks[0]), np.zeros(len(residual), bool)
    found = _next(residual, looks, 0, near)
    while found is not None:
        at, look, value = found
        since = max(at - look.width + 1, 0)
        if not away:
            home = float(residual[since : at + 1].mean()) - value
            near = np.abs(residual - home) < look.limit * looks[0].spread / 2
        apart = float(np.expm1(value) * share[at])
        away.append(Departure(int(cells[since]), int(cells[at]), apart))
        back = _first_run(near, BACK, at + 1)
        rest = _first_run(level, 1, at + SETTLED)
        found = None if rest is None else _next(residual, shifts, rest - SETTLED + 1, near)
        if back is not None and (found is None or back <= found[0]):
            told += [each._replace(back=int(cells[back])) for each in away]
            away = []
            found = _next(residual, looks, back - BACK + 1, np.zeros_like(near))
    return told + away


def _first_run(true: NDArray[np.bool_], length: int, start: int) -> int | None:
    """Return the end of the first run of `length` true positions from a start on."""
    ends = range(start + length - 1, len(true))
    return next((end for end in ends if true[end - length + 1 : end + 1].all()), None)


def _is_level(residual: Floats, look: _Look) -> NDArray[np.bool_]:
    """Return at which positions the last `SETTLED` cells are as near to their mean as members."""
    found = np.zeros(len(residual), bool)
    if len(residual) >= SETTLED:
        windows = np.lib.stride_tricks.sliding_window_view(residual, SETTLED)
        apart = np.abs(windows - windows.mean(axis=1, keepdims=True)).max(axis=1)
        found[SETTLED - 1 :] = apart < look.limit * look.spread[SETTLED - 1 :] / 2
    return found


def _next(
    residual: Floats, looks: Sequence[_Look], first: int, near: NDArray[np.bool_]
) -> tuple[int, _Look, float] | None:
    """Return the first position at which a training is too far off, by which test, and how far.

    Args:
        residual: How far it is above its family's mean in each cell.
        looks: The tests.
        first: The first position of those that it is compared with.
        near: The positions that are no departure, because the training is near its family.
    """
    best: tuple[int, _Look, float] | None = None
    for look in looks:
        values = look.values(residual, first)
        start = first + (look.width if first else 0)
        too_far = np.abs(values[start:]) > look.limit * look.spread[start:]
        far = np.flatnonzero(too_far & ~near[start:])
        if len(far) and (best is None or start + far[0] < best[0]):
            at = int(start + far[0])
            best = at, look, float(values[at])
    return best


def _shifts(curves: Floats, width: int, first: NDArray[np.int64]) -> Floats:
    """Return the mean of the last cells less that of the cells before them, from `first` on."""
    count = curves.shape[-1]
    sums = np.concatenate((np.zeros((*curves.shape[:-1], 1)), np.cumsum(curves, -1)), -1)
    ends = np.arange(1, count + 1)
    middle = ends - width
    begins = np.maximum(middle - BEFORE, first)
    sizes = middle - begins
    known = sizes >= LEAST_BEFORE
    found = np.full(curves.shape, np.nan)
    end, mid, begin = ends[known], middle[known], begins[known]
    late = (sums[..., end] - sums[..., mid]) / width
    found[..., known] = late - (sums[..., mid] - sums[..., begin]) / sizes[known]
    return found


def _levels(curves: Floats, width: int) -> Floats:
    """Return the running mean of the last cells; NaN for the first ones."""
    found = np.full(curves.shape, np.nan)
    if curves.shape[-1] >= width:
        windows = np.lib.stride_tricks.sliding_window_view(curves, width, axis=-1)
        found[..., width - 1 :] = windows.mean(axis=-1)
    return found


def _spread(values: Floats) -> Floats:
    """Return the spread of members at each cell, from many cells around it or from its neighbours.

    The larger one counts: early in a training, members differ more from one cell to the next.
    """
    known = ~np.isnan(values)
    sums, counts = (np.nan_to_num(values) ** 2).sum(axis=0), known.sum(axis=0).astype(np.float64)
    found = [
        np.convolve(sums, window, "same") / np.maximum(np.convolve(counts, window, "same"), 1)
        for cells in (NEAR, AROUND)
        for window in [np.ones(min(2 * cells + 1, len(sums)))]
    ]
    spread: Floats = np.sqrt(np.maximum(*found))
    return spread


def _mean_of(values: Floats, width: int) -> Floats:
    """Return the running mean of the last values."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    found: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return found


def _largest(values: Floats, spread: Floats) -> float:
    """Return how many spreads the farthest member is away: no member may be reported."""
    ratios = np.abs(values) / np.sqrt(spread**2 + LEAST_SPREAD**2)
    return float(np.nanmax(ratios, initial=0.0))


def _filled(curve: Curve) -> Floats:
    """Return a complete curve at the middle of each cell, without gaps."""
    known = curve.counts > 0
    found: Floats = np.interp(MIDDLES, curve.places[known], curve.means[known])
    return found


def _apart(losses: Floats, floor: float) -> float:
    """Return how far apart members are with a floor, each brought to the common level."""
    curves = np.log(losses - floor)
    apart = curves - curves.mean(axis=0)
    apart -= apart.mean(axis=1, keepdims=True)
    share = (losses - floor) / losses
    return float(np.sqrt(np.mean((apart * share) ** 2)))
