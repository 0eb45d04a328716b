"""The events of a session as they happen: server-sent events that can be taken up again.

The database is where every event comes from, a page at a time and only when the reader has taken
the page before. So a reader misses nothing and gets nothing twice, whatever happens to it or to the
service, and a slow one costs one page of memory.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pacesetter_service.api import events
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.api.waiting import Waiters
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.ledger import Ledger
from pacesetter_service.storage.store import Store, Stored

router = APIRouter(prefix="/v1/sessions/{name}/events", tags=["events"])

SSE = "text/event-stream"

PAGE = 256
"""How many events are read at once: what a slow reader costs."""

RETRY_MILLISECONDS = 1000
"""How long browsers are to wait before they come back."""

log = structlog.get_logger("pacesetter.feed")


class Feed:
    """Gives sessions' events to those who follow them, from the database."""

    def __init__(self, store: Store, ledger: Ledger, *, heartbeat: float, patience: float) -> None:
        """Listen to a ledger.

        Args:
            store: Where the events are.
            ledger: Tells which sessions have new ones.
            heartbeat: Seconds without an event after which a comment is sent.
            patience: Seconds that are waited for a reader that takes nothing.
        """
        self.patience = patience
        self._store = store
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._waiters = Waiters()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers = 0
        ledger.on_logged(self._logged)

    def release(self) -> None:
        """Let all readers go: the server is to stop."""
        self._waiters.release()

    async def follow(self, name: str, after: int) -> AsyncGenerator[bytes, None]:
        """Give the events of a session that come after a number, as they happen, without an end.

        It ends when the server is to stop, and then says so in a comment.
        """
        self._loop = asyncio.get_running_loop()
        self._readers += 1
        try:
            async for each in self._frames(name, after):
                yield each
        finally:
            self._readers -= 1

    async def _frames(self, name: str, after: int) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        while True:
            stored = (await self._ledger.find(name)).stored
            if after < stored.events:
                page = await self._page(stored, after)
                yield b"".join(map(frame, page))
                after = page[-1].seq or 0
            elif self._waiters.released:
                yield b": the server stops, come back with the last id\n\n"
                return
            else:
                await self._waiters.news(name, self._heartbeat)
                if await self._nothing_new(name, after):
                    yield b": heartbeat\n\n"

    async def _page(self, stored: Stored, after: int) -> list[events.EventView]:
        """Give the events that come after a number; there must be one."""
        if after < 0:
            return [events.created(stored)]
        found = await run_in_threadpool(self._store.events_after, stored, after, limit=PAGE)
        return [events.view(each, stored.session.spec) for each in found]

    async def _nothing_new(self, name: str, after: int) -> bool:
        stored = (await self._ledger.find(name)).stored
        return after >= stored.events and not self._waiters.released

    def _logged(self, names: Sequence[str]) -> None:
        """Tell those who wait, from the writer's thread."""
        if self._loop is not None and self._readers:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake, names)

    def _wake(self, names: Sequence[str]) -> None:
        for name in names:
            self._waiters.wake(name)


def frame(event: events.EventView) -> bytes:
    """Write an event as server-sent events want it; its number is its id."""
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()


@router.get(
    "/stream",
    response_class=Response,
    responses={200: {"content": {SSE: {"schema": {"type": "string"}}}}},
)
async def stream_events(
    request: Request,
    name: SessionName,
    service: Service,
    after: Annotated[int, Query(ge=-1, le=MAX_STEP)] = -1,
    last_event_id: Annotated[str, Header(max_length=32)] = "",
) -> Response:
    """Follow the events of a session as they happen, as server-sent events.

    Each is as in `GET …/events`, in their order, and its number is its `id`. Whoever comes back
    with the last one in the `Last-Event-ID` header (as browsers do by themselves) or in `after`
    goes on behind it: nothing is left out and nothing comes twice. While nothing happens there is
    a comment now and then. A reader that takes nothing for too long is cut off.
    """
    feed: Feed = request.app.state.feed
    stored = (await service.ledger.find(name)).stored
    position = _number(last_event_id) if last_event_id else after
    if position > stored.events:
        which = ("header", "Last-Event-ID") if last_event_id else ("query", "after")
        message = f"This session has no event {position}; its newest one is {stored.events}"
        raise invalid_parameter(which[1], message, position)
    return EventStream(feed.follow(name, position), feed.patience)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_STEP):
        message = "This is no id of an event; send the last one that you got"
        raise invalid_parameter("Last-Event-ID", message, text)
    return int(text)


class EventStream(Response):
    """An answer without an end, given up when its reader goes or takes nothing any more."""

    media_type = SSE

    def __init__(self, frames: AsyncGenerator[bytes, None], patience: float) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        # A body without an end has no length.
        self.raw_headers = [each for each in self.raw_headers if each[0] != b"content-length"]
        self._frames = frames
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until one of the two ends."""
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            with suppress(asyncio.CancelledError):
                await sending

    async def _send(self, scope: Scope, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        async with aclosing(self._frames) as frames:
            async for each in frames:
                try:
                    async with asyncio.timeout(self._patience):
                        await send({"type": "http.response.body", "body": each, "more_body": True})
                except TimeoutError:
                    # Without its end the answer is broken off, which the reader can tell.
                    log.warning("reader_cut_off", path=scope["path"], seconds=self._patience)
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Return when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
