"""Predicates: questions about a metric, by whose answers `switch` goes on."""

from pacesetter_service.core.controllers.predicates import (
    bounds,
    combined,
    moments,
    plateaued,
    slope,
    spike,
)
from pacesetter_service.core.controllers.predicates.base import (
    AnyPredicate,
    AnyPredicateState,
    Judgement,
    Predicate,
    PredicateState,
)

__all__ = [
    "AnyPredicate",
    "AnyPredicateState",
    "Judgement",
    "Predicate",
    "PredicateState",
    "bounds",
    "combined",
    "moments",
    "plateaued",
    "slope",
    "spike",
]
