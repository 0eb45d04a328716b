"""Values by step, as columns and as blocks of bytes: little more than 8 bytes for each value.

A value has a step, and one or two integers beside it: the rank that reported it, or the number of
ranks that it was made of and the horizon at that time. Such columns are usually regular: step after
step of one rank, or rank after rank of one step. A regular column is stored as a first number and a
stride; any other column is compressed.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FULL = 4096
"""How many values a full block has; smaller blocks are joined."""

Ints = NDArray[np.int64]

_LARGEST_STRIDE = 2**31 - 1
_LENGTH = struct.Struct("<I")


class Lists(NamedTuple):
    """Values with their steps and the numbers beside them, as they are collected."""

    steps: list[int]
    beside: tuple[list[int], ...]
    values: list[float]


class Block(NamedTuple):
    """A block, and what is known about it without reading its bytes.

    Attributes:
        start: The first step that it has values for.
        until: The step after its last one.
        size: How many values it has, at least one.
        data: The bytes that `pack` wrote.
    """

    start: int
    until: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """Values with their steps.

    They are in order if each comes after the one before, by step and then by the first of the
    numbers beside it. These two identify a value.

    Attributes:
        steps: int64, shape (n,).
        beside: int64, shape (k, n).
        values: float64, shape (n,); NaN where that is what was measured.
    """

    steps: Ints
    beside: Ints
    values: NDArray[np.float64]

    @classmethod
    def of(cls, given: Lists) -> Self:
        """Return lists as columns."""
        steps, beside, values = given
        return cls(
            np.array(steps, np.int64), np.array(beside, np.int64), np.array(values, np.float64)
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join parts, at least one, in order; of duplicate values, the first is kept."""
        if len(parts) == 1:
            whole = parts[0]
        else:
            whole = cls(
                np.concatenate([each.steps for each in parts]),
                np.concatenate([each.beside for each in parts], axis=1),
                np.concatenate([each.values for each in parts]),
            )
        return whole if whole.is_in_order else whole._in_order()

    @property
    def is_in_order(self) -> bool:
        """Whether each value comes after the one before."""
        further = np.diff(self.steps)
        return bool(((further > 0) | ((further == 0) & (np.diff(self.beside[0]) > 0))).all())

    def _in_order(self) -> Self:
        # Stable, so that the first of two duplicates stays first.
        ordered = self[np.lexsort((self.beside[0], self.steps))]
        fresh = np.ones(len(self), dtype=bool)
        fresh[1:] = (np.diff(ordered.steps) != 0) | (np.diff(ordered.beside[0]) != 0)
        return ordered[fresh]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, which: slice | Ints | NDArray[np.bool_]) -> Self:
        return type(self)(self.steps[which], self.beside[:, which], self.values[which])

    def between(self, start: int, end: int) -> Self:
        """Return the values of the steps `start` to `end`; the columns must be in order."""
        first, last = np.searchsorted(self.steps, (start, end))
        return self[first:last]

    def without(self, known: Self) -> Self:
        """Return the values that are not among the known ones."""
        known = known[np.isin(known.steps, self.steps)]  # so that few of millions are searched
        found = set(zip(known.steps.tolist(), known.beside[0].tolist(), strict=True))
        mine = zip(self.steps.tolist(), self.beside[0].tolist(), strict=True)
        return self[np.fromiter((each not in found for each in mine), bool, len(self))]

    def blocks(self) -> Iterator[Block]:
        """Return the values, which must be in order, as blocks; all but the last are full."""
        for first in range(0, len(self), FULL):
            yield pack(self[first : first + FULL])


def nothing(beside: int) -> Columns:
    """Return empty columns for values with `beside` numbers each."""
    none = np.empty(0, np.int64)
    return Columns(none, np.empty((beside, 0), np.int64), np.empty(0, np.float64))


@cache
def _head(beside: int, ending: str = "") -> struct.Struct:
    """Return the format of a head: a flag for each compressed column, then the regular columns.

    These are the steps' stride, then the first number and the stride of each column beside them.
    """
    return struct.Struct("<BI" + "qi" * beside + ending)


@cache
def _one(beside: int) -> struct.Struct:
    """Return the format of a block of one value."""
    return struct.Struct("<" + "q" * beside + "d")


def pack(columns: Columns) -> Block:
    """Return values, at least one and in order, as a block."""
    if len(columns) == 1:
        return pack_one(int(columns.steps[0]), columns.beside[:, 0].tolist(), columns.values[0])
    start, until = int(columns.steps[0]), int(columns.steps[-1]) + 1
    flags, compressed = 0, b""
    numbers = []
    for place, column in enumerate((columns.steps, *columns.beside)):
        stride = _stride_of(column)
        if stride is None:
            flags |= 1 << place
            compressed += _compressed(np.diff(column, prepend=column[0]))
        numbers += [int(column[0]), stride or 0]
    head = _head(len(columns.beside)).pack(flags, *numbers[1:])  # the first step is the start
    values = columns.values.astype("<f8").tobytes()
    return Block(start, until, len(columns), head + compressed + values)


