"""What can be asked of a session. Commands are imperatives; `decide` may refuse them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pacesetter_service.core.actions import Action


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
    """Make the values of steps below `start + count` final, as far as the session allows."""

    start: int
    count: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """Wait no longer for the measurements that the boundary at a step awaits."""

    boundary: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out an operator's action from step `at` on, or from the horizon; once for each key."""

    action: Action
    at: int | None = None
    actor: str = "somebody"
    key: str = ""


@dataclass(frozen=True, slots=True)
class Resize:
    """Know that so many samples, over all ranks, are in one step from the horizon on."""

    batch_size: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget an order that was not carried out yet."""

    order: int
    actor: str = "somebody"


@dataclass(frozen=True, slots=True)
class RecordDeviation:
    """Record that a rank trained a step with other values than were sealed for it.

    `values` holds what was applied, which may be NaN or infinite, and what was sealed, by series;
    `attempt` is the one in which both were, None for the running one.
    """

    rank: int
    step: int
    values: Mapping[str, tuple[float, float]]
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """Close the session for further commands."""


Command = Report | Seal | Pass | Act | Resize | Cancel | RecordDeviation | Archive
