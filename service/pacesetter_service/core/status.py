"""Which commands a session takes in each of its states, and from which attempt: one table.

An active session takes everything. A finished one was ended by a controller or by its trainer: no
further step is sealed, so no future step can change, but trained steps are still reported. An
archived one can only be read. A trainer that goes on after it declared the end makes the session
active again, as every new attempt does. An end that a controller decided stays for its attempt.
"""

from collections.abc import Mapping
from typing import Literal

from pacesetter_service.core.commands import (
    Act,
    Archive,
    Await,
    Cancel,
    Command,
    Finish,
    Hold,
    Pass,
    RecordDeparture,
    RecordDeviation,
    Relabel,
    Report,
    Resize,
    Seal,
)
from pacesetter_service.core.errors import (
    SessionArchivedError,
    SessionFinishedError,
    StaleAttemptError,
)
from pacesetter_service.core.session import Session, Status

ACTIVE: frozenset[Status] = frozenset({"active"})
UNTIL_ARCHIVED: frozenset[Status] = frozenset({"active", "finished"})
ALWAYS: frozenset[Status] = frozenset({"active", "finished", "archived"})

TAKEN_WHILE: Mapping[type[Command], frozenset[Status]] = {
    Seal: ACTIVE,  # what is already sealed can always be read
    Act: ACTIVE,
    Report: UNTIL_ARCHIVED,
    Hold: UNTIL_ARCHIVED,
    Await: UNTIL_ARCHIVED,
    Pass: UNTIL_ARCHIVED,
    Resize: UNTIL_ARCHIVED,
    Cancel: UNTIL_ARCHIVED,
    RecordDeviation: UNTIL_ARCHIVED,
    RecordDeparture: UNTIL_ARCHIVED,
    Finish: UNTIL_ARCHIVED,
    Relabel: ALWAYS,
    Archive: ALWAYS,
}
"""In which states a session takes each command. New attempts are opened until it is archived."""


State = Literal["active", "silent", "finished", "failed", "archived"]
"""The state of a session, for people: its status, and what is derived from it."""

SILENT_SECONDS = 300.0
"""The least number of seconds without news of a training after which it is called silent."""

SILENT_STEPS = 20
"""It must also last for this many steps at the training's own pace: evaluations take long, too."""

_HOW = {"completed": "was completed", "failed": "failed"}


def state_of(session: Session, quiet: float, pace: float | None) -> State:
    """Return a session's state.

    Args:
        session: The session.
        quiet: For how many seconds the service has heard nothing of its training.
        pace: Seconds that a step takes; None if no trainer has said.
    """
    if session.status == "archived":
        return "archived"
    if session.status == "finished":
        ended = session.control.ended
        return "failed" if ended is not None and ended.outcome == "failed" else "finished"
    begun = session.horizon > session.attempt.start
    patience = max(SILENT_SECONDS, SILENT_STEPS * (pace or 0.0))
    return "silent" if begun and quiet > patience else "active"


def refuse_unless_taken(session: Session, command: Command) -> None:
    """Refuse a command that the session's state or its running attempt does not allow.

    Raises:
        SessionArchivedError: The session is archived.
        StaleAttemptError: The command is of another attempt than the running one.
        SessionFinishedError: The session is finished.
    """
    taken = session.status in TAKEN_WHILE[type(command)]
    if not taken and session.status == "archived":
        raise SessionArchivedError(session.spec.name)
    attempt: int | None = getattr(command, "attempt", None)
    if attempt is not None and not session.attempt.includes(attempt):
        raise StaleAttemptError(attempt, session.attempt.number)
    if not taken:
        raise finished(session)


def refuse_if_archived(session: Session) -> None:
    """Refuse to open an attempt of a session that can only be read.

    Raises:
        SessionArchivedError: The session is archived.
    """
    if session.status == "archived":
        raise SessionArchivedError(session.spec.name)


def seals(session: Session) -> bool:
    """Return whether further steps of a session can be sealed."""
    return session.status in TAKEN_WHILE[Seal]


def finished(session: Session) -> SessionFinishedError:
    """Return the error that says that a session is finished, and why."""
    notices, ended = session.control.notices, session.control.ended
    if ended is not None:
        reason = ended.reason or f"its trainer said that it {_HOW[ended.outcome]}"
    else:
        reason = notices[-1].message if notices else ""
    return SessionFinishedError(session.spec.name, session.horizon, reason)
