"""The events of all sessions: in pages, or as they happen."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import Label, Names, Service
from pacesetter_service.api.events import EventView, Kind, view
from pacesetter_service.api.feed import HEARTBEAT, RETRY_MILLISECONDS, SSE, EventStream, Pulse
from pacesetter_service.api.listing import label_of
from pacesetter_service.core.tokens import NamePattern
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries import feed
from pacesetter_service.runtime.queries.feed import FedEvent, FeedEvents, Wanted
from pacesetter_service.runtime.service import Service as UseCases

router = APIRouter(prefix="/v1/events", tags=["events"])

MOST = 2**62
"""The largest position that is accepted."""


class FedEventView(EventView):
    """An event as in its session's log, with its session and its position among all events."""

    cursor: str = Field(description="`after` this the events go on that came later")
    session: str = Field(description="the name of its session")


class FeedPage(BaseModel):
    """Some events of all sessions, in the order of their commits."""

    events: list[FedEventView] = Field(description="the events, the earliest first")
    cursor: str = Field(description="what to send as `after` for what comes behind these")
    more: bool = Field(description="whether there may be more already, even if `events` is empty")


async def _wanted(
    names: Names,
    session: Annotated[
        NamePattern | None,
        Query(description="a pattern of names: `*` for any characters, `?` for one"),
    ] = None,
    kind: Annotated[
        list[Kind] | None, Query(max_length=16, description="repeated, one of them must hold")
    ] = None,
    actor: Annotated[
        str | None, Query(max_length=128, description="who has ordered or done it")
    ] = None,
    label: Annotated[
        list[Label] | None,
        Query(max_length=16, description="`name:value`; repeated, all of them must hold"),
    ] = None,
) -> Wanted:
    """Read which events are wanted."""
    return Wanted(names, session, kind or (), actor, [label_of(each) for each in label or ()])


Asked = Annotated[Wanted, Depends(_wanted)]

Cursor = Annotated[
    str | None, Query(max_length=20, description="the `cursor` of the last event that is known")
]


@router.get("", response_model=FeedPage)
async def list_all_events(
    request: Request,
    service: Service,
    wanted: Asked,
    after: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List the events of all sessions that the caller's token is for, in the order of commits.

    Without `after` the list begins with the oldest event. Send the answer's `cursor` as the next
    `after`, now or at any later time: nothing is left out and nothing comes twice. Events that an
    imported session brought along happened elsewhere, and are not listed; neither are events of
    purged sessions.
    """
    behind = 0 if after is None else _number(after, "after")
    return await answer(request, feed.list_all(service, wanted, behind, limit, _page))


def _page(page: FeedEvents) -> bytes:
    events = [_view(each) for each in page.events]
    found = FeedPage(events=events, cursor=str(page.behind), more=page.more)
    return found.model_dump_json().encode()


@router.get(
    "/stream",
    response_class=Response,
    responses={200: {"content": {SSE: {"schema": {"type": "string"}}}}},
)
async def stream_all_events(
    request: Request,
    service: Service,
    wanted: Asked,
    after: Cursor = None,
    last_event_id: Annotated[str, Header(max_length=32)] = "",
) -> Response:
    """Follow the events of all sessions as they happen, as server-sent events.

    Each is as in `GET /v1/events`, and its cursor is its `id`. Without `after` the stream begins
    with the next event. A reader that comes back with the last id in the `Last-Event-ID` header (as
    browsers do automatically) goes on after it, at any server that shares the database: nothing is
    left out and nothing comes twice. While nothing happens, there is a comment now and then.
    """
    pulse: Pulse = request.app.state.pulse
    argument, text = ("Last-Event-ID", last_event_id) if last_event_id else ("after", after)
    position = None if text is None else _number(text, argument)
    behind = await feed.begin_at(service, position, argument)
    found = frames(service, wanted, behind, pulse.heartbeat)
    return EventStream(found, pulse.patience, request.app.state.readers)


async def frames(
    service: UseCases, wanted: Wanted, behind: int, heartbeat: float
) -> AsyncGenerator[bytes, None]:
    """Return the events of all sessions as server-sent events; the last frame announces the end."""
    yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    async with aclosing(feed.follow_all(service, wanted, behind, heartbeat, _frames)) as pages:
        async for page in pages:
            yield page
    yield b": the server stops, come back with the last id\n\n"


def _frames(page: Sequence[FedEvent]) -> bytes:
    return b"".join(map(_frame, page)) or HEARTBEAT


def _frame(fed: FedEvent) -> bytes:
    event = _view(fed)
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()


def _view(fed: FedEvent) -> FedEventView:
    told = view(fed.event).model_dump()
    return FedEventView(**{**told, "cursor": str(fed.position), "session": fed.session})


def _number(text: str, argument: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST):
        raise ArgumentError(argument, "This is no cursor of an event; send the last one you got")
    return int(text)
