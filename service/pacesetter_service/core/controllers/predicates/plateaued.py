"""The predicate that a metric has stopped improving."""

from typing import Any, ClassVar, Literal

from pacesetter_service.core.controllers.improvement import Improvement
from pacesetter_service.core.controllers.predicates.base import (
    Judgement,
    Predicate,
    PredicateState,
)
from pacesetter_service.core.model import NonNegative, Step


class Best(PredicateState):
    """The best value so far, and how many measurements since did not improve on it."""

    kind: Literal["best"] = "best"
    best: float
    bad: Step = 0


class Plateaued(Predicate):
    """Holds when more than `patience` measurements in a row have not improved on the best one.

    To improve is to be better than the best by more than `threshold * |best|`, or by more than
    `threshold` itself with `threshold_mode="abs"`: so of metrics below zero too, better is asked
    for. NaN and infinities are no improvement.
    """

    example: ClassVar[dict[str, Any]] = {"patience": 5}

    kind: Literal["plateaued"] = "plateaued"
    mode: Literal["min", "max"] = "min"
    patience: Step = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"

    @property
    def _rule(self) -> Improvement:
        mode: Literal["abs", "signed_rel"] = "abs" if self.threshold_mode == "abs" else "signed_rel"
        return Improvement(self.mode, self.threshold, mode)

    def init(self) -> Best:  # noqa: D102
        return Best(best=self._rule.worst)

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        assert isinstance(state, Best)  # noqa: S101 - each predicate gets its own state back
        if self._rule.is_better(value, state.best):
            return Judgement(Best(best=value), holds=False)
        bad = state.bad + 1
        return Judgement(
            Best(best=state.best, bad=bad),
            bad > self.patience,
            f"it has not improved on {state.best!r} in {bad} measurements (now {value!r}; patience"
            f" {self.patience})",
        )
