"""Replay: selects the records that restore the state that a session had at a step."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, select

from pacesetter_service.core.attempts import (
    AttemptRef,
    Lineage,
    ReplayedEvent,
    RestorePoint,
    of_session,
    since_session,
    spans,
    unconsumed,
)
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import (
    Acted,
    BatchResized,
    Decided,
    Measured,
    Missed,
    load_event,
)
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store import codec
from pacesetter_service.store.block_table import MEASUREMENTS, READINGS, Read
from pacesetter_service.store.blocks import Columns
from pacesetter_service.store.port import Stored
from pacesetter_service.store.schema import (
    events,
    snapshots,
)

_DECIDING = ("acted", "batch_resized", "missed")
"""The kinds of events that decided about the steps from their own on."""


def restore_point(read: Read, spec: SessionSpec, lineage: Lineage, step: int) -> RestorePoint:
    """Read what is needed to restore the state in which a step was sealed.

    Earlier facts are replayed from the newest snapshot on.
    """
    [span, *_] = reversed(list(spans(lineage, end=step + 1)))
    ref = span.ref
    snapshot = _snapshot_in(read(_snapshot_query(ref, step)), spec)
    # What was known of ancestors is in a fork's first snapshot. A fork's own reports on earlier
    # steps, however late, count if it goes back to before its start.
    mine = since_session(lineage, ref.session_id)
    return RestorePoint(
        snapshot=snapshot,
        replayed=_replayed(read, snapshot, ref, step),
        readings=[
            reading
            for name in sorted(snapshot.watched)
            for reading in readings_between(read, mine, name, _first_unseen(snapshot, name), step)
        ],
        later=[
            event.order
            for later, start, end in spans(lineage, step)
            for event in _deciding(read, spec, later, start, end - 1)
            if isinstance(event, Acted)
        ],
        repeated=_decided_at(read, spec, ref, step) if ref.start == step else (),
    )


def _replayed(read: Read, snapshot: Session, ref: AttemptRef, end: int) -> list[ReplayedEvent]:
    """Read what decided between a snapshot and the horizon `end`, measurements before orders."""
    start = snapshot.horizon
    measured = [
        each
        for name in sorted(snapshot.watched)
        for each in measurements_in(
            name, MEASUREMENTS.between(read, ref, name, _first_unseen(snapshot, name), end)
        )
        if start <= each.at <= end
    ]
    logged = _deciding(read, snapshot.spec, ref, start, end)
    done = [event for event in logged if _is_done(event, snapshot, end)]
    return sorted([*measured, *done], key=_in_the_order_of_sealing)


def _is_done(event: Acted | BatchResized | Missed, snapshot: Session, end: int) -> bool:
    """Return whether an event happened after a snapshot, and stays done after going back to `end`.

    An order for that step itself does not: it is pending again.
    """
    if isinstance(event, Missed):
        return event.step >= _first_unseen(snapshot, event.metric)
    return event.at < end


def _decided_at(
    read: Read, spec: SessionSpec, ref: AttemptRef, step: int
) -> list[Measured | Missed | Decided]:
    """Read the measurements when a step was the horizon, and the controllers' decisions on them."""
    measured = [
        each
        for name in sorted(spec.measured)
        for each in measurements_in(name, MEASUREMENTS.between(read, ref, name, 0, step))
        if each.at == step
    ]
    query = (
        select(events)
        .where(events.c.session_id == ref.session_id, events.c.attempt == ref.attempt)
        .where(events.c.at == step, events.c.kind.in_(("missed", "decided")))
        .order_by(events.c.seq)
    )
    found = [load_event(row.kind, row.payload, spec) for row in read(query)]
    return [*measured, *(each for each in found if isinstance(each, Missed | Decided))]


