"""The loss law of one training, found from what was measured, with how sure it is.

The parameters are kept within bounds, and drawn to where pretrainings have them as far as their own
measurements do not say otherwise. One short decay of the training itself, or of a fork of it, is
what says how much a decay gains; without one the law is not to be believed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.insight.loss_law import Floats, LossLaw, Path

POINTS = 200
"""The most values that are fitted of the part at a constant rate: means of what was measured."""

DECAY_POINTS = 8
"""The same of a part behind a drop of the rate."""

DECAY_WEIGHT = 4.0
"""How much more a value behind a drop counts: there are few of them, and all depends on them."""

TOLERANCE = 0.003
"""How far, as a fraction, single measurements are from the law that fits them well."""

LATER = 0.042
"""By which part a decay gains less than the law says of it, for each time that the sum of the rates
has grown by e since the last decay that was seen: the law takes a late decay for too good."""

MODEL_ERROR = 0.0029
"""How far, as a fraction, an end is from what the law says of it, however well the law fits.

The law is not the training: fitted to within 0.05 % it still misses later ends by several times as
much, and more measurements change nothing of that.
"""

LATER_ERROR = 0.036
"""By how much `LATER` differs from training to training.

These three were chosen together: they make the errors most likely that were made on two trunks of a
124M model and on one of a 25M model (`benchmarks/planner.py` says which), each trunk counted once.
"""

LOG = np.array([0, 1, 0, 1, 1, 0, 0], np.bool_)
"""Which parameters are fitted as logarithms."""

BOUNDS = (
    LossLaw(0.0, 0.05, 0.05, 1e-3, 1e-6, 0.05, 0.0),
    LossLaw(20.0, 500.0, 1.5, 5.0, 10.0, 3.0, 2.0),
)

USUAL = LossLaw(2.5, 10.0, 0.45, 0.25, 0.02, 0.35, 0.6)
SPREAD = np.array([3.0, 3.0, 0.3, 1.0, 1.0, 0.15, 0.3])
"""Where the parameters of pretrainings lie, of those that are logarithms too, and how far apart.

Chosen on decays of a 124M model to nothing, linear, at two peak rates (`benchmarks/planner.py` says
which), and tried on others.
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured on a path.

    Attributes:
        path: The learning rates, from the first step to at least the last one that was measured.
        steps: The steps, ascending; int64[n].
        losses: The loss at each; float64[n], all of them positive.
    """

    path: Path
    steps: NDArray[np.int64]
    losses: Floats


class Estimate(NamedTuple):
    """Losses that are expected, and the standard deviation of each; float64[n]."""

    losses: Floats
    deviations: Floats


@dataclass(frozen=True, slots=True)
class Fitted:
    """A law with its uncertainty.

    Attributes:
        law: The parameters that fit best.
        covariance: Of the parameters as they were fitted; float64[7, 7].
        error: The root of the mean square by which the measurements differ from it, as a fraction.
        decayed: The sum of the rates, as fractions of the peak, up to where a decay was seen last;
            up to the last measurement if none was.
    """

    law: LossLaw
    covariance: Floats
    error: float
    decayed: float

    def losses(self, path: Path, steps: NDArray[np.int64]) -> Floats:
        """Return the losses of a path at steps behind its warmup."""
        return path.losses(self.law, steps) + LATER * self._later(path, steps)

    def expected(self, path: Path, steps: NDArray[np.int64]) -> Estimate:
        """Return the same, with how sure that is."""
        best, law = _inner(self.law), path.losses(self.law, steps)
        slopes = np.empty((len(steps), len(best)))
        for at in range(len(best)):
            reach = max(abs(best[at]), 1.0) * 1e-4
            moved = best.copy()
            moved[at] += reach
            slopes[:, at] = (path.losses(_outer(moved), steps) - law) / reach
        spread = np.maximum(np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes), 0)
        later = self._later(path, steps)
        # By as much as the law misses what was seen, it misses at least what was not.
        misfit = max(self.error / TOLERANCE, 1.0)
        wrong = misfit**2 * ((MODEL_ERROR * law) ** 2 + (LATER_ERROR * later) ** 2)
        return Estimate(law + LATER * later, np.sqrt(spread + wrong))

    def _later(self, path: Path, steps: NDArray[np.int64]) -> Floats:
        """Return what the law says decays gain, times how much later they are than those seen."""
        since = np.log(np.maximum(path.sums(steps) / self.decayed, 1.0))
        later: Floats = path.gains(self.law, steps) * since
        return later


def fit(seen: Sequence[Seen]) -> Fitted:
    """Find the law that trainings of one model at one peak rate follow.

    Args:
        seen: What was measured of each: the training itself, and its forks or its like.

    Raises:
        ValueError: Nothing was measured behind a warmup.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes long, and few ask for this

    points = [_points(each) for each in seen]
    if not sum(len(each.losses) for each in points):
        raise ValueError("nothing was measured behind the warmup")
    usual = _inner(USUAL)

    def residuals(inner: Floats) -> Floats:
        law = _outer(inner)
        apart = [
            each.weights * np.log(np.maximum(each.path.losses(law, each.steps), 0.1) / each.losses)
            for each in points
        ]
        return np.concatenate([*apart, (inner - usual) / SPREAD])

    low, high = (_inner(bound) for bound in BOUNDS)
    start = np.clip(usual, low + 1e-6, high - 1e-6)
    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", max_nfev=300, x_scale=SPREAD
    )
    law = _outer(found.x)
    apart = [np.log(each.path.losses(law, each.steps) / each.losses) for each in points]
    error = float(np.sqrt(np.mean(np.concatenate(apart) ** 2)))
    known = [each for each in points if each.decayed] or points
    decayed = max(float(each.path.sums(each.steps).max(initial=1.0)) for each in known)
    noise = (error / TOLERANCE) ** 2  # what scatters less than was assumed says so much more
    return Fitted(law, noise * np.linalg.pinv(found.jac.T @ found.jac), error, decayed)


