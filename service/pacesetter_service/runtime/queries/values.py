"""The values of a session: sealed ones from the record, then those that would be sealed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pacesetter_service.core.commands import Seal
from pacesetter_service.core.cost import LIGHT, Check
from pacesetter_service.core.decide import cost_of, count_usable
from pacesetter_service.core.errors import StepOutOfRangeError
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.attempt_ranges import range_of, sealed_values
from pacesetter_service.runtime.queries.curves import MAX_CURVE, Curve, thinned
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.windows import Block, refuse_too_many, sealed_block
from pacesetter_service.runtime.work import Entry
from pacesetter_service.store.store import Store

T = TypeVar("T")

MAX_AT_ONCE = 16_384
"""The most values that are read and shown without a thread of the pool."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values of the steps from `start` on.

    Attributes:
        names: The series.
        start: The first step.
        block: The values, a row for each series.
        sealed_until: The first step whose value is a forecast.
    """

    names: list[str]
    start: int
    block: Block
    sealed_until: int


async def read_values(
    service: Service,
    name: str,
    start: int,
    count: int,
    attempt: int | None,
    show: Callable[[Values], T],
) -> T:
    """Return what `show` makes of the values of `count` steps, each sealed or forecast.

    An ended attempt has only the values that it sealed.

    Args:
        service: The service.
        name: The session's name.
        start: The first step.
        count: How many steps.
        attempt: An earlier attempt; None for the running one.
        show: Makes the answer from the values, on the thread that reads them.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: It has no such attempt.
        StepOutOfRangeError: There are no values of these steps, or too many.
    """
    entry = await service.writer.find(name)
    session, names = entry.stored.session, list(entry.stored.session.timelines)
    end, ref = start + count, None
    if not session.attempt.includes(attempt):
        ref = await range_of(service, entry, attempt)
        end = max(min(end, ref.end), start + 1)
    refuse_too_many(len(names), end - start)

    def answer(check: Check) -> T:
        if ref is not None:
            block = sealed_values(service.store, ref, len(names), start, end)
            return show(Values(names, start, block, end))
        block = block_of(service.store, entry, start, end - start, check)
        return show(Values(names, start, block, min(max(session.horizon, start), end)))

    if ref is None and entry.tail.holds(start, end) and (end - start) * len(names) <= MAX_AT_ONCE:
        return answer(_go_on)  # it is in memory
    return await answered(service, entry, start, end, answer)


async def read_forecast(
    service: Service,
    name: str,
    start: int | None,
    count: int | None,
    points: int,
    show: Callable[[Curve], T],
) -> T:
    """Return what `show` makes of a session's curve: sealed values, then those that would be.

    Args:
        service: The service.
        name: The session's name.
        start: The first step; None for the horizon.
        count: How many steps; None for what is left of the plan, or 1,000 steps.
        points: About how many points are kept of the curve.
        show: Makes the answer from the curve, on the thread that evaluates it.

    Raises:
        SessionNotFoundError: There is no session of that name.
        StepOutOfRangeError: There are no values of these steps, or too many.
    """
    entry = await service.writer.find(name)
    session = entry.stored.session
    first = session.horizon if start is None else start
    if count is None:
        count = max((session.spec.total_steps or first + 1000) - first, 1)
    steps = min(count, MAX_CURVE)

    def answer(check: Check) -> T:
        block = block_of(service.store, entry, first, steps, check)
        check()
        return show(thinned(list(session.timelines), block, first, points, session.horizon))

    return await answered(service, entry, first, first + steps, answer)


async def answered(
    service: Service, entry: Entry, start: int, end: int, answer: Callable[[Check], T]
) -> T:
    """Make an answer about the steps `start` to `end`, in the pool if it is costly.

    Raises:
        BusyError: It is costly, and too many costly answers are being prepared already.
    """
    session = entry.stored.session
    few = len(session.timelines) * (end - start) <= MAX_AT_ONCE
    if not few or cost_of(session, (Seal(start, end - start),)) > LIGHT:
        return await service.reads.run(answer)
    return await in_thread(answer, _go_on)


def block_of(store: Store, entry: Entry, start: int, count: int, check: Check) -> Block:
    """Return values from the record below the horizon, and from the law above it.

    Raises:
        StepOutOfRangeError: There are no values of these steps, or too many.
    """
    session, end = entry.stored.session, start + count
    refuse_too_many(len(session.timelines), count)
    if start < session.spec.start_step or end > MAX_STEP:
        raise StepOutOfRangeError(
            f"This session has the steps {session.spec.start_step} to {MAX_STEP - 1}. "
            f"Ask for {session.spec.start_step} or a later one."
        )
    known = min(max(session.horizon, start), end)
    pieces = []
    if start < known:
        pieces.append(sealed_block(store, entry, start, known))
    if known < end:
        rest = forecast(session, known, end - known, check)
        # If the range begins with sealed steps, values that cannot be evaluated are left out.
        usable = count_usable(known, rest, at_least=0 if start < known else 1)
        pieces.append(np.stack([rest[name][:usable] for name in session.timelines]))
    return np.concatenate(pieces, axis=1)


def _go_on() -> None:
    """Check nothing: the work is too short to be abandoned."""
