"""Predicates made of predicates."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.predicates.base import (
    AnyPredicate,
    AnyPredicateState,
    Judgement,
    Predicate,
    PredicateState,
)


class Parts(PredicateState):
    """The state of each part."""

    kind: Literal["parts"] = "parts"
    states: tuple[AnyPredicateState, ...]


class _Combined(Predicate):
    """Shows every measurement to every part."""

    of: Annotated[tuple[AnyPredicate, ...], Field(max_length=16)]

    @model_validator(mode="after")
    def _some_part(self) -> Self:
        if not self.of:
            raise PydanticCustomError("no_predicate", "Name a predicate in `of`")
        return self

    def init(self) -> Parts:
        return Parts(states=tuple(part.init() for part in self.of))

    def _judge(
        self, state: PredicateState, step: int, value: float
    ) -> tuple[Parts, tuple[Judgement, ...]]:
        assert isinstance(state, Parts)  # noqa: S101 - each predicate gets its own state back
        judgements = tuple(
            part.observe(each, step, value)
            for part, each in zip(self.of, state.states, strict=True)
        )
        return Parts(states=tuple(each.state for each in judgements)), judgements


class AnyOfThem(_Combined):
    """Holds when one of the predicates `of` holds."""

    example: ClassVar[dict[str, Any]] = {"of": [{"kind": "plateaued"}, {"kind": "by_hand"}]}

    kind: Literal["any_of"] = "any_of"

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: D102
        state, judgements = self._judge(state, step, value)
        holding = [each for each in judgements if each.holds]
        return Judgement(state, bool(holding), " and ".join(each.why for each in holding))


class AllOfThem(_Combined):
    """Holds when all of the predicates `of` hold at the same measurement.

    `spike` holds for one measurement only, `plateaued` and `slope` for as long as nothing gets
    better, `step` from then on.
    """

    example: ClassVar[dict[str, Any]] = {
        "of": [{"kind": "plateaued"}, {"kind": "below", "value": 0.5}]
    }

    kind: Literal["all_of"] = "all_of"

    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:  # noqa: D102
        state, judgements = self._judge(state, step, value)
        return Judgement(
            state,
            all(each.holds for each in judgements),
            " and ".join(each.why for each in judgements),
        )
