"""Presets of optax, by its own names, parameters and defaults.

Their values are absolute, as in optax: the base is not used. optax computes in float32 and these
presets in float64, so the two agree to within a millionth. If optax scales updates by a negative
schedule, write the schedule with positive values here.
"""

from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise
from operator import mul
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    ControllerState,
    NamedController,
    Observation,
    Sample,
)
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.lengths import (
    Duration,
    StepCount,
    StepPoint,
    known,
    whole,
)
from pacesetter_service.core.model import (
    MAX_STEP,
    Count,
    Flag,
    Fraction,
    Model,
    NonNegative,
    Positive,
    Real,
    Step,
)
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Delay, Part, Sequence
from pacesetter_service.core.schedules.combinators import Clamp, Product, drives
from pacesetter_service.core.schedules.eases import Cosine, Ease, Linear, Poly
from pacesetter_service.core.schedules.named.cycles import Divisor, divided
from pacesetter_service.core.schedules.primitives import Exponential, Hold, Ramp
from pacesetter_service.core.schedules.tables import (
    MAX_PIECES,
    Knot,
    Knots,
    PiecewiseConstant,
    ascending,
)

REDIRECTS: dict[str, str] = {
    "optax.reduce_on_plateau": (
        "reduce_on_plateau follows a metric and not the steps: put the controller"
        " `optax.reduce_on_plateau`, or our `plateau`, among the session's `controllers`, beside"
        " any schedule"
    ),
    "optax.inject_hyperparams": (
        "inject_hyperparams gives each hyperparameter a schedule: name their laws in `channels`"
    ),
}
"""Functions that are not schedules here, with what to do instead."""

Boundary = Annotated[int, Field(ge=0, le=MAX_STEP)]

Scales = Annotated[dict[Boundary, NonNegative], Field(max_length=MAX_PIECES)]
"""Factors by the steps from which they hold; JSON writes its keys as strings: `{"100": 0.1}`."""


class ConstantSchedule(Named):
    """One value for ever."""

    formula: ClassVar[str] = "value"
    source: ClassVar[str] = "optax.constant_schedule"
    example: ClassVar[dict[str, Any]] = {"value": 0.001}

    kind: Literal["optax.constant_schedule"] = "optax.constant_schedule"
    value: NonNegative

    def expand(self) -> Schedule:  # noqa: D102
        return Hold(value=self.value)


class Transition(Named):
    """A way from one value to another over some steps, which may begin after some others."""

    init_value: NonNegative
    end_value: NonNegative
    transition_steps: StepPoint
    transition_begin: StepPoint = 0

    def transition(self, ease: Ease) -> Schedule:
        """Go from start to end in the shape of an ease."""
        if self.transition_steps == 0:
            return Hold(value=self.init_value)
        steps = whole(self.transition_steps)
        way = Ramp(start=self.init_value, end=self.end_value, steps=steps, ease=ease)
        return Delay(schedule=way, by=self.transition_begin)


class PolynomialSchedule(Transition):
    """A power of the remaining time, from `init_value` to `end_value`.

    As in optax, no `transition_steps` at all hold `init_value` for ever. A `transition_begin` below
    0, which optax takes for 0, is refused.
    """

    formula: ClassVar[str] = (
        "end_value + (init_value - end_value) * (1 - u) ** power,"
        " u = clip(t - transition_begin, 0, transition_steps) / transition_steps"
    )
    source: ClassVar[str] = "optax.polynomial_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.1,
        "end_value": 0.001,
        "power": 2.0,
        "transition_steps": 1000,
    }

    kind: Literal["optax.polynomial_schedule"] = "optax.polynomial_schedule"
    power: Positive

    def expand(self) -> Schedule:  # noqa: D102
        return self.transition(Poly(power=self.power))


class LinearSchedule(Transition):
    """A straight line from `init_value` to `end_value`.

    As in optax, no `transition_steps` at all hold `init_value` for ever. A `transition_begin` below
    0, which optax takes for 0, is refused.
    """

    formula: ClassVar[str] = (
        "init_value + (end_value - init_value) * u,"
        " u = clip(t - transition_begin, 0, transition_steps) / transition_steps"
    )
    source: ClassVar[str] = "optax.linear_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.1,
        "end_value": 0.0,
        "transition_steps": 1000,
    }

    kind: Literal["optax.linear_schedule"] = "optax.linear_schedule"

    def expand(self) -> Schedule:  # noqa: D102
        return self.transition(Linear())


