"""The store: what the ledger writes and reads; a write is one transaction, on disk on return."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from pacesetter_service.core.attempts import Fact, Past, unconsumed
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.events import (
    Acted,
    AttemptOpened,
    BatchResized,
    Logged,
    Measured,
    Missed,
    Sealed,
)
from pacesetter_service.core.explain import Recorded
from pacesetter_service.core.history import Track, merged, track
from pacesetter_service.core.lineage import Life, Lineage, Stretch, stretches
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.templates import Published
from pacesetter_service.storage import codec, engine, migrate, transfer
from pacesetter_service.storage.schema import (
    attempts,
    events,
    labels,
    measurements,
    metrics,
    readings,
    sealed,
    sessions,
    snapshots,
    templates,
)

MAX_MOMENTS = 2
"""How many may read all of one moment at once; the other connections are for who is in a hurry."""

Blocks = NDArray[np.float64]

PAGE = 50
"""How many events are read at once, where it is not known how many are wanted."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as the database has it."""

    id: int
    session: Session
    events: int
    created_at: str
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Attempt:
    """A life of a job, as the database has it."""

    number: int
    start: int
    key: str
    lineage: Lineage
    actor: str
    created_at: str


@dataclass(slots=True)
class Changes:
    """What one job wants written, for one session."""

    stored: Stored
    before: Session | None = None
    log: list[Logged] = field(default_factory=list)
    sealed: list[Sealed] = field(default_factory=list)
    readings: list[tuple[int, Reading]] = field(default_factory=list)
    measured: list[tuple[int, int, Measured]] = field(default_factory=list)
    opened: AttemptOpened | None = None
    snapshot: bool = False


