"""The catalogue of schedules, and curves of any spec before there is a session."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pacesetter_service import pictures
from pacesetter_service.api import wire
from pacesetter_service.core.decide import count_usable
from pacesetter_service.core.lint import Architecture, Severity, Subject, lint
from pacesetter_service.core.model import Count, Step
from pacesetter_service.core.recommend import Recommendation, Situation, recommend
from pacesetter_service.core.schedules import catalogue
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

SVG = "image/svg+xml"


class PreviewRequest(SessionSpec):
    """What a session would be created with, and the steps to draw."""

    name: str = "preview"
    start: Step = 0
    count: Annotated[Count, Field(le=wire.MAX_CURVE)] = 1000
    points: Annotated[int, Field(ge=10, le=10_000)] = 1000


@router.get("")
async def list_schedules() -> dict[str, Any]:
    """List every schedule kind with its law, parameters, source and an example."""
    return {"schedules": [catalogue.describe(kind) for kind in catalogue.kinds()]}


@router.get("/{kind}")
async def read_schedule(kind: str) -> dict[str, Any]:
    """Describe one schedule kind."""
    return catalogue.describe(kind)


@router.post(
    "/preview",
    responses={200: {"content": {SVG: {"schema": {"type": "string"}}}}},
    response_model=None,
)
async def preview_schedule(
    request: PreviewRequest, accept: Annotated[str, Header()] = ""
) -> dict[str, Any] | Response:
    """Give the curves of a spec, as they would be without any metric; nothing is kept.

    With `Accept: image/svg+xml` the answer is a picture.
    """
    answer = await run_in_threadpool(_preview, request)
    if SVG in accept:
        picture = await run_in_threadpool(pictures.draw, answer["steps"], answer["series"])
        return Response(picture, media_type=SVG)
    return answer


class LintRequest(SessionSpec):
    """What a session would be created with, and what is known about the training."""

    name: str = "lint"
    planned_steps: Count | None = None
    architecture: Architecture | None = None


class FindingView(BaseModel):
    """One known pitfall: what, where, what to do, and who says so."""

    code: str
    severity: Severity
    pointer: str
    message: str
    advice: str
    source: str


class LintAnswer(BaseModel):
    """Everything that was found, the gravest first."""

    findings: list[FindingView]


@router.post("/lint")
async def lint_schedule(request: LintRequest) -> LintAnswer:
    """Look for known pitfalls in a spec; most need to know `planned_steps` or `total_steps`."""
    subject = Subject(request, request.planned_steps, request.architecture)
    return LintAnswer(findings=await run_in_threadpool(findings, subject))


@router.post("/recommend")
async def recommend_schedule(situation: Situation) -> Recommendation:
    """Propose a session for a situation, with reasons; the spec can be posted as it is."""
    return recommend(situation)


def findings(subject: Subject) -> list[FindingView]:
    """Lint, in the form of an answer."""
    return [FindingView(**found._asdict()) for found in lint(subject)]


def _preview(request: PreviewRequest) -> dict[str, Any]:
    timelines = create(request).timelines
    wire.refuse_too_many(len(timelines), request.count)
    values = {name: line.values(request.start, request.count) for name, line in timelines.items()}
    count_usable(request.start, values)
    block = np.stack(list(values.values()))
    return wire.curve(list(timelines), block, request.start, request.points)
