"""Carrying an order out: what becomes of it when its step is about to be sealed."""

from collections.abc import Iterable, Iterator
from math import nan

from pacesetter_service.core.actions import Order, Switch
from pacesetter_service.core.controllers.base import Observation
from pacesetter_service.core.controllers.switch import Switch as SwitchRule
from pacesetter_service.core.events import Acted, Decided, Event, Observed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session


def carried_out(session: Session, order: Order) -> tuple[Event, ...]:
    """Give what follows from an order; never a refusal, for it was promised."""
    acted = Acted(order)
    if not isinstance(order.action, Switch):
        return (acted,)
    following = next_stage(session, order.action, order.at)
    if following is None or following.verdict is None:
        return (acted,)
    index, verdict = order.action.controller, following.verdict
    decided = Decided(
        controller=index,
        metric=session.spec.rules[index].metric,
        step=max(order.at - 1, session.spec.start_step),
        value=nan,  # nothing was measured for this
        at=order.at,
        reason=verdict.reason,
        before=session.controllers[index],
        after=following.state,
        transition=verdict.transition,
        advice=verdict.advice,
    )
    return (acted, Observed(index, following.state), decided)


def next_stage(session: Session, action: Switch, at: int) -> Observation | None:
    """Give what a controller makes of the order to go on; None if it is no `switch`."""
    rules = session.spec.rules
    rule = rules[action.controller] if action.controller < len(rules) else None
    if not isinstance(rule, SwitchRule):
        return None
    by_hand = f"by hand ({action.reason})" if action.reason else "by hand"
    return rule.next_stage(session.controllers[action.controller], at, by_hand)


def all_carried_out(
    session: Session, orders: Iterable[Order]
) -> Iterator[tuple[Order, tuple[Event, ...]]]:
    """Give what follows from each of several orders, carried out one after the other."""
    for order in orders:
        events = carried_out(session, order)
        session = evolve_all(session, events)
        yield order, events
