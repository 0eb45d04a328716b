"""What a command leads to: events, or a refusal. Nothing happens here; it is only decided."""

from collections.abc import Mapping

import numpy as np

from pacesetter_service.core.applied import precision
from pacesetter_service.core.batch import resized
from pacesetter_service.core.carrying import all_carried_out
from pacesetter_service.core.commands import (
    Act,
    Archive,
    Cancel,
    Command,
    Pass,
    Reading,
    RecordDeviation,
    Report,
    Resize,
    Seal,
)
from pacesetter_service.core.errors import (
    ActionRefusedError,
    OrderNotFoundError,
    ScheduleNotFiniteError,
    StepOutOfRangeError,
    TooManyReportsError,
)
from pacesetter_service.core.events import (
    Archived,
    Cancelled,
    Event,
    RateDeviated,
    Reported,
    Sealed,
)
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.measurements import STEPS_WAITING
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.orders import finished, order, refuse_unless_writable
from pacesetter_service.core.react import awaited, boundary_after, passed, react
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session

MAX_PENDING = 100_000
"""The most readings of watched metrics that may wait for a sealing; more for very many ranks."""


def decide(session: Session, command: Command) -> tuple[Event, ...]:  # noqa: PLR0911 - one a command
    """Give the events that a command leads to.

    Raises:
        SessionArchivedError: The session takes no more commands.
        SessionFinishedError: A controller has ended the session; no further step is sealed.
        StaleAttemptError: The command speaks for another attempt.
        StepOutOfRangeError: A step can not be sealed, reported on or have been trained.
        ScheduleNotFiniteError: The law leaves the range of learning rates.
        TooManyReportsError: Too many readings wait for a sealing.
        ActionRefusedError: The order makes no sense, or oversteps the limits.
        OrderNotFoundError: No order of that number waits.
        BatchRefusedError: The session does not allow that batch size.
    """
    match command:
        case Report():
            return _report(session, command)
        case Seal():
            return _seal(session, command)
        case Pass(boundary, attempt):
            refuse_unless_writable(session, attempt)
            return passed(session) if boundary == session.horizon else ()
        case Act():
            return order(session, command)
        case Resize(batch_size, attempt):
            refuse_unless_writable(session, attempt)
            return resized(session, batch_size)
        case Cancel():
            return _cancel(session, command)
        case RecordDeviation():
            return _record_deviation(session, command)
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
    end = start + (count if lookahead is None else min(count, lookahead))
    boundary = boundary_after(session)
    return end if boundary is None or end <= session.horizon else min(end, boundary)


def waits_for(session: Session, command: Seal) -> tuple[str, ...]:
    """Name the metrics whose measurements a wish must wait for."""
    if session.status != "active" or command.start < session.horizon:
        return ()
    return awaited(session)


def refuse_untrained(session: Session, step: int) -> None:
    """Refuse a step of which nobody can have applied the values.

    Raises:
        StepOutOfRangeError: It was not handed out.
    """
    if not session.spec.start_step <= step < session.horizon:
        raise StepOutOfRangeError(
            f"Nobody can have applied the values of step {step}: the steps handed out so far are "
            f"{session.spec.start_step} to {session.horizon - 1}. Send in `applied` the step whose "
            "values the optimizer used, with these values."
        )


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
    refuse_unless_writable(session, command.attempt)
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
    waiting, limit = len(session.pending) + len(watched), _max_pending(session)
    if waiting > limit:
        raise TooManyReportsError(waiting, limit)
    return (Reported(command.readings, tuple(watched.values())),) if command.readings else ()


def _max_pending(session: Session) -> int:
    """Give how many readings may wait: twice those for which a sealing leaves any waiting."""
    each_rank = 2 * STEPS_WAITING * len(session.spec.measured)
    return max(MAX_PENDING, each_rank * session.spec.ranks)


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
    if begins_sealed and (stale or session.status != "active"):
        return ()
    refuse_unless_writable(session, command.attempt)
    if session.status == "finished":
        raise finished(session)
    if awaited(session):
        return ()
    reactions = react(session)
    ready = evolve_all(session, reactions)
    if ready.status == "finished":
        return reactions  # to be kept, whatever the answer is
    start, count = session.horizon, end - session.horizon
    due = list(all_carried_out(ready, (each for each in ready.orders if each.at < end)))
    acting = evolve_all(ready, (event for _, events in due for event in events))
    values = {name: line.values(start, count) for name, line in acting.timelines.items()}
    # The step that was asked for must be sealed; what lies behind a bad value need not.
    usable = count_usable(start, values, at_least=max(command.start - start + 1, 0))
    if usable == 0:
        return ()
    return (
        *reactions,
        *(event for given, events in due if given.at < start + usable for event in events),
        Sealed(start, usable, {name: row[:usable] for name, row in values.items()}),
    )


def _cancel(session: Session, command: Cancel) -> tuple[Event, ...]:
    refuse_unless_writable(session, None)
    waiting = next((each for each in session.orders if each.id == command.order), None)
    if waiting is None:
        raise OrderNotFoundError(command.order)
    if waiting.batch_before is not None:
        raise ActionRefusedError(
            f"Order {command.order} follows from another batch size, and would be given again. "
            "Order a `scale` that undoes it, or `set` the rate."
        )
    return (Cancelled(command.order, command.actor),)


def _record_deviation(session: Session, command: RecordDeviation) -> tuple[Event, ...]:
    refuse_unless_writable(session, command.attempt)
    refuse_untrained(session, command.step)
    return tuple(
        RateDeviated(command.rank, command.step, series, applied, sealed)
        for series, (applied, sealed) in command.values.items()
        if precision(applied, sealed) == "differs"
    )
