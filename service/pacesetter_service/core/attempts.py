"""Attempts: going back to a step, exactly, by replaying what was recorded.

A job that restarts from a checkpoint opens a new attempt; a fork opens a new session. Both share
the past up to their first step by reference: nothing of it is copied. What controllers saw and
what operators ordered before the step is replayed from a snapshot on; the decisions come out as
they did, because they depend on nothing else.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from pacesetter_service.core.actions import Order
from pacesetter_service.core.batch import batch_at, rescaled
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.errors import (
    AttemptRefusedError,
    StepOutOfRangeError,
    SupersededAttemptError,
    handed_out,
)
from pacesetter_service.core.events import (
    Acted,
    BatchResized,
    Decided,
    Measured,
    MeasurementsClosed,
    Missed,
)
from pacesetter_service.core.measuring import Measurement, Pending
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.orders import apply_order, foretold
from pacesetter_service.core.react import consume
from pacesetter_service.core.session import Attempt, OrderBook, Session
from pacesetter_service.core.status import refuse_if_archived
from pacesetter_service.core.watching import Watch


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """One attempt of one session, by the session's id in the database, and its first step."""

    session_id: int
    attempt: int
    start: int


class Span(NamedTuple):
    """The steps `start` to `end`, as they were trained in one attempt."""

    ref: AttemptRef
    start: int
    end: int


Lineage = tuple[AttemptRef, ...]
"""Attempts in the order of their first steps; each ends where the next one begins."""


def spans(lineage: Lineage, start: int = 0, end: int = MAX_STEP) -> Iterator[Span]:
    """Cut the steps `start` to `end` into those of each attempt."""
    ends = [*(ref.start for ref in lineage[1:]), MAX_STEP]
    for ref, until in zip(lineage, ends, strict=True):
        first, last = max(ref.start, start), min(until, end)
        if first < last:
            yield Span(ref, first, last)


def of_session(lineage: Lineage, session_id: int) -> Lineage:
    """Return the attempts of a lineage that are of one session."""
    return tuple(ref for ref in lineage if ref.session_id == session_id)


def since_session(lineage: Lineage, session_id: int) -> Lineage:
    """Return the attempts of a lineage from the first one of a session on, forks of it included."""
    first = next(at for at, ref in enumerate(lineage) if ref.session_id == session_id)
    return lineage[first:]


def attempt_of(lineage: Lineage, step: int) -> AttemptRef:
    """Return the attempt that a step was trained in; the first one for the steps before it."""
    return next((ref for ref in reversed(lineage) if ref.start <= step), lineage[0])


def branch(lineage: Lineage, ref: AttemptRef) -> Lineage:
    """Return the lineage of an attempt that begins in the middle of others."""
    return (*(each for each in lineage if each.start < ref.start), ref)


ReplayedEvent = Measured | Missed | Acted | BatchResized
"""What decided about the steps from its `at` on, when that was the horizon."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What is known of a session up to a step.

    Attributes:
        snapshot: A state at or before the step.
        replayed: What happened from there on to the step itself, in order.
        readings: Readings of earlier steps, of which some may not have been consumed.
        later: Orders that were carried out at or after the step.
        repeated: What was measured and decided at the step, if the attempt in which it was begins
            there too. An attempt that takes its place has that in its state, and is to record it:
            the other one is no part of the path any more.
    """

    snapshot: Session
    replayed: Sequence[ReplayedEvent]
    readings: Sequence[Reading]
    later: Sequence[Order]
    repeated: Sequence[Measured | Missed | Decided] = ()


def restore(past: RestorePoint, step: int) -> Session:
    """Return the state in which a session was when the step was about to be sealed.

    Readings of earlier steps that came too late for that are not lost: they wait, and are consumed
    with the first sealing.
    """
    session = past.snapshot
    for at, events in groupby(past.replayed, key=lambda event: event.at):
        session = replace(session, horizon=at)
        for event in events:
            session = _consequences(session, event).after
    known = (*past.snapshot.pending.readings(), *past.readings)
    given = max((session.orders.given, *_numbers(past)))
    return replace(
        session,
        horizon=step,
        held=step,
        pending=unconsumed(session, known, step),
        attempt=replace(session.attempt, carried=()),
        orders=replace(session.orders, waiting=(), given=given),
        control=replace(
            session.control,
            notices=tuple(each for each in session.control.notices if each.step <= step),
            passed=-1,
            batch_size=batch_at(session, (*past.snapshot.orders.waiting, *past.later), step),
            watch=Watch(),
            wait=None,
            ended=None,
        ),
        # What its trainer had ended goes on; what a controller has ended stays so.
        status="active" if session.control.ended is not None else session.status,
    )


def _numbers(past: RestorePoint) -> Iterator[int]:
    """Return the numbers of all orders that were carried out, which no other may have."""
    yield from (event.order.id for event in past.replayed if isinstance(event, Acted))
    yield from (each.id for each in past.later)


def _consequences(session: Session, event: ReplayedEvent) -> Draft:
    if isinstance(event, Acted):
        return apply_order(session, event.order)
    if isinstance(event, BatchResized):
        return Draft(session).record(event)
    consumed = MeasurementsClosed({event.metric: event.step})
    if isinstance(event, Missed):
        return Draft(session).record(consumed)
    measurement = Measurement(event.step, event.metric, event.value, event.ranks)
    return consume(session, measurement).record(consumed)


