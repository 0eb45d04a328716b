"""Laws that are written out: values for pieces, through knots, or for each step."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Duration, StepPoint, steps_of
from pacesetter_service.core.model import Level, Model, Real
from pacesetter_service.core.schedules import numeric
from pacesetter_service.core.schedules.base import (
    Base,
    Schedule,
    Steps,
    Values,
    at_steps,
    level_value,
)
from pacesetter_service.core.schedules.cost import PER_CALL, Cost, Pricing, work
from pacesetter_service.core.schedules.eases import AnyEase, Linear
from pacesetter_service.core.schedules.out_of_range import OutOfRange, inside, refused

MAX_PIECES = 10_000
"""The most boundaries or knots that a law may have."""

FEW_PIECES = 1000
"""Up to this many knots, the cost of a block assumes that it touches all pieces."""

MAX_TABLE = 100_000
"""The most values that a table may have."""


class PiecewiseConstant(Schedule):
    """A value for each piece between ascending boundaries.

    A boundary belongs to the next piece, unless `boundary="previous"`. One named twice makes a
    piece of no length, whose value is never used. The first piece has no start and the last one no
    end.
    """

    formula: ClassVar[str] = "levels[number of boundaries <= t]; < t with boundary previous"
    source: ClassVar[str] = (
        "torch SequentialLR of constants; keras PiecewiseConstantDecay: previous"
    )
    example: ClassVar[dict[str, Any]] = {"boundaries": [30, 80], "levels": [0.1, 0.01, 0.001]}

    kind: Literal["piecewise_constant"] = "piecewise_constant"
    boundaries: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=MAX_PIECES + 1)]
    boundary: Literal["next", "previous"] = "next"

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, boundaries: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
        return ascending(boundaries)

    def _faults(self) -> Iterator[PydanticCustomError]:
        if len(self.levels) != len(self.boundaries) + 1:
            yield PydanticCustomError(
                "wrong_number_of_levels",
                "{boundaries} boundaries make {pieces} pieces, but there are {levels} levels;"
                " give one level for each piece",
                {
                    "boundaries": len(self.boundaries),
                    "pieces": len(self.boundaries) + 1,
                    "levels": len(self.levels),
                },
            )

    @staticmethod
    def of_powers(factor: float, boundaries: Sequence[StepPoint]) -> "PiecewiseConstant":
        """Return the law that multiplies 1 by a factor at each of some ascending boundaries.

        Levels that overflow are infinite, which no caller could write. Sealing refuses them, as it
        does those of any other growth.
        """
        levels = tuple(numeric.raised(factor, passed) for passed in range(len(boundaries) + 1))
        return PiecewiseConstant.model_construct(boundaries=tuple(boundaries), levels=levels)

    def own_cost(self) -> Cost:  # noqa: D102
        return work(self.passes) + Cost(call=200.0 * len(self.levels))

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        table = np.array([np.nan if level == "base" else level for level in self.levels])
        side: Literal["left", "right"] = "right" if self.boundary == "next" else "left"
        piece = np.searchsorted([steps_of(each) for each in self.boundaries], t, side=side)
        values = table[piece]
        return np.where(np.isnan(values), base, values)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return "hold"


class Knot(Model):
    """A value at a step."""

    at: StepPoint = Field(description="the step of the knot")
    level: Level = Field(description='the value there: a number, or `"base"` for the base')


class Knots(Schedule):
    """Through given values at given steps, in the shape of an ease between each two.

    Two knots at one step are a jump: from there on the later one counts. `out_of_range` says what
    there is before the first knot and after the last one: `hold` their values, `bounce` the way
    back and forth again, `extrapolate` the formula of the first and of the last piece, `error`
    nothing: sealing is refused there.
    """

    formula: ClassVar[str] = "ease(level[i], level[i + 1]) between knots i and i + 1"
    source: ClassVar[str] = "ignite PiecewiseLinear; optax.piecewise_interpolate_schedule"
    example: ClassVar[dict[str, Any]] = {
        "points": [{"at": 0, "level": 0.0}, {"at": 30, "level": 0.1}, {"at": 90, "level": 0.001}]
    }

    kind: Literal["knots"] = "knots"
    points: Annotated[tuple[Knot, ...], Field(min_length=1, max_length=MAX_PIECES)]
    ease: AnyEase = Linear()
    out_of_range: OutOfRange = "hold"

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: tuple[Knot, ...]) -> tuple[Knot, ...]:
        ascending(tuple(point.at for point in points))
        return points

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.out_of_range != "extrapolate":
            return
        ends = [[point.at for point in pair] for pair in (self.points[:2], self.points[-2:])]
        if any(len(set(places)) == 1 for places in ends):
            yield PydanticCustomError(
                "no_piece_to_go_on",
                "To extrapolate, the first two knots must lie at two steps, and the last two too;"
                ' move them, or set `out_of_range` to "hold"',
            )

    def cost(self, of: Pricing) -> Cost:  # noqa: D102
        pieces, ease = len(self.points), of(self.ease)
        each = work(4) + ease
        if pieces <= FEW_PIECES:  # one block may touch all of them
            return self.own_cost() + Cost(each.call * pieces, each.step + pieces)
        # With more knots, a block touches at most one piece at each of its steps.
        return self.own_cost() + Cost(PER_CALL * pieces, each.call + each.step + pieces)

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        places = np.array([steps_of(point.at) for point in self.points], dtype=np.float64)
        first, last = float(places[0]), float(places[-1])
        within = t if self.out_of_range == "hold" else inside(t, first, last, self.out_of_range)
        values = self._through(places, within, base)
        return refused(values, t, first, last, self.out_of_range)

    def _through(self, places: Values, t: Steps, base: Base) -> Values:
        """Return the values at times that lie on a piece; elsewhere those of the ends."""
        levels = [level_value(point.level, base) for point in self.points]
        values = np.empty(t.shape)
        after = self._after(places, t)
        for index in np.unique(after):
            here = after == index
            if index in (0, len(places)):
                values[here] = at_steps(levels[max(index - 1, 0)], here)
                continue
            start, end = at_steps(levels[index - 1], here), at_steps(levels[index], here)
            begin, until = float(places[index - 1]), float(places[index])
            values[here] = self.ease.between(start, end, t[here] - begin, until - begin)
        return values

    def _after(self, places: Values, t: Steps) -> NDArray[np.int64]:
        """Return the knot that ends the piece of each time; from the last knot on there is none.

        Where the formula is extrapolated, the first or the last piece is used.
        """
        after = np.searchsorted(places, t, side="right")
        if self.out_of_range == "extrapolate":
            after = np.where(t < places[0], 1, np.where(t > places[-1], len(places) - 1, after))
        return after


class Table(Schedule):
    """A value for each step, written out.

    `out_of_range` says what there is before the first value and after the last one: `hold` these
    two, `bounce` the way back and forth again, in which neither of them comes twice in a row,
    `error` nothing: sealing is refused there. To start from the first value again put it into
    `repeat`.
    """

    formula: ClassVar[str] = "levels[min(floor(t), length - 1)]"
    source: ClassVar[str] = "elementary; a realised curve, to be replayed"
    example: ClassVar[dict[str, Any]] = {"levels": [0.1, 0.08, 0.05, 0.05, 0.01]}

    kind: Literal["table"] = "table"
    levels: Annotated[tuple[Real, ...], Field(min_length=1, max_length=MAX_TABLE)]
    out_of_range: Literal["hold", "bounce", "error"] = "hold"

    @cached_property
    def _array(self) -> Values:
        return np.array(self.levels)

    def values(self, t: Steps, base: Base) -> Values:  # noqa: ARG002, D102 - a table has no base
        step, last = np.floor(t), len(self.levels) - 1.0
        values = self._array[inside(step, 0.0, last, self.out_of_range).astype(np.int64)]
        return refused(values, step, 0.0, last, self.out_of_range)


def ascending(places: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
    """Refuse places that do not ascend; those in other units are compared once they are steps."""
    steps = [place for place in places if not isinstance(place, Duration)]
    if any(b < a for a, b in pairwise(steps)):
        raise PydanticCustomError("not_ascending", "Sort these in ascending order")
    return places
