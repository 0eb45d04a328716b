"""What controllers make of what was measured.

They are asked at one moment only: when new steps are about to be sealed. Until then readings wait,
so the order in which the network delivers them between two sealings can not matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from pacesetter_service.core.controllers import Controller, ControllerState, Seen, Verdict
from pacesetter_service.core.events import (
    BoundaryPassed,
    Decided,
    Event,
    Measured,
    MeasurementsClosed,
    Missed,
    Observed,
)
from pacesetter_service.core.evolve import evolve
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.measurements import Measurement, Miss, close, is_complete_at
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState


def react(session: Session, *, last_call: bool = False) -> tuple[Event, ...]:
    """Let the controllers consume what has been measured; what they order holds at the horizon.

    Args:
        session: The session; nothing happens unless its controllers may decide at its horizon.
        last_call: Whether measurements that wait for ranks can wait no longer.
    """
    if not _may_decide(session):
        return ()
    until = session.horizon - 1 if last_call else -1
    closed = close(session.pending, session.spec.measured, until)
    if not closed:
        return ()
    events: list[Event] = []
    for each in closed:
        for event in consume(session, each):
            session = evolve(session, event)
            events.append(event)
    return (*events, MeasurementsClosed({each.metric: each.step for each in closed}))


def boundary_after(session: Session) -> int | None:
    """Give the first step above the horizon at which controllers decide; no sealing crosses it.

    It does not while they all sleep either: what is reported meanwhile must be consumed.
    """
    every, first = session.spec.decide_every, session.spec.start_step
    if every is None or not session.spec.rules:
        return None
    return first + ((session.horizon - first) // every + 1) * every


def awaited(session: Session) -> tuple[str, ...]:
    """Name the metrics without whose measurements the step at the horizon is not to be sealed."""
    if not _is_boundary(session) or session.passed >= session.horizon:
        return ()
    last = session.horizon - 1
    needed = {
        session.spec.metric(name).of or name
        for rule in session.spec.rules
        if _was_awake(rule, session)
        for name in rule.watches
    }
    measured = session.spec.measured
    return tuple(
        name
        for name in sorted(needed)
        if session.consumed.get(name, -1) < last
        and not is_complete_at(last, name, measured[name], session.pending)
    )


def _was_awake(rule: Controller, session: Session) -> bool:
    """Tell whether a controller saw any step since the boundary before the one at the horizon."""
    assert session.spec.decide_every is not None  # noqa: S101 - the caller is at a boundary
    first = max(session.horizon - session.spec.decide_every, whole(rule.from_step))
    return first < session.horizon and rule.is_awake(first)


def passed(session: Session) -> tuple[Event, ...]:
    """Give up waiting at the horizon: decide with what there is, and go on."""
    missing = awaited(session)
    if not missing:
        return ()
    return (*react(session, last_call=True), BoundaryPassed(session.horizon, missing))


def _may_decide(session: Session) -> bool:
    return session.spec.decide_every is None or _is_boundary(session)


def _is_boundary(session: Session) -> bool:
    every, passed_by = session.spec.decide_every, session.horizon - session.spec.start_step
    return every is not None and passed_by > 0 and passed_by % every == 0


def consume(session: Session, closed: Measurement | Miss) -> Iterator[Event]:
    """Give what follows from one closed step: it was missed, or controllers saw its value."""
    if isinstance(closed, Miss):
        yield Missed(*closed, at=session.horizon)
        return
    seen = _views(session, closed)
    measured = Measured(*closed)
    session = evolve(session, measured)
    yield measured
    for question in _questions(session, closed.step, seen):
        for event in _asked(session, question):
            session = evolve(session, event)
            yield event
        if session.status == "finished":
            return  # nothing is sealed any more, so there is nothing left to decide


def _views(session: Session, measurement: Measurement) -> dict[str, float]:
    """Give what controllers see of a measurement: by itself and by its views, smoothed."""
    seen: dict[str, float] = {}
    for view in session.spec.views(measurement.metric):
        smoother, value = session.spec.metric(view).smoothing, measurement.value
        if smoother is None:
            seen[view] = value
            continue
        smoothed = smoother.smooth(session.smoothers.get(view, SmootherState()), value).value
        if smoothed is not None:
            seen[view] = smoothed
    return seen


@dataclass(frozen=True, slots=True)
class _Question:
    index: int
    rule: Controller
    step: int
    metric: str
    value: float


def _questions(session: Session, step: int, seen: Mapping[str, float]) -> Iterator[_Question]:
    """Show a measurement to its controllers, in the order of the spec."""
    if session.status == "finished":
        return
    for index, rule in enumerate(session.spec.rules):
        if not rule.is_awake(step):
            continue
        for metric in rule.watches:
            if metric in seen and not _is_hidden(session, rule, metric, seen[metric]):
                yield _Question(index, rule, step, metric, seen[metric])


def _is_hidden(session: Session, rule: Controller, metric: str, value: float) -> bool:
    policy = session.spec.metric(metric).nan
    return not isfinite(value) and (policy == "ignore" or (policy == "guard" and not rule.guards))


def _asked(session: Session, question: _Question) -> Iterator[Event]:
    before = session.controllers[question.index]
    seen = Seen(question.metric, question.step, question.value, *_levels(session), session.horizon)
    observation = question.rule.observe(before, seen)
    if observation.state != before:
        yield Observed(question.index, observation.state)
    if observation.verdict is not None:
        decided = _decided(session, question, before, observation.state, observation.verdict)
        if decided is not None:
            yield decided


def _levels(session: Session) -> tuple[dict[str, float], dict[str, float]]:
    """Give the level and the base of each group."""
    segments = {
        series.group: session.timelines[series.name].segments[-1]
        for series in session.spec.series()
        if series.channel == "lr"
    }
    return (
        {group: segment.effective_level for group, segment in segments.items()},
        {group: segment.base for group, segment in segments.items()},
    )


def _decided(
    session: Session,
    question: _Question,
    before: ControllerState,
    after: ControllerState,
    verdict: Verdict,
) -> Decided | None:
    """Give the verdict within the session's limits; None if nothing is left of it."""
    levels: dict[str, tuple[float, float]] = {}
    for series in session.spec.series():
        if series.channel == "lr" and series.group in verdict.levels:
            segment = session.timelines[series.name].segments[-1]
            old = segment.effective_level
            new = session.limits.clip(old, verdict.levels[series.group])
            if new != old:
                levels[series.name] = (segment.level, new / segment.scale)
    others = (verdict.pace, verdict.rewarm, verdict.transition, verdict.advice)
    if not levels and not verdict.finish and all(other is None for other in others):
        return None
    return Decided(
        controller=question.index,
        metric=question.metric,
        step=question.step,
        value=question.value,
        at=session.horizon,
        reason=verdict.reason,
        before=before,
        after=after,
        levels=levels,
        pace=verdict.pace,
        rewarm=verdict.rewarm,
        transition=verdict.transition,
        advice=verdict.advice,
        finish=verdict.finish,
    )
