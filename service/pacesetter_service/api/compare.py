"""Several trainings side by side."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json

from pacesetter_service.api.auth import refuse_name
from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import Names, Service
from pacesetter_service.api.formats import MEDIA_TYPES, SVG, Accept, PictureQuery, wanted
from pacesetter_service.runtime.queries import compare
from pacesetter_service.runtime.queries.compare import FEWEST, MOST, By, Comparison
from pacesetter_service.runtime.queries.history import Column

router = APIRouter(prefix="/v1/compare", tags=["record"])


class ComparedView(BaseModel):
    """The curves of one training; null is where nothing was measured."""

    name: str = Field(description="the session's name")
    attempt: int = Field(description="its running attempt, from 1")
    total_steps: int | None = Field(description="the first step behind its plan, if that has one")
    trained_until: int = Field(description="the first step that was not trained")
    steps: list[int] = Field(description="the steps of its curves, ascending")
    places: list[float] = Field(description="each step, or which part of the plan it is: 0 to 1")
    series: dict[str, list[float]] = Field(description="its values at these steps, by series")
    metrics: dict[str, Column] = Field(description="what was measured at these steps, by metric")


class SpecDifference(BaseModel):
    """A place where the specs differ: the value there in each; null if there is none."""

    pointer: str = Field(description="where in the specs, as a JSON pointer (RFC 6901)")
    values: dict[str, JsonValue] = Field(description="what stands there, by session")


class ComparisonView(BaseModel):
    """Trainings side by side, and how their specs differ."""

    by: By = Field(description="what they are laid side by side by: steps, or the part of the plan")
    sessions: list[ComparedView] = Field(description="the trainings, in the order asked for")
    differences: list[SpecDifference] = Field(description="where their specs differ")


@router.get(
    "",
    response_model=ComparisonView,
    responses={200: {"content": {SVG: {"schema": {"type": "string"}}}}},
)
async def compare_sessions(
    request: Request,
    service: Service,
    names: Names,
    session: Annotated[
        list[str],
        Query(
            min_length=FEWEST,
            max_length=MOST,
            description="a name; repeated",
            json_schema_extra={"uniqueItems": True},
        ),
    ],
    by: Annotated[
        By, Query(description="lay the curves over each other by step, or by part of each plan")
    ] = "step",
    points: Annotated[int, Query(ge=10, le=10_000)] = 500,
    metrics: Annotated[
        str | None, Query(max_length=7_000, description="names, with commas; all, if not given")
    ] = None,
    form: PictureQuery = None,
    accept: Accept = "",
) -> Response:
    """Compare 2 to 10 sessions: their curves, and the places where their specs differ.

    Curves are as in `GET /v1/sessions/{name}/history`, with about `points` steps each. With
    `format=svg`, or `Accept: image/svg+xml`, the answer is a picture.
    """
    for name in session:
        refuse_name(names, name, "session")
    chosen = None if metrics is None else [each for each in metrics.split(",") if each]
    kind = wanted(form, accept, "svg")
    show = compare.draw if kind == "svg" else _json
    comparing = compare.compare(service, session, by, points, chosen, show)
    return await answer(request, comparing, MEDIA_TYPES[kind])


def _json(found: Comparison) -> bytes:
    sessions = [
        ComparedView(
            name=each.name,
            attempt=each.history.attempt,
            total_steps=each.total_steps,
            trained_until=each.history.trained_until,
            steps=each.history.steps,
            places=list(each.places),
            series=each.history.series,
            metrics=each.history.metrics,
        )
        for each in found.sessions
    ]
    differences = [
        SpecDifference(pointer=each.pointer, values=dict(each.values)) for each in found.differences
    ]
    return to_json(ComparisonView(by=found.by, sessions=sessions, differences=differences))
