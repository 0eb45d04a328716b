"""Preset of transformers: GreedyLR, decision for decision."""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Seen,
    Verdict,
    changed,
)
from pacesetter_service.core.controllers.improvement import (
    Improvement,
    Mode,
    refuse_impossible,
)
from pacesetter_service.core.model import Flag, NonNegative, OneOf, Real, Step
from pacesetter_service.core.smoothing import Window

MIN_LR, MAX_LR = 1e-3, 1.0
"""The library's own bounds; for groups that an object of bounds does not name, too."""

Bound = Annotated[
    NonNegative | dict[str, NonNegative],
    OneOf("Input should be a learning rate, or an object with one for each group by its name"),
]


class GreedyLRState(ControllerState):
    """The counters of the library's scheduler, and the window of its streaming average.

    Attributes:
        best: The best value so far; infinite before the first.
        good: `num_good_epochs`, the new bests in a row.
        bad: `num_bad_epochs`, the others in a row.
        cooldown: `cooldown_counter`.
        warmup: `warmup_counter`.
        resets_in: `reset_start`, as it is counted down.
        window: The newest values, if they are smoothed.
        total: Their running sum; it is not their sum to the bit.
    """

    best: float
    resets_in: int
    good: int = 0
    bad: int = 0
    cooldown: int = 0
    warmup: int = 0
    window: tuple[float, ...] = ()
    total: float = 0.0


