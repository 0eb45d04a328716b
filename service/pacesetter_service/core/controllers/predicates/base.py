"""What a predicate is: a question about a metric, asked again at every measurement.

A predicate is a small controller that orders nothing: `init` gives the first state, `observe` takes
a measurement and says whether the predicate holds now, and why.
"""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, NamedTuple

from pacesetter_service.core.model import AnyOf, Tagged


class PredicateState(Tagged, family="predicate state"):
    """The memory of a predicate between two measurements; its `kind` says how to read it back."""


AnyPredicateState = Annotated[PredicateState, AnyOf(PredicateState)]


class Judgement(NamedTuple):
    """The next state, whether the predicate holds now, and why: a clause with its numbers."""

    state: PredicateState
    holds: bool
    why: str = ""


class Predicate(Tagged, family="predicate"):
    """A question that each measurement answers anew with yes or no."""

    example: ClassVar[dict[str, Any]]
    """Parameters of a typical use."""

    @abstractmethod
    def init(self) -> PredicateState:
        """Give the state before the first measurement."""

    @abstractmethod
    def observe(self, state: PredicateState, step: int, value: float) -> Judgement:
        """Take what was measured at a step, which may be NaN or infinite."""


AnyPredicate = Annotated[Predicate, AnyOf(Predicate)]
