"""Operators' orders: whether one is accepted, what it would do, and what it does at its step."""

from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite, nan

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions import Action, Limit, Order, Switch
from pacesetter_service.core.bounded import refuse_large, refuse_too_many
from pacesetter_service.core.bounds import refuse_kind
from pacesetter_service.core.commands import Act
from pacesetter_service.core.controllers.base import Observation
from pacesetter_service.core.controllers.switch import Switch as SwitchRule
from pacesetter_service.core.cost import refuse_costly_laws
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.errors import (
    ActionRefusedError,
    RevisionChangedError,
    StepOutOfRangeError,
    concerning,
)
from pacesetter_service.core.events import Acted, Decided, Observed, Ordered
from pacesetter_service.core.evolve import plan_of
from pacesetter_service.core.lengths import resolve, unresolved
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.react import react
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import Series, SessionSpec
from pacesetter_service.core.status import refuse_unless_taken
from pacesetter_service.core.timeline import SEALING

MAX_ORDERS = 256
"""The most orders of one attempt that may wait; those that wait again are not counted."""

ORDERED_SERIES = 32_768
"""How many series the waiting orders may change in all: one sealing may carry all of them out."""

FEW_ORDERS = 16
"""How many orders may wait, however many series there are."""

LOOKED_AT = 1000
"""How many steps of a gradual change are checked before the order is accepted."""

LATER_VALUES = 4096
"""How many values of waiting orders are checked before another order is accepted."""

LARGE = 2.0
"""An order that multiplies or divides a rate by this much is worth a checkpoint before it."""


