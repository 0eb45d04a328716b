"""What a spec would lead to, before there is a session: its curves, pitfalls, a proposal."""

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field, JsonValue, TypeAdapter
from pydantic_core import to_json

from pacesetter_service.api import bodies, wire
from pacesetter_service.api.advice import advice_on
from pacesetter_service.api.callers import answer, unless_gone
from pacesetter_service.api.context import Service
from pacesetter_service.api.openapi import answer_of, body_of
from pacesetter_service.catalogue.findings import Architecture, Finding, Severity, Subject
from pacesetter_service.catalogue.recommend import Recommendation, Situation, recommend
from pacesetter_service.core.cost import Check
from pacesetter_service.core.model import Count, Step
from pacesetter_service.core.spec import SessionSpec, refuse_not_yours
from pacesetter_service.insight import pictures
from pacesetter_service.runtime.queries import previews
from pacesetter_service.runtime.queries.curves import MAX_CURVE, Curve

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

SVG = "image/svg+xml"


S = TypeVar("S", bound=SessionSpec)

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def _of_callers(kind: type[S]) -> Callable[[JsonValue], S]:
    """Return a function that reads a spec as callers may write it."""

    def read(body: JsonValue) -> S:
        refuse_not_yours(_OBJECT.validate_python(body))
        return kind.model_validate(body)

    return read


class PreviewRequest(SessionSpec):
    """The spec that a session would be created with, and the steps to draw."""

    name: str = Field(default="preview", description="how the session would be called")
    start: Step = Field(default=0, description="the first step to draw")
    count: Annotated[Count, Field(le=MAX_CURVE)] = Field(
        default=1000, description="how many steps to draw"
    )
    points: Annotated[int, Field(ge=10, le=10_000)] = Field(
        default=1000, description="about how many points of the curve are shown"
    )


@router.post(
    "/preview",
    response_class=Response,
    responses=answer_of("SampledCurve", **{SVG: {"schema": {"type": "string"}}}),
    openapi_extra=body_of("PreviewRequest"),
)
async def preview_schedule(
    asked: Annotated[PreviewRequest, bodies.read_by(_of_callers(PreviewRequest))],
    request: Request,
    service: Service,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Return the curves of a spec, as they would be without any metric; nothing is kept.

    With `Accept: image/svg+xml` the answer is a picture. Curves that cost more than one answer may
    are refused with their cost, and with the number of steps that would be possible.
    """
    show = _picture if SVG in accept else _json
    reading = previews.preview(service, asked, asked.start, asked.count, asked.points, show)
    return await answer(request, reading, SVG if SVG in accept else "application/json")


class LintRequest(SessionSpec):
    """The spec that a session would be created with, and what is known about the training."""

    name: str = Field(default="lint", description="how the session would be called")
    planned_steps: Count | None = Field(
        default=None,
        description="how long the training will be, in steps, if the spec does not say",
    )
    architecture: Architecture | None = Field(
        default=None,
        description="what kind of model is trained, for the pitfalls that depend on it",
    )


class FindingView(BaseModel):
    """One known pitfall: what, where, what to do, and the source."""

    code: str = Field(description="which pitfall it is, for programs")
    severity: Severity = Field(description="how grave it is")
    pointer: str = Field(description="a JSON pointer to the part of the spec that it is about")
    message: str = Field(description="what is wrong, in words")
    advice: str = Field(description="what to do instead")
    source: str = Field(description="who says so")


class LintAnswer(BaseModel):
    """All findings, most severe first."""

    findings: list[FindingView] = Field(description="what was found, the gravest first")


@router.post("/lint", openapi_extra=body_of("LintRequest"))
async def lint_schedule(
    asked: Annotated[LintRequest, bodies.read_by(_of_callers(LintRequest))],
    request: Request,
    service: Service,
) -> LintAnswer:
    """Look for known pitfalls in a spec; most need to know `planned_steps` or `total_steps`."""
    subject = Subject(asked, asked.planned_steps, asked.architecture)
    found = await unless_gone(request, previews.find_pitfalls(service, subject))
    return LintAnswer(findings=views(found, asked))


@router.post("/recommend", openapi_extra=body_of("Situation"))
async def recommend_schedule(
    situation: Annotated[Situation, bodies.model(Situation)],
) -> Recommendation:
    """Propose a session for a situation, with reasons; the spec can be posted as it is."""
    return recommend(situation)


def views(found: Iterable[Finding], spec: SessionSpec) -> list[FindingView]:
    """Return the views of findings in a spec."""
    return [FindingView(**{**each._asdict(), "advice": advice_on(each, spec)}) for each in found]


def _json(curve: Curve, _check: Check) -> bytes:
    return to_json(wire.curve(curve))


def _picture(curve: Curve, check: Check) -> bytes:
    return pictures.draw(**wire.curve(curve), check=check).encode()
