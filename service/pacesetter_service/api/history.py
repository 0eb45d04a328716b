"""What was trained with, beside what was measured: the realised curve of a session."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, isnan
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api import wire
from pacesetter_service.api.context import Service, SessionName
from pacesetter_service.api.lives import AttemptQuery, Lived, lived, sealed_values
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.history import Piece, Track, at_steps, measured, merged, pieces, shown
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import MAX_VALUES, SessionSpec
from pacesetter_service.storage.store import Store

router = APIRouter(prefix="/v1/sessions/{name}", tags=["record"])

CSV = "text/csv"

MAX_METRICS = 64
"""The most metrics in one answer."""

READ_AT_ONCE = 2**18
"""About how many readings are held in memory at once."""

Spelled = float | Literal["nan", "inf", "-inf"]
"""A metric; what is no JSON number is spelt out, as in reports."""

Column = list[Spelled | None]

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


class History(BaseModel):
    """Values and metrics at the same steps; null is where nothing was measured.

    Attributes:
        attempt: Whose record it is.
        start: The first step that it is about,
        end: and the first one that it is not about.
        steps: Those that are shown.
        series: For each series the sealed values, one for each step.
        metrics: For each metric its values over all ranks, one for each step.
        readings: For each metric and rank what that rank reported, if it was asked for.
    """

    attempt: int
    start: int
    end: int
    steps: list[int]
    series: dict[str, list[float]]
    metrics: dict[str, Column]
    readings: dict[str, dict[int, Column]] | None = None


@router.get(
    "/history",
    response_model=History,
    response_model_exclude_none=False,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
async def read_history(
    name: SessionName,
    service: Service,
    start: StepQuery = None,
    end: StepQuery = None,
    points: Annotated[int, Query(ge=10, le=100_000)] = 1000,
    metrics: Annotated[
        str | None, Query(max_length=8192, description="names, with commas; all, if not given")
    ] = None,
    readings: Annotated[bool, Query(description="each rank's own values too")] = False,  # noqa: FBT002
    attempt: AttemptQuery = None,
    accept: Annotated[str, Header()] = "",
) -> History | Response:
    """Read what was trained with beside what was measured, from `start` to before `end`.

    Values are the sealed ones, to the bit. A metric's value at a step is what controllers saw of
    it, before any smoothing, and where none did, what the ranks that reported it come to. Of a long
    record about `points` steps are shown, among them the extremes of every curve and of every
    metric, NaN included. NaN and infinities of metrics are the strings "nan", "inf" and "-inf".

    With `Accept: text/csv` the answer is a table with a column for each, `loss[3]` for rank 3's.
    """
    entry = await service.ledger.find(name)
    life = await lived(service, entry, attempt)
    first = life.start if start is None else start
    last = life.end if end is None else min(end, max(life.end, first))
    if not life.start <= first <= last:
        raise StepOutOfRangeError(
            f"There are no steps from {first} to before {last if end is None else end} here; the"
            f" record has the steps from {life.start} to before {life.end}. Ask among these."
        )
    question = _Question(service.store, entry.stored.session.spec, life, first, last, points)
    chosen = await run_in_threadpool(_chosen, question, metrics)
    history = await run_in_threadpool(_history, question, chosen, by_rank=readings)
    if CSV in accept:
        return Response(_csv(history), media_type=CSV)
    return history


@dataclass(frozen=True, slots=True)
class _Question:
    store: Store
    spec: SessionSpec
    life: Lived
    start: int
    end: int
    points: int


@dataclass(slots=True)
class _Table:
    """Rows of what is shown, put together piece by piece."""

    steps: list[int] = field(default_factory=list)
    series: list[list[float]] = field(default_factory=list)
    metrics: dict[str, Column] = field(default_factory=dict)


def _chosen(question: _Question, wanted: str | None) -> list[str]:
    """Name the metrics that are shown: all that were reported, or those that were asked for."""
    reported = question.store.metrics_of(question.life.lineage)
    names = reported if wanted is None else list(dict.fromkeys(filter(None, wanted.split(","))))
    known = {*reported, *question.spec.measured}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)[:MAX_METRICS]) or "none yet"
            message = f"Nobody has reported {name!r}; there are: {there}"
            raise invalid_parameter("metrics", message, wanted)
    if len(names) > MAX_METRICS:
        message = f"{len(names)} metrics are more than one answer shows; name {MAX_METRICS} of them"
        raise invalid_parameter("metrics", message, wanted)
    return names


def _history(question: _Question, metrics: Sequence[str], *, by_rank: bool) -> History:
    names = [series.name for series in question.spec.series()]
    columns = len(names) + len(metrics)
    table = _Table(series=[[] for _ in names], metrics={name: [] for name in metrics})
    for piece in pieces(question.start, question.end, columns, question.points):
        _add(table, question, piece)
        wire.refuse_too_many(columns, len(table.steps))
    readings = None
    if by_rank:
        readings = {name: _by_rank(question, name, table.steps) for name in metrics}
    return History(
        attempt=question.life.attempt,
        start=question.start,
        end=question.end,
        steps=table.steps,
        series=dict(zip(names, table.series, strict=True)),
        metrics=table.metrics,
        readings=readings,
    )


def _add(table: _Table, question: _Question, piece: Piece) -> None:
    """Add the rows of a piece of the record."""
    start, end, points = piece
    block = sealed_values(question.store, question.life, len(table.series), start, end)
    found = {name: _measured(question, name, start, end) for name in table.metrics}
    steps = shown(start, list(block), list(found.values()), points)
    table.steps += steps.tolist()
    for column, row in zip(table.series, block[:, steps - start].tolist(), strict=True):
        column.extend(row)
    for name, values in found.items():
        table.metrics[name] += map(_spelled, at_steps(values, steps))


def _measured(question: _Question, metric: str, start: int, end: int) -> Track:
    """Give a metric's values by step: what controllers saw, or else what ranks reported."""
    store, lineage = question.store, question.life.lineage
    seen = store.measurements_between(lineage, metric, start, end)
    if question.spec.ranks == 1:  # whatever the aggregate, one value is itself
        return merged([seen, store.reported_between(lineage, metric, start, end)])
    readings = _readings(question, metric, start, end)
    return merged([seen, *(measured(question.spec, metric, each) for each in readings)])


