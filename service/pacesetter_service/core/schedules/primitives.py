"""The primitive laws, from which all others are built.

A law with an end holds its last value from there on, unless its `out_of_range` says otherwise. By
default none of these laws rebounds or turns negative.
"""

from functools import cached_property
from itertools import count
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pacesetter_service.core.lengths import Length, StepPoint, steps_of
from pacesetter_service.core.model import Flag, Level, NonNegative, Positive, Real
from pacesetter_service.core.schedules.base import (
    Base,
    Schedule,
    Steps,
    Values,
    level_value,
)
from pacesetter_service.core.schedules.eases import AnyEase, Linear
from pacesetter_service.core.schedules.numeric import exp, power_of, power_to
from pacesetter_service.core.schedules.out_of_range import OutOfRange, inside, refused


class Hold(Schedule):
    """One value for ever."""

    formula: ClassVar[str] = "value"
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {"value": "base"}

    passes: ClassVar[float] = 1.0

    kind: Literal["hold"] = "hold"
    value: Level = "base"

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return np.full(t.shape, level_value(self.value, base))

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return "hold"


class Ramp(Schedule):
    """From one value to another over a number of steps, in the shape of an ease.

    `out_of_range` says what there is before step 0 and from `steps` on: `hold` the formula at 0 and
    exactly `end`, `bounce` the way back and forth again, `extrapolate` the formula as it stands,
    `error` nothing: sealing is refused there.
    """

    formula: ClassVar[str] = "ease(start, end, t / steps) for t < steps, then end"
    source: ClassVar[str] = "elementary"
    example: ClassVar[dict[str, Any]] = {
        "start": "base",
        "end": 0.001,
        "steps": 1000,
        "ease": "cosine",
    }

    kind: Literal["ramp"] = "ramp"
    start: Level = "base"
    end: Level
    steps: Length
    ease: AnyEase = Linear()
    out_of_range: OutOfRange = "hold"

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        start, end = level_value(self.start, base), level_value(self.end, base)
        duration = steps_of(self.steps)
        elapsed = inside(t, 0.0, duration, self.out_of_range)
        values = self.ease.between(start, end, elapsed, duration)
        if self.out_of_range in ("hold", "error"):
            values = np.where(t >= duration, end, values)
        return refused(values, t, 0.0, duration, self.out_of_range)


class Exponential(Schedule):
    """Multiply the base by `gamma` every `per` steps, smoothly or in stairs.

    `gamma=1` is constant; `gamma > 1` grows until it leaves the range of float64, where sealing is
    refused.
    """

    formula: ClassVar[str] = "base * gamma ** (t / per), the exponent floored with staircase"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ExponentialLR, closed form"
    example: ClassVar[dict[str, Any]] = {"gamma": 0.95}

    passes: ClassVar[float] = 10.0
    costly: ClassVar[float] = 1.0

    kind: Literal["exponential"] = "exponential"
    gamma: NonNegative
    per: Length = 1.0
    staircase: Flag = False

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        per = steps_of(self.per)
        if not self.staircase:
            return base * power_of(self.gamma, t / per)
        stairs, at = np.unique(np.floor_divide(t, per), return_inverse=True)
        return base * power_of(self.gamma, stairs)[at]


class InverseTime(Schedule):
    """Divide the base by a power of the time passed, smoothly or in stairs.

    `rate=0` is constant.
    """

    formula: ClassVar[str] = "base / (1 + rate * t / per) ** power, t / per floored with staircase"
    source: ClassVar[str] = "keras.optimizers.schedules.InverseTimeDecay"
    example: ClassVar[dict[str, Any]] = {"rate": 0.5, "per": 1000}

    costly: ClassVar[float] = 1.0

    kind: Literal["inverse_time"] = "inverse_time"
    rate: NonNegative
    per: Length = 1.0
    power: Positive = 1.0
    staircase: Flag = False

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        passed = t / steps_of(self.per)
        growth = 1.0 + self.rate * (np.floor(passed) if self.staircase else passed)
        return base / power_to(growth, self.power)


class TriangleWave(Schedule):
    """Up in a straight line and down again, for ever, each cycle at its own height.

    With `envelope="halving"` each cycle is half as high as the one before; with `"exponential"` the
    height is multiplied by `gamma` at every step.
    """

    formula: ClassVar[str] = "start + (peak - start) * triangle(t) * envelope(t)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.CyclicLR; Smith 2015, arXiv:1506.01186"
    example: ClassVar[dict[str, Any]] = {"start": 0.001, "peak": 0.1, "up": 20, "down": 20}

    passes: ClassVar[float] = 15.0
    costly: ClassVar[float] = 1.0

    kind: Literal["triangle_wave"] = "triangle_wave"
    start: Level
    peak: Level
    up: Length
    down: Length
    envelope: Literal["constant", "halving", "exponential"] = "constant"
    gamma: NonNegative = 1.0

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        start, peak = level_value(self.start, base), level_value(self.peak, base)
        up = steps_of(self.up)
        period = up + steps_of(self.down)
        cycle = np.floor(1 + t / period)
        x = 1.0 + t / period - cycle
        rising = up / period
        height = np.where(x <= rising, x / rising, (x - 1) / (rising - 1))
        return start + (peak - start) * height * self._envelope(t, cycle)

    def _envelope(self, t: Steps, cycle: Steps) -> Values | float:
        match self.envelope:
            case "constant":
                return 1.0
            case "halving":
                return np.ldexp(1.0, -(cycle - 1).astype(np.int64))
            case "exponential":
                return power_of(self.gamma, t)