def _deciding(
    read: Read, spec: SessionSpec, ref: AttemptRef, start: int, end: int
) -> list[Acted | BatchResized | Missed]:
    query = (
        select(events)
        .where(events.c.session_id == ref.session_id, events.c.attempt == ref.attempt)
        .where(events.c.at.between(start, end), events.c.kind.in_(_DECIDING))
        .order_by(events.c.seq)
    )
    found = [load_event(row.kind, row.payload, spec) for row in read(query)]
    return [each for each in found if isinstance(each, Acted | BatchResized | Missed)]


def with_waiting(read: Read, stored: Stored) -> Stored:
    """Return a session with its pending readings, which no sealing has consumed yet.

    They are readings of steps that were trained in it, and those that were pending when its current
    attempt began.
    """
    session, newest = stored.session, stored.lineage[-1]
    if not session.watched:
        return stored
    begun = _snapshot_in(read(_snapshot_query(newest, newest.start)), session.spec)
    own = (
        reading
        for ref, _, end in spans(of_session(stored.lineage, stored.id))
        for name in sorted(session.watched)
        for reading in _waiting(read, ref, end, session, name)
    )
    known = (*begun.pending.readings(), *own)
    waiting = unconsumed(session, known, session.horizon)
    return replace(stored, session=replace(session, pending=waiting))


def readings_between(
    read: Read, lineage: Lineage, metric: str, start: int, end: int
) -> list[Reading]:
    """Read a metric's readings of the steps `start` to `end`, by step and rank.

    If two attempts have a reading of the same step and rank, the first counts: it trained the step.
    """
    found: dict[tuple[int, int], float] = {}
    for ref, _, until in spans(lineage):
        columns = READINGS.between(read, ref, metric, start, min(until, end))
        for rank, step, _, value in readings_in(metric, columns):
            found.setdefault((step, rank), value)
    return [Reading(rank, step, metric, value) for (step, rank), value in sorted(found.items())]


def _first_unseen(snapshot: Session, metric: str) -> int:
    """Return the first step whose measurement controllers had not seen yet."""
    return snapshot.control.consumed.get(metric, -1) + 1


def readings_in(metric: str, columns: Columns) -> Iterator[Reading]:
    """Return the readings in columns, one by one."""
    rows = columns.steps.tolist(), columns.beside[0].tolist(), columns.values.tolist()
    for step, rank, value in zip(*rows, strict=True):
        yield Reading(rank, step, metric, value)


def measurements_in(metric: str, columns: Columns) -> Iterator[Measured]:
    """Return the measurements in columns, one by one."""
    rows = columns.steps.tolist(), columns.values.tolist(), *columns.beside.tolist()
    for step, value, ranks, at in zip(*rows, strict=True):
        yield Measured(step, metric, value, ranks, at)


def _in_the_order_of_sealing(event: ReplayedEvent) -> tuple[int, int, int, str]:
    if isinstance(event, Acted):
        return event.at, 1, event.order.id, ""
    if isinstance(event, BatchResized):
        return event.at, 0, -1, ""
    return event.at, 0, event.step, event.metric


def _snapshot_query(ref: AttemptRef, step: int) -> Select[Any]:
    """Select the newest snapshot of an attempt at or before a step."""
    return (
        select(snapshots)
        .where(snapshots.c.session_id == ref.session_id, snapshots.c.attempt == ref.attempt)
        .where(snapshots.c.horizon <= step)
        .order_by(snapshots.c.horizon.desc())
        .limit(1)
    )


def _snapshot_in(rows: Sequence[Any], spec: SessionSpec) -> Session:
    if not rows:  # a session that is older than snapshots
        return create(spec)
    [row] = rows
    return codec.load_state(spec, row.plan, row.control, row.horizon)


def _waiting(
    read: Read, ref: AttemptRef, end: int, session: Session, metric: str
) -> Iterator[Reading]:
    """Read an attempt's readings that a session has not consumed; earlier steps' are late."""
    first = _first_unseen(session, metric)
    return readings_in(
        metric, READINGS.between(read, ref, metric, first, min(end, session.horizon))
    )
