"""What has happened to a session. Events are in the past tense; `evolve` never refuses one."""

from collections.abc import Mapping
from dataclasses import dataclass

from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.controllers import ControllerState
from pacesetter_service.core.schedules import Values


@dataclass(frozen=True, slots=True)
class Reported:
    """Readings arrived. Those in `watched` wait for the next sealing; all of them are recorded."""

    readings: tuple[Reading, ...]
    watched: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A controller took a closed measurement and is now in `state`."""

    controller: int
    step: int
    value: float
    state: ControllerState


@dataclass(frozen=True, slots=True)
class LevelsCut:
    """A controller changed levels from step `at` on; `levels` holds old and new for each series."""

    controller: int
    step: int
    value: float
    at: int
    levels: Mapping[str, tuple[float, float]]
    reason: str


@dataclass(frozen=True, slots=True)
class Acted:
    """An operator's action was taken; it holds from step `at` on."""

    action: Action
    at: int


@dataclass(frozen=True, slots=True)
class MeasurementsClosed:
    """Every reading of a watched metric at or below these steps has been consumed or is late."""

    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sealed:
    """The values of `count` steps from `start` on are final; each series has shape (count,)."""

    start: int
    count: int
    values: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Archived:
    """The session takes no more commands."""


Event = Reported | Observed | LevelsCut | Acted | MeasurementsClosed | Sealed | Archived