class PiecewiseConstantSchedule(Named):
    """`init_value`, multiplied by a scale at each boundary.

    As in optax, scales accumulate: each multiplies what there was, not `init_value`. A boundary is
    in force at its own step.
    """

    formula: ClassVar[str] = "init_value * the product of the scales whose boundaries are <= t"
    source: ClassVar[str] = "optax.piecewise_constant_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.1,
        "boundaries_and_scales": {"30": 0.1, "80": 0.1},
    }

    kind: Literal["optax.piecewise_constant_schedule"] = "optax.piecewise_constant_schedule"
    init_value: NonNegative
    boundaries_and_scales: Scales | None = None

    def expand(self) -> Schedule:  # noqa: D102
        boundaries, levels = accumulated(self.init_value, self.boundaries_and_scales)
        return PiecewiseConstant(boundaries=boundaries, levels=levels)


class ExponentialDecay(Named):
    """Multiply `init_value` by `decay_rate` every `transition_steps`, smoothly or in stairs.

    `end_value` bounds it from below, or from above where `decay_rate` is not below 1. A
    `decay_rate` of 0 and no `transition_steps`, with either of which optax holds `init_value`
    without a word, are refused.
    """

    formula: ClassVar[str] = (
        "init_value * decay_rate ** (max(t - transition_begin, 0) / transition_steps),"
        " the exponent floored with staircase"
    )
    source: ClassVar[str] = "optax.exponential_decay"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.1,
        "transition_steps": 1000,
        "decay_rate": 0.5,
        "end_value": 1e-5,
    }

    kind: Literal["optax.exponential_decay"] = "optax.exponential_decay"
    init_value: NonNegative
    transition_steps: StepCount
    decay_rate: Positive
    transition_begin: StepPoint = 0
    staircase: Flag = False
    end_value: NonNegative | None = None

    def expand(self) -> Schedule:  # noqa: D102
        factor = Exponential(
            gamma=self.decay_rate, per=self.transition_steps, staircase=self.staircase
        )
        law = Product(
            schedule=Hold(value=self.init_value),
            factors=(Delay(schedule=factor, by=self.transition_begin),),
        )
        if self.end_value is None:
            return law
        if self.decay_rate < 1:
            return Clamp(schedule=law, min=self.end_value)
        return Clamp(schedule=law, max=self.end_value)


class CosineDecaySchedule(Named):
    """Half a cosine wave, to a power, from `init_value` down to `alpha` times that.

    As in optax, `alpha` is a part of `init_value`, not a value.
    """

    formula: ClassVar[str] = (
        "init_value * (alpha + (1 - alpha) * ((1 + cos(pi * t / decay_steps)) / 2) ** exponent)"
        " for t < decay_steps, then init_value * alpha"
    )
    source: ClassVar[str] = "optax.cosine_decay_schedule; arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {"init_value": 0.1, "decay_steps": 1000, "alpha": 0.01}

    kind: Literal["optax.cosine_decay_schedule"] = "optax.cosine_decay_schedule"
    init_value: NonNegative
    decay_steps: StepCount
    alpha: NonNegative = 0.0
    exponent: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(
            start=self.init_value,
            end=self.init_value * self.alpha,
            steps=self.decay_steps,
            ease=Cosine(exponent=self.exponent),
        )


class PiecewiseInterpolateSchedule(Named):
    """Through `init_value` and what scales make of it at their boundaries, in lines or cosines.

    As in optax, scales accumulate: each multiplies the value at the boundary before.
    """

    formula: ClassVar[str] = (
        "from init_value at 0 through init_value * scales[0] * ... * scales[i] at boundaries[i]"
    )
    source: ClassVar[str] = "optax.piecewise_interpolate_schedule"
    example: ClassVar[dict[str, Any]] = {
        "interpolate_type": "cosine",
        "init_value": 0.1,
        "boundaries_and_scales": {"30": 0.1, "80": 0.1},
    }

    kind: Literal["optax.piecewise_interpolate_schedule"] = "optax.piecewise_interpolate_schedule"
    interpolate_type: Literal["linear", "cosine"]
    init_value: NonNegative
    boundaries_and_scales: Scales | None = None

    def expand(self) -> Schedule:  # noqa: D102
        boundaries, levels = accumulated(self.init_value, self.boundaries_and_scales)
        return through(dict(zip((0, *boundaries), levels, strict=True)), self.interpolate_type)