def unconsumed(session: Session, readings: Iterable[Reading], step: int) -> Pending:
    """Return the readings of steps before `step` that wait; the first of each key counts."""
    return Pending(
        reading
        for reading in readings
        if reading.metric in session.watched
        and session.control.consumed.get(reading.metric, -1) < reading.step < step
    )


def refuse_another_start(session: Session, step: int, batch: int | None) -> None:
    """Refuse to join an attempt at a step that is not its first one, or with another batch size.

    Raises:
        AttemptRefusedError: The ranks of one restart do not agree.
    """
    begun = session.attempt.batch
    if batch not in {None, begun}:
        size = f"a batch size of {begun}" if begun else "no batch size"
        raise AttemptRefusedError(
            f"Attempt {session.attempt.number} was opened with {size}, not {batch}. All ranks of a"
            " restart must say the same: the samples of one step, over all ranks together."
        ).about("batch_size")
    if step != session.attempt.start:
        raise AttemptRefusedError(
            f"Attempt {session.attempt.number} was opened with this key at step"
            f" {session.attempt.start}, not {step}. All ranks of a restart must load the same"
            " checkpoint; use another key for another restart."
        ).about("step")


def refuse_opening(session: Session, step: int, key: str, *, known: bool) -> None:
    """Refuse an attempt that cannot be opened.

    Args:
        session: The session, in its running attempt.
        step: Where the new attempt would begin.
        key: What its ranks share.
        known: Whether an earlier attempt was opened with that key.

    Raises:
        SessionArchivedError: The session takes no more commands.
        StaleAttemptError: A later attempt has taken over from that one.
        StepOutOfRangeError: The step was never handed out.
    """
    refuse_if_archived(session)
    if known:
        raise SupersededAttemptError(key, session.attempt.number)
    refuse_beyond_horizon(session, step)


def refuse_beyond_horizon(session: Session, step: int) -> None:
    """Refuse a step that no trainer can have trained up to.

    Raises:
        StepOutOfRangeError: It lies before the session's first step or above the horizon.
    """
    first = session.spec.described_from
    if session.spec.start_step <= step < first:
        raise StepOutOfRangeError(
            f"The steps below {first} belong to the session that this one was forked from, which"
            f" was described in another way. Go back to step {first} or a later one, or go back in"
            " that session."
        ).about("step")
    if not first <= step <= session.horizon:
        raise StepOutOfRangeError(
            f"No job can go back to step {step}: {handed_out(first, session.horizon)}. Name the"
            " first step that is to be trained again."
        ).about("step")


def taken_back(current: Session, restored: Session, keep: Sequence[Order]) -> Session:
    """Return the first state of an attempt that takes back sealed steps which no trainer holds.

    Its trainers are those of the attempt before: they hold nothing that changes, and what they were
    told they are not told again.

    Args:
        current: The session as it is.
        restored: The session as it was at the first step that is taken back.
        keep: Orders of operators for that step or later ones.
    """
    first = restored.horizon
    told = [notice for notice in current.control.notices if notice.step < first]
    control = replace(
        restored.control,
        notices=(*told, *(each for each in restored.control.notices if each.step >= first)),
        watch=current.control.watch.taken_back(first),
    )
    opened = resumed(
        current,
        replace(restored, control=control),
        keep=keep,
        key=current.attempt.key,
        batch=None,
        known={notice.message for notice in told},
    )
    carried = (*current.attempt.carried, current.attempt.number)
    return replace(
        opened, attempt=replace(current.attempt, number=opened.attempt.number, carried=carried)
    )


def resumed(
    current: Session,
    restored: Session,
    *,
    keep: Sequence[Order],
    key: str,
    batch: int | None,
    known: Collection[str] = (),
) -> Session:
    """Return the first state of a new attempt: the restored one, with what goes on as it is.

    What followed from the batch sizes of later attempts is not kept: what follows from the one
    that is trained with now is ordered anew, from the attempt's first step on.

    Args:
        current: The session as it is, in the attempt that ends.
        restored: The session as it was at the new attempt's first step.
        keep: Orders of operators for that step or later ones.
        key: What all ranks of the restart share.
        batch: Samples in one step, if the trainer says so.
        known: The messages of which its trainers were told already.

    Raises:
        BatchRefusedError: The batch size has changed, and the session does not allow that.
    """
    kept = sorted(keep, key=lambda each: (each.at, each.id))
    orders = tuple(each for each in kept if each.batch_before is None)
    size = current.control.batch_size if batch is None else batch
    opened = replace(
        restored,
        attempt=Attempt(current.attempt.number + 1, restored.horizon, key, size),
        orders=_reopened(current.orders, orders, restored.horizon),
        control=replace(restored.control, batch_size=size),
        reported=current.reported,
        revision=current.revision + 1,
    )
    # The process that was told of a large change before it is gone, unless it goes on in this one.
    news = [notice for notice in foretold(opened) if notice.message not in known]
    opened = replace(opened, control=opened.control.told(*news))
    return rescaled(opened, restored.control.batch_size, size).after


def _reopened(book: OrderBook, orders: tuple[Order, ...], first: int) -> OrderBook:
    """Return the book of an attempt that begins at step `first`, in which some orders wait."""
    numbers = {each.id for each in orders}
    return OrderBook(
        waiting=orders,
        given=book.given,
        given_before=book.given,
        # An order that is forgotten may be given again under its key.
        keys={
            name: (number, at, said)
            for name, (number, at, said) in book.keys.items()
            if at < first or number in numbers
        },
        counted=book.counted,  # who has made a change has made it, whatever comes of it
    )
