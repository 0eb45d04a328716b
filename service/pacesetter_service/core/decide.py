"""What a command leads to: events, or a refusal. This module only decides; nothing happens yet.

`orders.py` judges the orders of operators, and `react.py` collects the decisions of controllers.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pacesetter_service.core.applied import precision
from pacesetter_service.core.batch import resized
from pacesetter_service.core.commands import (
    Act,
    Archive,
    Await,
    Cancel,
    Command,
    Finish,
    Hold,
    Pass,
    Reading,
    RecordDeparture,
    RecordDeviation,
    Relabel,
    Report,
    Resize,
    Seal,
)
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.ending import Ending
from pacesetter_service.core.errors import (
    ActionRefusedError,
    BeyondBoundsError,
    OrderNotFoundError,
    ScheduleNotFiniteError,
    StepOutOfRangeError,
    TooManyMetricsError,
    TooManyReportsError,
    handed_out,
)
from pacesetter_service.core.events import (
    Archived,
    Awaited,
    Cancelled,
    Finished,
    Held,
    Measured,
    Missed,
    Noticed,
    RateAgreed,
    RateDeviated,
    Relabelled,
    Reopened,
    Reported,
    Sealed,
)
from pacesetter_service.core.measuring import STEPS_WAITING
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.orders import carried_out, order
from pacesetter_service.core.reach import reachable, takes_hold
from pacesetter_service.core.react import awaited, boundary_after, passed, react
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import MAX_LABELS
from pacesetter_service.core.status import refuse_unless_taken, seals
from pacesetter_service.core.wait import Wait
from pacesetter_service.core.watching import LEFT_FAMILY, noticed, plan_end

MAX_PENDING = 100_000
"""The most readings of watched metrics that may wait for a sealing; more for very many ranks."""


MAX_METRICS = 1024
"""The most metric names that one session may have, besides those that its controllers watch."""

PER_DECISION = 20_000.0
"""The cost of a controller or an order that changes one series."""

PER_ORDER = 10
"""About how many times an order evaluates the value of a step before it is accepted."""

CONSUMED_SERIES = 8_192
"""How many series one sealing may change, summed over the measurements that it consumes."""

FEW_CONSUMED = 16
"""How many measurements a sealing may consume, however many series there are."""


def decide(session: Session, command: Command) -> Draft:  # noqa: PLR0911, PLR0912 - one a command
    """Return what a command leads to.

    Raises:
        SessionArchivedError: The session takes no more commands.
        SessionFinishedError: A controller, a trainer or an operator has ended the session; no
            further step is sealed.
        StaleAttemptError: The command speaks for another attempt.
        StepOutOfRangeError: A step cannot be sealed, reported on or have been trained.
        ScheduleNotFiniteError: The law leaves the range of learning rates.
        TooManyReportsError: Too many readings wait for a sealing.
        TooManyMetricsError: The session would have too many names of metrics.
        TooCostlyError: The order would make the session too costly to evaluate.
        ActionRefusedError: The order makes no sense, or oversteps the limits.
        NotAllowedError: The bounds of who orders do not allow such an action.
        BeyondBoundsError: They do not allow that large a change, or another one.
        RevisionChangedError: The order is meant for another revision.
        OrderNotFoundError: No order of that number waits.
        BatchRefusedError: The session does not allow that batch size.
    """
    if not isinstance(command, Seal | Act):  # these two check it themselves, as some change nothing
        refuse_unless_taken(session, command)
    match command:
        case Report():
            return _report(session, command)
        case Seal():
            return _seal(session, command)
        case Hold(until):
            return _held(Draft(session), until)
        case Await(now):
            return _await(session, now)
        case Pass(boundary):
            return passed(session) if boundary == session.horizon else Draft(session)
        case Act():
            return order(session, command)
        case Resize(batch_size):
            return resized(session, batch_size)
        case Cancel():
            return _cancel(session, command)
        case RecordDeviation():
            return _record_deviation(session, command)
        case RecordDeparture():
            return _record_departure(session, command)
        case Finish():
            return _finish(session, command)
        case Relabel():
            return _relabelled(session, command)
        case Archive():
            return _archived(session, command)


def is_sealed(session: Session, command: Seal, end: int) -> bool:
    """Return whether the whole window that can be sealed is sealed, so that asking changes nothing.

    It is a change if a trainer takes hold of the window. That change must be on disk before the
    trainer gets the window.

    Args:
        session: The session.
        command: The request for the window.
        end: Where the window ends, by `seal_end`.
    """
    return end <= session.horizon and not (end > session.held and takes_hold(session, command))


def seal_end(session: Session, command: Seal) -> int:
    """Return the step below which a command wants everything sealed.

    Raises:
        StepOutOfRangeError: The window lies before the first step or too far ahead.
    """
    first, start = session.spec.start_step, command.start
    if start < first:
        raise StepOutOfRangeError(
            f"Step {start} lies before this session's first step, {first}. "
            f"Ask for step {first} or a later one."
        ).about("start")
    if start > session.horizon + session.max_window or start + command.count > MAX_STEP:
        raise StepOutOfRangeError(
            f"Step {start} is too far ahead: the first step that is not sealed is "
            f"{session.horizon}, and one call can skip at most {session.max_window}. Ask for an "
            "earlier step, or create a session whose `start_step` is where the training starts."
        ).about("start")
    count = min(command.count, session.max_window)
    lookahead = session.spec.lookahead
    end = start + (count if lookahead is None else min(count, lookahead))
    if end > session.horizon:
        end = min(end, reachable(session, command), _told_of_the_end(session, start, end))
    boundary = boundary_after(session)
    return end if boundary is None or end <= session.horizon else min(end, boundary)


def cost_of(session: Session, commands: Sequence[Command]) -> float:
    """Return about what deciding some commands costs; costly ones wait in a queue of their own."""
    cost, series = session.timelines.cost, len(session.timelines)
    total = 0.0
    for command in commands:
        match command:
            case Seal(start, count):
                ahead = min(start + count - session.horizon, 2 * session.max_window)
                waiting = len(session.pending) // session.spec.ranks
                decisions = min(waiting, consumed_at_once(session)) + len(session.orders.waiting)
                total += cost.of(ahead) + decisions * series * PER_DECISION if ahead > 0 else 0.0
            case Act():
                total += cost.of(1) * PER_ORDER
            case Resize() | Pass():
                total += cost.of(1)
    return total


def consumed_at_once(session: Session) -> int:
    """Return how many measurements one sealing may consume: each can change every series."""
    return max(CONSUMED_SERIES // len(session.timelines), FEW_CONSUMED)


def _told_of_the_end(session: Session, start: int, end: int) -> int:
    """Return the end of a window; one that goes beyond the plan is cut just past the plan's end.

    So only the trainers that ask for more are told that the plan is over.
    """
    over = plan_end(session)
    return end if over is None or start > over or session.horizon > over else min(end, over + 1)


def waits_for(session: Session, command: Seal) -> tuple[str, ...]:
    """Name the metrics whose measurements a request for a window must wait for."""
    if not seals(session) or command.start < session.horizon:
        return ()
    return awaited(session)


def refuse_untrained(session: Session, step: int) -> None:
    """Refuse a step whose values no rank can have applied.

    Raises:
        StepOutOfRangeError: It was not handed out.
    """
    first = session.spec.start_step
    if not first <= step < session.horizon:
        raise StepOutOfRangeError(
            f"No rank can have applied the values of step {step}: "
            f"{handed_out(first, session.horizon)}. Send in `applied` the step whose values the "
            "optimizer used, with these values."
        ).about("applied", "step")


def count_usable(start: int, values: Mapping[str, Values], at_least: int | None = None) -> int:
    """Return how many of the values precede the first one that no trainer can use.

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
        good = np.isfinite(row)
        if name == "lr" or name.endswith(".lr"):
            good &= row >= 0
        if not good.all():
            at = int(np.argmin(good))
            if at < needed:
                raise ScheduleNotFiniteError(name, start + at, float(row[at]))
            usable = min(usable, at)
    return usable


