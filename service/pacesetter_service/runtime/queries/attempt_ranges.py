"""The steps that one attempt of a session has sealed, whether it runs or is over."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from pacesetter_service.core.attempts import AttemptRef, Lineage
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.session import Attempt as RunningAttempt
from pacesetter_service.core.session import Session
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.windows import Block
from pacesetter_service.runtime.work import Entry
from pacesetter_service.store.port import Stored
from pacesetter_service.store.reads import Attempt
from pacesetter_service.store.store import Store


class AttemptRange(NamedTuple):
    """The steps of an attempt: those that it shares with earlier ones, then its own up to `end`."""

    attempt: int
    lineage: Lineage
    start: int
    end: int


async def range_of(service: Service, entry: Entry, attempt: int | None) -> AttemptRange:
    """Return the steps that an attempt has sealed: exactly those that its trainers may have got.

    Raises:
        ArgumentError: The session has no such attempt.
    """
    session, first = entry.stored.session, entry.stored.session.spec.start_step
    if attempt is None or session.attempt.includes(attempt):
        number = session.attempt.number if attempt is None else attempt
        return AttemptRange(number, entry.stored.lineage, first, session.horizon)
    if attempt > session.attempt.number:
        message = f"There is no such attempt; the newest one is {session.attempt.number}"
        raise ArgumentError("attempt", message)
    return await in_thread(_over, service.store, entry.stored, attempt)


async def list_trained_anew(
    service: Service, session: Session, among: tuple[int, int], most: int
) -> list[tuple[int, int]]:
    """Return ended attempts whose steps were trained again, each with the first such step.

    Args:
        service: The service.
        session: Their session; attempts that were opened since it was read are left out.
        among: The first step that counts, and the one after the last.
        most: The most that are returned: the newest ones, in ascending order.

    Raises:
        SessionNotFoundError: The session was purged meanwhile.
    """
    stored = (await service.writer.find(session.spec.name)).stored
    store, (start, end) = service.store, among

    def answer() -> list[tuple[int, int]]:
        there = (
            (each.attempt, first)
            for each, anew in trained_anew(store.attempts_of(stored), session.attempt)
            if (first := max(anew, start)) < min(end, store.sealed_end(each.lineage[-1]))
        )
        return list(islice(there, most))[::-1]

    return await in_thread(answer)


def trained_anew(
    attempts: Sequence[Attempt], running: RunningAttempt
) -> Iterator[tuple[Attempt, int]]:
    """Return ended attempts, newest first, each with the first step that later ones trained again.

    Args:
        attempts: Those of a session, in ascending order.
        running: The running one; those that were opened since it was read are left out.
    """
    keys: set[str] = set()
    first = MAX_STEP
    for each in reversed(attempts):
        if each.attempt > running.number:
            continue
        # After a take-back, its trainers went on in another attempt, which has the same key.
        if keys and each.key not in keys and not running.includes(each.attempt):
            yield each, first
        keys.add(each.key)
        first = min(first, each.start)


def _over(store: Store, stored: Stored, attempt: int) -> AttemptRange:
    """Return the steps that an ended attempt has sealed.

    After a take-back, its trainers went on in another attempt, which has the same key.
    """
    known = {each.attempt: each for each in store.attempts_of(stored)}
    first = stored.session.spec.start_step
    # The first attempt is not recorded for sessions that are older than the attempts table.
    key = known[attempt].key if attempt in known else ""
    last = max((n for n, each in known.items() if each.key == key and n > attempt), default=attempt)
    lineage = known[last].lineage if last in known else (AttemptRef(stored.id, attempt, first),)
    return AttemptRange(attempt, lineage, first, store.sealed_end(lineage[-1]))


def sealed_values(store: Store, ref: AttemptRange, series: int, start: int, end: int) -> Block:
    """Return sealed values of an attempt; float64, shape (series, end - start).

    Raises:
        StepOutOfRangeError: It has not sealed all of them.
    """
    if not ref.start <= start <= end <= ref.end:
        raise StepOutOfRangeError(
            f"Attempt {ref.attempt} has sealed the steps {ref.start} to {ref.end - 1}. Ask for"
            " steps among these."
            if ref.end > ref.start
            else f"Attempt {ref.attempt} has not sealed any step yet. Ask again later."
        )
    if start == end:
        return np.empty((series, 0))
    return store.sealed_between(ref.lineage, series, start, end)
