"""Slope test: cut the level when a regression no longer shows that the metric falls."""

from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.controllers.base import (
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.controllers.cut import lowered
from pacesetter_service.core.controllers.leaky_bucket import BucketTest, Kept, LeakyBucket
from pacesetter_service.core.model import Real
from pacesetter_service.core.statistics import Trend, trend


class SlopeTestState(ControllerState):
    """The contents of the bucket."""

    bucket: LeakyBucket = LeakyBucket()


class SlopeTest(BucketTest):
    """Multiply the level by `factor` when a one-sided t-test cannot tell that the metric falls.

    A leaky bucket keeps the newest `1 / leak_ratio` of the measurements since the last cut. Every
    `interval` measurements, once it holds more than `min_kept`, a straight line is fitted through
    it and tested: "the slope is 0 or more" against "it is below 0". With a p-value of
    `significance` or more the level is cut and the bucket emptied. With `mode="max"` the metric is
    to rise.

    **Meant for** a metric that is measured at every step, such as the training loss. With the
    defaults the first test comes after 8,100 measurements, and each cut is as far from the next.
    For a metric of one value an epoch take `plateau`, or numbers that fit, such as
    `min_kept=12, leak_ratio=2, interval=1`.

    **What differs from statopt.** The bucket holds at most `max_kept` values, so from
    `leak_ratio * max_kept` measurements on it is a window of the newest; statopt's grows for ever.
    The sums are float64, not of the parameters' type. The optimizer's momentum is left alone.
    statopt adds the L2 penalty to the loss: report the sum if the weights decay by that.

    **Traps.** A loss that falls slowly next to its noise is cut: the test must tell the slope from
    0, so a larger `min_kept` or `significance` is the more patient rule. NaN and infinities are
    left out of the bucket and counted nowhere. A metric that does not change at all has a p-value
    of one half, and is cut. The state is some 16 bytes for each kept value, written with every
    measurement.
    """

    State: ClassVar[type[ControllerState]] = SlopeTestState
    formula: ClassVar[str] = "level *= factor once P(t <= slope / error) >= significance"
    source: ClassVar[str] = "statopt.SLOPE (Zhang, Lang, Liu, Xiao 2020, arXiv 2002.10597)"
    example: ClassVar[dict[str, Any]] = {"metric": "loss"}

    kind: Literal["slope_test"] = "slope_test"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.5
    min_kept: Annotated[Kept, Field(ge=3)] = 1000

    def observe(self, state: SlopeTestState, seen: Sample) -> Observation:  # noqa: D102
        if not isfinite(seen.value):
            return Observation(state)
        bucket = state.bucket.add(seen.value, self.leak_ratio, self.max_kept)
        if bucket.total % self.interval == 0 and len(bucket.kept) > self.min_kept:
            line = trend(bucket.kept)
            if self._p_value(line) >= self.significance:
                return Observation(SlopeTestState(), self._cut(seen, line))
        return Observation(SlopeTestState(bucket=bucket))

    def _p_value(self, line: Trend) -> float:
        return line.p_falling if self.mode == "min" else line.p_rising

    def _cut(self, seen: Sample, line: Trend) -> Verdict:
        return Verdict(
            f"{self.metric} does not {'fall' if self.mode == 'min' else 'rise'} any more: its slope"
            f" over {line.count} measurements is {line.slope:.3g} a measurement"
            f" (p-value {self._p_value(line):.3g}; significance {self.significance!r})",
            levels=lowered(seen.levels, self.factor, self.min_lr),
        )
