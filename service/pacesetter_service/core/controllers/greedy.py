"""Greedy: raise the level while a metric keeps improving, cut it when it does not."""

import sys
from collections.abc import Mapping
from functools import cached_property
from math import isinf
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
    changed,
)
from pacesetter_service.core.controllers.improvement import Improvement, Mode
from pacesetter_service.core.model import Count, NonNegative, OneOf, Real, Step

LowerRatio = Annotated[Real, Field(gt=0, le=1)]
UpperRatio = Annotated[Real, Field(ge=1)]

MIN_RATIO, MAX_RATIO = 0.01, 10.0
"""How far the level may leave the base; also for groups that an object of ratios does not name."""

ROUNDING = 1e-12
"""The relative difference at which a level counts as at a bound: an operator's scale rounds."""

_TRANSFORMERS = "`hf.GreedyLR` has the parameters of transformers"

REDIRECTS: dict[str, str] = {
    "min_lr": "The floor follows the base: give `min_ratio`, or `min_lr` in the session's `limits`",
    "max_lr": "The ceiling follows the base: give `max_ratio`, or `max_lr` in the session's"
    " `limits`",
    "smooth": 'Give the metric a `smoothing` under `metrics`, such as {"kind": "mean",'
    ' "window": 50}',
    "window_size": 'Give the metric a `smoothing` under `metrics`, such as {"kind": "mean",'
    ' "window": 50}',
    "reset_start": "Give `reset_after`, which counts measurements",
}
"""Parameters that people look for here, and what to do instead."""


class GreedyState(ControllerState):
    """The value to compare the next measurement with, and the counters.

    Attributes:
        best: The best value so far; infinite before the first.
        good: How many measurements in a row were a new best.
        bad: How many in a row were not.
        rest: How many measurements of the cooldown or the warmup are left.
        stuck: How many in a row were no new best while every level was at its floor.
    """

    best: float
    good: int = 0
    bad: int = 0
    rest: int = 0
    stuck: int = 0


