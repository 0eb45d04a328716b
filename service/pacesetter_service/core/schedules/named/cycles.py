"""Cycles: schedules that rise and fall, and may move momentum against the learning rate."""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Length, StepCount, known, whole
from pacesetter_service.core.model import Flag, Fraction, Level, NonNegative, OneOf, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze, Part, Repeat, Sequence
from pacesetter_service.core.schedules.combinators import Channels, Clamp, Relative
from pacesetter_service.core.schedules.eases import Cosine, Ease, Linear
from pacesetter_service.core.schedules.primitives import Ramp, TriangleWave

Rate = Annotated[
    Literal["base"] | NonNegative,
    OneOf('Write a learning rate, not negative, or "base" for the base value'),
]
"""A learning rate, or `"base"`, the base value of its group."""

Divisor = Annotated[
    Literal["inf"] | Positive,
    OneOf('Write a number above 0, or "inf", by which all is 0'),
]
"""The divisor of a learning rate; `"inf"` leaves 0."""


class Cycling(Named):
    """A schedule that may swing momentum against the learning rate."""

    cycle_momentum: Flag = False
    base_momentum: Fraction
    max_momentum: Fraction

    @abstractmethod
    def law(self, low: Level, high: Level) -> Schedule:
        """Return the law between two levels: `low` where the rate starts, `high` at its peak."""

    def with_momentum(self, lr: Schedule) -> Schedule:
        """Add the momentum channel if it is wanted; momentum starts high, where the rate is low."""
        if not self.cycle_momentum:
            return lr
        momentum = self.law(self.max_momentum, self.base_momentum)
        return Channels(laws={"lr": lr, "momentum": momentum})