def _readings(question: _Question, metric: str, start: int, end: int) -> Iterator[list[Reading]]:
    """Give a metric's readings, some steps at a time: there may be a thousand ranks."""
    store, lineage = question.store, question.life.lineage
    at_once = max(READ_AT_ONCE // question.spec.ranks, 1)
    for first in range(start, end, at_once):
        yield store.readings_between(lineage, metric, first, min(first + at_once, end))


def _by_rank(question: _Question, metric: str, steps: Sequence[int]) -> dict[int, Column]:
    """Give what each rank reported at some steps.

    Raises:
        StepOutOfRangeError: That is more than one answer holds.
    """
    rows = {step: index for index, step in enumerate(steps)}
    columns: dict[int, Column] = {}
    if not steps:
        return columns
    for readings in _readings(question, metric, steps[0], steps[-1] + 1):
        for each in readings:
            if each.step in rows:
                column = columns.setdefault(each.rank, [None] * len(steps))
                column[rows[each.step]] = _spelled(each.value)
        if len(columns) * len(steps) > MAX_VALUES:
            raise StepOutOfRangeError(
                f"{len(steps)} steps of {len(columns)} or more ranks are more than the"
                f" {MAX_VALUES} values that one answer holds. Ask for fewer `points`, or leave"
                " `readings` out."
            )
    return dict(sorted(columns.items()))


def _csv(history: History) -> str:
    """Write a table: a line for each step, nothing where nothing was measured."""
    columns: dict[str, Sequence[object]] = {"step": history.steps, **history.series}
    columns |= history.metrics
    for metric, ranks in (history.readings or {}).items():
        columns |= {f"{metric}[{rank}]": values for rank, values in ranks.items()}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(_cell, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _spelled(value: float | None) -> Spelled | None:
    if value is None or isfinite(value):
        return value
    if isnan(value):
        return "nan"
    return "inf" if value == inf else "-inf"