class Greedy(Controller):
    """Divide the level by `factor` after a run of new bests, multiply it after a run of none.

    A measurement is *better* if it is finite and below `best - threshold`, or below
    `best - threshold * |best|` with `threshold_mode` "signed_rel"; with `mode` "max" if it is above
    `best + threshold` or `best + threshold * |best|`.

    More than `patience` better ones in a row give `level = min(level / factor, max_ratio * base)`
    and `warmup` measurements of rest; more than `patience` others in a row give
    `level = max(level * factor, min_ratio * base)` and `cooldown` measurements of rest. During a
    rest nothing is counted, but the best is kept up to date. After `reset_after` measurements in a
    row without a new best and with all levels at their floors, all levels go back to their bases
    and the best is forgotten; null is never. Both ratios are one number, or one for each group.

    To go up, each value must beat the best of all before it: give a noisy metric a `smoothing`
    under the session's `metrics`. A group with a base of 0 stays there.

    It is the rule of transformers' GreedyLR without its traps; `hf.GreedyLR` has them, to the bit:

    - Its bounds are absolute, 1e-3 and 1, so that a run at 5e-5 is never cut and only climbs. Here
      they follow the base: a hundredth of it and ten times it, as 1e-3 and 1 are of 0.1.
    - It writes no change below 1e-8 (`eps`), so that a small rate stops short of its floor and is
      never reset. Here every change counts.
    - With `smooth` one NaN makes all later means NaN, so that the rate only falls. Here the metric
      is smoothed, and what is not finite does not enter its memory.
    - An infinity may become its best, which nothing ever beats. Here it never does.
    - It does not look at values during a rest, so that an old best counts for longer.
    - Its `rel` takes worse values of a negative metric for better ones. `signed_rel` does not.
    - Its `reset_start` counts cuts that were due, some eleven measurements each. `reset_after`
      counts measurements.
    """

    State: ClassVar[type[ControllerState]] = GreedyState
    formula: ClassVar[str] = (
        "level = min(level / factor, max_ratio * base) once good > patience,"
        " max(level * factor, min_ratio * base) once bad > patience"
    )
    source: ClassVar[str] = "GreedyLR, arXiv:2512.14527; transformers.GreedyLR"
    example: ClassVar[dict[str, Any]] = {"metric": "val_loss", "patience": 3}

    kind: Literal["greedy"] = "greedy"
    mode: Mode = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.95
    patience: Step = 10
    threshold: NonNegative = 1e-6
    threshold_mode: Literal["abs", "signed_rel"] = "abs"
    cooldown: Step = 0
    warmup: Step = 0
    min_ratio: Annotated[
        LowerRatio | dict[str, LowerRatio],
        OneOf("Write a part of the base, above 0 and at most 1, or one for each group"),
    ] = MIN_RATIO
    max_ratio: Annotated[
        UpperRatio | dict[str, UpperRatio],
        OneOf("Write a multiple of the base, at least 1, or one for each group"),
    ] = MAX_RATIO
    reset_after: Count | None = 500

    @model_validator(mode="before")
    @classmethod
    def _say_what_to_give_instead(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        for name, advice in REDIRECTS.items():
            if isinstance(data, dict) and name in data:
                raise PydanticCustomError(
                    "not_here",
                    "There is no {name} here. {advice}. {other}",
                    {"name": name, "advice": advice, "other": _TRANSFORMERS},
                )
        return data

    @cached_property
    def improvement(self) -> Improvement:
        """What counts as an improvement to this rule."""
        return Improvement(self.mode, self.threshold, self.threshold_mode)

    def init(self) -> GreedyState:  # noqa: D102
        return GreedyState(best=self.improvement.worst)

    def observe(self, state: GreedyState, seen: Sample) -> Observation:  # noqa: D102
        better = self.improvement.is_better(seen.value, state.best)
        best = seen.value if better else state.best
        stuck = 0 if better or not self._is_at_floor(seen.levels, seen.bases) else state.stuck + 1
        if self.reset_after is not None and stuck >= self.reset_after:
            return Observation(self.init(), self._reset(seen, stuck, best))
        if state.rest > 0:
            return Observation(GreedyState(best=best, rest=state.rest - 1, stuck=stuck))
        good, bad = (state.good + 1, 0) if better else (0, state.bad + 1)
        if good > self.patience:
            rested = GreedyState(best=best, rest=self.warmup, stuck=stuck)
            return Observation(rested, self._raise(seen, good))
        if bad > self.patience:
            rested = GreedyState(best=best, rest=self.cooldown, stuck=stuck)
            return Observation(rested, self._cut(seen, bad, best))
        return Observation(GreedyState(best=best, good=good, bad=bad, stuck=stuck))

    def _raise(self, seen: Sample, good: int) -> Verdict | None:
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level / self.factor, self._ceiling(group, seen.bases[group]))]
            if new > level * (1.0 + ROUNDING)
        }
        reason = (
            f"{seen.metric} has been a new best {good} times in a row (now {seen.value!r}; patience"
            f" {self.patience}): divided by {self.factor!r}"
        )
        return Verdict(reason, levels=raised) if raised else None

    def _cut(self, seen: Sample, bad: int, best: float) -> Verdict | None:
        cut = {
            group: new
            for group, level in seen.levels.items()
            for new in [max(level * self.factor, self._floor(group, seen.bases[group]))]
            if new < level * (1.0 - ROUNDING)
        }
        if not cut:
            return None
        arrived = self._is_at_floor({**seen.levels, **cut}, seen.bases)
        reason = (
            f"{self._why(seen, bad, best)} (now {seen.value!r}; patience {self.patience}):"
            f" multiplied by {self.factor!r}"
            f"{', and now at the floor' if arrived else ''}"
        )
        return Verdict(reason, levels=cut, advice="at_floor" if arrived else None)

    def _reset(self, seen: Sample, stuck: int, best: float) -> Verdict:
        return Verdict(
            f"{self._why(seen, stuck, best)} with every level at its floor (now {seen.value!r};"
            f" reset_after {self.reset_after}): back to the base",
            levels=changed(seen.levels, seen.bases),
        )

    def _why(self, seen: Sample, count: int, best: float) -> str:
        known = "shown no value" if isinf(best) else f"not improved on {best!r}"
        return f"{seen.metric} has {known} in {count} measurements"

    def _is_at_floor(self, levels: Mapping[str, float], bases: Mapping[str, float]) -> bool:
        return all(
            level <= self._floor(group, bases[group]) * (1.0 + ROUNDING)
            for group, level in levels.items()
        )

    def _floor(self, group: str, base: float) -> float:
        of = self.min_ratio
        return base * (of.get(group, MIN_RATIO) if isinstance(of, dict) else of)

    def _ceiling(self, group: str, base: float) -> float:
        of = self.max_ratio
        ratio = of.get(group, MAX_RATIO) if isinstance(of, dict) else of
        return min(base * ratio, sys.float_info.max)
