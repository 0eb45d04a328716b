"""What would be sealed if it were asked for now, and curves for the eye."""

import itertools

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.carrying import all_carried_out
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.react import react
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.session import Session


def forecast(session: Session, start: int, count: int) -> dict[str, Values]:
    """Evaluate steps at or after the horizon as they would be sealed now.

    Measurements and orders that wait are taken into account; those that may still come can not be.
    """
    ready = planned(session, start + count)
    return {name: line.values(start, count) for name, line in ready.timelines.items()}


def planned(session: Session, end: int) -> Session:
    """Give the session as if all that is known now about the steps below `end` had happened."""
    ready = evolve_all(session, react(session))
    due = [order for order in ready.orders if order.at < end]
    return evolve_all(ready, (each for _, events in all_carried_out(ready, due) for each in events))


def decimate(curves: dict[str, Values], points: int) -> NDArray[np.int64]:
    """Choose about `points` positions that keep every extreme of every curve.

    The curves, all of one length, are cut into equal stretches; of each stretch its first position
    and the positions of each curve's lowest and highest value are kept, and the very last one.

    Returns:
        int64 positions, ascending, without repetition.
    """
    length = len(next(iter(curves.values())))
    stretches = max(points // (1 + 2 * len(curves)), 1)
    if length <= points:
        return np.arange(length, dtype=np.int64)
    edges = np.linspace(0, length, stretches + 1).astype(np.int64)
    kept = [*edges[:-1], length - 1]
    for curve in curves.values():
        for begin, end in itertools.pairwise(edges):
            stretch = curve[begin:end]
            kept += [begin + int(np.argmin(stretch)), begin + int(np.argmax(stretch))]
    return np.unique(np.array(kept, dtype=np.int64))
