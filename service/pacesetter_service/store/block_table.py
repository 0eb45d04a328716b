"""Tables of blocks: what ranks reported, and what controllers saw of it.

When small blocks become many, they are joined, so that a value takes little more than 8 bytes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
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
    bindparam,
    delete,
    func,
    select,
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
from pacesetter_service.store.lists import as_parameter, of_a_list, rows_of_each
from pacesetter_service.store.schema import measurement_blocks, metrics, reading_blocks

Read = Callable[[Executable], Sequence[Any]]
"""Runs a query and returns its rows."""

Insert = Callable[[Table, list[tuple[Any, ...]]], None]
"""Writes complete rows of a table, in the order of its columns."""

MANY = 128
"""How many new blocks of one series are joined."""

Row = tuple[Any, ...]
"""A value to append, with its step and the numbers beside it."""

Series = tuple[int, int, int]
"""The key of values that are stored together: ids of session and metric, and the attempt."""

KEY = ("session_id", "metric_id", "attempt")


class StoredBlock(NamedTuple):
    """A stored block, and its number among those with the same end."""

    number: int
    block: Block

    @property
    def place(self) -> tuple[int, int]:
        """Its end and its number, by which the blocks of a series are ordered."""
        return self.block.until, self.number


@dataclass(frozen=True)
class Blocks:
    """A table of blocks.

    Attributes:
        table: The table.
        places: The indices of the numbers beside the value in an appended row.
        step: The index of its step.
        value: The index of its value.
    """

    table: Table
    places: tuple[int, ...]
    step: int
    value: int

    @property
    def beside(self) -> int:
        """How many numbers are stored beside a value."""
        return len(self.places)

    def lists(self, rows: Sequence[Row]) -> Lists:
        """Return rows column by column."""
        steps = [row[self.step] for row in rows]
        beside = tuple([row[place] for row in rows] for place in self.places)
        return Lists(steps, beside, [row[self.value] for row in rows])

    def between(self, read: Read, ref: AttemptRef, metric: str, start: int, end: int) -> Columns:
        """Read an attempt's values of a metric at the steps `start` to `end`, in order."""
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
        """Read a whole series in order, `size` values at a time."""
        query = select(*self._block).where(self._of(series)).order_by(self.table.c.start)
        rows = connection.execute(query.execution_options(yield_per=MANY))
        return in_order((Block(*row) for row in rows), self.beside, size)

    def join(self, connection: Connection, at_least: Mapping[Series, int], insert: Insert) -> None:
        """Join the newest blocks of each series, and older ones no larger than these together.

        So each value is rewritten no more often than its block can double. The number of
        statements, each a round trip to the server, does not depend on the number of series, except
        for steps that fill whole blocks.

        Args:
            connection: Reads and removes, in the transaction that writes.
            at_least: For each series, how many of its newest blocks must be joined.
            insert: Writes rows.
        """
        runs = self._newest(connection, at_least)
        if not runs:
            return
        firsts = {series: run[-1] for series, run in runs.items()}
        from_there = [(*series, each.block.until, each.number) for series, each in firsts.items()]
        connection.exec_driver_sql(_statements(self.table, connection.dialect).remove, from_there)
        rows: list[tuple[Any, ...]] = []
        for series, run in runs.items():
            joined = list(unpack_all([each.block for each in reversed(run)], self.beside).blocks())
            # A step may have more values than a block holds; then several blocks end at it.
            first = firsts[series].block
            ends = [each.until for each in joined if each.until <= first.until]
            free = self._free_numbers(connection, series, ends) if ends else {}
            for block in joined:
                number = free.get(block.until, 0)
                free[block.until] = number + 1
                rows.append((*series, block.until, number, block.start, block.size, block.data))
        insert(self.table, rows)

    def _newest(
        self, connection: Connection, at_least: Mapping[Series, int]
    ) -> dict[Series, list[StoredBlock]]:
        """Read the blocks to join, newest first: the sizes of more, then the data of only these."""
        said = _statements(self.table, connection.dialect)
        sizes: dict[Series, list[tuple[int, int, int]]] = defaultdict(list)
        wanted = {
            "wanted": as_parameter(list(at_least)),
            "most": max(at_least.values(), default=0) + MANY,
        }
        for row in connection.execute(said.sizes, wanted):
            sizes[row[0], row[1], row[2]].append(tuple(row[3:]))
        since = {
            series: newest[count - 1][:2]
            for series, some in sizes.items()
            for newest in [sorted(some, reverse=True)]
            for count in [_joined(newest, at_least[series])]
            if count > 1
        }
        found: dict[Series, list[StoredBlock]] = {series: [] for series in since}
        if since:
            edges = [(*series, until) for series, (until, _) in since.items()]
            for row in connection.execute(said.newest, {"wanted": as_parameter(edges)}):
                series = row[0], row[1], row[2]
                stored = StoredBlock(row[3], Block(*row[4:]))
                if stored.place >= since[series]:
                    found[series].append(stored)
        for run in found.values():
            run.sort(key=attrgetter("place"), reverse=True)
        return found

    def _free_numbers(
        self, connection: Connection, series: Series, ends: Sequence[int]
    ) -> dict[int, int]:
        """Return the next free block number of a series for each of some ends."""
        mine = self.table.c
        query = (
            select(mine.until, func.max(mine.number) + 1)
            .where(self._of(series), mine.until.in_(ends))
            .group_by(mine.until)
        )
        return {row[0]: row[1] for row in connection.execute(query)}

    def ends(self, connection: Connection, wanted: Iterable[Series]) -> dict[Series, int]:
        """Read the step after the last value of each of many series; 0 for no value."""
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
        """Read the blocks that have values in ranges of steps, each block once.

        Args:
            connection: Reads.
            wanted: Series, each with the first and the last step of a range.
        """
        found: dict[Series, dict[tuple[int, int], StoredBlock]] = defaultdict(dict)
        if wanted:
            query = _statements(self.table, connection.dialect).overlapping
            for row in connection.execute(query, {"wanted": as_parameter(wanted)}):
                block = Block(*row[4:])
                found[row[0], row[1], row[2]][block.until, row.number] = StoredBlock(
                    row.number, block
                )
        return {
            series: [block for _, block in sorted(blocks.items())]
            for series, blocks in found.items()
        }

    @property
    def _block(self) -> list[ColumnElement[Any]]:
        return [self.table.c[name] for name in Block._fields]

    def _of(self, series: Series) -> ColumnElement[bool]:
        return and_(*(self.table.c[name] == each for name, each in zip(KEY, series, strict=True)))


