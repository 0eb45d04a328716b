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
from operator import itemgetter
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

JOINED_AT_ONCE = 16
"""How many series one transaction joins blocks of; what it leaves, a later one does."""

MAX_TAILS = 100_000
"""How many series memory holds, before it forgets all and looks them up again."""


Row = tuple[Any, ...]
"""A value that is appended, with its step and what stands beside it."""

Series = tuple[int, int, int]
"""Whose values stand together: a session's id, a metric's, and the number of an attempt."""

KEY = ("session_id", "metric_id", "attempt")


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

    def _newest(self, connection: Connection, series: Series, at_least: int) -> list["_Found"]:
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
        return [_Found(number, Block(*columns)) for number, *columns in rows]

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
        rows = connection.execute(query, {"wanted": json.dumps(every)})
        found = {(row[0], row[1], row[2]): row[3] for row in rows}
        return {series: found.get(series) or 0 for series in every}

    def overlapping(
        self, connection: Connection, wanted: Sequence[tuple[int, ...]]
    ) -> dict[Series, list["_Found"]]:
        """Read the blocks that have values in ranges of steps, each of them once.

        Args:
            connection: Reads.
            wanted: Each a series, with the first and the last step of a range.
        """
        found: dict[Series, dict[tuple[int, int], _Found]] = defaultdict(dict)
        if wanted:
            query = _statements(self.table, connection.dialect).overlapping
            for row in connection.execute(query, {"wanted": json.dumps(wanted)}):
                block = Block(*row[4:])
                found[row[0], row[1], row[2]][block.until, row.number] = _Found(row.number, block)
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
        if not self._shared:  # else nothing relies on it but when blocks are joined
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
        self._find_ends(connection, given)
        parts = [
            (series, part) for series, some in given.items() for part in self._parts(series, some)
        ]
        known = self._blocks.overlapping(connection, self._doubtful(parts))
        numbers: dict[tuple[Series, int], int] = defaultdict(int)
        for series, there in known.items():
            for number, block in there:
                numbers[series, block.until] = max(numbers[series, block.until], number + 1)
        rows: list[tuple[Any, ...]] = []
        for series, part in parts:
            written = 0
            for block in self._fresh(part, known.get(series, ())):
                number = numbers[series, block.until]
                numbers[series, block.until] += 1
                rows.append((*series, block.until, number, block.start, block.size, block.data))
                self._tails[series].grow(block)
                written += block.size
            if strictly and written < len(part):
                raise TakenError(f"one of {len(part)} values at step {part[0][self._blocks.step]}")
        if rows:
            insert(self._blocks.table, rows)
        self._join_small(connection, given, insert)

    def _parts(self, series: Series, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Return what is new, and what is late, in parts whose steps lie near each other.

        A block that reached from a late step to a new one would be read with all steps between.
        """
        place, until = self._blocks.step, self._tails[series].until
        late = [row for row in rows if row[place] < until]
        if not late:
            yield rows
            return
        if len(late) < len(rows):
            yield [row for row in rows if row[place] >= until]
        late.sort(key=itemgetter(place))  # stable: of a value that comes twice the first counts
        begin = 0
        for end in range(1, len(late) + 1):
            if end == len(late) or late[end][place] - late[end - 1][place] > FULL:
                yield late[begin:end]
                begin = end

    def _find_ends(self, connection: Connection, given: Iterable[Series]) -> None:
        """See to it that the ends of all series are known, as they are now."""
        if len(self._tails) > MAX_TAILS:
            self._tails.clear()
        unknown = [each for each in given if self._shared or each not in self._tails]
        for series, until in self._blocks.ends(connection, unknown).items():
            tail = self._tails.get(series)
            if tail is None:
                tail = self._tails[series] = _Tail()
            tail.until = until

    def _doubtful(self, parts: Iterable[tuple[Series, Sequence[Row]]]) -> list[tuple[int, ...]]:
        """Return where values may be there already: each series, with a first and a last step."""
        place = self._blocks.step
        return [
            (*series, part[0][place], part[-1][place])
            for series, part in parts
            if part[0][place] < self._tails[series].until
        ]

    def _fresh(self, rows: Sequence[Row], there: Sequence["_Found"]) -> Iterable[Block]:
        """Return what is not there yet of some values, as blocks."""
        shape = self._blocks
        steps = [row[shape.step] for row in rows]
        start, end = min(steps), max(steps) + 1
        near = [each.block for each in there if each.block.start < end and each.block.until > start]
        if not near and len(rows) == 1:
            [row] = rows
            return (pack_one(steps[0], [row[each] for each in shape.places], row[shape.value]),)
        lists = shape.lists(rows)
        if not near:
            regular = pack_regular(lists)
            if regular is not None:
                return (regular,)
        columns = Columns.joined([Columns.of(lists)])
        if near:
            columns = columns.without(unpack_all(near, shape.beside))
        return columns.blocks()

    def _join_small(
        self, connection: Connection, written: Iterable[Series], insert: Insert
    ) -> None:
        tails = [(series, self._tails[series]) for series in written]
        long = sorted((each for each in tails if each[1].is_long), key=lambda each: -each[1].blocks)
        for series, tail in long[:JOINED_AT_ONCE]:
            self._blocks.join(connection, series, at_least=tail.blocks, insert=insert)
            tail.blocks = tail.values = 0


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
        ends=_of_a_list(_SELECT_ENDS, table, dialect),
        overlapping=_of_a_list(_SELECT_OVERLAPPING, table, dialect),
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


def _of_a_list(statement: str, table: Table, dialect: Dialect) -> TextClause:
    """Return a query by a list of series and steps, which is one parameter however long it is."""
    if dialect.name == "postgresql":
        wanted = "json_array_elements(CAST(:wanted AS json)) AS w(value)"
        place = "CAST(w.value ->> {} AS bigint)"
    else:
        wanted, place = "json_each(:wanted) AS w", "json_extract(w.value, '$[{}]')"
    places = [place.format(number) for number in range(5)]
    return text(statement.format(*places, wanted=wanted, table=table.name))
