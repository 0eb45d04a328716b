"""Writing in SQL: what a transaction appends, row by row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import isnan
from typing import Any

import numpy as np
from sqlalchemy import Connection, Dialect, Insert, Table, TextClause, delete, insert, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from pacesetter_service.core.errors import ConflictError, StorageUnavailableError
from pacesetter_service.core.session import Session
from pacesetter_service.store import codec
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.schema import (
    ancestors,
    attempts,
    events,
    labels,
    measurements,
    readings,
    sealed,
    sessions,
    snapshots,
)

MAX_KNOWN = 100_000
"""How many names of metrics memory holds, before it forgets all and reads those in use again."""


class SqlTransaction:
    """A transaction that is under way, by the guarantees of `port.Transaction`."""

    def __init__(self, connection: Connection, metric_ids: dict[str, int]) -> None:
        self._connection = connection
        self._metric_ids = metric_ids

    def refuse_stale(self, versions: Mapping[str, int]) -> None:
        """Refuse if a session has another version than the caller has read; 0 for none.

        Raises:
            ConflictError: Another writer has changed or created some of them.
        """
        stale = stale_of(versions, versions_of(self._connection, versions, lock=True))
        if stale:
            raise ConflictError(stale)

    def append(self, batch: Sequence[Changes], now: str) -> None:
        """Write changes of several sessions, each of which has the version that its `before` says.

        Raises:
            ConflictError: Another writer came first; nothing of the transaction is kept.
        """
        self.refuse_stale(
            {
                each.stored.session.spec.name: each.before.version if each.before else 0
                for each in batch
            }
        )
        try:
            self._write(batch, now)
        except IntegrityError as error:
            names = [each.stored.session.spec.name for each in batch]
            raise ConflictError(names, str(error.orig)) from error

    def _write(self, batch: Sequence[Changes], now: str) -> None:
        self._number_metrics(batch)
        for changes in batch:
            if changes.before is None:
                self._insert_session(changes.stored, now)
            elif changes.is_of_state:
                self._update_session(changes, changes.before.session, now)
        strictly = _insert_strictly
        self._write_many(events, _event_rows(batch, now), strictly)
        self._write_many(attempts, _attempt_rows(batch, now), strictly)
        self._write_many(sealed, _sealed_rows(batch), strictly)
        self._write_many(measurements, self._measurement_rows(batch), strictly)
        # A reading that is there already counts once; a snapshot there is of the same state.
        self._write_many(readings, self._reading_rows(batch), _insert_or_ignore)
        self._write_many(snapshots, _snapshot_rows(batch), _insert_or_ignore)

    def _insert_session(self, stored: Stored, now: str) -> None:
        self._connection.execute(insert(sessions), session_row(stored, now))
        others = sorted({ref.session_id for ref in stored.lineage} - {stored.id})
        shared = [(stored.id, other) for other in others]
        self._write_many(ancestors, shared, _insert_strictly)
        self._label(stored)

    def _label(self, stored: Stored) -> None:
        named = stored.session.spec.labels.items()
        self._write_many(labels, [(stored.id, *each) for each in named], _insert_strictly)

    def _update_session(self, changes: Changes, before: Session, now: str) -> None:
        after = changes.stored.session
        values: dict[str, Any] = {
            **_moving_parts(after),
            "events": changes.stored.events,
            "version": changes.stored.version,
            "changed_at": now,
        }
        if after.spec is not before.spec:  # its labels have changed
            values["spec"] = codec.dump_spec(after.spec)
            self._connection.execute(delete(labels).where(labels.c.session_id == changes.stored.id))
            self._label(changes.stored)
        if after.timelines is not before.timelines:
            values["plan"] = codec.dump_plan(after)
        if _control(after) != _control(before):
            values["control"] = codec.dump_control(after)
        if after.attempt.number != before.attempt.number:
            values["lineage"] = codec.dump_lineage(changes.stored.lineage)
        where = sessions.c.id == changes.stored.id
        self._connection.execute(update(sessions).where(where), values)

    def _reading_rows(self, batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
        for changes in batch:
            for attempt, (rank, step, metric, value) in changes.readings:
                yield (
                    changes.stored.id,
                    self._metric_ids[metric],
                    attempt,
                    step,
                    rank,
                    None if isnan(value) else value,
                )

    def _measurement_rows(self, batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
        for changes in batch:
            for attempt, event in changes.measured:
                yield (
                    changes.stored.id,
                    attempt,
                    self._metric_ids[event.metric],
                    event.step,
                    None if isnan(event.value) else event.value,
                    event.ranks,
                    event.at,
                )

    def _number_metrics(self, batch: Sequence[Changes]) -> None:
        """Learn the ids of all metrics of a batch; those that are new get theirs in one statement.

        One call may bring thousands of new names, and everybody's writes wait for its own.
        """
        if len(self._metric_ids) > MAX_KNOWN:
            self._metric_ids.clear()
        known = self._metric_ids
        names = {each.metric for changes in batch for _, each in changes.readings}
        names.update(each.metric for changes in batch for _, each in changes.measured)
        fresh = sorted(names.difference(known))
        if fresh:
            given = {"names": json.dumps(fresh, ensure_ascii=False)}
            name = self._connection.dialect.name
            self._connection.execute(_NUMBER[name], given)
            rows = self._connection.execute(_NUMBERED[name], given).all()
            known.update({row.name: row.id for row in rows})

    def _write_many(
        self,
        table: Table,
        rows: Iterable[tuple[Any, ...]],
        insert_text: Callable[[Table, Dialect], str],
    ) -> None:
        """Insert rows, whole and in the order of the table's columns.

        The statement goes to the driver as text with plain tuples: for many small rows that is
        half again as fast as the same insert with dictionaries.
        """
        rows = list(rows)
        if rows:
            dialect = self._connection.dialect
            self._connection.exec_driver_sql(insert_text(table, dialect), rows)


def versions_of(
    connection: Connection, names: Iterable[str], *, lock: bool = False
) -> dict[str, int]:
    """Read the versions of sessions by their names; a session that is not there is left out.

    Args:
        connection: The connection.
        names: The sessions' names.
        lock: Whether no other transaction may change them before this one has ended. All lock in
            the order of the ids, so that no two wait for each other. SQLite has one writer anyway.
    """
    given = {"names": json.dumps(list(names), ensure_ascii=False)}
    statements = _LOCKED_VERSIONS if lock else _VERSIONS
    rows = connection.execute(statements[connection.dialect.name], given)
    return {row.name: row.version for row in rows}


def stale_of(read: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """Return the sessions whose version is another one than was read."""
    return [name for name, version in read.items() if there.get(name, 0) != version]


_OF_A_LIST = {
    "sqlite": "SELECT value FROM json_each(:names)",
    "postgresql": "SELECT json_array_elements_text(CAST(:names AS json))",
}
"""How each database reads a list of names, which is one parameter however long it is."""


def _by_dialect(statement: str) -> dict[str, TextClause]:
    return {name: text(statement.format(names=names)) for name, names in _OF_A_LIST.items()}


_VERSIONS = _by_dialect("SELECT name, version FROM sessions WHERE name IN ({names})")

_LOCKED_VERSIONS = _VERSIONS | {
    "postgresql": text(f"{_VERSIONS['postgresql'].text} ORDER BY id FOR UPDATE")
}

_NUMBER = _by_dialect("INSERT INTO metrics (name) {names} WHERE true ON CONFLICT DO NOTHING")

_NUMBERED = _by_dialect("SELECT id, name FROM metrics WHERE name IN ({names})")


def ignoring(dialect: Dialect, table: Table) -> Insert:
    """Return an insert of rows that does nothing about those that are there already."""
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


@cache
def _insert_strictly(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))


@cache
def _insert_or_ignore(table: Table, dialect: Dialect) -> str:
    return str(ignoring(dialect, table).compile(dialect=dialect))


def _control(session: Session) -> tuple[object, ...]:
    """Return what the column of that name is made of."""
    return session.control, session.attempt, session.orders


def session_row(stored: Stored, now: str) -> dict[str, Any]:
    """Return the row of a session that is written now, and is not there yet."""
    session = stored.session
    return {
        "id": stored.id,
        "name": session.spec.name,
        "spec": codec.dump_spec(session.spec),
        "events": stored.events,
        "plan": codec.dump_plan(session),
        "control": codec.dump_control(session),
        "created_at": stored.created_at,
        "lineage": codec.dump_lineage(stored.lineage),
        "version": stored.version,
        "changed_at": now,
        **_moving_parts(session),
    }


def _moving_parts(session: Session) -> dict[str, Any]:
    return {
        "status": session.status,
        "attempt": session.attempt.number,
        "horizon": session.horizon,
        "held": session.held,
        "revision": session.revision,
    }


def _event_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        first = changes.stored.events - len(changes.log)
        for seq, event in enumerate(changes.log, start=first):
            told = event.kind, event.from_step, event.dump()
            yield changes.stored.id, seq, changes.stored.session.attempt.number, *told, now


def _attempt_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        if changes.opened is not None or changes.before is None:
            stored, session = changes.stored, changes.stored.session
            yield (
                stored.id,
                session.attempt.number,
                changes.opened.at if changes.opened else session.attempt.start,
                session.attempt.key,
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
                session.attempt.number,
                session.horizon,
                codec.dump_plan(session),
                codec.dump_state(session),
            )


def _sealed_rows(batch: Sequence[Changes]) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        session = changes.stored.session
        for event in changes.sealed:
            block = np.stack([event.values[name] for name in session.timelines]).astype("<f8")
            yield (
                changes.stored.id,
                session.attempt.number,
                event.start,
                event.count,
                block.tobytes(),
            )


@contextmanager
def translated() -> Iterator[None]:
    """Say in our own words that the database failed."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageUnavailableError(str(getattr(error, "orig", None) or error)) from error
