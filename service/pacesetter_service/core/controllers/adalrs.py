"""AdaLRS: search for the learning rate during the training, by how fast the loss falls."""

import sys
from collections.abc import Iterator, Mapping
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
from pacesetter_service.core.controllers.leaky_bucket import Kept
from pacesetter_service.core.controllers.plateau import ROUNDING
from pacesetter_service.core.lengths import whole
from pacesetter_service.core.model import Flag, Model, NonNegative, Positive, Real, Step
from pacesetter_service.core.packed import Packed
from pacesetter_service.core.statistics import trend


class Descent(Model):
    """How fast the loss fell in one window: per measurement, with the slope's standard error."""

    velocity: float
    error: float


class Trial(Model):
    """A higher level that is being tried: since which step, from which levels and to which.

    `bases` are the bases of these levels; older states do not have them.
    """

    at: Step
    before: dict[str, float]
    raised: dict[str, float]
    bases: dict[str, float] = Field(default_factory=dict)


class AdaLrsState(ControllerState):
    """The window that is being filled, and the memory of the search.

    `losses` are the losses of the window so far and `first` the step of its first one; measurements
    of steps before `since` belong to another level. `last` is the descent of the newest window at
    the level that the search starts from, and `trial` the level that is being tried. `rose` says
    whether the loss rose in the last window, `tries` counts the changes, and `highest` is the
    highest loss so far.
    """

    losses: Packed = ()
    first: Step | None = None
    since: Step = 0
    last: Descent | None = None
    trial: Trial | None = None
    rose: bool = False
    tries: Step = 0
    highest: float | None = None


