"""Whether a quantity grows: the slope of its samples, compared with a bound.

The slope is Theil and Sen's, the median of the slopes between all pairs of samples: it is still
right if a third of them are outliers, as on a machine that others use. A process that is restarted
begins a new life; only samples of one life are compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import NamedTuple


class Sample(NamedTuple):
    """A sample at one moment.

    Attributes:
        at: minutes since the beginning.
        life: which life of the process it is of.
        value: in whatever unit.
    """

    at: float
    life: int
    value: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a quantity may grow in an hour.

    Attributes:
        share: of its level.
        least: in its own unit; the larger of the two is the bound.
    """

    share: float
    least: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How a quantity has grown.

    Attributes:
        name: of what.
        level: the median of all samples.
        per_hour: its slope.
        bound: the most that the slope may be.
    """

    name: str
    level: float
    per_hour: float
    bound: float

    @property
    def is_too_much(self) -> bool:
        """Whether it grows more than it may."""
        return self.per_hour > self.bound

    def __str__(self) -> str:
        verdict = "TOO MUCH" if self.is_too_much else "flat"
        return (
            f"{self.name}: {self.level:.4g}, grows by {self.per_hour:+.3g} an hour"
            f" (at most {self.bound:.3g}): {verdict}"
        )


def settled(samples: Iterable[Sample], minutes: float) -> list[Sample]:
    """Return the samples without those of the first minutes of each life, when caches fill."""
    begun: dict[int, float] = {}
    return [each for each in samples if each.at - begun.setdefault(each.life, each.at) >= minutes]


def per_hour(samples: Sequence[Sample]) -> float:
    """Return by how much a quantity grows in an hour.

    Raises:
        ValueError: No life has two samples.
    """
    slopes = [
        60.0 * (later.value - earlier.value) / (later.at - earlier.at)
        for earlier, later in combinations(samples, 2)
        if earlier.life == later.life
    ]
    if not slopes:
        raise ValueError(f"{len(samples)} samples, of which no two are of one life: sample longer")
    return median(slopes)


def growth_of(name: str, samples: Sequence[Sample], bound: Bound) -> Growth:
    """Return how a quantity has grown, and its bound."""
    level = median(each.value for each in samples)
    return Growth(name, level, per_hour(samples), max(bound.share * level, bound.least))
