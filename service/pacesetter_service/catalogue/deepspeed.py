"""Presets of DeepSpeed, by its own names, parameters and defaults.

DeepSpeed's engine steps its scheduler after each optimizer step, and before the first one only lets
it set an initial value. So a scheduler's value for `last_batch_iteration` is the learning rate of
the step after that one, and most warmups have two steps at their start.

Write a scheduler with a list of values for the parameter groups as one schedule for each group.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from pacesetter_service.core.lengths import StepCount, StepPoint, whole
from pacesetter_service.core.model import Flag, Fraction, Level, NonNegative
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Delay, Part, Sequence, Shift, Span, Stair
from pacesetter_service.core.schedules.combinators import Channels, Clamp, Product, Relative, Sum
from pacesetter_service.core.schedules.eases import (
    Cosine,
    Ease,
    Linear,
    Logarithmic,
    Reversed,
    Stairs,
)
from pacesetter_service.core.schedules.named.cycles import Rate
from pacesetter_service.core.schedules.primitives import Hold, InverseTime, Ramp, TriangleWave
from pacesetter_service.core.schedules.tables import MAX_PIECES

StairCount = Annotated[int, Strict(), Field(ge=0, le=MAX_PIECES)]
"""How many stairs half a cycle has; 0 means a slope."""

BELOW_ONE = 1.0 - 2.0**-24
"""The largest beta of Adam that is below 1 in float32 too: at 1 its bias correction is zero."""

RISES: dict[str, Ease] = {"log": Logarithmic(), "linear": Linear()}


class LRRangeTest(Named):
    """Grow from `lr_range_test_min_lr` in a straight line, or in stairs, for ever.

    It has no end: stop the training when the loss does. The base is not used. A rate of 0 is
    constant.
    """

    formula: ClassVar[str] = (
        "lr_range_test_min_lr * (1 + lr_range_test_step_rate * t / lr_range_test_step_size),"
        " the quotient floored with staircase"
    )
    source: ClassVar[str] = "deepspeed.runtime.lr_schedules.LRRangeTest; arXiv:1803.09820"
    example: ClassVar[dict[str, Any]] = {
        "lr_range_test_min_lr": 1e-5,
        "lr_range_test_step_size": 200,
        "lr_range_test_step_rate": 5.0,
    }

    kind: Literal["deepspeed.LRRangeTest"] = "deepspeed.LRRangeTest"
    lr_range_test_min_lr: Rate = 1e-3
    lr_range_test_step_size: StepCount = 2000
    lr_range_test_step_rate: NonNegative = 1.0
    lr_range_test_staircase: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        size = self.lr_range_test_step_size
        line = Ramp(
            start=0.0, end=self.lr_range_test_step_rate, steps=size, out_of_range="extrapolate"
        )
        growth: Schedule = Sum(of=(Hold(value=1.0), line))
        if self.lr_range_test_staircase:
            growth = Stair(schedule=growth, every=size)
        return Product(schedule=Hold(value=self.lr_range_test_min_lr), factors=(growth,))


class OneCycle(Named):
    """Up to `cycle_max_lr`, down again, and then slowly below `cycle_min_lr`, momentum against it.

    As in DeepSpeed, the last part falls by the inverse of the time, and stays at `cycle_min_lr`
    without a `decay_step_size` or a `decay_lr_rate`; a stair count makes a half of the cycle flat
    for each of its stairs, and the second half's is the first's unless given; a second half of 0
    steps falls at once.

    Momentum starts high, where the rate is low. DeepSpeed starts it at `cycle_min_mom` for one
    step, against its own law, sets beta2 to 0.99 beside it, and lets `decay_mom_rate` take it to 1
    and above, where Adam divides by zero; here it does none of that. It ends below 1, by as little
    as float32 can tell from it.
    """

    formula: ClassVar[str] = (
        "cycle_min_lr + (cycle_max_lr - cycle_min_lr) * triangle(t) for t < C,"
        " then cycle_min_lr / (1 + decay_lr_rate * (t - C) / decay_step_size),"
        " with C = cycle_first_step_size + cycle_second_step_size"
    )
    source: ClassVar[str] = "deepspeed.runtime.lr_schedules.OneCycle; arXiv:1803.09820"
    example: ClassVar[dict[str, Any]] = {
        "cycle_min_lr": 1e-4,
        "cycle_max_lr": 1e-3,
        "decay_lr_rate": 0.001,
        "cycle_first_step_size": 1000,
        "decay_step_size": 1000,
    }

    kind: Literal["deepspeed.OneCycle"] = "deepspeed.OneCycle"
    cycle_min_lr: Rate
    cycle_max_lr: Rate
    decay_lr_rate: NonNegative = 0.0
    cycle_first_step_size: StepCount = 2000
    cycle_second_step_size: StepPoint | None = None
    cycle_first_stair_count: StairCount = 0
    cycle_second_stair_count: StairCount | None = None
    decay_step_size: StepPoint = 0
    cycle_momentum: Flag = True
    cycle_min_mom: Fraction = 0.8
    cycle_max_mom: Fraction = 0.9
    decay_mom_rate: NonNegative = 0.0

    @property
    def _second(self) -> int:
        given = self.cycle_second_step_size
        return whole(self.cycle_first_step_size if given is None else given)

    def expand(self) -> Schedule:  # noqa: D102
        rate = self._joined(self._cycle(self.cycle_min_lr, self.cycle_max_lr), self._fading())
        if not self.cycle_momentum:
            return rate
        cycle = self._cycle(self.cycle_max_mom, self.cycle_min_mom)
        return Channels(laws={"lr": rate, "momentum": self._joined(cycle, self._growing())})

    def _joined(self, cycle: Schedule, tail: Schedule) -> Schedule:
        length = whole(self.cycle_first_step_size) + self._second
        return Sequence(parts=(Part(schedule=cycle, steps=length), Part(schedule=tail)))

    def _cycle(self, low: Level, high: Level) -> Schedule:
        first, second = whole(self.cycle_first_step_size), self._second
        stairs = self.cycle_first_stair_count
        back = self.cycle_second_stair_count
        back = stairs if back is None else back
        rise: Schedule = Ramp(start=low, end=high, steps=first, ease=_stairs(stairs))
        if not second:
            return rise
        slope = TriangleWave(start=low, peak=high, up=first, down=second)
        # Stairs are counted from the end of this half, so it falls at its first step, not at its
        # first stair.
        down = Ramp(start=high, end=low, steps=second, ease=Reversed(ease=_stairs(back)))
        fall = Shift(schedule=down, by=-first)
        parts = (
            Part(schedule=rise if stairs else slope, until=first),
            Part(schedule=fall if back else slope),
        )
        return Sequence(parts=parts, clock="global", boundary="previous")

    def _fading(self) -> Schedule:
        bottom = Hold(value=self.cycle_min_lr)
        if self.decay_step_size == 0 or self.decay_lr_rate == 0:
            return bottom
        fading = InverseTime(rate=self.decay_lr_rate, per=whole(self.decay_step_size))
        return Product(schedule=bottom, factors=(fading,))

    def _growing(self) -> Schedule:
        top = Hold(value=self.cycle_max_mom)
        if self.decay_step_size == 0 or self.decay_mom_rate == 0:
            return top
        line = Ramp(
            start=0.0,
            end=self.decay_mom_rate,
            steps=whole(self.decay_step_size),
            out_of_range="extrapolate",
        )
        growth = Sum(of=(Hold(value=1.0), line))
        return Clamp(schedule=Product(schedule=top, factors=(growth,)), max=BELOW_ONE)


def _stairs(count: int) -> Ease:
    return Stairs(ease=Linear(), count=count) if count else Linear()


class Warming(Named):
    """What DeepSpeed's warmups share.

    As in DeepSpeed the shape is logarithmic by default, the first two steps are both at the start,
    and a warmup of one step becomes one of two.
    """

    warmup_num_steps: StepCount = 1000
    warmup_type: Literal["log", "linear"] = "log"

    @property
    def _length(self) -> int:
        return max(whole(self.warmup_num_steps), 2)

    def _rise(self, low: Level, high: Level) -> Ramp:
        return Ramp(start=low, end=high, steps=self._length, ease=RISES[self.warmup_type])

    def _then(self, rise: Schedule, after: Schedule) -> Schedule:
        parts = (Part(schedule=rise, steps=self._length), Part(schedule=after))
        return Delay(schedule=Sequence(parts=parts), by=1)


class WarmupLR(Warming):
    """Rise from `warmup_min_lr` to `warmup_max_lr`, which is then held.

    As in DeepSpeed `warmup_max_lr` is the base unless given, the shape is logarithmic unless told,
    and the first two steps both use `warmup_min_lr`, 0 by default. A warmup of one step is made one
    of two.
    """

    formula: ClassVar[str] = (
        "warmup_min_lr + (warmup_max_lr - warmup_min_lr) * rise(max(t - 1, 0)) with"
        " rise(k) = ln(k + 1) / ln(warmup_num_steps), or k / warmup_num_steps if linear, up to 1"
    )
    source: ClassVar[str] = "deepspeed.runtime.lr_schedules.WarmupLR"
    example: ClassVar[dict[str, Any]] = {"warmup_max_lr": 0.001, "warmup_num_steps": 100}

    kind: Literal["deepspeed.WarmupLR"] = "deepspeed.WarmupLR"
    warmup_min_lr: Rate = 0.0
    warmup_max_lr: Rate | None = None

    def expand(self) -> Schedule:  # noqa: D102
        high = "base" if self.warmup_max_lr is None else self.warmup_max_lr
        return self._then(self._rise(self.warmup_min_lr, high), Hold(value=high))


class WarmupDecayLR(Warming):
    """Rise from `warmup_min_lr` to `warmup_max_lr`, then a line back down to it.

    The warmup is that of `deepspeed.WarmupLR`, but `warmup_max_lr` is 0.001 unless given, whatever
    the base. As in DeepSpeed the line ends at `warmup_min_lr`, which comes a step after
    `total_num_steps`; a training no longer than its warmup falls to it at once.
    """

    formula: ClassVar[str] = (
        "the warmup of deepspeed.WarmupLR, then warmup_min_lr + (warmup_max_lr - warmup_min_lr)"
        " * max(0, (T - k) / (T - warmup_num_steps)) with k = t - 1, T = total_num_steps"
    )
    source: ClassVar[str] = "deepspeed.runtime.lr_schedules.WarmupDecayLR"
    example: ClassVar[dict[str, Any]] = {"total_num_steps": 1000, "warmup_num_steps": 100}

    kind: Literal["deepspeed.WarmupDecayLR"] = "deepspeed.WarmupDecayLR"
    total_num_steps: StepCount
    warmup_min_lr: Rate = 0.0
    warmup_max_lr: Rate = 0.001

    def expand(self) -> Schedule:  # noqa: D102
        low, high = self.warmup_min_lr, self.warmup_max_lr
        left = whole(self.total_num_steps) - self._length
        after: Schedule = Hold(value=low)
        if left > 0:
            # Progress is counted from the end of the line, as in DeepSpeed.
            after = Ramp(start=high, end=low, steps=left, ease=Reversed(ease=Linear()))
        return self._then(self._rise(low, high), after)


class WarmupCosineLR(Warming):
    """Rise to the base, then half a cosine wave down to `cos_min_ratio` of it.

    The warmup is that of `deepspeed.WarmupLR`, from `warmup_min_ratio` of the base. As in DeepSpeed
    the wave is a step ahead: it begins below the base and is at its floor at `total_num_steps`. A
    training no longer than its warmup falls to the floor at once. DeepSpeed gives the very first
    step 0, whatever `warmup_min_ratio` is; here it has that ratio.
    """

    formula: ClassVar[str] = (
        "base * (warmup_min_ratio + (1 - warmup_min_ratio) * rise(k)) for k < W, then"
        " base * (m + (1 - m) * (1 + cos(pi * min(1, (k - W + 1) / (T - W)))) / 2)"
        " with k = max(t - 1, 0), m = cos_min_ratio, W = warmup_num_steps, T = total_num_steps"
    )
    source: ClassVar[str] = "deepspeed.runtime.lr_schedules.WarmupCosineLR"
    example: ClassVar[dict[str, Any]] = {"total_num_steps": 1000, "warmup_num_steps": 100}

    kind: Literal["deepspeed.WarmupCosineLR"] = "deepspeed.WarmupCosineLR"
    total_num_steps: StepCount
    warmup_min_ratio: Fraction = 0.0
    cos_min_ratio: Fraction = 0.0001

    def expand(self) -> Schedule:  # noqa: D102
        left = max(whole(self.total_num_steps) - self._length, 1)
        wave = Ramp(start=1.0, end=self.cos_min_ratio, steps=1, ease=Cosine())
        after = Shift(schedule=Span(schedule=wave, ratio=left), by=1)
        return Relative(schedule=self._then(self._rise(self.warmup_min_ratio, 1.0), after))
