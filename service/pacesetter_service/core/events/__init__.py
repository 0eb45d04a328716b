"""What has happened to a session. Events are in the past tense; `evolve` never refuses one."""

from pacesetter_service.core.events.attempts import AttemptOpened, Forked, TakenBack
from pacesetter_service.core.events.decided import Decided
from pacesetter_service.core.events.logged import Logged, load_event
from pacesetter_service.core.events.orders import Acted, BatchResized, Cancelled, Ordered
from pacesetter_service.core.events.session import (
    Archived,
    BoundaryPassed,
    Finished,
    Missed,
    Noticed,
    RateDeviated,
    Relabelled,
    Reopened,
)
from pacesetter_service.core.events.unlogged import (
    Awaited,
    Held,
    Measured,
    MeasurementsClosed,
    Observed,
    RateAgreed,
    Reported,
    Sealed,
)

Event = (
    Acted
    | Archived
    | AttemptOpened
    | Awaited
    | BatchResized
    | BoundaryPassed
    | Cancelled
    | Decided
    | Finished
    | Forked
    | Held
    | Measured
    | MeasurementsClosed
    | Missed
    | Noticed
    | Observed
    | Ordered
    | RateAgreed
    | RateDeviated
    | Relabelled
    | Reopened
    | Reported
    | Sealed
    | TakenBack
)

__all__ = [
    "Acted",
    "Archived",
    "AttemptOpened",
    "Awaited",
    "BatchResized",
    "BoundaryPassed",
    "Cancelled",
    "Decided",
    "Event",
    "Finished",
    "Forked",
    "Held",
    "Logged",
    "Measured",
    "MeasurementsClosed",
    "Missed",
    "Noticed",
    "Observed",
    "Ordered",
    "RateAgreed",
    "RateDeviated",
    "Relabelled",
    "Reopened",
    "Reported",
    "Sealed",
    "TakenBack",
    "load_event",
]
