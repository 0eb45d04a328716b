"""Whether a training keeps to its family: the finished trainings of the same template.

The losses of trainings that differ in seed, length or size alone fall on one curve when the step is
taken as a part of the whole training, and the loss as its distance from a floor, up to a factor
(Qiu et al., Scaling Collapse Reveals Universal Dynamics in Compute-Optimally Trained Neural
Networks, arXiv 2507.02119). So with `L` the mean of what was measured in a hundredth of the
training, its cell, a member's curve is

    y = log(L - L0),    y_i(cell) = m(cell) + level_i + deviation_i(cell)

with the family's floor `L0`, chosen so that its members lie closest. A training is judged by the
same residual `y - m` in two ways: by its level, against the levels of the members; and by how far
it has shifted from its own last cells, against how far the members shift. The second tells what
has just happened, however well the run stood before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELLS = 100
"""Into so many parts of equal length a training is cut."""

MIDDLES = np.arange(CELLS) + 0.5

LEAST_MEMBERS = 5
"""With fewer finished trainings nothing is said: a spread of four is hardly one."""

FALSE_ALARMS = 0.02
"""In which part of all trainings that keep to the family one is told all the same, about."""

SHIFTS, LEVELS = 60, 15
"""How many independent looks at a training its shifts, and its levels, amount to: neighbours are
alike, and levels more so."""

WIDTHS = (1, 2, 3, 4)
"""Over how many cells a shift is looked at."""

BEFORE, LEAST_BEFORE = 10, 3
"""Against how many cells before them, at most and at least."""

LEVEL_WIDTH = 3
"""Over how many cells the level is looked at."""

NEAR, AROUND = 1, 8
"""How far members are apart at a cell is seen at so many cells to either side, too."""

LEAST_SPREAD = 5e-4
"""Members that lie closer than that are taken to be so far apart, as a fraction."""

TOO_FAR = 0.1
"""If less than this part of the loss cannot be told from scatter, nothing is."""

FLOORS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.85, 0.9)
"""Which parts of the lowest end are tried as the floor."""

BACK = 3
"""For so many cells a training is near its family again before it can leave it once more."""

WHOLE = 0.97
"""Up to this part of its plan a finished training was measured."""

DIFFERENCES = 4096
"""Of so many of the newest differences the scatter is taken."""

SAME_PATH, FIRST_CELLS = 0.05, 5
"""By which part of the peak learning rates may differ that take one path, and how many first cells
are not looked at: a warmup of so many steps is another part of a longer training."""

MEASURED = 0.5
"""In this part of the cells, at least, a member was measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What was measured of one training, by cells.

    Attributes:
        name: The session's name.
        means: The mean loss in each cell; NaN where none was measured; float64[CELLS].
        counts: How many measurements that is of.
        places: Where they are in the mean, in cells; NaN where there are none.
        scatter: The standard deviation of a single measurement, as a fraction of the loss.
    """

    name: str
    means: Floats
    counts: Floats
    places: Floats
    scatter: float

    @property
    def reached(self) -> int:
        """How many cells are complete: a later one was measured, or it is the last."""
        known = np.flatnonzero(self.counts)
        if not len(known):
            return 0
        last = int(known[-1])
        return CELLS if last == CELLS - 1 else last


class Gathering:
    """What was measured of a training, by cells, as it comes."""

    def __init__(self) -> None:
        self._sums, self._counts, self._places = (np.zeros(CELLS) for _ in range(3))
        self._apart = np.zeros(0)

    def add(self, parts: Floats, losses: Floats, first: int = 0) -> None:
        """Take all that was measured from a cell on, in place of what is known of it.

        Args:
            parts: Where each loss was measured, as a part of the training from 0 to below 1,
                ascending; those below the cell are left out.
            losses: What was measured there; what is not above 0 and finite is left out.
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
        # Of neighbours' differences, which the fall of the loss is hardly in; by their median,
        # which outliers are not in.
        middle = float(np.median(self._apart)) if len(self._apart) else 0.0
        return Curve(name, means, self._counts.copy(), places, middle / 0.6745 / 2**0.5)


