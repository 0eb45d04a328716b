"""Readings that wait to become measurements, as a value that never changes."""

from collections.abc import Iterable, Iterator, Mapping

from pacesetter_service.core.commands import Reading

Key = tuple[int, str, int]
"""Step, metric and rank."""

ByRank = Mapping[int, Reading]


class Pending(Mapping[Key, Reading]):
    """Readings by their keys; of two with one key the first counts.

    They are kept by step and metric: of very many ranks' readings, one more costs what its own step
    holds, and a little for each step that waits; to know whether a step is complete costs nothing.
    """

    __slots__ = ("_size", "_steps")

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self._steps: dict[tuple[int, str], dict[int, Reading]] = {}
        for reading in readings:
            self._steps.setdefault((reading.step, reading.metric), {}).setdefault(
                reading.rank, reading
            )
        self._size = sum(map(len, self._steps.values()))

    def __getitem__(self, key: Key) -> Reading:
        step, metric, rank = key
        return self._steps[step, metric][rank]

    def __iter__(self) -> Iterator[Key]:
        return ((*at, rank) for at, by_rank in self._steps.items() for rank in by_rank)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        """Write it all, in an order that does not depend on how it came."""
        return f"Pending({sorted(self.readings(), key=lambda each: each.key)})"

    def readings(self) -> Iterator[Reading]:
        """Give them all."""
        return (reading for by_rank in self._steps.values() for reading in by_rank.values())

    def at(self, step: int, metric: str) -> ByRank:
        """Give the readings of one metric at one step."""
        return self._steps.get((step, metric), {})

    def by_metric(self) -> dict[str, dict[int, ByRank]]:
        """Give the readings of each metric by step and rank."""
        found: dict[str, dict[int, ByRank]] = {}
        for (step, metric), by_rank in self._steps.items():
            found.setdefault(metric, {})[step] = by_rank
        return found

    def added(self, readings: Iterable[Reading]) -> "Pending":
        """Give these and more; what is here already counts."""
        steps, touched, size = dict(self._steps), set[tuple[int, str]](), self._size
        for reading in readings:
            at = reading.step, reading.metric
            if at not in touched:
                touched.add(at)
                steps[at] = dict(steps.get(at, ()))
            size += reading.rank not in steps[at]
            steps[at].setdefault(reading.rank, reading)
        return _of(steps, size)

    def beyond(self, steps: Mapping[str, int]) -> "Pending":
        """Give those of later steps than these, by metric."""
        left = {at: by_rank for at, by_rank in self._steps.items() if at[0] > steps.get(at[1], -1)}
        return _of(left, sum(map(len, left.values())))


def _of(steps: dict[tuple[int, str], dict[int, Reading]], size: int) -> Pending:
    pending = Pending()
    pending._steps = steps  # noqa: SLF001 - it is one of its own
    pending._size = size  # noqa: SLF001 - likewise
    return pending
