"""The loss law of one training, fitted to its measurements, with its uncertainty.

The parameters are kept within bounds, and drawn towards those of known pretrainings as far as the
training's own measurements do not say otherwise. How much a decay gains is known only from a short
decay of the training itself, or of a fork of it; without one the law is not to be trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.insight.loss_law import Floats, LossLaw, Path

POINTS = 200
"""The most values that are fitted at a constant rate: means of measurements."""

DECAY_POINTS = 8
"""The most values that are fitted after a drop of the rate."""

DECAY_WEIGHT = 4.0
"""How much more a value after a drop counts: there are few of them, and all depends on them."""

TOLERANCE = 0.003
"""How far, as a fraction, single measurements are from a law that fits them well."""

LATER = 0.042
"""By which fraction a decay gains less than the law says, for each time that the sum of the rates
has grown by e since the last decay that was measured: the law overestimates a late decay."""

MODEL_ERROR = 0.0029
"""How far, as a fraction, an end is from what the law says of it, however well the law fits.

The law is only a model: fitted to within 0.05 % it still misses later ends by several times as
much, and more measurements do not change that.
"""

LATER_ERROR = 0.036
"""By how much `LATER` differs from training to training.

These three were chosen together: they maximise the likelihood of the errors that were made on two
trunks of a 124M model and on one of a 25M model (`benchmarks/planner.py` says which), each trunk
counted once.
"""

LOG = np.array([0, 1, 0, 1, 1, 0, 0], np.bool_)
"""Which parameters are fitted as logarithms."""

BOUNDS = (
    LossLaw(0.0, 0.05, 0.05, 1e-3, 1e-6, 0.05, 0.0),
    LossLaw(20.0, 500.0, 1.5, 5.0, 10.0, 3.0, 2.0),
)

USUAL = LossLaw(2.5, 10.0, 0.45, 0.25, 0.02, 0.35, 0.6)
SPREAD = np.array([3.0, 3.0, 0.3, 1.0, 1.0, 0.15, 0.3])
"""Where the parameters of pretrainings lie, and their spread, as logarithms for those in `LOG`.

Chosen on decays of a 124M model to nothing, linear, at two peak rates (`benchmarks/planner.py` says
which), and tried on others.
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """The measurements on a path.

    Attributes:
        path: The learning rates, from the first step to at least the last one that was measured.
        steps: The steps, ascending; int64[n].
        losses: The loss at each; float64[n], all of them positive.
    """

    path: Path
    steps: NDArray[np.int64]
    losses: Floats


class Estimate(NamedTuple):
    """Expected losses, and the standard deviation of each; float64[n]."""

    losses: Floats
    deviations: Floats


@dataclass(frozen=True, slots=True)
class Fitted:
    """A law with its uncertainty.

    Attributes:
        law: The parameters that fit best.
        covariance: Of the parameters as they were fitted; float64[7, 7].
        error: The root mean square by which the measurements differ from it, as a fraction.
        decayed: The sum of the rates, as fractions of the peak, up to the last measured decay; up
            to the last measurement if no decay was measured.
    """

    law: LossLaw
    covariance: Floats
    error: float
    decayed: float

    def losses(self, path: Path, steps: NDArray[np.int64]) -> Floats:
        """Return the losses of a path at steps after its warmup."""
        return path.losses(self.law, steps) + LATER * self._later(path, steps)

    def expected(self, path: Path, steps: NDArray[np.int64]) -> Estimate:
        """Return the losses with their uncertainty."""
        best, law = _inner(self.law), path.losses(self.law, steps)
        slopes = np.empty((len(steps), len(best)))
        for at in range(len(best)):
            reach = max(abs(best[at]), 1.0) * 1e-4
            moved = best.copy()
            moved[at] += reach
            slopes[:, at] = (path.losses(_outer(moved), steps) - law) / reach
        spread = np.maximum(np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes), 0)
        later = self._later(path, steps)
        # The law misses unseen steps by at least as much as the measured ones.
        misfit = max(self.error / TOLERANCE, 1.0)
        wrong = misfit**2 * ((MODEL_ERROR * law) ** 2 + (LATER_ERROR * later) ** 2)
        return Estimate(law + LATER * later, np.sqrt(spread + wrong))

    def _later(self, path: Path, steps: NDArray[np.int64]) -> Floats:
        """Return what decays gain by the law, times how much later they are than measured ones."""
        since = np.log(np.maximum(path.sums(steps) / self.decayed, 1.0))
        later: Floats = path.gains(self.law, steps) * since
        return later


def fit(seen: Sequence[Seen]) -> Fitted:
    """Find the law that trainings of one model at one peak rate follow.

    Args:
        seen: The measurements of each: the training itself, and its forks or donors.

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
    noise = (error / TOLERANCE) ** 2  # measurements that scatter less than assumed say more
    return Fitted(law, noise * np.linalg.pinv(found.jac.T @ found.jac), error, decayed)


class _Points(NamedTuple):
    """The values of a path to be fitted."""

    path: Path
    steps: NDArray[np.int64]
    losses: Floats
    weights: Floats
    decayed: bool


def _points(seen: Seen) -> _Points:
    """Reduce measurements after the warmup to a few means, with weights."""
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
    """Return the step after the warmup from which on the law holds.

    It is five times the warmup, or a quarter of the path if the warmup is a large part of it, and
    at least a quarter more than the warmup.
    """
    return max(min(5 * path.warm, len(path) // 4), 5 * path.warm // 4)


def _gathered(
    steps: NDArray[np.int64], losses: Floats, points: int
) -> tuple[NDArray[np.int64], Floats]:
    """Return at most `points` means of neighbours, each at its middle step; all values are used."""
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
    """Return the parameters that fitted numbers stand for."""
    values = inner.copy()
    values[LOG] = np.exp(values[LOG])
    return LossLaw(*values.tolist())


class BlindLaw(NamedTuple):
    """A power law of the steps, `floor + scale * (t / last)^-power`, blind to the learning rate."""

    floor: float
    scale: float
    power: float
    last: int

    def losses(self, steps: NDArray[np.int64]) -> Floats:
        """Return the losses that it expects before steps, which are counted from 1."""
        expected: Floats = self.floor + self.scale * (steps / self.last) ** -self.power
        return expected


def blind(seen: Seen) -> BlindLaw:
    """Return the power law of the steps that fits the measurements at the constant rate.

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