class Store:
    """Sessions in SQL.

    **Durability.** What `write` was given is on the disk when it returns, all of it or, when it
    raises, nothing. **Counting once.** A reading, sealed block or measurement whose key is there
    already changes nothing. **Threads.** What stands in the writer's half belongs to
    the one thread that writes; the others may be called from any thread.
    """

    def __init__(self, database_url: str) -> None:
        self._lock = engine.lock_for_this_process(database_url)
        self._writer = engine.open_writer(database_url)
        self._reader = engine.open_reader(database_url)
        self._metric_ids: dict[str, int] = {}
        self._moments = threading.BoundedSemaphore(MAX_MOMENTS)
        with _translated(), self._writer.connect() as connection:
            with connection.begin():
                migrate.upgrade(connection)
            with connection.begin():
                transfer.drop_unfinished(connection)
            with connection.begin():
                self._next_id = connection.scalar(select(func.max(sessions.c.id))) or 0
        self._connection = self._writer.connect()

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log into the file."""
        self._reader.dispose()
        self._connection.close()
        self._writer.dispose()
        engine.unlock(self._lock)

    # The writer's half -----------------------------------------------------------------------

    def new_id(self) -> int:
        """Give an id that no session has."""
        self._next_id += 1
        return self._next_id

    def load(self, name: str) -> Stored | None:
        """Read one session in full, or None if there is none of that name."""
        query = select(sessions).where(sessions.c.name == name, _is_there)
        with _translated(), self._connection.begin():
            row = self._connection.execute(query).one_or_none()
        return None if row is None else self._with_waiting(_stored(row))

    def _with_waiting(self, stored: Stored) -> Stored:
        """Give a session with its readings that no sealing has consumed yet.

        They are those of its present life, and those that waited when that began.
        """
        session, life = stored.session, stored.lineage[-1]
        if not session.watched:
            return stored
        begun = _snapshot_in(self._owned(_snapshot_query(life, life.start)), session.spec)
        own = (
            Reading(rank, step, metric, nan if value is None else value)
            for name in sorted(session.watched)
            for rank, step, metric, value in self._owned(_waiting_query(life, session, name))
        )
        known = (*begun.pending.readings(), *own)
        waiting = unconsumed(session, known, session.horizon)
        return replace(stored, session=replace(session, pending=waiting))

    def knows_attempt(self, session_id: int, key: str) -> bool:
        """Tell whether an attempt was opened with that key."""
        query = (
            select(attempts.c.attempt)
            .where(attempts.c.session_id == session_id, attempts.c.key == key)
            .limit(1)
        )
        with _translated(), self._connection.begin():
            return self._connection.execute(query).first() is not None

    def write(self, batch: Sequence[Changes], now: str) -> None:
        """Write all changes of a batch in one transaction.

        Raises:
            StorageUnavailableError: Nothing was written.
        """
        known = len(self._metric_ids)
        try:
            with _translated(), self._connection.begin():
                self._write_sessions(batch, now)
                # Strictly: a block that is there already was sealed by somebody else.
                self._write_many(sealed, _sealed_rows(batch), insert_text=_insert_strictly)
                self._write_many(readings, self._reading_rows(batch))
                self._write_many(measurements, self._measurement_rows(batch))
                self._write_many(attempts, _attempt_rows(batch, now))
                self._write_many(snapshots, _snapshot_rows(batch))
        except Exception:
            # Ids given out by a transaction that failed stand in no table.
            self._metric_ids = dict(list(self._metric_ids.items())[:known])
            raise

    def _write_sessions(self, batch: Sequence[Changes], now: str) -> None:
        for changes in batch:
            if changes.before is None:
                self._insert_session(changes.stored, now)
            elif changes.stored.session is not changes.before:
                self._update_session(changes)
        self._write_many(events, _event_rows(batch, now))

    def _insert_session(self, stored: Stored, now: str) -> None:
        session = stored.session
        self._connection.execute(
            insert(sessions),
            {
                "id": stored.id,
                "name": session.spec.name,
                "spec": codec.dump_spec(session.spec),
                "events": stored.events,
                "plan": codec.dump_plan(session),
                "control": codec.dump_control(session),
                "created_at": now,
                "lineage": codec.dump_lineage(stored.lineage),
                **_moving_parts(session),
            },
        )
        rows = [(stored.id, name, value) for name, value in session.spec.labels.items()]
        self._write_many(labels, rows)

    def _update_session(self, changes: Changes) -> None:
        before, after = changes.before, changes.stored.session
        assert before is not None  # noqa: S101 - the caller looked
        values: dict[str, Any] = {**_moving_parts(after), "events": changes.stored.events}
        if after.timelines is not before.timelines:
            values["plan"] = codec.dump_plan(after)
        if _control(after) != _control(before):
            values["control"] = codec.dump_control(after)
        if after.attempt != before.attempt:
            values["lineage"] = codec.dump_lineage(changes.stored.lineage)
        where = sessions.c.id == changes.stored.id
        self._connection.execute(update(sessions).where(where), values)

    def _reading_rows(self, batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
        for changes in batch:
            for attempt, (rank, step, metric, value) in changes.readings:
                yield (
                    changes.stored.id,
                    self._metric_ids.get(metric) or self._metric_id(metric),
                    attempt,
                    step,
                    rank,
                    None if isnan(value) else value,
                )

    def _measurement_rows(self, batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
        for changes in batch:
            for attempt, horizon, event in changes.measured:
                yield (
                    changes.stored.id,
                    attempt,
                    self._metric_ids.get(event.metric) or self._metric_id(event.metric),
                    event.step,
                    None if isnan(event.value) else event.value,
                    event.ranks,
                    horizon,
                )

    def _metric_id(self, name: str) -> int:
        self._write_many(metrics, [(None, name)])
        query = select(metrics.c.id).where(metrics.c.name == name)
        self._metric_ids[name] = self._connection.execute(query).scalar_one()
        return self._metric_ids[name]

    def _write_many(
        self,
        table: Table,
        rows: Iterable[tuple[Any, ...]],
        insert_text: Callable[[Table], str] | None = None,
    ) -> None:
        """Insert rows, whole and in the order of the table's columns, unless their keys exist.

        The statement goes to the driver as text with plain tuples: for many small rows that is
        half again as fast as the same insert with dictionaries.
        """
        rows = list(rows)
        if rows:
            text = (insert_text or _insert_or_ignore)(table)
            self._connection.exec_driver_sql(text, rows)

    def write_template(self, published: Published) -> None:
        """Write a template, or what has become of it.

        Raises:
            StorageUnavailableError: Nothing was written.
        """
        template = published.template
        where = (templates.c.name == template.name) & (templates.c.version == published.version)
        row = (
            template.name,
            published.version,
            codec.dump_template(template),
            published.deprecated,
            published.created_at,
        )
        with _translated(), self._connection.begin():
            self._write_many(templates, [row])
            # Of a template that is there already nothing can change but this.
            deprecate = update(templates).where(where).values(deprecated=published.deprecated)
            self._connection.execute(deprecate)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Give the writer's connection in a transaction: for what is rare, and short."""
        with _translated(), self._connection.begin():
            yield self._connection

    # The readers' half -----------------------------------------------------------------------

    def sealed_between(self, lineage: Lineage, width: int, start: int, end: int) -> Blocks:
        """Read sealed values of `width` series; float64, shape (width, end - start)."""
        pieces = [self._sealed(each, width) for each in stretches(lineage, start, end)]
        return np.concatenate(pieces, axis=1)

    def _sealed(self, stretch: Stretch, width: int) -> Blocks:
        life, start, end = stretch
        mine = (sealed.c.session_id == life.session_id) & (sealed.c.attempt == life.attempt)
        first = select(func.max(sealed.c.start)).where(mine, sealed.c.start <= start)
        query = (
            select(sealed.c.start, sealed.c["values"])
            .where(mine, sealed.c.start >= first.scalar_subquery(), sealed.c.start < end)
            .order_by(sealed.c.start)
        )
        rows = self._read(query)
        blocks = [np.frombuffer(row.values, "<f8").reshape(width, -1) for row in rows]
        values = np.concatenate(blocks, axis=1)
        begin = start - int(rows[0].start)
        return values[:, begin : begin + end - start]

    @contextmanager
    def moment(self) -> Iterator[Connection]:
        """Give a connection whose reads are all of one moment.

        While it is held the log of the database can only grow: not to be held for a caller.
        """
        with self._moments, _translated(), self._reader.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def sealed_end(self, life: Life) -> int:
        """Give the first step that a life has not sealed."""
        query = (
            select(sealed.c.start + sealed.c.count)
            .where(sealed.c.session_id == life.session_id, sealed.c.attempt == life.attempt)
            .order_by(sealed.c.start.desc())
            .limit(1)
        )
        return next((int(row[0]) for row in self._read(query)), life.start)

    def metrics_of(self, lineage: Lineage) -> list[str]:
        """Name the metrics that were reported in a lineage's sessions."""
        with _translated(), self._reader.connect() as connection:
            return list(transfer.metrics_of(connection, {life.session_id for life in lineage}))

    def readings_between(
        self, lineage: Lineage, metric: str, start: int, end: int
    ) -> list[Reading]:
        """Read a metric's readings of the steps `start` to `end`, by step and rank.

        Of what two lives say about one step and rank, the first counts: it lived that step.
        """
        found: dict[tuple[int, int], float] = {}
        for life, _, until in stretches(lineage):
            query = _readings_query(life, min(until, end), (metric,))
            for rank, step, _, value in self._read(query.where(readings.c.step >= start)):
                found.setdefault((step, rank), nan if value is None else value)
        return [Reading(rank, step, metric, value) for (step, rank), value in sorted(found.items())]

    def reported_between(self, lineage: Lineage, metric: str, start: int, end: int) -> Track:
        """Read what rank 0 reported of a metric at the steps `start` to `end`."""
        found = []
        for life, _, until in stretches(lineage):
            every = _readings_query(life, min(until, end), (metric,))
            mine = every.where(readings.c.step >= start, readings.c.rank == 0)
            columns: Select[Any] = mine.with_only_columns(readings.c.step, readings.c.value)
            found.append(self._track(columns))
        return merged(found)

    def measurements_between(self, lineage: Lineage, metric: str, start: int, end: int) -> Track:
        """Read what controllers saw of a metric at the steps `start` to `end`."""
        found = []
        for life, _, until in stretches(lineage):
            table = measurements.c
            query = (
                select(table.step, table.value)
                .join(metrics, metrics.c.id == table.metric_id)
                .where(table.session_id == life.session_id, table.attempt == life.attempt)
                .where(metrics.c.name == metric, table.step >= start, table.step < end)
                .where(table.horizon <= until)
            )
            found.append(self._track(query))
        return merged(found)

    def _track(self, query: Select[Any]) -> Track:
        rows = self._read(query)
        return track([row[0] for row in rows], [row[1] for row in rows])

    def attempts_of(self, stored: Stored) -> list[Attempt]:
        """Read the attempts of a session, in their order."""
        query = (
            select(attempts).where(attempts.c.session_id == stored.id).order_by(attempts.c.attempt)
        )
        return [
            Attempt(
                row.attempt,
                row.start,
                row.key,
                codec.load_lineage(row.lineage),
                row.actor,
                row.created_at,
            )
            for row in self._read(query)
        ]

    def page(
        self, *, after: str, limit: int, status: str | None, label: tuple[str, str] | None
    ) -> list[Stored]:
        """Read up to `limit` sessions whose names come after `after`, by name.

        Without the readings that wait.
        """
        query = select(sessions).where(sessions.c.name > after, _is_there)
        query = query.order_by(sessions.c.name)
        if status is not None:
            query = query.where(sessions.c.status == status)
        if label is not None:
            name, value = label
            having = select(labels.c.session_id).where(
                labels.c.name == name, labels.c.value == value
            )
            query = query.where(sessions.c.id.in_(having))
        return [_stored(row) for row in self._read(query.limit(limit))]

    def readings_of(self, lineage: Lineage, names: Iterable[str] | None = None) -> list[Reading]:
        """Read every reading of a lineage, or those of some metrics, by metric, step and rank."""
        found = [
            Reading(rank, step, metric, nan if value is None else value)
            for life, _, end in stretches(lineage)
            for rank, step, metric, value in self._read(_readings_query(life, end, names))
        ]
        return sorted(found, key=lambda each: (each.metric, each.step, each.rank))

    def events_after(
        self, stored: Stored, seq: int, *, limit: int, kinds: Sequence[str] = ()
    ) -> list[Recorded]:
        """Read up to `limit` events whose numbers come after `seq`, in their order."""
        query = _events_of(stored, kinds).where(events.c.seq >= seq).order_by(events.c.seq)
        return [_recorded(row, stored) for row in self._read(query.limit(limit))]

    def events_until(
        self, stored: Stored, step: int, *, kinds: Sequence[str], of_laws: bool = False
    ) -> Iterator[Recorded]:
        """Read the events that hold from a step or earlier, the newest first, page by page.

        They are those of all lives that the step has behind it. What came after `stored` was read,
        or after it was forked, is left out.

        Args:
            stored: The session.
            step: The last step that they may begin to hold at.
            kinds: Which kinds of events.
            of_laws: Only actions, and decisions by which another law took over.
        """
        query = select(events).where(events.c.kind.in_(kinds))
        if of_laws:
            took_over = events.c.payload.contains('"transition":')
            query = query.where((events.c.kind == "acted") | took_over)
        query = query.order_by(events.c.at.desc(), events.c.seq.desc())
        for stretch in reversed(list(stretches(stored.lineage, end=step + 1))):
            inherited = _in_force(stretch, last=stretch.end == step + 1)
            known = query.where(inherited, _known_to(stored, stretch.life))
            offset = 0
            while rows := self._read(known.limit(PAGE).offset(offset)):
                yield from (_recorded(row, stored) for row in rows)
                offset += PAGE

    def template(self, name: str, version: int | None = None) -> Published | None:
        """Read a template in one version, or in its newest; None if there is none."""
        found = self.templates(name)
        if version is not None:
            found = [published for published in found if published.version == version]
        return found[-1] if found else None

    def templates(self, name: str | None = None) -> list[Published]:
        """Read every template, or every version of one, by name and version."""
        query = select(templates).order_by(templates.c.name, templates.c.version)
        if name is not None:
            query = query.where(templates.c.name == name)
        return [codec.load_template(row) for row in self._read(query)]

    def check(self) -> None:
        """Ask the database for something.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        self._read(select(1))

    def past(self, spec: SessionSpec, lineage: Lineage, step: int) -> Past:
        """Read what is needed to restore the state in which a step was sealed.

        Facts of the time before are replayed from the newest snapshot on.
        """
        [stretch, *_] = reversed(list(stretches(lineage, end=step + 1)))
        life = stretch.life
        snapshot = _snapshot_in(self._read(_snapshot_query(life, step)), spec)
        # What was known of ancestors stands in the first snapshot of a session that was forked.
        mine = tuple(each for each in lineage if each.session_id == life.session_id)
        return Past(
            snapshot=snapshot,
            facts=self._facts(snapshot, life, step),
            readings=[
                reading
                for name in sorted(snapshot.watched)
                for reading in self.readings_between(
                    mine, name, _first_unseen(snapshot, name), step
                )
            ],
            later=[
                fact.event.order
                for later, start, end in stretches(lineage, step)
                for fact in self._logged_facts(spec, later, start, end - 1)
                if isinstance(fact.event, Acted)
            ],
        )

    def _facts(self, snapshot: Session, life: Life, end: int) -> list[Fact]:
        """Read what decided from a snapshot on to horizon `end`: measurements before orders."""
        start = snapshot.horizon
        measured = [
            Fact(at, Measured(step, name, nan if value is None else value, ranks))
            for name in sorted(snapshot.watched)
            for at, step, value, ranks in self._read(_seen_since(snapshot, life, name, end))
        ]
        # What was ordered for the step itself is not done by going back to it: it waits again.
        logged = self._logged_facts(snapshot.spec, life, start, end)
        done = [fact for fact in logged if isinstance(fact.event, Missed) or fact.at < end]
        return sorted([*measured, *done], key=_in_the_order_of_sealing)

    def _logged_facts(self, spec: SessionSpec, life: Life, start: int, end: int) -> list[Fact]:
        query = (
            select(events)
            .where(events.c.session_id == life.session_id, events.c.attempt == life.attempt)
            .where(events.c.at.between(start, end), events.c.kind.in_(_DECIDING))
            .order_by(events.c.seq)
        )
        found = [(row.at, codec.load_event(row, spec)) for row in self._read(query)]
        return [
            Fact(at, each) for at, each in found if isinstance(each, Acted | BatchResized | Missed)
        ]

    def _owned(self, query: Executable) -> Sequence[Any]:
        """Read by the writer's own connection: it waits for no reader."""
        with _translated(), self._connection.begin():
            return self._connection.execute(query).all()

    def _read(self, query: Executable) -> Sequence[Any]:
        with _translated(), self._reader.connect() as connection:
            return connection.execute(query).all()


