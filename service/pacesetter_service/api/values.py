"""Reading values: one step, a range, or a curve. Reading never changes anything."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api import wire
from pacesetter_service.api.context import Context, Service, SessionName
from pacesetter_service.api.lives import AttemptQuery, lived, sealed_values
from pacesetter_service.core.decide import count_usable
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.spec import MAX_WINDOW
from pacesetter_service.ledger import Entry

router = APIRouter(prefix="/v1/sessions/{name}", tags=["values"])

StepQuery = Annotated[int, Query(ge=0, le=MAX_STEP)]


@router.get("/lr")
async def read_values(
    name: SessionName,
    service: Service,
    step: StepQuery,
    count: Annotated[int | None, Query(ge=1, le=MAX_WINDOW)] = None,
    attempt: AttemptQuery = None,
) -> dict[str, Any]:
    """Read the values of a step, or of `count` steps from it on; each sealed or forecast.

    A forecast is what would be sealed if it were asked for now. Of an `attempt` that is over there
    is what it had sealed, and nothing else.
    """
    entry = await service.ledger.find(name)
    session, names = entry.stored.session, list(entry.stored.session.timelines)
    if attempt is not None and attempt != session.attempt:
        return await _of_the_past(service, entry, attempt, step, count)
    block = await read_block(service, entry, step, count or 1)
    if count is None:
        values = dict(zip(names, block[:, 0].tolist(), strict=True))
        return {"step": step, **values, "sealed": step < session.horizon}
    return {
        "start": step,
        "series": wire.by_series(names, block),
        "sealed_until": min(max(session.horizon, step), step + count),
    }


async def _of_the_past(
    service: Context, entry: Entry, attempt: int, step: int, count: int | None
) -> dict[str, Any]:
    """Give values of an attempt that is over; of a range what there is of it."""
    life, names = await lived(service, entry, attempt), list(entry.stored.session.timelines)
    end = step + 1 if count is None else max(min(step + count, life.end), step + 1)
    wire.refuse_too_many(len(names), end - step)
    block = await run_in_threadpool(sealed_values, service.store, life, len(names), step, end)
    if count is None:
        values = dict(zip(names, block[:, 0].tolist(), strict=True))
        return {"step": step, **values, "sealed": True}
    return {"start": step, "series": wire.by_series(names, block), "sealed_until": end}


@router.get("/forecast")
async def read_forecast(
    name: SessionName,
    service: Service,
    start: StepQuery | None = None,
    count: Annotated[int | None, Query(ge=1, le=wire.MAX_CURVE)] = None,
    points: Annotated[int, Query(ge=10, le=10_000)] = 1000,
) -> dict[str, Any]:
    """Read the curve from `start` on: what is sealed, then what would be.

    Without `start` it begins at the horizon; without `count` it spans what is left of the session's
    total_steps, or 1,000 steps. It is thinned out to about `points` points, extremes kept.
    """
    entry = await service.ledger.find(name)
    session = entry.stored.session
    start = session.horizon if start is None else start
    if count is None:
        count = max((session.spec.total_steps or start + 1000) - start, 1)
    block = await read_block(service, entry, start, min(count, wire.MAX_CURVE))
    answer = await run_in_threadpool(wire.curve, list(session.timelines), block, start, points)
    return {**answer, "sealed_until": session.horizon}


async def read_block(service: Context, entry: Entry, start: int, count: int) -> wire.Block:
    """Give values from the record below the horizon, and from the law above it."""
    session, end = entry.stored.session, start + count
    wire.refuse_too_many(len(session.timelines), count)
    if start < session.spec.start_step or end > MAX_STEP:
        raise StepOutOfRangeError(
            f"This session has the steps {session.spec.start_step} to {MAX_STEP - 1}. "
            f"Ask for {session.spec.start_step} or a later one."
        )
    known = min(max(session.horizon, start), end)
    pieces = []
    if start < known:
        if entry.tail.holds(start, known):
            pieces.append(entry.tail.window(start, known))
        else:
            pieces.append(
                await run_in_threadpool(
                    service.store.sealed_between,
                    entry.stored.lineage,
                    len(session.timelines),
                    start,
                    known,
                )
            )
    if known < end:
        rest = await run_in_threadpool(forecast, session, known, end - known)
        # Of a range that begins sealed, what can not be had behind it is left out.
        usable = count_usable(known, rest, at_least=0 if start < known else 1)
        pieces.append(np.stack([rest[name][:usable] for name in session.timelines]))
    return np.concatenate(pieces, axis=1)
