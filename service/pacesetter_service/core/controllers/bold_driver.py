"""Bold driver: a little faster after each success, much slower after a step that went wrong."""

import sys
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
from pacesetter_service.core.model import Flag, Real


class BoldDriverState(ControllerState):
    """The value of the last step that was kept, and which step that was."""

    kept: float | None = None
    step: int | None = None


class BoldDriver(Controller):
    """Raise the level by a little when the error falls, cut it when the error rises by too much.

    With E the value now and K the last one that was kept:

    - `E / K > max_perf_inc`: `level * down`, and the step is *discarded*: the trainer is told
      `roll_back`, and K stays what it was;
    - otherwise E is kept, and if `E < K` the level goes to `level * up`.

    Levels stay between `min_ratio` and `max_ratio` times the base. It is the rule of MATLAB's
    traingda (`up` is its lr_inc, `down` its lr_dec), which has no bounds.

    **Discarding.** The rule wants the weights of K back: report, and on the notice `roll_back` load
    what was saved at the last measurement that brought none. Who does not go back sets `roll_back`
    to false: then nothing is told, and each value is compared with the one before it. With
    `roll_back` but without going back every error above `max_perf_inc * K` cuts again, down to the
    floor.

    It is made for the error on the whole training set. The loss of a single batch often rises by
    4 % for no reason: give the metric a `smoothing`, or measure on a set of its own.

    Errors are expected to be positive. For K at or below 0, where the ratio means nothing (-1.02 is
    "1.02 times" -1 and better), too much is a rise by more than `(max_perf_inc - 1) * |K|`. NaN and
    infinities went wrong and are never kept; for MATLAB a NaN is no rise, and it is kept.
    """

    State: ClassVar[type[ControllerState]] = BoldDriverState
    formula: ClassVar[str] = (
        "level = level * down if value > max_perf_inc * kept, level * up if value < kept"
    )
    source: ClassVar[str] = "MATLAB traingda; Vogl et al. 1988, doi:10.1007/BF00332914"
    example: ClassVar[dict[str, Any]] = {"metric": "train_loss"}

    kind: Literal["bold_driver"] = "bold_driver"
    up: Annotated[Real, Field(gt=1)] = 1.05
    down: Annotated[Real, Field(gt=0, lt=1)] = 0.7
    max_perf_inc: Annotated[Real, Field(ge=1)] = 1.04
    roll_back: Flag = True
    min_ratio: Annotated[Real, Field(gt=0, le=1)] = 1e-3
    max_ratio: Annotated[Real, Field(ge=1)] = 1e3

    def observe(self, state: BoldDriverState, seen: Sample) -> Observation:  # noqa: D102
        value, kept = seen.value, state.kept
        if not isfinite(value) or (kept is not None and self._went_wrong(value, kept)):
            after = state if self.roll_back or not isfinite(value) else _kept(seen)
            return Observation(after, self._slower(seen, state))
        verdict = self._faster(seen, kept) if kept is not None and value < kept else None
        return Observation(_kept(seen), verdict)

    def _went_wrong(self, value: float, kept: float) -> bool:
        if kept > 0.0:
            return value / kept > self.max_perf_inc
        return value - kept > (self.max_perf_inc - 1.0) * abs(kept)

    def _slower(self, seen: Sample, state: BoldDriverState) -> Verdict | None:
        kept = state.kept
        cut = {
            group: new
            for group, level in seen.levels.items()
            for new in [max(level * self.down, seen.bases[group] * self.min_ratio)]
            if new < level
        }
        discard = self.roll_back and kept is not None
        if not cut and not discard:
            return None
        before = "nothing" if kept is None else repr(kept)
        return Verdict(
            f"{seen.metric} went from {before} to {seen.value!r}, and at most"
            f" {self.max_perf_inc!r} times as much is let pass: multiplied by {self.down!r}"
            f"{', and the step is to be discarded' if discard else ''}",
            levels=cut,
            advice="roll_back" if discard else None,
            good_step=state.step if discard else None,
        )

    def _faster(self, seen: Sample, kept: float) -> Verdict | None:
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level * self.up, self._ceiling(seen.bases[group]))]
            if new > level
        }
        reason = f"{seen.metric} fell from {kept!r} to {seen.value!r}: multiplied by {self.up!r}"
        return Verdict(reason, levels=raised) if raised else None

    def _ceiling(self, base: float) -> float:
        return min(base * self.max_ratio, sys.float_info.max)


def _kept(seen: Sample) -> BoldDriverState:
    return BoldDriverState(kept=seen.value, step=seen.step)