_DECIDING = ("acted", "batch_resized", "missed")
"""The kinds of events that decided about the steps from theirs on."""

_is_there = sessions.c.status != transfer.IMPORTING
"""What is being imported is not there yet."""


def _first_unseen(snapshot: Session, metric: str) -> int:
    """Give the first step whose measurement controllers had not seen yet."""
    return snapshot.consumed.get(metric, -1) + 1


def _seen_since(snapshot: Session, life: Life, metric: str, end: int) -> Select[Any]:
    """Select what controllers saw of a metric from a snapshot on to horizon `end`.

    Steps are seen in their order, and before the horizon. To say so makes the primary key find
    them, however many there are.
    """
    table = measurements.c
    return (
        select(table.horizon, table.step, table.value, table.ranks)
        .join(metrics, metrics.c.id == table.metric_id)
        .where(table.session_id == life.session_id, table.attempt == life.attempt)
        .where(metrics.c.name == metric)
        .where(table.step >= _first_unseen(snapshot, metric), table.step < end)
        .where(table.horizon.between(snapshot.horizon, end))
    )


def _in_the_order_of_sealing(fact: Fact) -> tuple[int, int, int, str]:
    event = fact.event
    if isinstance(event, Acted):
        return fact.at, 1, event.order.id, ""
    if isinstance(event, BatchResized):
        return fact.at, 0, -1, ""
    return fact.at, 0, event.step, event.metric


