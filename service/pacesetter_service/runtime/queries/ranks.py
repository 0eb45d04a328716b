"""The ranks of a session: where each of them is, and whether it trains with sealed values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pacesetter_service.core.session import Session
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.ranks import Patience, RankSnapshot, Summary, summary
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.shared_ranks import snapshot

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RanksReport:
    """The ranks of a session at one moment.

    Attributes:
        session: The session.
        snapshot: What each rank has told.
        summary: A summary of it.
        patience: When a rank counts as stale.
    """

    session: Session
    snapshot: RankSnapshot
    summary: Summary
    patience: Patience


async def read_ranks(
    service: Service, name: str, patience: Patience, show: Callable[[RanksReport], T]
) -> T:
    """Return what `show` makes of a session's ranks, of which there may be very many.

    Args:
        service: The service.
        name: The session's name.
        patience: When a rank counts as stale.
        show: Makes the answer from the report, on a thread other than the event loop's.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    session = stored.session

    def answer() -> T:
        found = snapshot(service.tracker, service.store.ranks, stored)
        return show(RanksReport(session, found, summary(session, found, patience), patience))

    return await in_thread(answer)
