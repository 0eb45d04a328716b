"""What is replayed: which records restore the state that a session had at a step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import nan
from typing import Any

from sqlalchemy import (
    Executable,
    Select,
    select,
)

from pacesetter_service.core.attempts import (
    AttemptRef,
    Lineage,
    ReplayedEvent,
    RestorePoint,
    of_session,
    spans,
    unconsumed,
)
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import (
    Acted,
    BatchResized,
    Measured,
    Missed,
    load_event,
)
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store import codec
from pacesetter_service.store.port import Stored
from pacesetter_service.store.schema import (
    events,
    measurements,
    metrics,
    readings,
    snapshots,
)

Read = Callable[[Executable], Sequence[Any]]
"""Runs a query and returns its rows."""

_DECIDING = ("acted", "batch_resized", "missed")
"""The kinds of events that decided about the steps from theirs on."""


def restore_point(read: Read, spec: SessionSpec, lineage: Lineage, step: int) -> RestorePoint:
    """Read what is needed to restore the state in which a step was sealed.

    Facts of the time before are replayed from the newest snapshot on.
    """
    [span, *_] = reversed(list(spans(lineage, end=step + 1)))
    ref = span.ref
    snapshot = _snapshot_in(read(_snapshot_query(ref, step)), spec)
    # What was known of ancestors stands in the first snapshot of a session that was forked.
    mine = of_session(lineage, ref.session_id)
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
    )


def _replayed(read: Read, snapshot: Session, ref: AttemptRef, end: int) -> list[ReplayedEvent]:
    """Read what decided from a snapshot on to horizon `end`: measurements before orders."""
    start = snapshot.horizon
    measured = [
        Measured(step, name, nan if value is None else value, ranks, at)
        for name in sorted(snapshot.watched)
        for at, step, value, ranks in read(_seen_since(snapshot, ref, name, end))
    ]
    # What was ordered for the step itself is not done by going back to it: it waits again.
    logged = _deciding(read, snapshot.spec, ref, start, end)
    done = [event for event in logged if isinstance(event, Missed) or event.at < end]
    return sorted([*measured, *done], key=_in_the_order_of_sealing)


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
    """Return a session with its readings that no sealing has consumed yet.

    They are those of steps that were trained in it, and those that waited when its present attempt
    began.
    """
    session, newest = stored.session, stored.lineage[-1]
    if not session.watched:
        return stored
    begun = _snapshot_in(read(_snapshot_query(newest, newest.start)), session.spec)
    own = (
        Reading(rank, step, metric, nan if value is None else value)
        for ref, _, end in spans(of_session(stored.lineage, stored.id))
        for name in sorted(session.watched)
        for rank, step, metric, value in read(_waiting_query(ref, end, session, name))
    )
    known = (*begun.pending.readings(), *own)
    waiting = unconsumed(session, known, session.horizon)
    return replace(stored, session=replace(session, pending=waiting))


def readings_between(
    read: Read, lineage: Lineage, metric: str, start: int, end: int
) -> list[Reading]:
    """Read a metric's readings of the steps `start` to `end`, by step and rank.

    Of what two attempts say about one step and rank, the first counts: it trained that step.
    """
    found: dict[tuple[int, int], float] = {}
    for ref, _, until in spans(lineage):
        query = readings_query(ref, min(until, end), (metric,))
        for rank, step, _, value in read(query.where(readings.c.step >= start)):
            found.setdefault((step, rank), nan if value is None else value)
    return [Reading(rank, step, metric, value) for (step, rank), value in sorted(found.items())]


def _first_unseen(snapshot: Session, metric: str) -> int:
    """Return the first step whose measurement controllers had not seen yet."""
    return snapshot.control.consumed.get(metric, -1) + 1


def _seen_since(snapshot: Session, ref: AttemptRef, metric: str, end: int) -> Select[Any]:
    """Select what controllers saw of a metric from a snapshot on to horizon `end`.

    Steps are seen in their order, and before the horizon. To say so makes the primary key find
    them, however many there are.
    """
    table = measurements.c
    return (
        select(table.horizon, table.step, table.value, table.ranks)
        .join(metrics, metrics.c.id == table.metric_id)
        .where(table.session_id == ref.session_id, table.attempt == ref.attempt)
        .where(metrics.c.name == metric)
        .where(table.step >= _first_unseen(snapshot, metric), table.step < end)
        .where(table.horizon.between(snapshot.horizon, end))
    )


def _in_the_order_of_sealing(event: ReplayedEvent) -> tuple[int, int, int, str]:
    if isinstance(event, Acted):
        return event.at, 1, event.order.id, ""
    if isinstance(event, BatchResized):
        return event.at, 0, -1, ""
    return event.at, 0, event.step, event.metric


def readings_query(ref: AttemptRef, end: int, names: Iterable[str] | None) -> Select[Any]:
    """Select an attempt's readings of steps before `end`; those of earlier steps came late."""
    query = (
        select(readings.c.rank, readings.c.step, metrics.c.name, readings.c.value)
        .join(metrics, metrics.c.id == readings.c.metric_id)
        .where(readings.c.session_id == ref.session_id, readings.c.attempt == ref.attempt)
        .where(readings.c.step < end)
    )
    return query if names is None else query.where(metrics.c.name.in_(names))


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
    if not rows:  # sessions of the time before snapshots
        return create(spec)
    [row] = rows
    return codec.load_state(spec, row.plan, row.control, row.horizon)


def _waiting_query(ref: AttemptRef, end: int, session: Session, metric: str) -> Select[Any]:
    query = readings_query(ref, min(end, session.horizon), (metric,))
    return query.where(readings.c.step >= _first_unseen(session, metric))