def _readings_query(life: Life, end: int, names: Iterable[str] | None) -> Select[Any]:
    """Select a life's readings of steps before `end`; those of earlier steps came late."""
    query = (
        select(readings.c.rank, readings.c.step, metrics.c.name, readings.c.value)
        .join(metrics, metrics.c.id == readings.c.metric_id)
        .where(readings.c.session_id == life.session_id, readings.c.attempt == life.attempt)
        .where(readings.c.step < end)
    )
    return query if names is None else query.where(metrics.c.name.in_(names))


def _snapshot_query(life: Life, step: int) -> Select[Any]:
    """Select the newest snapshot of a life at or before a step."""
    return (
        select(snapshots)
        .where(snapshots.c.session_id == life.session_id, snapshots.c.attempt == life.attempt)
        .where(snapshots.c.horizon <= step)
        .order_by(snapshots.c.horizon.desc())
        .limit(1)
    )


def _snapshot_in(rows: Sequence[Any], spec: SessionSpec) -> Session:
    if not rows:  # sessions of the time before snapshots
        return create(spec)
    [row] = rows
    return codec.load_state(spec, row.plan, row.control, row.horizon)


def _waiting_query(life: Life, session: Session, metric: str) -> Select[Any]:
    query = _readings_query(life, session.horizon, (metric,))
    return query.where(readings.c.step >= _first_unseen(session, metric))


