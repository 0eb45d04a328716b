"""From readings to measurements: what all ranks saw at one step becomes one value."""

from collections.abc import Callable, Mapping
from math import isnan, nan
from typing import NamedTuple

from pacesetter_service.core.metrics import Aggregate, MetricSpec
from pacesetter_service.core.pending import ByRank, Pending
from pacesetter_service.core.smoothing import mean, median, total

MAX_WAITING = 50_000
"""How many readings, over all metrics, may wait for ranks; of more the older half does not."""

STEPS_WAITING = 64
"""For how many steps, of each metric, all ranks' readings may wait, however many ranks there are.

Ranks that ask for windows of steps report as many before the slowest of them does.
"""


class Measurement(NamedTuple):
    """The closed value of a metric at a step; ordered by step, then metric."""

    step: int
    metric: str
    value: float
    ranks: int


class Miss(NamedTuple):
    """A step whose measurement could wait no longer while too few ranks had reported it."""

    step: int
    metric: str
    ranks: int
    wanted: int


def close(
    pending: Pending, specs: Mapping[str, MetricSpec], until: int = -1
) -> list[Measurement | Miss]:
    """Close the steps that are complete or can wait no longer, in the order of the steps.

    Args:
        pending: Readings that no measurement has taken yet.
        specs: How each of their metrics is measured, `ranks` filled in.
        until: Steps up to here can wait no longer, whatever was reported.
    """
    by_metric = pending.by_metric()
    share = MAX_WAITING // max(len(by_metric), 1)
    closed = [
        _close(step, metric, by_rank, specs[metric])
        for metric, steps in by_metric.items()
        for limit in [max(share, STEPS_WAITING * (specs[metric].ranks or 1))]
        for last in [max(_last_overdue(steps, specs[metric], limit), until)]
        for step, by_rank in steps.items()
        if step <= last
    ]
    return sorted(closed, key=lambda each: (each.step, each.metric))


def is_complete_at(step: int, metric: str, spec: MetricSpec, pending: Pending) -> bool:
    """Tell whether a step's measurement would close with what is pending.

    Args:
        step: The step.
        metric: A metric that ranks report.
        spec: How it is measured, `ranks` filled in.
        pending: Readings that no measurement has taken yet.
    """
    return _is_complete(pending.at(step, metric), spec)


def _last_overdue(steps: Mapping[int, ByRank], spec: MetricSpec, limit: int) -> int:
    """Give the last step that can wait no longer; complete ones can not either."""
    complete = max(
        (step for step, by_rank in steps.items() if _is_complete(by_rank, spec)), default=-1
    )
    late = max(steps) - spec.deadline if spec.deadline is not None else -1
    last = max(complete, late)
    return max(last, _last_crowded_out(steps, last, limit))


def _last_crowded_out(steps: Mapping[int, ByRank], after: int, limit: int) -> int:
    """Give the last step of the older half, if more readings than `limit` wait after a step.

    Else one rank that never reports again would fill the memory; the newest step always waits.
    """
    waiting = sorted(step for step in steps if step > after)
    if sum(len(steps[step]) for step in waiting) <= limit or len(waiting) == 1:
        return -1
    return waiting[len(waiting) // 2 - 1]


def _is_complete(by_rank: ByRank, spec: MetricSpec) -> bool:
    if spec.aggregate == "rank0":
        return 0 in by_rank
    return len(by_rank) >= (spec.ranks or 1)


def _close(step: int, metric: str, by_rank: ByRank, spec: MetricSpec) -> Measurement | Miss:
    if spec.aggregate == "rank0":
        by_rank = {rank: reading for rank, reading in by_rank.items() if rank == 0}
    wanted = 1 if spec.aggregate == "rank0" else spec.ranks or 1
    if len(by_rank) < min(spec.quorum or wanted, wanted):
        return Miss(step, metric, len(by_rank), wanted)
    in_order = tuple(by_rank[rank].value for rank in sorted(by_rank))
    return Measurement(step, metric, _AGGREGATES[spec.aggregate](in_order), len(by_rank))


def _propagating(aggregate: Callable[[tuple[float, ...]], float]) -> Callable[..., float]:
    """Make NaN of anything with a NaN in it: what one rank saw is news to all."""

    def aggregated(values: tuple[float, ...]) -> float:
        return nan if any(map(isnan, values)) else aggregate(values)

    return aggregated


_AGGREGATES: Mapping[Aggregate, Callable[[tuple[float, ...]], float]] = {
    "mean": mean,
    "median": _propagating(median),
    "min": _propagating(min),
    "max": _propagating(max),
    "sum": total,
    "rank0": lambda values: values[0],
}
