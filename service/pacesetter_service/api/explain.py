"""Why a value is what it is."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from pacesetter_service.api import events
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.values import read_block
from pacesetter_service.core.explain import Explanation, Recorded, explain, is_enough, near
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.storage.store import Store, Stored

router = APIRouter(prefix="/v1/sessions/{name}/explain", tags=["events"])

TEXT = "text/plain"

PAGE = 50
"""How many changes are read at once."""

MOST = 2_000
"""How many changes are looked at, before only those that replace a law are."""

MISHAPS = 5
"""How many missed measurements and passed boundaries are told."""


class WhyView(BaseModel):
    """Why one series has its value."""

    value: float
    law: str
    level: float | None
    since: int
    cause: events.EventView | None
    text: str


class ExplanationView(BaseModel):
    """Why the values at a step are what they are; `text` is all of it for people."""

    step: int
    sealed: bool
    attempt: int
    horizon: int
    series: dict[str, WhyView]
    notes: list[str]
    text: str


@router.get(
    "",
    response_model=ExplanationView,
    responses={200: {"content": {TEXT: {"schema": {"type": "string"}}}}},
)
async def explain_step(
    name: SessionName,
    service: Service,
    step: Annotated[int, Query(ge=0, le=MAX_STEP)],
    accept: Annotated[str, Header()] = "",
) -> ExplanationView | Response:
    """Say why the values at a step are what they are: which law, since when, changed by whom.

    With `Accept: text/plain` the answer is the text alone. Of a step that is not sealed the
    forecast is explained.
    """
    entry = await service.ledger.find(name)
    block = await read_block(service, entry, step, 1)
    stored = entry.stored
    values = dict(zip(stored.session.timelines, block[:, 0].tolist(), strict=True))
    explanation = await run_in_threadpool(_explained, service.store, stored, step, values)
    if TEXT in accept:
        return PlainTextResponse(explanation.text())
    return _view(explanation, stored)


def _explained(store: Store, stored: Stored, step: int, values: dict[str, float]) -> Explanation:
    changes, whole = changes_at(store, stored, step)
    first = near(stored.session.spec, step)
    mishaps = store.events_until(stored, step, kinds=("missed", "boundary_passed"), limit=MISHAPS)
    nearby = [each for each in reversed(mishaps) if _at(each) >= first]
    return explain(stored.session, step, values, changes, nearby, whole=whole)


def changes_at(store: Store, stored: Stored, step: int) -> tuple[list[Recorded], bool]:
    """Read the changes that hold at a step, newest first, and tell whether these are all."""
    changes: list[Recorded] = []
    kinds = ("decided", "acted")
    while len(changes) < MOST and not is_enough(stored.session.spec, changes):
        page = store.events_until(stored, step, kinds=kinds, limit=PAGE, offset=len(changes))
        changes += page
        if len(page) < PAGE:
            return changes, True
    return [*changes, *_of_law(store, stored, step, changes[-1])], False


def _of_law(store: Store, stored: Stored, step: int, last: Recorded) -> list[Recorded]:
    """Read the newest changes that replaced a law or came from an operator, and are older."""
    found = [
        *store.events_until(stored, step, kinds=("acted",), limit=PAGE),
        *store.events_until(
            stored, step, kinds=("decided",), limit=PAGE, mentioning='"transition":'
        ),
    ]
    older = [each for each in found if (_at(each), each.seq or 0) < (_at(last), last.seq or 0)]
    return sorted(older, key=lambda each: (_at(each), each.seq or 0), reverse=True)


def _at(recorded: Recorded) -> int:
    at: int = getattr(recorded.event, "at", 0)
    return at


def _view(explanation: Explanation, stored: Stored) -> ExplanationView:
    session = stored.session
    return ExplanationView(
        step=explanation.step,
        sealed=explanation.sealed,
        attempt=session.attempt,
        horizon=session.horizon,
        series={
            name: WhyView(
                value=why.value,
                law=why.law,
                level=why.level,
                since=why.since,
                cause=_cause(why.cause, session.spec),
                text=why.text,
            )
            for name, why in explanation.series.items()
        },
        notes=list(explanation.notes),
        text=explanation.text(),
    )


def _cause(cause: Recorded | None, spec: SessionSpec) -> events.EventView | None:
    return None if cause is None else events.view(cause, spec)
