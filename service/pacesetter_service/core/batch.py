"""The batch size, and what a session's own rule makes of a change of it.

A rate goes with the number of samples in a step. When that number changes, because a job goes on
with more machines for instance, the rule orders a scale; the order's key says from which size to
which, so that an attempt that goes back before it knows what the rates there were made for.
"""

import re
from collections.abc import Iterable

from pacesetter_service.core.actions import Order
from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act
from pacesetter_service.core.errors import BatchRefusedError, PacesetterError
from pacesetter_service.core.events import Event
from pacesetter_service.core.orders import order
from pacesetter_service.core.session import Session

ACTOR = "batch_scaling"
"""Who gives the orders that a changed batch size leads to."""

_KEY = re.compile(r"(?:attempt|order) \d+, batch size (\d+) -> \d+")
"""The key of such an order; nobody else's has blanks in it."""


def rescaled(session: Session, before: int | None, after: int | None) -> tuple[Event, ...]:
    """Give the order for the horizon that a changed batch size leads to, by the session's rule.

    Args:
        session: The session.
        before: The batch size that the rates at the horizon are made for, if anybody has said.
        after: The one that is trained with from the horizon on.

    Raises:
        BatchRefusedError: The rule refuses changes, or the rate that follows is refused.
    """
    rule = session.spec.batch_scaling
    if rule == "none" or before is None or after is None or before == after:
        return ()
    change = f"batch size {before} -> {after}"
    if rule == "refuse":
        raise BatchRefusedError(
            f"The batch size was {before} at step {session.horizon} and is {after} now, which this"
            " session's `batch_scaling` refuses. Train with the old one, or fork the session."
        )
    ratio = after / before
    scale = Scale(factor=ratio if rule == "linear" else ratio**0.5, reason=f"{change}, {rule} rule")
    act = Act(scale, session.horizon, ACTOR, f"order {session.ordered + 1}, {change}")
    try:
        return order(session, act)
    except PacesetterError as refusal:
        raise BatchRefusedError(f"The {change} is refused: {refusal}") from refusal


def batch_before(given: Order) -> int | None:
    """Give the batch size before the change that led to an order; None if none did."""
    found = _KEY.fullmatch(given.key)
    return int(found[1]) if found else None


def batch_at(session: Session, orders: Iterable[Order], step: int) -> int | None:
    """Give the batch size that the rates restored at a step were made for.

    Where it changed at that very step, the change has not moved the rates yet.
    """
    changes = (batch_before(each) for each in orders if each.at == step)
    return next((before for before in changes if before is not None), session.batch_size)