class AdaLrs(Controller):
    """Try a higher level when the descent slows; keep it if the loss then falls faster, else cut.

    A line is fitted through each `window` measurements of the loss. The velocity v is its slope,
    counted as positive where the loss falls, and e is `errors` times the slope's standard error.
    When a window at the level `r` is slower than the one before it, the level `a * r` is tried for
    a window. With `v` and `e` of the window before the trial, and `v'` and `e'` of the trial's,

    =====================  =================================================================
    the trial's window     then
    =====================  =================================================================
    v' > v + e + e'        `a * r` is kept
    v' < v - e - e'        `b * r` follows, and the trainer is told `roll_back`
    anything between       `r` again
    =====================  =================================================================

    With t changes before, `a = max(decay ** t * alpha, 1)` and `b = 1 / max(decay ** t * beta, 1)`,
    so the search comes to rest. A trial fails at once if the loss is NaN or infinite, or higher
    than it has ever been. If the loss rose in two windows in a row, the level is cut to `b * r`
    without a trial.

    **Backtracking.** The paper found it essential: a rate that is too high spoils the weights, and
    a lower one does not mend them. At a trial's beginning the trainer is told `checkpoint`: keep
    weights and optimizer as they are before the update of that step. `roll_back` names that step:
    load them, and go on with new data; steps are not counted back. With `backtrack=false` nothing
    is told, and a failed trial leaves its mark.

    **How long.** The paper searches from 10 % to 40 % of the training and leaves the rest to the
    schedule: let `from_step` and `until_step` be that. No trial begins that would not be over by
    `until_step`. One that is still open, because measurements have become rare, ends without a
    trace: with the last one that is to be expected, or else with the first from `until_step` on. A
    window must be long enough to tell slopes apart in the noise of single batches: a hundred
    measurements and more.

    **Where the paper says less.** It counts t; here t counts the changes that the search has made.
    Its e is an estimation error; here it is the slope's standard error, which takes the
    measurements for independent: where neighbours are alike, let `errors` be 2 or more. A single
    value above the highest so far fails a trial, also by chance: have a noisy loss smoothed. An
    order that drops the level of controllers, as `set` does, ends a trial, and its rate stands.

    **What it came to** on a noisy linear regression of 3,000 steps (`tests/core/controllers`), six
    runs each, against the same base without the search: with a base 30 times too low the excess
    loss at the end was 0.4 to 73 % of it, with the median at 9 %, and in one run nothing was
    found. At the best base it was 80 to 173 %. With windows half as long and `errors` 0.5 it was up
    to 19 times as high there. A good base from the start was far better than any search.

    **Of no use** where the loss falls by a large part of itself within a window: then each window
    is slower than the one before whatever the rate, each trial fails, and the level falls. So it
    does near the end of a training, and on tasks that are soon over. A base that has let the
    training diverge already is not mended either. Near the best rate the search costs more than it
    gains. And it is greedy: a rate under which the loss falls fastest now need not be the one that
    ends lowest.
    """

    State: ClassVar[type[ControllerState]] = AdaLrsState
    formula: ClassVar[str] = (
        "level = max(decay^t * alpha, 1) * level if then the loss falls faster, by more than the"
        " errors of both slopes; level / max(decay^t * beta, 1) if slower; else as before"
    )
    source: ClassVar[str] = "Dong et al. 2025, AdaLRS, arXiv:2506.13274"
    example: ClassVar[dict[str, Any]] = {
        "metric": "loss",
        "window": 100,
        "from_step": 400,
        "until_step": 1600,
    }
    guards: ClassVar[bool] = True

    kind: Literal["adalrs"] = "adalrs"
    window: Annotated[Kept, Field(ge=4)] = 200
    alpha: Annotated[Real, Field(gt=1)] = 3.0
    beta: Annotated[Real, Field(gt=1)] = 2.0
    decay: Annotated[Real, Field(gt=0, le=1)] = 0.99
    errors: NonNegative = 1.0
    backtrack: Flag = True
    min_lr: NonNegative = 0.0
    max_lr: Positive | None = None

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.max_lr is not None and self.min_lr > self.max_lr:
            yield PydanticCustomError("no_room", "`min_lr` is above `max_lr`; swap them")

    def is_open(self, state: AdaLrsState) -> bool:  # noqa: D102
        return state.trial is not None

    def observe(self, state: AdaLrsState, seen: Sample) -> Observation:  # noqa: D102
        if seen.step < state.since:
            return Observation(state)
        if state.trial is not None:
            return self._follow(state, seen, state.trial)
        if not isfinite(seen.value):
            return Observation(state)
        filled = _with(state, seen)
        if len(filled.losses) < self.window:
            return Observation(filled)
        return self._look(filled, seen, _descent(filled.losses))

    def _follow(self, state: AdaLrsState, seen: Sample, trial: Trial) -> Observation:
        """Take a measurement during a trial."""
        gone = _overruled(seen, trial)
        if gone:
            return self._leave(state, seen, trial, gone)
        if not self._bearable(state, seen.value):
            return self._fail(state, seen, trial, self._unbearable(state, seen))
        filled = _with(state, seen)
        if len(filled.losses) == self.window and self.is_awake(seen.step):
            return self._judge(filled, seen, trial, _descent(filled.losses))
        if self._runs_out(filled, seen):
            return self._give_back(filled, seen, trial, "too few measurements came in time")
        return Observation(filled)

    def _runs_out(self, state: AdaLrsState, seen: Sample) -> bool:
        """Return whether the search ends before another measurement can be expected."""
        if self.until_step is None:
            return False
        more = len(state.losses) - 1
        spacing = (seen.step - (state.first or 0)) / more if more else 0.0
        return seen.step + spacing >= whole(self.until_step)

    def _bearable(self, state: AdaLrsState, value: float) -> bool:
        return isfinite(value) and (state.highest is None or value <= state.highest)

    def _unbearable(self, state: AdaLrsState, seen: Sample) -> str:
        what = f"{seen.metric} {seen.value!r} at step {seen.step}"
        if not isfinite(seen.value):
            return f"{what} is not finite"
        return f"{what} is higher than it has ever been, {state.highest!r}"

    def _look(self, state: AdaLrsState, seen: Sample, now: Descent) -> Observation:
        """Decide at the end of a window without a trial."""
        rises = now.velocity < -self.errors * now.error
        if rises and state.rose:
            return self._cut(state, seen)
        after = _emptied(state, last=now, rose=rises)
        slower = state.last is not None and now.velocity < state.last.velocity
        if rises or not slower or not self._fits(state, seen):
            return Observation(after)
        return self._try(after, seen, state.last, now)

    def _fits(self, state: AdaLrsState, seen: Sample) -> bool:
        """Return whether a trial would end before the search does."""
        if self.until_step is None:
            return True
        spacing = (seen.step - (state.first or 0)) / (self.window - 1)
        return seen.at + self.window * spacing <= whole(self.until_step)

    def _try(
        self, state: AdaLrsState, seen: Sample, last: Descent | None, now: Descent
    ) -> Observation:
        factor = max(self.decay**state.tries * self.alpha, 1.0)
        raised = self._raised(seen, factor)
        if last is None or not raised:
            return Observation(state)
        before = {group: seen.levels[group] for group in raised}
        bases = {group: seen.bases[group] for group in raised}
        trial = Trial(at=seen.at, before=before, raised=raised, bases=bases)
        reason = (
            f"{seen.metric} falls by {now.velocity:.3g} a measurement, and fell by"
            f" {last.velocity:.3g} in the window before: {factor:.4g} times the level is tried over"
            f" {self.window} measurements"
        )
        told: Verdict = Verdict(
            reason, levels=raised, advice="checkpoint" if self.backtrack else None
        )
        return Observation(_emptied(state, since=seen.at, trial=trial), told)

    def _raised(self, seen: Sample, factor: float) -> dict[str, float]:
        """Return the levels of a trial, within the limits, without those that would hardly rise."""
        most = sys.float_info.max if self.max_lr is None else self.max_lr
        return {
            group: new
            for group, level in seen.levels.items()
            for new in [seen.limits.clip(level, min(level * factor, most))]
            if new > level * (1.0 + ROUNDING)
        }

    def _judge(self, state: AdaLrsState, seen: Sample, trial: Trial, now: Descent) -> Observation:
        """Decide at the end of a trial's window."""
        last = state.last or now
        margin = self.errors * (last.error + now.error)
        if now.velocity > last.velocity + margin:
            kept = _emptied(state, trial=None, last=now, tries=state.tries + 1)
            return Observation(kept)
        speeds = (
            f"{seen.metric} falls by {now.velocity:.3g} a measurement under trial, and fell by"
            f" {last.velocity:.3g} before it"
        )
        if now.velocity < last.velocity - margin:
            return self._fail(state, seen, trial, f"{speeds} (errors {margin:.3g})")
        return self._give_back(
            state, seen, trial, f"{speeds}: that is within their errors, {margin:.3g}"
        )

    def _give_back(self, state: AdaLrsState, seen: Sample, trial: Trial, why: str) -> Observation:
        """End an inconclusive trial: go back to the level before it."""
        back = _emptied(state, trial=None, since=seen.at, tries=state.tries + 1)
        reason = f"{why}, and the trial is over"
        return Observation(back, _verdict(reason, _changed(seen, _returned(seen, trial))))

    def _leave(
        self, state: AdaLrsState, seen: Sample, trial: Trial, gone: frozenset[str]
    ) -> Observation:
        """End a trial that an operator has overruled: the order stands, and other groups go back.

        The rule learns nothing from the trial, and the trainer need not go back to a checkpoint.
        """
        after = _emptied(
            state, trial=None, last=None, since=seen.at, rose=False, tries=state.tries + 1
        )
        rest = {
            group: level for group, level in _returned(seen, trial).items() if group not in gone
        }
        names = ", ".join(sorted(filter(None, gone)))
        reason = f"the level of {names or 'the rate'} was set by an order: the trial is over"
        return Observation(after, _verdict(reason, _changed(seen, rest)))

    def _fail(self, state: AdaLrsState, seen: Sample, trial: Trial, why: str) -> Observation:
        factor = 1.0 / max(self.decay**state.tries * self.beta, 1.0)
        levels = {
            group: max(level * factor, min(self.min_lr, level))
            for group, level in _returned(seen, trial).items()
        }
        after = _emptied(state, trial=None, last=None, since=seen.at, tries=state.tries + 1)
        reason = f"{why}: the trial has failed, and {factor:.4g} times the level before it follows"
        if not self.backtrack:
            return Observation(after, _verdict(reason, _changed(seen, levels)))
        told = Verdict(
            f"{reason}; go back to weights from before step {trial.at}'s update",
            levels=_changed(seen, levels),
            advice="roll_back",
            good_step=trial.at,
        )
        return Observation(after, told)

    def _cut(self, state: AdaLrsState, seen: Sample) -> Observation:
        """Lower the level of a loss that rises although no trial is running."""
        factor = 1.0 / max(self.decay**state.tries * self.beta, 1.0)
        after = _emptied(state, last=None, since=seen.at, rose=False, tries=state.tries + 1)
        reason = f"{seen.metric} rose in two windows in a row: level times {factor:.4g}"
        return Observation(after, _verdict(reason, lowered(seen.levels, factor, self.min_lr)))


