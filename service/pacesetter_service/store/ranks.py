"""The last known activity of each rank, as all processes that share a database have heard it.

It is written outside of the transactions that count, about once a second, and only operators' views
depend on it. Times are seconds by the clock of the database, the only clock that all processes
share.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    func,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert

from pacesetter_service.store.schema import ranks, sessions
from pacesetter_service.store.writing import translated

Place = tuple[str, int]
"""A session's name and a rank in it."""

AT_ONCE = 1_000
"""How many ranks are written in one transaction."""


class RankRow(NamedTuple):
    """A rank's row in the table.

    Attributes:
        attempt: The attempt that it last called for.
        at: When it called last.
        deviates: Whether it trains with values other than the sealed ones.
        state: Everything that is known of it, as text.
    """

    attempt: int
    at: float
    deviates: bool
    state: str


class RankDigest(NamedTuple):
    """The ranks of a session's newest attempt as a few numbers.

    Attributes:
        attempt: The attempt.
        seen: How many have called.
        stale: How many of them have been silent for too long.
        deviating: How many train with values other than the sealed ones.
        trained: The newest step that any of them has trained, by its own account; -1 for none.
        quiet: For how many seconds none has called.
        pace: The seconds that a step takes the slowest of them, if any has said so.
    """

    attempt: int
    seen: int
    stale: int
    deviating: int
    trained: int
    quiet: float
    pace: float | None


Merge = Callable[[float, Place, RankRow | None], RankRow]
"""Given the time, a rank's place and its row, if there is one, returns its new row."""


class RankTable:
    """The ranks that every process has heard; callable from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def merge(self, places: Sequence[Place], merge: Merge) -> None:
        """Write some ranks, merging each with its row.

        Ranks of sessions that no longer exist are left out.

        Raises:
            StorageUnavailableError: The database did not accept them, or not all of them.
        """
        ordered = sorted(places)
        for first in range(0, len(ordered), AT_ONCE):
            with translated(), self._engine.begin() as connection:
                self._merge(connection, ordered[first : first + AT_ONCE], merge)

    def _merge(self, connection: Connection, places: Sequence[Place], merge: Merge) -> None:
        # A row is made before it is locked, so that two processes with news of a rank take turns.
        # All lock in one order, so that there is no deadlock.
        self._make(connection, places)
        rows = connection.execute(_of(places, ranks).order_by(*_PLACE).with_for_update()).all()
        now = _now(connection)
        merged = [(place, merge(now, place, there)) for place, there in map(_read, rows)]
        changed = [
            {"of": name, "number": rank, **row._asdict(), "deviates": int(row.deviates)}
            for (name, rank), row in merged
        ]
        if changed:
            connection.execute(_UPDATE, changed)

    def _make(self, connection: Connection, places: Sequence[Place]) -> None:
        """Insert missing rows, except for sessions that no longer exist.

        A purge removes the rows of a name. This waits for it, so that no row reappears after it.
        """
        known = set(map(tuple, connection.execute(_of(places, *_PLACE))))
        fresh = [place for place in places if place not in known]
        if not fresh:
            return
        named = select(sessions.c.name).where(sessions.c.name.in_({name for name, _ in fresh}))
        locked = named.order_by(sessions.c.id).with_for_update(read=True, key_share=True)
        names = set(connection.scalars(locked))
        made = {"attempt": 0, "at": 0.0, "deviates": 0, "state": ""}
        rows = [{"session": name, "rank": rank, **made} for name, rank in fresh if name in names]
        if rows:
            connection.execute(insert(ranks).on_conflict_do_nothing(), rows)

    def read(self, session: str) -> tuple[float, dict[int, RankRow]]:
        """Return the time, and what all processes have heard of a session's ranks.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        query = select(ranks).where(ranks.c.session == session, ranks.c.state != "")
        with self._reading() as connection:
            found = connection.execute(query).all()
            return _now(connection), {
                row.rank: RankRow(row.attempt, row.at, bool(row.deviates), row.state)
                for row in found
            }

    def latest(self, names: Collection[str]) -> tuple[float, dict[str, RankRow]]:
        """Return the time, and the rank of each of these sessions that called last, if any has.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        place = func.row_number().over(partition_by=ranks.c.session, order_by=ranks.c.at.desc())
        of_them = ranks.c.session.in_(names) & (ranks.c.state != "")
        placed = select(ranks, place.label("place")).where(of_them).subquery()
        query = select(placed).where(placed.c.place == 1)
        with self._reading() as connection:
            found = connection.execute(query).all()
            return _now(connection), {
                row.session: RankRow(row.attempt, row.at, bool(row.deviates), row.state)
                for row in found
            }

    def digests(self, names: Sequence[str], patience: float) -> dict[str, RankDigest]:
        """Return the ranks of each of some sessions as a few numbers, however many there are.

        Args:
            names: The sessions.
            patience: The seconds of silence after which a rank is stale.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        with self._reading() as connection:
            rows = connection.execute(_DIGESTS, {"names": json.dumps(names), "patience": patience})
            return {name: RankDigest(*numbers) for name, *numbers in rows}

    def heard_within(self, seconds: float) -> list[str]:
        """Return the sessions with a rank that called in the last `seconds` seconds.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        query = select(ranks.c.session).where(ranks.c.at >= _CLOCK - seconds).distinct()
        with self._reading() as connection:
            return list(connection.scalars(query))

    def in_trouble(self, patience: float, recent: float) -> list[str]:
        """Return the sessions with a rank that deviates or is silent, and was heard lately.

        Args:
            patience: The seconds without a call after which a rank is silent.
            recent: The seconds without a call after which it no longer counts.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        newest = func.max(ranks.c.attempt).over(partition_by=ranks.c.session)
        lately = (
            select(ranks, newest.label("newest"))
            .where(ranks.c.at >= _CLOCK - recent, ranks.c.state != "")
            .subquery()
        )
        query = (
            select(lately.c.session)
            .where(lately.c.attempt == lately.c.newest)
            .where((lately.c.deviates == 1) | (lately.c.at < _CLOCK - patience))
            .distinct()
        )
        with self._reading() as connection:
            return list(connection.scalars(query))

    def counts(self, recent: float) -> tuple[int, int]:
        """Count the ranks that called in the last `recent` seconds, and those of them that deviate.

        Only ranks of a session's newest attempt count as deviating.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        newest = func.max(ranks.c.attempt).over(partition_by=ranks.c.session)
        lately = (
            select(ranks.c.attempt, ranks.c.deviates, newest.label("newest"))
            .where(ranks.c.at >= _CLOCK - recent, ranks.c.state != "")
            .subquery()
        )
        deviating = (lately.c.deviates == 1) & (lately.c.attempt == lately.c.newest)
        query = select(func.count(), func.count().filter(deviating)).select_from(lately)
        with self._reading() as connection:
            number, of_them = connection.execute(query).one()
        return number, of_them

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(), self._engine.connect() as connection:
            yield connection


_PLACE = (ranks.c.session, ranks.c.rank)


def _of(places: Sequence[Place], *what: ColumnElement[Any] | Table) -> Select[Any]:
    return select(*what).where(tuple_(*_PLACE).in_(places))


def _read(row: Any) -> tuple[Place, RankRow | None]:  # noqa: ANN401 - of the table
    """Return the place of a row's rank, and the row; None if the rank has not called yet."""
    heard = RankRow(row.attempt, row.at, bool(row.deviates), row.state)
    return (row.session, row.rank), heard if row.state else None


