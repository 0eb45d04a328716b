"""Whether the service can go on with a state or an event that it did not write itself.

What the service has written itself is trusted. An imported record is not. Each field must have its
declared type, numbers must be ones that can be computed with, and the first things that would be
done with the record are tried.
"""

import json
from contextlib import suppress
from math import isfinite

from pydantic import BaseModel, ConfigDict, ValidationError

from pacesetter_service.core.actions import Order
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.cost import refuse_costly_session, refuse_costly_turns
from pacesetter_service.core.errors import ActionRefusedError, PacesetterError
from pacesetter_service.core.events import Acted, BatchResized, Decided, Logged, Ordered
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.lengths import resolve
from pacesetter_service.core.mistakes import first_mistake
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.orders import refuse_misfits
from pacesetter_service.core.session import Attempt, Control, OrderBook, Session
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.timeline import Segment, Timeline

LONGEST_KEY = 256
"""The most characters of the key of an order."""


class _Declared(BaseModel):
    """The parts of a state, to be validated at any depth."""

    model_config = ConfigDict(strict=True, revalidate_instances="always", defer_build=True)

    control: Control
    attempt: Attempt
    orders: OrderBook
    segments: tuple[Segment, ...]
    readings: tuple[Reading, ...]


def refuse_odd_numbers(*texts: str) -> None:
    """Refuse texts in JSON with a whole number that cannot be a step, a count or an id.

    Raises:
        ValueError: There is one in them.
    """
    for text in texts:
        json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int:
    found = int(digits)
    if not -1 <= found <= MAX_STEP:
        raise ValueError(f"{found} is no step and no number of anything")
    return found


def refuse_unsound_state(session: Session) -> None:
    """Refuse a state from which no session could go on.

    Raises:
        ValueError: A field of it has another type, or a value that it cannot have.
        TooCostlyError: Sealing it would keep all others waiting.
    """
    _refuse_mistyped(session)
    if list(session.timelines) != [series.name for series in session.spec.series()]:
        raise ValueError("the series of a state are not those of the session")
    for line in session.timelines.values():
        _refuse_unsound_line(line, session.horizon)
    for order in session.orders.waiting:
        _refuse_unsound_order(order, session.spec)
        if order.at < session.horizon:
            raise ValueError(f"order {order.id} waits for step {order.at}, which is sealed")
    wait = session.control.wait
    if wait is not None and not (isfinite(wait.seconds) and isfinite(wait.looked)):
        raise ValueError("nothing can be waited for so long")
    for size in (session.control.batch_size, session.attempt.batch):
        _refuse_no_batch(size)
    refuse_costly_session(session)
    _try_to_go_on(session)


def refuse_unsound_event(event: Logged, spec: SessionSpec) -> None:
    """Refuse an event that could not be described or replayed.

    Raises:
        ValueError: A field of it has a value that it cannot have.
        TooCostlyError: It would lead to a law that keeps all others waiting.
    """
    match event:
        case Ordered(order) | Acted(order):
            _refuse_unsound_order(order, spec)
            refuse_costly_turns([order.action], spec)
        case BatchResized(before=before, after=after):
            _refuse_no_batch(before)
            _refuse_no_batch(after)
        case Decided():
            _refuse_unsound_decision(event, spec)
    event.text(spec)


def _refuse_mistyped(session: Session) -> None:
    """Refuse a state with a field, at any depth, that is not what its class declares.

    Raises:
        ValueError: The field, and what is wrong with it.
    """
    try:
        _Declared(
            control=session.control,
            attempt=session.attempt,
            orders=session.orders,
            segments=tuple(each for line in session.timelines.values() for each in line.segments),
            readings=tuple(session.pending.readings()),
        )
    except ValidationError as wrong:
        raise ValueError(first_mistake(wrong)) from wrong


def _refuse_unsound_decision(event: Decided, spec: SessionSpec) -> None:
    unknown = set(event.levels) - {series.name for series in spec.series()}
    if unknown:
        raise ValueError(f"there is no series {min(unknown)}")


def _refuse_unsound_line(line: Timeline, horizon: int) -> None:
    if not line.segments:
        raise ValueError("a series has no law")
    starts = [segment.start for segment in line.segments]
    if starts != sorted(starts) or starts[-1] > horizon:
        raise ValueError("the segments of a series are not in the order of their steps")
    for segment in line.segments:
        _refuse_unsound_segment(segment)


def _refuse_unsound_segment(segment: Segment) -> None:
    numbers = [segment.clock, segment.base, segment.level, segment.scale, segment.speed]
    rewarm, end = segment.rewarm, segment.end
    if rewarm is not None:
        numbers += [rewarm.factor]
    if end is not None:
        numbers += [end.clock]
    if not all(map(isfinite, numbers)) or segment.speed <= 0:
        raise ValueError("a segment has a number that nothing can be computed with")
    if rewarm is not None and rewarm.steps < 1:
        raise ValueError("a rewarmup has no steps")


def _refuse_unsound_order(order: Order, spec: SessionSpec) -> None:
    if order.id < 1 or order.at < 0 or len(order.key) > LONGEST_KEY:
        raise ValueError("an order has a number, a step or a key that none has")
    _refuse_no_batch(order.batch_before)
    if resolve(order.action, spec.clock) != order.action:
        raise ValueError(f"the lengths of order {order.id} are not in steps")
    try:
        refuse_misfits(spec, order.action)
    except ActionRefusedError as refusal:
        raise ValueError(str(refusal)) from refusal


def _refuse_no_batch(size: int | None) -> None:
    if size is not None and size < 1:
        raise ValueError(f"{size} is no batch size")


def _try_to_go_on(session: Session) -> None:
    """Try the first step of a state, and the step of its last order; nothing of it is kept."""
    last = max((order.at for order in session.orders.waiting), default=session.horizon)
    for step in {session.horizon, min(last, MAX_STEP - 1)}:
        with suppress(PacesetterError):  # the session may be where no trainer can go on
            forecast(session, step, 1)
