"""Writing in SQL: the rows that a transaction appends."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Insert,
    Integer,
    LargeBinary,
    Table,
    TextClause,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from pacesetter_service.core.errors import (
    ConflictError,
    Kept,
    StorageFullError,
    StorageUnavailableError,
)
from pacesetter_service.core.session import Session
from pacesetter_service.store import codec
from pacesetter_service.store.block_log import BlockLog, TakenError
from pacesetter_service.store.block_table import Row, Series
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.schema import (
    ancestors,
    attempts,
    events,
    feed,
    labels,
    sealed,
    sessions,
    snapshots,
)

MAX_KNOWN = 100_000
"""How many metric names are kept in memory before all are forgotten and read again."""


class SqlTransaction:
    """A transaction in progress, with the guarantees of `port.Transaction`."""

    def __init__(
        self,
        connection: Connection,
        metric_ids: dict[str, int],
        readings: BlockLog,
        measurements: BlockLog,
    ) -> None:
        self._connection = connection
        self._metric_ids = metric_ids
        self._readings = readings
        self._measurements = measurements

    def refuse_stale(self, versions: Mapping[str, int]) -> None:
        """Refuse if a session's version differs from the one that the caller has read; 0 for none.

        Raises:
            ConflictError: Another writer has changed or created some of them.
        """
        self._refuse_stale(versions, lock=False)

    def _refuse_stale(self, versions: Mapping[str, int], *, lock: bool) -> None:
        stale = stale_of(versions, versions_of(self._connection, versions, lock=lock))
        if stale:
            raise ConflictError(stale)

    def append(self, batch: Sequence[Changes], now: str) -> None:
        """Write changes of several sessions, each of which must have the version of its `before`.

        Raises:
            ConflictError: Another writer came first; nothing of the transaction is kept.
        """
        # All writers lock in one order, so that there is no deadlock: first existing rows, all
        # together by id, then new names in alphabetical order, and then anything else.
        batch = sorted(batch, key=lambda each: each.stored.session.spec.name)
        self._move(batch, _read_versions(batch), now)
        try:
            self._write(batch, now)
        except (IntegrityError, TakenError) as error:
            names = [each.stored.session.spec.name for each in batch]
            raise ConflictError(names, str(getattr(error, "orig", error))) from error

    def _move(self, batch: Sequence[Changes], read: Mapping[str, int], now: str) -> None:
        """Update the rows of existing sessions, if they are still as they were read.

        Raises:
            ConflictError: Some are not.
        """
        self._refuse_stale(read, lock=True)
        for changes in batch:
            if changes.before is not None and changes.is_of_state:
                where = sessions.c.id == changes.stored.id
                values = _moved_columns(changes, changes.before.session, now)
                self._connection.execute(update(sessions).where(where), values)

    def _write(self, batch: Sequence[Changes], now: str) -> None:
        for changes in batch:
            if changes.before is None:
                self._insert_session(changes.stored, now)
            elif changes.stored.session.spec is not changes.before.session.spec:
                self._relabel(changes.stored)
        self._number_metrics(batch)
        strictly = _insert_strictly
        self._write_many(events, _event_rows(batch, now), strictly)
        self._write_many(attempts, _attempt_rows(batch, now), strictly)
        self._write_many(sealed, _sealed_rows(batch, now), strictly)
        measured, reported = self._measured(batch), self._reported(batch)
        self._measurements.append(self._connection, measured, self._insert, strictly=True)
        # A reading that exists already counts once; an existing snapshot is of the same state.
        self._readings.append(self._connection, reported, self._insert)
        self._write_many(snapshots, _snapshot_rows(batch), _insert_or_ignore)
        self._feed(batch)

    def _feed(self, batch: Sequence[Changes]) -> None:
        """Write the positions of events among those of all sessions, last before the commit.

        Other writers of events wait from here on.
        """
        places = list(_places(batch))
        if places:
            end = self._connection.execute(_TAKE_POSITIONS, {"some": len(places)}).scalar_one()
            first = end - len(places)
            rows = [(*place, position) for position, place in enumerate(places, first)]
            self._write_many(feed, rows, _insert_strictly)

    def _insert_session(self, stored: Stored, now: str) -> None:
        others = sorted({ref.session_id for ref in stored.lineage} - {stored.id})
        if others:
            self._keep_from_purges(others)
        self._connection.execute(insert(sessions), session_row(stored, now))
        shared = [(stored.id, other) for other in others]
        self._write_many(ancestors, shared, _insert_strictly)
        self._label(stored)

    def _keep_from_purges(self, ids: Sequence[int]) -> None:
        """Lock the sessions whose steps a fork shares, if there are other writers.

        A purge that looks for forks after this waits, and finds this fork. A purge that came first
        has ended by the time of the lock. Then the version of the source has changed, which the
        writer sees before it commits.
        """
        there = select(sessions.c.id).where(sessions.c.id.in_(ids)).order_by(sessions.c.id)
        self._connection.execute(there.with_for_update(read=True, key_share=True)).all()

    def _label(self, stored: Stored) -> None:
        named = stored.session.spec.labels.items()
        self._write_many(labels, [(stored.id, *each) for each in named], _insert_strictly)

    def _relabel(self, stored: Stored) -> None:
        self._connection.execute(delete(labels).where(labels.c.session_id == stored.id))
        self._label(stored)

    def _reported(self, batch: Sequence[Changes]) -> dict[Series, list[Row]]:
        found: dict[Series, list[Row]] = {}
        for changes in batch:
            session_id = changes.stored.id
            for attempt, reading in changes.readings:
                series = session_id, self._metric_ids[reading.metric], attempt
                some = found.get(series)
                if some is None:
                    found[series] = [reading]
                else:
                    some.append(reading)
        return found

    def _measured(self, batch: Sequence[Changes]) -> dict[Series, list[Row]]:
        found: dict[Series, list[Row]] = {}
        for changes in batch:
            for attempt, event in changes.measured:
                series = changes.stored.id, self._metric_ids[event.metric], attempt
                row = event.step, event.ranks, event.at, event.value
                found.setdefault(series, []).append(row)
        return found

    def _number_metrics(self, batch: Sequence[Changes]) -> None:
        """Look up the ids of all metrics of a batch; new metrics get theirs in one statement.

        One call may bring thousands of new names, and all other writes wait for it.
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

    def _insert(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        self._write_many(table, rows, _insert_strictly)

    def _write_many(
        self,
        table: Table,
        rows: Iterable[tuple[Any, ...]],
        insert_text: Callable[[Table, Dialect], str],
    ) -> None:
        """Insert complete rows, in the order of the table's columns.

        The statement goes to the driver as text with plain tuples: for many small rows, that is
        half again as fast as the same insert with dictionaries.
        """
        rows = list(rows)
        if rows:
            dialect = self._connection.dialect
            self._connection.exec_driver_sql(insert_text(table, dialect), rows)


class PostgresTransaction(SqlTransaction):
    """The same with one statement for all rows of sessions, as each statement is a round trip.

    The statement locks the rows in the order of their ids, compares their versions, and writes
    those that are still as they were read.
    """

    def _move(self, batch: Sequence[Changes], read: Mapping[str, int], now: str) -> None:
        """Update the rows of existing sessions, if they are still as they were read.

        Raises:
            ConflictError: Some are not.
        """
        rows = []
        for changes in batch:
            name = changes.stored.session.spec.name
            row: dict[str, Any] = {"name": name, "read": read[name], "moves": False}
            if changes.before is not None and changes.is_of_state:
                row |= {"moves": True, **_moved_columns(changes, changes.before.session, now)}
            rows.append(row)
        given = {"rows": json.dumps(rows, ensure_ascii=False)}
        there = {row.name: row.version for row in self._connection.execute(_MOVE, given)}
        stale = stale_of(read, there)
        if stale:
            raise ConflictError(stale)

    def _write_many(
        self,
        table: Table,
        rows: Iterable[tuple[Any, ...]],
        insert_text: Callable[[Table, Dialect], str],
    ) -> None:
        """Insert complete rows, in the order of the table's columns.

        Each column is one parameter: with a statement for each row, each would be planned again.
        """
        columns = list(zip(*rows, strict=True))
        if columns:
            ignores = insert_text is _insert_or_ignore
            arrays = map(_array_of, table.columns, columns)
            self._connection.exec_driver_sql(_insert_arrays(table, ignores), tuple(arrays))


def _array_of(column: Column[Any], values: Sequence[Any]) -> object:
    """Return a column of many rows as PostgreSQL reads it.

    Numbers and bytes are formatted here, all together: the driver would check each one's type, and
    whether it must be quoted.
    """
    if isinstance(column.type, Integer):
        return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"
    if isinstance(column.type, LargeBinary):
        return "{" + ",".join(rf'"\\x{each.hex()}"' for each in values) + "}"
    return list(values)


@cache
def _insert_arrays(table: Table, ignores: bool) -> str:  # noqa: FBT001 - a key of the cache
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    arrays = ", ".join(f"CAST(%s AS {_type_of(column)}[])" for column in table.columns)
    otherwise = " ON CONFLICT DO NOTHING" if ignores else ""
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}){otherwise}"  # noqa: S608


