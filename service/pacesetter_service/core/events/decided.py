"""The decisions of controllers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from pacesetter_service.core.controllers import ControllerState, Transition
from pacesetter_service.core.controllers.base import Advice
from pacesetter_service.core.events.logged import Logged
from pacesetter_service.core.model import Model, jsonable
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.wording import kind_of, listed, number

LONGEST = 32
"""The most characters of a text in a state that are shown; longer texts are packed numbers."""


def _state(value: Any, info: ValidationInfo) -> ControllerState:  # noqa: ANN401 - JSON
    """Read the state of the controller that the event names."""
    spec, index = info.context, info.data.get("controller", -1)
    if not isinstance(spec, SessionSpec) or not 0 <= index < len(spec.rules):
        raise ValueError(f"there is no controller {index}")
    state: ControllerState = spec.rules[index].State.model_validate(value)
    return state


StateOfIts = Annotated[ControllerState, PlainValidator(_state), PlainSerializer(jsonable)]
"""The state of the controller that the event names in an earlier field."""


@dataclass(frozen=True, slots=True)
class Decided(Logged):
    """A controller's verdict took effect from step `at` on.

    Attributes:
        controller: Its index in the spec.
        metric: The metric whose measurement it saw.
        step: The step of that measurement.
        value: The measured value.
        at: The first step that the decision holds for.
        reason: Why, in words and numbers.
        before: The controller's state before it saw the value.
        after: The controller's state after it saw the value.
        levels: Old and new level for each series that changed.
        pace: How far the laws' clocks advance in one step, if that changed.
        rewarm: Steps over which the rate rises again, and from which factor, if it does.
        transition: The law that took over, if one did.
        advice: What the trainer is told to do, if anything.
        good_step: The last good step, if the trainer is told to go back.
        finish: Whether the session ended with this decision.
    """

    kind = "decided"

    controller: int
    metric: str
    step: int
    value: float
    at: int
    reason: str
    before: StateOfIts
    after: StateOfIts
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pace: float | None = None
    rewarm: tuple[int, float] | None = None
    transition: Annotated[Transition, PlainSerializer(jsonable)] | None = None
    advice: Advice | None = None
    good_step: int | None = None
    finish: bool = False

    def text(self, spec: SessionSpec) -> str:
        """Say what changed, who decided it and why."""
        return f"From step {self.at} on: {', '.join(self._effects())}. {self.grounds(spec)}"

    def grounds(self, spec: SessionSpec) -> str:
        """Say who decided, on which measurement and for which reason, and how its state changed."""
        reason = self.reason.rstrip(".")
        if reason.startswith(f"{self.metric} "):
            reason = "it" + reason.removeprefix(self.metric)
        moved = _moved(self.before, self.after)
        return (
            f"{self.who(spec)} saw {self.metric} {number(self.value)} at step {self.step};"
            f" {reason}." + (f" Its state: {moved}." if moved else "")
        )

    def who(self, spec: SessionSpec) -> str:
        """Name the controller that decided by its kind and its index, such as `plateau #0`."""
        return f"{kind_of(spec.controllers[self.controller])} #{self.controller}"

    def change_of(self, series: str, law: str = "which") -> str:
        """Say what the decision did to one series; `law` is the word for what took over."""
        changes = list(self._changes_of_all(law))
        if series in self.levels:
            changes.append(_of_level(*self.levels[series]))
        return ", ".join(changes)

    def _effects(self) -> Iterator[str]:
        """Say everything that the decision did."""
        by_change: dict[str, list[str]] = {}
        for name, levels in self.levels.items():
            by_change.setdefault(_ratio(*levels), []).append(name)
        for change, names in by_change.items():
            alone = len(names) == 1
            yield f"{listed(names)} {_of_level(*self.levels[names[0]]) if alone else change}"
        law = "" if self.transition is None else kind_of(self.transition.schedule)
        yield from self._changes_of_all(law)
        if self.advice is not None:
            yield f'the trainer is told "{self.advice}"'
        if self.finish:
            yield "the session is finished"

    def _changes_of_all(self, law: str) -> Iterator[str]:
        """Say what it did to every series that it changed, besides their levels."""
        if self.transition is not None:
            ways = {
                "base": "from its base",
                "level": "at the level reached",
                "continue": "from the last value",
            }
            yield f"{law} took over {ways[self.transition.value]}"
        if self.pace is not None:
            yield f"the schedule's clock set to go {number(self.pace)} steps in one"
        if self.rewarm is not None:
            steps, factor = self.rewarm
            yield f"rewarmed from {number(factor)} of the rate over {steps} steps"


def _of_level(old: float, new: float) -> str:
    return f"{_ratio(old, new)} ({_apart(old, new)})"


def _ratio(old: float, new: float) -> str:
    if old == 0:
        return f"raised from 0 to {number(new)}"
    return f"{'cut' if new < old else 'raised'} to {_close(new / old)} of its level"


def _close(ratio: float) -> str:
    """Write a ratio with enough digits to tell it from 1."""
    return number(ratio) if number(ratio) != "1" else repr(ratio)


def _apart(old: float, new: float) -> str:
    """Write two numbers with enough digits to tell them apart."""
    if number(old) == number(new):
        return f"{old!r} -> {new!r}"
    return f"{number(old)} -> {number(new)}"


def _moved(before: Model, after: Model) -> str:
    """Say which fields of a controller's state changed, and how."""
    old, new = before.model_dump(), after.model_dump()
    moved = [
        f"{name} {_shown(old.get(name))} -> {_shown(value)}"
        for name, value in new.items()
        if _shown(value) != _shown(old.get(name))
    ]
    return listed(moved)


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever stands in a state
    if isinstance(value, float):
        return number(value) if isfinite(value) else str(value)
    if isinstance(value, list | tuple | dict):
        return f"{len(value)} kept"
    text = str(value)
    return text if len(text) <= LONGEST else f"{len(text):,} characters"
