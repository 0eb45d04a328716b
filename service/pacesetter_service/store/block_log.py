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
    ColumnElement,
    Connection,
    Dialect,
    Executable,
    Select,
    Table,
    TextClause,
    and_,
    delete,
    insert,
    select,
    text,
    tuple_,
)

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.store.blocks import (
    FULL,
    Block,
    Columns,
    Point,
    in_order,
    nothing,
    pack_one,
    unpack_all,
)
from pacesetter_service.store.schema import measurement_blocks, metrics, reading_blocks

Read = Callable[[Executable], Sequence[Any]]
"""Runs a query and returns its rows."""

MANY = 64
"""So many small blocks of one series are joined."""

JOINED_AT_ONCE = 16
"""How many series one transaction joins blocks of; what it leaves, a later one does."""

MAX_TAILS = 100_000
"""How many series memory holds, before it forgets all and looks them up again."""


FAR = 2**62
"""A step after all others."""


class Series(NamedTuple):
    """Whose values stand together."""

    session_id: int
    metric_id: int
    attempt: int


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
        beside: How many numbers stand beside a value.
    """

    table: Table
    beside: int

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

    def join(self, connection: Connection, series: Series, *, at_least: int) -> None:
        """Join the newest blocks of a series, and older ones that are no larger than all of these.

        So each value is written again no more often than its block can double.
        """
        run = self._newest(connection, series, at_least)
        if len(run) < 2:
            return
        first = run[-1]
        key = tuple_(self.table.c.until, self.table.c.number)
        connection.execute(
            delete(self.table).where(self._of(series), key >= (first.block.until, first.number))
        )
        joined = unpack_all((each.block for each in reversed(run)), self.beside)
        rows = [
            {**series._asdict(), "number": number, **block._asdict()}
            for number, block in enumerate(joined.blocks(), first.number)
        ]
        connection.execute(insert(self.table), rows)

    def _newest(self, connection: Connection, series: Series, at_least: int) -> list["_Found"]:
        mine = self.table.c
        query = (
            select(mine.number, *self._block)
            .where(self._of(series))
            .order_by(mine.until.desc(), mine.number.desc())
            .limit(at_least + MANY)
        )
        run: list[_Found] = []
        values = 0
        for number, *columns in connection.execute(query):
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
            for row in connection.execute(_overlapping(self.table, connection.dialect), given):
                found[Series(*row[:3])].append(_Found(row.number, Block(*row[4:])))
        return found

    @property
    def _block(self) -> list[ColumnElement[Any]]:
        return [self.table.c[name] for name in Block._fields]

    def _of(self, series: Series) -> ColumnElement[bool]:
        return and_(*(self.table.c[name] == value for name, value in series._asdict().items()))


READINGS = Blocks(reading_blocks, 1)
"""Beside a value is the rank that reported it."""

MEASUREMENTS = Blocks(measurement_blocks, 2)
"""Beside a value is of how many ranks it was made, and the horizon when controllers saw it."""


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

    def reach(self, until: int) -> None:
        """Note that there are values up to a step."""
        self.until = max(self.until, until)

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
        given: Mapping[Series, Sequence[Point]],
        *,
        strictly: bool = False,
    ) -> None:
        """Write values, each of which counts once; the first that is there stays.

        Raises:
            TakenError: One is there already, and that was not to be.
        """
        if len(self._tails) > MAX_TAILS:
            self._tails.clear()
        known = self._blocks.overlapping(connection, self._doubtful(given))
        if known and strictly:
            raise TakenError(str(next(iter(known))))
        rows = []
        for series, points in given.items():
            there = known.get(series, [])
            for each in there:
                self._tail_of(series).reach(each.block.until)
            number = max((each.number for each in there), default=-1) + 1
            for block in self._fresh(points, [each.block for each in there]):
                rows.append((*series, block.until, number, block.start, block.size, block.data))
                self._note(series, block)
                number += 1
        if rows:
            connection.exec_driver_sql(_insert(self._blocks.table, connection.dialect), rows)
        self._join_small(connection, given)

    def _doubtful(self, given: Mapping[Series, Sequence[Point]]) -> dict[Series, Range]:
        """Return where values may be there already."""
        found = {}
        for series, points in given.items():
            start, until = points[0].step, points[-1].step + 1
            if len(points) > 1:
                start = min(each.step for each in points)
                until = max(each.step for each in points) + 1
            if self._shared:
                found[series] = Range(start, until)
            elif (tail := self._tails.get(series)) is None:
                found[series] = Range(start, FAR)  # so the series' end is found, too
            elif start < tail.until:
                found[series] = Range(start, until)
        return found

    def _fresh(self, points: Sequence[Point], there: Sequence[Block]) -> Iterable[Block]:
        """Return what is not there yet of some values, as blocks."""
        if len(points) == 1 and not there:
            return (pack_one(points[0]),)
        columns = Columns.joined([Columns.of(points)])
        if there:
            columns = columns.without(unpack_all(there, self._blocks.beside))
        return columns.blocks()

    def _note(self, series: Series, block: Block) -> None:
        tail = self._tail_of(series)
        tail.reach(block.until)
        tail.blocks += 1
        tail.values += block.size

    def _tail_of(self, series: Series) -> _Tail:
        tail = self._tails.get(series)
        if tail is None:
            tail = self._tails[series] = _Tail()
        return tail

    def _join_small(self, connection: Connection, written: Iterable[Series]) -> None:
        tails = [(series, self._tails[series]) for series in written if series in self._tails]
        for series, tail in [each for each in tails if each[1].is_long][:JOINED_AT_ONCE]:
            self._blocks.join(connection, series, at_least=tail.blocks)
            tail.blocks = tail.values = 0


@cache
def _insert(table: Table, dialect: Dialect) -> str:
    return str(insert(table).compile(dialect=dialect))


_SELECT_OVERLAPPING = (
    "SELECT b.session_id, b.metric_id, b.attempt, b.number, b.start, b.until, b.size, b.data"
    " FROM {wanted} CROSS JOIN {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}"
    " AND b.until > {3} AND b.start < {4}"
    " ORDER BY b.session_id, b.metric_id, b.attempt, b.until, b.number"
)


@cache
def _overlapping(table: Table, dialect: Dialect) -> TextClause:
    """Return the query for blocks by a list of series and steps, one parameter however long."""
    if dialect.name == "postgresql":
        wanted = "json_array_elements(CAST(:wanted AS json)) AS w(value)"
        place = "CAST(w.value ->> {} AS bigint)"
    else:
        wanted, place = "json_each(:wanted) AS w", "json_extract(w.value, '$[{}]')"
    places = [place.format(number) for number in range(5)]
    return text(_SELECT_OVERLAPPING.format(*places, wanted=wanted, table=table.name))
