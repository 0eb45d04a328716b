"""Eases: the shapes in which a ramp goes from its start to its end.

`u` is the fraction of the way that has passed. Each ease writes out its own arithmetic in torch's
order, because `a * t / n` and `a * (t / n)` differ in the last place, and parity is promised to the
bit.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.model import AnyOf, Count, Positive, Real, Tagged
from pacesetter_service.core.schedules import numeric
from pacesetter_service.core.schedules.base import Base, Steps, Values
from pacesetter_service.core.schedules.cost import Priced


class Ease(Priced, Tagged, family="ease"):
    """A shape `elapsed -> value` between two values."""

    @abstractmethod
    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:
        """Return the value at `elapsed` of `duration` steps on the way from `start` to `end`.

        The formula is applied as it stands, also outside `0 <= elapsed <= duration`, as far as it
        is defined there.
        """


AnyEase = Annotated[Ease, AnyOf(Ease)]


class Remaining(Ease):
    """An ease given by the fraction of the way left: `end + (start - end) * remaining(u)`."""

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return end + (start - end) * self.remaining(elapsed, duration)

    @abstractmethod
    def remaining(self, elapsed: Steps, duration: float) -> Values:
        """Return the fraction of the way that remains: 1 at the start, 0 at the end."""


class Linear(Ease):
    """Straight: `start + (end - start) * u`."""

    kind: Literal["linear"] = "linear"

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return start + (end - start) * elapsed / duration


class Cosine(Remaining):
    """A cosine wave: remaining `((1 + cos(2 * pi * waves * u)) / 2) ** exponent`.

    Half a wave goes from start to end once; with more it swings, as transformers' num_cycles does.
    """

    passes: ClassVar[float] = 12.0

    kind: Literal["cosine"] = "cosine"
    waves: Positive = Field(
        default=0.5, description="how many cosine waves there are; 0.5 is half of one"
    )
    exponent: Positive = Field(default=1.0, description="the power that the wave is raised to")

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        if self.waves == 0.5:
            angle = np.pi * elapsed / duration
        else:
            angle = np.pi * self.waves * 2.0 * (elapsed / duration)
        return numeric.power_to((1 + np.cos(angle)) / 2, self.exponent)


class QuarterCosine(Remaining):
    """A quarter of a cosine wave: remaining `cos(pi / 2 * u)`."""

    kind: Literal["quarter_cosine"] = "quarter_cosine"

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return np.maximum(np.cos(np.pi / 2 * np.clip(elapsed / duration, 0.0, 1.0)), 0.0)


class Poly(Remaining):
    """A power of what remains: remaining `(1 - u) ** power`."""

    costly: ClassVar[float] = 1.0

    kind: Literal["poly"] = "poly"
    power: Positive = Field(default=1.0, description="the power of what remains of the way")

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return numeric.power_to(np.maximum(1.0 - elapsed / duration, 0.0), self.power)


class Power(Remaining):
    """A power of what has passed: remaining `1 - u ** power`; 0.5 is known as 1-sqrt."""

    costly: ClassVar[float] = 1.0

    kind: Literal["power"] = "power"
    power: Positive = Field(description="the power of what has passed of the way")

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return 1.0 - numeric.power_to(np.maximum(elapsed / duration, 0.0), self.power)


class Decay(Remaining):
    """An exponential brought to 0 at the end: remaining `(ratio ** u - ratio) / (1 - ratio)`.

    Megatron's exponential has the ratio 0.5, timm's 0.1.
    """

    costly: ClassVar[float] = 1.0

    kind: Literal["decay"] = "decay"
    ratio: Annotated[Real, Field(gt=0, lt=1)] = Field(
        description="what is left of the way at its end before it is brought to 0, between 0 and 1"
    )

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        falling = numeric.power_of(self.ratio, elapsed / duration)
        return (falling - self.ratio) / (1.0 - self.ratio)


class Geometric(Ease):
    """A constant factor at each step: `start * (end / start) ** u`; both must be above 0."""

    costly: ClassVar[float] = 1.0

    kind: Literal["geometric"] = "geometric"

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        with np.errstate(divide="ignore", invalid="ignore"):  # from 0 there is no such way: NaN
            ratio = np.atleast_1d(np.divide(end, start))
            value: Values = start * numeric.exp(numeric.log(ratio) * (elapsed / duration))
        return value


class Logarithmic(Ease):
    """Fast at first: `start + (end - start) * ln(elapsed + 1) / ln(duration)`; DeepSpeed's warmup.

    It comes to its end a step early, and counts a duration below 2 as 2.
    """

    costly: ClassVar[float] = 1.0

    kind: Literal["logarithmic"] = "logarithmic"

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        passed = numeric.log(np.maximum(elapsed, 0.0) + 1.0)
        return start + (end - start) * (passed / math.log(max(duration, 2.0)))


class Tanh(Remaining):
    """A hyperbolic tangent: remaining `(1 - tanh(low * (1 - u) + high * u)) / 2`."""

    costly: ClassVar[float] = 1.0

    kind: Literal["tanh"] = "tanh"
    low: Real = Field(default=-7.0, description="where on the hyperbolic tangent it starts")
    high: Real = Field(default=3.0, description="where on the hyperbolic tangent it ends")

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.low >= self.high:
            yield PydanticCustomError("not_ascending", "`low` must be below `high`")

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        u = elapsed / duration
        return 0.5 * (1 - numeric.tanh(self.low * (1.0 - u) + self.high * u))


class Rex(Remaining):
    """Slow, then fast: remaining `z / (1 - beta + beta * z)` with `z = 1 - u`.

    Two curves go by this name: beta 0.5 is the paper's (Chen et al. 2021, arXiv:2107.04197) and
    pytorch_optimizer's, 0.9 is axolotl's. So it has no default.
    """

    kind: Literal["rex"] = "rex"
    beta: Annotated[Real, Field(ge=0, lt=1)] = Field(
        description="how sharp the bend is; 0 is a straight line"
    )

    def remaining(self, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        z = np.maximum(1.0 - elapsed / duration, 0.0)
        return z / ((1.0 - self.beta) + self.beta * z)


class Warped(Ease):
    """Another ease with its progress bent: `u` becomes `u ** power` (k-decay, arXiv:2004.05909)."""

    costly: ClassVar[float] = 1.0

    kind: Literal["warped"] = "warped"
    ease: AnyEase = Field(description="the ease whose progress is bent")
    power: Positive = Field(description="the power that the progress is raised to")

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        length = numeric.raised(duration, self.power)
        if math.isinf(length):  # no number gives any step's fraction of the way
            return np.full_like(elapsed, np.nan)
        bent = numeric.power_to(np.maximum(elapsed, 0.0), self.power)
        return self.ease.between(start, end, bent, length)


class Constant(Ease):
    """No way at all: `start` until the end is reached."""

    kind: Literal["constant"] = "constant"

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return np.where(elapsed >= duration, end, start)


class Stairs(Ease):
    """Another ease in `count` stairs of equal length: `u` becomes `floor(u * count) / count`."""

    kind: Literal["stairs"] = "stairs"
    ease: AnyEase = Field(description="the ease that is cut into stairs")
    count: Count = Field(description="how many stairs there are")

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        stair = np.floor(elapsed * self.count / duration) / self.count
        return self.ease.between(start, end, stair, 1.0)


class Teeth(Ease):
    """Another ease `count` times over, as the teeth of a saw: `u` becomes `u * count` modulo 1."""

    kind: Literal["teeth"] = "teeth"
    ease: AnyEase = Field(description="the ease that is repeated")
    count: Positive = Field(description="how many teeth there are")

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        tooth = np.mod(self.count * (elapsed / duration), 1.0)
        return self.ease.between(start, end, tooth, 1.0)


class Reversed(Ease):
    """Another ease seen from its end: the way back, with `u` counted down from 1.

    A straight line is the same line, exact beside its end instead of beside its start.
    """

    kind: Literal["reversed"] = "reversed"
    ease: AnyEase = Field(description="the ease that is seen from its end")

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return self.ease.between(end, start, duration - elapsed, duration)


class Haversine(Ease):
    """Half a cosine wave by what has passed: `start + (end - start) * (1 - cos(pi * u)) / 2`.

    The same wave as `cosine`, exact beside its start instead of beside its end.
    """

    kind: Literal["haversine"] = "haversine"

    def between(self, start: Base, end: Base, elapsed: Steps, duration: float) -> Values:  # noqa: D102
        return start + (end - start) * ((1 - np.cos(np.pi * (elapsed / duration))) / 2)
