"""What a controller is: a frozen rule whose state is a value.

`init` returns the first state; `observe` takes a measurement and returns the next state with a
verdict. The rule never changes and the state is handed back, so any decision can be replayed from
the log.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.lengths import StepPoint, whole
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import AnyOf, Model, Tagged
from pacesetter_service.core.schedules import AnySchedule

Advice = Literal[
    "plateaued", "at_floor", "diverged", "roll_back", "switched", "finished", "checkpoint"
]
"""What a controller may advise the trainer to do, besides changing its learning rate."""


class ControllerState(Model):
    """The memory of a controller between two measurements."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a controller sees: one measurement, and the present learning rates.

    Attributes:
        metric: The metric, one of those that the controller watches.
        step: Where it was measured.
        value: The measured value, smoothed if the session says so; NaN and infinities are legal.
        levels: The level of each group, after all earlier decisions; without groups the one key is
            `""`.
        bases: The base learning rate of each group.
        at: The first step that a verdict would hold for.
        limits: The session's limits, which it applies to the levels that a verdict orders.
    """

    metric: str
    step: int
    value: float
    levels: Mapping[str, float]
    bases: Mapping[str, float]
    at: int = 0
    limits: Limits = field(default_factory=Limits)


class Transition(Model):
    """Another law from here on, on a clock of its own.

    With `value="base"` its base is the group's own, at the `level` as controllers have changed it.
    With `"continue"` it is the last value of the law before it.
    """

    schedule: AnySchedule = Field(description="the law that takes over")
    value: Literal["base", "level", "continue"] = Field(
        default="level",
        description=(
            "what its base is: the group's own, at the `level` of controllers, or the last "
            "value before it"
        ),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a controller orders. It holds from the first step that is not sealed.

    Attributes:
        reason: Why, in words and numbers, for the operator who reads the log.
        levels: The new level of each group that changes; the session's limits still apply.
        pace: How far the clocks of all laws advance in one step from now on.
        rewarm: Steps over which the rate rises again, and the factor that it rises from.
        transition: The law that takes over.
        advice: What the trainer is told to do.
        good_step: The last step whose measurement was good, which goes with the advice `roll_back`;
            None if there is none.
        finish: Whether the session ends: no further step is sealed then.
    """

    reason: str
    levels: Mapping[str, float] = field(default_factory=dict)
    pace: float | None = None
    rewarm: tuple[int, float] | None = None
    transition: Transition | None = None
    advice: Advice | None = None
    good_step: int | None = None
    finish: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What follows from one measurement: the next state and, rarely, a verdict."""

    state: ControllerState
    verdict: Verdict | None = None


class Controller(Tagged, family="controller"):
    """A rule that consumes the measurements of its metric, in the order of their steps.

    It sleeps through measurements of steps before `from_step` and from `until_step` on.
    """

    State: ClassVar[type[ControllerState]]
    formula: ClassVar[str]
    """The rule in one line, for the catalogue."""
    source: ClassVar[str]
    """Where the rule comes from: a paper, or the library whose decisions it reproduces."""
    example: ClassVar[dict[str, Any]]
    """Parameters of a typical use; `kind` is added by the catalogue."""
    usual: ClassVar[tuple[str, ...]] = ("plateau", "spike_guard", "newbob", "range_test")

    guards: ClassVar[bool] = False
    """Whether the controller also sees NaN and infinities of a metric whose policy is `guard`."""

    metric: MetricName
    from_step: StepPoint = 0
    until_step: StepPoint | None = None

    @property
    def watches(self) -> tuple[str, ...]:
        """The metrics whose measurements the controller sees."""
        return (self.metric,)

    @property
    def groups_named(self) -> frozenset[str]:
        """The parameter groups that its fields name; the session must have them."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        by_group = [value for value in fields.values() if isinstance(value, dict)]
        own = {fields["group"]} if fields.get("group") else set()
        return frozenset(own.union(*by_group))

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The laws that it may switch to."""
        return ()

    def is_awake(self, step: int) -> bool:
        """Return whether it sees what was measured at a step."""
        until = self.until_step
        return whole(self.from_step) <= step and (until is None or step < whole(until))

    def is_open(self, state: Any) -> bool:  # noqa: ANN401, ARG002 - its own `State`
        """Return whether it must finish what it began, and so sees any next measurement."""
        return False

    def init(self) -> ControllerState:
        """Return the state before the first measurement."""
        return self.State()

    @abstractmethod
    def observe(self, state: Any, seen: Sample) -> Observation:  # noqa: ANN401 - its own `State`
        """Take one measurement, which may be NaN or infinite, in the controller's current state."""


class NamedController(Controller):
    """A rule of another library, by its names there; it only expands to a rule of the service."""

    @abstractmethod
    def expand(self) -> Controller:
        """Return the controller that this name stands for."""

    @property
    def common(self) -> dict[str, Any]:
        """Return the fields that all controllers have, for the one that this name stands for."""
        return {name: getattr(self, name) for name in Controller.model_fields}

    @cached_property
    def expanded(self) -> Controller:
        """The controller, built once."""
        return self.expand()

    def init(self) -> ControllerState:  # noqa: D102
        return self.expanded.init()

    def observe(self, state: ControllerState, seen: Sample) -> Observation:  # noqa: D102
        return self.expanded.observe(state, seen)


AnyController = Annotated[Controller, AnyOf(Controller)]


def changed(
    levels: Mapping[str, float], new: Mapping[str, float], eps: float = 0.0
) -> dict[str, float]:
    """Return the new levels that differ from the present ones by more than `eps`."""
    return {group: level for group, level in new.items() if abs(level - levels[group]) > eps}