class OneCycle(Named):
    """What optax's one-cycles share; phases without any steps are refused.

    So is an infinite `div_factor`, which gives NaN in optax.
    """

    transition_steps: StepCount
    peak_value: NonNegative
    pct_start: Fraction = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Divisor = 1e4

    def peak_at(self) -> int:
        """Return the step where the rate is highest, truncated to a whole one."""
        return int(self.pct_start * whole(self.transition_steps))

    def ends(self) -> list[int]:
        """Return the steps where the phases end."""
        return [self.peak_at(), whole(self.transition_steps)]

    @model_validator(mode="after")
    def _phases_ascend(self) -> Self:
        if known(self.transition_steps) and any(b <= a for a, b in pairwise(self.ends())):
            raise PydanticCustomError(
                "phases_overlap",
                "With these percentages and transition_steps the phases end at steps {ends}, which"
                " do not ascend; lower the percentages or raise transition_steps",
                {"ends": ", ".join(map(str, self.ends()))},
            )
        return self


class LinearOnecycleSchedule(OneCycle):
    """Up to `peak_value` and back in straight lines, then down to almost nothing.

    The value starts at `peak_value / div_factor`, comes back to it at `pct_final` of the steps, and
    ends with that divided by `final_div_factor`. The phases end at whole steps, cut as in optax.
    Where two of them end at one step, optax forgets the first; here that is refused.
    """

    formula: ClassVar[str] = (
        "through peak_value / div_factor at 0, peak_value at floor(pct_start * transition_steps),"
        " peak_value / div_factor at floor(pct_final * transition_steps), and"
        " peak_value / div_factor / final_div_factor at transition_steps"
    )
    source: ClassVar[str] = "optax.linear_onecycle_schedule; arXiv:1708.07120"
    example: ClassVar[dict[str, Any]] = {"transition_steps": 1000, "peak_value": 0.1}

    kind: Literal["optax.linear_onecycle_schedule"] = "optax.linear_onecycle_schedule"
    pct_final: Fraction = 0.85

    def ends(self) -> list[int]:  # noqa: D102
        total = whole(self.transition_steps)
        return [self.peak_at(), int(self.pct_final * total), total]

    def expand(self) -> Schedule:  # noqa: D102
        initial = self.peak_value / self.div_factor
        levels = [initial, self.peak_value, initial, divided(initial, self.final_div_factor)]
        return through(dict(zip([0, *self.ends()], levels, strict=True)), "linear")


class CosineOnecycleSchedule(OneCycle):
    """Up to `peak_value` and down to almost nothing, in two cosines.

    The value starts at `peak_value / div_factor` and ends with that divided by `final_div_factor`.
    The peak is at a whole step, cut as in optax. Where it is at the end, optax forgets it; here
    that is refused.
    """

    formula: ClassVar[str] = (
        "through peak_value / div_factor at 0, peak_value at floor(pct_start * transition_steps),"
        " and peak_value / div_factor / final_div_factor at transition_steps"
    )
    source: ClassVar[str] = "optax.cosine_onecycle_schedule; arXiv:1708.07120"
    example: ClassVar[dict[str, Any]] = {"transition_steps": 1000, "peak_value": 0.1}

    kind: Literal["optax.cosine_onecycle_schedule"] = "optax.cosine_onecycle_schedule"

    def expand(self) -> Schedule:  # noqa: D102
        initial = self.peak_value / self.div_factor
        levels = [initial, self.peak_value, divided(initial, self.final_div_factor)]
        return through(dict(zip([0, *self.ends()], levels, strict=True)), "cosine")


