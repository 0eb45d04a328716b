"""KL-adaptive: keep the policy's change in each update near a target."""

from collections.abc import Iterator
from math import inf
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.model import Positive, Real


class KlAdaptiveState(ControllerState):
    """Nothing: each measurement is judged by itself."""


class KlAdaptive(Controller):
    """Cut the level when policies differ too much between two updates, raise it when too little.

    The metric is the KL divergence between the policy before and after an update, its mean over the
    samples, in nats; measure it once an update (or mini-batch) of PPO. Then

    - `kl > kl_threshold * kl_factor`: `level = max(level / lr_factor, min_lr)`;
    - `kl < kl_threshold / kl_factor`: `level = min(level * lr_factor, max_lr)`;
    - in between the level stays, and so it does on NaN and -inf; +inf is too much.

    The rule of skrl's KLAdaptiveLR and of rl_games' adaptive schedule, with their names and
    defaults. Estimates may be 0 or below (the first mini-batch compares a policy with itself): that
    is too little.

    The bounds are absolute, as theirs. There a rate outside of them is pulled in by whatever
    decision comes next: a rate of 0.1 that should rise falls to `max_lr` 0.01, and one of 1e-7
    that should fall rises to `min_lr`. Here a cut never raises and a raise never cuts, so a rate
    outside moves only towards the bounds; set them around the base. A group at 0 stays there.
    """

    State: ClassVar[type[ControllerState]] = KlAdaptiveState
    formula: ClassVar[str] = (
        "level = max(level / lr_factor, min_lr) if kl > kl_threshold * kl_factor,"
        " min(level * lr_factor, max_lr) if kl < kl_threshold / kl_factor"
    )
    source: ClassVar[str] = "skrl KLAdaptiveLR; rl_games AdaptiveScheduler"
    example: ClassVar[dict[str, Any]] = {"metric": "kl"}

    kind: Literal["kl_adaptive"] = "kl_adaptive"
    kl_threshold: Positive = 0.008
    min_lr: Positive = 1e-6
    max_lr: Positive = 1e-2
    kl_factor: Annotated[Real, Field(gt=1)] = 2.0
    lr_factor: Annotated[Real, Field(gt=1)] = 1.5

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.min_lr > self.max_lr:
            yield PydanticCustomError("no_room", "`min_lr` is above `max_lr`; swap them")

    def observe(self, state: ControllerState, seen: Sample) -> Observation:  # noqa: D102
        if seen.value > self.kl_threshold * self.kl_factor:
            return Observation(state, self._cut(seen))
        if -inf < seen.value < self.kl_threshold / self.kl_factor:
            return Observation(state, self._raise(seen))
        return Observation(state)

    def _cut(self, seen: Sample) -> Verdict | None:
        cut = {
            group: new
            for group, level in seen.levels.items()
            for new in [max(level / self.lr_factor, self.min_lr)]
            if new < level
        }
        reason = (
            f"{seen.metric} {seen.value!r} is more than {self.kl_factor!r} times its target"
            f" {self.kl_threshold!r}: divided by {self.lr_factor!r}, to at least {self.min_lr!r}"
        )
        return Verdict(reason, levels=cut) if cut else None

    def _raise(self, seen: Sample) -> Verdict | None:
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level * self.lr_factor, self.max_lr)]
            if new > level
        }
        reason = (
            f"{seen.metric} {seen.value!r} is less than its target {self.kl_threshold!r} divided by"
            f" {self.kl_factor!r}: multiplied by {self.lr_factor!r}, to at most {self.max_lr!r}"
        )
        return Verdict(reason, levels=raised) if raised else None
