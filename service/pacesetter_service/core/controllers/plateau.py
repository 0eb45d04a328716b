"""Reduce on plateau: cut the level when a metric has stopped improving."""

import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import isnan
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.controllers.improvement import (
    Improvement,
    Mode,
    ThresholdMode,
    refuse_impossible,
)
from pacesetter_service.core.model import (
    Count,
    Flag,
    Fraction,
    Model,
    NonNegative,
    OneOf,
    Real,
    Step,
)

Factor = Annotated[Real, Field(gt=0, lt=1)]
Multiple = Annotated[Real, Field(gt=1)]

Floor = Annotated[
    NonNegative | dict[str, NonNegative],
    OneOf('Write a number from 0 on, or one for each group by its name: {"head": 0.1}'),
]

ROUNDING = 1e-15
"""The relative distance at which a level has arrived: an order may round the last bit."""


class PlateauStart(Model):
    """What the rule has seen before the session begins, for one that goes on from another place.

    Attributes:
        best: The best value so far, as a text where JSON has no number for it (`"-Infinity"`); None
            if there was none.
        bad: How many measurements in a row did not improve on it.
        cooldown: How many measurements of the cooldown are left.
    """

    best: float | None = Field(default=None, description="the best value so far; none if not given")
    bad: Step = Field(default=0, description="how many measurements in a row did not improve on it")
    cooldown: Step = Field(default=0, description="how many measurements of the cooldown are left")

    @field_validator("best")
    @classmethod
    def _a_number(cls, best: float | None) -> float | None:
        if best is not None and isnan(best):
            raise PydanticCustomError(
                "not_a_best", "NaN was never the best value; leave `best` out if there was none"
            )
        return best


class PlateauState(ControllerState):
    """The value to compare the next measurement with, and the counters.

    Attributes:
        best: The best value so far; infinite before the first.
        bad: How many measurements in a row did not improve on it, cooldowns left out.
        cooldown: How many measurements of the cooldown are left.
        good: How many measurements in a row improved on the best.
        told: Whether the trainer has been told that every level is at its floor.
    """

    best: float
    bad: int = 0
    cooldown: int = 0
    good: int = 0
    told: bool = False


