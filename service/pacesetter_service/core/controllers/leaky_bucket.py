"""A leaky bucket: of all values since it was emptied it holds the newest part."""

from typing import Annotated

from pydantic import Field

from pacesetter_service.core.model import Count, Model, Step
from pacesetter_service.core.packed import Packed

MAX_KEPT = 4096
"""The most values that a controller's state may hold: each measurement writes all of them."""

Kept = Annotated[Count, Field(le=MAX_KEPT)]
"""A number of values in a state."""


class LeakyBucket(Model):
    """The newest `1 / ratio` of the values that came since it was emptied, up to a limit.

    Old values leave as new ones come, so what a training did in its first steps, where a loss
    falls fast, is forgotten at the pace at which the bucket fills. The rule of statopt's
    LeakyBucket, which has no limit: `ceil(total / ratio)` values are kept.
    """

    kept: Packed = ()
    total: Step = 0

    def add(self, value: float, ratio: int, limit: int) -> "LeakyBucket":
        """Give the bucket with one finite value more."""
        leaks = self.total % ratio != 0 or len(self.kept) >= limit
        kept = (*self.kept[1:], value) if leaks else (*self.kept, value)
        return LeakyBucket(kept=kept, total=self.total + 1)