@cache
def _insert_strictly(table: Table) -> str:
    return str(sqlite.insert(table).compile(dialect=sqlite.dialect()))


@cache
def _insert_or_ignore(table: Table) -> str:
    return str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=sqlite.dialect()))


def _control(session: Session) -> tuple[object, ...]:
    """Give what the column of that name is made of."""
    return (
        session.controllers,
        session.consumed,
        session.smoothers,
        session.notices,
        session.passed,
        session.limits,
        session.orders,
        session.ordered,
        session.ordered_before,
        session.keys,
        session.attempt_key,
        session.attempt_batch,
        session.batch_size,
    )


def _moving_parts(session: Session) -> dict[str, Any]:
    return {
        "status": session.status,
        "attempt": session.attempt,
        "horizon": session.horizon,
        "revision": session.revision,
    }


def _event_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        first = changes.stored.events - len(changes.log)
        for seq, event in enumerate(changes.log, start=first):
            kind, at, payload = codec.dump_event(event)
            yield changes.stored.id, seq, changes.stored.session.attempt, kind, at, payload, now


def _events_of(stored: Stored, kinds: Sequence[str]) -> Select[Any]:
    query = select(events).where(events.c.session_id == stored.id)
    return query.where(events.c.kind.in_(kinds)) if kinds else query


