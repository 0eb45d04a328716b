"""The learning rate range test: from a sweep's losses to learning rates worth training with.

The rate rises at each step; the loss falls, flattens and blows up. Where to read the rate off that
curve is a matter of taste: on the same curve the known rules differ by up to a factor of 1000. So
each suggestion has the name of its rule, and says what the rule saw, or why it cannot tell.

===============  ===================================================================  ==========
name             rule, on the smoothed losses of n planned steps                      of
===============  ===================================================================  ==========
steepest         argmin d loss / d ln(lr), from step n // 10 to the lowest loss
valley           a third and a sixth into the longest falling subsequence             fastai
slide            from the right, a pair 15 apart until its slopes agree to 0.005      fastai
minimum          lr at the lowest loss, over 10                                       fastai
fastai           argmin of the forward difference of loss over that of ln(lr)         fastai steep
torch_lr_finder  argmin np.gradient(loss), without 10 steps at the start, 5 at end    0.2.2
ignite           argmin of the central difference of loss, up to the lowest loss      0.5.5
lightning        argmin d loss / d lr (not ln), without 10 at the start, 1 at end     2.6.6
===============  ===================================================================  ==========

The four of fastai leave out n // 10 steps at the start and 5 at the end (fastai 2.8.12,
`Learner.lr_find`). Where a library would treat a NaN as a number, the curve ends before it.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pacesetter_service.core.schedules import Values
from pacesetter_service.core.smoothing import Ema, Smoother, SmootherState

DEFAULT_SMOOTHING = Ema(beta=0.98)
"""How fastai and Lightning smooth losses."""

SKIPPED = 10
"""One in this many of the planned steps, at the start, says nothing: smoothing has not set in."""

LEAST_FALL = 0.01
"""The fraction of itself by which the loss must fall before anything is proposed."""

AGREEMENT = 5.0
"""Rules agree when the highest of their rates is at most this many times the lowest."""

QUORUM = 3
"""How many rules must agree before anything is proposed."""

HUGE = 1e100
"""A loss of this size is as good as infinite; below it no slope overflows."""

SLIDE_WIDTH = 15
SLIDE_THRESHOLD = 0.005


class Curve(NamedTuple):
    """The rates of a sweep and the loss at each, in the order of the steps; both of shape (n,)."""

    lr: Values
    loss: Values

    @classmethod
    def of(cls, lr: Sequence[float], loss: Sequence[float]) -> Self:
        """Build a curve from two equally long sequences.

        Raises:
            ValueError: One is longer than the other.
        """
        if len(lr) != len(loss):
            raise ValueError(f"{len(lr)} rates and {len(loss)} losses: give one loss for each rate")
        return cls(np.array(lr, dtype=np.float64), np.array(loss, dtype=np.float64))

    def part(self, begin: int, end: int) -> "Curve":
        """Return the points from `begin` to `end`, up to the first whose loss is not finite."""
        lr, loss = self.lr[begin:end], self.loss[begin:end]
        bad = ~_usable(loss)
        until = int(np.argmax(bad)) if bad.any() else loss.size
        return Curve(lr[:until], loss[:until])

    @property
    def bottom(self) -> int:
        """Where the loss is lowest; the first such point. There must be a point."""
        return int(np.argmin(self.loss))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What one rule says.

    Attributes:
        lr: The rate, or None if the rule cannot tell.
        index: The point of the curve that was read, from 0.
        reason: What was seen there, or why the rule cannot tell.
    """

    lr: float | None
    index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rate to train with, at the peak of a schedule.

    Attributes:
        lr: The rate, or None if the curve does not show one.
        agreeing: The rules whose suggestions agree.
        reason: How it was chosen, or why there is none.
    """

    lr: float | None
    agreeing: tuple[str, ...]
    reason: str


class CannotTellError(Exception):
    """A rule does not find what it looks for on this curve; the message says why."""


def smoothed(losses: Sequence[float], smoother: Smoother = DEFAULT_SMOOTHING) -> list[float]:
    """Smooth losses in their order; a value that is not finite stays, and spoils no later one."""
    state, values = SmootherState(), []
    for loss in losses:
        state, value = smoother.smooth(state, loss)
        values.append(loss if value is None else value)
    return values


def suggest(curve: Curve, planned: int | None = None) -> dict[str, Suggestion]:
    """Ask every rule.

    Args:
        curve: The smoothed losses of a sweep.
        planned: How many steps the sweep would have had without an early end; the number of points
            if not given.
    """
    steps = curve.lr.size if planned is None else planned
    fault = _fault(curve)
    return {
        name: _asked(rule, curve, steps) if fault is None else Suggestion(None, None, fault)
        for name, rule in RULES.items()
    }


def propose(curve: Curve, suggestions: Mapping[str, Suggestion]) -> Proposal:
    """Choose one rate: the median, in the logarithm, of the suggestions that agree.

    Those are the largest set of rules whose rates lie within a factor of `AGREEMENT` of each
    other, and of two such sets the lower one; there must be `QUORUM` of them. Five of the rules
    look for the steepest fall in one way or another, so they mostly agree on that. If the loss
    falls by less than `LEAST_FALL` of itself, nothing is proposed, because then every rule reads
    noise.
    """
    fault = _fault(curve) or _flat(curve)
    if fault is not None:
        return Proposal(None, (), fault)
    told = {name: each.lr for name, each in suggestions.items() if each.lr is not None}
    agreeing = _agreeing(told)
    if len(agreeing) < QUORUM:
        rates = ", ".join(f"{name} {lr:.3g}" for name, lr in told.items())
        advice = "look at the curve, or repeat the test with more steps"
        reason = f"no {QUORUM} rules agree ({rates}): {advice}{_ending(curve)}"
        return Proposal(None, (), reason)
    names = ", ".join(agreeing)
    reason = f"the median of the {len(agreeing)} rules that agree: {names}"
    others = [f"{name} {lr:.3g}" for name, lr in told.items() if name not in agreeing]
    if others:
        reason += f"; left out as too far off: {', '.join(others)}"
    return Proposal(_middle(list(agreeing.values())), tuple(agreeing), reason + _ending(curve))


def _agreeing(told: Mapping[str, float]) -> dict[str, float]:
    """Return the largest set of rates within a factor of `AGREEMENT`, in the order of `told`."""
    sets = [
        {name: lr for name, lr in told.items() if lowest <= lr <= AGREEMENT * lowest}
        for lowest in sorted(told.values())
    ]
    return max(sets, key=len, default={})


def _middle(rates: list[float]) -> float:
    """Return the geometric median; one of the rates themselves if their number is odd."""
    ordered = sorted(rates)
    low, high = ordered[(len(rates) - 1) // 2], ordered[len(rates) // 2]
    return low if low == high else exp((log(low) + log(high)) / 2)


def _fault(curve: Curve) -> str | None:
    """Say why a curve is no range test; None if it is one."""
    if curve.lr.size == 0:
        return "there are no measurements yet"
    if not np.isfinite(curve.lr).all() or (curve.lr <= 0).any():
        return "a range test needs learning rates above 0 at every step"
    if (np.diff(curve.lr) < 0).any():
        return "the learning rate falls on the way, so this is no range test: sweep upwards"
    if curve.lr.size > 1 and curve.lr[0] == curve.lr[-1]:
        return "the learning rate does not rise, so this is no range test: sweep upwards"
    return None


def _flat(curve: Curve) -> str | None:
    """Say that the loss does not fall; None if it does."""
    usable = curve.part(0, curve.loss.size)
    if usable.loss.size == 0:
        return "the first loss is not finite: lower start_lr, or see whether the model trains"
    begin = float(usable.loss[: usable.bottom + 1].max())
    fall = begin - float(usable.loss[usable.bottom])
    if fall > LEAST_FALL * abs(begin):
        return None
    advice = "lower start_lr, raise end_lr, or take more steps"
    return f"the loss does not fall, from {begin:.4g} by {fall:.2g} at most: {advice}"


def _ending(curve: Curve) -> str:
    """Warn of a sweep that ended too early to show where the loss rises."""
    if curve.bottom < curve.lr.size - 1 or not _usable(curve.loss).all():
        return ""
    return (
        f". The loss was still falling at the last rate, {curve.lr[-1]:.3g}:"
        " a higher end_lr may find more"
    )


def _usable(losses: Values) -> npt.NDArray[np.bool_]:
    return np.abs(losses) < HUGE


Rule = Callable[[Curve, int], Suggestion]
"""Reads a rate off a curve, given the number of planned steps, or raises `CannotTellError`."""


def _asked(rule: Rule, curve: Curve, planned: int) -> Suggestion:
    try:
        return rule(curve, planned)
    except CannotTellError as reason:
        return Suggestion(None, None, str(reason))


def _steepest(curve: Curve, planned: int) -> Suggestion:
    usable = curve.part(0, curve.loss.size)
    first = planned // SKIPPED
    _need(usable.loss.size - first, 3)
    # On a staircase that holds each rate for some steps, the last point shows the effect of a rate.
    last_of_level = np.flatnonzero(np.append(np.diff(usable.lr) > 0, True))
    points = last_of_level[(last_of_level >= first) & (last_of_level <= usable.bottom)]
    if points.size < 3:
        raise CannotTellError("the loss is lowest where the test begins: lower start_lr")
    slopes = np.gradient(usable.loss[points], np.log(usable.lr[points]))
    steepest = int(np.argmin(slopes))
    if slopes[steepest] >= 0:
        raise CannotTellError("the loss falls nowhere")
    reason = f"the loss falls fastest here, by {-slopes[steepest]:.3g} for each e-fold of the rate"
    return _at(usable, int(points[steepest]), reason)


def _valley(curve: Curve, planned: int) -> Suggestion:
    begin, part = _trimmed(curve, planned)
    end, length = _longest_fall(part.loss)
    index = end - length + length // 3 + length // 6
    if length < 3 or index < 0:
        raise CannotTellError("the loss falls nowhere for three steps")
    return _at(part, index, f"inside the longest valley, {length} falling losses", begin)


def _slide(curve: Curve, planned: int) -> Suggestion:
    begin, part = _trimmed(curve, planned)
    size = part.loss.size
    _need(size, SLIDE_WIDTH + 1)
    slopes = np.gradient(part.loss)
    left, index = size - 1 - SLIDE_WIDTH, size - 1 - SLIDE_WIDTH
    while left >= 0 and abs(slopes[left + SLIDE_WIDTH] - slopes[left]) > SLIDE_THRESHOLD:
        index = left
        left -= 1
    if left < 0:
        raise CannotTellError(
            f"no two slopes {SLIDE_WIDTH} steps apart agree to {SLIDE_THRESHOLD}: the loss is too"
            " large or too noisy for this rule"
        )
    reason = f"left of here slopes {SLIDE_WIDTH} steps apart agree to {SLIDE_THRESHOLD}"
    return _at(part, index, reason, begin)


def _minimum(curve: Curve, planned: int) -> Suggestion:
    begin, part = _trimmed(curve, planned)
    _need(part.loss.size, 1)
    lowest = part.bottom
    if lowest == 0:
        raise CannotTellError("the loss is lowest where the test begins: lower start_lr")
    rate = float(part.lr[lowest])
    reason = f"a tenth of {rate:.3g}, where the loss is lowest"
    return Suggestion(rate / 10, begin + lowest, reason)


def _fastai(curve: Curve, planned: int) -> Suggestion:
    begin, part = _trimmed(curve, planned)
    _need(part.loss.size, 2)
    _need_a_rise(part.lr)
    slopes = np.diff(part.loss) / np.diff(np.log(part.lr))
    return _at(part, int(np.argmin(slopes)), "fastai's steep: the steepest forward slope", begin)


def _torch_lr_finder(curve: Curve, _planned: int) -> Suggestion:
    part = curve.part(10, -5)
    _need(part.loss.size, 2)
    lowest = int(np.argmin(np.gradient(part.loss)))
    return _at(part, lowest, "the steepest fall from one step to the next but one", 10)


def _ignite(curve: Curve, _planned: int) -> Suggestion:
    usable = curve.part(0, curve.loss.size)
    _need(usable.loss.size, 3)
    falling = usable.loss[: usable.bottom + 1]
    if falling.size < 3:
        raise CannotTellError("the loss is lowest where the test begins: lower start_lr")
    index = int(np.argmin(0.5 * (falling[2:] - falling[:-2]))) + 1
    return _at(usable, index, "the steepest fall from step to step, before the lowest loss")


def _lightning(curve: Curve, _planned: int) -> Suggestion:
    inner = np.arange(curve.loss.size)[10:-1]
    kept = inner[_usable(curve.loss[inner])]
    _need(kept.size, 2)
    _need_a_rise(curve.lr[kept])
    slopes = np.gradient(curve.loss[kept], curve.lr[kept])
    index = int(kept[int(np.argmin(slopes))])
    return _at(curve, index, "the steepest slope over the rate itself, which favours small rates")


RULES: Mapping[str, Rule] = {
    "steepest": _steepest,
    "valley": _valley,
    "slide": _slide,
    "minimum": _minimum,
    "fastai": _fastai,
    "torch_lr_finder": _torch_lr_finder,
    "ignite": _ignite,
    "lightning": _lightning,
}


def _at(part: Curve, index: int, reason: str, begin: int = 0) -> Suggestion:
    return Suggestion(float(part.lr[index]), begin + index, reason)


def _trimmed(curve: Curve, planned: int) -> tuple[int, Curve]:
    """Return the part of a curve that fastai uses, and where it begins."""
    begin = planned // SKIPPED
    return begin, curve.part(begin, -5)


def _need(points: int, least: int) -> None:
    if points < least:
        raise CannotTellError(
            f"{max(points, 0)} finite losses are left of the sweep after trimming, and the rule"
            f" needs {least}: take more steps"
        )


def _need_a_rise(lr: Values) -> None:
    if (np.diff(lr) <= 0).any():
        raise CannotTellError("the rate stays the same from step to step, and this rule divides")


def _longest_fall(losses: Values) -> tuple[int, int]:
    """Return where the longest strictly falling subsequence ends first, and its number of points.

    `tails[k]` is the highest loss at which a subsequence of k + 1 points can end so far, negated so
    that the list is sorted: n log n instead of n squared.
    """
    tails: list[float] = []
    longest, end = 0, 0
    for index, loss in enumerate(losses.tolist()):
        place = bisect_left(tails, -loss)
        tails[place : place + 1] = [-loss]
        if place + 1 > longest:
            longest, end = place + 1, index
    return end, longest
