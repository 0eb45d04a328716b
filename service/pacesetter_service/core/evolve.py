"""How events move a session: a total fold, without a refusal and without a side effect."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

from pacesetter_service.core.actions import Order, Plan
from pacesetter_service.core.actions.limit import Limit
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    BatchResized,
    BoundaryPassed,
    Cancelled,
    Decided,
    Event,
    Forked,
    Measured,
    MeasurementsClosed,
    Missed,
    Observed,
    Ordered,
    RateDeviated,
    Reported,
    Sealed,
)
from pacesetter_service.core.notices import KEPT, Notice
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import Limits, Series, SessionSpec
from pacesetter_service.core.timeline import Rewarm, Segment


def evolve(session: Session, event: Event) -> Session:  # noqa: PLR0911, PLR0912 - one return an event
    """Give the session after one event."""
    match event:
        case Reported(watched=()) | Missed():
            return session  # the very same, so that nothing of it is written again
        case Reported(watched=readings):
            return replace(session, pending=session.pending.added(readings))
        case Measured():
            return _with_measurement(session, event)
        case Observed(controller=index, state=state):
            states = list(session.controllers)
            states[index] = state
            return replace(session, controllers=tuple(states))
        case Decided():
            return _with_decision(session, event)
        case Ordered():
            return _with_order(session, event)
        case Acted():
            return _with_action(session, event.order)
        case BatchResized(after=size):
            return replace(session, batch_size=size)
        case Cancelled(order=number):
            waiting = tuple(order for order in session.orders if order.id != number)
            keys = {key: said for key, said in session.keys.items() if said[0] != number}
            return replace(session, orders=waiting, keys=keys, revision=session.revision + 1)
        case MeasurementsClosed(steps=steps):
            consumed = {**session.consumed, **steps}
            return replace(session, consumed=consumed, pending=session.pending.beyond(consumed))
        case BoundaryPassed(at=at):
            return replace(session, passed=at)
        case Sealed(start=start, count=count):
            return replace(session, horizon=start + count)
        case RateDeviated():
            return _with_deviation(session, event)
        case AttemptOpened() | Forked():
            return session  # their state was restored from the log
        case Archived():
            return replace(session, status="archived")


def evolve_all(session: Session, events: Iterable[Event]) -> Session:
    """Give the session after all events, in their order."""
    return reduce(evolve, events, session)


def _with_measurement(session: Session, event: Measured) -> Session:
    """Let the smoothers of a metric and of its views take its value."""
    smoothers = dict(session.smoothers)
    for view in session.spec.views(event.metric):
        smoother = session.spec.metric(view).smoothing
        if smoother is not None:
            state = smoothers.get(view, SmootherState())
            smoothers[view] = smoother.smooth(state, event.value).state
    return replace(session, smoothers=smoothers) if smoothers else session


def _with_decision(session: Session, event: Decided) -> Session:
    timelines = dict(session.timelines)
    for series in session.spec.series():
        line = timelines[series.name]
        changes = _changes(line.segments[-1], event, series.name, series.channel)
        if changes:
            line = line.go_on(event.at, event.reason, **changes)
            timelines[series.name] = line.since(session.horizon)
    notices = session.notices
    if event.advice is not None:
        notices = (*notices, Notice(event.at, event.advice, event.reason))[-KEPT:]
    return replace(
        session,
        timelines=timelines,
        notices=notices,
        revision=session.revision + 1,
        status="finished" if event.finish else session.status,
    )


def _changes(segment: Segment, event: Decided, series: str, channel: str) -> dict[str, Any]:
    """Give the fields of a series' segment that a decision changes."""
    changes: dict[str, Any] = {}
    if event.transition is not None:
        changes |= _taken_over(segment, event.transition, channel, event.at)
    if series in event.levels:
        changes["level"] = event.levels[series][1]
    if event.pace is not None:
        changes["pace"] = event.pace
    if event.rewarm is not None and channel == "lr":
        changes["rewarm"] = Rewarm(event.at, *event.rewarm)
    return changes


def _taken_over(segment: Segment, transition: Transition, channel: str, at: int) -> dict[str, Any]:
    base, level = segment.base, segment.level
    if transition.value == "base":
        level = base
    elif transition.value == "continue":
        # Of a law that took over at this very step nothing was seen yet: it goes on from its start.
        last = max(at - 1, segment.start)
        base = level = float(replace(segment, scale=1.0).values(last, 1)[0])
    law = transition.schedule.channels()[channel]
    # What is held stays held: the new law's clock stands still at its own start.
    frozen = None if segment.frozen is None else at
    taken = {"schedule": law, "clock": 0.0, "base": base, "level": level, "rewarm": None}
    return {**taken, "frozen": frozen}


def _with_deviation(session: Session, event: RateDeviated) -> Session:
    message = (
        f"rank {event.rank} trained step {event.step} with {event.series} = {event.applied!r},"
        f" but {event.sealed!r} was sealed: something else writes into its optimizer"
    )
    notice = Notice(session.horizon, "rate_deviated", message)
    deviations = [each for each in session.notices if each.code == notice.code]
    # A thousand ranks that deviate at once must not push out what else there is to know.
    too_many = deviations[: -DEVIATIONS_KEPT + 1]
    others = tuple(each for each in session.notices if each not in too_many)
    return replace(session, notices=(*others, notice)[-KEPT:])


DEVIATIONS_KEPT = 4
"""How many of the newest notices may be about ranks that train with other values."""

KEYS_KEPT = 256
"""How many of the newest orders' keys a session remembers."""


def _with_order(session: Session, event: Ordered) -> Session:
    order = event.order
    keys = dict(session.keys)
    if order.key and order.batch_before is None:  # that one nobody repeats
        keys[order.key] = (order.id, order.at, order.action.cause())
    notices = (*session.notices, event.notice)[-KEPT:] if event.notice else session.notices
    return replace(
        session,
        orders=tuple(sorted((*session.orders, order), key=lambda each: (each.at, each.id))),
        ordered=order.id,
        keys=dict(list(keys.items())[-KEYS_KEPT:]),
        notices=notices,
        revision=session.revision + 1,
    )


def _with_action(session: Session, order: Order) -> Session:
    action = order.action
    timelines = dict(session.timelines)
    for series in session.spec.series():
        if action.concerns(series.group, series.channel):
            line = action.apply(timelines[series.name], order.at, plan_of(session.spec, series))
            timelines[series.name] = line.since(session.horizon)
    limits = session.limits
    if isinstance(action, Limit):
        limits = Limits(min_lr=action.min_lr, max_lr=action.max_lr, max_change=action.max_change)
    waiting = tuple(each for each in session.orders if each.id != order.id)
    return replace(session, timelines=timelines, orders=waiting, limits=limits)


def plan_of(spec: SessionSpec, series: Series) -> Plan:
    """Give what a spec planned for a series."""
    return Plan(series.channel, series.schedule, series.base, spec.start_step, spec.total_steps)
