"""Blocks of columns: they keep every value to the bit, once, in little more than its 8 bytes."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select
from sqlalchemy import insert as insert_into
from sqlalchemy.event import listen

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.store import block_log, block_table, blocks, schema
from pacesetter_service.store.block_log import BlockLog, TakenError
from pacesetter_service.store.block_table import MANY, READINGS, Insert, Series
from pacesetter_service.store.blocks import (
    Block,
    Columns,
    Lists,
    in_order,
    pack,
    pack_regular,
    unpack,
)

SERIES: Series = (1, 1, 1)

steps = st.one_of(st.integers(0, 40), st.integers(0, MAX_STEP))
ranks = st.integers(0, 5)
points = st.tuples(steps, ranks, st.floats())
batches = st.lists(st.lists(points, min_size=1, max_size=12), max_size=30)


Point = tuple[int, int, float]


def lists(some: Sequence[Point]) -> Lists:
    """Return values with their steps and ranks as they are collected."""
    steps, ranks, values = map(list, zip(*some, strict=True))
    return Lists(steps, (ranks,), values)


def rows_of(some: Sequence[Point]) -> list[Reading]:
    """Return values with their steps and ranks as readings."""
    return [Reading(rank, step, "loss", value) for step, rank, value in some]


def insert_with(connection: Connection) -> Insert:
    """Return a function that inserts rows."""
    return lambda table, rows: connection.execute(
        insert_into(table), [dict(zip(table.c.keys(), row, strict=True)) for row in rows]
    )


def bits(value: float) -> bytes:
    """Return the bits of a float, the same for every NaN."""
    return b"nan" if isnan(value) else struct.pack("<d", value)


def placed(columns: Columns) -> dict[tuple[int, int], bytes]:
    """Return the bits of each value by its step and rank."""
    keys = zip(columns.steps.tolist(), columns.beside[0].tolist(), strict=True)
    return dict(zip(keys, map(bits, columns.values.tolist()), strict=True))


@given(st.lists(points, min_size=1, max_size=60))
def test_a_block_gives_back_what_was_put_in(some: list[Point]) -> None:
    """All values come back to the bit, whatever their steps and ranks, regular or not."""
    columns = Columns.joined([Columns.of(lists(some))])
    block = pack(columns)
    assert placed(unpack(block, 1)) == placed(columns)
    assert (block.start, block.until, block.size) == (
        columns.steps[0],
        columns.steps[-1] + 1,
        len(columns),
    )


@given(
    st.lists(points, min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(-2, 2),
    st.integers(1, 9),
)
def test_regular_columns_are_packed_as_others_are(
    some: list[Point], stride: int, among: int, count: int
) -> None:
    """The fast path for regular columns writes the same bytes, or leaves it to the general one."""
    step, rank, value = some[0]
    regular = [(step + stride * each, rank + among * each, value) for each in range(count)]
    for given_points in (some, regular):
        block = pack_regular(lists(given_points))
        columns = Columns.of(lists(given_points))
        assert block is None or (columns.is_in_order and block == pack(columns))
    in_order = stride > 0 or among > 0 or count == 1
    assert (pack_regular(lists(regular)) is not None) == in_order


@given(st.lists(st.lists(points, min_size=1, max_size=20), max_size=8), st.integers(1, 7))
def test_blocks_are_read_in_order_piece_by_piece(parts: list[list[Point]], size: int) -> None:
    """Pieces have one size however the blocks overlap, and together hold all values in order."""
    seen: set[tuple[int, int]] = set()
    packed = []
    for part in parts:
        fresh = [each for each in part if each[:2] not in seen]
        seen |= {each[:2] for each in fresh}
        packed += [pack(Columns.joined([Columns.of(lists(fresh))]))] if fresh else []
    packed.sort(key=lambda each: each.start)
    pieces = list(in_order(packed, 1, size))
    keys = [key for piece in pieces for key in placed(piece)]
    assert keys == sorted(seen)
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)


@pytest.fixture(name="connection")
def _connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path}/blocks.db")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@given(batches=batches, restarts=st.sets(st.integers(0, 29)), shared=st.booleans())
def test_the_first_value_of_a_step_and_rank_stays(
    batches: list[list[Point]], restarts: set[int], shared: bool
) -> None:
    """A log is a dictionary that never overwrites, across restarts and joined blocks."""
    engine = create_engine("sqlite://")
    schema.metadata.create_all(engine, [schema.metrics, schema.reading_blocks])
    model: dict[tuple[int, int], bytes] = {}
    with pytest.MonkeyPatch.context() as patched, engine.begin() as connection:
        for module in (block_log, block_table):
            patched.setattr(module, "MANY", 3)
        for module in (block_log, block_table, blocks):
            patched.setattr(module, "FULL", 16)
        log = BlockLog(READINGS, shared=shared)
        for number, batch in enumerate(batches):
            if number in restarts:
                log.forget()
            log.append(connection, {SERIES: rows_of(batch)}, insert_with(connection))
            for step, rank, value in batch:
                model.setdefault((step, rank), bits(value))
        found = list(READINGS.stream(connection, SERIES, 1_000))
        rows = connection.execute(select(schema.reading_blocks)).all()
    engine.dispose()
    kept = placed(found[0]) if found else {}
    assert kept == model
    assert sum(row.size for row in rows) == len(model)


def test_what_is_to_be_new_and_is_there_is_refused(connection: Connection) -> None:
    """So a measurement is written once, whatever its writer has cached."""
    insert = insert_with(connection)
    writers = [BlockLog(READINGS, shared=True), BlockLog(READINGS, shared=False)]
    writers[0].append(connection, {SERIES: rows_of([(5, 0, 1.0)])}, insert, strictly=True)
    for log in writers:
        with pytest.raises(TakenError):
            log.append(connection, {SERIES: rows_of([(5, 0, 2.0)])}, insert, strictly=True)


def test_blocks_that_end_with_one_step_are_joined(connection: Connection) -> None:
    """This holds for ranks that lag, for full blocks, and for one step in several blocks."""
    log, insert = BlockLog(READINGS, shared=False), insert_with(connection)
    parts = [
        [(step, 0, 1.0) for step in range(4096)],
        [(step, 0, 1.0) for step in range(4096, 4100)],
        [(step, 1, 2.0) for step in (*range(4001), 5000)],
        [(step, 1, 2.0) for step in (*range(4001, 4096), 5001)],
        [(6000, rank, 3.0) for rank in range(9_000)],
        [(6000, rank, 3.0) for rank in range(9_000, 9_100)],
    ]
    for part in parts:
        log.append(connection, {SERIES: rows_of(part)}, insert)
    [whole] = READINGS.stream(connection, SERIES, 100_000)
    expected = {(step, rank): bits(value) for part in parts for step, rank, value in part}
    assert placed(whole) == expected


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_are_joined_whatever_is_forgotten(connection: Connection, shared: bool) -> None:
    """Small blocks are merged again after restarts and after failed transactions."""
    log, insert = BlockLog(READINGS, shared=shared), insert_with(connection)
    for step in range(1_000):
        if step % 100 == 0 and not shared:
            log = BlockLog(READINGS, shared=shared)
        if step % 10 == 0 and shared:
            log.forget()
        log.append(connection, {SERIES: rows_of([(step, 0, 1.0)])}, insert)
    for step in range(1_000, 1_000 + 2 * MANY):
        log.append(connection, {SERIES: rows_of([(step, 0, 1.0)])}, insert)
    rows = connection.execute(select(schema.reading_blocks)).all()
    assert sum(row.size for row in rows) == 1_000 + 2 * MANY
    assert len(rows) < 2 * MANY if shared else len(rows) < 8 * MANY


def test_many_series_are_joined_by_as_few_statements_as_one(connection: Connection) -> None:
    """Each statement is a round trip to the server, for which every caller in the batch waits."""
    asked: list[str] = []
    log, insert = BlockLog(READINGS, shared=True), insert_with(connection)
    listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))

    def statements(series: Sequence[Series]) -> int:
        """Append to all until blocks are joined; return the most statements of one append."""
        counts = []
        for step in range(MANY):
            asked.clear()
            given = {each: [Reading(0, step, "loss", float(step))] for each in series}
            log.append(connection, given, insert)
            counts.append(len(asked))
        rows = connection.execute(select(schema.reading_blocks.c.size)).scalars().all()
        assert rows.count(MANY) >= len(series)
        return max(counts)

    one = statements([(7, 1, 1)])
    assert one > 1
    assert statements([(8, metric, 1) for metric in range(1, 13)]) == one


def test_a_late_value_is_compared_with_its_own_step_alone(connection: Connection) -> None:
    """Only its blocks are read, however long the series: after a restart, and beside new values."""
    insert = insert_with(connection)
    every = [(step, 0, 1.0) for step in range(50_000)]
    BlockLog(READINGS, shared=False).append(connection, {SERIES: rows_of(every)}, insert)
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        unpack_all = block_log.unpack_all

        def counted(some: Iterable[Block], beside: int) -> Columns:
            found = unpack_all(some, beside)
            read.append(len(found))
            return found

        patched.setattr(block_log, "unpack_all", counted)
        for shared in (False, True):
            log = BlockLog(READINGS, shared=shared)
            for late in ([(7, 1, 2.0)], [(8, 1, 2.0), (60_000, 0, 1.0)]):
                log.append(connection, {SERIES: rows_of(late)}, insert)
    assert sum(read) <= 4 * 2 * blocks.FULL


@pytest.mark.parametrize(
    ("ranks", "at_once"), [(1, 1), (1, 100), (8, 8), (64, 64)], ids=["ones", "hundreds", "8", "64"]
)
def test_a_value_takes_at_most_twelve_bytes(
    connection: Connection, tmp_path: Path, ranks: int, at_once: int
) -> None:
    """That includes all overhead: reported one by one, many together, or by many ranks."""
    path = tmp_path / "blocks.db"
    connection.exec_driver_sql("VACUUM")
    empty = path.stat().st_size
    count = 16_384
    log, insert = BlockLog(READINGS, shared=False), insert_with(connection)
    every = [(place // ranks, place % ranks, 1 / (place + 1)) for place in range(count)]
    for first in range(0, count, at_once):
        log.append(connection, {SERIES: rows_of(every[first : first + at_once])}, insert)
    connection.commit()
    connection.exec_driver_sql("VACUUM")
    assert path.stat().st_size - empty <= 12 * count