def deviations(session: Session, command: RecordDeviation) -> tuple[RateAgreed | RateDeviated, ...]:
    """Return what applied values add to the recorded deviations of their rank.

    At most `KEPT` series of a rank are recorded as deviating, each once until it agrees again: more
    of them would say nothing new.
    """
    rank, recorded = command.rank, session.control.watch.deviating.get(command.rank, ())
    values = command.values
    differing = [series for series, both in values.items() if precision(*both) == "differs"]
    agreed = tuple(each for each in recorded if each in values and each not in differing)
    new = [series for series in differing if series not in recorded]
    return (
        *([RateAgreed(rank, agreed)] if agreed else []),
        *(
            RateDeviated(rank, command.step, series, *values[series])
            for series in new[: session.control.watch.room_for(rank) + len(agreed)]
        ),
    )


def _report(session: Session, command: Report) -> Draft:
    for reading in command.readings:
        _refuse_unless_plausible(session, reading)
    fresh = {reading.metric for reading in command.readings} - session.reported
    if fresh:
        _refuse_too_many_names(session, fresh)
    metrics = session.watched
    watched = {
        reading.key: reading
        for reading in reversed(command.readings)  # of two readings with one key the first is kept
        if reading.metric in metrics
        and reading.step > session.control.consumed.get(reading.metric, -1)
        and reading.key not in session.pending
    }
    waiting, limit = len(session.pending) + len(watched), _max_pending(session)
    if waiting > limit:
        raise TooManyReportsError(waiting, limit)
    draft = Draft(session)
    if not command.readings:
        return draft
    draft.record(Reported(command.readings, tuple(watched.values())))
    if session.held == session.horizon:  # true as long as only trainers ask
        return draft
    return _held(draft, max(reading.step for reading in command.readings) + 1)