def order(session: Session, command: Act) -> Draft:
    """Return what an order leads to; nothing if its key was seen before.

    Raises:
        SessionArchivedError: The session takes no more commands.
        SessionFinishedError: It has ended.
        StepOutOfRangeError: The step is sealed already.
        ActionRefusedError: The order makes no sense there, or oversteps the limits.
        NotAllowedError: The bounds of who orders do not allow such an action.
        BeyondBoundsError: They do not allow that large a change, or another one.
        RevisionChangedError: The order is meant for another revision.
    """
    if command.key and command.key in session.orders.keys:
        _refuse_another_order(session, command)
        return Draft(session)
    if command.bounds is not None:
        with concerning("kind"):
            refuse_kind(command.bounds, type(command.action).model_fields["kind"].default)
    refuse_unless_taken(session, command)
    if command.if_revision not in {None, session.revision}:
        assert command.if_revision is not None  # noqa: S101 - as was just seen
        raise RevisionChangedError(command.if_revision, session.revision)
    at = session.horizon if command.at is None else command.at
    if not session.horizon <= at < MAX_STEP:
        raise StepOutOfRangeError(
            f"Step {at} is sealed: the first step that can still change is {session.horizon}. "
            "Leave `at` out for that one, or name a later one."
        ).about("at")
    most = min(MAX_ORDERS, max(ORDERED_SERIES // len(session.timelines), FEW_ORDERS))
    if sum(each.id > session.orders.given_before for each in session.orders.waiting) >= most:
        raise ActionRefusedError(
            f"{most} orders wait already, the most for {len(session.timelines)} series. Cancel some"
            " first."
        )
    action = _in_steps(session, command.action)
    refuse_misfits(session.spec, action)
    given = Order(session.orders.given + 1, at, action, command.actor, command.key)
    before = planned(session, at + 1)
    _refuse_nonsense(before, given)
    after = _with(before, given)
    with concerning(*action.sizing):
        refuse_costly_laws(after.timelines, at)
        _refuse_beyond_limits(before, after, given)
    _refuse_to_spoil(before, after)
    if command.bounds is not None:
        refuse_too_many(command.bounds, session, command.actor, at)
        with concerning(*action.sizing):
            refuse_large(command.bounds, before, given, after.timelines)
    notice = _if_large(before, after, given, session.horizon)
    return Draft(session).record(Ordered(given, notice, command.bounds is not None))


def foretold(session: Session) -> tuple[Notice, ...]:
    """Return the notices about waiting orders that a trainer gets at the horizon: large changes."""
    found = []
    for each in session.orders.waiting:
        after = _with(session, each)
        notice = _if_large(session, after, each, session.horizon)
        if notice is not None and notice not in session.control.notices:
            found.append(notice)
        session = after
    return tuple(found)


def _if_large(before: Session, after: Session, given: Order, told_at: int) -> Notice | None:
    if _largest_change(before, after, given) < LARGE:
        return None
    return Notice(
        told_at,
        "large_change",
        f"from step {given.at} the learning rate is {given.action.cause()}: save a checkpoint"
        " before it",
    )


def pitfalls(session: Session, given: Order, curves: Mapping[str, Values]) -> list[str]:
    """Return what an operator should know about an order before giving it.

    Args:
        session: The session, with the order in it.
        given: The order.
        curves: The values of each series from the order's step on; each of shape (n,).
    """
    return [
        *_off_the_range(session, given, curves),
        *_too_late(session, given),
        *_come_to_nothing(session, given),
        *(
            f"Order {later.id} still waits for step {later.at} and changes the rate from there on:"
            f" {later.action.cause()}."
            for later in session.orders.waiting
            if later.at >= given.at and later.id != given.id
        ),
    ]


def _off_the_range(session: Session, given: Order, curves: Mapping[str, Values]) -> Iterator[str]:
    limits = planned(session, given.at + 1).control.limits
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


def _come_to_nothing(session: Session, given: Order) -> Iterator[str]:
    """Name the orders that wait behind this one and would then do nothing."""
    ready = planned(session, given.at + 1)
    for later, draft in apply_orders(ready, ready.orders.waiting):
        for event in draft.events:
            if isinstance(event, Acted) and event.idle is not None:
                yield (
                    f"Order {later.id}, which waits for step {later.at} ({later.action.cause()}),"
                    f" would do nothing then: {event.idle}"
                )


def _refuse_another_order(session: Session, command: Act) -> None:
    """Refuse a key of another order: the caller would take that order for this one."""
    number, at, said = session.orders.keys[command.key]
    same = resolve(command.action, session.spec.clock).cause() == said
    if not same or command.at not in (None, at):
        raise ActionRefusedError(
            f"The key {command.key!r} belongs to order {number}, for step {at}: {said}. "
            "Use another key for another order."
        ).about("key")


def _in_steps(session: Session, action: Action) -> Action:
    """Return an action with its lengths in steps."""
    try:
        return resolve(action, session.spec.clock)
    except PydanticCustomError as unknown:
        refused = ActionRefusedError(f"{unknown.message()}; or give it in steps.")
        raise refused.about(*unresolved(action, session.spec.clock)) from unknown
    except ValidationError as wrong:
        found = "; ".join(str(each["msg"]) for each in wrong.errors(include_url=False)[:3])
        raise ActionRefusedError(
            f"Some length in it comes to a number of steps that makes no sense: {found}."
            " Give it in steps."
        ).about(*unresolved(action, session.spec.clock)) from wrong


def refuse_misfits(spec: SessionSpec, action: Action) -> None:
    """Refuse an action that could change no step of a session with this spec.

    Raises:
        ActionRefusedError: It names a group, or drives a channel, that there is not.
    """
    channels: dict[str, set[str]] = {}
    for series in spec.series():
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
        ).about("groups")
    for group in action.groups or channels:
        action.check_channels(channels[group])


def _refuse_nonsense(before: Session, given: Order) -> None:
    """Refuse an order that makes no sense at its step."""
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
            str(index)
            for index, rule in enumerate(before.spec.rules)
            if isinstance(rule, SwitchRule)
        ]
        raise ActionRefusedError(
            f"Controller {action.controller} has no stages to go to. "
            + (
                f"Those that have: {', '.join(switches)}."
                if switches
                else "This session has no `switch`; use `replace` to go over to another schedule."
            )
        ).about("controller")
    if following.verdict is None:
        raise ActionRefusedError(
            f"Controller {action.controller} is in its last stage by then. Use `replace` to go over"
            " to another schedule."
        ).about("controller")


def _concerned(session: Session, given: Order) -> Iterator[Series]:
    for series in session.spec.series():
        if given.action.concerns(series.group, series.channel):
            yield series


def _with(before: Session, given: Order) -> Session:
    return apply_order(before, given).after


