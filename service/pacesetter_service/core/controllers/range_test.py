"""Range test: end a sweep of learning rates when the loss blows up, or when the sweep is over."""

from math import inf, isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.model import Real
from pacesetter_service.core.smoothing import AnySmoother, Ema, SmootherState


class RangeTestState(ControllerState):
    """The lowest smoothed loss so far, the smoother's memory, and whether the sweep is over."""

    best: float = inf
    smoother: SmootherState = SmootherState()
    over: bool = False


class RangeTest(Controller):
    """Finish the session when the smoothed loss exceeds `diverge` times its lowest value.

    It stands beside a schedule of the same kind and leaves the learning rate alone:

    ```json
    {"name": "find", "base_lr": 1.0,
     "schedule": {"kind": "range_test", "steps": 100},
     "controllers": [{"kind": "range_test", "metric": "loss", "steps": 100}]}
    ```

    A loss that is NaN or infinite after smoothing ends it at once. With `steps` it also ends with
    the measurement of step `steps - 1`, on the clock of the schedule; without, the schedule holds
    its last rate until the trainer stops. A trainer that asks for a further step is
    refused (`session_finished`), and told why.

    `smoothing` is by default that of fastai and Lightning; torch_lr_finder and ignite smooth with
    `{"kind": "ema", "beta": 0.95, "debias": false}` and diverge at 5. `diverge` null never ends it
    for its loss, as fastai's `stop_div=False`.

    A ratio says nothing about a loss below zero: four times a best of -1 would be better. There the
    bound is `best + (diverge - 1) * |best|`, which for positive losses is the same bound.
    """

    State: ClassVar[type[ControllerState]] = RangeTestState
    formula: ClassVar[str] = "finish once smoothed > diverge * best, or after `steps`"
    source: ClassVar[str] = (
        "fastai LRFinder; lightning.pytorch.tuner lr_find (early_stop_threshold);"
        " torch_lr_finder range_test (diverge_th); Smith 2015, arXiv:1506.01186"
    )
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "steps": 100}

    guards: ClassVar[bool] = True

    kind: Literal["range_test"] = "range_test"
    diverge: Annotated[Real, Field(gt=1)] | None = 4.0
    smoothing: AnySmoother = Ema(beta=0.98)
    steps: StepCount | None = None

    def observe(self, state: RangeTestState, seen: Sample) -> Observation:  # noqa: D102
        if state.over:
            return Observation(state)
        smoother, value = self.smoothing.smooth(state.smoother, seen.value)
        verdict = self._diverged(state.best, value, seen) or self._ended(seen)
        lowest = value if value is not None and value < state.best else state.best
        following = RangeTestState(best=lowest, smoother=smoother, over=verdict is not None)
        return Observation(following, verdict)

    def _diverged(self, best: float, value: float | None, seen: Sample) -> Verdict | None:
        if value is None or (isfinite(value) and value <= self._bound(best)):
            return None
        what = (
            f"smoothed {self.metric} {value!r} exceeds {self.diverge} x its best, {best!r},"
            if isfinite(value)
            else f"{self.metric} is {value!r}"
        )
        return Verdict(
            f"{what} at step {seen.step}: the range test has seen enough",
            advice="diverged",
            finish=True,
        )

    def _bound(self, best: float) -> float:
        if self.diverge is None or best == inf:
            return inf
        if best > 0:
            return self.diverge * best
        return best + (self.diverge - 1.0) * abs(best)

    def _ended(self, seen: Sample) -> Verdict | None:
        if self.steps is None or seen.step < whole(self.steps) - 1:
            return None
        return Verdict(
            f"the range test is over: {self.metric} of step {seen.step}, the last of"
            f" {self.steps}, is here",
            advice="finished",
            finish=True,
        )
