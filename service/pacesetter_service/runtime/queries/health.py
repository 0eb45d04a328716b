"""Whether the service makes progress, and the figures that an operator watches."""

import asyncio
from dataclasses import dataclass

from anyio import to_thread

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.census import Found
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.shared_ranks import counts
from pacesetter_service.runtime.tally import Tally

PATIENCE = 5.0
"""Seconds that a check waits for the database: probes give up after a similar time."""


SILENT_AFTER = 60.0
"""Seconds after which a rank counts as silent; until then it may train what it was given."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the service knows about its ranks and itself at one moment.

    Attributes:
        ranks: How many ranks have called lately, in all sessions.
        deviating: How many of them train with values other than the sealed ones.
        silent: How many of them have not called for `SILENT_AFTER` seconds, while others of their
            session have.
        trained: How many of the sessions in memory a trainer has called about in those seconds.
        ahead: The steps that are sealed beyond the trained ones, in all of these together.
        furthest: The most such steps in one session.
        queued: How many jobs wait for the writer.
        stalled: For how many seconds the writer has worked without a result.
        cached: How many sessions are in memory.
        held: How many calls are held.
        tally: What the writer has done.
        found: The result of the newest look at the database.
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
    """Return the current figures; callable from any thread.

    It may wait for a second for a census of the database; then it uses the previous one.
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
    """Return how many steps are sealed ahead of the trainer, for each session that is trained."""
    found = []
    for name, step in service.tracker.heard_lately(SILENT_AFTER):
        horizon = service.writer.horizon(name)
        if horizon is not None:
            found.append(max(horizon - step, 0))
    return found


async def check_ready(service: Service) -> None:
    """Refuse if the database does not answer, or the writer makes no progress.

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
