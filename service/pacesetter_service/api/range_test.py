"""The outcome of a learning rate range test, in JSON or as a picture."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json

from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.schedules import SVG
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.insight import pictures
from pacesetter_service.runtime.queries import range_test
from pacesetter_service.runtime.queries.range_test import RangeTestAnswer

router = APIRouter(prefix="/v1/sessions/{name}", tags=["values"])


@router.get(
    "/range-test",
    responses={200: {"content": {SVG: {"schema": {"type": "string"}}}}},
    response_model=RangeTestAnswer,
)
async def read_range_test(
    name: SessionName,
    request: Request,
    service: Service,
    metric: Annotated[MetricName | None, Query()] = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Read a range test: loss over learning rate, and the rates that eight known rules read off it.

    Any session whose rate rises will do; the call is meant for the schedule `range_test` with the
    controller `range_test`, which ends the session when the loss blows up. The default of `metric`
    is the one that this controller watches. `group` names the parameter group, if rates differ.

    `proposal.lr` is a rate for the peak of a schedule: the `base_lr` of a `one_cycle`, say.
    `POST /v1/schedules/recommend` takes `suggestions.steepest.lr` as its `range_test_max_lr`, and
    makes a whole session of it. With `Accept: image/svg+xml` the answer is a picture.
    """
    show = _picture if SVG in accept else _json
    reading = range_test.read_range_test(service, name, metric, group, show)
    return await answer(request, reading, SVG if SVG in accept else "application/json")


def _json(found: RangeTestAnswer) -> bytes:
    return to_json(found)


def _picture(found: RangeTestAnswer) -> bytes:
    return pictures.draw_range_test(
        title=f"{found.metric} over {found.series}",
        lr=found.curve.lr,
        loss=found.curve.loss,
        smoothed=found.curve.smoothed,
        suggestions={name: each.lr for name, each in found.suggestions.items()},
        proposal=found.proposal.lr,
    ).encode()
