"""From readings to measurements: what all ranks saw at one step becomes one value."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from pacesetter_service.core.commands import Reading


class Measurement(NamedTuple):
    """The closed value of a metric at a step; ordered by step, then metric."""

    step: int
    metric: str
    value: float


def close(pending: Iterable[Reading], ranks: int) -> list[Measurement]:
    """Give the measurements that all ranks have reported, in the order of their steps.

    The value is the mean over the ranks. It does not depend on the order in which the readings
    arrived, because they are summed in the order of the ranks.
    """
    values: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for reading in pending:
        values[reading.step, reading.metric][reading.rank] = reading.value
    return sorted(
        Measurement(step, metric, _mean([by_rank[rank] for rank in sorted(by_rank)]))
        for (step, metric), by_rank in values.items()
        if len(by_rank) >= ranks
    )


def _mean(values: list[float]) -> float:
    """Average; one value is itself, to the bit."""
    return values[0] if len(values) == 1 else sum(values) / len(values)
