"""Whether an operator's order is taken, and what it would do."""

from math import inf, isfinite

from pacesetter_service.core.actions import Action, Order
from pacesetter_service.core.actions.limit import Limit
from pacesetter_service.core.commands import Act
from pacesetter_service.core.errors import (
    ActionRefusedError,
    SessionArchivedError,
    SessionFinishedError,
    StaleAttemptError,
    StepOutOfRangeError,
)
from pacesetter_service.core.events import Acted, Event, Ordered
from pacesetter_service.core.evolve import evolve, plan_of
from pacesetter_service.core.forecast import planned
from pacesetter_service.core.lengths import resolve
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.session import Session

MAX_ORDERS = 256
"""The most orders that may wait in one session."""

LARGE = 2.0
"""A rate that an order multiplies or divides by this is worth a checkpoint before it."""


def order(session: Session, command: Act) -> tuple[Event, ...]:
    """Give the events of an order; none if its key was seen before.

    Raises:
        SessionArchivedError: The session takes no more commands.
        SessionFinishedError: It has ended.
        StepOutOfRangeError: The step is sealed already.
        ActionRefusedError: The order makes no sense there, or oversteps the limits.
    """
    if command.key and command.key in session.keys:
        return ()
    refuse_unless_writable(session, None)
    if session.status == "finished":
        raise finished(session)
    at = session.horizon if command.at is None else command.at
    if not session.horizon <= at < MAX_STEP:
        raise StepOutOfRangeError(
            f"Step {at} is sealed: the first step that can still change is {session.horizon}. "
            "Leave `at` out for that one, or name a later one."
        )
    if len(session.orders) >= MAX_ORDERS:
        raise ActionRefusedError(
            f"{MAX_ORDERS} orders wait already. Cancel some with DELETE …/actions/{{id}}."
        )
    action = resolve(command.action, session.spec.clock)
    _refuse_unknown_groups(session, action)
    given = Order(session.ordered + 1, at, action, command.actor, command.key)
    largest = _largest_change(session, given)
    notice = None
    if largest >= LARGE:
        notice = Notice(
            session.horizon,
            "large_change",
            f"from step {at} the learning rate is {action.cause()}: save a checkpoint before it",
        )
    return (Ordered(given, notice),)


def refuse_unless_writable(session: Session, attempt: int | None) -> None:
    """Refuse what an archived session does not take, and what speaks for another attempt.

    Raises:
        SessionArchivedError: The session is archived.
        StaleAttemptError: The attempt is not the running one.
    """
    if session.status == "archived":
        raise SessionArchivedError(session.spec.name)
    if attempt is not None and attempt != session.attempt:
        raise StaleAttemptError(attempt, session.attempt)


def finished(session: Session) -> SessionFinishedError:
    """Say that a session is finished, and why."""
    reason = session.notices[-1].message if session.notices else ""
    return SessionFinishedError(session.spec.name, session.horizon, reason)


def _refuse_unknown_groups(session: Session, action: Action) -> None:
    known = {series.group for series in session.spec.series()}
    unknown = set(action.groups or ()) - known
    if unknown:
        raise ActionRefusedError(
            f"There is no group {', '.join(sorted(unknown))}; "
            + (
                f"the groups are {', '.join(sorted(known))}."
                if known != {""}
                else "this session has none: leave `groups` out."
            )
        )


def _largest_change(session: Session, given: Order) -> float:
    """Give the largest ratio by which an order changes a rate at its step.

    Raises:
        ActionRefusedError: The order makes no sense there, or oversteps the limits.
    """
    before = planned(session, given.at + 1)
    for series in session.spec.series():
        if given.action.concerns(series.group, series.channel):
            plan = plan_of(session.spec, series)
            given.action.check(before.timelines[series.name], given.at, plan)
    if isinstance(given.action, Limit):
        return 1.0
    after = evolve(before, Acted(given))
    largest = 1.0
    for series in session.spec.series():
        if series.channel == "lr" and given.action.concerns(series.group, series.channel):
            old = before.timelines[series.name].value(given.at)
            new = after.timelines[series.name].value(given.at)
            _refuse_beyond_limits(session, series.name, old, new)
            segment = after.timelines[series.name].segments[-1]
            if not (isfinite(segment.effective_level) and 0 < segment.scale < inf):
                raise ActionRefusedError(
                    f"There would be no way back for {series.name}: its level would be "
                    f"{segment.effective_level!r}. Order a smaller change."
                )
            largest = max(largest, _ratio(old, new))
    return largest


def _refuse_beyond_limits(session: Session, series: str, old: float, new: float) -> None:
    limits = session.limits
    if not isfinite(new):
        raise ActionRefusedError(f"{series} would be {new!r}: that is no learning rate.")
    most = inf if limits.max_lr is None else limits.max_lr
    if new != old and not limits.min_lr <= new <= most:
        raise ActionRefusedError(
            f"{series} would be {new!r}, outside the limits {limits.min_lr!r} to {most!r}. "
            "Order less, or change the limits with the action `limit`."
        )
    if limits.max_change is not None and _ratio(old, new) > limits.max_change:
        raise ActionRefusedError(
            f"{series} would go from {old!r} to {new!r} in one step, by more than the limit's "
            f"factor of {limits.max_change!r}. Order it in parts or over some steps, or change the "
            "limits with the action `limit`."
        )


def _ratio(old: float, new: float) -> float:
    low, high = sorted((old, new))
    return 1.0 if low == high else inf if low <= 0 else high / low