READINGS = Blocks(reading_blocks, places=(0,), step=1, value=3)
"""Its rows are readings: the number beside a value is the rank that reported it."""

MEASUREMENTS = Blocks(measurement_blocks, places=(1, 2), step=0, value=3)
"""Its rows have a step, the number of ranks, the horizon at that time, and the value."""


class _Statements(NamedTuple):
    """Frequent statements as text, which saves SQLAlchemy's work for each execution."""

    remove: str
    sizes: TextClause
    newest: TextClause
    ends: TextClause
    overlapping: TextClause


@cache
def _statements(table: Table, dialect: Dialect) -> _Statements:
    mine = and_(*(table.c[name] == bindparam(name) for name in KEY))
    place = tuple_(table.c.until, table.c.number)
    from_there = place >= tuple_(bindparam("until"), bindparam("number"))
    return _Statements(
        remove=str(delete(table).where(mine, from_there).compile(dialect=dialect)),
        sizes=rows_of_each(
            _SIZE,
            _OF_SERIES if dialect.name == "postgresql" else _OF_SERIES + _NOT_BEFORE,
            table,
            dialect,
            last="b.until DESC, b.number DESC",
        ),
        newest=rows_of_each(_WHOLE, f"{_OF_SERIES} AND b.until >= {{3}}", table, dialect),
        ends=of_a_list(_SELECT_ENDS, table, dialect),
        overlapping=rows_of_each(
            _WHOLE, f"{_OF_SERIES} AND b.until > {{3}} AND b.start <= {{4}}", table, dialect
        ),
    )


_SELECT_ENDS = (
    "SELECT {0}, {1}, {2}, (SELECT max(b.until) FROM {table} AS b"
    " WHERE b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}) FROM {wanted}"
)

_OF_SERIES = "b.session_id = {0} AND b.metric_id = {1} AND b.attempt = {2}"

_NOT_BEFORE = (
    " AND b.until >= coalesce((SELECT c.until FROM {table} AS c"
    " WHERE c.session_id = {0} AND c.metric_id = {1} AND c.attempt = {2}"
    " ORDER BY c.until DESC, c.number DESC LIMIT 1 OFFSET :most), -1)"
)
"""SQLite limits the rows of each series by the end of the last one wanted."""

_SIZE = "b.session_id, b.metric_id, b.attempt, b.until, b.number, b.size"

_WHOLE = "b.session_id, b.metric_id, b.attempt, b.number, b.start, b.until, b.size, b.data"


def _joined(sizes: Sequence[tuple[int, int, int]], at_least: int) -> int:
    """Return how many of the newest blocks are joined, by the end, number and size of each."""
    count = values = 0
    for _, _, size in sizes[: at_least + MANY]:
        if size >= FULL or (count >= at_least and size > values):
            break
        count, values = count + 1, values + size
    return count
