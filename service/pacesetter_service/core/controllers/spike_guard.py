"""Spike guard: on a spike or NaN, cut the level, warm up again and advise a rollback."""

import sys
from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Verdict,
)
from pacesetter_service.core.controllers.cut import lowered
from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.model import Count, Flag, Fraction, NonNegative, Positive, Real, Step
from pacesetter_service.core.packed import Packed
from pacesetter_service.core.statistics import spread


class SpikeGuardState(ControllerState):
    """What was normal, and how the rule has responded to spikes.

    `window` holds the newest good values and `good` the step of the last; `cooldown` is how many
    measurements are still ignored; `trips` are the steps of the newest spikes that counted. `cut`
    is the product of the cuts that are not recovered yet, `before` the levels before the first of
    them, and `calm` the number of good measurements since the last cut or recovery.
    """

    window: Packed = ()
    good: int | None = None
    cooldown: int = 0
    trips: tuple[int, ...] = ()
    cut: float = 1.0
    before: dict[str, float] = Field(default_factory=dict)
    calm: int = 0


class SpikeGuard(Controller):
    """Answer a spike with a lower level, a second warmup and the advice to roll back.

    With m, a and s the mean, the mean magnitude and the standard deviation (n - 1) of the newest
    `window` good values, a value is a spike if any of these rules says so:

    ============  =========================================================
    `not_finite`  it is NaN or infinite (-inf too: no loss falls that far)
    `sigma`       value - m > sigma * s
    `ratio`       value - m >= (ratio - 1) * a
    ============  =========================================================

    and, but for the first, value - m > `min_rise` * a. With `mode="max"` a spike is a fall: m -
    value instead of value - m. None switches `sigma` or `ratio` off. For values above zero `ratio`
    is the plain value >= ratio * m; measured by magnitudes it also holds for metrics below zero and
    around it, where a multiple of the mean would call everything a spike, or nothing.

    **What happens.** The level is multiplied by `factor`, the rate rises to it in a straight line
    over `rewarm` steps from `rewarm_from` of it, and the trainer is told `roll_back`: load weights
    from before the update of the last good step, which the message names, and go on with new data
    and the next step; steps are not counted back. For the following `cooldown` measurements nothing
    counts, so that one spike is one. `max_trips` spikes (within `within` steps, or in all) are
    answered; from the next one on the trainer is told `diverged` and nothing else, and with
    `then="stop"` the session ends. With `max_trips` 0 the guard only tells.

    **Recovery.** With `recover_after`, each so many good measurements in a row the level goes up by
    `recover_factor`, until the cuts of this guard are undone and never above the level before them.
    What others have done to the level meanwhile stays.

    **Defaults.** NaN and infinities always; 6 standard deviations over 128 values, as OLMo, once
    there are `min_window` of them (half a window). `ratio` 2 is llm-foundry's and 3 Lightning's
    (whose `rtol` 2 is what lies above the mean); it suits losses that are far from zero.

    **Traps.** A spike never enters the window, nor does NaN, so neither makes the next one look
    normal. The price: where a loss goes to a new level for good (other data), all of it is a spike,
    until the trainer is told `diverged`. A window of equal values has no deviation, so `min_rise`
    alone decides; one of zeros has no magnitude either, and then only NaN and infinities count. Let
    the metric be unsmoothed, or a spike arrives late and blurred; and let its `nan` be `bad` or
    `guard`, for `ignore` hides NaN from the guard as well. The steps between the measurement and
    the answer have the old rate: keep the session's lookahead short.
    """

    State: ClassVar[type[ControllerState]] = SpikeGuardState
    formula: ClassVar[str] = (
        "level = level * factor, rewarmed, if value is not finite, or value - mean > sigma * std,"
        " or value - mean >= (ratio - 1) * mean magnitude"
    )
    source: ClassVar[str] = (
        "detection: OLMo-core SkipStepOptimizer, llm-foundry KillLossSpike, Lightning"
        " SpikeDetection; none of them changes the learning rate"
    )
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "recover_after": 1000}
    guards: ClassVar[bool] = True

    kind: Literal["spike_guard"] = "spike_guard"
    mode: Literal["min", "max"] = "min"
    not_finite: Flag = True
    sigma: Positive | None = 6.0
    ratio: Annotated[Real, Field(gt=1)] | None = None
    window: Annotated[Count, Field(ge=2, le=1024)] = 128
    min_window: Annotated[Count, Field(ge=2)] | None = None
    min_rise: NonNegative = 0.01
    factor: Annotated[Real, Field(gt=0, le=1)] = 0.5
    rewarm: StepCount | None = 100
    rewarm_from: Fraction = 0.1
    cooldown: Step = 20
    max_trips: Annotated[Step, Field(le=1000)] = 3
    within: StepCount | None = None
    then: Literal["tell", "stop"] = "tell"
    recover_after: Count | None = None
    recover_factor: Annotated[Real, Field(gt=1)] = 2.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if not self.not_finite and self.sigma is None and self.ratio is None:
            yield PydanticCustomError(
                "no_rule", "Nothing would be a spike: give `sigma`, `ratio` or `not_finite`"
            )
        if self.min_window is not None and self.min_window > self.window:
            yield PydanticCustomError(
                "window_too_short",
                "`min_window` is above `window`: there would never be enough values; swap them",
            )

    def observe(self, state: SpikeGuardState, seen: Sample) -> Observation:  # noqa: D102
        spike = self._spike(state, seen.value)
        if spike is None:
            return self._calm(state, seen) if isfinite(seen.value) else Observation(state)
        if state.cooldown > 0:
            passed = {"cooldown": state.cooldown - 1, "calm": 0}
            return Observation(state.model_copy(update=passed))
        return self._trip(state, seen, f"{self._words(seen)} {spike}{_last_good(state)}")

    def _spike(self, state: SpikeGuardState, value: float) -> str | None:
        """Say why a value is a spike; None if it is not."""
        if not isfinite(value):
            return "is not finite" if self.not_finite else None
        window = state.window
        if len(window) < (self.min_window or max(self.window // 2, 2)):
            return None
        normal, magnitude = spread(window), spread(tuple(map(abs, window))).mean
        rise = value - normal.mean if self.mode == "min" else normal.mean - value
        if magnitude == 0.0 or not rise > self.min_rise * magnitude:
            return None
        side = "above" if self.mode == "min" else "below"
        jump = f"is {rise!r} {side} the mean {normal.mean!r} of the last {len(window)} good values"
        if self.ratio is not None and rise >= (self.ratio - 1.0) * magnitude:
            return f"{jump}, whose magnitude is {magnitude!r} (ratio {self.ratio!r})"
        if self.sigma is not None and rise > self.sigma * normal.deviation:
            return f"{jump}, which deviate by {normal.deviation!r} (sigma {self.sigma!r})"
        return None

    def _calm(self, state: SpikeGuardState, seen: Sample) -> Observation:
        after = state.model_copy(
            update={
                "window": (*state.window, seen.value)[-self.window :],
                "good": seen.step,
                "cooldown": max(state.cooldown - 1, 0),
                "calm": state.calm + 1 if state.cut < 1.0 else 0,
            }
        )
        if self.recover_after is None or after.calm < self.recover_after:
            return Observation(after)
        return self._recover(after, seen)

    def _recover(self, state: SpikeGuardState, seen: Sample) -> Observation:
        whole_way = self.recover_factor * state.cut >= 1.0
        up = 1.0 / state.cut if whole_way else self.recover_factor
        rest = {"cut": 1.0, "before": {}} if whole_way else {"cut": state.cut * up}
        levels = {
            group: min(level * up, state.before[group])
            for group, level in seen.levels.items()
            if level < state.before.get(group, 0.0)
        }
        reason = (
            f"{seen.metric} has been calm for {state.calm} measurements: level times {up!r},"
            f" {'all' if whole_way else 'part'} of what spikes had cut"
        )
        after = state.model_copy(update={"calm": 0, **rest})
        return Observation(after, Verdict(reason, levels=levels) if levels else None)

    def _trip(self, state: SpikeGuardState, seen: Sample, why: str) -> Observation:
        recent = self._recent(state.trips, seen.step)
        counted = {
            "trips": (*recent, seen.step)[-max(self.max_trips, 1) :],
            "cooldown": self.cooldown,
            "calm": 0,
        }
        if len(recent) >= self.max_trips:
            return Observation(state.model_copy(update=counted), self._give_up(why))
        if self.factor < 1.0:
            counted["cut"] = max(state.cut * self.factor, sys.float_info.min)
            counted["before"] = state.before or dict(seen.levels)
        after = state.model_copy(update=counted)
        return Observation(after, self._answer(f"{why}; spike {len(recent) + 1}", state.good, seen))

    def _recent(self, trips: tuple[int, ...], step: int) -> tuple[int, ...]:
        if self.within is None:
            return trips
        within = whole(self.within)
        return tuple(trip for trip in trips if step - trip < within)

    def _answer(self, why: str, good: int | None, seen: Sample) -> Verdict:
        way_back = (
            "the first weights" if good is None else f"weights from before step {good}'s update"
        )
        return Verdict(
            f"{why} of the {self.max_trips} that are answered{self._span()}: level times"
            f" {self.factor!r}; go back to {way_back}",
            levels=lowered(seen.levels, self.factor, floor=0.0),
            rewarm=None if self.rewarm is None else (whole(self.rewarm), self.rewarm_from),
            advice="roll_back",
            good_step=good,
        )

    def _give_up(self, why: str) -> Verdict:
        end = "the session ends" if self.then == "stop" else "the level stays"
        return Verdict(
            f"{why}; more spikes than the {self.max_trips} that are answered{self._span()}: {end}",
            advice="diverged",
            finish=self.then == "stop",
        )

    def _span(self) -> str:
        return "" if self.within is None else f" within {whole(self.within)} steps"

    def _words(self, seen: Sample) -> str:
        return f"{seen.metric} {seen.value!r} at step {seen.step}"


def _last_good(state: SpikeGuardState) -> str:
    if state.good is None:
        return ", with no good value before it"
    return f"; the last good value is that of step {state.good}"
