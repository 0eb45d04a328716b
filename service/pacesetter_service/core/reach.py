"""How far ahead of the trainers one call may seal, and which sealed steps a trainer holds.

A sealed value can no longer change. So a step that is sealed long before it is trained is out of
an operator's reach. A call therefore seals only a bounded number of steps beyond its caller's own.
"""

from math import ceil

from pacesetter_service.core.commands import Seal
from pacesetter_service.core.errors import NothingToTakeBackError, TooFarAheadError
from pacesetter_service.core.session import Session

LOOK = 64
"""How many steps a call may seal if the caller has not said how long a step takes."""

AHEAD_SECONDS = 20.0
"""How much training time, in seconds, one call may seal beyond the trainer's own step."""


def ahead(pace: float | None) -> int:
    """Return how many steps beyond a trainer's own may be sealed.

    Args:
        pace: Seconds that a step takes; None if the trainer has not said.
    """
    if pace is None:
        return LOOK
    # The minimum pace only keeps the division finite: a call has a largest window anyway.
    return max(LOOK, ceil(AHEAD_SECONDS / max(pace, 1e-9)))


def reachable(session: Session, command: Seal) -> int:
    """Return the first step that a call may not seal.

    A trainer reaches as far beyond its own step as its pace allows. A caller that only reads may go
    a little beyond the steps that trainers hold, however often it asks.

    Raises:
        TooFarAheadError: The wish begins beyond that.
    """
    if not command.trains:
        least = session.spec.lookahead or LOOK
        end = max(session.held + min(LOOK, least), session.horizon)
        if command.start >= end:
            raise _beyond(session, command.start)
        return end
    stands = command.start if command.at is None else command.at
    if command.start >= session.horizon + LOOK and stands < command.start + (command.at is None):
        raise _beyond(session, command.start)
    return max(command.start + 1, stands + ahead(command.pace))


def _beyond(session: Session, start: int) -> TooFarAheadError:
    return TooFarAheadError(start, session.held, session.horizon, session.attempt.number)


def takes_hold(session: Session, command: Seal) -> bool:
    """Return whether a trainer holds the steps that a call returns from then on."""
    running = session.status != "archived" and session.attempt.includes(command.attempt)
    return command.trains and running


def untaken(session: Session) -> int:
    """Return the first sealed step that no trainer holds or has trained.

    Raises:
        NothingToTakeBackError: There is none.
    """
    if session.held >= session.horizon:
        raise NothingToTakeBackError(session.horizon)
    return session.held
