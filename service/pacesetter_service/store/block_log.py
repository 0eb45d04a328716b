"""Appending to a table of blocks: each value is kept once, however often it is reported.

The values of a metric in one call make one block. No value is in two blocks: values that may be in
the table already are looked up before they are written.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Connection,
)

from pacesetter_service.store.block_table import MANY, Blocks, Insert, Row, Series, StoredBlock
from pacesetter_service.store.blocks import (
    FULL,
    Block,
    Columns,
    pack_one,
    pack_regular,
    unpack_all,
)

JOINED_AT_ONCE = 16
"""How many series one transaction joins blocks of; a later one does the others."""

MAX_TAILS = 100_000
"""How many series are kept in memory before all are forgotten and looked up again."""


class TakenError(Exception):
    """A value that must be new is in the table already."""


@dataclass(slots=True)
class _Tail:
    """The end of a series.

    Attributes:
        until: The step after its last value.
        blocks: How many blocks were written since small ones were joined.
        values: How many values these blocks have.
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
        shared: Whether other writers append too. If not, this one's memory is enough to know that
            a value is new.
    """

    def __init__(self, blocks: Blocks, *, shared: bool) -> None:
        self._blocks = blocks
        self._shared = shared
        self._tails: dict[Series, _Tail] = {}

    def forget(self) -> None:
        """Forget what was written, because it may not have been committed."""
        if not self._shared:  # if shared, only the joining of blocks relies on them
            self._tails.clear()

    def append(
        self,
        connection: Connection,
        given: Mapping[Series, Sequence[Row]],
        insert: Insert,
        *,
        strictly: bool = False,
    ) -> None:
        """Write values, each of which counts once; a value that is in the table already stays.

        Args:
            connection: Reads existing values, in the transaction that writes.
            given: The values.
            insert: Writes rows.
            strictly: Whether all must be new.

        Raises:
            TakenError: One that must be new is in the table already.
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
        """Return new values, then late ones in parts whose steps lie close together.

        A block from a late step to a new one would be read for every step in between.
        """
        place, until = self._blocks.step, self._tails[series].until
        late = [row for row in rows if row[place] < until]
        if not late:
            yield rows
            return
        if len(late) < len(rows):
            yield [row for row in rows if row[place] >= until]
        late.sort(key=itemgetter(place))  # stable: of duplicates, the first counts
        begin = 0
        for end in range(1, len(late) + 1):
            if end == len(late) or late[end][place] - late[end - 1][place] > FULL:
                yield late[begin:end]
                begin = end

    def _find_ends(self, connection: Connection, given: Iterable[Series]) -> None:
        """Look up the ends of all series that are unknown, or that others may have moved."""
        if len(self._tails) > MAX_TAILS:
            self._tails.clear()
        unknown = [each for each in given if self._shared or each not in self._tails]
        for series, until in self._blocks.ends(connection, unknown).items():
            tail = self._tails.get(series)
            if tail is None:
                tail = self._tails[series] = _Tail()
            tail.until = until

    def _doubtful(self, parts: Iterable[tuple[Series, Sequence[Row]]]) -> list[tuple[int, ...]]:
        """Return where values may exist already: each series, with a first and a last step."""
        place = self._blocks.step
        return [
            (*series, part[0][place], part[-1][place])
            for series, part in parts
            if part[0][place] < self._tails[series].until
        ]

    def _fresh(self, rows: Sequence[Row], there: Sequence[StoredBlock]) -> Iterable[Block]:
        """Return those of some values that do not exist yet, as blocks."""
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
        joined = long[:JOINED_AT_ONCE]
        if joined:
            at_least = {series: tail.blocks for series, tail in joined}
            self._blocks.join(connection, at_least, insert)
        for _, tail in joined:
            tail.blocks = tail.values = 0
