"""An action on the limits of everybody else's."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.model import NonNegative, Positive, Real
from pacesetter_service.core.timeline import Timeline


class Limit(Action):
    """Other limits for controllers and for operators from here on; what is not given is unbounded.

    Values do not change: what would overstep the limits is refused or clipped from now on.
    """

    formula: ClassVar[str] = "schedule(t)"

    kind: Literal["limit"] = "limit"
    min_lr: NonNegative = 0.0
    max_lr: Positive | None = None
    max_change: Annotated[Real, Field(gt=1)] | None = None

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        return timeline

    def order(self) -> str:  # noqa: D102
        most = "unbounded" if self.max_lr is None else repr(self.max_lr)
        return f"limited to {self.min_lr!r} … {most}"
