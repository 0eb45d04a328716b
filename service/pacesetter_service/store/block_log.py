"""Tables of blocks: what ranks reported, and what controllers saw of it; each value once.

What one call brings of a metric is one block. Small blocks are joined as they become many, so that
a value takes little more than its 8 bytes. No value is in two blocks: what may be there already is
looked up before it is written.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    Select,
    Table,
    TextClause,
    and_,
    bindparam,
    delete,
    select,
    text,
    tuple_,
)

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.store.blocks import (
    FULL,
    Block,
    Columns,
    Lists,
    in_order,
    nothing,
    pack_one,
    pack_regular,
    unpack_all,
)
from pacesetter_service.store.schema import measurement_blocks, metrics, reading_blocks

Read = Callable[[Executable], Sequence[Any]]
"""Runs a query and returns its rows."""

Insert = Callable[[Table, list[tuple[Any, ...]]], None]
"""Writes rows of a table, whole and in the order of its columns."""

MANY = 128
"""So many new blocks of one series are joined."""

GROWN = 8
"""How many blocks that were joined before may be joined with new ones; each is twice the next."""

JOINED_AT_ONCE = 16
"""How many series one transaction joins blocks of; what it leaves, a later one does."""

MAX_TAILS = 100_000
"""How many series memory holds, before it forgets all and looks them up again."""


FAR = 2**62
"""A step after all others."""


Row = tuple[Any, ...]
"""A value that is appended, with its step and what stands beside it."""

Series = tuple[int, int, int]
"""Whose values stand together: a session's id, a metric's, and the number of an attempt."""

KEY = ("session_id", "metric_id", "attempt")


class Range(NamedTuple):
    """The steps `start` to `until`."""

    start: int
    until: int


class TakenError(Exception):
    """A value that is to be new is there already."""


@dataclass(frozen=True)
class Blocks:
    """A table of blocks.

    Attributes:
        table: The table.
        places: Where in a row that is appended the numbers stand that are beside its value.
        step: Where its step stands.
        value: Where its value stands.
    """

    table: Table
    places: tuple[int, ...]
    step: int
    value: int

    @property
    def beside(self) -> int:
        """How many numbers stand beside a value."""
        return len(self.places)

    def lists(self, rows: Sequence[Row]) -> Lists:
        """Return rows column by column."""
        steps = [row[self.step] for row in rows]
        beside = tuple([row[place] for row in rows] for place in self.places)
        return Lists(steps, beside, [row[self.value] for row in rows])

    def between(self, read: Read, ref: AttemptRef, metric: str, start: int, end: int) -> Columns:
        """Read an attempt's values of a metric at the steps `start` to `end`, in their order."""
        found = self.all_between(read, ref, (metric,), start, end)
        return found.get(metric) or nothing(self.beside)

    def all_between(
        self, read: Read, ref: AttemptRef, names: Iterable[str] | None, start: int, end: int
    ) -> dict[str, Columns]:
        """Read an attempt's values at the steps `start` to `end`, of some metrics or of all."""
        blocks: dict[str, list[Block]] = defaultdict(list)
        for name, *block in read(self._overlapping(ref, names, start, end)):
            blocks[name].append(Block(*block))
        return {
            name: unpack_all(some, self.beside).between(start, end) for name, some in blocks.items()
        }

    def _overlapping(
        self, ref: AttemptRef, names: Iterable[str] | None, start: int, end: int
    ) -> Select[Any]:
        mine = self.table.c
        query = (
            select(metrics.c.name, *self._block)
            .join(metrics, metrics.c.id == mine.metric_id)
            .where(mine.session_id == ref.session_id, mine.attempt == ref.attempt)
            .where(mine.until > start, mine.start < end)
        )
        return query if names is None else query.where(metrics.c.name.in_(names))

    def stream(self, connection: Connection, series: Series, size: int) -> Iterator[Columns]:
        """Read all of a series in its order, `size` values at a time."""
        query = select(*self._block).where(self._of(series)).order_by(self.table.c.start)
        rows = connection.execute(query.execution_options(yield_per=MANY))
        return in_order((Block(*row) for row in rows), self.beside, size)

    def join(
        self, connection: Connection, series: Series, *, at_least: int, insert: Insert
    ) -> None:
        """Join the newest blocks of a series, and older ones that are no larger than all of these.

        So each value is written again no more often than its block can double.
        """
        run = self._newest(connection, series, at_least)
        if len(run) < 2:
            return
        first = run[-1]
        from_there = (*series, first.block.until, first.number)
        connection.exec_driver_sql(_statements(self.table, connection.dialect).remove, from_there)
        joined = unpack_all([each.block for each in reversed(run)], self.beside)
        insert(
            self.table,
            [
                (*series, block.until, number, block.start, block.size, block.data)
                for number, block in enumerate(joined.blocks(), first.number)
            ],
        )

    def _newest(self, connection: Connection, series: Series, at_least: int) -> list["_Found"]:
        query = _statements(self.table, connection.dialect).newest
        rows = connection.exec_driver_sql(query, series).all()
        run: list[_Found] = []
        values = 0
        for number, *columns in rows:
            block = Block(*columns)
            if block.size >= FULL or (len(run) >= at_least and block.size > values):
                break
            run.append(_Found(number, block))
            values += block.size
        return run

    def overlapping(
        self, connection: Connection, wanted: Mapping[Series, Range]
    ) -> dict[Series, list["_Found"]]:
        """Read the blocks that have values in ranges of steps, of many series at once."""
        found: dict[Series, list[_Found]] = defaultdict(list)
        if wanted:
            given = {"wanted": json.dumps([(*series, *steps) for series, steps in wanted.items()])}
            query = _statements(self.table, connection.dialect).overlapping
            for row in connection.execute(query, given):
                found[tuple(row[:3])].append(_Found(row.number, Block(*row[4:])))
        return found

    @property
    def _block(self) -> list[ColumnElement[Any]]:
        return [self.table.c[name] for name in Block._fields]

    def _of(self, series: Series) -> ColumnElement[bool]:
        return and_(*(self.table.c[name] == each for name, each in zip(KEY, series, strict=True)))


