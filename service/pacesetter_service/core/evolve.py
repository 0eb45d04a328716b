"""How events change a session: a total fold, without refusals and without side effects."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

from pacesetter_service.core.actions import Order, Plan
from pacesetter_service.core.actions.limit import Limit
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.ending import Ending
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    Awaited,
    BatchResized,
    BoundaryPassed,
    Cancelled,
    Decided,
    Event,
    Finished,
    Forked,
    Held,
    Measured,
    MeasurementsClosed,
    Missed,
    Noticed,
    Observed,
    Ordered,
    RateAgreed,
    RateDeviated,
    Relabelled,
    Reopened,
    Reported,
    Sealed,
    TakenBack,
)
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.spec import Series, SessionSpec
from pacesetter_service.core.timeline import Rewarm, Segment, Timelines
from pacesetter_service.core.watching import Watch


def evolve(session: Session, event: Event) -> Session:  # noqa: PLR0911, PLR0912 - one return an event
    """Return the session after one event."""
    match event:
        case Missed():
            return session  # the same object, so that nothing is written again
        case Reported():
            return _with_report(session, event)
        case Measured():
            return _with_measurement(session, event)
        case Observed(controller=index, state=state):
            states = list(session.control.states)
            states[index] = state
            return replace(session, control=replace(session.control, states=tuple(states)))
        case Decided():
            return _with_decision(session, event)
        case Ordered():
            return _with_order(session, event)
        case Acted():
            return _with_action(session, event.order)
        case BatchResized(after=size):
            return replace(session, control=replace(session.control, batch_size=size))
        case Cancelled(order=number):
            book, revision = session.orders.cancelled(number), session.revision + 1
            return replace(session, orders=book, revision=revision)
        case MeasurementsClosed():
            return _with_closing(session, event)
        case Awaited(wait=wait):
            return replace(session, control=replace(session.control, wait=wait))
        case BoundaryPassed(at=at):
            return replace(session, control=replace(session.control, passed=at))
        case Sealed(start=start, count=count):
            return replace(session, horizon=start + count)
        case Held(until=until):
            return replace(session, held=until)
        case RateDeviated():
            return _with_deviation(session, event)
        case RateAgreed(rank, series):
            return _watching(session, session.control.watch.agreed(rank, series))
        case Noticed(at, code, about, message):
            watched = _watching(session, session.control.watch.has_told(code, about, at))
            return _told(watched, Notice(at, code, message))
        case AttemptOpened() | TakenBack() | Forked():
            return session  # their state was restored from the log
        case Finished(at=at, outcome=outcome, reason=reason):
            control = replace(session.control, ended=Ending(outcome, at, reason))
            return replace(session, control=control, status="finished")
        case Reopened():
            control = replace(session.control, ended=None)
            return replace(session, control=control, status="active")
        case Relabelled(given, taken):
            labels = {**session.spec.labels, **given}
            left = {name: value for name, value in labels.items() if name not in taken}
            return replace(session, spec=session.spec.model_copy(update={"labels": left}))
        case Archived():
            return replace(session, status="archived")


def evolve_all(session: Session, events: Iterable[Event]) -> Session:
    """Return the session after all events, in their order."""
    return reduce(evolve, events, session)


def _with_report(session: Session, event: Reported) -> Session:
    """Keep watched readings pending and note new names; the same object if nothing is new."""
    watched, watch, reported = session.watched, session.control.watch, session.reported
    if watched:
        watch = watch.heard({each.metric for each in event.readings} - watched)
    if any(reading.metric not in reported for reading in event.readings):
        reported = reported.union(reading.metric for reading in event.readings)
    if not event.watched and watch is session.control.watch and reported is session.reported:
        return session
    pending = session.pending.added(event.watched) if event.watched else session.pending
    return replace(_watching(session, watch), pending=pending, reported=reported)


def _watching(session: Session, watch: Watch) -> Session:
    return replace(session, control=replace(session.control, watch=watch))


def _told(session: Session, *notices: Notice) -> Session:
    return replace(session, control=session.control.told(*notices)) if notices else session


def _with_closing(session: Session, event: MeasurementsClosed) -> Session:
    """Drop the readings that were consumed, and note which ranks were missing."""
    control = session.control
    consumed = {**control.consumed, **event.steps}
    watch = control.watch.without(event.steps, event.missing)
    return replace(
        session,
        control=replace(control, consumed=consumed, watch=watch),
        pending=session.pending.later_than(consumed),
    )


def _with_measurement(session: Session, event: Measured) -> Session:
    """Feed a measurement to the smoothers of its metric and of the metric's views."""
    smoothers = dict(session.control.smoothers)
    for view in session.spec.views(event.metric):
        smoother = session.spec.metric(view).smoothing
        if smoother is not None:
            state = smoothers.get(view, SmootherState())
            smoothers[view] = smoother.smooth(state, event.value).state
    watch = session.control.watch.measured(event.metric, event.step, session.attempt.start)
    return replace(session, control=replace(session.control, smoothers=smoothers, watch=watch))


