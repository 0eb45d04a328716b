"""Tables of blocks: what ranks reported, and what controllers saw of it.

Small blocks are joined as they become many, so that a value takes little more than its 8 bytes.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    func,
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
    unpack_all,
)
from pacesetter_service.store.schema import measurement_blocks, metrics, reading_blocks

Read = Callable[[Executable], Sequence[Any]]
"""Runs a query and returns its rows."""

Insert = Callable[[Table, list[tuple[Any, ...]]], None]
"""Writes rows of a table, whole and in the order of its columns."""

MANY = 128
"""So many new blocks of one series are joined."""

Row = tuple[Any, ...]
"""A value that is appended, with its step and what stands beside it."""

Series = tuple[int, int, int]
"""Whose values stand together: a session's id, a metric's, and the number of an attempt."""

KEY = ("session_id", "metric_id", "attempt")


class StoredBlock(NamedTuple):
    """A block that is there, under its number among those with the same end."""

    number: int
    block: Block


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
        joined = list(unpack_all([each.block for each in reversed(run)], self.beside).blocks())
        # A step may have more values than a block holds: then several blocks end there.
        ends = [each.until for each in joined if each.until <= first.block.until]
        free = self._free_numbers(connection, series, ends) if ends else {}
        rows = []
        for block in joined:
            number = free.get(block.until, 0)
            free[block.until] = number + 1
            rows.append((*series, block.until, number, block.start, block.size, block.data))
        insert(self.table, rows)

    def _newest(self, connection: Connection, series: Series, at_least: int) -> list[StoredBlock]:
        """Read the blocks to be joined, the newest first: by their sizes, and then those alone."""
        said = _statements(self.table, connection.dialect)
        limit = f" LIMIT {at_least + MANY}"  # as text: SQLAlchemy would add an offset
        count = values = 0
        for (size,) in connection.exec_driver_sql(said.sizes + limit, series).all():
            if size >= FULL or (count >= at_least and size > values):
                break
            count, values = count + 1, values + size
        if count < 2:
            return []
        rows = connection.exec_driver_sql(f"{said.newest} LIMIT {count}", series).all()
        return [StoredBlock(number, Block(*columns)) for number, *columns in rows]

    def _free_numbers(
        self, connection: Connection, series: Series, ends: Sequence[int]
    ) -> dict[int, int]:
        """Return the first number that no block of a series has, for each of some ends."""
        mine = self.table.c
        query = (
            select(mine.until, func.max(mine.number) + 1)
            .where(self._of(series), mine.until.in_(ends))
            .group_by(mine.until)
        )
        return {row[0]: row[1] for row in connection.execute(query)}

    def ends(self, connection: Connection, wanted: Iterable[Series]) -> dict[Series, int]:
        """Read the step after the last value of each series, of many at once; 0 for no value."""
        every = list(wanted)
        if not every:
            return {}
        query = _statements(self.table, connection.dialect).ends
        rows = connection.execute(query, {"wanted": as_parameter(every)})
        found = {(row[0], row[1], row[2]): row[3] for row in rows}
        return {series: found.get(series) or 0 for series in every}

    def overlapping(
        self, connection: Connection, wanted: Sequence[tuple[int, ...]]
    ) -> dict[Series, list[StoredBlock]]:
        """Read the blocks that have values in ranges of steps, each of them once.

        Args:
            connection: Reads.
            wanted: Each a series, with the first and the last step of a range.
        """
        found: dict[Series, dict[tuple[int, int], StoredBlock]] = defaultdict(dict)
        if wanted:
            query = _statements(self.table, connection.dialect).overlapping
            for row in connection.execute(query, {"wanted": as_parameter(wanted)}):
                block = Block(*row[4:])
                found[row[0], row[1], row[2]][block.until, row.number] = StoredBlock(
                    row.number, block
                )
        return {series: list(blocks.values()) for series, blocks in found.items()}

    @property
    def _block(self) -> list[ColumnElement[Any]]:
        return [self.table.c[name] for name in Block._fields]

    def _of(self, series: Series) -> ColumnElement[bool]:
        return and_(*(self.table.c[name] == each for name, each in zip(KEY, series, strict=True)))


READINGS = Blocks(reading_blocks, places=(0,), step=1, value=3)
"""Rows are readings: beside a value is the rank that reported it."""

MEASUREMENTS = Blocks(measurement_blocks, places=(1, 2), step=0, value=3)
"""Rows have a step, of how many ranks the value was made, the horizon then, and the value."""


class _Statements(NamedTuple):
    """What is said so often that it is text, without what SQLAlchemy would do each time."""

    remove: str
    sizes: str
    newest: str
    ends: TextClause
    overlapping: TextClause


@cache
def _statements(table: Table, dialect: Dialect) -> _Statements:
    mine = and_(*(table.c[name] == bindparam(name) for name in KEY))
    place = tuple_(table.c.until, table.c.number)
    from_there = place >= tuple_(bindparam("until"), bindparam("number"))
    newest_first = (table.c.until.desc(), table.c.number.desc())
    newest = select(*(table.c[name] for name in ("number", *Block._fields)))

    def said(statement: ClauseElement) -> str:
        return str(statement.compile(dialect=dialect))

    return _Statements(
        remove=said(delete(table).where(mine, from_there)),
        sizes=said(select(table.c.size).where(mine).order_by(*newest_first)),
        newest=said(newest.where(mine).order_by(*newest_first)),
        ends=of_a_list(_SELECT_ENDS, table, dialect),
        overlapping=of_a_list(_SELECT_OVERLAPPING, table, dialect),
    )


_SELECT_ENDS = (
    "SELECT {0}, {1}, {2}, (SELECT max(b.until) FROM {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}) FROM {wanted}"
)

_SELECT_OVERLAPPING = (
    "SELECT b.session_id, b.metric_id, b.attempt, b.number, b.start, b.until, b.size, b.data"
    " FROM {wanted} CROSS JOIN {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}"
    " AND b.until > {3} AND b.start <= {4}"
    " ORDER BY b.session_id, b.metric_id, b.attempt, b.until, b.number"
)


def as_parameter(rows: Sequence[Sequence[int]]) -> str:
    """Return rows of numbers as the parameter `wanted` of such a query."""
    return json.dumps(rows)


def of_a_list(statement: str, table: Table, dialect: Dialect) -> TextClause:
    """Return a query by a list of rows of numbers, which is one parameter however long it is.

    Args:
        statement: Has `{0}` for the first number of a row and so on, `{wanted}` for the rows as a
            table, and `{table}`.
        table: That table.
        dialect: The database's.
    """
    if dialect.name == "postgresql":
        wanted = "json_array_elements(CAST(:wanted AS json)) AS w(value)"
        place = "CAST(w.value ->> {} AS bigint)"
    else:
        wanted, place = "json_each(:wanted) AS w", "json_extract(w.value, '$[{}]')"
    places = [place.format(number) for number in range(5)]
    return text(statement.format(*places, wanted=wanted, table=table.name))
