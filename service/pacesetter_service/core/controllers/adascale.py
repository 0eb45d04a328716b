"""AdaScale: turns a larger batch into a gain of the learning rate and of the clock."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
    changed,
)
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import Count, Fraction, Real


class AdascaleState(ControllerState):
    """The half of a pair that has arrived, both averages with their weight, and the gain.

    `variance` and `square` are biased averages; the gain uses them divided by `weight`. `owed` is,
    for each group whose level the limits have clipped, the factor by which its level falls short.
    """

    step: int = -1
    of_parts: float | None = None
    of_mean: float | None = None
    variance: float = 0.0
    square: float = 0.0
    weight: float = 0.0
    gain: float = 1.0
    owed: dict[str, float] = Field(default_factory=dict)


class _Estimate(NamedTuple):
    """The variance of a gradient at scale 1, and the squared norm of the true one."""

    variance: float
    square: float


class Adascale(Controller):
    """Multiply the level by the gain r of a batch `scale` times as large, and the clock's pace too.

    A gradient is the mean of n = `gradients` parts g_i (ranks times accumulated micro-batches).
    With `metric` m the mean of their squared norms, `metric_of_mean` q the squared norm of their
    mean and S the scale, each step gives

        variance v = max(S / (n - 1) * (m - q), min_variance)
        square   s = max(q - S / (n - 1) * (m - q) / S, 0)
        gain     r = (v + s) / (v / S + s)        with v and s averaged

    The averages are exponential and debiased, with factor `smoothing` (`max(1 - n / 1000, 0)`).
    r lies between 1, where the gradient has no noise and a larger batch brings nothing, and S,
    where it is all noise. The rate is the schedule's times r, and the schedule's clock goes r steps
    in one: lengths count steps at scale 1, so a training takes fewer updates than it says.

    ```python
    parts = []


    def keep(gradient):  # sees each part: with DDP it runs before the ranks are averaged
        parts.append(gradient.pow(2).sum())


    for p in model.parameters():
        p.register_hook(keep)
    ...
    # once a step, after the backward passes of `accumulated` micro-batches, losses not divided
    of_parts = sum(parts) / accumulated
    of_mean = sum((p.grad / accumulated).pow(2).sum() for p in model.parameters())
    session.report(step, part_sqr=of_parts, mean_sqr=of_mean)
    parts.clear()
    ```

    Every rank reports; the metrics' default aggregate, the mean over ranks, is what is wanted.

    The gain is replaced, not piled up: the level is multiplied by the new gain over the last one,
    so what other controllers and operators do to the level stays. What the limits clip of a rise is
    remembered: the level is back where it began when the gain is, and follows when they are
    widened. An operator's `retime` stays too: the clock goes r times as fast as it says.

    **Traps.** A step that lacks one of the two metrics is left out, and so is a pair with NaN, an
    infinity or a number below zero. `min_variance` is absolute: where squared norms are far below
    it, all looks like noise and r is S; lower it there. Limits of the session should leave room, a
    `max_lr` of at least `scale` times the base: a rise that they clip is less than the batch is
    worth, while the clock goes as fast. The first step is at gain 1, and each gain holds from the
    step after the one that it was measured at. All groups have the one gain. It is meant for SGD:
    Adam's rate does not grow like this.
    """

    State: ClassVar[type[ControllerState]] = AdascaleState
    formula: ClassVar[str] = (
        "level = level * r / r_before, pace = r, with r = (v + s) / (v / scale + s)"
    )
    source: ClassVar[str] = "Johnson et al. 2020, arXiv:2007.05105; fairscale.optim.AdaScale"
    example: ClassVar[dict[str, Any]] = {
        "metric": "part_sqr",
        "metric_of_mean": "mean_sqr",
        "gradients": 8,
    }

    kind: Literal["adascale"] = "adascale"
    metric_of_mean: MetricName
    gradients: Annotated[Count, Field(ge=2)]
    scale: Annotated[Real, Field(ge=1)] | None = None
    smoothing: Annotated[Fraction, Field(lt=1)] | None = None
    min_variance: Annotated[Real, Field(ge=1e-100)] = 1e-6

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.metric == self.metric_of_mean:
            yield PydanticCustomError(
                "one_metric_twice",
                "`metric` is the mean of the parts' squared norms and `metric_of_mean` the squared"
                " norm of their mean: report them under two names",
            )

    @property
    def watches(self) -> tuple[str, ...]:  # noqa: D102
        return (self.metric, self.metric_of_mean)

    def observe(self, state: AdascaleState, seen: Sample) -> Observation:  # noqa: D102
        if seen.step < state.step:
            return Observation(state)
        if seen.step > state.step:
            state = _updated(state, step=seen.step, of_parts=None, of_mean=None)
        half = "of_parts" if seen.metric == self.metric else "of_mean"
        state = _updated(state, **{half: seen.value})
        if state.of_parts is None or state.of_mean is None:
            return Observation(state)
        after = self._averaged(state, self._estimate(state.of_parts, state.of_mean))
        return self._followed(seen, state, after)

    @property
    def _scale(self) -> float:
        return float(self.gradients) if self.scale is None else self.scale

    @property
    def _smoothing(self) -> float:
        if self.smoothing is None:
            return max(1.0 - self.gradients / 1000, 0.0)
        return self.smoothing

    def _estimate(self, of_parts: float, of_mean: float) -> _Estimate | None:
        """Estimate from one step; None if the step is not usable."""
        if not (of_parts >= 0.0 and of_mean >= 0.0):
            return None
        n, scale = self.gradients, self._scale
        # In fairscale's order of operations: the sum over the parts comes first.
        variance = (of_parts * n) * (scale / n) / (n - 1) - of_mean * scale / (n - 1)
        square = of_mean - variance / scale
        return _Estimate(max(variance, self.min_variance), max(square, 0.0))

    def _averaged(self, state: AdascaleState, estimate: _Estimate | None) -> AdascaleState:
        """Return the state with an estimate averaged in; unchanged if that would spoil it."""
        if estimate is None:
            return state
        keep = self._smoothing
        variance = keep * state.variance + (1.0 - keep) * estimate.variance
        square = keep * state.square + (1.0 - keep) * estimate.square
        weight = keep * state.weight + (1.0 - keep)
        gain = self._gain(variance / weight, square / weight)
        if not isfinite(gain):
            return state
        return _updated(state, variance=variance, square=square, weight=weight, gain=gain)

    def _gain(self, variance: float, square: float) -> float:
        return (variance + square) / (variance / self._scale + square)

    def _followed(self, seen: Sample, before: AdascaleState, after: AdascaleState) -> Observation:
        """Order the levels of a gain, and remember what the limits withhold from them."""
        if after.gain == before.gain and not before.owed:
            return Observation(after)
        new = {
            group: level * before.owed.get(group, 1.0) / before.gain * after.gain
            for group, level in seen.levels.items()
        }
        given = {group: seen.limits.clip(seen.levels[group], level) for group, level in new.items()}
        short = {
            group: level / given[group] for group, level in new.items() if level != given[group] > 0
        }
        levels = changed(seen.levels, given)
        state = after.model_copy(update={"owed": short})
        if after.gain == before.gain and not levels:
            return Observation(state)
        return Observation(state, self._verdict(levels, before, after))

    def _verdict(
        self, levels: Mapping[str, float], before: AdascaleState, after: AdascaleState
    ) -> Verdict:
        return Verdict(
            f"a batch of scale {self._scale!r} gains {after.gain!r} (before: {before.gain!r}):"
            f" variance {after.variance / after.weight!r},"
            f" squared gradient {after.square / after.weight!r}",
            levels=levels,
            pace=after.gain,
        )


def _updated(state: AdascaleState, **fields: float | None) -> AdascaleState:
    return state.model_copy(update=fields)
