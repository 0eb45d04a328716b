"""The realised curve of a session: its sealed values beside its measurements."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, Field

from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.model import Spelt
from pacesetter_service.core.spec import MAX_VALUES, SessionSpec
from pacesetter_service.insight.history import (
    PIECE,
    Piece,
    Track,
    at_steps,
    pieces,
    shown,
)
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.queries.attempt_ranges import (
    AttemptRange,
    range_of,
    sealed_values,
)
from pacesetter_service.runtime.queries.status import last_step, newest_trained
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.tracks import metric_between, readings_of
from pacesetter_service.runtime.windows import refuse_too_many
from pacesetter_service.store.port import Stored
from pacesetter_service.store.store import Store

MAX_METRICS = 64
"""The most metrics in one answer."""

MAX_TABLE = 2**24
"""The most values in one table, over all columns."""

Column = list[Spelt | None]
"""Values at the shown steps; None where nothing was measured."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HistoryQuestion:
    """Which part of a session's record is asked for.

    Attributes:
        start: The first step; None for the first of the record.
        end: The first step after the wanted ones; None for all sealed steps.
        points: About how many steps are shown; None for all.
        metrics: The names of the wanted metrics; None for all.
        by_rank: Whether each rank's own values are wanted too.
        attempt: An earlier attempt; None for the running one.
    """

    start: int | None
    end: int | None
    points: int | None
    metrics: Sequence[str] | None
    by_rank: bool
    attempt: int | None


class History(BaseModel):
    """Values and metrics at the same steps; null is where nothing was measured.

    Attributes:
        attempt: Whose record it is.
        start: The first step that it is about,
        end: and the first one that it is not about.
        trained_until: The first of its steps that was not trained, as far as is known.
        steps: Those that are shown.
        series: For each series the sealed values, one for each step.
        metrics: For each metric its values over all ranks, one for each step.
        readings: For each metric and rank what that rank reported, if it was asked for.
    """

    attempt: int = Field(description="whose record it is")
    start: int = Field(description="the first step that it is about")
    end: int = Field(description="the first step that it is not about")
    trained_until: int = Field(
        description="the first step that was not trained yet, as far as is known"
    )
    steps: list[int] = Field(description="the steps that are shown")
    series: dict[str, list[float]] = Field(
        description="for each series the sealed values, one for each step that is shown"
    )
    metrics: dict[str, Column] = Field(
        description=(
            "for each metric its values over all ranks, one for each step; null where none "
            "was measured"
        )
    )
    readings: dict[str, dict[int, Column]] | None = Field(
        default=None,
        description="for each metric and rank what that rank reported, if that was asked for",
    )


async def read_history(
    service: Service, name: str, question: HistoryQuestion, show: Callable[[History], T]
) -> T:
    """Return what `show` makes of a session's record.

    Args:
        service: The service.
        name: The session's name.
        question: Which part of the record is asked for.
        show: Makes the answer from the record, on the thread that reads it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt or metric.
        StepOutOfRangeError: The record does not have these steps, or too many of them.
        BusyError: Too many costly answers are being prepared already.
    """
    part = await _part(service, name, question)

    def answer(check: Check) -> T:
        chosen = _chosen(part, question.metrics)
        trained = _trained_until(service, part)
        return show(_history(part, chosen, trained, check, by_rank=question.by_rank))

    return await service.reads.run(answer)


