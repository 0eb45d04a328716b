"""Attempts: going back to a step, exactly, by replaying the record.

A job that restarts from a checkpoint opens a new attempt; a fork opens a new session. Both share
the past up to their first step by reference, and copy nothing. What controllers saw and what
operators ordered before that step is replayed from a snapshot. The decisions come out the same,
because they depend on nothing else.
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
    """One attempt of a session: the session's id in the database, and the attempt's first step."""

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
    """Split the steps `start` to `end` by the attempt that they belong to."""
    ends = [*(ref.start for ref in lineage[1:]), MAX_STEP]
    for ref, until in zip(lineage, ends, strict=True):
        first, last = max(ref.start, start), min(until, end)
        if first < last:
            yield Span(ref, first, last)


def of_session(lineage: Lineage, session_id: int) -> Lineage:
    """Return the attempts of a lineage that belong to one session."""
    return tuple(ref for ref in lineage if ref.session_id == session_id)


def since_session(lineage: Lineage, session_id: int) -> Lineage:
    """Return a lineage from a session's first attempt on, including those of its forks."""
    first = next(at for at, ref in enumerate(lineage) if ref.session_id == session_id)
    return lineage[first:]


def attempt_of(lineage: Lineage, step: int) -> AttemptRef:
    """Return the attempt in which a step was trained; for steps before the first one, that one."""
    return next((ref for ref in reversed(lineage) if ref.start <= step), lineage[0])


def branch(lineage: Lineage, ref: AttemptRef) -> Lineage:
    """Return the lineage of an attempt that branches off from another lineage."""
    return (*(each for each in lineage if each.start < ref.start), ref)


ReplayedEvent = Measured | Missed | Acted | BatchResized
"""An event that shaped the steps from its `at` on, when `at` was the horizon."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What is known of a session up to a step.

    Attributes:
        snapshot: A state at or before the step.
        replayed: What happened from the snapshot to the step itself, in order.
        readings: Readings of earlier steps, some of which may not have been consumed.
        later: Orders that were carried out at or after the step.
        repeated: What was measured and decided at the step, if the attempt that did so begins at
            the step too. An attempt that replaces that one has all of this in its state and must
            record it, because the replaced attempt is no longer part of the path.
    """

    snapshot: Session
    replayed: Sequence[ReplayedEvent]
    readings: Sequence[Reading]
    later: Sequence[Order]
    repeated: Sequence[Measured | Missed | Decided] = ()


def restore(past: RestorePoint, step: int) -> Session:
    """Return the state of a session just before the step was sealed.

    Readings of earlier steps that came too late for that sealing are not lost: they wait, and the
    first sealing consumes them.
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
        # An end that its trainer declared is lifted; one that a controller decided stays.
        status="active" if session.control.ended is not None else session.status,
    )


def _numbers(past: RestorePoint) -> Iterator[int]:
    """Return the numbers of all orders that were carried out: no other order may have them."""
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
    """Return the readings of steps before `step` that still wait; the first of each key counts."""
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
        key: The key that its ranks share.
        known: Whether an earlier attempt was opened with that key.

    Raises:
        SessionArchivedError: The session takes no more commands.
        SupersededAttemptError: A later attempt has taken over from that one.
        StepOutOfRangeError: The step was never handed out.
    """
    refuse_if_archived(session)
    if known:
        raise SupersededAttemptError(key, session.attempt.number)
    refuse_beyond_horizon(session, step)


def refuse_beyond_horizon(session: Session, step: int) -> None:
    """Refuse to go back to a step that no trainer can have reached.

    Raises:
        StepOutOfRangeError: It lies above the horizon, or before the first step that the session's
            own description holds from.
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

    Its trainers are those of the attempt before. They hold no value that changes, and are not told
    again what they were told already.

    Args:
        current: The session as it is.
        restored: The session as it was at the first step that is taken back.
        keep: Operators' orders for that step or later ones.
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
    """Return the first state of a new attempt: the restored one, with what outlives an attempt.

    Orders that the batch sizes of later attempts led to are not kept. The order that the present
    batch size leads to is given anew, from the attempt's first step on.

    Args:
        current: The session as it is, in the attempt that ends.
        restored: The session as it was at the new attempt's first step.
        keep: Operators' orders for that step or later ones.
        key: The key that all ranks of the restart share.
        batch: Samples in one step, if the trainer says so.
        known: The messages that its trainers were told already.

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
    # The process that was warned of a large change has ended, unless it goes on in this attempt.
    news = [notice for notice in foretold(opened) if notice.message not in known]
    opened = replace(opened, control=opened.control.told(*news))
    return rescaled(opened, restored.control.batch_size, size).after


def _reopened(book: OrderBook, orders: tuple[Order, ...], first: int) -> OrderBook:
    """Return the order book of an attempt that begins at step `first` with some orders waiting."""
    numbers = {each.id for each in orders}
    return OrderBook(
        waiting=orders,
        given=book.given,
        given_before=book.given,
        # An order that is dropped may be given again under its key.
        keys={
            name: (number, at, said)
            for name, (number, at, said) in book.keys.items()
            if at < first or number in numbers
        },
        counted=book.counted,  # a bounded actor's change counts, even if its order is dropped
    )
