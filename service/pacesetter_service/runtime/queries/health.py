"""Whether the service gets on with its work, and the figures that an operator watches."""

import asyncio
from dataclasses import dataclass

from anyio import to_thread

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.census import Found
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.shared_ranks import counts
from pacesetter_service.runtime.tally import Tally

PATIENCE = 5.0
"""For how many seconds the database is waited for: a probe gives up after some such time too."""


SILENT_AFTER = 60.0
"""Seconds after which a rank is counted as silent; until then it may train what it was given."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the service knows of its ranks and of itself at one moment.

    Attributes:
        ranks: How many ranks were heard of lately, in all sessions.
        deviating: How many of them train with other values than were sealed.
        silent: How many of them were not heard of for `SILENT_AFTER` seconds, while others of their
            session were.
        trained: How many sessions a trainer has called about in those seconds.
        ahead: The steps that are sealed beyond what is trained, in all of these together.
        furthest: The most of them in one session.
        queued: How many jobs wait for the writer.
        stalled: For how many seconds the writer has worked without a result.
        cached: How many sessions memory holds.
        held: How many calls are held.
        tally: What the writer has done.
        found: What the newest look at the database has found.
    """

    ranks: int
    deviating: int
    silent: int
    trained: int
    ahead: int
    furthest: int
    queued: int
    stalled: float
    cached: int
    held: int
    tally: Tally
    found: Found


def figures(service: Service) -> Figures:
    """Return the figures of this moment; callable from any thread.

    It may wait for a second for the database, and goes on without it then.
    """
    writer = service.writer
    ranks, deviating = counts(service.tracker, service.store.ranks)
    ahead = _seal_ahead(service)
    return Figures(
        ranks=ranks,
        deviating=deviating,
        silent=service.tracker.silent(SILENT_AFTER),
        trained=len(ahead),
        ahead=sum(ahead),
        furthest=max(ahead, default=0),
        queued=writer.queued,
        stalled=writer.seconds_without_result,
        cached=writer.cached,
        held=service.held.held,
        tally=writer.tally,
        found=service.census.newest(),
    )


def _seal_ahead(service: Service) -> list[int]:
    """Return how many steps are sealed beyond the trainer's, of each session that is trained."""
    found = []
    for name, step in service.tracker.heard_lately(SILENT_AFTER):
        horizon = service.writer.horizon(name)
        if horizon is not None:
            found.append(max(horizon - step, 0))
    return found


async def check_ready(service: Service) -> None:
    """Refuse if the database does not answer, or the writer does not get on with its work.

    Raises:
        StorageUnavailableError: The writer has ended, or the database does not answer in time.
        StalledError: The writer has worked for too long without finishing anything.
    """
    service.writer.check()
    try:
        async with asyncio.timeout(PATIENCE):
            await to_thread.run_sync(service.store.check, abandon_on_cancel=True)
    except TimeoutError:
        raise StorageUnavailableError(f"it took more than {PATIENCE:g} seconds") from None
