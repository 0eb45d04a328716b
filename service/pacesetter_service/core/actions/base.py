"""What an action is: a frozen order that changes a timeline from some step on.

`check` may refuse, when the order is given; `apply` never does, when its step is about to be
sealed: by then it is a promise. So `apply` takes whatever it finds: what other orders have made of
the timeline meanwhile, or what is left since they were cancelled.
"""

import re
from abc import abstractmethod
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pacesetter_service.core.model import AnyOf, Line, Tagged
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.timeline import End, Timeline

Reason = Annotated[Line, Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the spec planned for a series: what there is to go back to.

    Attributes:
        channel: Which hyperparameter the series is.
        schedule: Its law.
        base: The value that `"base"` stands for.
        start: The session's first step, where the law's clock reads that step.
        total_steps: How long the session says it is, if it does.
        end: Where it is over, if that is known and the law does not go on behind it.
        holds: Whether behind the end of a plan its last value is kept.
    """

    channel: str
    schedule: Schedule
    base: float
    start: int
    total_steps: int | None
    end: End | None = None
    holds: bool = True


class Action(Tagged, family="action"):
    """An order to change learning rates; what is sealed stays as it is.

    `groups` names the parameter groups that it is for; all of them if not given.
    """

    formula: ClassVar[str]
    """What becomes of the value, in one line."""

    example: ClassVar[dict[str, Any]]
    """Parameters of a typical use; `kind` is added by the catalogue."""

    idle: ClassVar[str] = ""
    """What is said to who orders it where it would do nothing to any series."""

    sized_by: ClassVar[tuple[str, ...]] = ()
    """Its fields that say how far a rate goes, of which one is given as a rule."""

    every_channel: ClassVar[bool] = False
    """Whether it changes the clock, which momentum and all others share with the rate."""

    reason: Reason = Field(default="", description="why it is ordered, for the record")
    groups: Annotated[tuple[str, ...], Field(min_length=1, max_length=1024)] | None = Field(
        default=None, description="the parameter groups that it is for; all of them if not given"
    )

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:
        """Refuse what makes no sense for a series at a step.

        Raises:
            ActionRefusedError: With what to do instead.
        """

    def check_channels(self, channels: AbstractSet[str]) -> None:
        """Refuse what does not fit a group with these channels.

        Raises:
            ActionRefusedError: With what to do instead.
        """

    @property
    def sizing(self) -> tuple[str, ...]:
        """The field that says how far a rate goes; empty if none does."""
        given = (name for name in self.sized_by if getattr(self, name) is not None)
        return tuple(next(([name] for name in given), self.sized_by[:1]))

    def moves(self, timeline: Timeline, at: int) -> bool:  # noqa: ARG002
        """Return whether it does anything to a series that it concerns."""
        return True

    def settles(self, at: int) -> int:
        """Return the step by which the change is complete, if it is given for step `at`."""
        return at

    @abstractmethod
    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:
        """Return the timeline of a series with the order carried out from step `at` on."""

    def concerns(self, group: str, channel: str) -> bool:
        """Return whether a series is changed."""
        chosen = self.groups is None or group in self.groups
        return chosen and (self.every_channel or channel == "lr")

    def cause(self) -> str:
        """Say what was ordered and why, for the segments that follow from it."""
        return f"{self.order()}: {self.reason}" if self.reason else self.order()

    @abstractmethod
    def order(self) -> str:
        """Say what was ordered."""


AnyAction = Annotated[Action, AnyOf(Action)]


_OF_A_BATCH = re.compile(r"(?:attempt|order) \d+, batch size (\d+) -> \d+")
"""The key of an order that follows from another batch size; no operator's key has blanks in it."""


@dataclass(frozen=True, slots=True)
class Order:
    """An action that was given: by whom, and for which step.

    Attributes:
        id: Its number in the session, from 1.
        at: The first step that it holds for.
        action: What was ordered.
        actor: Who ordered it.
        key: What makes a repeated order the same one; empty if nothing does.
    """

    id: int
    at: int
    action: AnyAction
    actor: str
    key: str = ""

    @property
    def batch_before(self) -> int | None:
        """The batch size before the change that this follows from; None if it was ordered."""
        found = _OF_A_BATCH.fullmatch(self.key)
        return int(found[1]) if found else None
