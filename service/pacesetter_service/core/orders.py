"""Whether an operator's order is taken, and what it would do."""

from collections.abc import Iterator, Mapping
from math import inf, isfinite

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions import Action, Limit, Order, Switch
from pacesetter_service.core.carrying import carried_out, next_stage
from pacesetter_service.core.commands import Act
from pacesetter_service.core.controllers.switch import Switch as Rule
from pacesetter_service.core.errors import (
    ActionRefusedError,
    SessionArchivedError,
    SessionFinishedError,
    StaleAttemptError,
    StepOutOfRangeError,
)
from pacesetter_service.core.events import Event, Ordered
from pacesetter_service.core.evolve import evolve_all, plan_of
from pacesetter_service.core.forecast import planned
from pacesetter_service.core.lengths import resolve
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import Limits, Series

MAX_ORDERS = 256
"""The most orders given in one attempt that may wait; those that wait again are not counted."""

LOOKED_AT = 1000
"""How many steps of a gradual change are looked at before it is taken."""

LATER_VALUES = 4096
"""How many values of orders that wait are looked at before another one is taken."""

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
        _refuse_another_order(session, command)
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
    if sum(each.id > session.ordered_before for each in session.orders) >= MAX_ORDERS:
        raise ActionRefusedError(
            f"{MAX_ORDERS} orders wait already. Cancel some with DELETE …/actions/{{id}}."
        )
    action = _in_steps(session, command.action)
    _refuse_misfits(session, action)
    given = Order(session.ordered + 1, at, action, command.actor, command.key)
    before = planned(session, at + 1)
    _refuse_nonsense(before, given)
    after = _with(before, given)
    _refuse_beyond_limits(before, after, given)
    _refuse_to_spoil(before, after)
    notice = None
    if _largest_change(before, after, given) >= LARGE:
        notice = Notice(
            session.horizon,
            "large_change",
            f"from step {at} the learning rate is {action.cause()}: save a checkpoint before it",
        )
    return (Ordered(given, notice),)


def pitfalls(session: Session, given: Order, curves: Mapping[str, Values]) -> list[str]:
    """Say what an operator should know about an order before giving it.

    Args:
        session: The session, with the order in it.
        given: The order.
        curves: What each series would be from the order's step on; each of shape (n,).
    """
    return [
        *_off_the_range(session, given, curves),
        *_too_late(session, given),
        *(
            f"Order {later.id} still waits for step {later.at} and changes the rate from there on:"
            f" {later.action.cause()}."
            for later in session.orders
            if later.at >= given.at and later.id != given.id
        ),
    ]


def _off_the_range(session: Session, given: Order, curves: Mapping[str, Values]) -> Iterator[str]:
    limits = planned(session, given.at + 1).limits
    for series in session.spec.series():
        if series.channel != "lr" or not given.action.concerns(series.group, series.channel):
            continue
        curve = curves[series.name]
        usable = np.isfinite(curve) & (curve >= 0)
        most = inf if limits.max_lr is None else limits.max_lr
        off = usable & ((curve < limits.min_lr) | (curve > most))
        if off.any():
            at = int(np.argmax(off))
            yield (
                f"{series.name} would be {float(curve[at])!r} at step {given.at + at}, outside the"
                f" limits {limits.min_lr!r} to {most!r}: schedules are not held to them."
            )
        if not usable.all():
            at = int(np.argmin(usable))
            yield (
                f"{series.name} would be {float(curve[at])!r} at step {given.at + at}: nothing"
                " could be sealed from there on."
            )


def _too_late(session: Session, given: Order) -> Iterator[str]:
    end, total = given.action.settles(given.at), session.spec.total_steps
    if total is not None and given.at < total < end:
        yield f"It would be complete at step {end}, but the session ends at step {total}."
    if total is not None and given.at >= total:
        yield f"It would hold from step {given.at}, but the session ends at step {total}."


def _refuse_another_order(session: Session, command: Act) -> None:
    """Refuse a key that was given to another order: who sent it would take that for this one."""
    number, at, said = session.keys[command.key]
    same = resolve(command.action, session.spec.clock).cause() == said
    if not same or command.at not in (None, at):
        raise ActionRefusedError(
            f"The key {command.key!r} belongs to order {number}, for step {at}: {said}. "
            "Use another key for another order."
        )


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


def _in_steps(session: Session, action: Action) -> Action:
    """Give an action with its lengths in steps."""
    try:
        return resolve(action, session.spec.clock)
    except PydanticCustomError as unknown:
        raise ActionRefusedError(f"{unknown.message()}; or give it in steps.") from unknown
    except ValidationError as wrong:
        found = "; ".join(str(each["msg"]) for each in wrong.errors(include_url=False))
        raise ActionRefusedError(
            f"Some length in it comes to a number of steps that makes no sense: {found}."
            " Give it in steps."
        ) from wrong


def _refuse_misfits(session: Session, action: Action) -> None:
    """Refuse what no step of this session would change."""
    channels: dict[str, set[str]] = {}
    for series in session.spec.series():
        channels.setdefault(series.group, set()).add(series.channel)
    unknown = set(action.groups or ()) - set(channels)
    if unknown:
        raise ActionRefusedError(
            f"There is no group {', '.join(sorted(unknown))}; "
            + (
                f"the groups are {', '.join(sorted(channels))}."
                if set(channels) != {""}
                else "this session has none: leave `groups` out."
            )
        )
    for group in action.groups or channels:
        action.check_channels(channels[group])