READINGS = Blocks(reading_blocks, places=(0,), step=1, value=3)
"""Rows are readings: beside a value is the rank that reported it."""

MEASUREMENTS = Blocks(measurement_blocks, places=(1, 2), step=0, value=3)
"""Rows have a step, of how many ranks the value was made, the horizon then, and the value."""


class _Found(NamedTuple):
    """A block that is there, under its number among those with the same end."""

    number: int
    block: Block


@dataclass(slots=True)
class _Tail:
    """The end of a series.

    Attributes:
        until: The step after the last of its values.
        blocks: How many blocks were written since small ones were joined.
        values: How many values are in these.
    """

    until: int = 0
    blocks: int = 0
    values: int = 0

    def grow(self, block: Block) -> None:
        """Note that a block was written."""
        self.until = max(self.until, block.until)
        self.blocks += 1
        self.values += block.size

    @property
    def is_long(self) -> bool:
        return self.blocks >= MANY or (self.blocks > 1 and self.values >= FULL)


class BlockLog:
    """Appends values to a table of blocks.

    Args:
        blocks: The table.
        shared: Whether other writers append, too. Otherwise what this one remembers is enough to
            know that a value is new.
    """

    def __init__(self, blocks: Blocks, *, shared: bool) -> None:
        self._blocks = blocks
        self._shared = shared
        self._tails: dict[Series, _Tail] = {}

    def forget(self) -> None:
        """Forget what was written; it may not have been kept."""
        self._tails.clear()

    def append(
        self,
        connection: Connection,
        given: Mapping[Series, Sequence[Row]],
        insert: Insert,
        *,
        strictly: bool = False,
    ) -> None:
        """Write values, each of which counts once; the first that is there stays.

        Args:
            connection: Reads what is there, in the transaction that writes.
            given: The values.
            insert: Writes rows.
            strictly: Whether all are to be new.

        Raises:
            TakenError: One is there already, and that was not to be.
        """
        if len(self._tails) > MAX_TAILS:
            self._tails.clear()
        known = self._blocks.overlapping(connection, self._doubtful(given))
        if known and strictly:
            raise TakenError(str(next(iter(known))))
        rows: list[tuple[Any, ...]] = []
        for series, some in given.items():
            tail = self._tails.get(series)
            if tail is None:
                tail = self._tails[series] = _Tail()
            there = known.get(series, ())
            number = 0
            for each in there:
                number = max(number, each.number + 1)
                tail.until = max(tail.until, each.block.until)
            for block in self._fresh(some, [each.block for each in there]):
                rows.append((*series, block.until, number, block.start, block.size, block.data))
                tail.grow(block)
                number += 1
        if rows:
            insert(self._blocks.table, rows)
        self._join_small(connection, given, insert)

    def _doubtful(self, given: Mapping[Series, Sequence[Row]]) -> dict[Series, Range]:
        """Return where values may be there already."""
        found = {}
        place = self._blocks.step
        for series, rows in given.items():
            tail = None if self._shared else self._tails.get(series)
            start = min(row[place] for row in rows) if len(rows) > 1 else rows[0][place]
            if tail is None and not self._shared:
                found[series] = Range(start, FAR)  # the end of the series is to be found, too
            elif tail is None or start < tail.until:
                found[series] = Range(start, max(row[place] for row in rows) + 1)
        return found

    def _fresh(self, rows: Sequence[Row], there: Sequence[Block]) -> Iterable[Block]:
        """Return what is not there yet of some values, as blocks."""
        blocks = self._blocks
        if not there and len(rows) == 1:
            [row] = rows
            return (
                pack_one(
                    row[blocks.step], [row[each] for each in blocks.places], row[blocks.value]
                ),
            )
        lists = blocks.lists(rows)
        if not there:
            regular = pack_regular(lists)
            if regular is not None:
                return (regular,)
        columns = Columns.joined([Columns.of(lists)])
        if there:
            columns = columns.without(unpack_all(there, blocks.beside))
        return columns.blocks()

    def _join_small(
        self, connection: Connection, written: Iterable[Series], insert: Insert
    ) -> None:
        tails = [(series, self._tails[series]) for series in written if series in self._tails]
        for series, tail in [each for each in tails if each[1].is_long][:JOINED_AT_ONCE]:
            self._blocks.join(connection, series, at_least=tail.blocks, insert=insert)
            tail.blocks = tail.values = 0


