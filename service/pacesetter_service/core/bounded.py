"""Judges the orders of actors with bounds: by the size of a change, and by the number of changes.

The bounds belong to the token of the actor; the session's own limits hold besides, for every
actor. The changes that count are kept in the session's state, which is folded from its log. So the
count is the same on every replica, and after a restart.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pacesetter_service.core.actions import Order
from pacesetter_service.core.bounds import CHANGES_COUNTED, Bounds
from pacesetter_service.core.errors import BeyondBoundsError
from pacesetter_service.core.session import Session
from pacesetter_service.core.timeline import Timeline
from pacesetter_service.core.watching import plan_end

LOOKED_AT = 1000
"""How many steps, from its own on, an order is checked at, one by one."""

SPOTS = 32
"""How many of the later steps, up to the plan's end, are checked as well."""

LOOKED_VALUES = 8192
"""How many values, over all series, are checked; there is a cap, because the writer waits."""

CLOSE = 1e-9
"""By how much, relatively, a ratio may miss the factor that it was meant to be."""


class _Change(NamedTuple):
    """A value that an order would change, before and after."""

    series: str
    step: int
    before: float
    after: float

    @property
    def factor(self) -> float:
        return self.after / self.before if self.before else float("inf")


def refuse_too_many(bounds: Bounds, session: Session, actor: str, at: int) -> None:
    """Refuse a change that would be one too many near its step.

    Raises:
        BeyondBoundsError: It would be.
    """
    if bounds.changes is None:
        return
    count, window = bounds.changes.count, bounds.changes.per_steps
    known = session.orders.counted.get(actor, ())
    if _is_free(known, at, count, window) and not _is_full(known, session.horizon, window):
        return
    free = min(
        (step + window for step in known if step + window > at and _fits(known, step, at, bounds)),
        default=at + window,
    )
    raise BeyondBoundsError(
        f"{actor!r} may make {count} changes within {window} steps, and the one at step {at} would"
        f" be one more; a cancelled one counts, too. The next may hold from step {free} on: order"
        " it with that `at`, or later, or ask an operator."
    )


def _fits(known: tuple[int, ...], step: int, at: int, bounds: Bounds) -> bool:
    assert bounds.changes is not None  # noqa: S101 - else nothing is counted
    count, window = bounds.changes.count, bounds.changes.per_steps
    return step + window > at and _is_free(known, step + window, count, window)


def _is_free(known: tuple[int, ...], at: int, count: int, window: int) -> bool:
    """Return whether a change at `at` leaves no more than `count` changes in any `window` steps."""
    near = sorted((*(each for each in known if abs(each - at) < window), at))
    return not any(
        first <= at <= last and last - first < window
        for first, last in zip(near, near[count:], strict=False)
    )


def _is_full(known: tuple[int, ...], horizon: int, window: int) -> bool:
    """Return whether remembering another change would drop one that still counts."""
    return len(known) >= CHANGES_COUNTED and min(known) > horizon - window


def refuse_large(
    bounds: Bounds, session: Session, given: Order, after: Mapping[str, Timeline]
) -> None:
    """Refuse an order that would change a value by a factor beyond the bounds.

    Args:
        bounds: The bounds.
        session: The session as it would be at the order's step without the order.
        given: The order.
        after: The timelines with the order.

    Raises:
        BeyondBoundsError: It would.
    """
    if bounds.factor_range is None:
        return
    low, high = bounds.factor_range
    for change in _changes(session, given, after):
        if not low * (1 - CLOSE) <= change.factor <= high * (1 + CLOSE):
            raise BeyondBoundsError(
                f"At step {change.step} {change.series} would be {change.after!r} where it would be"
                f" {change.before!r} without the order: {change.factor:.4g} times as much. This"
                f" token may change values by a factor of {low!r} to {high!r}. Order less, or ask"
                " an operator."
            )


def _changes(session: Session, given: Order, after: Mapping[str, Timeline]) -> Iterator[_Change]:
    lines = session.timelines
    changed = [name for name, line in lines.items() if after[name] is not line]
    if not changed:
        return
    count = max(min(LOOKED_AT, lines.affordable, LOOKED_VALUES // len(changed)), 1)
    spots = _spots(session, given, given.at + count)[: LOOKED_VALUES // len(changed)]
    for name in changed:
        pairs = [
            (given.at, lines[name].values(given.at, count), after[name].values(given.at, count)),
            *((spot, lines[name].values(spot, 1), after[name].values(spot, 1)) for spot in spots),
        ]
        for start, old, new in pairs:
            for index in np.flatnonzero(~((old == new) | (np.isnan(old) & np.isnan(new)))):
                yield _Change(name, start + int(index), float(old[index]), float(new[index]))


def _spots(session: Session, given: Order, end: int) -> list[int]:
    """Return the later steps to check, from `end` on: some up to the plan's end, and the last."""
    ends = session.spec.total_steps, plan_end(session), given.action.settles(given.at) + 1
    last = max(each or 0 for each in ends) - 1
    if last < end:
        return []
    return sorted({last, *(int(each) for each in np.linspace(end, last, SPOTS))})
