"""An action on the limits that controllers and all other orders must keep to."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.model import Flag, NonNegative, Positive, Real
from pacesetter_service.core.timeline import Timeline


class Limit(Action):
    """Other limits for controllers and for operators from here on; what is not given is unbounded.

    Values do not change: what would overstep the limits is refused or clipped from now on. Limits
    are the session's, so there is no limit for some `groups`.
    """

    formula: ClassVar[str] = "schedule(t)"
    example: ClassVar[dict[str, Any]] = {"max_lr": 0.01}

    kind: Literal["limit"] = "limit"
    min_lr: NonNegative = Field(
        default=0.0,
        description="the lowest learning rate that may be ordered or decided from then on",
    )
    max_lr: Positive | None = Field(
        default=None,
        description="the highest learning rate that may be ordered or decided; unbounded if not"
        " given",
    )
    max_change: Annotated[Real, Field(gt=1)] | None = Field(
        default=None,
        description="the ratio above 1 by which a level changes at most at once; unbounded if not"
        " given",
    )
    lift: Flag = Field(
        default=False, description="give no limit, and so lift all: it has to be said"
    )

    @property
    def bounds_nothing(self) -> bool:
        """Whether the action lifts every limit."""
        return self.min_lr == 0 and self.max_lr is None and self.max_change is None

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.max_lr is not None and self.min_lr > self.max_lr:
            yield PydanticCustomError("no_room", "`min_lr` is above `max_lr`; swap them")
        if self.lift and not self.bounds_nothing:
            yield PydanticCustomError(
                "limits_lifted", "`lift` lifts all limits; leave it out, or the limits"
            )
        if self.groups is not None:
            yield PydanticCustomError(
                "limits_of_groups", "Limits are for the whole session; leave `groups` out"
            )

    # Not a validation fault, because logs of earlier versions contain such orders.
    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: ARG002, D102
        if self.bounds_nothing and not self.lift:
            raise ActionRefusedError(
                "This would lift all limits. Give `min_lr`, `max_lr` or `max_change`, or say"
                ' `"lift": true`.'
            ).about("lift")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        return timeline

    def order(self) -> str:  # noqa: D102
        if self.bounds_nothing:
            return "limited no more"
        most = "unbounded" if self.max_lr is None else repr(self.max_lr)
        factor = "" if self.max_change is None else f", by a factor of {self.max_change!r} at once"
        return f"limited to {self.min_lr!r} … {most}{factor}"
