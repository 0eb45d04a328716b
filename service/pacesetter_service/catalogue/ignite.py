"""Presets of ignite, by its own names, parameters and defaults.

Lengths are in events of the engine that a scheduler is attached to, which are optimizer steps here.
For a scheduler that is attached to epochs, write lengths in epochs. Values are learning rates
themselves and not fractions of the base, as in ignite; `"base"` stands for the base where a
schedule has only one level.

`LRScheduler` around a torch scheduler is that scheduler, and `ParamGroupScheduler` is a schedule
for each group. The StateParam schedulers are laws that have other names here: PiecewiseLinear as
below, Exp, Step and MultiStep as in torch. ReduceLROnPlateauScheduler is the controller `plateau`.
"""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, whole
from pacesetter_service.core.model import Flag, NonNegative, Positive, Real
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Repeat, Sequence, Shift
from pacesetter_service.core.schedules.combinators import Product, Relative, Sum
from pacesetter_service.core.schedules.eases import Haversine
from pacesetter_service.core.schedules.named.cycles import Rate
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, Knot, Knots, ascending
from pacesetter_service.core.schedules.warmup import Splice


class Cyclical(Named):
    """What ignite's cycles share: from `start_value` to `end_value`, and what each cycle changes.

    With a `cycle_mult` each cycle is that many times as long as the one before, truncated to whole
    steps. A `cycle_mult` below 1 ends in a division by zero in ignite and is refused here.
    """

    start_value: NonNegative
    end_value: NonNegative
    cycle_size: StepCount
    cycle_mult: Annotated[Real, Field(ge=1)] = 1.0
    start_value_mult: Positive = 1.0
    end_value_mult: Positive = 1.0
    warmup_duration: StepPoint = 0

    @model_validator(mode="after")
    def _more_than_one_step(self) -> Self:
        if self.cycle_size == 1:
            raise PydanticCustomError("cycle_of_one", "`cycle_size` must be at least 2")
        return self

    @model_validator(mode="after")
    def _warmup_keeps_its_share(self) -> Self:
        if self.warmup_duration != 0 and not self.cycle_mult.is_integer():
            raise PydanticCustomError(
                "uneven_cycles",
                "With a `warmup_duration`, cycle and warmup would each be cut to whole steps in its"
                " own way; give a whole `cycle_mult`",
            )
        return self

    @abstractmethod
    def way(self, start: float, end: float) -> Schedule:
        """Return the law of a cycle without its warmup."""

    def expand(self) -> Schedule:  # noqa: D102
        start, end = self.start_value, self.end_value
        if self.start_value_mult == self.end_value_mult == 1.0:
            return self._repeated(self._cycle(start, end, start), 1.0)
        # The two ends shrink in their own ways, so their contributions are added up.
        of_start = self._cycle(start, 0.0, start * self.start_value_mult)
        of_end = self._cycle(0.0, end, 0.0)
        parts = (
            self._repeated(Relative(schedule=of_start), self.start_value_mult),
            self._repeated(Relative(schedule=of_end), self.end_value_mult),
        )
        return Product(schedule=Hold(value=1.0), factors=(Sum(of=parts),))

    def _cycle(self, start: float, end: float, restart: float) -> Schedule:
        way, warmup = self.way(start, end), whole(self.warmup_duration)
        if warmup == 0:
            return way
        back = Ramp(start=end, end=restart, steps=warmup)
        cycle_size = whole(self.cycle_size)
        return Sequence(parts=(Part(schedule=way, steps=cycle_size), Part(schedule=back)))

    def _repeated(self, cycle: Schedule, mult: float) -> Schedule:
        return Repeat(
            schedule=cycle,
            period=whole(self.cycle_size) + whole(self.warmup_duration),
            growth=self.cycle_mult,
            peak_decay=mult,
            truncated=True,
        )


class LinearCyclicalScheduler(Cyclical):
    """From `start_value` to `end_value` and back in straight lines, again and again.

    With `monotonic` it goes there only, and jumps back, or rises back over `warmup_duration`. As in
    ignite, the changed start of the next cycle is what such a warmup aims at.
    """

    formula: ClassVar[str] = (
        "end_value + (start_value - end_value) * abs(p - 0.5) * 2, p the part of the cycle that has"
        " passed; monotonic: start_value + (end_value - start_value) * p"
    )
    source: ClassVar[str] = "ignite.handlers.param_scheduler.LinearCyclicalScheduler"
    example: ClassVar[dict[str, Any]] = {"start_value": 0.1, "end_value": 0.001, "cycle_size": 100}

    kind: Literal["ignite.LinearCyclicalScheduler"] = "ignite.LinearCyclicalScheduler"
    monotonic: Flag = False

    @model_validator(mode="after")
    def _warmup_only_after_a_way(self) -> Self:
        if self.warmup_duration != 0 and not self.monotonic:
            raise PydanticCustomError(
                "warmup_of_a_triangle",
                "A cycle that comes back by itself has no warmup; leave `warmup_duration` out, or"
                " set `monotonic` to true",
            )
        return self

    def way(self, start: float, end: float) -> Schedule:  # noqa: D102
        steps = whole(self.cycle_size)
        if self.monotonic:
            return Ramp(start=start, end=end, steps=steps)
        wave = Ramp(start=end, end=start, steps=steps / 2, out_of_range="bounce")
        return Shift(schedule=wave, by=steps / 2)


