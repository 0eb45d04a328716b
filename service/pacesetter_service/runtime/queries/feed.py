"""The events of all sessions: in pages, or as they happen."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple, TypeVar

from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.events import LoggedEvent, creation_of, logged_event
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.signals import ANY
from pacesetter_service.runtime.tasks import ended
from pacesetter_service.store.feed import FeedEntry, Wanted

__all__ = ["FedEvent", "FeedEvents", "Wanted", "begin_at", "follow_all", "list_all"]

PAGE = 256
"""How many events are read at a time for a caller that follows them."""


class FedEvent(NamedTuple):
    """An event of a session, and its position among those of all sessions."""

    position: int
    session: str
    event: LoggedEvent


class FeedEvents(NamedTuple):
    """Some events, the position to go on after, and whether there are more already."""

    events: list[FedEvent]
    behind: int
    more: bool


T = TypeVar("T")


async def list_all(
    service: Service, wanted: Wanted, behind: int, limit: int, show: Callable[[FeedEvents], T]
) -> T:
    """Return what `show` makes of events of all sessions, in the order of their commits.

    There may be more even if these are fewer than `limit`.

    Args:
        service: The service.
        wanted: Which events.
        behind: The position after which they come.
        limit: The most events.
        show: Makes the answer from the events, on the thread that reads them: a long page must not
            keep trainers waiting.

    Raises:
        ArgumentError: There is no such position yet.
    """
    await begin_at(service, behind, "after")
    return await in_thread(lambda: show(_page(service, wanted, behind, limit)))


async def begin_at(service: Service, behind: int | None, argument: str) -> int:
    """Return the position after which a reader goes on: the newest one, if it names none.

    Args:
        service: The service.
        behind: The position that it names.
        argument: The reader's name for it.

    Raises:
        ArgumentError: There is no such position yet.
    """
    newest = await in_thread(service.store.newest_position)
    if behind is not None and behind > newest:
        message = f"There is no event {behind} yet; the newest one is {newest}"
        raise ArgumentError(argument, message)
    return newest if behind is None else behind


async def follow_all(
    service: Service,
    wanted: Wanted,
    behind: int,
    heartbeat: float,
    show: Callable[[Sequence[FedEvent]], T],
) -> AsyncGenerator[T, None]:
    """Return what `show` makes of the events of all sessions after a position, some at a time.

    At every heartbeat without an event, `show` is given an empty list, on the event loop. The
    iterator ends when the service stops.

    Args:
        service: The service.
        wanted: Which events.
        behind: The position after which they come.
        heartbeat: Seconds.
        show: Makes the answer from some events, on the thread that reads these.
    """

    def read() -> tuple[T | None, int, bool]:
        page = _page(service, wanted, behind, PAGE)
        return show(page.events) if page.events else None, page.behind, page.more

    clock = asyncio.get_running_loop().time
    spoken = clock()
    with service.logged.listening():
        while True:
            # The wait starts before the read, so that news in between is not missed.
            news = asyncio.create_task(service.logged.news(ANY, heartbeat))
            try:
                await asyncio.sleep(0)
                shown, behind, more = await in_thread(read)
                if shown is not None:
                    yield shown
                    spoken = clock()
                elif not more:
                    if service.logged.released:
                        return
                    await news
                    if clock() - spoken >= heartbeat:
                        yield show([])
                        spoken = clock()
            finally:
                await ended(news)


def _page(service: Service, wanted: Wanted, behind: int, limit: int) -> FeedEvents:
    found = service.store.feed_page(wanted, behind, limit)
    return FeedEvents([_told(each) for each in found.entries], found.behind, found.more)


def _told(entry: FeedEntry) -> FedEvent:
    if entry.recorded is None:
        event = creation_of(entry.spec, entry.created_at, entry.attempt)
    else:
        event = logged_event(entry.recorded, entry.spec)
    return FedEvent(entry.position, entry.session, event)