class _Points(NamedTuple):
    """What is fitted of a path."""

    path: Path
    steps: NDArray[np.int64]
    losses: Floats
    weights: Floats
    decayed: bool


def _points(seen: Seen) -> _Points:
    """Gather measurements behind the warmup into few means, and weigh them."""
    known = (seen.steps > settled(seen.path)) & np.isfinite(seen.losses) & (seen.losses > 0)
    steps, losses = seen.steps[known], seen.losses[known]
    late = seen.path.decays(steps)
    parts = [
        (*_gathered(steps[~late], losses[~late], POINTS), 1.0),
        (*_gathered(steps[late], losses[late], DECAY_POINTS), DECAY_WEIGHT),
    ]
    return _Points(
        seen.path,
        np.concatenate([each[0] for each in parts]),
        np.concatenate([each[1] for each in parts]),
        np.concatenate([np.full(len(each[0]), each[2] / TOLERANCE) for each in parts]),
        bool(late.any()),
    )


def settled(path: Path) -> int:
    """Return the step behind the warmup from which on the law holds.

    That is five times as long as the warmup, or a quarter of the path where the warmup is a large
    part of it, and a quarter more than the warmup at least.
    """
    return max(min(5 * path.warm, len(path) // 4), 5 * path.warm // 4)


def _gathered(
    steps: NDArray[np.int64], losses: Floats, points: int
) -> tuple[NDArray[np.int64], Floats]:
    """Return at most so many means of neighbours, each at its middle step; the last one is kept."""
    if len(steps) <= points:
        return steps, losses
    edges = np.unique(np.linspace(0, len(steps), points + 1).astype(np.int64))
    sizes = np.diff(edges)
    middle = np.rint(np.add.reduceat(steps, edges[:-1]) / sizes).astype(np.int64)
    return middle, np.add.reduceat(losses, edges[:-1]) / sizes


def _inner(law: LossLaw) -> Floats:
    """Return parameters as they are fitted."""
    values = np.array(law, np.float64)
    values[LOG] = np.log(np.maximum(values[LOG], 1e-12))
    return values


def _outer(inner: Floats) -> LossLaw:
    """Return fitted numbers as the parameters that they stand for."""
    values = inner.copy()
    values[LOG] = np.exp(values[LOG])
    return LossLaw(*values.tolist())


class BlindLaw(NamedTuple):
    """A power law of the steps, `floor + scale * (t / last)^-power`: it knows no learning rate."""

    floor: float
    scale: float
    power: float
    last: int

    def losses(self, steps: NDArray[np.int64]) -> Floats:
        """Return the losses that it expects before steps, which are counted from 1."""
        expected: Floats = self.floor + self.scale * (steps / self.last) ** -self.power
        return expected


def blind(seen: Seen) -> BlindLaw:
    """Return the power law of the steps that fits what was measured at the constant rate.

    Raises:
        ValueError: Too little was measured there.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415 - as above

    known = _points(seen)
    flat = ~seen.path.decays(known.steps)
    if flat.sum() < 4:
        raise ValueError("fewer than four losses were measured at the constant rate")
    last = int(known.steps[flat][-1])
    at, losses = known.steps[flat] / last, known.losses[flat]

    def residuals(given: Floats) -> Floats:
        floor, scale, power = given
        apart: Floats = np.log(np.maximum(floor + scale * at**-power, 1e-3) / losses)
        return apart

    start = np.array([0.9 * losses[-1], 0.1 * losses[-1], 0.5])
    found = least_squares(residuals, start, bounds=([0.0, 0.0, 0.01], [np.inf, np.inf, 3.0]))
    floor, scale, power = map(float, found.x)
    return BlindLaw(floor, scale, power, last)
