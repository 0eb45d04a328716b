"""The events of a session as they happen: server-sent events that can be resumed."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, NamedTuple

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.api.callers import gone
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.events import EventView, view
from pacesetter_service.core.errors import TooManyReadersError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries.events import LoggedEvent, follow, refuse_unheard_of
from pacesetter_service.runtime.service import Service as UseCases
from pacesetter_service.runtime.tasks import ended

router = APIRouter(prefix="/v1/sessions/{name}/events", tags=["events"])

SSE = "text/event-stream"

RETRY_MILLISECONDS = 1000
"""Milliseconds that browsers should wait before they reconnect."""

HEARTBEAT = b": heartbeat\n\n"
"""A comment that is sent while nothing happens."""

log = structlog.get_logger("pacesetter.feed")


class Pulse(NamedTuple):
    """The patience of feeds, in seconds.

    Attributes:
        heartbeat: The time without an event after which a comment is sent.
        patience: The time that a feed waits for a reader that reads nothing.
    """

    heartbeat: float
    patience: float


class Readers:
    """How many feeds are open, and how many may be."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0


async def frames(
    service: UseCases, name: str, after: int, heartbeat: float
) -> AsyncGenerator[bytes, None]:
    """Return the events of a session as server-sent events; the last frame announces the end."""
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    async with aclosing(follow(service, name, after, heartbeat, _frames)) as pages:
        async for page in pages:
            yield page
    yield b": the server stops, come back with the last id\n\n"


def _frames(page: Sequence[LoggedEvent]) -> bytes:
    """Return events as server-sent events; their numbers are their ids."""
    return b"".join(_frame(view(each)) for each in page) or HEARTBEAT


def _frame(event: EventView) -> bytes:
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

    Each is as in `GET …/events`, in order, and its number is its `id`. A reader that comes back
    with the last one in the `Last-Event-ID` header (as browsers do automatically) or in `after`
    goes on after it: nothing is left out and nothing comes twice. While nothing happens, there is
    a comment now and then. A reader that reads nothing for too long is cut off.
    """
    pulse: Pulse = request.app.state.pulse
    argument, position = "after", after
    if last_event_id:
        argument, position = "Last-Event-ID", _number(last_event_id)
    await refuse_unheard_of(service, name, position, argument)
    found = frames(service, name, position, pulse.heartbeat)
    return EventStream(found, pulse.patience, request.app.state.readers)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_STEP):
        message = "This is no id of an event; send the last one that you got"
        raise ArgumentError("Last-Event-ID", message)
    return int(text)


class EventStream(Response):
    """An endless answer, which ends when its reader goes away or reads nothing any more."""

    media_type = SSE

    def __init__(
        self, frames: AsyncGenerator[bytes, None], patience: float, readers: Readers
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        # An endless body has no length.
        self.raw_headers = [each for each in self.raw_headers if each[0] != b"content-length"]
        self._frames = frames
        self._patience = patience
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until the feed or the reader ends, unless there are too many readers."""
        if self._readers.open >= self._readers.most:
            await self._frames.aclose()
            await problems.of_error(TooManyReadersError(self._readers.most))(scope, receive, send)
            return
        self._readers.open += 1
        try:
            await self._follow(scope, receive, send)
        finally:
            self._readers.open -= 1

    async def _follow(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(gone(receive))
        try:
            done, _ = await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(leaving, sending)
        try:
            if sending in done:
                sending.result()  # raises its failure
        finally:
            del sending, leaving, done  # the failure holds this frame

    async def _send(self, scope: Scope, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        async with aclosing(self._frames) as frames:
            async for each in frames:
                try:
                    async with asyncio.timeout(self._patience):
                        await send({"type": "http.response.body", "body": each, "more_body": True})
                except TimeoutError:
                    # The answer breaks off without its end, which the reader can detect.
                    log.warning("reader_cut_off", path=scope["path"], seconds=self._patience)
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
