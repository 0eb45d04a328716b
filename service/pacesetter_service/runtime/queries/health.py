"""Whether the service gets on with its work, and the figures that an operator watches."""

import asyncio
from dataclasses import dataclass

from anyio import to_thread

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.shared_ranks import counts

PATIENCE = 5.0
"""For how many seconds the database is waited for: a probe gives up after some such time too."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the service knows of its ranks and of itself at one moment.

    Attributes:
        ranks: How many ranks were heard of lately, in all sessions.
        deviating: How many of them train with other values than were sealed.
        queued: How many jobs wait for the writer.
    """

    ranks: int
    deviating: int
    queued: int


def figures(service: Service) -> Figures:
    """Return the figures of this moment; callable from any thread."""
    ranks, deviating = counts(service.tracker, service.store.ranks)
    return Figures(ranks, deviating, service.writer.queued)


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
