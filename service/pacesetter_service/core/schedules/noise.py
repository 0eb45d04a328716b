"""Noise around a schedule, as a function of the seed and the step.

A generator that advances step by step would have to be replayed up to the requested step. So the
random bits of step `t` are a hash of the seed and `t`: the number `t` of SplitMix64's sequence,
which can be computed on its own (Steele, Lea and Flood 2014). With the seed 1234567 the first three
are 6457827717110365317, 3203168211198807973 and 9817491932198370423.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepPoint, known, steps_of
from pacesetter_service.core.model import NonNegative, Real, Step
from pacesetter_service.core.schedules.base import Base, Steps, Values
from pacesetter_service.core.schedules.combinators import OfValues
from pacesetter_service.core.schedules.numeric import log, power_to
from pacesetter_service.core.schedules.out_of_range import OutOfRange, of_all

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def splitmix64(seed: int, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the numbers of SplitMix64's sequence at some indices; 0 is the first."""
    z: NDArray[np.uint64] = (
        np.array([seed], dtype=np.uint64) + (index.view(np.uint64) + np.uint64(1)) * _GOLDEN
    )
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


def uniform(seed: int, index: NDArray[np.int64]) -> Values:
    """Return a uniformly distributed number between 0 and 1, exclusive, for each index."""
    upper = (splitmix64(seed, index) >> np.uint64(12)).astype(np.float64)
    return (upper + 0.5) * 2.0**-52


# Wichura 1988, algorithm AS 241 (PPND16): the highest powers come first.
_CENTRAL = (
    (
        2509.0809287301226727,
        33430.575583588128105,
        67265.770927008700853,
        45921.953931549871457,
        13731.693765509461125,
        1971.5909503065514427,
        133.14166789178437745,
        3.387132872796366608,
    ),
    (
        5226.495278852545925,
        28729.085735721942674,
        39307.89580009271061,
        21213.794301586595867,
        5394.1960214247511077,
        687.1870074920579083,
        42.313330701600911252,
        1.0,
    ),
)
_OUTER = (
    (
        7.7454501427834140764e-4,
        0.0227238449892691845833,
        0.24178072517745061177,
        1.27045825245236838258,
        3.64784832476320460504,
        5.7694972214606914055,
        4.6303378461565452959,
        1.42343711074968357734,
    ),
    (
        1.05075007164441684324e-9,
        5.475938084995344946e-4,
        0.0151986665636164571966,
        0.14810397642748007459,
        0.68976733498510000455,
        1.6763848301838038494,
        2.05319162663775882187,
        1.0,
    ),
)
_FAR = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        0.0012426609473880784386,
        0.026532189526576123093,
        0.29656057182850489123,
        1.7848265399172913358,
        5.4637849111641143699,
        6.6579046435011037772,
    ),
    (
        2.04426310338993978564e-15,
        1.4215117583164458887e-7,
        1.8463183175100546818e-5,
        7.868691311456132591e-4,
        0.0148753612908506148525,
        0.13692988092273580531,
        0.59983220655588793769,
        1.0,
    ),
)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Values) -> Values:
    above, below = (_polynomial(each, x) for each in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], x: Values) -> Values:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def normal_quantile(p: Values) -> Values:
    """Return the quantiles of the standard normal for probabilities between 0 and 1."""
    q = p - 0.5
    quantile = q * _ratio(_CENTRAL, 0.180625 - q * q)
    far = np.abs(q) > 0.425
    tail = np.sqrt(-log(np.minimum(p[far], 1.0 - p[far])))
    outer = np.where(tail <= 5.0, _ratio(_OUTER, tail - 1.6), _ratio(_FAR, tail - 5.0))
    quantile[far] = np.copysign(outer, q[far])
    return quantile


class Noise(OfValues):
    """Another schedule, multiplied at each step by 1 plus a random number.

    `normal` draws from a normal distribution of the standard deviation `std`, of which only what
    lies within `limit` of 0 remains; `uniform` draws evenly within `limit`. There is noise from
    `start` up to, not including, `end`; it fades with `(1 + t) ** -decay`. The same seed gives the
    same noise to all groups, on every machine and in whatever blocks it is asked for. Give it the
    outermost place: within `repeat` it would repeat too.

    As in timm, but with other random numbers: its streams, and those of TensorFlow's
    NoisyLinearCosineDecay, come from the generators of torch and TensorFlow and cannot be
    reproduced without them.
    """

    formula: ClassVar[str] = "schedule(t) * (1 + n(seed, t)) for start <= t < end"
    source: ClassVar[str] = "timm's noise_range_t, noise_pct (limit) and noise_std, as a law"
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 1000},
        "std": 0.1,
        "limit": 0.5,
        "seed": 42,
    }

    passes: ClassVar[float] = 70.0
    costly: ClassVar[float] = 1.0

    kind: Literal["noise"] = "noise"
    distribution: Literal["normal", "uniform"] = "normal"
    std: NonNegative = 1.0
    limit: Annotated[Real, Field(gt=0, le=1)] = 0.67
    seed: Step = 42
    start: StepPoint = 0
    end: StepPoint | None = None
    decay: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if (
            self.end is not None
            and known(self.start)
            and known(self.end)
            and steps_of(self.end) <= steps_of(self.start)
        ):
            yield PydanticCustomError("not_ascending", "`end` must be above `start`")

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        values = self.schedule.values(t, base)
        end = math.inf if self.end is None else steps_of(self.end)
        noisy = (t >= steps_of(self.start)) & (t < end)
        return np.where(noisy, values * (1.0 + self.noise(t)), values)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return of_all((self.schedule.range_policy(), "extrapolate" if self.end is None else "hold"))

    def noise(self, t: Steps) -> Values:
        """Return the random number of each step."""
        u = uniform(self.seed, np.floor(t).astype(np.int64))
        drawn = self._normal(u) if self.distribution == "normal" else (2.0 * u - 1.0) * self.limit
        return drawn * power_to(1.0 + np.maximum(t, 0.0), -self.decay) if self.decay else drawn

    def _normal(self, u: Values) -> Values:
        """Return quantiles of the normal distribution truncated at `limit`."""
        if self.std == 0.0:
            return np.zeros_like(u)
        below = 0.5 * math.erfc(self.limit / self.std / math.sqrt(2.0))
        drawn = self.std * normal_quantile(below + u * (1.0 - 2.0 * below))
        return np.clip(drawn, -self.limit, self.limit)
