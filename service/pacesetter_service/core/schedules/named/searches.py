"""Searches: schedules that sweep learning rates to find a good one."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, known, whole
from pacesetter_service.core.model import Count, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.eases import Ease, Geometric, Linear, Stairs
from pacesetter_service.core.schedules.primitives import Ramp


class RangeTest(Named):
    """From a tiny learning rate to a huge one over `steps` steps, while the loss is watched.

    The last step is at `end_lr`, which is then held. With `stairs` there are that many levels of
    equal length before it. The base is not used.
    """

    formula: ClassVar[str] = (
        "start_lr * (end_lr / start_lr) ** u, or start_lr + (end_lr - start_lr) * u,"
        " u = t / (steps - 1), or floor(u * stairs) / stairs"
    )
    source: ClassVar[str] = (
        "Smith 2015, arXiv:1506.01186; torch_lr_finder range_test; fastai LRFinder (u = t / steps);"
        " DeepSpeed LRRangeTest"
    )
    example: ClassVar[dict[str, Any]] = {}

    kind: Literal["range_test"] = "range_test"
    start_lr: Positive = 1e-7
    end_lr: Positive = 10.0
    steps: StepCount = 100
    mode: Literal["exponential", "linear"] = "exponential"
    stairs: Count | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.start_lr >= self.end_lr:
            yield PydanticCustomError("not_ascending", "`start_lr` must be below `end_lr`")
        if known(self.steps) and self.steps < 2:
            yield PydanticCustomError("no_range", "A range has two ends: give two `steps` or more")

    def expand(self) -> Schedule:  # noqa: D102
        ease: Ease = Geometric() if self.mode == "exponential" else Linear()
        if self.stairs is not None:
            ease = Stairs(ease=ease, count=self.stairs)
        return Ramp(start=self.start_lr, end=self.end_lr, steps=whole(self.steps) - 1, ease=ease)
