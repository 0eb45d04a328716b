"""Restarts: schedules that come down and start again, and one that applies them to any schedule."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, known, steps_of, whole
from pacesetter_service.core.model import Count, NonNegative, Positive, Real
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Repeat, Sequence
from pacesetter_service.core.schedules.combinators import Clamp, Product, Rebase
from pacesetter_service.core.schedules.eases import AnyEase, Cosine, Linear
from pacesetter_service.core.schedules.named.stages import in_turn
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.warmup import Warmup

MAX_PERIODS = 256
"""The most periods that can be listed."""


class CosineRestarts(Named):
    """Half cosine waves of equal length, `num_cycles` in `total_steps`; then `min_lr` is held."""

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * (1 + cos(pi * (num_cycles * t / total_steps mod 1))) / 2"
    )
    source: ClassVar[str] = "transformers get_cosine_with_hard_restarts_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "num_cycles": 4}

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    total_steps: StepCount
    num_cycles: Count = 1
    min_lr: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        period = whole(self.total_steps) / self.num_cycles
        wave = Ramp(end=self.min_lr, steps=period, ease=Cosine())
        return Repeat(schedule=wave, period=period, limit=self.num_cycles)


class Restarting(Named):
    """What schedules of periods share: equal periods, growing ones, or ones that are listed.

    Period `i` is `period * growth ** i` long, of which the first `warmup` steps do not grow, and
    starts from `base * peak_decay ** i`; nothing is below `min_lr`. After `limit` of them, or after
    the last one in `periods`, the end of the last one is held.
    """

    period: StepCount | None = None
    periods: (
        Annotated[tuple[StepCount, ...], Field(min_length=1, max_length=MAX_PERIODS)] | None
    ) = None
    growth: Annotated[Real, Field(ge=1)] = 1.0
    peak_decay: Positive = 1.0
    limit: Count | None = None
    min_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if (self.period is None) == (self.periods is None):
            yield PydanticCustomError(
                "period_or_periods", "Give `period` for the first length, or all of them: `periods`"
            )
        if self.periods is not None and (self.growth != 1.0 or self.limit is not None):
            yield PydanticCustomError(
                "period_or_periods", "`periods` are all of them; leave `growth` and `limit` out"
            )

    def lengths(self) -> list[float]:
        """Return the lengths that are already known in steps."""
        some = self.periods if self.period is None else (self.period,)
        return [steps_of(length) for length in some or () if known(length)]

    def restarted(self, cycles: list[Schedule], lead: int = 0) -> Schedule:
        """Join cycles, one for each length."""
        if self.period is not None:
            law: Schedule = Repeat(
                schedule=cycles[0],
                period=self.period,
                growth=self.growth,
                peak_decay=self.peak_decay,
                limit=self.limit,
                lead=lead,
            )
        else:
            parts = [
                Part(schedule=Rebase(schedule=cycle, by=self.peak_decay**index), steps=length)
                for index, (cycle, length) in enumerate(zip(cycles, self.lengths(), strict=True))
            ]
            law = Sequence(parts=(*parts[:-1], Part(schedule=parts[-1].schedule)))
        return law if self.peak_decay == 1.0 else Clamp(schedule=law, min=self.min_lr)


class Sgdr(Restarting):
    """Half cosine waves again and again, of equal, growing or given lengths, from falling peaks.

    Each may start with a straight rise from `min_lr` over `warmup_steps`, which do not grow.
    """

    formula: ClassVar[str] = (
        "min_lr + (base * peak_decay ** i - min_lr) * (1 + cos(pi * u)) / 2 in period i, u the part"
        " of it that has passed since its warmup"
    )
    source: ClassVar[str] = (
        "Loshchilov and Hutter 2016, arXiv:1608.03983; torch CosineAnnealingWarmRestarts; timm"
        " (cycle_mul, cycle_decay); katsura's CosineAnnealingWarmupRestarts; mmengine (periods)"
    )
    example: ClassVar[dict[str, Any]] = {"period": 100, "growth": 2.0, "peak_decay": 0.8}

    kind: Literal["sgdr"] = "sgdr"
    warmup_steps: StepPoint = 0

    def _faults(self) -> Iterator[PydanticCustomError]:
        yield from super()._faults()
        if known(self.warmup_steps) and any(
            length <= steps_of(self.warmup_steps) for length in self.lengths()
        ):
            yield PydanticCustomError(
                "no_time_to_decay", "Each period must be above warmup_steps: it counts them"
            )

    def expand(self) -> Schedule:  # noqa: D102
        cycles = [self._cycle(length) for length in self.lengths()]
        return self.restarted(cycles, lead=whole(self.warmup_steps))

    def _cycle(self, length: float) -> Schedule:
        warmup = whole(self.warmup_steps)
        wave = Ramp(end=self.min_lr, steps=length - warmup, ease=Cosine())
        if warmup == 0:
            return wave
        rise = Ramp(start=self.min_lr, end="base", steps=warmup)
        return Sequence(parts=(Part(schedule=rise, steps=warmup), Part(schedule=wave)))


class PeriodicWarmupStableDecay(Restarting):
    """The base, with a decay to `min_lr` over the last `decay_steps` of each period.

    The end of any period is a finished model, and the training goes on from the base again as if
    nothing had been. The warmup is in the first period alone and counts in it. With `growth` the
    decay grows with its period. OLMo counts steps from 1, so there each decay is a step earlier.
    """

    formula: ClassVar[str] = (
        "base, over the last decay_steps of each period min_lr + (base - min_lr) * (1 - u);"
        " times t / warmup_steps at first"
    )
    source: ClassVar[str] = (
        "WSD-S: Wen et al. 2024, arXiv:2410.05192; OLMo-core WSDS; levanter cycles"
    )
    example: ClassVar[dict[str, Any]] = {"period": 500, "decay_steps": 50, "warmup_steps": 100}

    kind: Literal["wsd_s"] = "wsd_s"
    decay_steps: StepCount
    warmup_steps: StepPoint = 0
    decay_ease: AnyEase = Linear()

    def _faults(self) -> Iterator[PydanticCustomError]:
        yield from super()._faults()
        lengths = self.lengths()
        if not (lengths and known(self.decay_steps) and known(self.warmup_steps)):
            return
        together = self.decay_steps + self.warmup_steps
        if min(lengths) < self.decay_steps or lengths[0] < together:
            yield PydanticCustomError(
                "no_time_to_decay",
                "Each period must have room for decay_steps, the first one for warmup_steps too",
            )

    def expand(self) -> Schedule:  # noqa: D102
        decay, warmup = whole(self.decay_steps), whole(self.warmup_steps)
        down = Ramp(end=self.min_lr, steps=decay, ease=self.decay_ease)
        law = self.restarted(
            [in_turn((Hold(), length - decay), then=down) for length in self.lengths()]
        )
        return Warmup(schedule=law, steps=warmup, mode="multiply") if warmup else law


class Jagged(Named):
    """Another schedule, brought down and warmed up again every `restart_steps`, for ReLoRA.

    Each period ends in a straight fall to `min_lr_scale` of the schedule over `anneal_steps`, and
    each but the first starts with a straight rise from there over `warmup_steps`. The schedule's
    own clock goes on.
    """

    formula: ClassVar[str] = (
        "schedule(t) * (min_lr_scale + (1 - min_lr_scale) * min(k / warmup_steps, 1,"
        " (restart_steps - k) / anneal_steps)), k = t mod restart_steps"
    )
    source: ClassVar[str] = (
        "axolotl JaggedLRRestartScheduler (there each name starts with jagged_restart_);"
        " ReLoRA: Lialin et al. 2023, arXiv:2307.05695"
    )
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1000},
        "restart_steps": 200,
        "warmup_steps": 20,
    }

    kind: Literal["jagged"] = "jagged"
    schedule: AnySchedule
    restart_steps: StepCount
    warmup_steps: StepPoint
    anneal_steps: StepCount = 1
    min_lr_scale: Annotated[Real, Field(ge=0, le=1)] = 0.001

    def _faults(self) -> Iterator[PydanticCustomError]:
        lengths = (self.restart_steps, self.warmup_steps, self.anneal_steps)
        if all(map(known, lengths)) and steps_of(lengths[0]) < sum(map(steps_of, lengths[1:])):
            yield PydanticCustomError(
                "no_time_to_train",
                "restart_steps must not be below warmup_steps and anneal_steps together",
            )

    def expand(self) -> Schedule:  # noqa: D102
        period, warmup, anneal = map(
            whole, (self.restart_steps, self.warmup_steps, self.anneal_steps)
        )
        low = self.min_lr_scale
        full = Hold(value=1.0)
        rise = Ramp(start=low, end=1.0, steps=warmup) if warmup else full
        fall = Ramp(start=1.0, end=low, steps=anneal)
        first = in_turn((full, period - anneal), then=fall)
        later = in_turn((rise, warmup), (full, period - warmup - anneal), then=fall)
        again = Repeat(schedule=later, period=period)
        factor = Sequence(parts=(Part(schedule=first, steps=period), Part(schedule=again)))
        return Product(schedule=self.schedule, factors=(factor,))