def _recorded(row: Any, stored: Stored) -> Recorded:  # noqa: ANN401 - a row of `events`
    # Number 0 is the session's creation, which stands in `sessions`.
    event = codec.load_event(row, stored.session.spec)
    # An imported fork has brought along what happened before it, with numbers below 0.
    own = row.session_id == stored.id and row.seq >= 0
    return Recorded(event, row.seq + 1, row.attempt, row.created_at, own=own)


def _in_force(stretch: Stretch, *, last: bool) -> ColumnElement[bool]:
    """Select the events of a life that hold within its stretch, or where it was left.

    What had been measured there was decided on already; orders for that step wait again.
    """
    life, _, end = stretch
    mine = (events.c.session_id == life.session_id) & (events.c.attempt == life.attempt)
    if last:
        return mine & (events.c.at < end)
    return mine & ((events.c.at < end) | ((events.c.at == end) & (events.c.kind != "acted")))


def _known_to(stored: Stored, life: Life) -> ColumnElement[bool]:
    if life.session_id == stored.id:
        return events.c.seq < stored.events
    return events.c.created_at <= stored.created_at


def _stored(row: Any) -> Stored:  # noqa: ANN401 - a row of `sessions`
    # Sessions from before attempts were kept have had one life only.
    lineage = codec.load_lineage(row.lineage)
    session = codec.load_session(row)
    lineage = lineage or (Life(row.id, session.attempt, session.spec.start_step),)
    return Stored(row.id, session, row.events, row.created_at, lineage)


def _attempt_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        if changes.opened is not None or changes.before is None:
            stored, session = changes.stored, changes.stored.session
            yield (
                stored.id,
                session.attempt,
                session.attempt_start,
                session.attempt_key,
                codec.dump_lineage(stored.lineage),
                changes.opened.actor if changes.opened else "",
                now,
            )


def _snapshot_rows(batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        if changes.snapshot or changes.opened is not None or changes.before is None:
            session = changes.stored.session
            yield (
                changes.stored.id,
                session.attempt,
                session.horizon,
                codec.dump_plan(session),
                codec.dump_state(session),
            )


def _sealed_rows(batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        session = changes.stored.session
        for event in changes.sealed:
            block = np.stack([event.values[name] for name in session.timelines]).astype("<f8")
            yield changes.stored.id, session.attempt, event.start, event.count, block.tobytes()


@contextmanager
def _translated() -> Iterator[None]:
    """Say in our own words that the database failed."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageUnavailableError(str(getattr(error, "orig", None) or error)) from error
