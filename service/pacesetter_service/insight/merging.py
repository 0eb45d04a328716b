"""Merging: averaging checkpoints of a constant rate in place of a decay.

A checkpoint of step s is the weights before the update of that step. Where checkpoints of the steps
s_0 < ... < s_k are averaged with weights c_0 + ... + c_k = 1, the updates between s_{i-1} and s_i
count with the share w_i = c_i + ... + c_k. So the average is the first checkpoint plus all updates
since, each times the share of its stretch. It is as if the rate had been lower by that factor, with
the same gradients. Conversely, a decay of the shares gives the weights:

    c_0 = 1 - w_1,  c_i = w_i - w_{i+1},  c_k = w_k

Source: WSM, Tian et al. 2025, arXiv:2507.17634.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pacesetter_service.core.schedules.eases import AnyEase, Cosine, Decay, Linear, Poly, Power

Shape = Literal["linear", "cosine", "1-sqrt", "square", "exponential"]
"""The shapes of a decay that a merge can stand for."""

EASES: dict[Shape, AnyEase] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "1-sqrt": Power(power=0.5),
    "square": Poly(power=2.0),
    "exponential": Decay(ratio=float(np.exp(-1.0))),
}
"""The ease of each shape, as a `cooldown` takes it."""

SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of a merge.

    Attributes:
        step: Its weights are those before the update of this step.
        weight: Its weight in the merge; all weights together are 1.
        share: The fraction at which the updates since the checkpoint before it count; 1 for the
            first.
    """

    step: int
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A checkpoint that is not to be merged, and why."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Merge:
    """Which checkpoints to merge, with which weights; empty if there are too few."""

    checkpoints: tuple[Checkpoint, ...]
    left_out: tuple[LeftOut, ...]


def merge(
    rates: npt.NDArray[np.float64],
    checkpoints: Sequence[int],
    ease: AnyEase,
    floor: float = 0.0,
    over: int | None = None,
) -> Merge:
    """Return the weights with which checkpoints of a constant rate stand for a decay.

    The decay begins at the first checkpoint that is merged and ends at the last one, as a
    `cooldown` ordered there would. A stretch between two checkpoints has one share, the mean of the
    decay's factors over its steps: with a checkpoint at every step they are those factors.

    Args:
        rates: The sealed rates of the updates from the first checkpoint up to before the last, a
            row for each parameter group.
        checkpoints: Their steps, ascending.
        ease: The shape of the decay, which never rises.
        floor: Where the decay ends, as a fraction of the rate from 0 to 1.
        over: The most steps before the last checkpoint; all that are constant if None.
    """
    first, last = checkpoints[0], checkpoints[-1]
    since = first + _constant_from(rates)
    earliest = last - over if over is not None else first
    left_out = tuple(
        LeftOut(step, _why(step, since, last, over))
        for step in checkpoints
        if step < max(since, earliest)
    )
    used = checkpoints[len(left_out) :]
    if len(used) < 2:
        return Merge((), left_out)
    shares = _shares(used, ease, floor)
    weights = [before - after for before, after in zip(shares, [*shares[1:], 0.0], strict=True)]
    found = zip(used, weights, shares, strict=True)
    return Merge(tuple(Checkpoint(*each) for each in found), left_out)


def _constant_from(rates: npt.NDArray[np.float64]) -> int:
    """Return the index from which on every group keeps its last rate."""
    differs = (rates != rates[:, -1:]).any(axis=0)
    return int(differs.nonzero()[0][-1]) + 1 if differs.any() else 0


def _why(step: int, since: int, last: int, over: int | None) -> str:
    if step < since:
        return f"the rate is constant from step {since} on only"
    return f"it is more than {over} steps before the last one, {last}"


def _shares(steps: Sequence[int], ease: AnyEase, floor: float) -> list[float]:
    """Return 1 for the first checkpoint, and for each other the share of the stretch before it."""
    duration = steps[-1] - steps[0]
    elapsed = np.arange(duration, dtype=np.float64)
    factors = np.broadcast_to(ease.between(1.0, floor, elapsed, float(duration)), elapsed.shape)
    starts = np.array(steps[:-1]) - steps[0]
    lengths = np.diff(np.array(steps))
    means = np.add.reduceat(factors, starts) / lengths
    return [1.0, *means.tolist()]
