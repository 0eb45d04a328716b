"""What a session says about its metrics: who reports them and how they become one value."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.model import Count, Model
from pacesetter_service.core.smoothing import AnySmoother

MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:/@ +-]+$")]

Aggregate = Literal["mean", "median", "min", "max", "sum", "rank0"]


class MetricSpec(Model):
    """How the readings of one metric become what controllers see.

    **Ranks.** A step's measurement closes when `ranks` of them have reported it (the session's
    ranks if not given); `aggregate` makes one value of theirs, in the order of the ranks, so that
    its bits do not depend on who came first. With `rank0` that rank's reading alone counts, and
    is enough.

    **Missing ranks.** A step that is not complete can wait no longer when a later step of the
    metric is complete, when some rank has reported a step `deadline` or more later, or when very
    many readings wait behind it. Then it closes if `quorum` ranks have reported it, and is recorded
    as missed if not. What is reported for a step after that is recorded, and decides nothing.

    **Not a number.** With `nan="bad"` controllers see NaN and infinities like any value, and none
    takes them for an improvement; `"ignore"` keeps them from all controllers; `"guard"` shows them
    to spike guards alone.

    **Smoothing** is what controllers see instead of the last value. A metric that names another
    one with `of` has no readings of its own: it is another view of that one's measurements.
    """

    aggregate: Aggregate = "mean"
    ranks: Annotated[Count, Field(le=65_536)] | None = None
    quorum: Annotated[Count, Field(le=65_536)] | None = None
    deadline: Count | None = None
    nan: Literal["bad", "ignore", "guard"] = "bad"
    smoothing: AnySmoother | None = None
    of: MetricName | None = None

    @model_validator(mode="after")
    def _a_view_has_no_readings(self) -> Self:
        own = self.aggregate != "mean" or self.ranks or self.quorum or self.deadline
        if self.of is not None and own:
            raise PydanticCustomError(
                "view_with_readings",
                "A metric with `of` has no readings of its own: say how they are aggregated at"
                " {of}",
                {"of": self.of},
            )
        return self

    @model_validator(mode="after")
    def _quorum_is_a_part(self) -> Self:
        if self.quorum and self.ranks and self.quorum > self.ranks:
            raise PydanticCustomError("quorum_too_large", "`quorum` can not be above `ranks`")
        return self