class GreedyLR(Controller):
    """The rule of transformers' GreedyLR, with its numbers and its traps; our own is `greedy`.

    More than `patience` new bests in a row divide the rate by `factor`, up to `max_lr`, and let
    `warmup` measurements pass; more than `patience` others multiply it by `factor`, down to
    `min_lr`, and let `cooldown` measurements pass. Changes of no more than `eps` are not made. With
    `smooth` a value is the mean of the newest `window_size`. A cut that is due while every rate is
    at or below its `min_lr` counts down `reset_start`; at 0 all rates go back to where they began
    and everything is forgotten. It is made for a constant schedule; over another one it acts on the
    level. Bounds for groups are an object by their names, where transformers takes a list.
    `verbose` is accepted and means nothing: the log of events has every decision.

    Read these before using it; `greedy` has none of them:

    - **A rate below `min_lr` is never cut.** The bounds are absolute and their defaults are 1e-3
      and 1.0: at the usual 5e-5 every cut would be a raise, so none is made, and the rate climbs
      with each run of improvements. Give `min_lr` and `max_lr` around your own rate.
    - A rate near `eps` stops short of its floor: with the defaults no rate below 2e-7 is cut, a
      `min_lr` of 1e-7 is never reached, and so nothing is ever reset.
    - With `smooth` one NaN or infinity makes every later mean NaN, and the rate only falls, until
      the reset. Use `nan="ignore"` or a `smoothing` of the metric instead.
    - -inf (or inf with mode "max") becomes the best, and nothing beats it.
    - Values during a cooldown or a warmup are not looked at, so an old best counts for longer.
    - With "rel" and negative metrics worse values count as better: use "abs". A relative threshold
      of 1 or more with mode "min" is refused: nothing but values below zero could pass it.
    - `reset_start` counts cuts that were due, each after `patience + 1 + cooldown` measurements.
    """

    State: ClassVar[type[ControllerState]] = GreedyLRState
    formula: ClassVar[str] = (
        "level = min(level / factor, max_lr) once good > patience,"
        " max(level * factor, min_lr) once bad > patience"
    )
    source: ClassVar[str] = "transformers.GreedyLR, arXiv:2512.14527"
    example: ClassVar[dict[str, Any]] = {"metric": "eval_loss", "min_lr": 1e-6, "max_lr": 1e-3}

    kind: Literal["hf.GreedyLR"] = "hf.GreedyLR"
    mode: Mode = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.95
    patience: Step = 10
    threshold: NonNegative = 1e-6
    threshold_mode: Literal["rel", "abs"] = "abs"
    cooldown: Step = 0
    warmup: Step = 0
    min_lr: Bound = MIN_LR
    max_lr: Bound = MAX_LR
    eps: NonNegative = 1e-8
    verbose: Flag = False
    smooth: Flag = False
    window_size: Window = 50
    reset_start: Step = 500

    @model_validator(mode="after")
    def _some_room(self) -> Self:
        named = {group for of in (self.min_lr, self.max_lr) if isinstance(of, dict) for group in of}
        if any(self._lowest(group) > self._highest(group) for group in named or {""}):
            raise PydanticCustomError(
                "no_room", "A `min_lr` is above its `max_lr`; give both around your learning rate"
            )
        return self

    @model_validator(mode="after")
    def _a_threshold_can_be_passed(self) -> Self:
        refuse_impossible(self.improvement)
        return self

    @cached_property
    def improvement(self) -> Improvement:
        """What is better to this rule; an infinite value may be."""
        return Improvement(self.mode, self.threshold, self.threshold_mode, finite_only=False)

    def init(self) -> GreedyLRState:  # noqa: D102
        return GreedyLRState(best=self.improvement.worst, resets_in=self.reset_start)

    def observe(self, state: ControllerState, seen: Seen) -> Observation:  # noqa: D102
        assert isinstance(state, GreedyLRState)  # noqa: S101 - each controller gets its own state back
        state, value = self._smoothed(state, seen.value)
        if state.cooldown > 0:
            return Observation(_with(state, cooldown=state.cooldown - 1, good=0, bad=0))
        if state.warmup > 0:
            return Observation(_with(state, warmup=state.warmup - 1, good=0, bad=0))
        if self.improvement.is_better(value, state.best):
            state = _with(state, best=value, good=state.good + 1, bad=0)
        else:
            state = _with(state, good=0, bad=state.bad + 1)
        if state.good > self.patience:
            return self._raised(state, seen, value)
        if state.bad > self.patience:
            return self._cut(state, seen, value)
        return Observation(state)

    def _smoothed(self, state: GreedyLRState, value: float) -> tuple[GreedyLRState, float]:
        if not self.smooth:
            return state, value
        window, total = (*state.window, value), state.total + value
        if len(window) > self.window_size:
            window, total = window[1:], total - window[0]
        return _with(state, window=window, total=total), total / len(window)

    def _raised(self, state: GreedyLRState, seen: Seen, value: float) -> Observation:
        raised = {
            group: new
            for group, level in seen.levels.items()
            for new in [min(level / self.factor, self._highest(group))]
            if new - level > self.eps
        }
        reason = (
            f"{seen.metric} has been a new best {state.good} times in a row (now {value!r};"
            f" patience {self.patience}): divided by {self.factor!r}"
        )
        rested = _with(state, good=0, warmup=self.warmup, resets_in=self.reset_start)
        return Observation(rested, Verdict(reason, levels=raised) if raised else None)

    def _cut(self, state: GreedyLRState, seen: Seen, value: float) -> Observation:
        cut = {
            group: new
            for group, level in seen.levels.items()
            for new in [max(level * self.factor, self._lowest(group))]
            if level - new > self.eps
        }
        known = state.best != self.improvement.worst
        reason = (
            f"{seen.metric} has {f'not improved on {state.best!r}' if known else 'shown no value'}"
            f" in {state.bad} measurements (now {value!r}; patience {self.patience})"
        )
        levels = {**seen.levels, **cut}
        rested = _with(state, bad=0, cooldown=self.cooldown)
        if any(level > self._lowest(group) for group, level in levels.items()):
            verdict = Verdict(f"{reason}: multiplied by {self.factor!r}", levels=cut)
            return Observation(rested, verdict if cut else None)
        return self._at_floor(rested, seen, cut, reason)

    def _at_floor(
        self, state: GreedyLRState, seen: Seen, cut: dict[str, float], reason: str
    ) -> Observation:
        """Count down to the reset; say so the first time, when there may be nothing to cut."""
        left = state.resets_in - 1
        if left <= 0:
            back = changed(seen.levels, seen.bases)
            verdict = Verdict(f"{reason}, at the floor: back to the base", levels=back)
            return Observation(_with(self.init(), cooldown=self.cooldown), verdict)
        counted = _with(state, resets_in=left)
        if left == self.reset_start - 1:
            floors = ", ".join(sorted({repr(self._lowest(group)) for group in seen.levels}))
            reason = f"{reason}: every rate is at or below its min_lr ({floors}) and is cut no more"
            return Observation(counted, Verdict(reason, levels=cut, advice="at_floor"))
        verdict = Verdict(f"{reason}: multiplied by {self.factor!r}", levels=cut)
        return Observation(counted, verdict if cut else None)

    def _lowest(self, group: str) -> float:
        return self.min_lr.get(group, MIN_LR) if isinstance(self.min_lr, dict) else self.min_lr

    def _highest(self, group: str) -> float:
        return self.max_lr.get(group, MAX_LR) if isinstance(self.max_lr, dict) else self.max_lr


def _with(state: GreedyLRState, **changes: Any) -> GreedyLRState:  # noqa: ANN401 - any of its fields
    return state.model_copy(update=changes)
