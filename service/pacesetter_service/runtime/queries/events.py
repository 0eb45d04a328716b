"""The log of a session: what was decided, ordered and missed, in pages or as it happens.

Every event is read from the database, a page at a time. So a caller that follows a session misses
nothing and gets nothing twice, whatever happens to it or to the service, and a slow caller costs
one page of memory.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pacesetter_service.core.errors import SessionNotFoundError
from pacesetter_service.core.events import Logged
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.wording import kind_of, listed
from pacesetter_service.insight.explain import Recorded
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.port import Stored
from pacesetter_service.store.store import Store

KINDS = ("created", *Logged.kinds)
"""The kinds of events; a session's log begins with its creation."""

PAGE = 256
"""How many events are read at a time for a caller that follows them."""


class LoggedEvent(NamedTuple):
    """An event of a session: its place in the log, and what it was.

    Attributes:
        seq: Its number in the session's own log; None if it is in another session's log.
        attempt: The attempt in which it happened.
        kind: Its kind.
        at: The step from which it holds, if there is one.
        created_at: When it was recorded; ISO 8601, in UTC. Empty if it is not recorded yet.
        text: What happened, in words.
        event: Its own fields; None for a creation, which has no others.
    """

    seq: int | None
    attempt: int
    kind: str
    at: int | None
    created_at: str
    text: str
    event: Logged | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a session, in order, and whether there are more of them."""

    events: list[LoggedEvent]
    more: bool


T = TypeVar("T")


async def list_events(
    service: Service,
    name: str,
    after: int,
    limit: int,
    kinds: Sequence[str] | None,
    show: Callable[[EventPage], T],
) -> T:
    """Return what `show` makes of the events of a session after a number, at most `limit` of them.

    Args:
        service: The service.
        name: The session's name.
        after: The number; -1 for all.
        limit: The most events in the page.
        kinds: The wanted kinds; None for all.
        show: Makes the answer from the page, on the thread that reads it: a long page must not
            keep trainers waiting.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    spec, logged = stored.session.spec, _but_creation(kinds)

    def answer() -> T:
        found: list[LoggedEvent] = []
        if after < 0 and (kinds is None or "created" in kinds):
            found.append(_creation(service.store, stored))
        if kinds is None or logged:
            most = limit + 1 - len(found)
            recorded = service.store.events_after(stored, max(after, 0), limit=most, kinds=logged)
            found += [logged_event(each, spec) for each in recorded]
        return show(EventPage(found[:limit], len(found) > limit))

    return await in_thread(answer)


async def list_newest(
    service: Service,
    name: str,
    limit: int,
    kinds: Sequence[str] | None = None,
    wanted: Callable[[LoggedEvent], bool] | None = None,
) -> list[LoggedEvent]:
    """Return the newest wanted events of a session, newest first.

    The log is read from its end, as far as is needed to find them.

    Args:
        service: The service.
        name: The session's name.
        limit: The most events.
        kinds: The wanted kinds; None for all.
        wanted: Which events of these kinds are wanted; None for all.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    spec, logged = stored.session.spec, _but_creation(kinds)
    size = limit if wanted is None else max(limit, PAGE)

    def page_before(before: int) -> tuple[list[LoggedEvent], int]:
        """Return the wanted ones of a page, and before which the next one lies; 0 for none."""
        page = service.store.events_before(stored, before, limit=size, kinds=logged)
        found = filter(wanted, (logged_event(each, spec) for each in page))
        return list(found), (page[-1].seq or 0) if len(page) == size else 0

    found: list[LoggedEvent] = []
    before = stored.events + 1 if kinds is None or logged else 0
    while before and len(found) < limit:  # each page for itself: other reads get their turn
        page, before = await in_thread(page_before, before)
        found += page
    if kinds is None or "created" in kinds:
        found += filter(wanted, [await in_thread(_creation, service.store, stored)])
    return found[:limit]


def _but_creation(kinds: Sequence[str] | None) -> list[str]:
    """Return the kinds that are in the log; a creation is recorded elsewhere."""
    return [each for each in kinds or () if each != "created"]


async def refuse_unheard_of(service: Service, name: str, after: int, argument: str) -> None:
    """Refuse to go on after an event that has not happened.

    Args:
        service: The service.
        name: The session's name.
        after: The number of the event.
        argument: The caller's name for that number.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: The session has no such event.
    """
    newest = (await service.writer.find(name)).stored.events
    if after > newest:
        message = f"This session has no event {after}; its newest one is {newest}"
        raise ArgumentError(argument, message)


async def follow(
    service: Service,
    name: str,
    after: int,
    heartbeat: float,
    show: Callable[[Sequence[LoggedEvent]], T],
) -> AsyncGenerator[T, None]:
    """Return what `show` makes of a session's events after a number, some at a time.

    At every heartbeat without an event, `show` is given an empty list, on the event loop. The
    iterator ends when the service stops, and when the session is purged.

    Args:
        service: The service.
        name: The session's name.
        after: The number; -1 for all.
        heartbeat: Seconds.
        show: Makes the answer from some events, on the thread that reads these.
    """
    followed: int | None = None
    with service.logged.listening(), suppress(SessionNotFoundError):
        while True:
            stored = (await service.writer.find(name)).stored
            if followed not in {None, stored.id}:  # another session has this name now
                return
            followed = stored.id
            if after < stored.events:
                page = await in_thread(_next_page, service.store, stored, after, show)
                if page is None:  # its rows are being removed
                    return
                shown, after = page
                yield shown
            elif service.logged.released:
                return
            else:
                await service.logged.news(name, heartbeat)
                if await _nothing_new(service, name, after):
                    yield show([])


def logged_event(recorded: Recorded, spec: SessionSpec) -> LoggedEvent:
    """Return a recorded event of a session with this spec; only its own events have numbers."""
    return LoggedEvent(
        seq=recorded.seq if recorded.own else None,
        attempt=recorded.attempt,
        kind=recorded.event.kind,
        at=recorded.event.from_step,
        created_at=recorded.created_at,
        text=recorded.event.text(spec),
        event=recorded.event,
    )


def _next_page(
    store: Store, stored: Stored, after: int, show: Callable[[Sequence[LoggedEvent]], T]
) -> tuple[T, int] | None:
    """Return what `show` makes of the next events, and the number of the last one.

    There are none if the session was purged meanwhile: the answer is None then.
    """
    if after < 0:
        return show([_creation(store, stored)]), 0
    found = store.events_after(stored, after, limit=PAGE)
    if not found:
        return None
    return show([logged_event(each, stored.session.spec) for each in found]), found[-1].seq or 0


async def _nothing_new(service: Service, name: str, after: int) -> bool:
    stored = (await service.writer.find(name)).stored
    return after >= stored.events and not service.logged.released


def _creation(store: Store, stored: Stored) -> LoggedEvent:
    attempt = store.first_attempt_of(stored)
    return creation_of(stored.session.spec, stored.created_at, attempt)


def creation_of(spec: SessionSpec, created_at: str, attempt: int) -> LoggedEvent:
    """Return the creation of a session, which is its first event."""
    names = listed([series.name for series in spec.series()])
    rules = [kind_of(rule) for rule in spec.controllers]
    under = f", under {listed(rules)}" if rules else ""
    start = spec.forked_from.step if spec.forked_from else spec.start_step
    text = f"The session was created: {names} from step {start} on{under}."
    return LoggedEvent(0, attempt, "created", start, created_at, text, None)
