"""The best schedule for the rest of a training, by the law: a falling line with few knots.

The search covers lines that fall from the present rate, and starts from the straight one to the
floor. So by the law's own prediction the result is never worse than that line.
"""

from dataclasses import replace
from math import ceil

import numpy as np

from pacesetter_service.core.actions.plan import Replace
from pacesetter_service.core.schedules.combinators import Relative
from pacesetter_service.core.schedules.named.piecewise import PiecewiseLinear
from pacesetter_service.core.schedules.tables import Knot
from pacesetter_service.insight.loss_fit import Fitted
from pacesetter_service.insight.loss_law import Floats, Path
from pacesetter_service.insight.planner import Candidate, Planned, Planner

KNOTS = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 1.0])
"""Where the line may bend, as fractions of the remaining steps: more often towards the end."""

COARSE = 2048
"""The most pieces into which the search cuts a training."""

MOVES = 40
"""The most steps of the search."""


def best_remainder(planner: Planner, total: int) -> Candidate | None:
    """Return the schedule of the remaining steps that ends lowest; None if there is no room."""
    session = planner.session
    horizon, past = session.horizon, planner.evidence.own.rates
    left = total - horizon
    present = planner.present
    if planner.fitted is None or left < 10 * len(KNOTS) or present <= 0:
        return None
    # A hair above the limit, because a product may round to below it.
    floor = min(session.control.limits.min_lr / present * (1 + 1e-9), 1.0)
    levels = floor + (1 - floor) * _shape(planner.fitted, past, left, present, floor)
    steps = np.rint(KNOTS * left).astype(np.int64)
    points = tuple(
        Knot(at=at, level=level) for at, level in zip(steps.tolist(), levels.tolist(), strict=True)
    )
    law = Relative(schedule=PiecewiseLinear(points=points))
    return Candidate(
        f"follow the best falling line of {len(KNOTS) - 1} pieces over {left} steps",
        (Planned(horizon, Replace(schedule=law, value="continue")),),
        total,
    )


def _shape(fitted: Fitted, past: Floats, left: int, present: float, floor: float) -> Floats:
    """Return the line from 1 to 0 or above at each knot."""
    from scipy.optimize import minimize  # noqa: PLC0415 - takes long, and few ask for this

    # The law on pieces of `size` steps is the same law with other parameters.
    size = ceil((len(past) + left) / COARSE)
    law = fitted.law._replace(
        scale=fitted.law.scale * size**-fitted.law.alpha, speed=fitted.law.speed * size
    )
    coarse = replace(fitted, law=law, decayed=fitted.decayed / size)
    whole = len(past) // size * size
    before = past[:whole].reshape(-1, size).mean(axis=1)
    count = max(left // size, len(KNOTS))
    places = (np.arange(count) + 0.5) / count
    end = np.array([len(before) + count], np.int64)

    def line(given: Floats) -> Floats:
        drops = np.exp(given - given.max())
        gone = np.cumsum(drops[:-1]) / drops.sum()
        return np.concatenate(([1.0], 1.0 - gone))

    def loss(given: Floats) -> float:
        ahead = floor + (1 - floor) * np.interp(places, KNOTS, line(given))
        path = Path(np.concatenate((before, present * ahead)))
        return float(coarse.losses(path, end)[0])

    straight = np.log(np.append(np.diff(KNOTS), 1e-3))
    found = minimize(loss, straight, method="L-BFGS-B", options={"maxiter": MOVES})
    best = found.x if found.fun < loss(straight) else straight
    shape = line(best)
    shape[-1] = 0.0 if shape[-1] < 2e-3 else shape[-1]
    return shape
