"""Why a value is what it is, as JSON or as text."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, Field
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

    value: float = Field(description="the value at the step")
    law: str = Field(description="the law that it comes from, in one line")
    level: float | None = Field(
        description="the height that controllers have made of the base; null if the law has none"
    )
    since: int = Field(description="the first step that this law holds for")
    cause: events.EventView | None = Field(
        description="the event that made it so; null if it was planned like this"
    )
    text: str = Field(description="all of it in words")


class ExplanationView(BaseModel):
    """Why the values at a step are what they are; `text` is the whole explanation for people."""

    step: int = Field(description="the step that is explained")
    sealed: bool = Field(description="whether its values are final")
    attempt: int = Field(description="the attempt that it belongs to")
    horizon: int = Field(description="the first step that is not sealed")
    series: dict[str, WhyView] = Field(
        description="why each series has its value, by the name of the series"
    )
    notes: list[str] = Field(description="what else there is to know")
    text: str = Field(description="all of it in words")


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
    """Explain why the values at a step are what they are: which law, since when, changed by whom.

    With `Accept: text/plain` the answer is only the text. For a step that is not sealed, the
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
