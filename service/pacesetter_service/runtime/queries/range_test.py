"""The outcome of a learning rate range test: the curve, the rules' readings, and a proposal."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers.range_test import RangeTest
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.measuring import Measurement, Pending, close
from pacesetter_service.core.model import Spelt
from pacesetter_service.core.schedules.named.searches import RangeTest as Sweep
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import MAX_WINDOW, Series
from pacesetter_service.insight.range_test import (
    DEFAULT_SMOOTHING,
    Curve,
    propose,
    smoothed,
    suggest,
)
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries.values import block_of
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.windows import Block
from pacesetter_service.runtime.work import Entry
from pacesetter_service.store.store import Store

T = TypeVar("T")


class CurveView(BaseModel):
    """What was measured, step by step; steps without a measurement are left out.

    `smoothed` is what the rules read: the losses, smoothed as the session's controller does.
    """

    step: list[int] = Field(description="the steps at which the metric was measured")
    lr: list[float] = Field(description="the learning rate at each of them")
    loss: list[Spelt] = Field(description="the metric at each of them")
    smoothed: list[Spelt] = Field(description="the metric as the rules read it, smoothed")


class SuggestionView(BaseModel):
    """The result of one rule: the rate, and the step that it was read at, or why there is none."""

    lr: float | None = Field(
        description="the learning rate that the rule suggests; null if it cannot tell"
    )
    step: int | None = Field(description="the step at which the rule read it")
    reason: str = Field(description="why, in words")


class ProposalView(BaseModel):
    """One rate for the peak of a schedule, or why there is none."""

    lr: float | None = Field(
        description="the rate that is proposed for a schedule's peak; null if there is none"
    )
    agreeing: list[str] = Field(description="the rules that come to about this rate")
    reason: str = Field(description="why, in words")


class RangeTestAnswer(BaseModel):
    """The outcome of a range test so far; `ended` says why it ended, once it has."""

    session: str = Field(description="the session's name")
    series: str = Field(description="the series whose rate was swept")
    metric: str = Field(description="the metric that was read")
    ended: str | None = Field(description="why the test ended; null while it runs")
    curve: CurveView = Field(description="what was measured")
    suggestions: dict[str, SuggestionView] = Field(
        description="what each rule says, by the rule's name"
    )
    proposal: ProposalView = Field(description="one rate that several rules agree on")


class _Asked(NamedTuple):
    """What a question is about: a metric, one of the series, and the controller that measures."""

    metric: str
    series: str
    controller: RangeTest | None


async def read_range_test(
    service: Service,
    name: str,
    metric: str | None,
    group: str | None,
    show: Callable[[RangeTestAnswer], T],
) -> T:
    """Return what `show` makes of the outcome of a range test.

    Args:
        service: The service.
        name: The session's name.
        metric: The metric that is the loss; None for the metric of the session's controller.
        group: The parameter group whose rates are meant; None if all have the same.
        show: Makes the answer from the outcome, on the thread that finds it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: The metric or the group must be named, or there is none of that name.
        StepOutOfRangeError: The session has sealed too many steps.
        BusyError: Too many costly answers are being prepared already.
    """
    entry = await service.writer.find(name)
    session = entry.stored.session
    if session.horizon - session.spec.start_step > MAX_WINDOW:
        raise StepOutOfRangeError(
            f"This session has sealed {session.horizon - session.spec.start_step} steps, and a"
            f" range test has at most {MAX_WINDOW}. Name a session that sweeps learning rates."
        )

    def answer(check: Check) -> T:
        block = _sealed(service.store, entry, check)
        asked = _asked(entry, block, metric, group)
        return show(_outcome(service.store, entry, block, asked, check))

    return await service.reads.run(answer)


def _asked(entry: Entry, block: Block, metric: str | None, group: str | None) -> _Asked:
    session = entry.stored.session
    watchers = [rule for rule in session.spec.rules if isinstance(rule, RangeTest)]
    if metric is None and not watchers:
        raise ArgumentError(
            "metric", "Name the metric that is the loss: no range_test controller does"
        )
    chosen = metric or watchers[0].metric
    watcher = next((rule for rule in watchers if rule.metric == chosen), None)
    return _Asked(chosen, _series(entry, block, group), watcher)


def _series(entry: Entry, block: Block, group: str | None) -> str:
    """Return the series whose rates are meant; without a group, all must have the same rates."""
    rates = {each.group: each.name for each in _rates(entry.stored.session)}
    if group is not None and group not in rates:
        known = ", ".join(rates) if list(rates) != [""] else "none"
        raise ArgumentError("group", f"There is no such group; there are: {known}")
    if group is not None or len(rates) == 1:
        return rates[group or next(iter(rates))]
    rows = [block[_row(entry.stored.session, name)] for name in rates.values()]
    if any((one != other).any() for one, other in pairwise(rows)):
        message = f"The rates of the groups differ; name one of: {', '.join(rates)}"
        raise ArgumentError("group", message)
    return next(iter(rates.values()))


def _outcome(
    store: Store, entry: Entry, block: Block, asked: _Asked, check: Check
) -> RangeTestAnswer:
    session = entry.stored.session
    names = [session.spec.metric(asked.metric).of or asked.metric]
    readings = store.readings_of(entry.stored.lineage, names)
    check()
    measured = _measured(session, asked.metric, readings)
    steps = [each.step for each in measured]
    losses = [each.value for each in measured]
    smoothing = asked.controller.smoothing if asked.controller else DEFAULT_SMOOTHING
    smooth = smoothed(losses, smoothing)
    rates = block[_row(session, asked.series)]
    lrs = [float(rates[step - session.spec.start_step]) for step in steps]
    curve = Curve.of(lrs, smooth)
    suggestions = suggest(curve, _planned(session, asked.controller))
    return RangeTestAnswer(
        session=session.spec.name,
        series=asked.series,
        metric=asked.metric,
        ended=_ended(session),
        curve=CurveView(step=steps, lr=lrs, loss=losses, smoothed=smooth),
        suggestions={
            name: SuggestionView(
                lr=each.lr,
                step=None if each.index is None else steps[each.index],
                reason=each.reason,
            )
            for name, each in suggestions.items()
        },
        proposal=ProposalView.model_validate(propose(curve, suggestions), from_attributes=True),
    )


def _measured(session: Session, metric: str, readings: Sequence[Reading]) -> list[Measurement]:
    """Return the measurements of a metric, as controllers see them before any smoothing.

    For a metric that no controller watches, every step counts that any rank has reported.
    """
    name = session.spec.metric(metric).of or metric
    spec = session.spec.measured.get(name)
    if spec is None:
        ranks = {"ranks": session.spec.ranks, "quorum": 1}
        spec = session.spec.metric(name).model_copy(update=ranks)
    closed = close(Pending(readings), {name: spec}, until=session.horizon - 1)
    return [each for each in closed if isinstance(each, Measurement)]


def _planned(session: Session, controller: RangeTest | None) -> int | None:
    """Return how many steps the sweep should have; None if nothing says so."""
    for law in session.spec.laws():
        if isinstance(law.schedule, Sweep):
            return whole(law.schedule.steps)
    return whole(controller.steps) if controller and controller.steps is not None else None


def _ended(session: Session) -> str | None:
    """Return why a session ended; None while it goes on, or if there is no reason."""
    if session.status == "active" or not session.control.notices:
        return None
    return session.control.notices[-1].message


def _rates(session: Session) -> list[Series]:
    return [each for each in session.spec.series() if each.channel == "lr"]


def _row(session: Session, series: str) -> int:
    return list(session.timelines).index(series)


def _sealed(store: Store, entry: Entry, check: Check) -> Block:
    """Return every sealed value; shape (series, steps)."""
    session = entry.stored.session
    first, count = session.spec.start_step, session.horizon - session.spec.start_step
    if count == 0:
        return np.empty((len(session.timelines), 0))
    return block_of(store, entry, first, count, check)
