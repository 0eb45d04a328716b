"""Why a value is what it is: its law, the change that holds at its step, who made it and why.

The past is in the log of events, because timelines drop segments whose steps are sealed. So the
changes come from the log, the newest first, and only the future is read from the timelines.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from pacesetter_service.core.actions import Replace, Revert
from pacesetter_service.core.actions.limit import Limit
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.events import Acted, Decided, Forked, Logged
from pacesetter_service.core.evolve import evolve
from pacesetter_service.core.orders import to_come
from pacesetter_service.core.react import awaited
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import Series, SessionSpec
from pacesetter_service.core.timeline import Segment
from pacesetter_service.core.wording import kind_of, listed, number

CHANGES = 4
"""How many changes of a series are listed: the one that holds, and those before it."""

NEARBY = 10
"""How many steps back a mishap is still relevant to a step, at least."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its place in the log.

    Attributes:
        event: What happened.
        seq: Its number in the session, from 1; None for what would be decided now.
        attempt: The attempt that it belongs to.
        created_at: When it was written, ISO 8601 in UTC; empty if it is not written yet.
        own: Whether it is in the session's own log; a fork also has events of its parent's log.
    """

    event: Logged
    seq: int | None
    attempt: int
    created_at: str
    own: bool = True


class Why(NamedTuple):
    """Why one series has its value.

    Attributes:
        value: The value.
        law: The kind of the schedule that governs the step.
        level: The base as controllers have changed it; None if only the record could tell, and the
            newest change did not concern the level.
        since: The step from which this holds.
        cause: The event that brought it about; None if nothing has changed the series.
        text: All of it in words, without the value; one line or more.
    """

    value: float
    law: str
    level: float | None
    since: int
    cause: Recorded | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the values at a step are what they are.

    Attributes:
        step: The step.
        sealed: Whether its values are final; they are forecasts if not.
        series: For each series its value and the reason.
        notes: What else is relevant to the step, a sentence each.
    """

    step: int
    sealed: bool
    series: Mapping[str, Why]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Write everything as plain text; series with the same reason share a paragraph."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self.series.items():
            by_reason.setdefault(why.text, []).append(f"{name} {self._verb} {why.value!r}")
        how = "sealed" if self.sealed else "forecast"
        paragraphs = [
            f"{listed(values)} at step {self.step} ({how}). {reason}"
            for reason, values in by_reason.items()
        ]
        return "\n".join([*paragraphs, *self.notes]) + "\n"

    @property
    def _verb(self) -> str:
        return "was" if self.sealed else "would be"


def explain(
    session: Session,
    step: int,
    values: Mapping[str, float],
    changes: Sequence[Recorded],
    nearby: Sequence[Recorded] = (),
    *,
    whole: bool = True,
) -> Explanation:
    """Explain the values at a step.

    Args:
        session: The session as it is now.
        step: The step.
        values: The value of each series there.
        changes: The decisions and actions that hold at the step or an earlier one, newest first,
            and at the end the fork that gave the session its present description.
        nearby: Steps before it that lack a measurement, and boundaries passed without one.
        whole: Whether `changes` goes back to the session's creation.
    """
    sealed = step < session.horizon
    draft = Draft(session) if sealed else to_come(session, step + 1)
    ahead = [
        Recorded(event, None, session.attempt.number, "")
        for event in reversed(draft.events)
        if isinstance(event, Decided | Acted)
    ]
    plan = create(session.spec)
    own = _of_series(plan, [*ahead, *changes])
    series = {
        each.name: _why(
            _Subject(session.spec, each, step, values[each.name], whole=whole),
            own[each.name],
            _segment(draft.after, each.name, step),
        )
        for each in session.spec.series()
    }
    return Explanation(step, sealed, series, tuple(_notes(draft.after, step, nearby)))


def enough(spec: SessionSpec, changes: Iterable[Recorded], most: int) -> Iterator[Recorded]:
    """Yield changes, newest first, until no older one would be listed, or `most` are yielded."""
    plan = create(spec)
    wanted = dict.fromkeys(plan.timelines, CHANGES)
    for recorded in islice(changes, most):
        yield recorded
        for name, _ in _touched(plan, recorded.event):
            left = wanted.pop(name, 0) - 1
            if left > 0:
                wanted[name] = left
        if not wanted:
            return


