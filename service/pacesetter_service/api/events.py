"""The log of a session: what was decided, ordered and missed, in pages."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from pacesetter_service.api import paging
from pacesetter_service.api.answers import Moment
from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.core.model import MAX_STEP, did_you_mean, spelt
from pacesetter_service.runtime.queries import events
from pacesetter_service.runtime.queries.events import KINDS, LoggedEvent


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise PydanticCustomError(
            "unknown_kind",
            "There is no such kind of event.{hint} Name one of: {known}",
            {"hint": did_you_mean(kind, KINDS), "known": ", ".join(KINDS)},
        )
    return kind


Kind = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(KINDS)})]

router = APIRouter(prefix="/v1/sessions/{name}/events", tags=["events"])


class EventView(BaseModel):
    """An event: its place in the log, what happened in words, and its own fields beside these."""

    model_config = ConfigDict(extra="allow")

    seq: int | None = Field(
        description="its place in the session's log, from 0; null if the log of this session does"
        " not have it, or not yet"
    )
    attempt: int = Field(description="the attempt that it happened in")
    kind: str = Field(description="what kind of event it is")
    at: int | None = Field(description="the step from which it holds; null if it is about none")
    created_at: Moment | None = Field(
        description="when it was recorded; null for what an order that waits will cause"
    )
    text: str = Field(description="what happened, in words")


class EventPage(BaseModel):
    """A page of events, in order."""

    events: list[EventView] = Field(description="the events, the oldest first")
    next_page_token: str | None = Field(description=paging.NEXT)


@router.get("", response_model=EventPage)
async def list_events(
    name: SessionName,
    request: Request,
    service: Service,
    after: Annotated[int, Query(ge=-1, le=MAX_STEP)] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[str, Query(max_length=64)] = "",
    kind: Annotated[list[Kind] | None, Query(max_length=16)] = None,
) -> Response:
    """List what has happened to a session, a page at a time, oldest first.

    Event 0 is its creation. `after` leaves out the events up to that number: give the last one that
    you know to read only new ones. `kind` may be repeated. `at` is the step from which an event
    holds; NaN and infinities are the strings "nan", "inf" and "-inf".
    """
    last = paging.number_in(page_token, MAX_STEP)
    first = after if last is None else max(after, last)
    return await answer(request, events.list_events(service, name, first, limit, kind, _page))


def _page(page: events.EventPage) -> bytes:
    views = [view(each) for each in page.events]
    token = paging.token_of(views[-1].seq) if page.more else None
    return EventPage(events=views, next_page_token=token).model_dump_json().encode()


def view(logged: LoggedEvent) -> EventView:
    """Return the view of an event, without fields that have their default."""
    head = {**logged._asdict(), "created_at": logged.created_at or None}
    event = head.pop("event")
    own = {} if event is None else spelt(event.fields())
    return EventView(**{**own, **head})
