"""What controllers decide about measurements: each verdict becomes a `Decided`.

Controllers are asked at one moment only, when new steps are about to be sealed. Until then readings
wait, so the order in which the network delivers them between two sealings cannot matter.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from pacesetter_service.core.controllers import Controller, ControllerState, Sample, Verdict
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.events import (
    BoundaryPassed,
    Decided,
    Event,
    Measured,
    MeasurementsClosed,
    Missed,
    Observed,
)
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.measuring import Measurement, Miss, close, is_complete_at
from pacesetter_service.core.session import Session
from pacesetter_service.core.smoothing import SmootherState
from pacesetter_service.core.watching import absentees


def react(session: Session, *, last_call: bool = False, most: int | None = None) -> Draft:
    """Let the controllers consume what has been measured; what they order holds at the horizon.

    Args:
        session: The session; nothing happens unless its controllers may decide at its horizon.
        last_call: Whether measurements that wait for ranks can wait no longer.
        most: How many measurements, the earliest, they consume now; all of them if not given.
    """
    draft = Draft(session)
    if not _may_decide(session):
        return draft
    until = session.horizon - 1 if last_call else -1
    closed = close(session.pending, session.spec.measured, until)[:most]
    for each in closed:
        draft.follow(consume(draft.after, each))
    if closed:
        steps = {each.metric: each.step for each in closed}
        draft.record(MeasurementsClosed(steps, _missing(session, closed)))
    return draft


def _missing(session: Session, closed: Sequence[Measurement | Miss]) -> dict[str, tuple[int, ...]]:
    """Name ranks without a reading of any step that closed, for metrics that all ranks report."""
    found: dict[str, tuple[int, ...]] = {}
    for metric in {each.metric for each in closed}:
        steps = [each for each in closed if each.metric == metric]
        ranks = session.spec.measured[metric].ranks or 1
        if ranks == session.spec.ranks and all(each.ranks < ranks for each in steps):
            reported = {
                rank for each in steps for rank in session.pending.at(each.step, each.metric)
            }
            found[metric] = absentees(reported, ranks)
    return {metric: ranks for metric, ranks in found.items() if ranks}


def boundary_after(session: Session) -> int | None:
    """Return the first step above the horizon at which controllers decide; no sealing crosses it.

    This holds while all of them sleep, too, because what is reported meanwhile must be consumed.
    """
    every, first = session.spec.decide_every, session.spec.start_step
    if every is None or not session.spec.rules:
        return None
    return first + ((session.horizon - first) // every + 1) * every


def awaited(session: Session) -> tuple[str, ...]:
    """Name the metrics whose measurements the step at the horizon must wait for."""
    if not _is_boundary(session) or session.control.passed >= session.horizon:
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
        if session.control.consumed.get(name, -1) < last
        and not is_complete_at(last, name, measured[name], session.pending)
    )


def _was_awake(rule: Controller, session: Session) -> bool:
    """Return whether a controller saw any step since the boundary before the one at the horizon."""
    assert session.spec.decide_every is not None  # noqa: S101 - the caller is at a boundary
    first = max(session.horizon - session.spec.decide_every, whole(rule.from_step))
    return first < session.horizon and rule.is_awake(first)


def passed(session: Session) -> Draft:
    """Stop waiting at the horizon: decide with the measurements there are, and go on."""
    missing = awaited(session)
    if not missing:
        return Draft(session)
    return react(session, last_call=True).record(BoundaryPassed(session.horizon, missing))


def _may_decide(session: Session) -> bool:
    return session.spec.decide_every is None or _is_boundary(session)


def _is_boundary(session: Session) -> bool:
    every, passed_by = session.spec.decide_every, session.horizon - session.spec.start_step
    return every is not None and passed_by > 0 and passed_by % every == 0


def consume(session: Session, closed: Measurement | Miss) -> Draft:
    """Return what follows from one closed step: it was missed, or controllers saw its value."""
    draft = Draft(session)
    if isinstance(closed, Miss):
        return draft.record(Missed(*closed, at=session.horizon))
    seen = _views(session, closed)
    draft.record(Measured(*closed, at=session.horizon))
    lines, heights = draft.after.timelines, None
    for question in _questions(draft.after, closed.step, seen):
        now = draft.after.timelines
        if heights is None or now is not lines:  # many controllers may see the same
            lines, heights = now, _heights(draft.after)
        draft.record(*_asked(draft.after, question, heights))
        if draft.after.status == "finished":
            break  # no further step is sealed, so there is nothing left to decide
    return draft


def _views(session: Session, measurement: Measurement) -> dict[str, float]:
    """Return what controllers see of a measurement: its value and its views, smoothed."""
    seen: dict[str, float] = {}
    for view in session.spec.views(measurement.metric):
        smoother, value = session.spec.metric(view).smoothing, measurement.value
        if smoother is None:
            seen[view] = value
            continue
        smoothed = smoother.smooth(
            session.control.smoothers.get(view, SmootherState()), value
        ).value
        if smoothed is not None:
            seen[view] = smoothed
    return seen


@dataclass(frozen=True, slots=True)
class _Question:
    """A measurement of a metric, for one controller."""

    index: int
    rule: Controller
    step: int
    metric: str
    value: float


def _questions(session: Session, step: int, seen: Mapping[str, float]) -> Iterator[_Question]:
    """Return a measurement as questions to its controllers, in the order of the spec."""
    if session.status == "finished":
        return
    for index, rule in enumerate(session.spec.rules):
        if not rule.is_awake(step) and not rule.is_open(session.control.states[index]):
            continue
        for metric in rule.watches:
            if metric in seen and not _is_hidden(session, rule, metric, seen[metric]):
                yield _Question(index, rule, step, metric, seen[metric])


def _is_hidden(session: Session, rule: Controller, metric: str, value: float) -> bool:
    policy = session.spec.metric(metric).nan
    return not isfinite(value) and (policy == "ignore" or (policy == "guard" and not rule.guards))


class _Heights(NamedTuple):
    """The level and the base of each group."""

    levels: Mapping[str, float]
    bases: Mapping[str, float]


def _asked(session: Session, question: _Question, heights: _Heights) -> Iterator[Event]:
    before = session.control.states[question.index]
    measured = question.metric, question.step, question.value
    seen = Sample(*measured, *heights, session.horizon, session.control.limits)
    observation = question.rule.observe(before, seen)
    if observation.state != before:
        yield Observed(question.index, observation.state)
    if observation.verdict is not None:
        decided = _decided(session, question, before, observation.state, observation.verdict)
        if decided is not None:
            yield decided


def _heights(session: Session) -> _Heights:
    segments = {
        series.group: session.timelines[series.name].segments[-1]
        for series in session.spec.series()
        if series.channel == "lr"
    }
    return _Heights(
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
    """Return the verdict within the session's limits; None if nothing is left of it."""
    levels: dict[str, tuple[float, float]] = {}
    for series in session.spec.series():
        if series.channel == "lr" and series.group in verdict.levels:
            segment = session.timelines[series.name].segments[-1]
            old = segment.effective_level
            new = session.control.limits.clip(old, verdict.levels[series.group])
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
        good_step=verdict.good_step,
        finish=verdict.finish,
    )