class Cyclic(Cycling):
    """Between `base_lr` and `max_lr` in triangles, for ever.

    `mode` is `triangular`, `triangular2` (each cycle half as high as the last), `exp_range` (the
    height multiplied by `gamma` at every step) or `sawtooth` (up over `step_size_up` steps and back
    at once; ignite's monotonic LinearCyclicalScheduler). Sizes need not be whole numbers. For an
    envelope of your own put a triangle from 0 into a `product` with an `expression`.
    """

    formula: ClassVar[str] = (
        "base_lr + (max_lr - base_lr) * triangle(t) * envelope(t);"
        " sawtooth: base_lr + (max_lr - base_lr) * (t mod step_size_up) / step_size_up"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.CyclicLR; Smith 2015, arXiv:1506.01186"
    example: ClassVar[dict[str, Any]] = {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 2000}

    kind: Literal["cyclic"] = "cyclic"
    base_lr: Rate
    max_lr: Rate = "base"
    step_size_up: Length = 2000
    step_size_down: Length | None = None
    mode: Literal["triangular", "triangular2", "exp_range", "sawtooth"] = "triangular"
    gamma: NonNegative = 1.0
    base_momentum: Fraction = 0.8
    max_momentum: Fraction = 0.9

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.mode == "sawtooth" and self.step_size_down is not None:
            yield PydanticCustomError(
                "no_way_down", "A sawtooth goes down at once; leave `step_size_down` out"
            )

    def law(self, low: Level, high: Level) -> Schedule:  # noqa: D102
        if self.mode == "sawtooth":
            tooth = Ramp(start=low, end=high, steps=self.step_size_up)
            return Repeat(schedule=tooth, period=self.step_size_up)
        envelopes = {
            "triangular": "constant",
            "triangular2": "halving",
            "exp_range": "exponential",
        }
        return TriangleWave.model_validate(
            {
                "start": low,
                "peak": high,
                "up": self.step_size_up,
                "down": self.step_size_down or self.step_size_up,
                "envelope": envelopes[self.mode],
                "gamma": self.gamma,
            }
        )

    def expand(self) -> Schedule:  # noqa: D102
        return self.with_momentum(self.law(self.base_lr, self.max_lr))


class OneCycle(Cycling):
    """Up to `max_lr` and down to almost nothing, in two or three phases.

    Starts at `max_lr / div_factor`, ends at step `total_steps - 1` with that divided by
    `final_div_factor`, and holds it. With `end_at="total_steps"` the phases end a step later, at
    `pct_start * total_steps` and `total_steps`, as those of fastai and optax do (whose defaults
    differ, and fastai's final divisor is of `max_lr`). Three phases are symmetrical unless
    `pct_final` says where the second one ends, as in optax.linear_onecycle_schedule.
    """

    formula: ClassVar[str] = (
        "anneal(max_lr / div_factor, max_lr) until pct_start * total_steps - 1, then"
        " anneal(max_lr, max_lr / div_factor / final_div_factor) until total_steps - 1;"
        " three_phase comes back to max_lr / div_factor in between"
    )
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.OneCycleLR, which goes negative or rises again at total_steps; "
        "Smith and Topin 2017, arXiv:1708.07120"
    )
    example: ClassVar[dict[str, Any]] = {"max_lr": 0.1, "total_steps": 1000}

    kind: Literal["one_cycle"] = "one_cycle"
    max_lr: Rate = "base"
    total_steps: StepCount
    pct_start: Fraction = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    base_momentum: Fraction = 0.85
    max_momentum: Fraction = 0.95
    div_factor: Divisor = 25.0
    final_div_factor: Divisor = 1e4
    three_phase: Flag = False
    pct_final: Fraction | None = None
    end_at: Literal["last_step", "total_steps"] = "last_step"

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.pct_final is not None and not self.three_phase:
            yield PydanticCustomError(
                "no_third_phase", "`pct_final` is for three phases; set `three_phase` too"
            )
        if not known(self.total_steps):
            return
        ends = self._ends()
        if self.pct_final is not None and any(b <= a for a, b in pairwise(ends)):
            yield PydanticCustomError(
                "phases_overlap",
                "With these pct_start, pct_final and total_steps the phases end at steps {ends},"
                " which do not ascend; lower pct_start or raise pct_final",
                {"ends": ", ".join(f"{end:g}" for end in ends)},
            )

    def _ends(self) -> list[float]:
        """Return where the phases end, as torch computes it; fractions of a step are intended."""
        total = whole(self.total_steps)
        early = 1 if self.end_at == "last_step" else 0
        back = [2 * self.pct_start * total - 2 * early] if self.three_phase else []
        if self.pct_final is not None:
            back = [self.pct_final * total - early]
        return [self.pct_start * total - early, *back, float(total - early)]

    def expand(self) -> Schedule:  # noqa: D102
        if self.max_lr == "base":
            return self.with_momentum(Relative(schedule=self._rate(1.0)))
        return self.with_momentum(self._rate(self.max_lr))

    def _rate(self, peak: float) -> Schedule:
        initial = divided(peak, self.div_factor)
        return self._phases(initial, peak, divided(initial, self.final_div_factor))

    def law(self, low: Level, high: Level) -> Schedule:  # noqa: D102
        return self._phases(low, high, low)

    def _phases(self, initial: Level, peak: Level, final: Level) -> Schedule:
        back = [initial] if self.three_phase else []
        levels = [initial, peak, *back, final]
        ends = self._ends()
        parts = tuple(
            Part(schedule=self._anneal(levels[index], levels[index + 1]), until=ends[index])
            for index in _reached(ends)
        )
        phases = Sequence(parts=parts, clock="rescaled", boundary="previous")
        return Clamp(schedule=Freeze(schedule=phases, at=int(ends[-1])), min=0.0)

    def _anneal(self, start: Level, end: Level) -> Schedule:
        ease: Ease = Cosine() if self.anneal_strategy == "cos" else Linear()
        return Ramp(start=start, end=end, steps=1, ease=ease, out_of_range="extrapolate")


def _reached(ends: list[float]) -> list[int]:
    """Return the indices of the phases that a training passes through, in torch's order.

    A phase that ends before step 0 is passed over, and the next one counts from that end. A phase
    that would end at step 0, where torch divides by zero, is left out. A phase that lasts to the
    end is the last one.
    """
    last = len(ends) - 1
    first = next((index for index in range(last) if ends[index] > 0), last)
    until = next(index for index in range(first, last + 1) if ends[index] >= ends[last])
    before = [first - 1] if first > 0 and ends[first - 1] < 0 else []
    return [*before, *range(first, until + 1)]


def divided(rate: float, divisor: float | Literal["inf"]) -> float:
    """Return a rate divided by a divisor; an infinite divisor leaves nothing."""
    return 0.0 if divisor == "inf" else rate / divisor