def _held(draft: Draft, until: int) -> Draft:
    """Record that a trainer has the values of the steps below `until`."""
    return draft.record(Held(until)) if until > draft.after.held else draft


def _refuse_too_many_names(session: Session, fresh: set[str]) -> None:
    """Refuse more names than a session may have; those that a controller waits for do not count."""
    others = fresh - session.watched
    if others and len((session.reported | others) - session.watched) > MAX_METRICS:
        raise TooManyMetricsError(sorted(others), MAX_METRICS)


def _max_pending(session: Session) -> int:
    """Return how many readings may wait: twice as many as a sealing can leave waiting."""
    each_rank = 2 * STEPS_WAITING * len(session.spec.measured)
    return max(MAX_PENDING, each_rank * session.spec.ranks)


def _refuse_unless_plausible(session: Session, reading: Reading) -> None:
    first = session.spec.start_step
    if not first <= reading.step < session.horizon:
        raise StepOutOfRangeError(
            f"Nothing can have been measured at step {reading.step}: "
            f"{handed_out(first, session.horizon)}. Report the step whose value the optimizer used."
        ).about("reports")
    if reading.rank >= session.spec.ranks:
        raise StepOutOfRangeError(
            f"Rank {reading.rank} reported, but this session expects {_ranks(session.spec.ranks)}."
            " Create the session with `ranks` set to the world size, or let rank 0 alone report."
        ).about("rank")


def _ranks(count: int) -> str:
    return "rank 0 alone" if count == 1 else f"ranks 0 to {count - 1}"


def _seal(session: Session, command: Seal) -> Draft:
    end, draft = seal_end(session, command), Draft(session)
    if end > session.horizon and _goes_on(session, command):
        session = draft.record(Reopened(session.horizon)).after
    if end > session.horizon and not _is_only_read(session, command):
        refuse_unless_taken(session, command)
        if not awaited(session):
            draft = draft.follow(_sealed(session, command, end))
    return _held(draft, min(end, draft.after.horizon)) if takes_hold(session, command) else draft


def _is_only_read(session: Session, command: Seal) -> bool:
    """Return whether a window that begins below the horizon ends there: sealing more is refused.

    Such a window has something to return, whatever lies above it.
    """
    stale = not session.attempt.includes(command.attempt)
    return command.start < session.horizon and (stale or not seals(session))


