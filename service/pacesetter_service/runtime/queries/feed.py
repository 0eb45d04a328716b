"""The events of all sessions: in pages, or as they happen."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NamedTuple

from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.events import LoggedEvent, creation_of, logged_event
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.signals import ANY
from pacesetter_service.store.feed import FeedEntry, Wanted

__all__ = ["FedEvent", "FeedEvents", "Wanted", "begin_at", "follow_all", "list_all"]

PAGE = 256
"""How many events are read at once for a caller that follows them."""


class FedEvent(NamedTuple):
    """An event of a session, and its position among those of all sessions."""

    position: int
    session: str
    event: LoggedEvent


class FeedEvents(NamedTuple):
    """Some events, the position to go on behind, and whether there is more already."""

    events: list[FedEvent]
    behind: int
    more: bool


async def list_all(service: Service, wanted: Wanted, behind: int, limit: int) -> FeedEvents:
    """Return events of all sessions that come behind a position, in the order of their commits.

    There may be more, though these are fewer than `limit`.

    Raises:
        ArgumentError: There is no such position yet.
    """
    await begin_at(service, behind, "after")
    return await _page(service, wanted, behind, limit)


async def begin_at(service: Service, behind: int | None, argument: str) -> int:
    """Return the position that a reader goes on behind: the newest one, if it names none.

    Args:
        service: The service.
        behind: The position that it names.
        argument: What it calls that.

    Raises:
        ArgumentError: There is no such position yet.
    """
    newest = await in_thread(service.store.newest_position)
    if behind is not None and behind > newest:
        message = f"There is no event {behind} yet; the newest one is {newest}"
        raise ArgumentError(argument, message)
    return newest if behind is None else behind


async def follow_all(
    service: Service, wanted: Wanted, behind: int, heartbeat: float
) -> AsyncGenerator[list[FedEvent], None]:
    """Return the events of all sessions behind a position, some at a time, as they happen.

    While nothing happens there is an empty list at every heartbeat. It ends when the service stops.
    """
    clock = asyncio.get_running_loop().time
    spoken = clock()
    with service.logged.listening():
        while True:
            # It waits before it looks: what happens meanwhile is told.
            news = asyncio.create_task(service.logged.news(ANY, heartbeat))
            try:
                await asyncio.sleep(0)
                page = await _page(service, wanted, behind, PAGE)
                behind = page.behind
                if page.events:
                    yield page.events
                    spoken = clock()
                elif not page.more:
                    if service.logged.released:
                        return
                    await news
                    if clock() - spoken >= heartbeat:
                        yield []
                        spoken = clock()
            finally:
                news.cancel()
                with suppress(asyncio.CancelledError):
                    await news


async def _page(service: Service, wanted: Wanted, behind: int, limit: int) -> FeedEvents:
    found = await in_thread(service.store.feed_page, wanted, behind, limit)
    return FeedEvents([_told(each) for each in found.entries], found.behind, found.more)


def _told(entry: FeedEntry) -> FedEvent:
    if entry.recorded is None:
        event = creation_of(entry.spec, entry.created_at)
    else:
        event = logged_event(entry.recorded, entry.spec)
    return FedEvent(entry.position, entry.session, event)
