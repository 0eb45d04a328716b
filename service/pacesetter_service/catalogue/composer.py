"""Presets of composer and llm-foundry, by their own names, parameters and defaults.

Times are composer's time strings (`"10ep"`, `"1000ba"`, `"1e6sp"`, `"1e9tok"`, `"0.5dur"`), the
service's own lengths (`{"epochs": 10}`), or whole numbers, which are steps. Each of them becomes a
whole number of steps, the nearest one. Composer cuts a fraction of a step off a `dur`, keeps
samples and tokens as they are, and has no schedule in `iter` or `sec` that could be known in
advance.

As in composer, a schedule gives the factor that the base is multiplied by. The scale schedule ratio
belongs to the trainer, not to the schedule: put the schedule into `stretch`. A schedule with a
warmup is refused there, because composer leaves the warmup as long as it is, or with `scale_warmup`
stretches its slope but not its end: multiply the other lengths by the ratio. Without a ratio
`scale_warmup` means nothing, as in composer. Some specs that composer refuses are clear, and are
accepted here: a `t_warmup` in another unit than `t_max`, and a `t_max` before the end of the
training.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Duration, StepCount, StepPoint, whole
from pacesetter_service.core.model import Flag, Fraction, NonNegative, Positive, Real
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze, Part, Repeat, Sequence, Span
from pacesetter_service.core.schedules.combinators import Relative, Scale, Sum
from pacesetter_service.core.schedules.eases import Cosine, Ease, Linear, Poly
from pacesetter_service.core.schedules.named.decays import MultiStep
from pacesetter_service.core.schedules.primitives import Exponential, Hold, PowerLaw, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, PiecewiseConstant

_TIME = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d+)?)(ba|ep|sp|tok|dur)", re.IGNORECASE | re.ASCII)

_UNITS = {"ep": "epochs", "sp": "samples", "tok": "tokens", "dur": "fraction"}


def _parse_time(time: object) -> object:
    """Turn a time string into steps or a duration, and leave anything else as it is."""
    if not isinstance(time, str):
        return time
    match = _TIME.fullmatch(time)
    if match is None:
        raise PydanticCustomError(
            "not_a_time",
            "This is no time of composer; write a number and a unit that lengths can be in, such as"
            ' "10ep", "1000ba", "1e6sp", "1e9tok" or "0.5dur"',
        )
    number, unit = float(match[1]), match[2].lower()
    if unit == "dur":
        return _duration(number)
    if not number.is_integer():
        raise PydanticCustomError(
            "not_whole",
            'Only a time in "dur" may be a fraction; write a whole number of {unit}',
            {"unit": unit},
        )
    return int(number) if unit == "ba" else {_UNITS[unit]: number}


def _duration(fraction: float) -> dict[str, float]:
    if fraction > 1:
        raise PydanticCustomError(
            "beyond_the_end", 'No training is longer than "1dur"; write a part of it'
        )
    return {"fraction": fraction}


_AS_TEXT = Field(description='Also a time string of composer: "10ep", "1000ba", "0.5dur", ...')

Time = Annotated[StepCount, BeforeValidator(_parse_time), _AS_TEXT]
"""A stretch of time: steps, a duration, or a time string of composer."""

TimePoint = Annotated[StepPoint, BeforeValidator(_parse_time), _AS_TEXT]
"""A time from the start of the training, which may be the start itself."""

WHOLE = Duration(fraction=1.0)
"""Composer's `"1dur"`."""


def _way(start: float, end: float, steps: int, ease: Ease | None = None) -> Schedule:
    """Return the way between two factors in composer's arithmetic, by the fraction passed."""
    ramp = Ramp(start=start, end=end, steps=1, ease=ease or Linear(), out_of_range="extrapolate")
    return Span(schedule=Freeze(schedule=ramp, at=1), ratio=steps)


class StepScheduler(Named):
    """Multiply the base by `gamma` every `step_size`."""

    formula: ClassVar[str] = "base * gamma ** floor(t / step_size)"
    source: ClassVar[str] = "composer.optim.StepScheduler"
    example: ClassVar[dict[str, Any]] = {"step_size": "30ba", "gamma": 0.1}

    kind: Literal["composer.StepScheduler"] = "composer.StepScheduler"
    step_size: Time
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma, per=whole(self.step_size), staircase=True)


