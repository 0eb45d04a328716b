"""The sealed values that memory holds for a session: the newest ones, in one block.

A `SealedTail` never changes. Appending writes behind the columns that it shows, into spare room of
the same buffer. So holders of the old tail see the same values as before, and no window is copied.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEPT = 8_192
"""How many of a session's newest steps memory always keeps; it keeps at most twice as many."""

Block = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SealedTail:
    """Values of the steps `start` to `end`, a row for each series."""

    start: int
    end: int
    buffer: Block

    @classmethod
    def empty(cls, at: int, series: int) -> "SealedTail":
        """Return an empty tail that begins at a step."""
        return cls(at, at, np.empty((series, 64)))

    def holds(self, start: int, end: int) -> bool:
        """Return whether the tail has all the steps `start` to `end`."""
        return self.start <= start and end <= self.end

    def window(self, start: int, end: int) -> Block:
        """Return the steps `start` to `end`, which must be in it; shape (series, end - start)."""
        return self.buffer[:, start - self.start : end - self.start]

    def extended(self, values: Block) -> "SealedTail":
        """Return the tail with columns appended; if it grows too long, old ones are dropped."""
        tail = self if self.end - self.start + values.shape[1] <= 2 * KEPT else self._shortened()
        length, added = tail.end - tail.start, values.shape[1]
        buffer = tail.buffer
        if length + added > buffer.shape[1]:
            buffer = np.empty((buffer.shape[0], max(2 * buffer.shape[1], length + added)))
            buffer[:, :length] = tail.buffer[:, :length]
        buffer[:, length : length + added] = values
        return SealedTail(tail.start, tail.end + added, buffer)

    def _shortened(self) -> "SealedTail":
        start = max(self.end - KEPT, self.start)
        return SealedTail(start, self.end, self.window(start, self.end).copy())
