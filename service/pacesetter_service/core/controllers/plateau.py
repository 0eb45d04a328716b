"""Reduce on plateau: cut the level when a metric has stopped improving."""

from math import inf
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Seen,
    Verdict,
)
from pacesetter_service.core.model import NonNegative, Real, Step


class PlateauState(ControllerState):
    """The best value so far, how many measurements did not improve on it, the cooldown left."""

    best: float
    bad: int = 0
    cooldown: int = 0


class Plateau(Controller):
    """Multiply the level by `factor` after more than `patience` measurements without improvement.

    The rule of torch's ReduceLROnPlateau, to the bit. An improvement is

    ====  =============================  =======================
    mode  threshold_mode="rel"           threshold_mode="abs"
    ====  =============================  =======================
    min   value < best * (1 - threshold) value < best - threshold
    max   value > best * (1 + threshold) value > best + threshold
    ====  =============================  =======================

    NaN never improves and never becomes the best. With `rel` and negative metrics the first column
    accepts worse values as better: use `abs` there.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level * factor, min_lr) once bad > patience"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ReduceLROnPlateau"

    kind: Literal["plateau"] = "plateau"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Step = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Step = 0
    min_lr: NonNegative | dict[str, NonNegative] = 0.0
    eps: NonNegative = 1e-8

    @model_validator(mode="after")
    def _relative_is_a_ratio(self) -> Self:
        if self.threshold_mode == "rel" and self.mode == "min" and self.threshold >= 1:
            raise PydanticCustomError(
                "threshold_too_large",
                "A relative threshold of 1 or more asks for a metric below zero;"
                ' give a ratio such as 1e-4, or threshold_mode "abs"',
            )
        return self

    def init(self) -> PlateauState:  # noqa: D102
        return PlateauState(best=inf if self.mode == "min" else -inf)

    def observe(self, state: ControllerState, seen: Seen) -> Observation:  # noqa: D102
        assert isinstance(state, PlateauState)  # noqa: S101 - each controller gets its own state back
        value = seen.value
        best, bad, cooldown = state.best, state.bad + 1, state.cooldown
        if self._improves(value, best):
            best, bad = value, 0
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad <= self.patience:
            return Observation(PlateauState(best=best, bad=bad, cooldown=cooldown))
        rested = PlateauState(best=best, bad=0, cooldown=self.cooldown)
        return Observation(rested, self._cut(seen, bad, best))

    def _improves(self, value: float, best: float) -> bool:
        match self.mode, self.threshold_mode:
            case "min", "rel":
                return value < best * (1.0 - self.threshold)
            case "min", "abs":
                return value < best - self.threshold
            case "max", "rel":
                return value > best * (self.threshold + 1.0)
            case _:
                return value > best + self.threshold

    def _cut(self, seen: Seen, bad: int, best: float) -> Verdict:
        lower = {group: self._lower(group, level) for group, level in seen.levels.items()}
        return Verdict(
            f"{self.metric} has not improved on {best!r} in {bad} measurements"
            f" (now {seen.value!r}; patience {self.patience})",
            levels={
                group: level
                for group, level in lower.items()
                if seen.levels[group] - level > self.eps
            },
        )

    def _lower(self, group: str, level: float) -> float:
        floor = self.min_lr.get(group, 0.0) if isinstance(self.min_lr, dict) else self.min_lr
        return max(level * self.factor, floor)
