"""What has happened to a session. Events are in the past tense; `evolve` never refuses one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import ControllerState, Transition
from pacesetter_service.core.controllers.base import Advice
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.schedules import Values


@dataclass(frozen=True, slots=True)
class Reported:
    """Readings arrived. Those in `watched` wait for the next sealing; all of them are recorded."""

    readings: tuple[Reading, ...]
    watched: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's measurement closed at a step, from the readings of so many ranks."""

    step: int
    metric: str
    value: float
    ranks: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A step went without a measurement of a metric: too few ranks had reported it in time."""

    step: int
    metric: str
    ranks: int
    wanted: int
    at: int


@dataclass(frozen=True, slots=True)
class Observed:
    """A controller took a closed measurement and is now in `state`."""

    controller: int
    state: ControllerState


@dataclass(frozen=True, slots=True)
class Decided:
    """A controller's verdict took effect from step `at` on.

    Attributes:
        controller: Its index in the spec.
        metric: What it was looking at,
        step: where that was measured,
        value: and what it saw.
        at: The first step that the decision holds for.
        reason: Why, in words and numbers.
        before: The controller's state before it saw the value,
        after: and since.
        levels: Old and new level for each series that changed.
        pace: How far the laws' clocks go in one step, if that changed.
        rewarm: Steps over which the rate rises again, and from which factor, if it does.
        transition: The law that took over, if one did.
        advice: What the trainer is told, if anything.
        finish: Whether the session ended with this.
    """

    controller: int
    metric: str
    step: int
    value: float
    at: int
    reason: str
    before: ControllerState
    after: ControllerState
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pace: float | None = None
    rewarm: tuple[int, float] | None = None
    transition: Transition | None = None
    advice: Advice | None = None
    finish: bool = False


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator gave an order; it waits until its step is about to be sealed."""

    order: Order
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Acted:
    """An order was carried out; it holds from its step on."""

    order: Order

    @property
    def at(self) -> int:
        """The first step that it holds for."""
        return self.order.at

    @property
    def action(self) -> Action:
        """What was ordered."""
        return self.order.action


@dataclass(frozen=True, slots=True)
class BatchResized:
    """So many samples are in one step from step `at` on; `before` is None if nobody had said."""

    at: int
    before: int | None
    after: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """An order was taken back before it was carried out."""

    order: int
    actor: str


@dataclass(frozen=True, slots=True)
class MeasurementsClosed:
    """Every reading of a watched metric at or below these steps has been consumed or is late."""

    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BoundaryPassed:
    """The steps from `at` on are sealed without the measurements of some metrics."""

    at: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """The values of `count` steps from `start` on are final; each series has shape (count,)."""

    start: int
    count: int
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class AttemptOpened:
    """A new life of the job began at step `at`, and the one before it was fenced."""

    attempt: int
    at: int
    key: str
    actor: str
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forked:
    """The session began as a branch of another one, at step `at` of one of its attempts."""

    session: str
    attempt: int
    at: int
    actor: str


@dataclass(frozen=True, slots=True)
class RateDeviated:
    """A rank trained with another value than was sealed for the step."""

    rank: int
    step: int
    series: str
    applied: float
    sealed: float

    @property
    def at(self) -> int:
        """The step that it is about."""
        return self.step


@dataclass(frozen=True, slots=True)
class Archived:
    """The session takes no more commands."""


Logged = (
    Decided
    | Missed
    | BoundaryPassed
    | Ordered
    | Acted
    | BatchResized
    | Cancelled
    | AttemptOpened
    | Forked
    | RateDeviated
    | Archived
)
"""The events that have a line of their own in a session's log; others have tables, or none."""

Event = Logged | Reported | Measured | Observed | MeasurementsClosed | Sealed
