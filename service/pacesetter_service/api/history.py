"""The realised curve of a session: values beside metrics, in JSON or as a table."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json

from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import AttemptQuery, Service, SessionName
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.runtime.queries import history
from pacesetter_service.runtime.queries.history import History, HistoryQuestion

router = APIRouter(prefix="/v1/sessions/{name}", tags=["record"])

CSV = "text/csv"

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


@router.get(
    "/history",
    response_model=History,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
async def read_history(
    name: SessionName,
    request: Request,
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
) -> Response:
    """Read what was trained with beside what was measured, from `start` to before `end`.

    Values are the sealed ones, to the bit. A metric's value at a step is what controllers saw of
    it, before any smoothing, and where none did, what the ranks that reported it come to. Of a long
    record about `points` steps are shown, among them the extremes of every curve and of every
    metric, NaN included. NaN and infinities of metrics are the strings "nan", "inf" and "-inf".

    With `Accept: text/csv` the answer is a table with a column for each, `loss[3]` for rank 3's.
    The name of a metric that begins with `+ - @ =` has an apostrophe before it there.
    """
    wanted = None if metrics is None else [each for each in metrics.split(",") if each]
    question = HistoryQuestion(start, end, points, wanted, readings, attempt)
    show = _csv if CSV in accept else _json
    reading = history.read_history(service, name, question, show)
    return await answer(request, reading, CSV if CSV in accept else "application/json")


def _json(found: History) -> bytes:
    return to_json(found)


def _csv(found: History) -> bytes:
    """Write a table: a line for each step, nothing where nothing was measured."""
    columns: dict[str, Sequence[object]] = {"step": found.steps, **found.series}
    columns |= found.metrics
    for metric, ranks in (found.readings or {}).items():
        columns |= {f"{metric}[{rank}]": values for rank, values in ranks.items()}
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(map(_named, columns)), *(",".join(map(_cell, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def _named(column: str) -> str:
    """Return a column's name so that no spreadsheet takes it for a formula."""
    return f"'{column}" if column.startswith(("+", "-", "@", "=")) else column


def _cell(value: object) -> str:
    return "" if value is None else str(value)
