"""Stationarity: cut the level when a statistic says that the weights no longer make progress."""

from dataclasses import dataclass
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
from pacesetter_service.core.model import Real, Step
from pacesetter_service.core.statistics import ErrorOfMean, MeanEstimate, estimate_mean, mean


class StationarityState(ControllerState):
    """The contents of the bucket, and how often the level was cut: the first test is stricter."""

    bucket: LeakyBucket = LeakyBucket()
    cuts: Step = 0


@dataclass(frozen=True, slots=True)
class _Test:
    estimate: MeanEstimate
    half_width: float
    halves: tuple[float, float]

    @property
    def same_sign(self) -> bool:
        first, second = self.halves
        return (first > 0.0 < second) or (first < 0.0 > second)

    @property
    def holds(self) -> bool:
        return self.same_sign and abs(self.estimate.mean) < self.half_width

    @property
    def holds_by_halves(self) -> bool:
        return self.same_sign and all(abs(half) < self.half_width for half in self.halves)


class Stationarity(BucketTest):
    """Multiply the level by `factor` when the training is stationary at its learning rate.

    While the weights are on their way, the statistic `<x, d> + lr / 2 * |d|^2` has a mean other
    than 0; once they only jitter around one place its mean is 0. Here `d` is the direction of the
    step `x_new = x_old - lr * d`, and `x` the weights after it. The client computes that number
    and reports it as the metric, at every step:

    ```python
    before = [p.detach().clone() for p in params]
    optimizer.step()
    with torch.no_grad():
        d = [(old - p) / lr for old, p in zip(before, params)]
        statistic = sum(float((p * s).sum() + lr / 2 * (s * s).sum()) for p, s in zip(params, d))
    session.report(step, statistic=statistic)
    ```

    A leaky bucket keeps the newest `1 / leak_ratio` of the measurements since the last cut. Every
    `interval` measurements, once it holds more than `min_kept`, the level is cut and the bucket
    emptied if both hold:

    - the confidence interval of the mean, at `1 - significance`, contains 0;
    - the means of the older and of the newer half have the same sign.

    Until the first cut the intervals of both halves (as wide as that of the whole) must contain 0
    instead: the statistic may pass through 0 on its way.

    The statistic at one step depends on the one before, so the error of its mean comes from batch
    means (`variance`: `batch_means`, `overlapping`, or `iid`, which believes the values to be
    independent and makes intervals too narrow).

    **What differs from statopt.** Its default variance is called `mb`, but the bucket compares with
    `bm`, so it computes the one for independent values; here the default is batch means, as the
    paper has it and the library meant. `variance="iid"` makes the library's decisions. The bucket
    holds at most `max_kept` values, and the optimizer's momentum is left alone.

    **Traps.** Report it with the sign and the factor above: another number with mean 0, such as a
    gradient's component, cuts at the first test. With several parameter groups sum over all of
    them, each with its own `lr`; at `lr = 0` there is no `d`. NaN and infinities are left out. A
    statistic without any noise is never stationary. With the defaults the first test comes after
    8,100 measurements. The state is some 16 bytes for each kept value, written with every one.
    """

    State: ClassVar[type[ControllerState]] = StationarityState
    formula: ClassVar[str] = "level *= factor once |mean| < t * error, both halves of one sign"
    source: ClassVar[str] = "statopt.SASA (Zhang, Lang, Liu, Xiao 2020, arXiv 2002.10597)"
    example: ClassVar[dict[str, Any]] = {"metric": "statistic"}

    kind: Literal["stationarity"] = "stationarity"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    variance: ErrorOfMean = "batch_means"
    min_kept: Annotated[Kept, Field(ge=8)] = 1000

    def observe(self, state: StationarityState, seen: Sample) -> Observation:  # noqa: D102
        if not isfinite(seen.value):
            return Observation(state)
        bucket = state.bucket.add(seen.value, self.leak_ratio, self.max_kept)
        if bucket.total % self.interval == 0 and len(bucket.kept) > self.min_kept:
            test = self._test(bucket.kept)
            if test.holds if state.cuts else test.holds_by_halves:
                return Observation(
                    StationarityState(cuts=state.cuts + 1), self._cut(seen, test, len(bucket.kept))
                )
        return Observation(StationarityState(bucket=bucket, cuts=state.cuts))

    def _test(self, kept: tuple[float, ...]) -> _Test:
        estimate, half = estimate_mean(kept, self.variance), len(kept) // 2
        return _Test(
            estimate,
            estimate.half_width(self.significance),
            (mean(kept[:half]), mean(kept[half:])),
        )

    def _cut(self, seen: Sample, test: _Test, count: int) -> Verdict:
        first, second = test.halves
        return Verdict(
            f"the training is stationary at this rate: the mean of {self.metric} over {count}"
            f" measurements is {test.estimate.mean:.3g} ± {test.half_width:.3g} (significance"
            f" {self.significance!r}), which contains 0, and its halves have means of one sign"
            f" ({first:.3g} and {second:.3g})",
            levels=lowered(seen.levels, self.factor, self.min_lr),
        )