def _read_versions(batch: Sequence[Changes]) -> dict[str, int]:
    return {
        each.stored.session.spec.name: each.before.version if each.before else 0 for each in batch
    }


def _moved_columns(changes: Changes, before: Session, now: str) -> dict[str, Any]:
    """Return the columns of a session's row that a change writes."""
    after = changes.stored.session
    values: dict[str, Any] = {
        **_moving_parts(after),
        "events": changes.stored.events,
        "version": changes.stored.version,
        "changed_at": now,
    }
    if after.spec is not before.spec:  # its labels have changed
        values["spec"] = codec.dump_spec(after.spec)
    if after.timelines is not before.timelines:
        values["plan"] = codec.dump_plan(after)
    if _control(after) != _control(before):
        values["control"] = codec.dump_control(after)
    if after.attempt.number != before.attempt.number:
        values["lineage"] = codec.dump_lineage(changes.stored.lineage)
    return values


def versions_of(
    connection: Connection, names: Iterable[str], *, lock: bool = False
) -> dict[str, int]:
    """Read the versions of sessions by name; sessions that do not exist are left out.

    Args:
        connection: The connection.
        names: The sessions' names.
        lock: Whether to keep other transactions from changing them until this one ends. All lock
            in the order of the ids, so that there is no deadlock. SQLite has one writer anyway.
    """
    given = {"names": json.dumps(list(names), ensure_ascii=False)}
    statements = _LOCKED_VERSIONS if lock else _VERSIONS
    rows = connection.execute(statements[connection.dialect.name], given)
    return {row.name: row.version for row in rows}