class MultiStepScheduler(Named):
    """Multiply the base by `gamma` at each milestone; one named twice counts twice."""

    formula: ClassVar[str] = "base * gamma ** (number of milestones <= t)"
    source: ClassVar[str] = "composer.optim.MultiStepScheduler"
    example: ClassVar[dict[str, Any]] = {"milestones": ["30ba", "80ba"], "gamma": 0.1}

    kind: Literal["composer.MultiStepScheduler"] = "composer.MultiStepScheduler"
    milestones: Annotated[tuple[TimePoint, ...], Field(max_length=MAX_PIECES)]
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        return MultiStep(milestones=self.milestones, gamma=self.gamma)


class ConstantScheduler(Named):
    """A part `alpha` of the base until `t_max`, and the whole base from there on."""

    formula: ClassVar[str] = "base * (alpha if t < t_max else 1)"
    source: ClassVar[str] = "composer.optim.ConstantScheduler"
    example: ClassVar[dict[str, Any]] = {"alpha": 0.5, "t_max": "100ba"}

    kind: Literal["composer.ConstantScheduler"] = "composer.ConstantScheduler"
    alpha: NonNegative = 1.0
    t_max: Time = WHOLE

    def expand(self) -> Schedule:  # noqa: D102
        levels = (self.alpha, 1.0)
        return Relative(schedule=PiecewiseConstant(boundaries=(self.t_max,), levels=levels))


class LinearScheduler(Named):
    """From one factor of the base to another in a straight line, which ends at `t_max`."""

    formula: ClassVar[str] = "base * (alpha_i + min(t / t_max, 1) * (alpha_f - alpha_i))"
    source: ClassVar[str] = "composer.optim.LinearScheduler"
    example: ClassVar[dict[str, Any]] = {"alpha_i": 1.0, "alpha_f": 0.0, "t_max": "1000ba"}

    kind: Literal["composer.LinearScheduler"] = "composer.LinearScheduler"
    alpha_i: NonNegative = 1.0
    alpha_f: NonNegative = 0.0
    t_max: Time = WHOLE

    def expand(self) -> Schedule:  # noqa: D102
        return Relative(schedule=_way(self.alpha_i, self.alpha_f, whole(self.t_max)))


class ExponentialScheduler(Named):
    """Multiply the base by `gamma` over each `decay_period`, smoothly."""

    formula: ClassVar[str] = "base * gamma ** (t / decay_period)"
    source: ClassVar[str] = "composer.optim.ExponentialScheduler"
    example: ClassVar[dict[str, Any]] = {"gamma": 0.9, "decay_period": "100ba"}

    kind: Literal["composer.ExponentialScheduler"] = "composer.ExponentialScheduler"
    gamma: NonNegative
    decay_period: Time = Duration(epochs=1.0)

    def expand(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma, per=whole(self.decay_period))


class CosineAnnealingScheduler(Named):
    """Half a cosine wave from the base to a part `alpha_f` of it, which is held from `t_max` on."""

    formula: ClassVar[str] = (
        "base * (alpha_f + (1 - alpha_f) * (1 + cos(pi * min(t / t_max, 1))) / 2)"
    )
    source: ClassVar[str] = "composer.optim.CosineAnnealingScheduler"
    example: ClassVar[dict[str, Any]] = {"t_max": "1000ba", "alpha_f": 0.1}

    kind: Literal["composer.CosineAnnealingScheduler"] = "composer.CosineAnnealingScheduler"
    t_max: Time = WHOLE
    alpha_f: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        return Relative(schedule=_way(1.0, self.alpha_f, whole(self.t_max), Cosine()))


class CosineAnnealingWarmRestartsScheduler(Named):
    """Half a cosine wave from the base to a part `alpha_f` of it, again and again.

    As in composer, `t_mult` need not be whole: each interval is the one before it times `t_mult`,
    cut to a whole number of steps. One below 1 ends in an error there and is refused here.
    """

    formula: ClassVar[str] = (
        "base * (alpha_f + (1 - alpha_f) * (1 + cos(pi * t_i / length_i)) / 2) in interval i,"
        " length_i = floor(t_mult * length_(i - 1)), length_0 = t_0"
    )
    source: ClassVar[str] = "composer.optim.CosineAnnealingWarmRestartsScheduler"
    example: ClassVar[dict[str, Any]] = {"t_0": "100ba", "t_mult": 2.0}

    kind: Literal["composer.CosineAnnealingWarmRestartsScheduler"] = (
        "composer.CosineAnnealingWarmRestartsScheduler"
    )
    t_0: Time
    t_mult: Annotated[Real, Field(ge=1)] = 1.0
    alpha_f: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        interval = _way(1.0, self.alpha_f, whole(self.t_0), Cosine())
        return Relative(
            schedule=Repeat(schedule=interval, period=self.t_0, growth=self.t_mult, truncated=True)
        )


