"""How events move a session: a total fold, without a refusal and without a side effect."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

from pacesetter_service.core.events import (
    Acted,
    Archived,
    Event,
    LevelsCut,
    MeasurementsClosed,
    Observed,
    Reported,
    Sealed,
)
from pacesetter_service.core.session import Session


def evolve(session: Session, event: Event) -> Session:  # noqa: PLR0911 - one return an event
    """Give the session after one event."""
    match event:
        case Reported(watched=()):
            return session  # the very same, so that nothing of it is written again
        case Reported(watched=readings):
            return replace(
                session, pending={**session.pending, **{each.key: each for each in readings}}
            )
        case Observed(controller=index, state=state):
            states = list(session.controllers)
            states[index] = state
            return replace(session, controllers=tuple(states))
        case LevelsCut():
            return _with_levels(session, event)
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
        case Sealed(start=start, count=count):
            return replace(session, horizon=start + count)
        case Archived():
            return replace(session, status="archived")


def evolve_all(session: Session, events: Iterable[Event]) -> Session:
    """Give the session after all events, in their order."""
    return reduce(evolve, events, session)


def _with_levels(session: Session, event: LevelsCut) -> Session:
    timelines = dict(session.timelines)
    for name, (_, level) in event.levels.items():
        timelines[name] = timelines[name].go_on(event.at, event.reason, level=level)
    return replace(session, timelines=timelines, revision=session.revision + 1)


def _with_action(session: Session, event: Acted) -> Session:
    timelines = dict(session.timelines)
    for series in session.spec.series():
        if series.channel == "lr":
            timelines[series.name] = event.action.apply(timelines[series.name], event.at)
    return replace(session, timelines=timelines, revision=session.revision + 1)
