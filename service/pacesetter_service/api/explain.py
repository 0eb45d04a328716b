"""Why a value is what it is, in JSON or as a text."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from pacesetter_service.api import events
from pacesetter_service.api.callers import unless_gone
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.runtime.queries import explain
from pacesetter_service.runtime.queries.events import LoggedEvent
from pacesetter_service.runtime.queries.explain import ExplainedStep

router = APIRouter(prefix="/v1/sessions/{name}/explain", tags=["events"])

TEXT = "text/plain"


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
    request: Request,
    service: Service,
    step: Annotated[int, Query(ge=0, le=MAX_STEP)],
    accept: Annotated[str, Header()] = "",
) -> ExplanationView | Response:
    """Say why the values at a step are what they are: which law, since when, changed by whom.

    With `Accept: text/plain` the answer is the text alone. Of a step that is not sealed the
    forecast is explained.
    """
    if TEXT in accept:
        texts = explain.explain_step(service, name, step, _text)
        return PlainTextResponse(await unless_gone(request, texts))
    return await unless_gone(request, explain.explain_step(service, name, step, _view))


def _text(explained: ExplainedStep) -> str:
    return explained.explanation.text()


def _view(explained: ExplainedStep) -> ExplanationView:
    explanation = explained.explanation
    return ExplanationView(
        step=explanation.step,
        sealed=explanation.sealed,
        attempt=explained.attempt,
        horizon=explained.horizon,
        series={
            name: WhyView(**{**why._asdict(), "cause": _cause(explained.causes[name])})
            for name, why in explanation.series.items()
        },
        notes=list(explanation.notes),
        text=explanation.text(),
    )


def _cause(cause: LoggedEvent | None) -> events.EventView | None:
    return None if cause is None else events.view(cause)
