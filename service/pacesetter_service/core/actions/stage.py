"""The order to a `switch` controller to go on to its next stage."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.model import Step
from pacesetter_service.core.timeline import Timeline


class Switch(Action):
    """Move a `switch` controller to its next stage, whatever its predicate says.

    `controller` is its index in the session's spec. The next stage's schedule begins at the order's
    step, on a clock of its own, and the trainer is told `switched`, as when the predicate holds.
    """

    formula: ClassVar[str] = "the schedule of the controller's next stage, from 0"
    example: ClassVar[dict[str, Any]] = {"controller": 0}

    kind: Literal["switch"] = "switch"
    controller: Step = Field(
        default=0, description="the index of the `switch` controller in the session's spec"
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.groups is not None:
            yield PydanticCustomError(
                "stages_of_groups", "All groups go over together; leave `groups` out"
            )

    def concerns(self, group: str, channel: str) -> bool:  # noqa: ARG002, D102
        return False  # the controller's decision changes the series, not the action

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        return timeline

    def order(self) -> str:  # noqa: D102
        return f"moved controller {self.controller} to its next stage"
