"""Attempts: going back to a step, exactly, by living the recorded facts again.

What controllers saw and what operators ordered before the step is replayed from a snapshot on; the
decisions come out as they did, because they depend on nothing else.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from pacesetter_service.core.actions import Order
from pacesetter_service.core.batch import batch_at, rescaled
from pacesetter_service.core.carrying import carried_out
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.errors import (
    AttemptRefusedError,
    StepOutOfRangeError,
    SupersededAttemptError,
)
from pacesetter_service.core.events import (
    Acted,
    BatchResized,
    Event,
    Measured,
    MeasurementsClosed,
    Missed,
)
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.measurements import Measurement
from pacesetter_service.core.orders import refuse_unless_writable
from pacesetter_service.core.pending import Pending
from pacesetter_service.core.react import consume
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that decided about the steps from `at` on, when `at` was the horizon."""

    at: int
    event: Measured | Missed | Acted | BatchResized


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a session up to a step.

    Attributes:
        snapshot: A state at or before the step.
        facts: What happened from there on to the step itself, in order.
        readings: Readings of earlier steps, of which some may not have been consumed.
        later: Orders that were carried out at or after the step.
    """

    snapshot: Session
    facts: Sequence[Fact]
    readings: Sequence[Reading]
    later: Sequence[Order]


def restore(past: Past, step: int) -> Session:
    """Give the state in which a session was when the step was about to be sealed.

    Readings of earlier steps that came too late for that are not lost: they wait, and are consumed
    with the first sealing.
    """
    session = past.snapshot
    for at, facts in groupby(past.facts, key=lambda fact: fact.at):
        session = replace(session, horizon=at)
        for fact in facts:
            session = evolve_all(session, _consequences(session, fact.event))
    known = (*past.snapshot.pending.readings(), *past.readings)
    return replace(
        session,
        horizon=step,
        pending=unconsumed(session, known, step),
        notices=tuple(notice for notice in session.notices if notice.step <= step),
        passed=-1,
        orders=(),
        ordered=max((session.ordered, *_numbers(past))),
        batch_size=batch_at(session, (*past.snapshot.orders, *past.later), step),
    )


def _numbers(past: Past) -> Iterator[int]:
    """Give the numbers of all orders that were carried out, which no other may have."""
    yield from (fact.event.order.id for fact in past.facts if isinstance(fact.event, Acted))
    yield from (each.id for each in past.later)


def _consequences(
    session: Session, event: Measured | Missed | Acted | BatchResized
) -> Iterable[Event]:
    if isinstance(event, Acted):
        return carried_out(session, event.order)
    if isinstance(event, BatchResized):
        return (event,)
    consumed = MeasurementsClosed({event.metric: event.step})
    if isinstance(event, Missed):
        return (consumed,)
    measurement = Measurement(event.step, event.metric, event.value, event.ranks)
    return (*consume(session, measurement), consumed)


def unconsumed(session: Session, readings: Iterable[Reading], step: int) -> Pending:
    """Give the readings of steps before `step` that wait; of two with one key the first counts."""
    return Pending(
        reading
        for reading in readings
        if reading.metric in session.watched
        and session.consumed.get(reading.metric, -1) < reading.step < step
    )


def refuse_another_start(session: Session, step: int, batch: int | None) -> None:
    """Refuse to join an attempt at a step that is not its first one, or with another batch size.

    Raises:
        AttemptRefusedError: The ranks of one restart do not agree.
    """
    begun = session.attempt_batch
    if batch not in {None, begun}:
        size = f"a batch size of {begun}" if begun else "no batch size"
        raise AttemptRefusedError(
            f"Attempt {session.attempt} was opened with {size}, not {batch}. All ranks of a restart"
            " must say the same: the samples of one step, over all ranks together."
        )
    if step != session.attempt_start:
        raise AttemptRefusedError(
            f"Attempt {session.attempt} was opened with this key at step"
            f" {session.attempt_start}, not {step}. All ranks of a restart must load the same"
            " checkpoint; use another key for another restart."
        )


def refuse_opening(session: Session, step: int, key: str, *, known: bool) -> None:
    """Refuse an attempt that can not be opened.

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
    refuse_unless_writable(session, None)
    if known:
        raise SupersededAttemptError(key, session.attempt)
    refuse_beyond_horizon(session, step)


def refuse_beyond_horizon(session: Session, step: int) -> None:
    """Refuse a step that nobody can have trained up to.

    Raises:
        StepOutOfRangeError: It lies before the session's first step or above the horizon.
    """
    first = session.spec.start_step
    if not first <= step <= session.horizon:
        raise StepOutOfRangeError(
            f"Nobody can go back to step {step}: the steps handed out so far are {first} to"
            f" {session.horizon - 1}. Name the first step that is to be trained again."
        )


def forked(restored: Session, spec: SessionSpec) -> Session:
    """Give the first state of a session that goes on from the past of another one."""
    return replace(
        restored,
        spec=spec,
        attempt=1,
        attempt_start=restored.horizon,
        attempt_key="",
        attempt_batch=restored.batch_size,
        orders=(),
        keys={},
        revision=0,
        status="active",
    )


def resumed(
    current: Session, restored: Session, *, keep: Sequence[Order], key: str, batch: int | None
) -> Session:
    """Give the first state of a new attempt: the restored one, with what goes on as it is.

    What followed from the batch sizes of later attempts is not kept: what follows from the one
    that is trained with now is ordered anew, from the attempt's first step on.

    Args:
        current: The session as it is, in the attempt that ends.
        restored: The session as it was at the new attempt's first step.
        keep: Orders of operators for that step or later ones.
        key: What all ranks of the restart share.
        batch: Samples in one step, if the trainer says so.

    Raises:
        BatchRefusedError: The batch size has changed, and the session does not allow that.
    """
    kept = sorted(keep, key=lambda each: (each.at, each.id))
    orders = tuple(each for each in kept if each.batch_before is None)
    numbers = {each.id for each in orders}
    first = restored.horizon
    size = current.batch_size if batch is None else batch
    opened = replace(
        restored,
        attempt=current.attempt + 1,
        attempt_start=first,
        attempt_key=key,
        orders=orders,
        ordered=current.ordered,
        ordered_before=current.ordered,
        # An order that is forgotten may be given again under its key.
        keys={
            name: (number, at, said)
            for name, (number, at, said) in current.keys.items()
            if at < first or number in numbers
        },
        revision=current.revision + 1,
        batch_size=size,
        attempt_batch=size,
    )
    return evolve_all(opened, rescaled(opened, restored.batch_size, opened.batch_size))
