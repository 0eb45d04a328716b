"""What counts as an improvement of a metric: one rule, in each rounding that libraries use."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from pydantic_core import PydanticCustomError

Mode = Literal["min", "max"]

ThresholdMode = Literal["rel", "abs", "rel_and_abs", "signed_rel", "abs_on_value", "rel_subtracted"]


@dataclass(frozen=True, slots=True)
class Improvement:
    """Tells whether a value is better than the best so far, by more than a threshold.

    ================  =============================================  ==========================
    threshold_mode    better with mode="min" (th is `threshold`)     the rule of
    ================  =============================================  ==========================
    rel               value < best * (1 - th)                        torch
    abs               value < best - th                              torch
    rel_and_abs       value < best * (1 - th) - threshold_abs        optax
    signed_rel        value < best - th * |best|                     none of them
    abs_on_value      value + th < best                              keras, fastai
    rel_subtracted    value < best - best * th                       paddle
    ================  =============================================  ==========================

    With `mode="max"` each sign and each comparison is reversed. `abs_on_value` means the same as
    `abs`, and `rel_subtracted` the same as `rel`, except for the last bit: an accuracy that rises
    by exactly the threshold is an improvement in one arithmetic and not in the other.

    Where the best value is below zero, `rel`, `rel_and_abs` and `rel_subtracted` ask for less than
    the best itself and take worse values for better ones. `signed_rel` asks for a fraction of the
    best value's size, whatever its sign. A best value of 0 makes every relative threshold 0.

    NaN is never better. Neither is an infinite value, unless `finite_only` is off: then one `-inf`
    (`inf` with `max`) is the best for ever.

    Attributes:
        mode: Whether lower or higher values are better.
        threshold: How much better: a ratio, or in the metric's unit with the modes `abs…`.
        threshold_mode: Which of the rules above.
        threshold_abs: What `rel_and_abs` asks for besides the ratio, in the metric's unit.
        finite_only: Whether infinite values are never better.
    """

    mode: Mode = "min"
    threshold: float = 1e-4
    threshold_mode: ThresholdMode = "rel"
    threshold_abs: float = 0.0
    finite_only: bool = True

    @property
    def needs_positive(self) -> bool:
        """Whether the rule takes worse values of a metric below zero for better ones."""
        relative = self.threshold_mode in ("rel", "rel_and_abs", "rel_subtracted")
        return relative and self.threshold > 0

    @property
    def worst(self) -> float:
        """The stand-in for the best value before there is one: any finite value is better."""
        return -inf if self.mode == "max" else inf

    def is_better(self, value: float, best: float) -> bool:
        """Compare a value, which may be NaN or infinite, with the best so far."""
        if self.finite_only and not isfinite(value):
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        if best == self.worst:
            return sign * value > sign * best
        shifted = value - sign * self.threshold if self.threshold_mode == "abs_on_value" else value
        return sign * shifted > sign * self._limit(best, sign)

    def _limit(self, best: float, sign: float) -> float:
        """Return the bound that a value must pass, in the library's own order of operations."""
        threshold = self.threshold
        match self.threshold_mode:
            case "rel":
                return best * (1.0 + sign * threshold)
            case "abs":
                return best + sign * threshold
            case "rel_and_abs":
                return (1.0 + sign * threshold) * best + sign * self.threshold_abs
            case "signed_rel":
                return best + sign * (threshold * abs(best))
            case "rel_subtracted":
                return best + sign * (best * threshold)
            case "abs_on_value":
                return best


def refuse_impossible(improvement: Improvement) -> None:
    """Refuse a threshold that no metric above zero can pass.

    Raises:
        PydanticCustomError: A relative threshold of 1 or more, with lower values better.
    """
    relative = not improvement.threshold_mode.startswith("abs")
    if relative and improvement.mode == "min" and improvement.threshold >= 1:
        raise PydanticCustomError(
            "threshold_too_large",
            "A relative threshold of 1 or more asks for a metric below zero;"
            ' give a ratio such as 1e-4, or threshold_mode "abs"',
        )
