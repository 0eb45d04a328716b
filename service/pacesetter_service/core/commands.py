"""What can be asked of a session. Commands are imperatives; `decide` may refuse them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pacesetter_service.core.actions import Action
from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.ending import Outcome


class Reading(NamedTuple):
    """One metric value that one rank measured at one step; it may be NaN or infinite."""

    rank: int
    step: int
    metric: str
    value: float

    @property
    def key(self) -> tuple[int, str, int]:
        """What identifies the reading within its attempt: whatever repeats it changes nothing."""
        return self.step, self.metric, self.rank


@dataclass(frozen=True, slots=True)
class Report:
    """Take these readings; `attempt` is whose they are, None for the running one."""

    readings: tuple[Reading, ...]
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Seal:
    """Make the values of steps below `start + count` final, as far as the session allows.

    Attributes:
        start: The first step of the window.
        count: How many steps it is to hold.
        attempt: Which attempt asks; None if the caller has not said.
        at: The step at which the trainer stands, if the caller has said.
        pace: Seconds that a step takes, if the caller has said.
        trains: Whether a trainer asks, which then holds the window; others only look.
    """

    start: int
    count: int
    attempt: int | None = None
    at: int | None = None
    pace: float | None = None
    trains: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Know that a trainer holds, or has trained, the steps below `until`."""

    until: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """Know that a trainer waits at a moment for the measurements that the horizon awaits.

    Attributes:
        now: The moment, in seconds since 1970.
        attempt: The attempt that the trainer is of; None if it has not said.
    """

    now: float
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """Wait no longer for the measurements that the boundary at a step awaits."""

    boundary: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out an operator's action from step `at` on, or from the horizon; once for each key.

    Attributes:
        action: What is ordered.
        at: The first step that it holds for; None for the horizon.
        actor: Who orders it.
        key: What makes a repeated order the same one; empty if nothing does.
        bounds: What its author may order at most; None for who has none.
        if_revision: The revision that it is meant for; None for any.
    """

    action: Action
    at: int | None = None
    actor: str = "anonymous"
    key: str = ""
    bounds: Bounds | None = None
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """Know that so many samples, over all ranks, are in one step from the horizon on."""

    batch_size: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget an order that was not carried out yet; only one of the actor's `own`, if so."""

    order: int
    actor: str = "anonymous"
    own: bool = False


@dataclass(frozen=True, slots=True)
class RecordDeviation:
    """Record that a rank trained a step with other values than were sealed, or does so no longer.

    `values` holds what was applied, which may be NaN or infinite, and what was sealed, by series;
    `attempt` is the one in which both were, None for the running one.
    """

    rank: int
    step: int
    values: Mapping[str, tuple[float, float]]
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class RecordDeparture:
    """Record that a metric has left the family of the session's template; once for each time.

    Attributes:
        metric: The metric.
        since: The first step at which it was too far.
        message: What is known of it, and what to do.
        attempt: The attempt that was looked at; None for the running one.
    """

    metric: str
    since: int
    message: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Know that a training is over: it has ended by itself, or has failed.

    Attributes:
        outcome: Whether it was completed.
        reason: Why it ended, in a line for people.
        step: The first step that was not trained; None for the first that no trainer holds.
        when_over: Only if its plan is over at that step; otherwise nothing is changed.
        actor: Who says so.
        attempt: The attempt that was trained; None for the running one.
    """

    outcome: Outcome = "completed"
    reason: str = ""
    step: int | None = None
    when_over: bool = False
    actor: str = "anonymous"
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Relabel:
    """Set these labels of the session; None takes one away, and others stay."""

    labels: Mapping[str, str | None]
    actor: str = "anonymous"


@dataclass(frozen=True, slots=True)
class Archive:
    """Close the session for further commands.

    Attributes:
        seen: The attempt and the horizon that were looked at: who has gone on since stays open.
    """

    seen: tuple[int, int] | None = None


Command = (
    Report
    | Seal
    | Hold
    | Await
    | Pass
    | Act
    | Resize
    | Cancel
    | RecordDeviation
    | RecordDeparture
    | Finish
    | Relabel
    | Archive
)
