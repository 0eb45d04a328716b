"""Smoothing: what controllers see of a metric instead of its last value.

A value that is not finite passes through unchanged and leaves the memory as it was: one NaN must
not spoil the averages that follow it.
"""

from abc import abstractmethod
from math import isfinite
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pacesetter_service.core.model import AnyOf, Count, Flag, Fraction, Model, Tagged

Window = Annotated[Count, Field(le=10_000)]


class SmootherState(Model):
    """The memory of a smoother: the newest values, or an average and the weight in it."""

    values: tuple[float, ...] = ()
    average: float = 0.0
    weight: float = 0.0


class Smoothed(NamedTuple):
    """The next state, and what controllers see now; None if there is nothing to see yet."""

    state: SmootherState
    value: float | None


class Smoother(Tagged, family="smoothing"):
    """A rule that turns each value of a metric into what controllers see."""

    def smooth(self, state: SmootherState, value: float) -> Smoothed:
        """Take one value, in the order of the steps."""
        return self._smooth(state, value) if isfinite(value) else Smoothed(state, value)

    @abstractmethod
    def _smooth(self, state: SmootherState, value: float) -> Smoothed:
        """Take one finite value."""


AnySmoother = Annotated[Smoother, AnyOf(Smoother)]


class Ema(Smoother):
    """An exponential moving average: `beta * average + (1 - beta) * value`.

    With `debias` it is divided by `1 - beta ** n`, so that the first value counts in full (Adam's
    correction; fastai and Lightning smooth losses like this). Without, it starts from the first
    value.
    """

    kind: Literal["ema"] = "ema"
    beta: Annotated[Fraction, Field(lt=1)] = Field(
        default=0.9, description="the weight of the past, from 0 to below 1"
    )
    debias: Flag = Field(default=True, description="whether the first values count in full")

    def _smooth(self, state: SmootherState, value: float) -> Smoothed:
        if not self.debias:
            average = value if state.weight == 0.0 else self._mix(state.average, value)
            return Smoothed(SmootherState(average=average, weight=1.0), average)
        average = self._mix(state.average, value)
        weight = self._mix(state.weight, 1.0)
        return Smoothed(SmootherState(average=average, weight=weight), average / weight)

    def _mix(self, old: float, new: float) -> float:
        return self.beta * old + (1.0 - self.beta) * new


class _OfWindow(Smoother):
    """A smoother of the newest `window` values; of fewer while there are fewer."""

    window: Window = Field(description="how many of the newest values are looked at")

    def _smooth(self, state: SmootherState, value: float) -> Smoothed:
        values = (*state.values, value)[-self.window :]
        return Smoothed(SmootherState(values=values), self._of(values))

    @staticmethod
    @abstractmethod
    def _of(values: tuple[float, ...]) -> float:
        """Reduce several values to one."""


class Mean(_OfWindow):
    """The mean of the newest `window` values."""

    kind: Literal["mean"] = "mean"

    @staticmethod
    def _of(values: tuple[float, ...]) -> float:
        return mean(values)


class Median(_OfWindow):
    """The median of the newest `window` values."""

    kind: Literal["median"] = "median"

    @staticmethod
    def _of(values: tuple[float, ...]) -> float:
        return median(values)


class Every(Smoother):
    """The mean of each `count` values; between them controllers see nothing.

    The `accumulation_size` of optax's reduce_on_plateau.
    """

    kind: Literal["every"] = "every"
    count: Window = Field(description="of how many values each is the mean")

    def _smooth(self, state: SmootherState, value: float) -> Smoothed:
        values = (*state.values, value)
        if len(values) < self.count:
            return Smoothed(SmootherState(values=values), None)
        return Smoothed(SmootherState(), mean(values))


def mean(values: tuple[float, ...]) -> float:
    """Average from left to right; one value is itself, to the bit."""
    return total(values) / len(values) if len(values) > 1 else values[0]


def total(values: tuple[float, ...]) -> float:
    """Add from left to right: Python's own `sum` rounds differently from one version to another."""
    result = values[0]
    for value in values[1:]:
        result += value
    return result


def median(values: tuple[float, ...]) -> float:
    """Return the middle value, or the mean of the two in the middle; none may be NaN."""
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    return mean((ordered[middle - 1], ordered[middle]))
