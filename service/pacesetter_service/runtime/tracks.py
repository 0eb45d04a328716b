"""The values of a metric, read from the record some steps at a time."""

from collections.abc import Iterator

from pacesetter_service.core.attempts import Lineage
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.cost import Check
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.history import Track, measured, merged
from pacesetter_service.store.store import Store

READ_AT_ONCE = 2**18
"""About how many readings are held in memory at once."""


def metric_between(
    store: Store,
    spec: SessionSpec,
    lineage: Lineage,
    metric: str,
    start: int,
    end: int,
    check: Check,
) -> Track:
    """Return a metric's values by step: what controllers saw, otherwise what ranks reported."""
    check()
    seen = store.measurements_between(lineage, metric, start, end)
    if spec.ranks == 1:  # whatever the aggregate, it leaves a single value as it is
        return merged([seen, store.reported_between(lineage, metric, start, end)])
    readings = readings_of(store, spec, lineage, metric, start, end, check)
    return merged([seen, *(measured(spec, metric, each) for each in readings)])


def readings_of(
    store: Store,
    spec: SessionSpec,
    lineage: Lineage,
    metric: str,
    start: int,
    end: int,
    check: Check,
) -> Iterator[list[Reading]]:
    """Return a metric's readings, some steps at a time: there may be a thousand ranks."""
    at_once = max(READ_AT_ONCE // spec.ranks, 1)
    for first in range(start, end, at_once):
        check()
        yield store.readings_between(lineage, metric, first, min(first + at_once, end))
