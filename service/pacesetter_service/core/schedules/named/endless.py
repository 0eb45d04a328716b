"""Schedules for trainings whose length is decided later: whenever the end comes, they anneal."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, known, steps_of, whole
from pacesetter_service.core.model import Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.eases import Cosine, Geometric
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
    source: ClassVar[str] = "Singh et al. 2025, arXiv:2503.02844"
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
    """A warmup, the base up to `capped_steps`, a power of the step, and an exponential end.

    The power knows no length: only the last `decay_steps` do. The paper has the cap where
    `a * batch_size * tokens ** -exponent` comes down to the largest rate.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then base * min(1, (t / capped_steps) ** -exponent), then over"
        " the last decay_steps exponentially to min_lr"
    )
    source: ClassVar[str] = "Shen et al. 2024, arXiv:2408.13359 (there the exponent is 0.51)"
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "warmup_steps": 50,
        "capped_steps": 100,
        "decay_steps": 200,
        "min_lr": 0.001,
    }

    kind: Literal["power_scheduler"] = "power_scheduler"
    total_steps: StepCount
    capped_steps: StepCount
    decay_steps: StepCount
    min_lr: Positive
    warmup_steps: StepPoint = 0
    exponent: Positive = 0.51

    def _faults(self) -> Iterator[PydanticCustomError]:
        stages = {"capped_steps": self.capped_steps, "decay_steps": self.decay_steps}
        yield from too_long(self.total_steps, **stages)
        if known(self.warmup_steps) and known(self.capped_steps):
            warmup, capped = steps_of(self.warmup_steps), steps_of(self.capped_steps)
            if warmup > capped:
                yield PydanticCustomError(
                    "warmup_above_cap", "`warmup_steps` ends before `capped_steps`; shorten it"
                )

    def expand(self) -> Schedule:  # noqa: D102
        warmup, capped = whole(self.warmup_steps), whole(self.capped_steps)
        decay = whole(self.decay_steps)
        power = PowerLaw(exponent=self.exponent, timescale=capped, shift=capped)
        end = Ramp(end=self.min_lr, steps=decay, ease=Geometric())
        law = in_turn(
            (Hold(), capped - warmup),
            (power, whole(self.total_steps) - capped - decay),
            then=end,
        )
        return Warmup(schedule=law, steps=warmup) if warmup else law