class PolynomialScheduler(Named):
    """A power of the remaining time, from the base to a part `alpha_f` of it at `t_max`."""

    formula: ClassVar[str] = "base * (alpha_f + (1 - alpha_f) * (1 - min(t / t_max, 1)) ** power)"
    source: ClassVar[str] = "composer.optim.PolynomialScheduler"
    example: ClassVar[dict[str, Any]] = {"power": 2.0, "t_max": "1000ba"}

    kind: Literal["composer.PolynomialScheduler"] = "composer.PolynomialScheduler"
    power: Positive
    t_max: Time = WHOLE
    alpha_f: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        ease = Poly(power=self.power)
        return Relative(schedule=_way(1.0, self.alpha_f, whole(self.t_max), ease))


class Warmed(Named):
    """What composer's schedules with a warmup share: a straight line from 0 up to their start."""

    t_warmup: TimePoint

    def unstretchable(self) -> str | None:  # noqa: D102
        if self.t_warmup == 0:
            return None
        return (
            "composer's scale schedule ratio does not stretch a warmup, so `stretch` cannot stand"
            " for it here; leave `stretch` out, and multiply all lengths but t_warmup by the ratio"
        )

    def warmed(
        self, law: Schedule, peak: float = 1.0, clock: Literal["local", "global"] = "local"
    ) -> Schedule:
        """Put the warmup to a factor `peak` in front of a law, which sees `clock` afterwards."""
        warmup = whole(self.t_warmup)
        if warmup == 0:
            return Relative(schedule=law)
        rise = Part(schedule=_way(0.0, peak, warmup), until=warmup)
        return Relative(schedule=Sequence(parts=(rise, Part(schedule=law)), clock=clock))

    def decay(
        self, start: float, end: float, t_max: int | Duration, ease: Ease | None = None
    ) -> Schedule:
        """Return the way from the end of the warmup to `t_max`; endless if `t_max` is not later."""
        left = whole(t_max) - whole(self.t_warmup)
        return _way(start, end, left, ease) if left > 0 else Hold(value=start)


class MultiStepWithWarmupScheduler(Warmed):
    """A straight line from 0 up to the base, then its product with `gamma` at each milestone.

    As in composer, milestones count from the start of the training. One inside the warmup takes
    effect when that ends.
    """

    formula: ClassVar[str] = (
        "base * t / t_warmup for t < t_warmup, then base * gamma ** (number of milestones <= t)"
    )
    source: ClassVar[str] = "composer.optim.MultiStepWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {"t_warmup": "10ba", "milestones": ["30ba", "80ba"]}

    kind: Literal["composer.MultiStepWithWarmupScheduler"] = "composer.MultiStepWithWarmupScheduler"
    milestones: Annotated[tuple[TimePoint, ...], Field(max_length=MAX_PIECES)]
    gamma: NonNegative = 0.1
    scale_warmup: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        steps = MultiStep(milestones=self.milestones, gamma=self.gamma)
        return self.warmed(steps, clock="global")


class ConstantWithWarmupScheduler(Warmed):
    """A straight line from 0 up to a part `alpha` of the base, which is held.

    As in composer, `t_max` says nothing about the law.
    """

    formula: ClassVar[str] = "base * alpha * min(t / t_warmup, 1)"
    source: ClassVar[str] = "composer.optim.ConstantWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {"t_warmup": "100ba", "t_max": "1000ba"}

    kind: Literal["composer.ConstantWithWarmupScheduler"] = "composer.ConstantWithWarmupScheduler"
    alpha: NonNegative = 1.0
    t_max: Time = WHOLE
    scale_warmup: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(Hold(value=self.alpha), self.alpha)


class LinearWithWarmupScheduler(Warmed):
    """A straight line from 0 up to a part `alpha_i` of the base, then one to `alpha_f` at `t_max`.

    As in composer, `t_max` counts the warmup; if it is not later than that, `alpha_i` is held.
    """

    formula: ClassVar[str] = (
        "base * alpha_i * t / t_warmup for t < t_warmup, then"
        " base * (alpha_i + min((t - t_warmup) / (t_max - t_warmup), 1) * (alpha_f - alpha_i))"
    )
    source: ClassVar[str] = "composer.optim.LinearWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {"t_warmup": "100ba", "t_max": "1000ba"}

    kind: Literal["composer.LinearWithWarmupScheduler"] = "composer.LinearWithWarmupScheduler"
    alpha_i: NonNegative = 1.0
    alpha_f: NonNegative = 0.0
    t_max: Time = WHOLE
    scale_warmup: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(self.decay(self.alpha_i, self.alpha_f, self.t_max), self.alpha_i)