class CosineAnnealingScheduler(Cyclical):
    """From `start_value` to `end_value` in half a cosine wave, again and again.

    It jumps back, or rises back over `warmup_duration`. As in ignite, the changed start of the next
    cycle is what such a warmup aims at.
    """

    formula: ClassVar[str] = (
        "start_value + (end_value - start_value) / 2 * (1 - cos(pi * p)), p the part of the cycle"
        " that has passed"
    )
    source: ClassVar[str] = "ignite.handlers.param_scheduler.CosineAnnealingScheduler"
    example: ClassVar[dict[str, Any]] = {"start_value": 0.1, "end_value": 0.001, "cycle_size": 100}

    kind: Literal["ignite.CosineAnnealingScheduler"] = "ignite.CosineAnnealingScheduler"

    def way(self, start: float, end: float) -> Schedule:  # noqa: D102
        return Ramp(start=start, end=end, steps=whole(self.cycle_size), ease=Haversine())


class PiecewiseLinear(Named):
    """Straight lines through values at milestones; the first and the last value are held.

    As in ignite, a milestone named twice is a jump.
    """

    formula: ClassVar[str] = "the line between (milestone, value) i and i + 1"
    source: ClassVar[str] = "ignite.handlers.param_scheduler.PiecewiseLinear"
    example: ClassVar[dict[str, Any]] = {"milestones_values": [[0, 0.01], [100, 0.1], [900, 0.0]]}

    kind: Literal["ignite.PiecewiseLinear"] = "ignite.PiecewiseLinear"
    milestones_values: Annotated[
        tuple[tuple[StepPoint, Rate], ...], Field(min_length=1, max_length=MAX_PIECES)
    ]

    @model_validator(mode="after")
    def _milestones_ascend(self) -> Self:
        ascending(tuple(milestone for milestone, _ in self.milestones_values))
        return self

    def expand(self) -> Schedule:  # noqa: D102
        return Knots(points=tuple(Knot(at=at, level=level) for at, level in self.milestones_values))


class ConcatScheduler(Named):
    """One schedule after the other, each on a clock of its own; the last one has no end."""

    formula: ClassVar[str] = "schedulers[i](t - start of i), i the one that t falls into"
    source: ClassVar[str] = "ignite.handlers.param_scheduler.ConcatScheduler"
    example: ClassVar[dict[str, Any]] = {
        "schedulers": [
            {"kind": "ignite.PiecewiseLinear", "milestones_values": [[0, 0.0], [99, 0.1]]},
            {
                "kind": "ignite.CosineAnnealingScheduler",
                "start_value": 0.1,
                "end_value": 0.001,
                "cycle_size": 900,
            },
        ],
        "durations": [100],
    }

    kind: Literal["ignite.ConcatScheduler"] = "ignite.ConcatScheduler"
    schedulers: Annotated[tuple[AnySchedule, ...], Field(min_length=2, max_length=256)]
    durations: Annotated[tuple[StepCount, ...], Field(min_length=1, max_length=255)]

    @model_validator(mode="after")
    def _all_but_the_last_end(self) -> Self:
        if len(self.schedulers) != len(self.durations) + 1:
            raise PydanticCustomError(
                "wrong_number_of_durations", "Give a duration for each scheduler but the last one"
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        *first, last = self.schedulers
        parts = (
            Part(schedule=law, steps=steps)
            for law, steps in zip(first, self.durations, strict=True)
        )
        return Sequence(parts=(*parts, Part(schedule=last)))


class CreateLrSchedulerWithWarmup(Named):
    """A straight line to `warmup_end_value`, which it ends with, and then another schedule.

    As in ignite, the line reaches its end at step `warmup_duration - 1`, and if the schedule starts
    with just this value, it goes on from its step 1 instead of saying it again. With no
    `warmup_end_value` the line ends at the base; ignite takes what a torch scheduler has made of it
    by then, which for most of them is the same.
    """

    formula: ClassVar[str] = (
        "warmup_start_value + (warmup_end_value - warmup_start_value) * t / (warmup_duration - 1)"
        " for t < warmup_duration, then lr_scheduler(t - warmup_duration), or one step on"
    )
    source: ClassVar[str] = "ignite.handlers.param_scheduler.create_lr_scheduler_with_warmup"
    example: ClassVar[dict[str, Any]] = {
        "lr_scheduler": {"kind": "exponential", "gamma": 0.98},
        "warmup_start_value": 0.0,
        "warmup_duration": 100,
    }

    kind: Literal["ignite.create_lr_scheduler_with_warmup"] = (
        "ignite.create_lr_scheduler_with_warmup"
    )
    lr_scheduler: AnySchedule
    warmup_start_value: Rate
    warmup_duration: StepCount
    warmup_end_value: Rate | None = None

    @model_validator(mode="after")
    def _more_than_one_step(self) -> Self:
        if self.warmup_duration == 1:
            raise PydanticCustomError("warmup_of_one", "`warmup_duration` must be at least 2")
        return self

    def expand(self) -> Schedule:  # noqa: D102
        end: Rate = "base" if self.warmup_end_value is None else self.warmup_end_value
        line = Ramp(start=self.warmup_start_value, end=end, steps=whole(self.warmup_duration) - 1)
        return Splice(first=line, steps=self.warmup_duration, second=self.lr_scheduler)
