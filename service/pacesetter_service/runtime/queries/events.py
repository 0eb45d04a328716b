"""The log of a session: what was decided, ordered and missed, in pages or as it happens.

The database is where every event comes from, a page at a time. So a caller that follows a session
misses nothing and is told nothing twice, whatever happens to it or to the service, and a slow one
costs one page of memory.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pacesetter_service.core.errors import SessionNotFoundError
from pacesetter_service.core.events import Logged
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.wording import kind_of, listed
from pacesetter_service.insight.explain import Recorded
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.port import Stored

KINDS = ("created", *Logged.kinds)
"""The kinds of events; a session's log begins with its creation."""

PAGE = 256
"""How many events are read at once for a caller that follows them."""


class LoggedEvent(NamedTuple):
    """An event of a session: its place in the log, and what it was.

    Attributes:
        seq: Its number in the session's own log; None if it stands in another session's.
        attempt: The attempt in which it happened.
        kind: Its kind.
        at: The step from which it holds, if it holds from one.
        created_at: When it was recorded; ISO 8601, in UTC.
        text: What it was, in words.
        event: Its own fields; None of a creation, which has no others.
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
    """Some events of a session, in their order, and whether there are more of them."""

    events: list[LoggedEvent]
    more: bool


async def list_events(
    service: Service, name: str, after: int, limit: int, kinds: Sequence[str] | None
) -> EventPage:
    """Return the events of a session that come after a number, `limit` of them at most.

    Args:
        service: The service.
        name: The session's name.
        after: The number; -1 for all.
        limit: The most events in the page.
        kinds: The kinds that are wanted; None for all.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    found: list[LoggedEvent] = []
    if after < 0 and (kinds is None or "created" in kinds):
        found.append(creation_of(stored.session.spec, stored.created_at))
    logged = [each for each in kinds or () if each != "created"]
    if kinds is None or logged:
        recorded = await in_thread(
            service.store.events_after,
            stored,
            max(after, 0),
            limit=limit + 1 - len(found),
            kinds=logged,
        )
        found += [logged_event(each, stored.session.spec) for each in recorded]
    return EventPage(found[:limit], len(found) > limit)


async def list_newest(
    service: Service,
    name: str,
    limit: int,
    kinds: Sequence[str] | None = None,
    wanted: Callable[[LoggedEvent], bool] | None = None,
) -> list[LoggedEvent]:
    """Return the newest events of a session that are wanted, the newest first.

    They are read from the end of the log on, so that a long one costs no more than a short one.

    Args:
        service: The service.
        name: The session's name.
        limit: The most events.
        kinds: The kinds that are wanted; None for all.
        wanted: Which events of these kinds are wanted; None for all.

    Raises:
        SessionNotFoundError: There is no session of that name.
    """
    stored = (await service.writer.find(name)).stored
    spec, logged = stored.session.spec, [each for each in kinds or () if each != "created"]
    size = limit if wanted is None else max(limit, PAGE)
    found: list[LoggedEvent] = []
    before, more = stored.events + 1, kinds is None or bool(logged)
    while more and len(found) < limit:
        page = await in_thread(
            service.store.events_before, stored, before, limit=size, kinds=logged
        )
        found += filter(wanted, (logged_event(each, spec) for each in page))
        more = len(page) == size
        before = (page[-1].seq or 0) if page else 0
    if kinds is None or "created" in kinds:
        found += filter(wanted, [creation_of(spec, stored.created_at)])
    return found[:limit]


async def refuse_unheard_of(service: Service, name: str, after: int, argument: str) -> None:
    """Refuse to go on behind an event that has not happened.

    Args:
        service: The service.
        name: The session's name.
        after: The number of the event.
        argument: What the caller calls that number.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: The session has no such event.
    """
    newest = (await service.writer.find(name)).stored.events
    if after > newest:
        message = f"This session has no event {after}; its newest one is {newest}"
        raise ArgumentError(argument, message)


async def follow(
    service: Service, name: str, after: int, heartbeat: float
) -> AsyncGenerator[list[LoggedEvent], None]:
    """Return the events of a session that come after a number, some at a time, as they happen.

    While nothing happens there is an empty list at every heartbeat. It ends when the service stops,
    and when the session is purged.
    """
    followed: int | None = None
    with service.logged.listening(), suppress(SessionNotFoundError):
        while True:
            stored = (await service.writer.find(name)).stored
            if followed not in {None, stored.id}:  # another one of that name
                return
            followed = stored.id
            if after < stored.events:
                page = await _next_page(service, stored, after)
                yield page
                after = page[-1].seq or 0
            elif service.logged.released:
                return
            else:
                await service.logged.news(name, heartbeat)
                if await _nothing_new(service, name, after):
                    yield []


def logged_event(recorded: Recorded, spec: SessionSpec) -> LoggedEvent:
    """Return an event of a session with this spec; its number is that in the session's own log."""
    return LoggedEvent(
        seq=recorded.seq if recorded.own else None,
        attempt=recorded.attempt,
        kind=recorded.event.kind,
        at=recorded.event.from_step,
        created_at=recorded.created_at,
        text=recorded.event.text(spec),
        event=recorded.event,
    )


async def _next_page(service: Service, stored: Stored, after: int) -> list[LoggedEvent]:
    """Return the events that come after a number; there must be one."""
    if after < 0:
        return [creation_of(stored.session.spec, stored.created_at)]
    found = await in_thread(service.store.events_after, stored, after, limit=PAGE)
    return [logged_event(each, stored.session.spec) for each in found]


async def _nothing_new(service: Service, name: str, after: int) -> bool:
    stored = (await service.writer.find(name)).stored
    return after >= stored.events and not service.logged.released


def creation_of(spec: SessionSpec, created_at: str) -> LoggedEvent:
    """Return the creation of a session, which is the first thing that happened to it."""
    names = listed([series.name for series in spec.series()])
    rules = [kind_of(rule) for rule in spec.controllers]
    under = f", under {listed(rules)}" if rules else ""
    start = spec.forked_from.step if spec.forked_from else spec.start_step
    text = f"The session was created: {names} from step {start} on{under}."
    return LoggedEvent(0, 1, "created", start, created_at, text, None)