async def read_table(
    service: Service,
    name: str,
    question: HistoryQuestion,
    show: Callable[[Iterator[History]], T],
) -> T:
    """Return what `show` makes of every step of a session's record, which it gets in pieces.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt or metric.
        StepOutOfRangeError: The record does not have these steps, or too many of them.
        BusyError: Too many costly answers are being prepared already.
    """
    part = await _part(service, name, question)

    def answer(check: Check) -> T:
        chosen = _chosen(part, question.metrics)
        columns = len(part.spec.series()) + len(chosen)
        if (part.end - part.start) * columns > MAX_TABLE:
            raise StepOutOfRangeError(
                f"{part.end - part.start} steps of {columns} columns are more than the {MAX_TABLE}"
                f" values that one table holds. Ask for at most {MAX_TABLE // columns} steps by"
                " `start` and `end`, or for about so many `points`."
            )
        trained = _trained_until(service, part)
        size = max(PIECE // columns, 1)
        firsts = range(part.start, part.end, size) or (part.start,)
        return show(
            _history(
                replace(part, start=first, end=min(first + size, part.end)), chosen, trained, check
            )
            for first in firsts
        )

    return await service.reads.run(answer)


async def _part(service: Service, name: str, question: HistoryQuestion) -> "_Part":
    entry = await service.writer.find(name)
    ref = await range_of(service, entry, question.attempt)
    end = question.end
    first = ref.start if question.start is None else question.start
    last = ref.end if end is None else min(end, max(ref.end, first))
    if not ref.start <= first <= last:
        raise StepOutOfRangeError(
            f"The record has the steps from {ref.start} to before {ref.end}, and none from {first}"
            f" to before {last if end is None else end}. Ask for steps among these."
            if ref.end > ref.start
            else f"The record has no step yet: nothing is sealed from step {ref.start} on. Ask"
            " without `start` and `end`, or later."
        )
    return _Part(service.store, entry.stored, ref, first, last, question.points)


def _trained_until(service: Service, part: "_Part") -> int:
    """Return the first step that was not trained, as far as is known."""
    if part.stored.session.attempt.includes(part.ref.attempt):
        step = newest_trained(service, part.stored)
    else:
        newest = part.store.newest_of({part.ref.lineage: 0}, MAX_METRICS)[part.ref.lineage]
        step = max(map(last_step, newest.values()), default=None)
    return part.ref.start if step is None else min(max(step + 1, part.ref.start), part.ref.end)


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of a record that is read."""

    store: Store
    stored: Stored
    ref: AttemptRange
    start: int
    end: int
    points: int | None

    @property
    def spec(self) -> SessionSpec:
        return self.stored.session.spec


@dataclass(slots=True)
class _Table:
    """The rows that are shown, collected piece by piece."""

    steps: list[int] = field(default_factory=list)
    series: list[list[float]] = field(default_factory=list)
    metrics: dict[str, Column] = field(default_factory=dict)


def _chosen(part: _Part, wanted: Sequence[str] | None) -> list[str]:
    """Return the names of the shown metrics: all reported ones, or those asked for."""
    reported = part.store.metrics_of(part.ref.lineage)
    names = reported if wanted is None else list(dict.fromkeys(wanted))
    known = {*reported, *part.spec.measured}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)[:MAX_METRICS]) or "none yet"
            message = f"No rank has reported {name!r}; there are: {there}"
            raise ArgumentError("metrics", message)
    if len(names) > MAX_METRICS:
        message = f"{len(names)} metrics are more than one answer shows; name {MAX_METRICS} of them"
        raise ArgumentError("metrics", message)
    return names


def _history(
    part: _Part, metrics: Sequence[str], trained: int, check: Check, *, by_rank: bool = False
) -> History:
    names = [series.name for series in part.spec.series()]
    columns = len(names) + len(metrics)
    table = _Table(series=[[] for _ in names], metrics={name: [] for name in metrics})
    wanted = part.end - part.start if part.points is None else part.points
    for piece in pieces(part.start, part.end, columns, wanted):
        _add(table, part, piece, check)
        refuse_too_many(columns, len(table.steps))
    readings = None
    if by_rank:
        readings = {name: _by_rank(part, name, table.steps, check) for name in metrics}
    return History(
        attempt=part.ref.attempt,
        start=part.start,
        end=part.end,
        trained_until=trained,
        steps=table.steps,
        series=dict(zip(names, table.series, strict=True)),
        metrics=table.metrics,
        readings=readings,
    )


def _add(table: _Table, part: _Part, piece: Piece, check: Check) -> None:
    """Add the rows of a piece of the record."""
    start, end, points = piece
    block = sealed_values(part.store, part.ref, len(table.series), start, end)
    found = {name: _measured(part, name, start, end, check) for name in table.metrics}
    if part.points is None:
        steps = np.arange(start, end, dtype=np.int64)
    else:
        steps = shown(start, list(block), list(found.values()), points)
    table.steps += steps.tolist()
    for column, row in zip(table.series, block[:, steps - start].tolist(), strict=True):
        column.extend(row)
    for name, values in found.items():
        table.metrics[name] += at_steps(values, steps)


def _measured(part: _Part, metric: str, start: int, end: int, check: Check) -> Track:
    return metric_between(part.store, part.spec, part.ref.lineage, metric, start, end, check)


def _by_rank(part: _Part, metric: str, steps: Sequence[int], check: Check) -> dict[int, Column]:
    """Return what each rank reported at some steps.

    Raises:
        StepOutOfRangeError: That is more than fits into one answer.
    """
    rows = {step: index for index, step in enumerate(steps)}
    columns: dict[int, Column] = {}
    if not steps:
        return columns
    found = readings_of(
        part.store, part.spec, part.ref.lineage, metric, steps[0], steps[-1] + 1, check
    )
    for readings in found:
        for each in readings:
            if each.step in rows:
                column = columns.setdefault(each.rank, [None] * len(steps))
                column[rows[each.step]] = each.value
        if len(columns) * len(steps) > MAX_VALUES:
            raise StepOutOfRangeError(
                f"{len(steps)} steps of {len(columns)} or more ranks are more than the"
                f" {MAX_VALUES} values that one answer holds. Ask for fewer `points`, or leave"
                " `readings` out."
            )
    return dict(sorted(columns.items()))
