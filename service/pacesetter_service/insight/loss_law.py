"""The multi-power law: the loss of a pretraining as a function of its learning rates.

    L(t) = L0 + A * S(t)^-alpha - B * sum_k (e_{k-1} - e_k) * G_k(t)
    G_k(t) = 1 - (1 + C * e_k^-gamma * S_k(t))^-beta

where `e_k` is the learning rate of step k as a fraction of the peak, `S(t)` the sum of the rates
before step t, and `S_k(t)` that sum from step k on. The first two terms are a power law in how far
the weights have moved. The third is what each drop of the rate gains: the longer it lasts, the
more. Source: Luo et al., A Multi-Power Law for Loss Curve Prediction Across Learning Rate Schedules
(arXiv 2503.12811). The law describes one pass over the data, after the warmup.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 512
"""Drops of the rate are gathered in this many blocks of steps: the law is smooth at that scale."""

LEAST_RATE = 1e-4
"""The least fraction of the peak that a rate counts as: at 0 the law is undefined."""

Floats = NDArray[np.float64]


class LossLaw(NamedTuple):
    """The seven parameters of the law, all of them positive; rates are fractions of the peak.

    Attributes:
        floor: `L0`, the loss that no training of this model gets below.
        scale: `A`, how far above the floor the loss is after one step at the peak.
        alpha: How fast that distance falls with the sum of the rates.
        gain: `B`, what a drop to nothing gains in the end.
        speed: `C`, how soon the gain comes.
        beta: How the gain tails off.
        gamma: How much sooner a small rate gains than a large one.
    """

    floor: float
    scale: float
    alpha: float
    gain: float
    speed: float
    beta: float
    gamma: float


class Path:
    """The learning rates of a training from its first step on, prepared for the law."""

    def __init__(self, rates: Floats) -> None:
        """Prepare a path.

        Args:
            rates: The learning rate of each step; at least one is positive, none is negative.

        Raises:
            ValueError: There is no such rate.
        """
        if not (len(rates) and np.isfinite(rates).all() and rates.min() >= 0 and rates.max() > 0):
            raise ValueError("give learning rates of 0 or more, not all of them 0")
        self.peak = float(rates.max())
        self.rates = rates / self.peak
        self.warm = int(np.argmax(self.rates))
        self._sums = np.concatenate(([0.0], np.cumsum(self.rates)))
        edges = np.unique(np.linspace(self.warm, len(rates), BLOCKS + 1).astype(np.int64))
        means = np.add.reduceat(self.rates, edges[:-1]) / np.diff(edges)
        drops = -np.diff(means, prepend=1.0)
        told = np.abs(drops) > 1e-12
        self._drops, self._at = drops[told], edges[:-1][told]
        self._levels = np.maximum(means[told], LEAST_RATE)

    def __len__(self) -> int:
        return len(self.rates)

    def sums(self, steps: NDArray[np.int64]) -> Floats:
        """Return `S` at steps from 0 to the path's length."""
        return self._sums[steps]

    def losses(self, law: LossLaw, steps: NDArray[np.int64]) -> Floats:
        """Return the loss at steps after the warmup, up to the path's length."""
        moved = self._sums[steps]
        found: Floats = law.floor + law.scale * moved**-law.alpha
        return found - self.gains(law, steps) if len(self._drops) else found

    def gains(self, law: LossLaw, steps: NDArray[np.int64]) -> Floats:
        """Return how much the drops of the rate have lowered the loss at such steps."""
        since = np.maximum(self._sums[steps][:, None] - self._sums[self._at][None, :], 0.0)
        reach = 1.0 + law.speed * self._levels**-law.gamma * since
        found: Floats = law.gain * ((1.0 - reach**-law.beta) @ self._drops)
        return found

    def decays(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the steps come after a drop of the rate."""
        if not len(self._drops):
            return np.zeros(len(steps), np.bool_)
        found: NDArray[np.bool_] = steps > self._at[0]
        return found