def _refuse_nonsense(before: Session, given: Order) -> None:
    """Refuse what makes no sense at its step."""
    action = given.action
    if isinstance(action, Switch):
        _refuse_to_switch(before, action, given.at)
        return
    moved = False
    for series in _concerned(before, given):
        line = before.timelines[series.name]
        if action.moves(line, given.at):
            moved = True
            action.check(line, given.at, plan_of(before.spec, series))
    if not moved:
        raise ActionRefusedError(action.idle)


def _refuse_to_switch(before: Session, action: Switch, at: int) -> None:
    following = next_stage(before, action, at)
    if following is None:
        switches = [
            str(index) for index, rule in enumerate(before.spec.rules) if isinstance(rule, Rule)
        ]
        raise ActionRefusedError(
            f"Controller {action.controller} has no stages to go to. "
            + (
                f"Those that have: {', '.join(switches)}."
                if switches
                else "This session has no `switch`; use `replace` to go over to another schedule."
            )
        )
    if following.verdict is None:
        raise ActionRefusedError(
            f"Controller {action.controller} is in its last stage by then. Use `replace` to go over"
            " to another schedule."
        )


def _concerned(session: Session, given: Order) -> Iterator[Series]:
    for series in session.spec.series():
        if given.action.concerns(series.group, series.channel):
            yield series


def _with(before: Session, given: Order) -> Session:
    return evolve_all(before, carried_out(before, given))


def _refuse_beyond_limits(before: Session, after: Session, given: Order) -> None:
    """Refuse what no series could be trained with, or what oversteps the limits at its step.

    What an order leads to gradually has to lie within them where it ends.

    Raises:
        ActionRefusedError: It does.
    """
    for series in _changed_rates(before, given):
        old, line = before.timelines[series].value(given.at), after.timelines[series]
        _refuse_value(after.limits, series, old, line.value(given.at))
        end = given.action.settles(given.at)
        if end > given.at:
            gradually = after.limits.model_copy(update={"max_change": None})
            _refuse_value(gradually, series, old, line.value(end), f" at step {end}")
            way = line.values(given.at, min(end - given.at, LOOKED_AT))
            if not (np.isfinite(way) & (way >= 0)).all():
                raise ActionRefusedError(
                    f"{series} would be no learning rate on the way to step {end}. "
                    "Use another `ease`."
                )
        segment = line.segments[-1]
        if not (isfinite(segment.effective_level) and 0 < segment.scale < inf):
            raise ActionRefusedError(
                f"There would be no way back for {series}: its level would be "
                f"{segment.effective_level!r}. Order a smaller change."
            )


def _refuse_to_spoil(before: Session, after: Session) -> None:
    """Refuse what would make an order that waits for a later step overstep the limits.

    Of very many orders for very many groups the next ones alone are looked at: the writer waits.

    Raises:
        ActionRefusedError: It does, where that order alone does not.
    """
    looked_at = max(LATER_VALUES // len(after.timelines), 1)
    passed: list[Order] = []
    for later in after.orders[:looked_at]:
        then = _with(after, later)
        refused = _refusal(after, then, later)
        if refused is not None and not _is_refused(before, passed, later):
            raise ActionRefusedError(
                f"Order {later.id}, which waits for step {later.at}, would not fit any more:"
                f" {refused} Or cancel it first with DELETE …/actions/{later.id}."
            )
        passed.append(later)
        after = then


def _is_refused(before: Session, passed: list[Order], later: Order) -> bool:
    """Tell whether an order that waits would be refused as things stand."""
    for each in passed:
        before = _with(before, each)
    return _refusal(before, _with(before, later), later) is not None


def _refusal(before: Session, after: Session, given: Order) -> str | None:
    try:
        _refuse_beyond_limits(before, after, given)
    except ActionRefusedError as refusal:
        return str(refusal)
    return None


def _changed_rates(session: Session, given: Order) -> list[str]:
    """Name the learning rates that an order may change."""
    all_of_them = isinstance(given.action, Switch)
    return [
        series.name
        for series in session.spec.series()
        if series.channel == "lr"
        and (all_of_them or given.action.concerns(series.group, series.channel))
        and not isinstance(given.action, Limit)
    ]


def _largest_change(before: Session, after: Session, given: Order) -> float:
    """Give the largest ratio by which an order changes a rate at its step."""
    return max(
        (
            _ratio(before.timelines[name].value(given.at), after.timelines[name].value(given.at))
            for name in _changed_rates(before, given)
        ),
        default=1.0,
    )


def _refuse_value(limits: Limits, series: str, old: float, new: float, where: str = "") -> None:
    if not (isfinite(new) and new >= 0):
        raise ActionRefusedError(
            f"{series} would be {new!r}{where}: that is no learning rate. Order something else."
        )
    most = inf if limits.max_lr is None else limits.max_lr
    if new != old and not limits.min_lr <= new <= most:
        raise ActionRefusedError(
            f"{series} would be {new!r}{where}, outside the limits {limits.min_lr!r} to {most!r}. "
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