class PowerLaw(Schedule):
    """The base, falling as a power of the time.

    With `exponent=0.5` and `shift` and `timescale` equal to a warmup's length this is the inverse
    square root of the T5 and Noam families. Where `t + shift` is not above 0 there is no value.
    """

    formula: ClassVar[str] = "base * ((t + shift) / timescale) ** -exponent"
    source: ClassVar[str] = "transformers get_inverse_sqrt_schedule; OLMo power_lr"
    example: ClassVar[dict[str, Any]] = {"exponent": 0.5, "timescale": 100, "shift": 100}

    costly: ClassVar[float] = 1.0

    kind: Literal["power_law"] = "power_law"
    exponent: Positive = 0.5
    timescale: Length = 1.0
    shift: Real = 1.0

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        time = (t + self.shift) / steps_of(self.timescale)
        past = np.where(time > 0, time, 1.0)
        return np.where(time > 0, base / power_to(past, self.exponent), np.nan)


class Saturation(Schedule):
    """The base, approached exponentially: the untuned warmup of Ma and Yarats."""

    formula: ClassVar[str] = "base * (1 - exp(-(t + 1) / period))"
    source: ClassVar[str] = "pytorch_warmup.ExponentialWarmup; arXiv:1910.04209"
    example: ClassVar[dict[str, Any]] = {"period": 100}

    costly: ClassVar[float] = 1.0

    kind: Literal["saturation"] = "saturation"
    period: Length

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return base * (1.0 - exp(-(t + 1.0) / steps_of(self.period)))


class Sigmoid(Schedule):
    """The base, falling in the shape of a logistic curve around a midpoint."""

    formula: ClassVar[str] = "base / (1 + exp(gamma * (t - midpoint)))"
    source: ClassVar[str] = "Caffe's sigmoid policy, with the sign of gamma turned"
    example: ClassVar[dict[str, Any]] = {"gamma": 0.01, "midpoint": 500}

    costly: ClassVar[float] = 1.0

    kind: Literal["sigmoid"] = "sigmoid"
    gamma: Real
    midpoint: StepPoint

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        return base / (1.0 + exp(self.gamma * (t - steps_of(self.midpoint))))


class NaturalExp(Schedule):
    """The base, falling exponentially at a rate per `per` steps, smoothly or in stairs.

    `rate=0` is constant. The same curve as `exponential` with `gamma = e ** -rate`, whose power
    would lose a digit for each digit of the step.
    """

    formula: ClassVar[str] = "base * exp(-rate * t / per), t / per floored with staircase"
    source: ClassVar[str] = "tf.compat.v1.train.natural_exp_decay; paddle.optimizer.lr"
    example: ClassVar[dict[str, Any]] = {"rate": 0.1, "per": 100}

    costly: ClassVar[float] = 1.0

    kind: Literal["natural_exp"] = "natural_exp"
    rate: NonNegative
    per: Length = 1.0
    staircase: Flag = False

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        passed = t / steps_of(self.per)
        return base * exp(-self.rate * (np.floor(passed) if self.staircase else passed))


class Rectification(Schedule):
    """The base, rising as RAdam's variance rectification does for Adam's `beta2`.

    RAdam leaves its first steps alone, where the variance has no bound; here step 0 is the first
    one after those. It exists for a `beta2` above 0.6.
    """

    formula: ClassVar[str] = (
        "base * sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r)), R = 2 / (1 - beta2) - 1,"
        " r = R - 2 * n * beta2 ** n / (1 - beta2 ** n), n = t + the first n with r above 4"
    )
    source: ClassVar[str] = "pytorch_warmup.RAdamWarmup; Liu et al. 2020, arXiv:1908.03265"
    example: ClassVar[dict[str, Any]] = {"beta2": 0.999}

    passes: ClassVar[float] = 15.0
    costly: ClassVar[float] = 1.0

    kind: Literal["rectification"] = "rectification"
    beta2: Annotated[Real, Field(gt=0.6, le=0.99999)] = 0.999

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        limit = 2.0 / (1 - self.beta2) - 1
        length = self._length(np.maximum(t, 0.0) + self._offset, limit)
        above = (length - 4) * (length - 2) * limit
        return base * np.sqrt(above / ((limit - 4) * (limit - 2) * length))

    def _length(self, n: Steps, limit: float) -> Values:
        """Return the length of the moving average that approximates Adam's, after `n` steps."""
        power = power_of(self.beta2, n)
        return limit - 2 * n * power / (1 - power)

    @cached_property
    def _offset(self) -> float:
        limit = 2.0 / (1 - self.beta2) - 1
        return next(n for n in count(1.0) if self._length(np.array([n]), limit)[0] > 4)