class CosineAnnealingWithWarmupScheduler(Warmed):
    """A straight line from 0 up to the base, then half a cosine wave to a part `alpha_f` of it.

    As in composer, `t_max` counts the warmup; if it is not later than that, the base is held.
    """

    formula: ClassVar[str] = (
        "base * t / t_warmup for t < t_warmup, then base * (alpha_f + (1 - alpha_f)"
        " * (1 + cos(pi * min((t - t_warmup) / (t_max - t_warmup), 1))) / 2)"
    )
    source: ClassVar[str] = "composer.optim.CosineAnnealingWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {"t_warmup": "100ba", "t_max": "1000ba", "alpha_f": 0.1}

    kind: Literal["composer.CosineAnnealingWithWarmupScheduler"] = (
        "composer.CosineAnnealingWithWarmupScheduler"
    )
    t_max: Time = WHOLE
    alpha_f: NonNegative = 0.0
    scale_warmup: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(self.decay(1.0, self.alpha_f, self.t_max, Cosine()))


class PolynomialWithWarmupScheduler(Warmed):
    """A straight line from 0 up to the base, then a power of the remaining time until `t_max`.

    As in composer, `t_max` counts the warmup; if it is not later than that, the base is held.
    """

    formula: ClassVar[str] = (
        "base * t / t_warmup for t < t_warmup, then base * (alpha_f + (1 - alpha_f)"
        " * (1 - min((t - t_warmup) / (t_max - t_warmup), 1)) ** power)"
    )
    source: ClassVar[str] = "composer.optim.PolynomialWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {"t_warmup": "100ba", "t_max": "1000ba"}

    kind: Literal["composer.PolynomialWithWarmupScheduler"] = (
        "composer.PolynomialWithWarmupScheduler"
    )
    power: Positive = 2.0
    t_max: Time = WHOLE
    alpha_f: NonNegative = 0.0
    scale_warmup: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(self.decay(1.0, self.alpha_f, self.t_max, Poly(power=self.power)))


class InverseSquareRootWithWarmupScheduler(Warmed):
    """Up to the base, down as the inverse square root of the time, and a straight line at the end.

    The line takes the last `t_cooldown` steps before `t_max`, or what the warmup leaves of them.
    llm-foundry asks for `t_warmup`, `t_scale` and `t_cooldown` in the unit of the whole training;
    here each may be in a unit of its own.
    """

    formula: ClassVar[str] = (
        "base * t / t_warmup for t < t_warmup, then base * (alpha_f_decay + (1 - alpha_f_decay)"
        " / sqrt((t - t_warmup + t_scale) / t_scale)), from t_max - t_cooldown on a line to"
        " base * alpha_f_cooldown"
    )
    source: ClassVar[str] = "llmfoundry.optim.InverseSquareRootWithWarmupScheduler"
    example: ClassVar[dict[str, Any]] = {
        "t_warmup": "100ba",
        "t_scale": "100ba",
        "t_cooldown": "200ba",
        "t_max": "1000ba",
    }

    kind: Literal["composer.InverseSquareRootWithWarmupScheduler"] = (
        "composer.InverseSquareRootWithWarmupScheduler"
    )
    t_scale: Time
    t_cooldown: TimePoint
    t_max: Time = WHOLE
    alpha_f_decay: Fraction = 0.0
    alpha_f_cooldown: Fraction = 0.0

    @model_validator(mode="after")
    def _cools_further(self) -> Self:
        if self.alpha_f_decay < self.alpha_f_cooldown:
            raise PydanticCustomError(
                "cooldown_above_decay",
                "`alpha_f_cooldown` is above `alpha_f_decay`; lower it, so that the rate falls",
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        fall = self._fall()
        left = whole(self.t_max) - whole(self.t_warmup) - whole(self.t_cooldown)
        reached = float(fall.values(np.array([max(left, 0.0)]), 1.0)[0])
        cooldown: Schedule = Hold(value=reached)
        if self.t_cooldown != 0:
            cooldown = _way(reached, self.alpha_f_cooldown, whole(self.t_cooldown))
        if left <= 0:
            return self.warmed(cooldown)
        parts = (Part(schedule=fall, steps=left), Part(schedule=cooldown))
        return self.warmed(Sequence(parts=parts))

    def _fall(self) -> Schedule:
        scale = whole(self.t_scale)
        root = PowerLaw(exponent=0.5, timescale=scale, shift=scale)
        rest = Scale(schedule=root, by=1.0 - self.alpha_f_decay)
        return Sum(of=(Hold(value=self.alpha_f_decay), rest))
