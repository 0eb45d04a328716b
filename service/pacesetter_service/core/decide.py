"""What a command leads to: events, or a refusal. Nothing happens here; it is only decided.

Controllers are asked at one moment only: when new steps are about to be sealed. Until then readings
wait, so the order in which the network delivers them between two sealings can not matter.
"""

from collections.abc import Iterator, Mapping
from math import inf

import numpy as np

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Archive, Command, Reading, Report, Seal
from pacesetter_service.core.controllers import Cut
from pacesetter_service.core.errors import (
    ScheduleNotFiniteError,
    SessionArchivedError,
    StaleAttemptError,
    StepOutOfRangeError,
    TooManyReportsError,
)
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
from pacesetter_service.core.evolve import evolve, evolve_all
from pacesetter_service.core.measurements import Measurement, close
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session

MAX_PENDING = 100_000
"""The most readings of watched metrics that may wait for a sealing."""


def decide(session: Session, command: Command) -> tuple[Event, ...]:
    """Give the events that a command leads to.

    Raises:
        SessionArchivedError: The session takes no more commands.
        StaleAttemptError: The command speaks for another attempt.
        StepOutOfRangeError: A step can not be sealed or reported on.
        ScheduleNotFiniteError: The law leaves the range of learning rates.
        TooManyReportsError: Too many readings wait for a sealing.
    """
    match command:
        case Report():
            return _report(session, command)
        case Seal():
            return _seal(session, command)
        case Act(action):
            return (_act(session, action),)
        case Archive():
            return () if session.status == "archived" else (Archived(),)


def is_sealed(session: Session, command: Seal) -> bool:
    """Tell whether all that can be had of a window is sealed, so that asking changes nothing."""
    return seal_end(session, command) <= session.horizon


def seal_end(session: Session, command: Seal) -> int:
    """Give the step below which a command wants everything sealed.

    Raises:
        StepOutOfRangeError: The window lies before the first step or too far ahead.
    """
    first, start = session.spec.start_step, command.start
    if start < first:
        raise StepOutOfRangeError(
            f"Step {start} lies before this session's first step, {first}. "
            f"Ask for step {first} or a later one."
        )
    if start > session.horizon + session.max_window or start + command.count > MAX_STEP:
        raise StepOutOfRangeError(
            f"Step {start} is too far ahead: steps below {session.horizon} are sealed, and one "
            f"call can skip at most {session.max_window}. Ask for an earlier step, or create a "
            "session whose `start_step` is where the training starts."
        )
    count = min(command.count, session.max_window)
    lookahead = session.spec.lookahead
    return start + (count if lookahead is None else min(count, lookahead))


def react(session: Session) -> tuple[Event, ...]:
    """Let the controllers consume what has been measured; what they order holds at the horizon."""
    measurements = close(session.pending.values(), session.spec.ranks)
    if not measurements:
        return ()
    events: list[Event] = []
    for measurement in measurements:
        for event in _observe(session, measurement):
            session = evolve(session, event)
            events.append(event)
    consumed = {measurement.metric: measurement.step for measurement in measurements}
    return (*events, MeasurementsClosed(consumed))


def count_usable(start: int, values: Mapping[str, Values], at_least: int | None = None) -> int:
    """Give how many of the values come before the first that nobody can train with.

    Args:
        start: The step of the first value.
        values: A row for each series.
        at_least: How many must be usable; all of them if not given.

    Raises:
        ScheduleNotFiniteError: Too early some value is NaN or infinite, or a rate below zero.
    """
    usable = len(next(iter(values.values())))
    needed = usable if at_least is None else at_least
    for name, row in values.items():
        bad = ~np.isfinite(row)
        if name == "lr" or name.endswith(".lr"):
            bad |= row < 0
        if bad.any():
            at = int(np.argmax(bad))
            if at < needed:
                raise ScheduleNotFiniteError(name, start + at, float(row[at]))
            usable = min(usable, at)
    return usable


