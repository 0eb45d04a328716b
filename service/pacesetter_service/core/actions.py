"""Actions: what an operator orders of a running session. Each is one pure change of a timeline."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from pacesetter_service.core.model import AnyOf, Positive, Tagged
from pacesetter_service.core.timeline import Timeline

Reason = Annotated[str, Field(max_length=1000)]


class Action(Tagged, family="action"):
    """An order to change learning rates from the horizon on; what is sealed stays as it is."""

    reason: Reason = ""

    @abstractmethod
    def apply(self, timeline: Timeline, at: int) -> Timeline:
        """Give the timeline of an `lr` series with the order carried out from step `at` on."""

    def cause(self) -> str:
        """Say what was ordered and why, for the segments that follow from it."""
        return f"{self._order()}: {self.reason}" if self.reason else self._order()

    @abstractmethod
    def _order(self) -> str:
        """Say what was ordered."""


AnyAction = Annotated[Action, AnyOf(Action)]


class Scale(Action):
    """Multiply the learning rate by a factor, in the middle of whatever its schedule does."""

    kind: Literal["scale"] = "scale"
    factor: Positive

    def apply(self, timeline: Timeline, at: int) -> Timeline:  # noqa: D102
        scale = timeline.segments[-1].scale * self.factor
        return timeline.go_on(at, self.cause(), scale=scale)

    def _order(self) -> str:
        return f"scaled by {self.factor!r}"
