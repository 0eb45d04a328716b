"""The realised curve of a session: values beside metrics, as JSON, as a table or as a picture."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from pacesetter_service.api.callers import answer
from pacesetter_service.api.context import AttemptQuery, Service, SessionName
from pacesetter_service.api.formats import CSV, MEDIA_TYPES, SVG, Accept, FormatQuery, wanted
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.runtime.queries import history, portraits
from pacesetter_service.runtime.queries.history import History, HistoryQuestion

router = APIRouter(prefix="/v1/sessions/{name}", tags=["record"])

POINTS = 1000
"""About how many steps are shown by default; a table has all."""

StepQuery = Annotated[int | None, Query(ge=0, le=MAX_STEP)]


@router.get(
    "/history",
    response_model=History,
    responses={
        200: {
            "content": {
                CSV: {"schema": {"type": "string"}},
                SVG: {"schema": {"type": "string"}},
            }
        }
    },
)
async def read_history(
    name: SessionName,
    request: Request,
    service: Service,
    start: StepQuery = None,
    end: StepQuery = None,
    points: Annotated[
        int | None,
        Query(ge=10, le=100_000, description="1,000 if not given; a table has every step then"),
    ] = None,
    metrics: Annotated[
        str | None, Query(max_length=7_000, description="names, with commas; all, if not given")
    ] = None,
    readings: Annotated[bool, Query(description="each rank's own values too")] = False,  # noqa: FBT002
    attempt: AttemptQuery = None,
    form: FormatQuery = None,
    accept: Accept = "",
) -> Response:
    """Read the values that were trained with beside the metrics, from `start` to before `end`.

    Values are the sealed ones, to the bit. A metric's value at a step is what controllers saw of
    it, before any smoothing; if none did, it is the aggregate of the ranks that reported it. A long
    record is shown at about `points` steps, among them the extremes of every curve and of every
    metric, NaN included. NaN and infinities of metrics are the strings "nan", "inf" and "-inf".
    Steps from `trained_until` on are sealed, but were not trained as far as is known.

    With `format=csv`, or `Accept: text/csv`, the answer is a table of every step, or of about
    `points` of them, with a column for each curve, `loss[3]` for rank 3's, and 1 or 0 under
    `trained`. There, the name of a metric that begins with `+ - @ =` has an apostrophe before it.

    With `format=svg`, or `Accept: image/svg+xml`, it is a picture: the learning rates above the
    metrics, with decisions, orders and attempts where they took effect.
    """
    chosen = None if metrics is None else [each for each in metrics.split(",") if each]
    kind = wanted(form, accept, "csv", "svg")
    if kind != "csv":
        points = points or POINTS
    question = HistoryQuestion(start, end, points, chosen, readings, attempt)
    if kind == "svg":
        reading = portraits.draw_history(service, name, question)
    elif kind == "json":
        reading = history.read_history(service, name, question, _json)
    elif readings or points is not None:
        reading = history.read_history(service, name, question, lambda each: _csv(iter([each])))
    else:
        reading = history.read_table(service, name, question, _csv)
    response = await answer(request, reading, MEDIA_TYPES[kind])
    if kind == "csv":
        response.headers["content-disposition"] = f'attachment; filename="{name}.csv"'
    return response


def _json(found: History) -> bytes:
    return to_json(found)


def _csv(found: Iterator[History]) -> bytes:
    """Write a table: a line for each step, with empty cells where nothing was measured."""
    table = bytearray()
    for part in found:
        trained = [int(step < part.trained_until) for step in part.steps]
        columns: dict[str, Sequence[object]] = {"step": part.steps, "trained": trained}
        columns |= {_apart(name): values for name, values in part.series.items()}
        columns |= {_apart(name): values for name, values in part.metrics.items()}
        for metric, ranks in (part.readings or {}).items():
            columns |= {f"{metric}[{rank}]": values for rank, values in ranks.items()}
        if not table:
            table += (",".join(map(_named, columns)) + "\n").encode()
        rows = zip(*columns.values(), strict=True)
        table += "".join(",".join(map(_cell, row)) + "\n" for row in rows).encode()
    return bytes(table)


def _apart(column: str) -> str:
    """Return the name of a curve's column, which differs from those of the first two."""
    return f"{column} (curve)" if column in {"step", "trained"} else column


def _named(column: str) -> str:
    """Return a column's name so that no spreadsheet takes it for a formula."""
    return f"'{column}" if column.startswith(("+", "-", "@", "=")) else column


def _cell(value: object) -> str:
    return "" if value is None else str(value)
