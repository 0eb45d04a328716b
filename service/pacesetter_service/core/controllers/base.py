"""What a controller is: a frozen rule with a state that is a value.

`init` gives the first state, `observe` takes a measurement and gives the next state with a verdict.
The rule never changes and the state is handed back, so any decision can be replayed from the log.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from pacesetter_service.core.model import AnyOf, Model, Tagged

MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:/@ +-]+$")]


class ControllerState(Model):
    """The memory of a controller between two measurements."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A verdict: multiply the level of every group, but not below its floor.

    A group whose level would change by no more than `eps` is left as it is.
    """

    factor: float
    floors: Mapping[str, float]
    default_floor: float
    eps: float
    reason: str

    def level(self, group: str, level: float) -> float:
        """Give the new level of a group; the same one when there is nothing to change."""
        new = max(level * self.factor, self.floors.get(group, self.default_floor))
        return new if level - new > self.eps else level


@dataclass(frozen=True, slots=True)
class Observation:
    """What follows from one measurement: the next state and, rarely, a verdict."""

    state: ControllerState
    verdict: Cut | None = None


class Controller(Tagged, family="controller"):
    """A rule that consumes the measurements of one metric, in the order of their steps."""

    State: ClassVar[type[ControllerState]]

    metric: MetricName

    @abstractmethod
    def init(self) -> ControllerState:
        """Give the state before the first measurement."""

    @abstractmethod
    def observe(self, state: ControllerState, value: float) -> Observation:
        """Take one measurement, which may be NaN or infinite."""


AnyController = Annotated[Controller, AnyOf(Controller)]