def pack_one(step: int, beside: Iterable[int], value: float) -> Block:
    """Return one value as a block without a head: most blocks are such until they are joined."""
    numbers = *beside, value
    return Block(step, step + 1, 1, _one(len(numbers) - 1).pack(*numbers))


def pack_regular(given: Lists) -> Block | None:
    """Return the block that `pack` would, if all columns are regular and in order.

    Almost all are, and have few values; for these it is several times as fast.
    """
    steps, beside, values = given
    if len(steps) == 1:
        return pack_one(steps[0], (each[0] for each in beside), values[0])
    numbers = []
    for column in (steps, *beside):
        stride = _step_between(column)
        if stride is None:
            return None
        numbers += [column[0], stride]
    _, stride, _, among, *_ = numbers
    if len(steps) > FULL or stride < 0 or (stride == 0 and among <= 0):
        return None
    head = _head(len(beside), f"{len(values)}d")
    return Block(steps[0], steps[-1] + 1, len(values), head.pack(0, *numbers[1:], *values))


def _step_between(column: list[int]) -> int | None:
    """Return the difference between successive numbers of a column, if it is constant."""
    stride = column[1] - column[0]
    if abs(stride) > _LARGEST_STRIDE:
        return None
    if stride == 0:
        return 0 if column.count(column[0]) == len(column) else None
    regular = range(column[0], column[0] + stride * len(column), stride)
    return stride if column == list(regular) else None


def unpack(block: Block, beside: int) -> Columns:
    """Return the values of a block, each with `beside` numbers."""
    data, size = block.data, block.size
    if size == 1:
        return _unpack_ones([block], beside)
    head = _head(beside)
    flags, *numbers = head.unpack_from(data)
    firsts, strides = (block.start, *numbers[1::2]), numbers[::2]
    place = head.size
    columns = np.empty((beside + 1, size), np.int64)
    for number, (first, stride) in enumerate(zip(firsts, strides, strict=True)):
        if flags & 1 << number:
            differences, place = _decompressed(data, place)
            columns[number] = first + np.cumsum(differences)
        else:
            columns[number] = first + stride * np.arange(size, dtype=np.int64)
    values = np.frombuffer(data, "<f8", size, place).astype(np.float64)
    return Columns(columns[0], columns[1:], values)


def unpack_all(blocks: Iterable[Block], beside: int) -> Columns:
    """Return the values of blocks in order; of duplicates, the first."""
    parts: list[Columns] = []
    for is_one, some in groupby(blocks, lambda each: each.size == 1):
        if is_one:
            parts.append(_unpack_ones(list(some), beside))
        else:
            parts.extend(unpack(each, beside) for each in some)
    return Columns.joined(parts) if parts else nothing(beside)


def _unpack_ones(blocks: Sequence[Block], beside: int) -> Columns:
    one = _one(beside)
    *numbers, values = zip(*(one.unpack(each.data) for each in blocks), strict=True)
    steps = np.array([each.start for each in blocks], np.int64)
    return Columns(steps, np.array(numbers, np.int64), np.array(values))


def _stride_of(column: Ints) -> int | None:
    """Return the difference between successive numbers of a column, if it is constant."""
    stride = int(column[1] - column[0])
    if abs(stride) > _LARGEST_STRIDE or (column[1:] - column[:-1] != stride).any():
        return None
    return stride


def _compressed(column: Ints) -> bytes:
    packed = zlib.compress(column.astype("<i8").tobytes(), 1)
    return _LENGTH.pack(len(packed)) + packed


def _decompressed(data: bytes, place: int) -> tuple[Ints, int]:
    """Return a column, and the offset of the data after it."""
    [length] = _LENGTH.unpack_from(data, place)
    begin = place + _LENGTH.size
    column = np.frombuffer(zlib.decompress(data[begin : begin + length]), "<i8")
    return column.astype(np.int64), begin + length


def in_order(blocks: Iterable[Block], beside: int, size: int) -> Iterator[Columns]:
    """Return the values of blocks in order, `size` at a time; the last part may have fewer.

    Args:
        blocks: Blocks sorted by first step; no value is in two of them.
        beside: How many numbers are stored beside a value.
        size: How many values each part has.
    """
    rest: list[Columns] = []
    for piece in _pieces(blocks, beside):
        rest.append(piece)
        if sum(map(len, rest)) >= size:
            whole = Columns.joined(rest)
            full = len(whole) // size * size
            yield from (whole[first : first + size] for first in range(0, full, size))
            rest = [whole[full:]] if full < len(whole) else []
    if rest:
        yield Columns.joined(rest)


def _pieces(blocks: Iterable[Block], beside: int) -> Iterator[Columns]:
    """Return the values of blocks in order, as soon as no later block can overlap them."""
    waiting: list[Block] = []
    until = 0
    for block in blocks:
        if waiting and block.start >= until:
            yield unpack_all(waiting, beside)
            waiting = []
        waiting.append(block)
        until = max(until, block.until)
    if waiting:
        yield unpack_all(waiting, beside)