def of_this_description(changes: Iterable[Recorded]) -> Iterator[Recorded]:
    """Yield changes, newest first, up to the fork that gave the session its description."""
    for recorded in changes:
        yield recorded
        if isinstance(recorded.event, Forked) and recorded.event.differs:
            return


def near(spec: SessionSpec, step: int) -> int:
    """Return the first step whose mishaps are relevant to a step."""
    return step - max(NEARBY, spec.decide_every or 0)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The value to be explained."""

    spec: SessionSpec
    series: Series
    step: int
    value: float
    whole: bool


@dataclass(frozen=True, slots=True)
class _Change:
    """An event that changed a series, and the law that took over with it, if one did."""

    recorded: Recorded
    law: str | None


def _of_series(plan: Session, changes: Sequence[Recorded]) -> dict[str, list[_Change]]:
    """Return for each series the changes that affected it, in the given order."""
    found: dict[str, list[_Change]] = {name: [] for name in plan.timelines}
    for recorded in changes:
        for name, law in _touched(plan, recorded.event):
            found[name].append(_Change(recorded, law))
    return found


def _touched(plan: Session, event: Logged) -> Iterator[tuple[str, str | None]]:
    """Name the series that an event changed, each with its new law."""
    match event:
        case Decided(transition=transition):
            law = None if transition is None else kind_of(transition.schedule)
            everywhere = law is not None or event.pace is not None
            if not everywhere and event.rewarm is None:
                yield from ((name, None) for name in event.levels)
                return
            for series in plan.spec.series():
                if everywhere or series.channel == "lr" or series.name in event.levels:
                    yield series.name, law
        case Acted(idle=None) if not isinstance(event.action, Limit):
            for series in plan.spec.series():
                if event.action.concerns(series.group, series.channel):
                    yield series.name, _law_after(plan, event, series)
        case Forked() if event.differs:
            yield from ((each.name, _written(plan.spec, each)) for each in plan.spec.series())
        case _:
            return


def _law_after(plan: Session, event: Acted, series: Series) -> str | None:
    """Name the law that an action substituted for another one, if it did."""
    match event.action:
        case Replace(schedule=schedule):
            return kind_of(schedule)
        case Revert():
            return _written(plan.spec, series)
    # Only the other actions themselves know: apply each to a session without a past.
    after = evolve(plan, event).timelines[series.name].segments[-1].schedule
    before = plan.timelines[series.name].segments[-1].schedule
    return None if after is before else kind_of(after)


def _segment(session: Session, series: str, step: int) -> Segment | None:
    """Return the segment that governs a step, if it has not been dropped."""
    line = session.timelines[series]
    return line.segment_at(step) if line.segments[0].start <= step else None


def _why(subject: _Subject, changes: list[_Change], segment: Segment | None) -> Why:
    spec, series = subject.spec, subject.series
    laws = [change.law for change in changes if change.law is not None]
    law = laws[0] if laws else _written(spec, series)
    level = _level(series, changes, segment)
    cause = changes[0].recorded if changes else None
    if cause is None:
        since, reason = spec.start_step, _unchanged(subject, law)
    else:
        since, reason = _at(cause), _changed(subject, law, cause)
    lines = [reason, *_in_force(subject, segment), *_earlier(subject, changes)]
    return Why(subject.value, law, level, since, cause, "\n".join(lines))


def _written(spec: SessionSpec, series: Series) -> str:
    """Return the kind of the schedule that the session was created with, as it was written."""
    group = (spec.groups or {}).get(series.group)
    own = None if group is None else group.schedule
    return kind_of(spec.schedule if own is None else own)


def _level(series: Series, changes: list[_Change], segment: Segment | None) -> float | None:
    if segment is not None:
        return segment.level
    if not changes:
        return series.base
    event = changes[0].recorded.event
    if isinstance(event, Decided) and series.name in event.levels:
        return event.levels[series.name][1]
    return None


def _at(recorded: Recorded) -> int:
    assert isinstance(recorded.event, Decided | Acted | Forked)  # noqa: S101 - all that changes
    return recorded.event.at


def _unchanged(subject: _Subject, law: str) -> str:
    if not subject.whole:
        return f"{law}; none of the newest changes was one of this series, see its events."
    base = f" at base {number(subject.series.base)}" if subject.series.channel == "lr" else ""
    start = subject.spec.start_step
    return f"{law}{base}, as created at step {start}; nothing has changed it since."


def _changed(subject: _Subject, law: str, cause: Recorded) -> str:
    event = cause.event
    if cause.seq is None:
        when = f" That will be recorded when step {_at(cause)} is sealed."
    else:
        where = f"as event {cause.seq}" if cause.own else "before the fork"
        when = f" Recorded {cause.created_at} {where}."
    if isinstance(event, Decided):
        did = event.change_of(subject.series.name)
        return f"{law}, {did} since step {event.at}: {event.grounds(subject.spec)}{when}"
    return f"{law}, since step {_at(cause)} {_ordered(event)}.{when}"


def _ordered(event: Logged) -> str:
    if isinstance(event, Forked):
        return f"by {event.actor}: forked from {event.session}{event.anew()}"
    assert isinstance(event, Acted)  # noqa: S101 - a change that no controller decided was ordered
    return f"by {event.order.actor}: {event.action.cause()}"


def _in_force(subject: _Subject, segment: Segment | None) -> Iterator[str]:
    """Say what affects the series besides its law and the newest change."""
    if segment is None:
        return
    if segment.level != segment.base and subject.series.channel == "lr":
        yield f"Its level is {number(segment.level)}, its base {number(segment.base)}."
    if segment.scale != 1.0:
        yield f"Operators' orders multiply it by {number(segment.scale)}."
    if segment.frozen is not None:
        yield f"Its clock is stopped: it keeps the value of step {segment.frozen}."
    if segment.speed != 1.0:
        yield f"Its clock goes {number(segment.speed)} steps in one."
    over = segment.over
    if over is not None and subject.step >= over:
        yield f"The plan is over since step {over}: its last value is kept."
    rewarm = segment.rewarm
    if rewarm is not None and subject.step < rewarm.start + rewarm.steps:
        factor, end = float(rewarm.factors(subject.step, 1)[0]), rewarm.start + rewarm.steps
        yield f"It is rewarming: {number(factor)} of itself here, all of it at step {end}."


def _earlier(subject: _Subject, changes: list[_Change]) -> Iterator[str]:
    """Name the changes before the newest, and the operators' orders before those."""
    orders = [each for each in changes[CHANGES:] if isinstance(each.recorded.event, Acted)]
    told = []
    for change in [*changes[1:CHANGES], *orders[:CHANGES]]:
        event, at = change.recorded.event, _at(change.recorded)
        if isinstance(event, Decided):
            did = event.change_of(subject.series.name, change.law or "")
            told.append(f"step {at}, {did} by {event.who(subject.spec)}")
        else:
            told.append(f"step {at}, {_ordered(event)}")
    if told:
        yield f"Before that: {'; '.join(told)}."


def _notes(session: Session, step: int, nearby: Sequence[Recorded]) -> Iterator[str]:
    for recorded in nearby:
        yield recorded.event.text(session.spec)
    horizon = session.horizon
    if step < horizon:
        return
    if session.status == "finished":
        reason = f": {session.control.notices[-1].message}" if session.control.notices else ""
        yield f"The session is finished, no step from {horizon} on will be sealed{reason}."
    elif session.status == "archived":
        yield f"The session is archived, no step from {horizon} on will be sealed."
    else:
        yield f"Steps from {horizon} on are not sealed: metrics and actions may still change them."
    missing = awaited(session) if session.status == "active" else ()
    if missing:
        measured = f"the measurement of {listed(missing)} at step {horizon - 1}"
        yield f"Step {horizon} waits for {measured}."