class Plateau(Controller):
    """Multiply the level by `factor` after more than `patience` measurements without improvement.

    With the defaults it is the rule of torch's ReduceLROnPlateau, to the bit for all finite
    metrics. A measurement improves on the best so far if it is finite and, with `mode="min"` and
    `th` for `threshold`,

    ==============  ==========================================  =================
    threshold_mode  improves                                    as in
    ==============  ==========================================  =================
    rel             value < best * (1 - th)                     torch
    abs             value < best - th                           torch
    rel_and_abs     value < best * (1 - th) - threshold_abs     optax
    signed_rel      value < best - th * abs(best)               no library
    abs_on_value    value + th < best                           keras, fastai
    rel_subtracted  value < best - best * th                    paddle
    ==============  ==========================================  =================

    and the other way round with `"max"`. The last two are `abs` and `rel` but for the last bit.

    **When.** A level is cut when the patience is `exceeded`, at the bad measurement after it
    (torch), or already when it is `reached` (keras, optax, fastai): a patience of 2 cuts at the
    third bad measurement in a row, or at the second. After a cut the count starts anew, and for
    `cooldown` measurements `bad` ones are not counted (torch, keras, optax), or `all` are ignored,
    so that the best does not change either (paddle).

    **How far.** To `level * factor`, or to `level / divisor` if that is given: 0.1 / 10 is 0.01,
    and 0.1 * 0.1 is not. At most to the floor, which is `min_lr` or `min_ratio * base`, whichever
    is higher. `min_lr` may name groups; those that it does not name have none. A cut of at most
    `eps` is not made. No level ever rises because it lies below its floor.

    **At the floor** no cut changes any level. The rule may `stay` there; `notify`, which tells the
    trainer `at_floor` once; `reset`, which puts all levels back to their bases and forgets the best
    when the patience runs out there; or `stop`, which then ends the session. `notify=true` tells
    the trainer `plateaued` at each cut.

    **Up again.** With `up_factor` the level is multiplied by it after `up_patience` improvements in
    a row, cooldowns included, to at most `max_ratio * base`.

    Traps:

    - `rel`, `rel_and_abs` and `rel_subtracted` take worse values of a metric below zero for better
      ones, so that a rate is never cut: use `signed_rel` or `abs` for rewards and log-likelihoods.
    - An infinite value never becomes the best. In torch one `-inf` does, and nothing ever beats it:
      `finite_only=false` is as torch in that. NaN is never an improvement, and counts as bad.
    - One lucky value cannot be beaten for long, although the metric goes on improving: give a
      noisy metric a `smoothing` under the session's `metrics`.
    - Patience counts measurements, not steps: it means epochs if each epoch is reported once.
    - Rising metrics of a warmup are no plateau: let `from_step` be where it ends.

    `start` is what the rule begins with where it goes on from elsewhere: the best value, the `bad`
    measurements in a row, and what is left of a `cooldown`.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = (
        "level = max(level * factor, min_lr, min_ratio * base) once bad > patience"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    example: ClassVar[dict[str, Any]] = {
        "metric": "val_loss",
        "factor": 0.5,
        "patience": 3,
        "min_ratio": 0.01,
    }

    kind: Literal["plateau"] = "plateau"
    mode: Mode = "min"
    factor: Factor = 0.1
    divisor: Multiple | None = None
    patience: Step = 10
    when: Literal["exceeded", "reached"] = "exceeded"
    threshold: NonNegative = 1e-4
    threshold_mode: ThresholdMode = "rel"
    threshold_abs: NonNegative = 0.0
    finite_only: Flag = True
    cooldown: Step = 0
    cooldown_ignores: Literal["bad", "all"] = "bad"
    min_lr: Floor = 0.0
    min_ratio: Fraction = 0.0
    eps: NonNegative = 1e-8
    at_floor: Literal["stay", "notify", "reset", "stop"] = "stay"
    notify: Flag = False
    up_factor: Multiple | None = None
    up_patience: Count = 10
    max_ratio: Annotated[Real, Field(ge=1)] = 1.0
    start: PlateauStart = PlateauStart()

    def _faults(self) -> Iterator[PydanticCustomError]:
        refuse_impossible(self.improvement)
        if self.threshold_abs and self.threshold_mode != "rel_and_abs":
            yield PydanticCustomError(
                "threshold_not_used",
                'Only threshold_mode "rel_and_abs" has a `threshold_abs`: choose it, or give the'
                ' `threshold` with threshold_mode "abs"',
            )
        if self.divisor is not None and self.factor != type(self).model_fields["factor"].default:
            yield PydanticCustomError(
                "factor_and_divisor",
                "A cut multiplies by `factor` or divides by `divisor`: give one of them",
            )

    @cached_property
    def improvement(self) -> Improvement:
        """What counts as an improvement to this rule."""
        return Improvement(
            mode=self.mode,
            threshold=self.threshold,
            threshold_mode=self.threshold_mode,
            threshold_abs=self.threshold_abs,
            finite_only=self.finite_only,
        )

    def init(self) -> PlateauState:  # noqa: D102
        start = self.start
        best = self.improvement.worst if start.best is None else start.best
        return PlateauState(best=best, bad=start.bad, cooldown=start.cooldown)

    def observe(self, state: PlateauState, seen: Sample) -> Observation:  # noqa: D102
        if state.cooldown > 0 and self.cooldown_ignores == "all":
            return Observation(state.model_copy(update={"cooldown": state.cooldown - 1}))
        state = self._counted(state, seen.value)
        if self._is_out_of_patience(state.bad):
            return self._cut(state, seen)
        if self.up_factor is not None and state.good >= self.up_patience:
            return self._raise(state, seen)
        return Observation(state)

    def _counted(self, state: PlateauState, value: float) -> PlateauState:
        better = self.improvement.is_better(value, state.best)
        return PlateauState(
            best=value if better else state.best,
            bad=0 if better or state.cooldown > 0 else state.bad + 1,
            cooldown=max(state.cooldown - 1, 0),
            good=state.good + 1 if better else 0,
            told=state.told,
        )

    def _is_out_of_patience(self, bad: int) -> bool:
        return bad > self.patience or (self.when == "reached" and 0 < bad >= self.patience)

    def _cut(self, state: PlateauState, seen: Sample) -> Observation:
        cut = self._lowered(seen.levels, seen.bases)
        if not cut and self.at_floor == "reset":
            afresh = PlateauState(best=self.improvement.worst)
            return Observation(afresh, self._back_to_the_bases(state, seen))
        arrived = not self._lowered({**seen.levels, **cut}, seen.bases)
        told = arrived and self.at_floor == "notify"
        rested = PlateauState(best=state.best, cooldown=self.cooldown, told=told)
        if not cut and self.at_floor == "stop":
            return Observation(rested, self._end(state, seen))
        if told and not state.told:
            reason = f"{self._why(state, seen)}: every level is at its floor now"
            return Observation(rested, Verdict(reason, levels=cut, advice="at_floor"))
        if not cut:
            return Observation(rested)
        advice: Literal["plateaued"] | None = "plateaued" if self.notify else None
        return Observation(rested, Verdict(self._why(state, seen), levels=cut, advice=advice))

    def _lowered(self, levels: Mapping[str, float], bases: Mapping[str, float]) -> dict[str, float]:
        """Return the new level of each group that a cut would change."""
        # With `at_floor="stay"` the rule reports nothing at the floor, and cuts to the last bit as
        # torch does.
        near = 0.0 if self.at_floor == "stay" else ROUNDING
        return {
            group: new
            for group, level in levels.items()
            for new in [max(self._below(level), self._floor(group, bases[group]))]
            if level - new > max(self.eps, near * level)
        }

    def _below(self, level: float) -> float:
        return level * self.factor if self.divisor is None else level / self.divisor

    def _floor(self, group: str, base: float) -> float:
        floor = self.min_lr.get(group, 0.0) if isinstance(self.min_lr, dict) else self.min_lr
        return max(floor, self.min_ratio * base)

    def _back_to_the_bases(self, state: PlateauState, seen: Sample) -> Verdict:
        return Verdict(
            f"{self._why(state, seen)} with every level at its floor: back to the bases",
            levels=dict(seen.bases),
            advice="at_floor",
        )

    def _end(self, state: PlateauState, seen: Sample) -> Verdict:
        return Verdict(
            f"{self._why(state, seen)} with every level at its floor: the session ends",
            advice="finished",
            finish=True,
        )

    def _raise(self, state: PlateauState, seen: Sample) -> Observation:
        up, highest = self.up_factor or 1.0, sys.float_info.max
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level * up, self.max_ratio * seen.bases[group], highest)]
            if new - level > max(self.eps, ROUNDING * level)
        }
        if not raised:
            return Observation(state.model_copy(update={"good": 0}))
        reason = (
            f"{self.metric} has improved {state.good} times in a row, to {state.best!r}"
            f" (up_patience {self.up_patience})"
        )
        rested = state.model_copy(update={"good": 0, "told": False})
        return Observation(rested, Verdict(reason, levels=raised))

    def _why(self, state: PlateauState, seen: Sample) -> str:
        nothing = state.best == self.improvement.worst
        best = "has shown no value" if nothing else f"has not improved on {state.best!r}"
        return (
            f"{self.metric} {best} in {state.bad} measurements"
            f" (now {seen.value!r}; patience {self.patience})"
        )
