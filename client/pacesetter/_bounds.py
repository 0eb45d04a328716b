"""Which learning rates a training accepts, whatever the server says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pacesetter._info import SessionInfo

MARGIN = 1000.0
"""The factor by which a plausible value may exceed all that a session says of its rates."""

Bounds = tuple[float, float]


def checked_bounds(bounds: Bounds | None) -> Bounds | None:
    """Return the given range, checked; None if there is none.

    Raises:
        ValueError: It is not a valid range.
    """
    if bounds is None:
        return None
    low, high = bounds
    if not 0 <= low <= high:
        raise ValueError(f"lr_bounds={bounds}: give (low, high) with 0 <= low <= high")
    return (float(low), float(high))


def bounds_of(info: SessionInfo, given: Bounds | None) -> Bounds:
    """Return the range that rates must lie in: as given, or else derived from the session.

    The derived range goes up to a thousand times the largest of the session's base rates and the
    `max_lr` of its limits. Where the session states no `max_lr`, 1 counts as well: schedules and
    orders may be written in absolute rates.
    """
    checked = checked_bounds(given)
    if checked is not None:
        return checked
    stated = _number(info.spec.get("limits"), "max_lr")
    groups = info.spec.get("groups")
    holders = list(groups.values()) if isinstance(groups, Mapping) else [info.spec]
    bases = [base for each in holders if (base := _number(each, "base_lr")) is not None]
    return (0.0, MARGIN * max([*bases, 1.0 if stated is None else stated]))


def _number(holder: Any, key: str) -> float | None:  # noqa: ANN401 - whatever the server said
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
