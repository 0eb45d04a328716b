"""How many values fell into which range, without a lock: for counts that every call makes."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Values counted by range; one thread counts, and any other may read.

    A reader may see a value in one of the figures and not yet in another.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start without any values.

        Args:
            bounds: The ends of the ranges, in order; each end belongs to its range.
        """
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many values were at most each bound; the last bound is `+Inf`."""
        ends = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(ends, accumulate(map(float, self._counts)), strict=True))
