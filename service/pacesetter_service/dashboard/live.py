"""The feeds of pages: the events of a session, and now and then where its training is."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from pacesetter_service.api.feed import RETRY_MILLISECONDS, EventStream, Pulse, Readers
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.dashboard import site
from pacesetter_service.dashboard.facts import read_facts
from pacesetter_service.dashboard.timeline import wanted_in
from pacesetter_service.runtime.queries.events import LoggedEvent, follow, refuse_unheard_of
from pacesetter_service.runtime.queries.feed import FedEvent, Wanted, begin_at, follow_all
from pacesetter_service.runtime.service import Service

TICK = 2.0
"""Seconds between two looks at where a training is."""

STILL_HERE = b": still here\n\n"
"""A comment that is sent while nothing happens."""


class Live:
    """The feeds that pages read."""

    def __init__(self, service: Service, pulse: Pulse, readers: Readers) -> None:
        self._service = service
        self._pulse = pulse
        self._readers = readers

    async def follow(self, request: Request) -> Response:
        """Follow a session: its events with their numbers as ids, and its progress without ids.

        A reader that comes back with the last id goes on after it.
        """
        name = request.path_params["name"]
        said = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not (said.isascii() and said.isdigit() and len(said) < 20 and int(said) <= MAX_STEP):
            return site.refusal(request, HTTPStatus.BAD_REQUEST, "This is no id of an event.")
        after = int(said)
        await refuse_unheard_of(self._service, name, after, "Last-Event-ID")
        return self._stream(request, self._frames(name, after))

    async def follow_all(self, request: Request) -> Response:
        """Follow all sessions: the events that an address selects, with their positions as ids."""
        said = request.headers.get("last-event-id") or request.query_params.get("after", "")
        if not (said.isascii() and said.isdigit() and len(said) < 20 and int(said) <= MAX_STEP):
            return site.refusal(request, HTTPStatus.BAD_REQUEST, "This is no id of an event.")
        behind = await begin_at(self._service, int(said), "Last-Event-ID")
        return self._stream(request, self._frames_of_all(wanted_in(request), behind))

    def _stream(self, request: Request, frames: AsyncGenerator[bytes, None]) -> Response:
        if request.method == "HEAD":  # its answer has an end
            return Response(media_type=EventStream.media_type)
        return EventStream(frames, self._pulse.patience, self._readers)

    async def _frames_of_all(self, wanted: Wanted, behind: int) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        heartbeat = self._pulse.heartbeat
        pages = follow_all(self._service, wanted, behind, heartbeat, _frames_of_all)
        async with aclosing(pages) as found:
            async for frames in found:
                yield frames or STILL_HERE

    async def _frames(self, name: str, after: int) -> AsyncGenerator[bytes, None]:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        before = b""
        tick = min(TICK, self._pulse.heartbeat)
        async with aclosing(follow(self._service, name, after, tick, _frames)) as pages:
            async for frames in pages:
                if frames:
                    yield frames
                progress = await self._progress(name)
                yield progress if progress != before else STILL_HERE
                before = progress

    async def _progress(self, name: str) -> bytes:
        try:
            facts = await read_facts(self._service, name)
        except PacesetterError:  # it was purged: the feed ends by itself
            return b": gone\n\n"
        session = facts.session
        said = {
            "trained": facts.trained,
            "horizon": session.horizon,
            "revision": session.revision,
            "attempt": session.attempt.number,
            "orders": len(session.orders.waiting),
            "state": facts.state,
        }
        return b"event: progress\ndata: " + to_json(said) + b"\n\n"


def _frames(page: Sequence[LoggedEvent]) -> bytes:
    return b"".join(_frame(each, each.seq) for each in page)


def _frames_of_all(page: Sequence[FedEvent]) -> bytes:
    return b"".join(_frame(each.event, each.position) for each in page)


def _frame(event: LoggedEvent, number: int | None) -> bytes:
    said = {"kind": event.kind, "at": event.at, "text": event.text, "when": event.created_at}
    return f"id: {number}\nevent: happened\ndata: ".encode() + to_json(said) + b"\n\n"
