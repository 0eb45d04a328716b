"""From readings to measurements: all ranks' readings of a metric at one step become one value.

A `MetricSpec` says who reports a metric and how its readings become one value. Readings wait in
`Pending` until the next sealing. `close` makes measurements of those that are complete, or that
can wait no longer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isnan, nan
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.model import Checked, Count, Written
from pacesetter_service.core.smoothing import AnySmoother, mean, median, total

MetricName = Annotated[
    str,
    Written(
        r"^[A-Za-z0-9_.:/@ +-]{1,128}$",
        "Name a metric by 1 to 128 letters (A to Z), digits, blanks and `_.:/@+-`",
    ),
]

Aggregate = Literal["mean", "median", "min", "max", "sum", "rank0"]


class MetricSpec(Checked):
    """How the readings of one metric become what controllers see.

    **Ranks.** A step's measurement closes when `ranks` of them have reported it (the session's
    ranks if not given); `aggregate` makes one value of theirs, in the order of the ranks, so that
    its bits do not depend on who came first. With `rank0` that rank's reading alone counts, and
    is enough.

    **Missing ranks.** A step that is not complete can wait no longer when a later step of the
    metric is complete, when some rank has reported a step `deadline` or more later, or when very
    many readings wait behind it. Then it closes if `quorum` ranks have reported it, and is recorded
    as missed if not. What is reported for a step after that is recorded, and decides nothing.

    **Not a number.** With `nan="bad"` controllers see NaN and infinities like any value, and none
    takes them for an improvement; `"ignore"` keeps them from all controllers; `"guard"` shows them
    to spike guards alone.

    **Smoothing** is what controllers see instead of the last value. A metric that names another
    one with `of` has no readings of its own: it is another view of that one's measurements.
    """

    aggregate: Aggregate = Field(
        default="mean", description="how the values of several ranks at one step become one"
    )
    ranks: Annotated[Count, Field(le=65_536)] | None = Field(
        default=None, description="how many ranks report it; the session's `ranks` if not given"
    )
    quorum: Annotated[Count, Field(le=65_536)] | None = Field(
        default=None,
        description="how many ranks are enough where a step can wait no longer; without it none",
    )
    deadline: Count | None = Field(
        default=None,
        description="after how many later steps a step waits no longer for the ranks that are"
        " missing",
    )
    nan: Literal["bad", "ignore", "guard"] = Field(
        default="bad",
        description=(
            "what controllers see of NaN and infinities: `bad` values, nothing (`ignore`), "
            "or spike guards alone (`guard`)"
        ),
    )
    smoothing: AnySmoother | None = Field(
        default=None, description="what controllers see in place of the last value"
    )
    of: MetricName | None = Field(
        default=None, description="the metric that this one is another view of"
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        own = self.aggregate != "mean" or self.ranks or self.quorum or self.deadline
        if self.of is not None and own:
            yield PydanticCustomError(
                "view_with_readings",
                "A metric with `of` has no readings of its own: say how they are aggregated at"
                " {of}",
                {"of": self.of},
            )
        if self.quorum and self.ranks and self.quorum > self.ranks:
            yield PydanticCustomError("quorum_too_large", "`quorum` cannot be above `ranks`")


Key = tuple[int, str, int]
"""Step, metric and rank."""

ByRank = Mapping[int, Reading]


class Pending(Mapping[Key, Reading]):
    """Readings by their keys; of two with one key the first counts.

    Readings are kept by step and metric. So with very many ranks, adding one costs the size of its
    own step, and a little for each step that waits. Checking whether a step is complete is free.
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
        """Write all readings, in an order that does not depend on how they arrived."""
        return f"Pending({sorted(self.readings(), key=lambda each: each.key)})"

    def readings(self) -> Iterator[Reading]:
        """Return all readings."""
        return (reading for by_rank in self._steps.values() for reading in by_rank.values())

    def at(self, step: int, metric: str) -> ByRank:
        """Return the readings of one metric at one step."""
        return self._steps.get((step, metric), {})

    def by_metric(self) -> dict[str, dict[int, ByRank]]:
        """Return the readings of each metric by step and rank."""
        found: dict[str, dict[int, ByRank]] = {}
        for (step, metric), by_rank in self._steps.items():
            found.setdefault(metric, {})[step] = by_rank
        return found

    def added(self, readings: Iterable[Reading]) -> "Pending":
        """Return these readings and more; of two with one key, the reading that is here counts."""
        steps, touched, size = dict(self._steps), set[tuple[int, str]](), self._size
        for reading in readings:
            at = reading.step, reading.metric
            if at not in touched:
                touched.add(at)
                steps[at] = dict(steps.get(at, ()))
            size += reading.rank not in steps[at]
            steps[at].setdefault(reading.rank, reading)
        return _of(steps, size)

    def later_than(self, steps: Mapping[str, int]) -> "Pending":
        """Return the readings above these steps, which are given by metric."""
        left = {at: by_rank for at, by_rank in self._steps.items() if at[0] > steps.get(at[1], -1)}
        return _of(left, sum(map(len, left.values())))


def _of(steps: dict[tuple[int, str], dict[int, Reading]], size: int) -> Pending:
    pending = Pending()
    pending._steps = steps  # noqa: SLF001 - it is one of its own
    pending._size = size  # noqa: SLF001 - likewise
    return pending


MAX_WAITING = 50_000
"""How many readings, over all metrics, may wait for ranks; beyond it the older half may not."""

STEPS_WAITING = 64
"""For how many steps of each metric all ranks' readings may wait, however many ranks there are.

Ranks that fetch windows of steps report that many before the slowest of them does.
"""


class Measurement(NamedTuple):
    """The closed value of a metric at a step; ordered by step, then metric."""

    step: int
    metric: str
    value: float
    ranks: int


class Miss(NamedTuple):
    """A step whose measurement could wait no longer, although too few ranks had reported it."""

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
        until: Steps up to here can wait no longer, however many ranks have reported.
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
    """Return whether a step's measurement would close with the pending readings.

    Args:
        step: The step.
        metric: A metric that ranks report.
        spec: How it is measured, `ranks` filled in.
        pending: Readings that no measurement has taken yet.
    """
    return _is_complete(pending.at(step, metric), spec)


def _last_overdue(steps: Mapping[int, ByRank], spec: MetricSpec, limit: int) -> int:
    """Return the last step that can wait no longer; a complete step counts as one."""
    complete = max(
        (step for step, by_rank in steps.items() if _is_complete(by_rank, spec)), default=-1
    )
    late = max(steps) - spec.deadline if spec.deadline is not None else -1
    last = max(complete, late)
    return max(last, _last_crowded_out(steps, last, limit))


def _last_crowded_out(steps: Mapping[int, ByRank], after: int, limit: int) -> int:
    """Return the last step of the older half, if more readings than `limit` wait after a step.

    Otherwise one rank that never reports again would fill the memory. The newest step always waits.
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
    """Make an aggregate return NaN if any value is NaN: every rank must hear of it."""

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