def _with(state: AdaLrsState, seen: Sample) -> AdaLrsState:
    """Return the state with another finite loss."""
    return state.model_copy(
        update={
            "losses": (*state.losses, seen.value),
            "first": seen.step if state.first is None else state.first,
            "highest": max(seen.value, seen.value if state.highest is None else state.highest),
        }
    )


def _emptied(state: AdaLrsState, **changes: object) -> AdaLrsState:
    """Return the state at the beginning of the next window."""
    return state.model_copy(update={"losses": (), "first": None, **changes})


def _descent(losses: tuple[float, ...]) -> Descent:
    line = trend(losses)
    return Descent(velocity=-line.slope, error=line.error)


def _overruled(seen: Sample, trial: Trial) -> frozenset[str]:
    """Return the groups of a trial whose level an order dropped since, as `set` and `replace` do.

    Such a group has another base, or is back at its base although the trial's level is not.
    """
    return frozenset(
        group
        for group, raised in trial.raised.items()
        for level, base in [(seen.levels[group], seen.bases[group])]
        if base != trial.bases.get(group, base) or level == base != raised
    )


def _returned(seen: Sample, trial: Trial) -> dict[str, float]:
    """Return the levels without the trial's factor; changes that others made since stay."""
    return {
        group: trial.before[group]
        if level == trial.raised[group]
        else level * (trial.before[group] / trial.raised[group])
        for group, level in seen.levels.items()
        if group in trial.raised
    }


def _changed(seen: Sample, levels: Mapping[str, float]) -> dict[str, float]:
    return {group: level for group, level in levels.items() if 0.0 < level != seen.levels[group]}


def _verdict(reason: str, levels: Mapping[str, float]) -> Verdict | None:
    return Verdict(reason, levels=levels) if levels else None
