"""Reading values: one step, a range, or a curve. Reading never changes anything."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from pacesetter_service.api import wire
from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import AttemptQuery, Service, SessionName
from pacesetter_service.api.formats import SVG, Accept, PictureQuery, wanted
from pacesetter_service.api.openapi import answer_of
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import MAX_WINDOW
from pacesetter_service.runtime.queries import portraits, values
from pacesetter_service.runtime.queries.curves import MAX_CURVE, Curve
from pacesetter_service.runtime.queries.values import Values

router = APIRouter(prefix="/v1/sessions/{name}", tags=["values"])

StepQuery = Annotated[int, Query(ge=0, le=MAX_STEP)]


@router.get("/lr", response_class=Response, responses=answer_of("RangeValues", "StepValues"))
async def read_values(
    name: SessionName,
    request: Request,
    service: Service,
    step: StepQuery,
    count: Annotated[int | None, Query(ge=1, le=MAX_WINDOW)] = None,
    attempt: AttemptQuery = None,
) -> Response:
    """Read the values of a step, or of `count` steps from it on; each sealed or forecast.

    A forecast is what would be sealed if it were asked for now. An `attempt` that is over has only
    the values that it sealed; where steps were taken back, these are the ones its trainers got.
    """
    show = _step if count is None else _range
    reading = values.read_values(service, name, step, count or 1, attempt, show)
    return await answer(request, reading)


@router.get(
    "/forecast",
    response_class=Response,
    responses=answer_of("ForecastCurve", **{SVG: {"schema": {"type": "string"}}}),
)
async def read_forecast(
    name: SessionName,
    request: Request,
    service: Service,
    start: StepQuery | None = None,
    count: Annotated[int | None, Query(ge=1, le=MAX_CURVE)] = None,
    points: Annotated[int, Query(ge=10, le=10_000)] = 1000,
    form: PictureQuery = None,
    accept: Accept = "",
) -> Response:
    """Read the curve from `start` on: sealed values, then those that would be sealed.

    Without `start` it begins at the horizon; without `count` it spans the rest of the session's
    total_steps, or 1,000 steps. It is thinned out to about `points` points, with extremes kept.
    With `format=svg`, or `Accept: image/svg+xml`, the answer is a picture.
    """
    if wanted(form, accept, "svg") == "svg":
        drawing = portraits.draw_forecast(service, name, start, count, points)
        return await answer(request, drawing, SVG)
    reading = values.read_forecast(service, name, start, count, points, _curve)
    return await answer(request, reading)


def _step(found: Values) -> bytes:
    """Return the values of one step as JSON."""
    step = found.start
    row = dict(zip(found.names, found.block[:, 0].tolist(), strict=True))
    return to_json({"step": step, **row, "sealed": step < found.sealed_until})


def _range(found: Values) -> bytes:
    """Return the values of several steps as JSON."""
    series = wire.by_series(found.names, found.block)
    return to_json({"start": found.start, "series": series, "sealed_until": found.sealed_until})


def _curve(found: Curve) -> bytes:
    return to_json({**wire.curve(found), "sealed_until": found.sealed_until})
