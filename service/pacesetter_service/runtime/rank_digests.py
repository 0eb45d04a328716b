"""The ranks of many sessions as a few numbers for each, whichever process they have called."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.session import Session
from pacesetter_service.runtime.ranks import NEVER, RankTracker
from pacesetter_service.store.ranks import RankDigest, RankTable

STALE_AFTER = 60.0
"""Seconds of silence that make a rank stale."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of a session's running attempt.

    Attributes:
        seen: How many have called.
        stale: How many of them have not called for `STALE_AFTER` seconds.
        deviating: How many train with values other than the sealed ones.
        trained: The newest step that any of them has trained, by its own account; `NEVER` for none.
        quiet: For how many seconds no rank of the session has called, in any attempt; None if none
            is known to have called.
        pace: The seconds that a step takes the slowest of them, if any has said.
    """

    seen: int = 0
    stale: int = 0
    deviating: int = 0
    trained: int = NEVER
    quiet: float | None = None
    pace: float | None = None


def digests(
    tracker: RankTracker, table: RankTable | None, some: Sequence[Session]
) -> dict[str, Ranks]:
    """Return the ranks of some sessions, by name; not for the event loop.

    Where processes share a database, what others have heard is about a second old. It is left out
    if the database does not answer.
    """
    here = {session.spec.name: _heard_here(tracker, session) for session in some}
    if table is None:
        return here
    try:
        told = table.digests([session.spec.name for session in some], STALE_AFTER)
    except StorageUnavailableError:
        return here
    return {
        session.spec.name: _together(session, here[session.spec.name], told.get(session.spec.name))
        for session in some
    }


def _heard_here(tracker: RankTracker, session: Session) -> Ranks:
    heard, now = tracker.heard(session.spec.name), monotonic()
    if not heard:
        return Ranks()
    mine = [each for each in heard if each.attempt == session.attempt.began_as]
    return Ranks(
        seen=len(mine),
        stale=sum(now - each.at > STALE_AFTER for each in mine),
        deviating=sum(each.deviates for each in mine),
        trained=max((each.trained for each in mine), default=NEVER),
        quiet=now - max(each.at for each in heard),
        pace=max((each.pace for each in mine if each.pace is not None), default=None),
    )


def _together(session: Session, here: Ranks, told: RankDigest | None) -> Ranks:
    """Combine what was heard here with what all others have told, which is about one attempt."""
    if told is None:
        return here
    quiet = told.quiet if here.quiet is None else min(here.quiet, told.quiet)
    if told.attempt != session.attempt.began_as:
        return Ranks(here.seen, here.stale, here.deviating, here.trained, quiet, here.pace)
    paces = [each for each in (here.pace, told.pace) if each is not None]
    return Ranks(
        seen=max(here.seen, told.seen),
        stale=told.stale,
        deviating=max(here.deviating, told.deviating),
        trained=max(here.trained, told.trained),
        quiet=quiet,
        pace=max(paces, default=None),
    )
