"""A leaky bucket: it holds the newest fraction of all values since it was emptied."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import Controller
from pacesetter_service.core.model import Count, Model, NonNegative, Real, Step
from pacesetter_service.core.packed import Packed

MAX_KEPT = 4096
"""The most values that a controller's state may hold; each measurement writes all of them."""

Kept = Annotated[Count, Field(le=MAX_KEPT)]
"""A number of values in a state."""


class LeakyBucket(Model):
    """The newest `1 / ratio` of the values since it was emptied, up to a limit.

    Old values leave as new ones come. So the first steps of a training, where a loss falls fast,
    are forgotten at the pace at which the bucket fills. The rule is that of statopt's LeakyBucket,
    which has no limit: `ceil(total / ratio)` values are kept.
    """

    kept: Packed = ()
    total: Step = 0

    def add(self, value: float, ratio: int, limit: int) -> "LeakyBucket":
        """Return the bucket with another finite value."""
        leaks = self.total % ratio != 0 or len(self.kept) >= limit
        kept = (*self.kept[1:], value) if leaks else (*self.kept, value)
        return LeakyBucket(kept=kept, total=self.total + 1)


class BucketTest(Controller):
    """A rule that tests the values of a leaky bucket, at every `interval` values.

    It does not test until the bucket holds more than `min_kept` values, of at most `max_kept`.
    """

    significance: Annotated[Real, Field(gt=0, lt=1)] = 0.05
    interval: Count = 100
    min_kept: Kept = 1000
    max_kept: Kept = 2048
    leak_ratio: Count = 8
    min_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.max_kept <= self.min_kept:
            yield PydanticCustomError(
                "never_full",
                "A bucket of {most} never holds more than {least}; give a `max_kept` above"
                " `min_kept`",
                {"most": self.max_kept, "least": self.min_kept},
            )
