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
        """What identifies the reading within its attempt; a repetition of it changes nothing."""
        return self.step, self.metric, self.rank


@dataclass(frozen=True, slots=True)
class Report:
    """Take these readings; `attempt` is the attempt that made them, None for the running one."""

    readings: tuple[Reading, ...]
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Seal:
    """Make the values of steps below `start + count` final, as far as the session allows.

    Attributes:
        start: The first step of the window.
        count: How many steps the caller wants in it.
        attempt: The attempt that asks; None if the caller has not said.
        at: The step that the trainer has reached, if the caller has said.
        pace: Seconds that a step takes, if the caller has said.
        trains: Whether a trainer asks, which then holds the window; other callers only read.
    """

    start: int
    count: int
    attempt: int | None = None
    at: int | None = None
    pace: float | None = None
    trains: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Note that a trainer holds, or has trained, the steps below `until`."""

    until: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Await:
    """Note that a trainer waits, at this moment, for the measurements that the horizon awaits.

    Attributes:
        now: The moment, in seconds since 1970.
        attempt: The attempt of the trainer; None if it has not said.
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
        key: Identifies a repetition of the order; empty if it has no key.
        bounds: What the actor may order at most; None if the actor has no bounds.
        if_revision: The revision that the order is meant for; None for any.
    """

    action: Action
    at: int | None = None
    actor: str = "anonymous"
    key: str = ""
    bounds: Bounds | None = None
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """Note that one step has this many samples, over all ranks, from the horizon on."""

    batch_size: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel an order that was not carried out yet; with `own`, only an order of the same actor."""

    order: int
    actor: str = "anonymous"
    own: bool = False


@dataclass(frozen=True, slots=True)
class RecordDeviation:
    """Record that a rank trained a step with other values than were sealed, or no longer does so.

    `values` holds, for each series, the applied value, which may be NaN or infinite, and the sealed
    one. `attempt` is the attempt that both belong to, None for the running one.
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
        since: The first step at which it was too far off.
        message: What is known about it, and what to do.
        attempt: The attempt that was judged; None for the running one.
    """

    metric: str
    since: int
    message: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Note that a training is over: it has ended by itself, or has failed.

    Attributes:
        outcome: Whether it was completed.
        reason: Why it ended, in a line for people.
        step: The first step that was not trained; None for the first that no trainer holds.
        when_over: Applies only if the plan is over at that step; otherwise nothing changes.
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
    """Set these labels of the session; None removes a label, and all others stay."""

    labels: Mapping[str, str | None]
    actor: str = "anonymous"


@dataclass(frozen=True, slots=True)
class Archive:
    """Close the session to further commands.

    Attributes:
        seen: The attempt and the horizon that the caller saw; a session that has moved on since
            stays open.
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
