"""The outcome of a learning rate range test: the curve, what rules read off it, and a proposal."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, isnan
from typing import Annotated, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from pacesetter_service import pictures
from pacesetter_service.api import wire
from pacesetter_service.api.context import Context, Service, SessionName
from pacesetter_service.api.schedules import SVG
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.api.values import read_block
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers.range_test import RangeTest
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.measurements import Measurement, close
from pacesetter_service.core.metrics import MetricName
from pacesetter_service.core.pending import Pending
from pacesetter_service.core.range_test import (
    DEFAULT_SMOOTHING,
    Curve,
    propose,
    smoothed,
    suggest,
)
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.schedules.named.searches import RangeTest as Sweep
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import MAX_WINDOW, Series
from pacesetter_service.ledger import Entry

router = APIRouter(prefix="/v1/sessions/{name}", tags=["values"])

Spelled = float | Literal["nan", "inf", "-inf"]
"""A metric; what is no JSON number is spelt out, as in reports."""


class CurveView(BaseModel):
    """What was measured, step by step; steps without a measurement are left out.

    `smoothed` is what the rules read: the losses, smoothed as the session's controller does.
    """

    step: list[int]
    lr: list[float]
    loss: list[Spelled]
    smoothed: list[Spelled]


class SuggestionView(BaseModel):
    """What one rule says: the rate and the step that it was read at, or why it can not tell."""

    lr: float | None
    step: int | None
    reason: str


class ProposalView(BaseModel):
    """One rate for the peak of a schedule, or why there is none."""

    lr: float | None
    agreeing: list[str]
    reason: str


class RangeTestAnswer(BaseModel):
    """The outcome of a range test so far; `ended` says why it ended, once it has."""

    session: str
    series: str
    metric: str
    ended: str | None
    curve: CurveView
    suggestions: dict[str, SuggestionView]
    proposal: ProposalView


class _Asked(NamedTuple):
    """What a question is about: a metric, one of the series, and who measures."""

    metric: str
    series: str
    controller: RangeTest | None


@router.get(
    "/range-test",
    responses={200: {"content": {SVG: {"schema": {"type": "string"}}}}},
    response_model=RangeTestAnswer,
)
async def read_range_test(
    name: SessionName,
    service: Service,
    metric: Annotated[MetricName | None, Query()] = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
    accept: Annotated[str, Header()] = "",
) -> RangeTestAnswer | Response:
    """Read a range test: loss over learning rate, and the rates that eight known rules read off it.

    Any session whose rate rises will do; meant is one of the schedule `range_test` with the
    controller `range_test`, which ends it when the loss blows up. Without `metric` it is the one
    that this controller watches. `group` names the parameter group, where their rates differ.

    `proposal.lr` is a rate for the peak of a schedule: the `base_lr` of a `one_cycle`, say.
    `POST /v1/schedules/recommend` takes `suggestions.steepest.lr` as its `range_test_max_lr`, and
    makes a whole session of it. With `Accept: image/svg+xml` the answer is a picture.
    """
    entry = await service.ledger.find(name)
    session = entry.stored.session
    if session.horizon - session.spec.start_step > MAX_WINDOW:
        raise StepOutOfRangeError(
            f"This session has sealed {session.horizon - session.spec.start_step} steps, and a"
            f" range test has at most {MAX_WINDOW}. Name a session that sweeps learning rates."
        )
    asked = await _asked(service, entry, metric, group)
    answer = await _answer(service, entry, asked)
    if SVG not in accept:
        return answer
    return Response(await run_in_threadpool(_picture, answer), media_type=SVG)


async def _asked(service: Context, entry: Entry, metric: str | None, group: str | None) -> _Asked:
    session = entry.stored.session
    watchers = [rule for rule in session.spec.rules if isinstance(rule, RangeTest)]
    if metric is None and not watchers:
        raise invalid_parameter(
            "metric", "Name the metric that is the loss: no range_test controller does", None
        )
    chosen = metric or watchers[0].metric
    watcher = next((rule for rule in watchers if rule.metric == chosen), None)
    return _Asked(chosen, await _series(service, entry, group), watcher)


async def _series(service: Context, entry: Entry, group: str | None) -> str:
    """Give the series whose rates are meant; without a group all must have the same."""
    rates = {each.group: each.name for each in _rates(entry.stored.session)}
    if group is not None and group not in rates:
        known = ", ".join(rates) if list(rates) != [""] else "none"
        raise invalid_parameter("group", f"There is no such group; there are: {known}", group)
    if group is not None or len(rates) == 1:
        return rates[group or next(iter(rates))]
    block = await _sealed(service, entry)
    rows = [block[_row(entry.stored.session, name)] for name in rates.values()]
    if any((one != other).any() for one, other in pairwise(rows)):
        message = f"The rates of the groups differ; name one of: {', '.join(rates)}"
        raise invalid_parameter("group", message, None)
    return next(iter(rates.values()))


async def _answer(service: Context, entry: Entry, asked: _Asked) -> RangeTestAnswer:
    session = entry.stored.session
    block = await _sealed(service, entry)
    names = [session.spec.metric(asked.metric).of or asked.metric]
    readings = await run_in_threadpool(service.store.readings_of, entry.stored.lineage, names)
    rates = block[_row(session, asked.series)]
    return await run_in_threadpool(_evaluated, session, asked, rates, readings)


def _evaluated(
    session: Session, asked: _Asked, rates: Values, readings: Sequence[Reading]
) -> RangeTestAnswer:
    measured = _measured(session, asked.metric, readings)
    steps = [each.step for each in measured]
    losses = [each.value for each in measured]
    smoothing = asked.controller.smoothing if asked.controller else DEFAULT_SMOOTHING
    smooth = smoothed(losses, smoothing)
    lrs = [float(rates[step - session.spec.start_step]) for step in steps]
    curve = Curve.of(lrs, smooth)
    suggestions = suggest(curve, _planned(session, asked.controller))
    proposal = propose(curve, suggestions)
    return RangeTestAnswer(
        session=session.spec.name,
        series=asked.series,
        metric=asked.metric,
        ended=_ended(session),
        curve=CurveView(
            step=steps,
            lr=lrs,
            loss=[_spelled(loss) for loss in losses],
            smoothed=[_spelled(loss) for loss in smooth],
        ),
        suggestions={
            name: SuggestionView(
                lr=each.lr,
                step=None if each.index is None else steps[each.index],
                reason=each.reason,
            )
            for name, each in suggestions.items()
        },
        proposal=ProposalView(
            lr=proposal.lr, agreeing=list(proposal.agreeing), reason=proposal.reason
        ),
    )


def _measured(session: Session, metric: str, readings: Sequence[Reading]) -> list[Measurement]:
    """Give the measurements of a metric, as controllers see them before any smoothing.

    Of a metric that none watches every step counts that some rank has reported.
    """
    name = session.spec.metric(metric).of or metric
    spec = session.spec.measured.get(name)
    if spec is None:
        ranks = {"ranks": session.spec.ranks, "quorum": 1}
        spec = session.spec.metric(name).model_copy(update=ranks)
    closed = close(Pending(readings), {name: spec}, until=session.horizon - 1)
    return [each for each in closed if isinstance(each, Measurement)]


def _planned(session: Session, controller: RangeTest | None) -> int | None:
    """Give how many steps the sweep was to have; None if nothing says it."""
    for law in session.spec.laws():
        if isinstance(law.schedule, Sweep):
            return whole(law.schedule.steps)
    return whole(controller.steps) if controller and controller.steps is not None else None


def _ended(session: Session) -> str | None:
    """Give why a session ended; None while it goes on, or when it did not say why."""
    if session.status == "active" or not session.notices:
        return None
    return session.notices[-1].message


def _rates(session: Session) -> list[Series]:
    return [each for each in session.spec.series() if each.channel == "lr"]


def _row(session: Session, series: str) -> int:
    return list(session.timelines).index(series)


async def _sealed(service: Context, entry: Entry) -> wire.Block:
    """Give every sealed value; shape (series, steps)."""
    session = entry.stored.session
    first, count = session.spec.start_step, session.horizon - session.spec.start_step
    if count == 0:
        return np.empty((len(session.timelines), 0))
    return await read_block(service, entry, first, count)


def _spelled(value: float) -> Spelled:
    if isnan(value):
        return "nan"
    if value in (inf, -inf):
        return "inf" if value > 0 else "-inf"
    return value


def _picture(answer: RangeTestAnswer) -> str:
    return pictures.draw_range_test(
        title=f"{answer.metric} over {answer.series}",
        lr=answer.curve.lr,
        loss=[float(loss) for loss in answer.curve.loss],
        smoothed=[float(loss) for loss in answer.curve.smoothed],
        suggestions={name: each.lr for name, each in answer.suggestions.items()},
        proposal=answer.proposal.lr,
    )