def _with_decision(session: Session, event: Decided) -> Session:
    timelines = Timelines(session.timelines)
    for series in session.spec.series():
        line = timelines[series.name]
        changes = _changes(line.segments[-1], event, series.name, series.channel)
        if changes:
            line = line.go_on(event.at, event.reason, **changes)
            timelines[series.name] = line.since(session.horizon)
    if event.advice is not None:
        advice = Notice(event.at, event.advice, event.reason, event.good_step)
        session = _told(session, advice)
    return replace(
        session,
        timelines=timelines,
        revision=session.revision + 1,
        status="finished" if event.finish else session.status,
    )


def _changes(segment: Segment, event: Decided, series: str, channel: str) -> dict[str, Any]:
    """Return the fields of a series' segment that a decision changes."""
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
        # A law that took over at this very step has no step yet: its first value is taken.
        last = max(at - 1, segment.start)
        base = level = float(replace(segment, scale=1.0).values(last, 1)[0])
    law = transition.schedule.channels()[channel]
    # A held series stays held: the new law's clock stands still at its own start.
    frozen = None if segment.frozen is None else at
    taken = {"schedule": law, "clock": 0.0, "base": base, "level": level, "rewarm": None}
    return {**taken, "frozen": frozen}


def _with_deviation(session: Session, event: RateDeviated) -> Session:
    notice = Notice(session.horizon, event.kind, event.text(session.spec))
    deviations = [each for each in session.control.notices if each.code == notice.code]
    # A thousand ranks that deviate together must not push out all other notices.
    too_many = deviations[: -DEVIATIONS_KEPT + 1]
    others = tuple(each for each in session.control.notices if each not in too_many)
    watch = session.control.watch.deviated(event.rank, event.series)
    control = replace(session.control, notices=others, watch=watch)
    return replace(session, control=control.told(notice))


DEVIATIONS_KEPT = 4
"""How many of the newest notices may be about ranks that train with other values."""


def _with_order(session: Session, event: Ordered) -> Session:
    book, revision = session.orders.with_order(event.order), session.revision + 1
    if event.bounded:
        book = book.with_change(event.order)
    session = _told(session, event.notice) if event.notice else session
    return replace(session, orders=book, revision=revision)


def _with_action(session: Session, order: Order) -> Session:
    action = order.action
    timelines = Timelines(session.timelines)
    for series in session.spec.series():
        if action.concerns(series.group, series.channel):
            line = action.apply(timelines[series.name], order.at, plan_of(session.spec, series))
            timelines[series.name] = line.since(session.horizon)
    limits = session.control.limits
    if isinstance(action, Limit):
        limits = Limits(min_lr=action.min_lr, max_lr=action.max_lr, max_change=action.max_change)
    control = replace(session.control, limits=limits)
    book = session.orders.carried_out(order.id)
    return replace(session, timelines=timelines, orders=book, control=control)


def plan_of(spec: SessionSpec, series: Series) -> Plan:
    """Return what a spec planned for a series."""
    return Plan(
        series.channel,
        series.schedule,
        series.base,
        spec.start_step,
        spec.total_steps,
        series.end,
        spec.after_end == "hold",
    )
