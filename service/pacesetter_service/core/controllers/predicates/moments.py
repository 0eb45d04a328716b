"""Predicates that look at no value: a step that comes, a person who decides."""

from typing import Any, ClassVar, Literal

from pacesetter_service.core.controllers.predicates.base import (
    Judgement,
    Predicate,
    PredicateState,
)
from pacesetter_service.core.lengths import StepPoint, whole


class NoMemory(PredicateState):
    """The state of a predicate that needs none."""

    kind: Literal["none"] = "none"


class AtStep(Predicate):
    """Holds from the first measurement at step `at` or later on.

    It is for combinations with what metrics say. Where the step alone decides, `sequence` changes
    the law at exactly that step, and without any measurement.
    """

    example: ClassVar[dict[str, Any]] = {"at": {"epochs": 30}}

    kind: Literal["step"] = "step"
    at: StepPoint

    def init(self) -> NoMemory:  # noqa: D102
        return NoMemory()

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        return Judgement(state, step >= whole(self.at), f"step {step} is at or after {self.at!r}")


class ByHand(Predicate):
    """Never holds: an operator decides."""

    example: ClassVar[dict[str, Any]] = {}

    kind: Literal["by_hand"] = "by_hand"

    def init(self) -> NoMemory:  # noqa: D102
        return NoMemory()

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        return Judgement(state, holds=False)
