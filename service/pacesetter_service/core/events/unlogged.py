"""Events that are too frequent for the log: they have tables of their own, or none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import ControllerState
from pacesetter_service.core.schedules import Values
from pacesetter_service.core.wait import Wait


@dataclass(frozen=True, slots=True)
class Reported:
    """Readings arrived. Those in `watched` wait for the next sealing; all of them are recorded."""

    readings: tuple[Reading, ...]
    watched: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's measurement closed at a step, from the readings of `ranks` ranks.

    Controllers saw it when the horizon was `at`, so what they decided holds from there on.
    """

    step: int
    metric: str
    value: float
    ranks: int
    at: int


@dataclass(frozen=True, slots=True)
class MeasurementsClosed:
    """Every reading of a watched metric at or below these steps has been consumed or is late.

    `missing` names ranks that appear in none of the closed steps, where not all ranks reported.
    """

    steps: Mapping[str, int]
    missing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """A controller took a closed measurement and is now in `state`."""

    controller: int
    state: ControllerState


@dataclass(frozen=True, slots=True)
class Sealed:
    """The values of `count` steps from `start` on are final; each series has shape (count,)."""

    start: int
    count: int
    values: Mapping[str, Values]

    def block(self, series: Iterable[str]) -> NDArray[np.float64]:
        """Return the values of some series, one row each; shape (series, count)."""
        return np.array([self.values[each] for each in series])


@dataclass(frozen=True, slots=True)
class Held:
    """A trainer holds, or has trained, the steps below `until`."""

    until: int


@dataclass(frozen=True, slots=True)
class Awaited:
    """A trainer waits for the measurements that the horizon awaits."""

    wait: Wait


@dataclass(frozen=True, slots=True)
class RateAgreed:
    """A rank applied some series as sealed, for which the log had recorded a deviation."""

    rank: int
    series: tuple[str, ...]
