"""Schedules for trainings whose length is decided later: whenever the end comes, they anneal."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Length, StepCount, StepPoint, known, steps_of, whole
from pacesetter_service.core.model import NonNegative, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.eases import Cosine, Decay, Geometric
from pacesetter_service.core.schedules.named.stages import in_turn, too_long
from pacesetter_service.core.schedules.primitives import Hold, PowerLaw, Ramp
from pacesetter_service.core.schedules.warmup import Warmup


class Infinite(Named):
    """A warmup, a cosine down to a constant rate, and an exponential anneal to `min_lr` at the end.

    Checkpoints of the constant phase are what other data, or a longer training, go on from. Without
    `anneal_steps` the constant rate goes on for ever, until an order anneals it.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then constant_lr + (base - constant_lr) * (1 + cos(pi * u)) / 2"
        " over cooldown_steps, then constant_lr, then"
        " constant_lr * (min_lr / constant_lr) ** u over the last anneal_steps"
    )
    source: ClassVar[str] = (
        "Ibrahim et al. 2024, arXiv:2403.08763; Singh et al. 2025, arXiv:2503.02844"
    )
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "warmup_steps": 10,
        "cooldown_steps": 300,
        "constant_lr": 0.05,
        "anneal_steps": 200,
        "min_lr": 0.001,
    }

    kind: Literal["infinite"] = "infinite"
    cooldown_steps: StepCount
    constant_lr: Positive
    warmup_steps: StepPoint = 0
    total_steps: StepCount | None = None
    anneal_steps: StepPoint = 0
    min_lr: Positive | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        annealed = not known(self.anneal_steps) or self.anneal_steps > 0
        if annealed and (self.total_steps is None or self.min_lr is None):
            yield PydanticCustomError(
                "no_anneal", "An anneal takes `total_steps` and `min_lr`; give both, or leave it"
            )
        if self.total_steps is not None:
            stages = {
                "warmup_steps": self.warmup_steps,
                "cooldown_steps": self.cooldown_steps,
                "anneal_steps": self.anneal_steps,
            }
            yield from too_long(self.total_steps, **stages)

    def expand(self) -> Schedule:  # noqa: D102
        warmup, cooldown = whole(self.warmup_steps), whole(self.cooldown_steps)
        down: Schedule = Ramp(end=self.constant_lr, steps=cooldown, ease=Cosine())
        anneal = whole(self.anneal_steps)
        if anneal and self.total_steps is not None and self.min_lr is not None:
            constant = whole(self.total_steps) - warmup - cooldown - anneal
            end = Ramp(end=self.min_lr, steps=anneal, ease=Geometric())
            down = in_turn((down, cooldown), (Hold(), constant), then=end)
        return Warmup(schedule=down, steps=warmup) if warmup else down


class PowerScheduler(Named):
    """A warmup, then the base or a power of the step, whichever is lower, and an end if one is set.

    The power knows no length: only the last `decay_steps` do, and without them it goes on for ever,
    until an order ends it. The paper writes it as `min(max_lr, batch_size * a * tokens ** b)` with
    max_lr 0.02, a = 4, b = -0.51 and the batch size in sequences, under muP. Here max_lr is the
    base, and `capped_steps` is where the two meet: after `(batch_size * a / max_lr) ** (1 / 0.51)`
    tokens, which is 2.6e10 for 1,024 sequences. A length in other units says so at once:
    `{"tokens": 2.6e10}`. The warmup goes to what the law is at its end, be that below the cap.

    The end is the authors' own: an exponential that is brought to `min_lr`.
    """

    formula: ClassVar[str] = (
        "power = base * min(1, (t / capped_steps) ** -exponent); power(warmup_steps) * t /"
        " warmup_steps, then power(t), then over the last decay_steps min_lr + (power - min_lr) *"
        " (e ** (1 - u) - 1) / (e - 1)"
    )
    source: ClassVar[str] = (
        "Shen et al. 2024, arXiv:2408.13359; PowerScheduler and ExponentialScheduler of IBM's"
        " dolomite-engine"
    )
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "warmup_steps": 50,
        "capped_steps": 100,
        "decay_steps": 200,
    }

    kind: Literal["power_scheduler"] = "power_scheduler"
    capped_steps: Length
    warmup_steps: StepPoint = 0
    exponent: Positive = 0.51
    total_steps: StepCount | None = None
    decay_steps: StepPoint = 0
    min_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        ends = not known(self.decay_steps) or self.decay_steps > 0
        if ends and self.total_steps is None:
            yield PydanticCustomError(
                "no_end", "`decay_steps` are the last of `total_steps`; give both, or leave it"
            )
        if self.min_lr > 0 and not ends:
            yield PydanticCustomError(
                "no_decay", "`min_lr` is what `decay_steps` come down to; give both, or leave it"
            )
        if self.total_steps is not None:
            stages = {"warmup_steps": self.warmup_steps, "decay_steps": self.decay_steps}
            yield from too_long(self.total_steps, **stages)

    def expand(self) -> Schedule:  # noqa: D102
        warmup, capped = whole(self.warmup_steps), steps_of(self.capped_steps)
        fall = max(warmup, math.ceil(capped))
        power = PowerLaw(exponent=self.exponent, timescale=capped, shift=fall)
        law = in_turn((Hold(), fall - warmup), then=power)
        if warmup:
            law = Warmup(schedule=law, steps=warmup)
        decay = whole(self.decay_steps)
        if decay == 0 or self.total_steps is None:
            return law
        # The warmup belongs to the first part, so that the end starts from the power law even if it
        # follows immediately.
        end = Ramp(end=self.min_lr, steps=decay, ease=Decay(ratio=1.0 / math.e))
        return in_turn((law, whole(self.total_steps) - decay), then=end)


class Anytime(Named):
    """A straight rise to the base, then a fall with the inverse square root, for ever.

    It is half of a method: the other half is an average of the weights, which stands in for the
    decay that never comes. The authors' is exponential, with a half-life of some hundredths of the
    training's age: the average keeps `2 ** (-25 / t)` of itself at step t, for one of 4 %.
    After `3 * alpha` steps half the base is left; they tried 400 to 51,200 for `alpha`.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then base * sqrt(alpha / (t - warmup_steps + alpha))"
    )
    source: ClassVar[str] = "Meterez et al. 2026, arXiv:2602.03702"
    example: ClassVar[dict[str, Any]] = {"alpha": 400, "warmup_steps": 100}

    kind: Literal["anytime"] = "anytime"
    alpha: Length
    warmup_steps: StepPoint = 0

    def expand(self) -> Schedule:  # noqa: D102
        warmup, alpha = whole(self.warmup_steps), steps_of(self.alpha)
        law = PowerLaw(exponent=0.5, timescale=alpha, shift=alpha)
        return Warmup(schedule=law, steps=warmup) if warmup else law
