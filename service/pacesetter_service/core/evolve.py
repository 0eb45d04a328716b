"""How events move a session: a total fold, without a refusal and without a side effect."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.events import (
    Acted,
    Archived,
    BoundaryPassed,
    Decided,
    Event,
    Measured,
    MeasurementsClosed,
    Missed,
    Observed,
    Reported,
    Sealed,
)
from pacesetter_service.core.notices import KEPT, Notice
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.timeline import Rewarm, Segment, Timeline


def evolve(session: Session, event: Event) -> Session:  # noqa: PLR0911 - one return an event
    """Give the session after one event."""
    match event:
        case Reported(watched=()) | Missed():
            return session  # the very same, so that nothing of it is written again
        case Reported(watched=readings):
            return replace(
                session, pending={**session.pending, **{each.key: each for each in readings}}
            )
        case Measured():
            return _with_measurement(session, event)
        case Observed(controller=index, state=state):
            states = list(session.controllers)
            states[index] = state
            return replace(session, controllers=tuple(states))
        case Decided():
            return _with_decision(session, event)
        case Acted():
            return _with_action(session, event)
        case MeasurementsClosed(steps=steps):
            consumed = {**session.consumed, **steps}
            pending = {
                key: reading
                for key, reading in session.pending.items()
                if reading.step > consumed.get(reading.metric, -1)
            }
            return replace(session, consumed=consumed, pending=pending)
        case BoundaryPassed(at=at):
            return replace(session, passed=at)
        case Sealed(start=start, count=count):
            return replace(session, horizon=start + count)
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
    elif transition.value == "continue" and at > 0:
        base = level = segment.law_at(at - 1)
    law = transition.schedule.channels()[channel]
    return {"schedule": law, "clock": 0.0, "base": base, "level": level, "rewarm": None}


def _with_action(session: Session, event: Acted) -> Session:
    timelines = dict(session.timelines)
    for series in session.spec.series():
        if series.channel == "lr":
            line: Timeline = event.action.apply(timelines[series.name], event.at)
            timelines[series.name] = line.since(session.horizon)
    return replace(session, timelines=timelines, revision=session.revision + 1)