class WarmupConstantSchedule(Named):
    """A straight line from `init_value` to `peak_value`, which is then held.

    `warmup_steps=0`, with which optax holds `init_value` for ever, is refused.
    """

    formula: ClassVar[str] = (
        "init_value + (peak_value - init_value) * min(t, warmup_steps) / warmup_steps"
    )
    source: ClassVar[str] = "optax.warmup_constant_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 100,
    }

    kind: Literal["optax.warmup_constant_schedule"] = "optax.warmup_constant_schedule"
    init_value: NonNegative
    peak_value: NonNegative
    warmup_steps: StepCount

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(start=self.init_value, end=self.peak_value, steps=self.warmup_steps)


class WarmedCosine(Model):
    """One cycle of `optax.sgdr_schedule`: the parameters of warmup_cosine_decay_schedule."""

    init_value: NonNegative = Field(description="the value that the warmup starts from")
    peak_value: NonNegative = Field(description="the highest value")
    warmup_steps: StepPoint = Field(description="steps in the warmup")
    decay_steps: StepCount = Field(description="how many steps the cycle takes, warmup and all")
    end_value: NonNegative = Field(default=0.0, description="the value that the cycle ends with")
    exponent: Positive = Field(default=1.0, description="the power that the cosine is raised to")

    @model_validator(mode="after")
    def _time_to_decay(self) -> Self:
        lengths = (self.decay_steps, self.warmup_steps)
        if all(map(known, lengths)) and whole(self.decay_steps) <= whole(self.warmup_steps):
            raise PydanticCustomError(
                "no_time_to_decay",
                "decay_steps ({total}) must be above warmup_steps ({warmup}):"
                " it counts the warmup too",
                {"total": self.decay_steps, "warmup": self.warmup_steps},
            )
        return self

    def law(self) -> Schedule:
        """Return the rise and the decay."""
        warmup = whole(self.warmup_steps)
        decay = Ramp(
            start=self.peak_value,
            # optax takes the end as a fraction of the peak, which is undefined for a peak of 0.
            end=self.end_value if self.peak_value > 0 else 0.0,
            steps=whole(self.decay_steps) - warmup,
            ease=Cosine(exponent=self.exponent),
        )
        return risen(self.init_value, self.peak_value, warmup, decay)


class WarmupCosineDecaySchedule(WarmedCosine, Named):
    """A straight line up to `peak_value`, then half a cosine wave down to `end_value`.

    As in optax, `decay_steps` counts the warmup too, and a `peak_value` of 0 stays 0, whatever the
    `end_value`.
    """

    formula: ClassVar[str] = (
        "init_value + (peak_value - init_value) * t / warmup_steps for t < warmup_steps, then"
        " end_value + (peak_value - end_value) * ((1 + cos(pi * u)) / 2) ** exponent with"
        " u = min((t - warmup_steps) / (decay_steps - warmup_steps), 1)"
    )
    source: ClassVar[str] = "optax.warmup_cosine_decay_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 100,
        "decay_steps": 1000,
        "end_value": 1e-4,
    }

    kind: Literal["optax.warmup_cosine_decay_schedule"] = "optax.warmup_cosine_decay_schedule"

    def expand(self) -> Schedule:  # noqa: D102
        return self.law()


class WarmupExponentialDecaySchedule(Named):
    """A straight line up to `peak_value`, then that multiplied by `decay_rate` again and again.

    The decay is `optax.exponential_decay`, whose clock starts where the warmup ends, and
    `transition_begin` counts from there.
    """

    formula: ClassVar[str] = (
        "init_value + (peak_value - init_value) * t / warmup_steps for t < warmup_steps, then"
        " exponential_decay(t - warmup_steps) from peak_value"
    )
    source: ClassVar[str] = "optax.warmup_exponential_decay_schedule"
    example: ClassVar[dict[str, Any]] = {
        "init_value": 0.0,
        "peak_value": 0.1,
        "warmup_steps": 100,
        "transition_steps": 1000,
        "decay_rate": 0.5,
    }

    kind: Literal["optax.warmup_exponential_decay_schedule"] = (
        "optax.warmup_exponential_decay_schedule"
    )
    init_value: NonNegative
    peak_value: NonNegative
    warmup_steps: StepPoint
    transition_steps: StepCount
    decay_rate: Positive
    transition_begin: StepPoint = 0
    staircase: Flag = False
    end_value: NonNegative | None = None

    def expand(self) -> Schedule:  # noqa: D102
        decay = ExponentialDecay(
            init_value=self.peak_value,
            transition_steps=self.transition_steps,
            decay_rate=self.decay_rate,
            transition_begin=self.transition_begin,
            staircase=self.staircase,
            end_value=self.end_value,
        )
        return risen(self.init_value, self.peak_value, whole(self.warmup_steps), decay)