def curve_of(name: str, parts: Floats, losses: Floats) -> Curve:
    """Return the curve of a training that was measured at some parts of it, ascending."""
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
    """Return the first cell in which a training has another learning rate than its family.

    Args:
        rates: Its rate in the middle of each cell so far.
        others: The family's, in the same unit or another one: what counts is the form.
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
        since: The first cell of those that were too far.
        found: The cell at whose end that was seen.
        apart: By how much its loss is above where the family would have it, as a fraction of the
            loss; below 0 if it is under it.
        back: The cell from which on it was near again; None if it is not.
    """

    since: int
    found: int
    apart: float
    back: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What is known of a training by its family.

    Attributes:
        cells: The complete cells that were measured; int64[n].
        losses: The loss in each.
        expected: What the family would have it, from where it stood before.
        reach: By how much of the loss it may be off in one cell, as a fraction.
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
        """Each member against the mean of the others."""
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
        # A loss below the family's floor is far below it.
        above = np.log(np.maximum(losses - self.floor, 1e-3 * losses))
        # Early, where the loss falls steeply, it counts where in the cell it was measured.
        found: Floats = above - np.interp(curve.places[cells], MIDDLES, self._mean)
        return found

    @property
    def least(self) -> float:
        """Which lasting shift is seen, as a part of the loss, in the middle of a training."""
        cells = np.arange(FIRST_CELLS, CELLS)
        looks = self._looks(cells, np.maximum(self._counts[cells], 1), self._scatter, 1)
        width = looks[len(WIDTHS) - 1]
        share = 1 - self.floor / (np.exp(self._mean[cells]) + self.floor)
        return float(np.median((width.limit * width.spread * share)[LEAST_BEFORE + 4 :]))

    def judged(self, run: Curve, until: int = CELLS, metrics: int = 1) -> Judgement:
        """Judge a training.

        Args:
            run: What was measured of it so far.
            until: The first cell that is not looked at any more.
            metrics: How many losses of it are judged: the more, the surer each has to be.
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
        """Return what is looked at, at the cells that a training was measured in."""
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
            # What scatters more, or is measured less often, than members shifts more by that.
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
    """One way of looking: over how many cells, what is too far in spreads, and the spread."""

    width: int
    limit: float
    spread: Floats
    shift: bool

    def values(self, residual: Floats, first: int) -> Floats:
        """Return what is looked at of a training whose last return to the family was at `first`."""
        if self.shift:
            return _shifts(residual, self.width, np.full(len(residual), first))
        return _levels(residual, self.width)


def _departures(
    residual: Floats, looks: Sequence[_Look], share: Floats, cells: NDArray[np.int64]
) -> Iterator[Departure]:
    """Return when a training left its family, going through its cells in their order."""
    first = 0
    while True:
        found = _next(residual, looks, first)
        if found is None:
            return
        at, look, value = found
        since = max(at - look.width + 1, 0)
        centre = float(residual[since : at + 1].mean()) - value
        left = Departure(int(cells[since]), int(cells[at]), float(np.expm1(value) * share[at]))
        near = np.abs(residual - centre) < look.limit * looks[0].spread / 2
        ends = range(at + BACK, len(residual))
        back = next((end for end in ends if near[end - BACK + 1 : end + 1].all()), None)
        if back is None:
            yield left
            return
        yield left._replace(back=int(cells[back]))
        first = back - BACK + 1


def _next(residual: Floats, looks: Sequence[_Look], first: int) -> tuple[int, _Look, float] | None:
    """Return the first position at which a training is too far, how that is seen, and how far."""
    best: tuple[int, _Look, float] | None = None
    for look in looks:
        values = look.values(residual, first)
        start = first + (look.width if first else 0)
        far = np.flatnonzero(np.abs(values[start:]) > look.limit * look.spread[start:])
        if len(far) and (best is None or start + far[0] < best[0]):
            at = int(start + far[0])
            best = at, look, float(values[at])
    return best


def _shifts(curves: Floats, width: int, first: NDArray[np.int64]) -> Floats:
    """Return the mean of the last cells less that of those before them, from `first` on."""
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
    """Return the mean of the last cells, up to each; of the first ones it is NaN."""
    found = np.full(curves.shape, np.nan)
    if curves.shape[-1] >= width:
        windows = np.lib.stride_tricks.sliding_window_view(curves, width, axis=-1)
        found[..., width - 1 :] = windows.mean(axis=-1)
    return found


def _spread(values: Floats) -> Floats:
    """Return how far members are apart at each cell, by those around it, or its neighbours alone.

    The more counts: early in a training members are farther apart from one cell to the next.
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
    """Return the mean of the last values, up to each."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    found: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return found


def _largest(values: Floats, spread: Floats) -> float:
    """Return how many spreads the farthest member is away: none of them is to be told of."""
    ratios = np.abs(values) / np.sqrt(spread**2 + LEAST_SPREAD**2)
    return float(np.nanmax(ratios, initial=0.0))


def _filled(curve: Curve) -> Floats:
    """Return a whole curve in the middle of each cell, without gaps."""
    known = curve.counts > 0
    found: Floats = np.interp(MIDDLES, curve.places[known], curve.means[known])
    return found


def _apart(losses: Floats, floor: float) -> float:
    """Return how far members are apart with a floor, each brought to the common level."""
    curves = np.log(losses - floor)
    apart = curves - curves.mean(axis=0)
    apart -= apart.mean(axis=1, keepdims=True)
    share = (losses - floor) / losses
    return float(np.sqrt(np.mean((apart * share) ** 2)))
