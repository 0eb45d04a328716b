"""dlib's rule: cut the level when the losses of a whole window have probably not fallen."""

from math import floor, isfinite
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
from pacesetter_service.core.controllers.leaky_bucket import Kept
from pacesetter_service.core.model import Count, NonNegative, Real, Step
from pacesetter_service.core.packed import Packed
from pacesetter_service.core.statistics import Trend, normal_cdf, trend

BUDGET = 200
"""How many losses dlib allows its test to examine for each new one."""


class DlibSlopeState(ControllerState):
    """The newest losses, and how many measurements came since the last test."""

    losses: Packed = ()
    waited: Step = 0


class DlibSlope(Controller):
    """Multiply the level by `factor` when `threshold` measurements did not fall, outliers or not.

    A line is fitted through the newest `threshold` measurements. They did not fall if the
    probability that the slope is below 0 (normal, by the slope's standard error) is less than
    `probability`. Then the test is made again without the largest `discard` of them: one bad batch
    at the end lets any window look as if it rose. If it still holds, the level is cut and the
    oldest `drop` measurements are forgotten, so the next cut is at least as many away.
    With `mode="max"` the metric is to rise, and the smallest are discarded.

    It is tested at every `interval` measurements; not given, that is `threshold // 200 + 1`, as
    dlib's budget has it. `drop` is `400 + threshold // 10` if not given.

    **dlib says it otherwise.** It counts back from the newest loss to the last point from which
    the losses did not fall, and compares the count with `threshold`. But it keeps no more losses
    than that, so the one count that reaches it is that of the full window.

    **What differs from dlib.** Its recursive least squares start from a guess, which hides the fall
    of losses that are many million times as large as their noise; here the fit is exact. NaN and
    infinities are left out; in dlib's window a NaN prevents every cut until it has passed through.
    To reload saved weights and to stop at a smallest rate are not in this rule: see `spike_guard`,
    and `min_lr` for a floor.

    **Traps.** Nothing happens in the first `threshold` measurements. A metric that does not change
    at all is cut. The state is 16 bytes for each measurement of the window, written with each of
    them: where 2,000 are many, let the metric's smoothing be `every` 10 and `threshold` 200.
    """

    State: ClassVar[type[ControllerState]] = DlibSlopeState
    formula: ClassVar[str] = "level *= factor once P(slope < 0) < probability, twice"
    source: ClassVar[str] = "dlib: dnn/trainer.h, statistics/running_gradient.h"
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "threshold": 2000}

    kind: Literal["dlib_slope"] = "dlib_slope"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    threshold: Annotated[Kept, Field(ge=4)] = 2000
    probability: Annotated[Real, Field(gt=0.5, lt=1)] = 0.51
    discard: Annotated[Real, Field(ge=0, le=0.5)] = 0.1
    interval: Count | None = None
    drop: Count | None = None
    min_lr: NonNegative = 0.0

    def observe(self, state: DlibSlopeState, seen: Sample) -> Observation:  # noqa: D102
        if not isfinite(seen.value):
            return Observation(state)
        value = seen.value if self.mode == "min" else -seen.value
        losses = (*state.losses, value)[-self.threshold :]
        waited = state.waited + 1
        if waited < (self.interval or self.threshold // BUDGET + 1):
            return Observation(DlibSlopeState(losses=losses, waited=waited))
        line = self._flat(losses)
        if line is None:
            return Observation(DlibSlopeState(losses=losses))
        dropped = self.drop or 400 + self.threshold // 10
        return Observation(DlibSlopeState(losses=losses[dropped:]), self._cut(seen, line))

    def _flat(self, losses: tuple[float, ...]) -> Trend | None:
        """Return the line of a full window that falls neither with its outliers nor without."""
        if len(losses) < self.threshold:
            return None
        line = trend(losses)
        if self._falls(line) or self._falls(trend(_without_largest(losses, self.discard))):
            return None
        return line

    def _falls(self, line: Trend) -> bool:
        return normal_cdf(-line.t) >= self.probability

    def _cut(self, seen: Sample, line: Trend) -> Verdict:
        falls, sign = ("fallen", 1.0) if self.mode == "min" else ("risen", -1.0)
        return Verdict(
            f"{self.metric} has not {falls} over {line.count} measurements: its slope is"
            f" {sign * line.slope:.3g} a measurement, and the probability that it has is"
            f" {normal_cdf(-line.t):.3g}, below {self.probability!r}, also without the"
            f" {self.discard!r} of them that are worst",
            levels=lowered(seen.levels, self.factor, self.min_lr),
        )


def _without_largest(values: tuple[float, ...], share: float) -> tuple[float, ...]:
    """Return the values up to the quantile `1 - share`, in their order."""
    place = floor((len(values) - 1) * (1.0 - share) + 0.5)  # C++ rounds halves up
    bound = sorted(values)[place]
    return tuple(value for value in values if value <= bound)
