"""Predicates that compare a metric with a number."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from pacesetter_service.core.controllers.predicates.base import (
    Judgement,
    Predicate,
    PredicateState,
)
from pacesetter_service.core.model import Count, Real, Step


class Run(PredicateState):
    """How many of the newest measurements in a row were beyond the bound."""

    kind: Literal["run"] = "run"
    length: Step = 0


class _Beyond(Predicate):
    """Holds when the newest `in_a_row` measurements are beyond `value`; NaN never is."""

    value: Real
    in_a_row: Count = 1

    def init(self) -> Run:
        return Run()

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: ARG002
        assert isinstance(state, Run)  # noqa: S101 - each predicate gets its own state back
        length = state.length + 1 if self._is_beyond(value) else 0
        side = type(self).model_fields["kind"].default
        return Judgement(
            Run(length=length),
            length >= self.in_a_row,
            f"it was {side} {self.value!r} {length} times in a row (now {value!r}; asked for"
            f" {self.in_a_row})",
        )

    @abstractmethod
    def _is_beyond(self, value: float) -> bool:
        """Compare one measurement with the bound."""


class Below(_Beyond):
    """Holds when the newest `in_a_row` measurements are below `value`, which itself is not.

    NaN is not below anything; minus infinity is.
    """

    example: ClassVar[dict[str, Any]] = {"value": 0.1, "in_a_row": 3}

    kind: Literal["below"] = "below"

    def _is_beyond(self, value: float) -> bool:
        return value < self.value


class Above(_Beyond):
    """Holds when the newest `in_a_row` measurements are above `value`, which itself is not.

    NaN is not above anything; infinity is.
    """

    example: ClassVar[dict[str, Any]] = {"value": 0.9}

    kind: Literal["above"] = "above"

    def _is_beyond(self, value: float) -> bool:
        return value > self.value