_CLOCK: ColumnElement[float] = literal_column(
    "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
)

_UPDATE = text(
    "UPDATE ranks SET attempt = :attempt, at = :at, deviates = :deviates, state = :state"
    " WHERE session = :of AND rank = :number"
)

# Only these numbers are read from a state's text: it may contain NaN, which is not JSON.
_DIGESTS = text(
    "WITH clock AS (SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision) AS now),"
    " heard AS (SELECT session, attempt, at, deviates,"
    "  max(attempt) OVER (PARTITION BY session) AS newest,"
    "  CAST(substring(state from '\"stood\":(-?[0-9]+)') AS bigint) AS stood,"
    "  CAST(substring(state from '\"asked\":(-?[0-9]+)') AS bigint) AS asked,"
    "  CAST(substring(state from '\"reported\":(-?[0-9]+)') AS bigint) AS reported,"
    '  CAST(substring(state from \'"applied":\\{"step":(-?[0-9]+)\') AS bigint) AS applied,'
    "  CAST(substring(state from '\"pace\":([-+.e0-9]+)') AS double precision) AS pace"
    "  FROM ranks WHERE state <> '' AND session IN"
    "  (SELECT json_array_elements_text(CAST(:names AS json))))"
    " SELECT session, newest, count(*) FILTER (WHERE attempt = newest),"
    " count(*) FILTER (WHERE attempt = newest AND now - at > :patience),"
    " count(*) FILTER (WHERE attempt = newest AND deviates = 1),"
    " coalesce(max(greatest(reported, applied,"
    "  CASE WHEN stood < 0 THEN asked ELSE stood END - 1, -1))"
    "  FILTER (WHERE attempt = newest), -1),"
    " max(now) - max(at), max(pace) FILTER (WHERE attempt = newest)"
    " FROM heard, clock GROUP BY session, newest"
)


def _now(connection: Connection) -> float:
    return float(connection.execute(select(_CLOCK)).scalar_one())
