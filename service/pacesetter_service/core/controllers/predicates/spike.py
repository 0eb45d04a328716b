"""The predicate that a metric has jumped."""

from math import isfinite
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.controllers.predicates.base import (
    Judgement,
    Predicate,
    PredicateState,
)
from pacesetter_service.core.controllers.predicates.slope import Newest
from pacesetter_service.core.model import Count, Positive, Real
from pacesetter_service.core.statistics import Spread, spread


class Spike(Predicate):
    """Holds at a measurement that is not finite, or far above the newest `window` before it.

    ======  =====================================================
    rule    a jump is
    ======  =====================================================
    ratio   value - mean > (ratio - 1) * |mean|
    sigma   value - mean > sigma * standard deviation, unless that is 0
    ======  =====================================================

    A rule that is None is not asked; NaN and infinities always hold. For a metric above zero the
    first is `value > ratio * mean`, as in Lightning and llm-foundry; said like this it is right
    below zero too. Near zero every value is far above: take `sigma` there. The rules wait until
    `window` values are there; a spike is not taken among them.
    """

    example: ClassVar[dict[str, Any]] = {"ratio": None, "sigma": 6.0, "window": 128}

    kind: Literal["spike"] = "spike"
    ratio: Annotated[Real, Field(gt=1)] | None = 2.0
    sigma: Positive | None = None
    window: Annotated[Count, Field(ge=2, le=1024)] = 10

    def init(self) -> Newest:  # noqa: D102
        return Newest()

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        assert isinstance(state, Newest)  # noqa: S101 - each predicate gets its own state back
        if not isfinite(value):
            return Judgement(state, holds=True, why=f"it is {value!r}")
        if len(state.values) == self.window:
            before = spread(state.values)
            if self._is_above(value, before):
                return Judgement(state, holds=True, why=self._why(value, before))
        return Judgement(Newest(values=(*state.values, value)[-self.window :]), holds=False)

    def _is_above(self, value: float, before: Spread) -> bool:
        rise = value - before.mean
        by_ratio = self.ratio is not None and rise > (self.ratio - 1.0) * abs(before.mean)
        by_sigma = self.sigma is not None and rise > self.sigma * before.deviation > 0.0
        return by_ratio or by_sigma

    def _why(self, value: float, before: Spread) -> str:
        return (
            f"it jumped to {value!r} from a mean of {before.mean:.6g} and a deviation of"
            f" {before.deviation:.3g} over {self.window} measurements (ratio {self.ratio!r}, sigma"
            f" {self.sigma!r})"
        )
