"""What would be sealed if a trainer asked now, and curves for display."""

import itertools

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.cost import Check, evaluated, refuse_costly_reading
from pacesetter_service.core.orders import planned
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session


def forecast(
    session: Session, start: int, count: int, check: Check = lambda: None
) -> dict[str, Values]:
    """Evaluate steps at or after the horizon as they would be sealed now.

    Waiting measurements and orders are taken into account; those still to come cannot be.

    Raises:
        TooCostlyError: It would take too long.
    """
    lines = planned(session, start + count).timelines
    refuse_costly_reading(lines.cost, count)
    return evaluated(lines, start, count, check)


def decimate(curves: dict[str, Values], points: int) -> NDArray[np.int64]:
    """Choose about `points` positions that keep every extreme of every curve.

    The curves, all of one length, are cut into equal spans. Of each span, its first position and
    the positions of each curve's lowest and highest value are kept. So is the very last position.

    Returns:
        int64 positions, ascending, without repetition.
    """
    length = len(next(iter(curves.values())))
    spans = max(points // (1 + 2 * len(curves)), 1)
    if length <= points:
        return np.arange(length, dtype=np.int64)
    edges = np.linspace(0, length, spans + 1).astype(np.int64)
    kept = [*edges[:-1], length - 1]
    for curve in curves.values():
        for begin, end in itertools.pairwise(edges):
            span = curve[begin:end]
            kept += [begin + int(np.argmin(span)), begin + int(np.argmax(span))]
    return np.unique(np.array(kept, dtype=np.int64))
