"""Stages: schedules that warm up, stay, and come down, each in its own shape."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Duration, StepCount, StepPoint, known, steps_of, whole
from pacesetter_service.core.model import Fraction, NonNegative, Real, ZeroOrOne
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Sequence
from pacesetter_service.core.schedules.combinators import Relative, drives
from pacesetter_service.core.schedules.eases import AnyEase, Cosine, Geometric, Linear, Power
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.schedules.warmup import Warmup


def in_turn(*parts: tuple[Schedule, float], then: Schedule) -> Schedule:
    """Join laws of some steps each, without those of none; each starts where the last one ended.

    The value at the end of a law is the base of the next one.
    """
    some = [Part(schedule=law, steps=steps) for law, steps in parts if steps > 0]
    if not some:
        return then
    return Sequence(parts=(*some, Part(schedule=then)), value="continue")


def too_long(total: int | Duration, **stages: int | Duration) -> Iterator[PydanticCustomError]:
    """Return the fault of stages longer than the total; other units are checked once in steps."""
    if not all(map(known, (total, *stages.values()))):
        return
    together = sum(map(steps_of, stages.values()))
    if together > steps_of(total):
        yield PydanticCustomError(
            "no_time_to_decay",
            "total_steps ({total}) must not be below {names} together ({together}): it counts them",
            {"total": total, "names": " and ".join(stages), "together": int(together)},
        )


class WarmupStableDecay(Named):
    """A warmup, a stable phase, and a decay to `min_lr` over the last `decay_steps`.

    The decay starts from what the stable phase has come to. That is the base, unless `stable` is
    another schedule, whose clock starts when the warmup has ended. Both eases may be any; the
    decay's default is known as 1-sqrt. transformers' warmup of that name is `{"kind": "poly",
    "power": 0.5}` here. `start_factor` and `offset` are those of `warmup`.
    """

    formula: ClassVar[str] = (
        "base * warmup_ease(t / warmup_steps), then stable, then"
        " min_lr + (stable - min_lr) * (1 - decay_ease(u)), u = (t - total_steps) / decay_steps + 1"
    )
    source: ClassVar[str] = (
        "MiniCPM: Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392 (1-sqrt)"
    )
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "warmup_steps": 100,
        "decay_steps": 200,
    }

    kind: Literal["wsd"] = "wsd"
    total_steps: StepCount
    decay_steps: StepCount
    warmup_steps: StepPoint = 0
    min_lr: NonNegative = 0.0
    decay_ease: AnyEase = Power(power=0.5)
    warmup_ease: AnyEase = Linear()
    start_factor: NonNegative = 0.0
    offset: ZeroOrOne = 0
    stable: AnySchedule = Hold()

    def _faults(self) -> Iterator[PydanticCustomError]:
        stages = {"warmup_steps": self.warmup_steps, "decay_steps": self.decay_steps}
        yield from too_long(self.total_steps, **stages)
        if len(drives(self.stable) or ()) > 1:
            yield PydanticCustomError(
                "nested_channels", "The stable phase can drive one value only; leave its momentum"
            )

    def expand(self) -> Schedule:  # noqa: D102
        warmup, decay = whole(self.warmup_steps), whole(self.decay_steps)
        stable = whole(self.total_steps) - warmup - decay
        down = Ramp(end=self.min_lr, steps=decay, ease=self.decay_ease)
        law = in_turn((self.stable, stable), then=down)
        if warmup == 0:
            return law
        return Warmup(
            schedule=law,
            steps=warmup,
            start_factor=self.start_factor,
            ease=self.warmup_ease,
            offset=self.offset,
        )


class FlatCosine(Named):
    """The base for a part of the training, then half a cosine wave down to `min_lr`."""

    formula: ClassVar[str] = (
        "base for t < pct_start * total_steps, then min_lr + (base - min_lr) * (1 + cos(pi * u)) /"
        " 2, u the part of the rest that has passed"
    )
    source: ClassVar[str] = "fastai fit_flat_cos (there min_lr is base / 1e5)"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000}

    kind: Literal["flat_cosine"] = "flat_cosine"
    total_steps: StepCount
    pct_start: Annotated[Real, Field(ge=0, lt=1)] = 0.75
    min_lr: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        total = whole(self.total_steps)
        flat = self.pct_start * total
        return in_turn(
            (Hold(), flat), then=Ramp(end=self.min_lr, steps=total - flat, ease=Cosine())
        )


class SlantedTriangular(Named):
    """A short straight rise from `base / ratio` to the base, and a long straight way back.

    A `cut_frac` that comes to less than a step is no rise at all. Gradual unfreezing and
    discriminative rates are groups with schedules and bases of their own.
    """

    formula: ClassVar[str] = (
        "base * (1 + p * (ratio - 1)) / ratio, p = t / cut for t < cut = floor(total_steps *"
        " cut_frac), then 1 - (t - cut) / (total_steps - cut)"
    )
    source: ClassVar[str] = (
        "ULMFiT: Howard and Ruder 2018, arXiv:1801.06146; AllenNLP slanted_triangular"
    )
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000}

    kind: Literal["slanted_triangular"] = "slanted_triangular"
    total_steps: StepCount
    cut_frac: Annotated[Real, Field(ge=0, lt=1)] = 0.1
    ratio: Annotated[Real, Field(ge=1)] = 32.0

    def expand(self) -> Schedule:  # noqa: D102
        total, low = whole(self.total_steps), 1.0 / self.ratio
        cut = int(total * self.cut_frac)
        up = [(Ramp(start=low, end=1.0, steps=cut), cut)] if cut else []
        return Relative(schedule=in_turn(*up, then=Ramp(start=1.0, end=low, steps=total - cut)))


class TriStage(Named):
    """A straight rise, the base for a while, and an exponential decay; what it ends in is held.

    Either of the first two stages may have no steps. fairseq's `phase_ratio` is three lengths as
    fractions: `{"fraction": 0.1}`.
    """

    formula: ClassVar[str] = (
        "base * (init_lr_scale + (1 - init_lr_scale) * t / warmup_steps), then base, then"
        " base * final_lr_scale ** (k / decay_steps), k steps into the decay, then its end"
    )
    source: ClassVar[str] = "fairseq tri_stage; SpecAugment: Park et al. 2019, arXiv:1904.08779"
    example: ClassVar[dict[str, Any]] = {
        "warmup_steps": 100,
        "hold_steps": 400,
        "decay_steps": 500,
    }

    kind: Literal["tri_stage"] = "tri_stage"
    warmup_steps: StepPoint
    hold_steps: StepPoint
    decay_steps: StepCount
    init_lr_scale: Fraction = 0.01
    final_lr_scale: Annotated[Real, Field(gt=0, le=1)] = 0.01

    def expand(self) -> Schedule:  # noqa: D102
        warmup, hold = whole(self.warmup_steps), whole(self.hold_steps)
        up = [(Ramp(start=self.init_lr_scale, end=1.0, steps=warmup), warmup)] if warmup else []
        down = Ramp(start=1.0, end=self.final_lr_scale, steps=self.decay_steps, ease=Geometric())
        return Relative(schedule=in_turn(*up, (Hold(value=1.0), hold), then=down))


class CosineLinearTail(Named):
    """A warmup and a cosine that is cut short and followed by a straight line to `end_lr`.

    The cosine is that of all `total_steps` and aims at `min_lr`; the line takes the last
    `decay_steps`, from what the cosine has come to by then.
    """

    formula: ClassVar[str] = (
        "base * t / warmup_steps, then min_lr + (base - min_lr) * (1 + cos(pi * u)) / 2, u = (t -"
        " warmup_steps) / (total_steps - warmup_steps), then a line to end_lr at total_steps"
    )
    source: ClassVar[str] = "OLMo-core CosWithWarmupAndLinearDecay (there min_lr is base / 10)"
    example: ClassVar[dict[str, Any]] = {
        "total_steps": 1000,
        "decay_steps": 100,
        "warmup_steps": 50,
        "min_lr": 1e-4,
    }

    kind: Literal["cosine_linear_tail"] = "cosine_linear_tail"
    total_steps: StepCount
    decay_steps: StepCount
    warmup_steps: StepPoint = 0
    min_lr: NonNegative = 0.0
    end_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        stages = {"warmup_steps": self.warmup_steps, "decay_steps": self.decay_steps}
        return too_long(self.total_steps, **stages)

    def expand(self) -> Schedule:  # noqa: D102
        warmup, decay = whole(self.warmup_steps), whole(self.decay_steps)
        length = whole(self.total_steps) - warmup
        wave = Ramp(end=self.min_lr, steps=length, ease=Cosine())
        law = in_turn((wave, length - decay), then=Ramp(end=self.end_lr, steps=decay))
        return Warmup(schedule=law, steps=warmup) if warmup else law
