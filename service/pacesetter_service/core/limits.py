"""The bounds that no controller and no operator oversteps."""

from collections.abc import Iterator
from math import inf
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.model import Checked, NonNegative, Positive, Real


class Limits(Checked):
    """What no controller can overstep: bounds of the level, and of its change in one decision.

    `max_change` is a ratio above 1: a level is at most multiplied or divided by it.
    """

    min_lr: NonNegative = Field(
        default=0.0, description="the lowest learning rate that may be ordered or decided"
    )
    max_lr: Positive | None = Field(
        default=None,
        description="the highest learning rate that may be ordered or decided; unbounded if not"
        " given",
    )
    max_change: Annotated[Real, Field(gt=1)] | None = Field(
        default=None,
        description=(
            "the ratio above 1 by which a level changes at most in one decision; unbounded "
            "if not given"
        ),
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.max_lr is not None and self.min_lr > self.max_lr:
            yield PydanticCustomError("no_room", "`min_lr` is above `max_lr`; swap them")

    def clip(self, old: float, new: float) -> float:
        """Return the level nearest to `new` that may follow the level `old`."""
        if self.max_change is not None:
            new = min(max(new, old / self.max_change), old * self.max_change)
        # A level that is already outside may move back in, but is never forced to.
        least, most = min(self.min_lr, old), inf if self.max_lr is None else max(self.max_lr, old)
        return max(min(new, most), least)