def _sealed(session: Session, command: Seal, end: int) -> Draft:
    """Return what sealing the steps from the horizon to `end` leads to."""
    most = consumed_at_once(session)
    reactions = react(session, most=most)
    consumed = sum(isinstance(event, Measured | Missed) for event in reactions.events)
    left = consumed >= most and react(reactions.after, most=1).events
    if not seals(reactions.after) or left:
        return reactions  # kept, whatever the answer is; the next call consumes the rest
    start = session.horizon
    applied = carried_out(reactions.after, end)
    # Decisions and orders of this call may have made the laws costlier than before.
    count = min(end - start, applied.after.timelines.affordable)
    values = {name: line.values(start, count) for name, line in applied.after.timelines.items()}
    # The requested step must be usable; the steps past a bad value need not be.
    usable = count_usable(start, values, at_least=max(command.start - start + 1, 0))
    if usable == 0:
        return Draft(session)
    if usable < end - start:  # orders past that step go on waiting
        applied = carried_out(reactions.after, start + usable)
    draft = reactions.follow(applied).record(*noticed(applied.after, start + usable))
    if takes_hold(session, command):
        _held(draft, start + usable)
    # The sealing is the last event: a snapshot may be taken after it.
    return draft.record(Sealed(start, usable, {name: row[:usable] for name, row in values.items()}))


def _await(session: Session, now: float) -> Draft:
    """Record that a trainer waits, unless another trainer's wait was recorded just before."""
    draft, waited = Draft(session), session.waited
    if not awaited(session):
        return draft
    if waited is None:
        return draft.record(Awaited(Wait(session.horizon, 0.0, now)))
    return draft if waited.is_noted(now) else draft.record(Awaited(waited.until(now)))


def _cancel(session: Session, command: Cancel) -> Draft:
    waiting = next((each for each in session.orders.waiting if each.id == command.order), None)
    if waiting is None:
        raise OrderNotFoundError(command.order)
    if command.own and waiting.actor != command.actor:
        raise BeyondBoundsError(
            f"{command.actor!r} has bounds and may cancel its own orders, and order"
            f" {command.order} was given by another. Ask an operator to cancel it."
        )
    if waiting.batch_before is not None:
        raise ActionRefusedError(
            f"Order {command.order} follows from another batch size, and would be given again. "
            "Order a `scale` that undoes it, or `set` the rate."
        )
    return Draft(session).record(Cancelled(command.order, command.actor))


def _finish(session: Session, command: Finish) -> Draft:
    """Record that the training is over; an end that a controller decided stays as it is."""
    step = session.held if command.step is None else command.step
    first = session.spec.start_step
    if not first <= step <= session.horizon:
        raise StepOutOfRangeError(
            f"No training can have ended before step {step}: {handed_out(first, session.horizon)}."
            " Name the first step that was not trained."
        ).about("step")
    draft, ended = Draft(session), Ending(command.outcome, step, command.reason)
    over = plan_end(session)
    if command.when_over and (over is None or step < over):
        return draft
    known = session.control.ended
    if session.status == "finished" and (known is None or known == ended):
        return draft
    return draft.record(Finished(step, ended.outcome, command.actor, ended.reason))


def _relabelled(session: Session, command: Relabel) -> Draft:
    labels = session.spec.labels
    given = {
        name: value
        for name, value in command.labels.items()
        if value is not None and labels.get(name) != value
    }
    taken = tuple(
        name for name, value in command.labels.items() if value is None and name in labels
    )
    if len({*labels, *given} - {*taken}) > MAX_LABELS:
        raise ActionRefusedError(
            f"A session has at most {MAX_LABELS} labels. Take others away in the same call."
        ).about("labels")
    draft = Draft(session)
    return draft.record(Relabelled(given, taken, command.actor)) if given or taken else draft


def _archived(session: Session, command: Archive) -> Draft:
    draft, stands = Draft(session), (session.attempt.number, session.horizon)
    moved = command.seen not in {None, stands}
    return draft if moved or session.status == "archived" else draft.record(Archived())


def _goes_on(session: Session, command: Seal) -> bool:
    """Return whether a trainer goes on with a training that was declared over.

    Other ranks of it, which have not come to the end yet, may still fetch ahead: they do not count.
    """
    ended, stands = session.control.ended, command.start if command.at is None else command.at
    return (
        session.status == "finished"
        and ended is not None
        and takes_hold(session, command)
        and stands >= ended.step
    )


def _record_deviation(session: Session, command: RecordDeviation) -> Draft:
    refuse_untrained(session, command.step)
    return Draft(session).record(*deviations(session, command))


def _record_departure(session: Session, command: RecordDeparture) -> Draft:
    if session.control.watch.knows(LEFT_FAMILY, command.metric, command.since):
        return Draft(session)
    told = Noticed(session.horizon, LEFT_FAMILY, command.metric, command.message)
    return Draft(session).record(told)