def _refuse_beyond_limits(before: Session, after: Session, given: Order) -> None:
    """Refuse values that no trainer can use, or that overstep the limits at the order's step.

    A gradual change must lie within the limits where it ends.

    Raises:
        ActionRefusedError: It does.
    """
    for series in _changed_rates(before, given):
        old, line = before.timelines[series].value(given.at), after.timelines[series]
        _refuse_value(after.control.limits, series, old, line.value(given.at))
        end = given.action.settles(given.at)
        if end > given.at:
            gradually = after.control.limits.model_copy(update={"max_change": None})
            _refuse_value(gradually, series, old, line.value(end), f" at step {end}")
            way = line.values(given.at, min(end - given.at, LOOKED_AT, after.timelines.affordable))
            if not (np.isfinite(way) & (way >= 0)).all():
                raise ActionRefusedError(
                    f"{series} would be no learning rate on the way to step {end}. "
                    "Use another `ease`."
                ).about("ease")
        segment = line.segments[-1]
        if not (isfinite(segment.effective_level) and 0 < segment.scale < inf):
            raise ActionRefusedError(
                f"There would be no way back for {series}: its level would be "
                f"{segment.effective_level!r}. Order a smaller change."
            )


def _refuse_to_spoil(before: Session, after: Session) -> None:
    """Refuse an order that would make another, waiting for a later step, overstep the limits.

    With very many orders for very many groups only the next ones are checked: the writer waits.

    Raises:
        ActionRefusedError: It does, where that order alone does not.
    """
    lines = after.timelines
    looked_at = max(min(LATER_VALUES // len(lines), int(SEALING / lines.cost.of(1))), 1)
    passed: list[Order] = []
    for later in after.orders.waiting[:looked_at]:
        then = _with(after, later)
        refused = _refusal(after, then, later)
        if refused is not None and not _is_refused(before, passed, later):
            raise ActionRefusedError(
                f"Order {later.id}, which waits for step {later.at}, would not fit any more:"
                f" {refused} Or cancel it first."
            )
        passed.append(later)
        after = then


def _is_refused(before: Session, passed: list[Order], later: Order) -> bool:
    """Return whether a waiting order would be refused as things stand."""
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
    """Return the largest ratio by which an order changes a rate at its step."""
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


def apply_order(session: Session, order: Order) -> Draft:
    """Return what follows from an order; it is never refused, because it was promised."""
    draft = Draft(session)
    if not isinstance(order.action, Switch):
        return draft.record(Acted(order, _idle(session, order)))
    following = next_stage(session, order.action, order.at)
    if following is None or following.verdict is None:
        return draft.record(Acted(order, "The controller is in its last stage."))
    index, verdict = order.action.controller, following.verdict
    decided = Decided(
        controller=index,
        metric=session.spec.rules[index].metric,
        step=max(order.at - 1, session.spec.start_step),
        value=nan,  # no measurement led to this
        at=order.at,
        reason=verdict.reason,
        before=session.control.states[index],
        after=following.state,
        transition=verdict.transition,
        advice=verdict.advice,
    )
    return draft.record(Acted(order), Observed(index, following.state), decided)


def _idle(session: Session, order: Order) -> str | None:
    """Say why an order would do nothing at its step; None if it does something."""
    action, why = order.action, order.action.idle
    if isinstance(action, Limit):
        return None
    for series in session.spec.series():
        if not action.concerns(series.group, series.channel):
            continue
        line, plan = session.timelines[series.name], plan_of(session.spec, series)
        if action.apply(line, order.at, plan) is not line:
            return None
        try:
            if action.moves(line, order.at):
                action.check(line, order.at, plan)
        except ActionRefusedError as refusal:
            why = str(refusal)
    return why or "There was nothing to change."


def next_stage(session: Session, action: Switch, at: int) -> Observation | None:
    """Return a controller's answer to an order to go on; None if it is not a `switch`."""
    rules = session.spec.rules
    rule = rules[action.controller] if action.controller < len(rules) else None
    if not isinstance(rule, SwitchRule):
        return None
    by_hand = f"by hand ({action.reason})" if action.reason else "by hand"
    return rule.next_stage(session.control.states[action.controller], at, by_hand)


def apply_orders(session: Session, orders: Iterable[Order]) -> Iterator[tuple[Order, Draft]]:
    """Return what follows from each of several orders, applied one after the other."""
    for order in orders:
        draft = apply_order(session, order)
        session = draft.after
        yield order, draft


def carried_out(session: Session, end: int) -> Draft:
    """Return what the orders that wait for the steps below `end` lead to."""
    due = [order for order in session.orders.waiting if order.at < end]
    return Draft(session).follow(*(draft for _, draft in apply_orders(session, due)))


def to_come(session: Session, end: int) -> Draft:
    """Return everything known now about the steps below `end`, as if it had happened."""
    draft = react(session)
    return draft.follow(carried_out(draft.after, end))


def planned(session: Session, end: int) -> Session:
    """Return the session as if everything known now about the steps below `end` had happened."""
    return to_come(session, end).after
