"""Warmups joined with a decay, under the names that people use."""

from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, known, whole
from pacesetter_service.core.model import NonNegative
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.named.decays import Cosine
from pacesetter_service.core.schedules.warmup import Warmup


class WarmupCosine(Named):
    """A linear rise to the base, then half a cosine wave down to `min_lr` at `total_steps`.

    The first step uses `base / warmup_steps`, not 0.
    """

    formula: ClassVar[str] = (
        "base * (t + 1) / warmup_steps for t < warmup_steps, then"
        " cosine(t - warmup_steps, total_steps - warmup_steps)"
    )
    source: ClassVar[str] = "the usual composition; transformers get_cosine_schedule_with_warmup"
    example: ClassVar[dict[str, Any]] = {"warmup_steps": 100, "total_steps": 1000, "min_lr": 1e-6}

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_steps: StepCount
    total_steps: StepCount
    min_lr: NonNegative = 0.0

    @model_validator(mode="after")
    def _time_to_decay(self) -> Self:
        lengths = (self.total_steps, self.warmup_steps)
        if all(map(known, lengths)) and whole(self.total_steps) <= whole(self.warmup_steps):
            raise PydanticCustomError(
                "no_time_to_decay",
                "total_steps ({total}) must be above warmup_steps ({warmup}):"
                " it counts the warmup too",
                {"total": self.total_steps, "warmup": self.warmup_steps},
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        length = whole(self.total_steps) - whole(self.warmup_steps)
        decay = Cosine(total_steps=length, min_lr=self.min_lr)
        return Warmup(schedule=decay, steps=self.warmup_steps, offset=1)
