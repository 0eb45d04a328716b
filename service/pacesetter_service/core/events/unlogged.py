"""What happens too often for the log: it has tables of its own, or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """A metric's measurement closed at a step, from the readings of so many ranks.

    Controllers saw it when the horizon was `at`: what they made of it holds from there on.
    """

    step: int
    metric: str
    value: float
    ranks: int
    at: int


@dataclass(frozen=True, slots=True)
class MeasurementsClosed:
    """Every reading of a watched metric at or below these steps has been consumed or is late.

    `missing` names ranks whose readings were in none of them, where not all were.
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
    """A rank has applied some series as they were sealed, of which the log said that it had not."""

    rank: int
    series: tuple[str, ...]
