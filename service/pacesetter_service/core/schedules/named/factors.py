"""A product of factors named in one line, as trax and T5X write their schedules."""

from typing import Any, ClassVar, Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, whole
from pacesetter_service.core.model import NonNegative, did_you_mean
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Delay, Repeat
from pacesetter_service.core.schedules.combinators import Clamp, Product
from pacesetter_service.core.schedules.eases import Cosine
from pacesetter_service.core.schedules.named.cycles import Rate
from pacesetter_service.core.schedules.primitives import Exponential, Hold, PowerLaw, Ramp
from pacesetter_service.core.schedules.tables import PiecewiseConstant

CONSTANTS = ("constant", "two_constants")

FACTORS = (
    *CONSTANTS,
    "linear_warmup",
    "rsqrt_decay",
    "rsqrt_normalized_decay",
    "decay_every",
    "cosine_decay",
)


class Multifactor(Named):
    """A product of named factors, such as `constant * linear_warmup * rsqrt_decay`.

    constant
        `constant`, the base unless it is given.
    two_constants
        `constant`, and from `second_constant_step` on `second_constant`.
    linear_warmup
        `min(t / warmup_steps, 1)`.
    rsqrt_decay, rsqrt_normalized_decay
        `max(t, warmup_steps) ** -0.5`; the normalized one is 1 during the warmup.
    decay_every
        `decay_factor ** floor(t / steps_per_decay)`.
    cosine_decay
        Half cosine waves from 1 to 0, each `steps_per_cycle` long, from the end of the warmup on.

    Without one of the first two the product starts from 1. `minimum` is its floor, from the first
    step on. In trax the constant is 0.1 unless given.
    """

    formula: ClassVar[str] = "max(product of the factors, minimum)"
    source: ClassVar[str] = "trax.supervised.lr_schedules.multifactor; T5X create_learning_rate_..."
    example: ClassVar[dict[str, Any]] = {
        "factors": "constant * linear_warmup * rsqrt_normalized_decay",
        "warmup_steps": 100,
    }

    kind: Literal["multifactor"] = "multifactor"
    factors: str = "constant * linear_warmup * rsqrt_decay"
    constant: Rate = "base"
    warmup_steps: StepCount = 400
    decay_factor: NonNegative = 0.5
    steps_per_decay: StepCount = 20_000
    steps_per_cycle: StepCount = 100_000
    second_constant: Rate = 0.01
    second_constant_step: StepPoint = 10_000
    minimum: NonNegative = 0.0

    @field_validator("factors")
    @classmethod
    def _known_factors(cls, factors: str) -> str:
        names = _names(factors)
        for name in names:
            if name not in FACTORS:
                raise PydanticCustomError(
                    "unknown_factor",
                    "There is no factor {name}.{hint} Known here: {known}",
                    {
                        "name": repr(name[:40]),
                        "hint": did_you_mean(name[:40], FACTORS),
                        "known": ", ".join(FACTORS),
                    },
                )
        if len(set(names)) < len(names) or set(CONSTANTS) <= set(names):
            raise PydanticCustomError(
                "repeated_factor", "Name each factor once, and one of the constants at most"
            )
        return factors

    def expand(self) -> Schedule:  # noqa: D102
        names = _names(self.factors)
        first = next((name for name in names if name in CONSTANTS), None)
        law = self._constant(first)
        others = tuple(self._factor(name) for name in names if name != first)
        product = Product(schedule=law, factors=others) if others else law
        return Clamp(schedule=product, min=self.minimum)

    def _constant(self, name: str | None) -> Schedule:
        match name:
            case None:
                return Hold(value=1.0)
            case "constant":
                return Hold(value=self.constant)
            case _:
                return PiecewiseConstant(
                    boundaries=(self.second_constant_step,),
                    levels=(self.constant, self.second_constant),
                )

    def _factor(self, name: str) -> Schedule:
        warmup = whole(self.warmup_steps)
        match name:
            case "linear_warmup":
                return Ramp(start=0.0, end=1.0, steps=warmup)
            case "rsqrt_decay":
                return Delay(schedule=PowerLaw(timescale=1.0, shift=warmup), by=warmup)
            case "rsqrt_normalized_decay":
                return Delay(schedule=PowerLaw(timescale=warmup, shift=warmup), by=warmup)
            case "decay_every":
                return Exponential(
                    gamma=self.decay_factor, per=self.steps_per_decay, staircase=True
                )
            case _:
                wave = Ramp(start=1.0, end=0.0, steps=self.steps_per_cycle, ease=Cosine())
                return Delay(schedule=Repeat(schedule=wave, period=self.steps_per_cycle), by=warmup)


def _names(factors: str) -> list[str]:
    return [name.strip() for name in factors.split("*")]