def _report(session: Session, command: Report) -> tuple[Event, ...]:
    _refuse_unless_writable(session, command.attempt)
    for reading in command.readings:
        _refuse_unless_plausible(session, reading)
    metrics = session.watched
    watched = {
        reading.key: reading
        for reading in reversed(command.readings)  # the first of two with one key is the one kept
        if reading.metric in metrics
        and reading.step > session.consumed.get(reading.metric, -1)
        and reading.key not in session.pending
    }
    if len(session.pending) + len(watched) > MAX_PENDING:
        raise TooManyReportsError(len(session.pending) + len(watched), MAX_PENDING)
    return (Reported(command.readings, tuple(watched.values())),) if command.readings else ()


def _refuse_unless_writable(session: Session, attempt: int | None) -> None:
    if session.status == "archived":
        raise SessionArchivedError(session.spec.name)
    if attempt is not None and attempt != session.attempt:
        raise StaleAttemptError(attempt, session.attempt)


def _refuse_unless_plausible(session: Session, reading: Reading) -> None:
    if not session.spec.start_step <= reading.step < session.horizon:
        raise StepOutOfRangeError(
            f"Nothing can have been measured at step {reading.step}: the steps handed out so far "
            f"are {session.spec.start_step} to {session.horizon - 1}. Report the step whose value "
            "the optimizer used."
        )
    if reading.rank >= session.spec.ranks:
        raise StepOutOfRangeError(
            f"Rank {reading.rank} reported, but this session expects ranks 0 to "
            f"{session.spec.ranks - 1}. Create the session with `ranks` set to the world size, or "
            "let rank 0 alone report."
        )


def _seal(session: Session, command: Seal) -> tuple[Event, ...]:
    end = seal_end(session, command)
    if end <= session.horizon:
        return ()
    # Of a window that begins below the horizon there is something to give, whatever lies above it.
    begins_sealed = command.start < session.horizon
    stale = command.attempt is not None and command.attempt != session.attempt
    if begins_sealed and (stale or session.status == "archived"):
        return ()
    _refuse_unless_writable(session, command.attempt)
    reactions = react(session)
    ready = evolve_all(session, reactions)
    start, count = session.horizon, end - session.horizon
    values = {name: line.values(start, count) for name, line in ready.timelines.items()}
    # The step that was asked for must be sealed; what lies behind a bad value need not.
    usable = count_usable(start, values, at_least=max(command.start - start + 1, 0))
    if usable == 0:
        return ()
    return (
        *reactions,
        Sealed(start, usable, {name: row[:usable] for name, row in values.items()}),
    )


def _act(session: Session, action: Action) -> Acted:
    """Give the event, unless there would be no way back from it."""
    _refuse_unless_writable(session, None)
    acted = Acted(action, session.horizon)
    for name, line in evolve(session, acted).timelines.items():
        segment = line.segments[-1]
        if not (0 < segment.scale < inf and segment.effective_level < inf):
            raise ScheduleNotFiniteError(name, session.horizon, segment.effective_level)
    return acted


def _observe(session: Session, measurement: Measurement) -> Iterator[Event]:
    """Show one measurement to every controller of its metric; each sees what the last one did."""
    step, metric, value = measurement
    for index, controller in enumerate(session.spec.controllers):
        if controller.metric != metric:
            continue
        observation = controller.observe(session.controllers[index], value)
        observed = Observed(index, step, value, observation.state)
        session = evolve(session, observed)
        yield observed
        cut = observation.verdict and _cut(session, observed, observation.verdict)
        if cut:
            session = evolve(session, cut)
            yield cut


def _cut(session: Session, observed: Observed, cut: Cut) -> LevelsCut | None:
    levels = {}
    for series in session.spec.series():
        if series.channel == "lr":
            segment = session.timelines[series.name].segments[-1]
            old = segment.effective_level
            new = cut.level(series.group, old)
            if new != old:
                levels[series.name] = (segment.level, new / segment.scale)
    if not levels:
        return None
    return LevelsCut(
        controller=observed.controller,
        step=observed.step,
        value=observed.value,
        at=session.horizon,
        levels=levels,
        reason=cut.reason,
    )