def stale_of(read: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """Return the sessions whose version differs from the one that was read."""
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


def _type_of(column: Column[Any]) -> str:
    """Return PostgreSQL's name for the type of a column."""
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return str(column.type.compile(dialect))


_ALWAYS_MOVED = (
    "status",
    "attempt",
    "horizon",
    "held",
    "revision",
    "events",
    "version",
    "changed_at",
    "troubled",
)
_AT_TIMES_MOVED = ("spec", "plan", "control", "lineage")
_MOVED = [sessions.c[name] for name in (*_ALWAYS_MOVED, *_AT_TIMES_MOVED)]
_TYPES = ", ".join(f"{each.name} {_type_of(each)}" for each in _MOVED)
_SET = ", ".join(
    [f"{name} = w.{name}" for name in _ALWAYS_MOVED]
    + [f"{name} = coalesce(w.{name}, s.{name})" for name in _AT_TIMES_MOVED]
)

_MOVE = text(
    f"""
    WITH wanted AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json))
        AS r(name text, read bigint, moves boolean, {_TYPES})
    ), locked AS (
        SELECT id, name, version FROM sessions
        WHERE name IN (SELECT name FROM wanted) ORDER BY id FOR UPDATE
    ), moved AS (
        UPDATE sessions s SET {_SET}
        FROM wanted w JOIN locked l ON l.name = w.name AND l.version = w.read
        WHERE s.id = l.id AND w.moves
    )
    SELECT name, version FROM locked
    """  # noqa: S608 - of our own columns
)
"""Locks rows, and writes those whose version is the one that was read; returns the old versions."""

_NUMBER = _by_dialect("INSERT INTO metrics (name) {names} WHERE true ON CONFLICT DO NOTHING")

_NUMBERED = _by_dialect("SELECT id, name FROM metrics WHERE name IN ({names})")


def ignoring(dialect: Dialect, table: Table) -> Insert:
    """Return an insert that leaves rows that exist already as they are."""
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
    """Return the parts of the state that the column `control` is made of."""
    return session.control, session.attempt, session.orders


def session_row(stored: Stored, now: str) -> dict[str, Any]:
    """Return the row of a new session that is written now."""
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
        "template": session.spec.template,
        **_moving_parts(session),
    }


