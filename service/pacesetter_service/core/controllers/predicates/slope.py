"""The predicate that a metric no longer moves, by a regression."""

from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.controllers.predicates.base import (
    Judgement,
    Predicate,
    PredicateState,
)
from pacesetter_service.core.model import Count, Real
from pacesetter_service.core.packed import Packed
from pacesetter_service.core.statistics import trend


class Newest(PredicateState):
    """The newest finite values."""

    kind: Literal["newest"] = "newest"
    values: Packed = ()


class Slope(Predicate):
    """Holds when a one-sided t-test can not tell that the newest `window` measurements fall.

    It is asked once there are so many. "Can not tell" is a p-value of `significance` or more for
    "the slope is not below 0"; with `mode="max"` the metric is to rise. NaN and infinities are left
    out. The more noise, the larger the window that is needed to see a slow fall.
    """

    example: ClassVar[dict[str, Any]] = {"window": 100}

    kind: Literal["slope"] = "slope"
    mode: Literal["min", "max"] = "min"
    window: Annotated[Count, Field(ge=3, le=1024)] = 100
    significance: Annotated[Real, Field(gt=0, lt=1)] = 0.05

    def init(self) -> Newest:  # noqa: D102
        return Newest()

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        assert isinstance(state, Newest)  # noqa: S101 - each predicate gets its own state back
        if not isfinite(value):
            return Judgement(state, holds=False)
        values = (*state.values, value)[-self.window :]
        if len(values) < self.window:
            return Judgement(Newest(values=values), holds=False)
        line = trend(values)
        p = line.p_falling if self.mode == "min" else line.p_rising
        moves = "falls" if self.mode == "min" else "rises"
        return Judgement(
            Newest(values=values),
            p >= self.significance,
            f"no test tells that it {moves}: slope {line.slope:.3g} over {self.window}"
            f" measurements, p-value {p:.3g} (significance {self.significance!r})",
        )
