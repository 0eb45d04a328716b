"""What an action is: a frozen order that changes a timeline from some step on.

`check` runs when the order is given, and may refuse it. `apply` runs when the order's step is about
to be sealed, and never refuses: by then the order is a promise. So `apply` accepts whatever it
finds, including what other orders, or their cancelling, have made of the timeline since.
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
    """What the spec planned for a series, and so what an action can go back to.

    Attributes:
        channel: Which hyperparameter the series is.
        schedule: Its law.
        base: The value that `"base"` stands for.
        start: The session's first step; there the law's clock reads that step's number.
        total_steps: How long the session says it is, if it does.
        end: Where the plan is over, if that is known and the law does not go on past it.
        holds: Whether the last value of a plan is kept past its end.
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
    """What the action does to the value, in one line."""

    example: ClassVar[dict[str, Any]]
    """Parameters of a typical use; `kind` is added by the catalogue."""

    idle: ClassVar[str] = ""
    """Why an order of this kind may change no series; the operator is told so."""

    sized_by: ClassVar[tuple[str, ...]] = ()
    """Its fields that say how far a rate goes; as a rule an order has one of them."""

    every_channel: ClassVar[bool] = False
    """Whether it changes the clock, which momentum and all other channels share with the rate."""

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
        """The field of this order that says how far a rate goes; empty if no field does."""
        given = (name for name in self.sized_by if getattr(self, name) is not None)
        return tuple(next(([name] for name in given), self.sized_by[:1]))

    def moves(self, timeline: Timeline, at: int) -> bool:  # noqa: ARG002
        """Return whether it changes a series that it concerns."""
        return True

    def settles(self, at: int) -> int:
        """Return the step by which the change is complete, if the order holds from step `at` on."""
        return at

    @abstractmethod
    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:
        """Return the timeline of a series with the order carried out from step `at` on."""

    def concerns(self, group: str, channel: str) -> bool:
        """Return whether the action is for a series: this group's, on this channel."""
        chosen = self.groups is None or group in self.groups
        return chosen and (self.every_channel or channel == "lr")

    def cause(self) -> str:
        """Say what was ordered and why, as the cause of the segments that follow from it."""
        return f"{self.order()}: {self.reason}" if self.reason else self.order()

    @abstractmethod
    def order(self) -> str:
        """Say what was ordered."""


AnyAction = Annotated[Action, AnyOf(Action)]


_OF_A_BATCH = re.compile(r"(?:attempt|order) \d+, batch size (\d+) -> \d+")
"""The key of an order that a changed batch size led to; no operator's key contains spaces."""


@dataclass(frozen=True, slots=True)
class Order:
    """An action that was ordered: by whom, and from which step on.

    Attributes:
        id: Its number in the session, from 1.
        at: The first step that it holds for.
        action: What was ordered.
        actor: Who ordered it.
        key: Identifies a repetition of the order; empty if it has no key.
    """

    id: int
    at: int
    action: AnyAction
    actor: str
    key: str = ""

    @property
    def batch_before(self) -> int | None:
        """The batch size before the change that led to this order; None for an operator's order."""
        found = _OF_A_BATCH.fullmatch(self.key)
        return int(found[1]) if found else None