class SgdrSchedule(Named):
    """Warmups and cosine decays one after the other; the last one's end is held.

    As in optax, each has parameters of its own, those of warmup_cosine_decay_schedule, and its
    `decay_steps` say how long it lasts, warmup and all.
    """

    formula: ClassVar[str] = "warmup_cosine_decay_schedule(cosine_kwargs[i])(t - start of cycle i)"
    source: ClassVar[str] = "optax.sgdr_schedule; arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {
        "cosine_kwargs": [
            {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 50, "decay_steps": 500},
            {"init_value": 0.0, "peak_value": 0.05, "warmup_steps": 50, "decay_steps": 1000},
        ]
    }

    kind: Literal["optax.sgdr_schedule"] = "optax.sgdr_schedule"
    cosine_kwargs: Annotated[tuple[WarmedCosine, ...], Field(min_length=1, max_length=256)]

    def expand(self) -> Schedule:  # noqa: D102
        parts = (Part(schedule=each.law(), steps=each.decay_steps) for each in self.cosine_kwargs)
        return Sequence(parts=tuple(parts))


class JoinSchedules(Named):
    """One schedule after the other, each from its own step 0.

    As in optax, a boundary belongs to the schedule after it, and one that comes twice leaves the
    schedule in between out. A number of boundaries that does not fit, of which optax drops the
    rest without a word, is refused, and so are boundaries that do not ascend.
    """

    formula: ClassVar[str] = "schedules[i](t - boundaries[i - 1]), i the number of boundaries <= t"
    source: ClassVar[str] = "optax.join_schedules"
    example: ClassVar[dict[str, Any]] = {
        "schedules": [
            {
                "kind": "optax.linear_schedule",
                "init_value": 0.0,
                "end_value": 0.1,
                "transition_steps": 100,
            },
            {"kind": "optax.cosine_decay_schedule", "init_value": 0.1, "decay_steps": 900},
        ],
        "boundaries": [100],
    }

    kind: Literal["optax.join_schedules"] = "optax.join_schedules"
    schedules: Annotated[tuple[AnySchedule, ...], Field(min_length=1, max_length=256)]
    boundaries: tuple[StepPoint, ...]

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, boundaries: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
        return ascending(boundaries)

    @model_validator(mode="after")
    def _one_boundary_between_two(self) -> Self:
        if len(self.boundaries) != len(self.schedules) - 1:
            raise PydanticCustomError(
                "wrong_number_of_boundaries",
                "{schedules} schedules need {needed} boundaries between them, but there are"
                " {boundaries}",
                {
                    "schedules": len(self.schedules),
                    "needed": len(self.schedules) - 1,
                    "boundaries": len(self.boundaries),
                },
            )
        return self

    @model_validator(mode="after")
    def _same_channels(self) -> Self:
        driven = [names for names in map(drives, self.schedules) if names is not None]
        if any(names != driven[0] for names in driven):
            raise PydanticCustomError(
                "different_channels",
                "Every schedule must drive the same channels; add the missing ones with `channels`",
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        ends = [whole(boundary) for boundary in self.boundaries]
        parts = [
            Part(schedule=law, until=end)
            for law, start, end in zip(self.schedules, [0, *ends], ends, strict=False)
            if start < end
        ]
        return Sequence(parts=(*parts, Part(schedule=self.schedules[-1])))


def accumulated(
    initial: float, scales: dict[int, float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the boundaries in order, and the values before, between and after them."""
    boundaries = tuple(sorted(scales or ()))
    factors = (scales[boundary] for boundary in boundaries) if scales else ()
    return boundaries, tuple(accumulate(factors, mul, initial=initial))


def through(points: dict[int, float], shape: Literal["linear", "cosine"]) -> Schedule:
    """Return a schedule through values at steps; of two at one step the later one holds."""
    ease: Ease = Cosine() if shape == "cosine" else Linear()
    knots = tuple(Knot(at=step, level=value) for step, value in points.items())
    return Knots(points=knots, ease=ease)


def risen(initial: float, peak: float, warmup_steps: int, decay: Schedule) -> Schedule:
    """Put a straight line in front of a decay, unless it would take no steps."""
    if warmup_steps == 0:
        return decay
    rise = Ramp(start=initial, end=peak, steps=warmup_steps)
    return Sequence(parts=(Part(schedule=rise, steps=warmup_steps), Part(schedule=decay)))


class ReduceOnPlateauState(ControllerState):
    """The plateau's state, and the values since it last saw one.

    Attributes:
        plateau: The rule's memory.
        count: How many values there have been.
        average: Their running average; 0 if there have been none.
    """

    plateau: PlateauState
    count: int = 0
    average: float = 0.0


class ReduceOnPlateau(NamedController):
    """The `plateau` of optax: of averages, with a relative and an absolute threshold at once.

    Each `accumulation_size` values make one average, and that is what is compared: it improves if
    `average < (1 - rtol) * best - atol`. Lower is better; report `-accuracy` to maximize it, with
    an `atol` and `rtol=0`, because the relative part takes worse values below zero for better ones.
    A patience of 2 cuts at the second bad average in a row (torch: at the third); during a cooldown
    bad ones are ignored and the best is kept up to date.

    optax scales the updates, and `min_scale` is the floor of that scale. Here the level is
    multiplied, `min_scale` is a ratio of the base, and the trainer's rate is what optax's updates
    amount to with plain SGD. It computes in float32 and this in float64.

    One NaN spoils the average that it falls into and no other. An average of `-inf` becomes the
    best and is never beaten, as in optax. Not as in optax, what makes no sense is refused: a
    patience of 0, which there cuts at each improvement; an `rtol` of 1, with which nothing ever
    improves; a `min_scale` above 1, which raises the rate.
    """

    State: ClassVar[type[ControllerState]] = ReduceOnPlateauState
    formula: ClassVar[str] = (
        "level = max(level * factor, min_scale * base) once bad = patience, of the means of"
        " accumulation_size values"
    )
    source: ClassVar[str] = "optax.contrib.reduce_on_plateau"
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "patience": 5, "accumulation_size": 200}

    kind: Literal["optax.reduce_on_plateau"] = "optax.reduce_on_plateau"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Count = 10
    rtol: Annotated[Fraction, Field(lt=1)] = 1e-4
    atol: NonNegative = 0.0
    cooldown: Step = 0
    accumulation_size: Count = 1
    min_scale: Fraction = 0.0

    @model_validator(mode="after")
    def _a_tolerance(self) -> Self:
        if self.rtol == 0.0 and self.atol == 0.0:
            raise PydanticCustomError(
                "no_tolerance", "Give an `rtol` or an `atol` above 0, as optax asks"
            )
        return self

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            factor=self.factor,
            patience=self.patience,
            when="reached",
            threshold=self.rtol,
            threshold_mode="rel_and_abs",
            threshold_abs=self.atol,
            finite_only=False,
            cooldown=self.cooldown,
            min_ratio=self.min_scale,
            eps=0.0,
        )

    @cached_property
    def _rule(self) -> Plateau:
        return self.expand()

    def init(self) -> ReduceOnPlateauState:  # noqa: D102
        return ReduceOnPlateauState(plateau=self._rule.init())

    def observe(self, state: ControllerState, seen: Sample) -> Observation:  # noqa: D102
        assert isinstance(state, ReduceOnPlateauState)  # noqa: S101 - it gets its own state back
        count = state.count + 1
        average = (state.count * state.average + seen.value) / count
        if count < self.accumulation_size:
            return Observation(state.model_copy(update={"count": count, "average": average}))
        of_average = self._rule.observe(state.plateau, replace(seen, value=average))
        assert isinstance(of_average.state, PlateauState)  # noqa: S101 - as above
        return Observation(ReduceOnPlateauState(plateau=of_average.state), of_average.verdict)