def _moving_parts(session: Session) -> dict[str, Any]:
    return {
        "status": session.status,
        "attempt": session.attempt.number,
        "horizon": session.horizon,
        "held": session.held,
        "revision": session.revision,
        "troubled": int(_is_troubled(session)),
    }


def _is_troubled(session: Session) -> bool:
    """Return whether an operator should look at a session, as far as its own state tells."""
    if session.status == "active":
        return bool(session.control.watch.deviating)
    ended = session.control.ended
    return session.status == "finished" and ended is not None and ended.outcome == "failed"


def _event_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    for changes in batch:
        first = changes.stored.events - len(changes.log)
        for seq, event in enumerate(changes.log, start=first):
            told = event.kind, event.from_step, event.dump()
            yield changes.stored.id, seq, changes.stored.session.attempt.number, *told, now


def _places(batch: Sequence[Changes]) -> Iterator[tuple[int, int]]:
    """Return the session and the number of each new event; number 0 is a creation."""
    for changes in batch:
        if changes.before is None:
            yield changes.stored.id, 0
        first = changes.stored.events - len(changes.log)
        for seq in range(first, changes.stored.events):
            yield changes.stored.id, seq + 1


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


def _sealed_rows(batch: Sequence[Changes], now: str) -> Iterator[tuple[Any, ...]]:
    handed_out = round(1000 * datetime.fromisoformat(now).timestamp())
    for changes in batch:
        session = changes.stored.session
        for event in changes.sealed:
            block = event.block(session.timelines).astype("<f8", copy=False)
            yield (
                changes.stored.id,
                session.attempt.number,
                event.start,
                event.count,
                block.tobytes(),
                handed_out,
            )


_TAKE_POSITIONS = text("UPDATE ids SET next = next + :some WHERE kind = 'feed' RETURNING next")


@contextmanager
def translated(*, kept: Kept = "nothing") -> Iterator[None]:
    """Turn failures of the database into the service's own errors; `kept` as in these."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        found = getattr(error, "orig", None) or error
        if _is_full(found):
            raise StorageFullError("the database's disk") from error
        raise StorageUnavailableError(reason_of(found), kept=kept) from error


def _is_full(error: object) -> bool:
    """Return whether a driver reports a full disk: SQLite by a number, PostgreSQL by 53100.

    If a file must not grow (a quota, a limit of the process), SQLite reports a write error.
    """
    codes = (getattr(error, "sqlite_errorcode", None), getattr(error, "sqlstate", None))
    return not _FULL.isdisjoint(codes)


_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, "53100"}


def reason_of(failure: BaseException | None) -> str:
    """Return in one line why a database failed; details are only for the log."""
    if type(failure).__module__.startswith("psycopg") and getattr(failure, "sqlstate", "") is None:
        return "PostgreSQL cannot be reached"
    return " ".join(str(failure).split())
