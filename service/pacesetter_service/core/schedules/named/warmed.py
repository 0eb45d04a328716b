"""Warmups joined with a decay, under the names that people use."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, known, whole
from pacesetter_service.core.model import Fraction, NonNegative
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.named.decays import Cosine, two_floors
from pacesetter_service.core.schedules.warmup import Warmup


class WarmupCosine(Named):
    """A linear rise to the base, then half a cosine wave down to `min_lr` at `total_steps`.

    The first step uses `base / warmup_steps`, not 0. A warmup of 0 steps is none. The floor is
    `min_lr`, a learning rate, or `min_ratio`, a part of the base.
    """

    formula: ClassVar[str] = (
        "base * (t + 1) / warmup_steps for t < warmup_steps, then"
        " cosine(t - warmup_steps, total_steps - warmup_steps)"
    )
    source: ClassVar[str] = "the usual composition; transformers get_cosine_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {"warmup_steps": 100, "total_steps": 1000, "min_lr": 1e-6}

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_steps: StepPoint
    total_steps: StepCount
    min_lr: NonNegative = 0.0
    min_ratio: Fraction | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        yield from two_floors(self.min_lr, self.min_ratio)
        lengths = (self.total_steps, self.warmup_steps)
        if all(map(known, lengths)) and whole(self.total_steps) <= whole(self.warmup_steps):
            yield PydanticCustomError(
                "no_time_to_decay",
                "total_steps ({total}) must be above warmup_steps ({warmup}):"
                " it counts the warmup too",
                {"total": self.total_steps, "warmup": self.warmup_steps},
            )

    def expand(self) -> Schedule:  # noqa: D102
        length = whole(self.total_steps) - whole(self.warmup_steps)
        decay = Cosine(total_steps=length, min_lr=self.min_lr, min_ratio=self.min_ratio)
        return Warmup(schedule=decay, steps=self.warmup_steps, offset=1)
