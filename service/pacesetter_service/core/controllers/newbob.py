"""New-bob: cut the level when a metric has improved too little since the last measurement."""

from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.controllers.cut import lowered
from pacesetter_service.core.model import NonNegative, Real, Step


class NewBobState(ControllerState):
    """The last finite value, and how many more poor measurements are tolerated before a cut."""

    previous: float | None = None
    patience: int


class NewBob(Controller):
    """Multiply the level by `factor` when the improvement since the last measurement is too small.

    With m the value now and p the one before it, the improvement is `(p - m) / |p|` (`mode` "min")
    or `(m - p) / |p|` ("max"), and 0 where p is 0. One below `threshold` is poor: it cuts the level
    to `max(level * factor, min_lr)`, or first uses up one of `patience`, which a cut restores.

    For positive metrics that fall this is speechbrain's NewBobScheduler, decision for decision
    (`factor` is its annealing_factor, `threshold` its improvement_threshold, `patience` its
    patient). What it is worth knowing:

    - It compares with the measurement before and not with the best: after a bad epoch a good one
      looks like progress, though it is no better than the one before both. `plateau` compares with
      the best.
    - Patience is not restored by an improvement, so that it counts poor measurements since the last
      cut, wherever they are.
    - A metric that is 0 and stays 0 is perfect and is cut all the same.

    Where it departs from speechbrain: there the improvement is relative to p and not to |p|, so
    that a negative metric that gets better is cut; a metric that shall rise cannot be told; and
    NaN passes for progress, twice. Here NaN and infinities are poor, and the next value is compared
    with the last finite one. The first finite value is compared with nothing.
    """

    State: ClassVar[type[ControllerState]] = NewBobState
    formula: ClassVar[str] = (
        "level = max(level * factor, min_lr) if (previous - value) / |previous| < threshold"
    )
    source: ClassVar[str] = "speechbrain.nnet.schedulers.NewBobScheduler"
    example: ClassVar[dict[str, Any]] = {"metric": "val_loss", "factor": 0.8}

    kind: Literal["newbob"] = "newbob"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    threshold: Real = 0.0025
    patience: Step = 0
    min_lr: NonNegative = 0.0

    def init(self) -> NewBobState:  # noqa: D102
        return NewBobState(patience=self.patience)

    def observe(self, state: NewBobState, seen: Sample) -> Observation:  # noqa: D102
        value, previous, patience = seen.value, state.previous, state.patience
        known = value if isfinite(value) else previous
        if previous is None or self._improvement(value, previous) >= self.threshold:
            return Observation(NewBobState(previous=known, patience=patience))
        if patience > 0:
            return Observation(NewBobState(previous=known, patience=patience - 1))
        return Observation(
            NewBobState(previous=known, patience=self.patience), self._cut(seen, previous)
        )

    def _improvement(self, value: float, previous: float) -> float:
        """Return the improvement; -inf for a value that is not finite."""
        if not isfinite(value):
            return float("-inf")
        if previous == 0.0:
            return 0.0
        gain = previous - value if self.mode == "min" else value - previous
        return gain / abs(previous)

    def _cut(self, seen: Sample, previous: float) -> Verdict | None:
        cut = lowered(seen.levels, self.factor, self.min_lr)
        reason = (
            f"{seen.metric} went from {previous!r} to {seen.value!r}, an improvement of"
            f" {self._improvement(seen.value, previous):.3g} where {self.threshold!r} was asked"
            f" for (patience {self.patience}): multiplied by {self.factor!r}"
        )
        return Verdict(reason, levels=cut) if cut else None
