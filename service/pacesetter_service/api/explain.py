"""Why a value is what it is."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, takewhile
from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from pacesetter_service.api import events
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.values import read_block
from pacesetter_service.core.explain import Explanation, Recorded, enough, explain, near
from pacesetter_service.core.lineage import stretches
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.storage.store import Store, Stored

router = APIRouter(prefix="/v1/sessions/{name}/explain", tags=["events"])

TEXT = "text/plain"

MOST = 1_000
"""How many changes are looked at, before only orders and those that replace a law are."""

MOST_OF_LAWS = 50
"""How many of these are looked at."""

KINDS = ("decided", "acted")
"""The events that change values."""

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
    mishaps = store.events_until(stored, step, kinds=("missed", "boundary_passed"))
    nearby = list(islice(takewhile(lambda each: _at(each) >= first, mishaps), MISHAPS))
    found = explain(stored.session, step, values, changes, nearby[::-1], whole=whole)
    return replace(found, notes=(*_lived(stored, step), *found.notes))


def _lived(stored: Stored, step: int) -> Iterator[str]:
    """Say so if a step was sealed in an earlier life than the running one."""
    session = stored.session
    [*_, (life, *_)] = stretches(stored.lineage, end=step + 1)
    if life.session_id != stored.id or life.attempt < 1:  # those of an imported fork
        yield f"Step {step} was sealed before this session was forked from another one."
    elif life.attempt != session.attempt:
        yield (
            f"Step {step} was sealed in attempt {life.attempt};"
            f" attempt {session.attempt} began at step {session.attempt_start}."
        )


def changes_at(store: Store, stored: Stored, step: int) -> tuple[list[Recorded], bool]:
    """Read the changes that hold at a step, newest first, and tell whether these are all."""
    log = store.events_until(stored, step, kinds=KINDS)
    changes = list(enough(stored.session.spec, log, MOST))
    if next(log, None) is None:
        return changes, True
    return [*changes, *_older(store, stored, step, changes)], False


def _older(store: Store, stored: Stored, step: int, changes: list[Recorded]) -> Iterator[Recorded]:
    """Read on, but only changes that came from an operator or replaced a law."""
    seen = {_place(each) for each in changes}
    laws = store.events_until(stored, step, kinds=KINDS, of_laws=True)
    return islice((each for each in laws if _place(each) not in seen), MOST_OF_LAWS)


def _place(recorded: Recorded) -> tuple[object, ...]:
    return recorded.own, recorded.attempt, recorded.seq, recorded.created_at


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
