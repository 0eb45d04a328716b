"""Roots: schedules that fall as a power of the time, usually as its inverse square root."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Length, StepCount, StepPoint, steps_of, whole
from pacesetter_service.core.model import NonNegative, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Delay, Freeze, Part, Sequence, Shift
from pacesetter_service.core.schedules.combinators import Clamp, Minimum, Product, Scale
from pacesetter_service.core.schedules.eases import Linear, Reversed
from pacesetter_service.core.schedules.named.stages import in_turn, too_long
from pacesetter_service.core.schedules.primitives import Hold, PowerLaw, Ramp
from pacesetter_service.core.schedules.warmup import Warmup

DEFAULT_TIMESCALE = 10_000
"""The timescale if neither a timescale nor a warmup is given, as in transformers."""


class Rooted(Named):
    """What the inverse roots with a straight warmup share."""

    warmup_steps: StepPoint = 0
    timescale: Length | None = None
    exponent: Positive = 0.5
    min_lr: NonNegative = 0.0

    def rooted(self) -> Schedule:
        """Return the warmup and the endless decay."""
        warmup = whole(self.warmup_steps)
        timescale = steps_of(self.timescale or warmup or DEFAULT_TIMESCALE)
        law: Schedule = PowerLaw(exponent=self.exponent, timescale=timescale, shift=timescale)
        if self.min_lr > 0:
            law = Clamp(schedule=law, min=self.min_lr)
        return Warmup(schedule=law, steps=warmup) if warmup else law


class InverseSqrt(Rooted):
    """A straight rise to the base, then a fall with the inverse square root of the time, for ever.

    `timescale` is how many steps after the warmup it takes to fall to `2 ** -exponent` of the base:
    the warmup's own length unless given, or 10,000 where there is no warmup.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then"
        " max(base * ((t - warmup_steps + timescale) / timescale) ** -exponent, min_lr)"
    )
    source: ClassVar[str] = (
        "transformers get_inverse_sqrt_schedule; fairseq inverse_sqrt; Raffel et al. 2020 (T5)"
    )
    example: ClassVar[dict[str, Any]] = {"warmup_steps": 100}

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"

    def expand(self) -> Schedule:  # noqa: D102
        return self.rooted()


class RsqrtCooldown(Rooted):
    """An inverse square root that comes down to its end over the last `cooldown_steps`.

    The cooldown either multiplies the decay by a factor that falls from 1 to 0 (`multiply`, as in
    big_vision) or goes straight from what the decay has come to, to `end_lr` (`linear`, as in
    llm-foundry and OLMo's power_lr). big_vision's timescale is 10,000 unless given, whatever the
    warmup; here it is the warmup's length, as in `inverse_sqrt`.
    """

    formula: ClassVar[str] = (
        "inverse_sqrt(t) until cooldown_steps before total_steps; then multiply: inverse_sqrt(t) *"
        " (total_steps - t) / cooldown_steps; linear: a straight line to end_lr"
    )
    source: ClassVar[str] = (
        "big_vision rsqrt with cooldown_steps; Zhai et al. 2022, arXiv:2106.04560; llm-foundry"
    )
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "cooldown_steps": 100,
        "warmup_steps": 50,
    }

    kind: Literal["rsqrt_cooldown"] = "rsqrt_cooldown"
    total_steps: StepCount
    cooldown_steps: StepCount
    cooldown: Literal["multiply", "linear"] = "multiply"
    end_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        stages = {"warmup_steps": self.warmup_steps, "cooldown_steps": self.cooldown_steps}
        yield from too_long(self.total_steps, **stages)
        if self.cooldown == "multiply" and self.end_lr > 0:
            yield PydanticCustomError(
                "no_line", '`end_lr` is for the cooldown "linear"; set it, or leave `end_lr` out'
            )

    def expand(self) -> Schedule:  # noqa: D102
        steps = whole(self.cooldown_steps)
        start = whole(self.total_steps) - steps
        if self.cooldown == "linear":
            down = Ramp(end=self.end_lr, steps=steps)
            return in_turn((self.rooted(), start), then=down)
        fall = Ramp(start=1.0, end=0.0, steps=steps, ease=Reversed(ease=Linear()))
        law = Product(schedule=self.rooted(), factors=(Delay(schedule=fall, by=start),))
        return Freeze(schedule=law, at=start + steps)


class Noam(Named):
    """The Transformer's own schedule: a straight rise, then the inverse square root of the step.

    With a `model_size` the base is the paper's unitless factor, often 1, and the peak is
    `base * (model_size * warmup_steps) ** -0.5`. Without one the base is the peak, as in ESPnet's
    WarmupLR. Steps are counted from 1, as in the paper. `min_lr` is a floor after the warmup.
    """

    formula: ClassVar[str] = (
        "base * scale * min((t + 1) ** -0.5, (t + 1) * warmup_steps ** -1.5),"
        " scale = model_size ** -0.5, or warmup_steps ** 0.5 without one"
    )
    source: ClassVar[str] = (
        "Vaswani et al. 2017, arXiv:1706.03762; AllenNLP noam (there factor is the base);"
        " paddle NoamDecay"
    )
    example: ClassVar[dict[str, Any]] = {"warmup_steps": 4000}

    kind: Literal["noam"] = "noam"
    warmup_steps: StepCount
    model_size: Positive | None = None
    min_lr: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        warmup = whole(self.warmup_steps)
        scale = warmup**0.5 if self.model_size is None else self.model_size**-0.5
        fall = PowerLaw(exponent=0.5, timescale=1.0, shift=0.0)
        rise = Ramp(start=0.0, end="base", steps=warmup**1.5, out_of_range="extrapolate")
        law = Shift(schedule=Scale(schedule=Minimum(of=(fall, rise)), by=scale), by=1.0)
        if self.min_lr == 0.0:
            return law
        floored = Clamp(schedule=law, min=self.min_lr)
        parts = (Part(schedule=law, until=warmup), Part(schedule=floored))
        return Sequence(parts=parts, clock="global")


class NoamHold(Named):
    """A straight rise to the base, the base for a while, then a power of the time.

    The time of the fall is counted as if the steps of the hold had not been. The first step uses
    `base / (warmup_steps + 1)`. NeMo jumps to `min_lr` after its `max_steps`, this goes on.
    """

    formula: ClassVar[str] = (
        "base * (t + 1) / (warmup_steps + 1), then base for hold_steps, then"
        " max(base * (warmup_steps / (t - hold_steps)) ** decay_rate, min_lr)"
    )
    source: ClassVar[str] = (
        "NeMo NoamHoldAnnealing; Squeezeformer: Kim et al. 2022, arXiv:2206.00888"
    )
    example: ClassVar[dict[str, Any]] = {"warmup_steps": 100, "hold_steps": 400}

    kind: Literal["noam_hold"] = "noam_hold"
    warmup_steps: StepCount
    hold_steps: StepPoint
    decay_rate: Positive = 0.5
    min_lr: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        warmup = whole(self.warmup_steps)
        rise = Shift(schedule=Ramp(start=0.0, end="base", steps=warmup + 1), by=1.0)
        fall = PowerLaw(exponent=self.decay_rate, timescale=warmup, shift=warmup)
        floored = Clamp(schedule=fall, min=self.min_lr)
        return in_turn((rise, warmup), (Hold(), whole(self.hold_steps)), then=floored)
