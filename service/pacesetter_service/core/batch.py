"""The batch size, and how the session's own rule responds when it changes.

A learning rate is tied to the number of samples in a step. When that number changes, for instance
because a job goes on with more machines, the rule orders a scale. The order's key holds the old and
the new size, so that an attempt that goes back before the order knows which size its rates are for.
"""

from collections.abc import Iterable

from pacesetter_service.core.actions import Order
from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.errors import BatchRefusedError, PacesetterError
from pacesetter_service.core.events import BatchResized, Cancelled
from pacesetter_service.core.orders import order
from pacesetter_service.core.session import Session

ACTOR = "batch_scaling"
"""The actor of the orders that a changed batch size leads to."""


def resized(session: Session, after: int) -> Draft:
    """Return what follows from training with another batch size from the horizon on.

    Several changes before the next step is sealed count as one, from the first size to the last.

    Raises:
        BatchRefusedError: The rule refuses changes, or the rate that follows is refused.
    """
    before, draft = session.control.batch_size, Draft(session)
    if after == before:
        return draft
    draft.record(BatchResized(session.horizon, after, before))
    newest = next(
        (each for each in session.orders.waiting if each.id == session.orders.given), None
    )
    if newest is not None and newest.at == session.horizon and newest.batch_before is not None:
        before = newest.batch_before
        draft.record(Cancelled(newest.id, ACTOR))
    return draft.follow(rescaled(draft.after, before, after))


def rescaled(session: Session, before: int | None, after: int | None) -> Draft:
    """Return the order at the horizon that the session's rule gives for a changed batch size.

    Args:
        session: The session.
        before: The batch size that the rates at the horizon are made for, if a trainer has said.
        after: The batch size of the training from the horizon on.

    Raises:
        BatchRefusedError: The rule refuses changes, or the rate that follows is refused.
    """
    rule = session.spec.batch_scaling
    if rule == "none" or before is None or after is None or before == after:
        return Draft(session)
    if session.status == "finished":
        return Draft(session)  # no further step of it is trained
    change = f"batch size {before} -> {after}"
    if rule == "refuse":
        raise BatchRefusedError(
            f"The batch size was {before} at step {session.horizon} and is {after} now, which this"
            " session's `batch_scaling` refuses. Train with the old one, or fork the session."
        )
    ratio = after / before
    scale = Scale(factor=ratio if rule == "linear" else ratio**0.5, reason=f"{change}, {rule} rule")
    act = Act(scale, session.horizon, ACTOR, f"order {session.orders.given + 1}, {change}")
    try:
        return order(session, act)
    except PacesetterError as refusal:
        raise BatchRefusedError(f"The {change} is refused: {refusal}") from refusal


def batch_at(session: Session, orders: Iterable[Order], step: int) -> int | None:
    """Return the batch size that the rates restored at a step were made for.

    Where the size changed at that very step, the change has not affected the rates yet.
    """
    changes = (each.batch_before for each in orders if each.at == step)
    return next((before for before in changes if before is not None), session.control.batch_size)