class _Statements(NamedTuple):
    """What is said so often that it is text, without what SQLAlchemy would do each time."""

    remove: str
    newest: str
    overlapping: TextClause


@cache
def _statements(table: Table, dialect: Dialect) -> _Statements:
    mine = and_(*(table.c[name] == bindparam(name) for name in KEY))
    place = tuple_(table.c.until, table.c.number)
    from_there = place >= tuple_(bindparam("until"), bindparam("number"))
    newest = (
        select(*(table.c[name] for name in ("number", *Block._fields)))
        .where(mine)
        .order_by(table.c.until.desc(), table.c.number.desc())
    )

    def said(statement: ClauseElement) -> str:
        return str(statement.compile(dialect=dialect))

    return _Statements(
        remove=said(delete(table).where(mine, from_there)),
        newest=f"{said(newest)} LIMIT {MANY + GROWN}",  # SQLAlchemy would add an offset
        overlapping=_overlapping(table, dialect),
    )


_SELECT_OVERLAPPING = (
    "SELECT b.session_id, b.metric_id, b.attempt, b.number, b.start, b.until, b.size, b.data"
    " FROM {wanted} CROSS JOIN {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}"
    " AND b.until > {3} AND b.start < {4}"
    " ORDER BY b.session_id, b.metric_id, b.attempt, b.until, b.number"
)


def _overlapping(table: Table, dialect: Dialect) -> TextClause:
    """Return the query for blocks by a list of series and steps, one parameter however long."""
    if dialect.name == "postgresql":
        wanted = "json_array_elements(CAST(:wanted AS json)) AS w(value)"
        place = "CAST(w.value ->> {} AS bigint)"
    else:
        wanted, place = "json_each(:wanted) AS w", "json_extract(w.value, '$[{}]')"
    places = [place.format(number) for number in range(5)]
    return text(_SELECT_OVERLAPPING.format(*places, wanted=wanted, table=table.name))
