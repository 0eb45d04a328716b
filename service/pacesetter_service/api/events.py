"""The log of a session: what was decided, ordered and missed, in pages."""

import base64
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.core.explain import Recorded
from pacesetter_service.core.model import MAX_STEP, Model, jsonable
from pacesetter_service.core.sentences import kind_of, listed, sentence
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.storage import codec
from pacesetter_service.storage.store import Stored

router = APIRouter(prefix="/v1/sessions/{name}/events", tags=["events"])

Kind = Literal[
    "created",
    "decided",
    "missed",
    "boundary_passed",
    "ordered",
    "acted",
    "batch_resized",
    "cancelled",
    "attempt_opened",
    "forked",
    "rate_deviated",
    "archived",
]


class EventView(BaseModel):
    """An event: its place in the log, what it was in words, and its own fields beside these."""

    model_config = ConfigDict(extra="allow")

    seq: int | None
    attempt: int
    kind: str
    at: int | None
    created_at: str
    text: str


class EventPage(BaseModel):
    """A page of events, in their order."""

    events: list[EventView]
    next_page_token: str | None


@router.get("")
async def list_events(
    name: SessionName,
    service: Service,
    after: Annotated[int, Query(ge=-1, le=MAX_STEP)] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[str, Query(max_length=64)] = "",
    kind: Annotated[list[Kind] | None, Query(max_length=16)] = None,
) -> EventPage:
    """List what has happened to a session, a page at a time, the oldest first.

    Event 0 is its creation. `after` leaves out the events up to that number: give the last one
    that you know to read what is new. `kind` may be repeated. `at` is the step from which an event
    holds; NaN and infinities are the strings "nan", "inf" and "-inf".
    """
    stored = (await service.ledger.find(name)).stored
    after = max(after, _seq_in(page_token))
    found: list[EventView] = []
    if after < 0 and (kind is None or "created" in kind):
        found.append(created(stored))
    logged = [each for each in kind or () if each != "created"]
    if kind is None or logged:
        recorded = await run_in_threadpool(
            service.store.events_after,
            stored,
            max(after, 0),
            limit=limit + 1 - len(found),
            kinds=logged,
        )
        found += [view(each, stored.session.spec) for each in recorded]
    page = found[:limit]
    more = len(found) > limit
    return EventPage(events=page, next_page_token=_token(page[-1].seq) if more else None)


def view(recorded: Recorded, spec: SessionSpec) -> EventView:
    """Show an event of a session with this spec; its number is that in the session's own log."""
    event = recorded.event
    kind, at, _ = codec.dump_event(event)
    payload = {each.name: _plain(getattr(event, each.name)) for each in fields(event)}
    own = {
        name: value
        for name, value in payload.items()
        if value is not None and value is not False and value != {}
    }
    head = {
        "seq": recorded.seq if recorded.own else None,
        "attempt": recorded.attempt,
        "kind": kind,
        "at": at,
        "created_at": recorded.created_at,
        "text": sentence(event, spec),
    }
    return EventView(**{**own, **head})


def created(stored: Stored) -> EventView:
    """Show the creation of a session, which is the first thing that happened to it."""
    spec = stored.session.spec
    names = listed([series.name for series in spec.series()])
    rules = [kind_of(rule) for rule in spec.controllers]
    under = f", under {listed(rules)}" if rules else ""
    start = spec.forked_from.step if spec.forked_from else spec.start_step
    return EventView(
        seq=0,
        attempt=1,
        kind="created",
        at=start,
        created_at=stored.created_at,
        text=f"The session was created: {names} from step {start} on{under}.",
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever stands in an event
    """Give JSON types; NaN and infinities spelt as in reports."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, Model):
        value = value.model_dump() if not hasattr(value, "kind") else jsonable(value)
    if is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _token(seq: int | None) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode()


def _seq_in(token: str) -> int:
    if not token:
        return -1
    try:
        seq = int(base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii"))
    except ValueError as error:
        raise _no_token(token) from error
    if not 0 <= seq <= MAX_STEP:
        raise _no_token(token)
    return seq


def _no_token(token: str) -> Exception:
    return invalid_parameter(
        "page_token", "This is no page token; use next_page_token of the page before", token
    )
