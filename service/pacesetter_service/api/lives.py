"""What one attempt of a session has sealed: the running one, or one that is over."""

from typing import Annotated, NamedTuple

import numpy as np
from fastapi import Query
from starlette.concurrency import run_in_threadpool

from pacesetter_service.api import wire
from pacesetter_service.api.context import Context
from pacesetter_service.api.sessions import invalid_parameter
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.lineage import Life, Lineage
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.ledger import Entry
from pacesetter_service.storage.store import Store, Stored

AttemptQuery = Annotated[
    int | None, Query(ge=1, le=MAX_STEP, description="an earlier attempt; without it the newest")
]


class Lived(NamedTuple):
    """The steps of an attempt: those that it shares with earlier ones, and its own up to `end`."""

    attempt: int
    lineage: Lineage
    start: int
    end: int


async def lived(service: Context, entry: Entry, attempt: int | None) -> Lived:
    """Give what an attempt has sealed.

    Raises:
        RequestValidationError: The session has no such attempt.
    """
    session, first = entry.stored.session, entry.stored.session.spec.start_step
    if attempt is None or attempt == session.attempt:
        return Lived(session.attempt, entry.stored.lineage, first, session.horizon)
    if attempt > session.attempt:
        message = f"There is no such attempt; the newest one is {session.attempt}"
        raise invalid_parameter("attempt", message, attempt)
    return await run_in_threadpool(_over, service.store, entry.stored, attempt)


def _over(store: Store, stored: Stored, attempt: int) -> Lived:
    found = {each.number: each.lineage for each in store.attempts_of(stored)}
    first = stored.session.spec.start_step
    # Of sessions from before attempts were kept the first one is not written down.
    lineage = found.get(attempt, (Life(stored.id, attempt, first),))
    return Lived(attempt, lineage, first, store.sealed_end(lineage[-1]))


def sealed_values(store: Store, life: Lived, series: int, start: int, end: int) -> wire.Block:
    """Read values that an attempt has sealed; float64, shape (series, end - start).

    Raises:
        StepOutOfRangeError: It has not sealed all of them.
    """
    if not life.start <= start <= end <= life.end:
        raise StepOutOfRangeError(
            f"Attempt {life.attempt} has sealed the steps {life.start} to {life.end - 1}. Ask for"
            " steps among these."
            if life.end > life.start
            else f"Attempt {life.attempt} has not sealed any step yet. Ask again later."
        )
    if start == end:
        return np.empty((series, 0))
    return store.sealed_between(life.lineage, series, start, end)
