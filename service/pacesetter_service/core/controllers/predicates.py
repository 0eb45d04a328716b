"""Predicates: questions about a metric, whose answers make `switch` go on to its next stage.

A predicate is a small controller that orders nothing. `init` returns the first state; `observe`
takes a measurement and says whether the predicate holds now, and why.
"""

from abc import abstractmethod
from collections.abc import Iterator
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.improvement import Improvement
from pacesetter_service.core.lengths import StepPoint, whole
from pacesetter_service.core.model import AnyOf, Count, NonNegative, Positive, Real, Step, Tagged
from pacesetter_service.core.packed import Packed
from pacesetter_service.core.statistics import Spread, spread, trend


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
        """Return the state before the first measurement."""

    @abstractmethod
    def observe(self, state: Any, step: int, value: float) -> Judgement:  # noqa: ANN401 - its own
        """Take what was measured at a step, which may be NaN or infinite."""


AnyPredicate = Annotated[Predicate, AnyOf(Predicate)]


class Run(PredicateState):
    """How many of the newest measurements in a row were beyond the bound."""

    kind: Literal["run"] = "run"
    length: Step = 0


class _Beyond(Predicate):
    """Holds when the newest `in_a_row` measurements are beyond `value`; NaN never is."""

    value: Real = Field(description="what the metric is compared with")
    in_a_row: Count = Field(
        default=1, description="how many measurements in a row have to be beyond it"
    )

    def init(self) -> Run:
        return Run()

    def observe(self, state: Run, step: int, value: float) -> Judgement:  # noqa: ARG002
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


class Parts(PredicateState):
    """The state of each part."""

    kind: Literal["parts"] = "parts"
    states: tuple[AnyPredicateState, ...]


class _Combined(Predicate):
    """Passes every measurement to every part."""

    of: Annotated[tuple[AnyPredicate, ...], Field(max_length=16)] = Field(
        description="the predicates that are combined"
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if not self.of:
            yield PydanticCustomError("no_predicate", "Name a predicate in `of`")

    def init(self) -> Parts:
        return Parts(states=tuple(part.init() for part in self.of))

    def _judge(self, state: Parts, step: int, value: float) -> tuple[Parts, tuple[Judgement, ...]]:
        judgements = tuple(
            part.observe(each, step, value)
            for part, each in zip(self.of, state.states, strict=True)
        )
        return Parts(states=tuple(each.state for each in judgements)), judgements


class AnyOfThem(_Combined):
    """Holds when one of the predicates `of` holds."""

    example: ClassVar[dict[str, Any]] = {"of": [{"kind": "plateaued"}, {"kind": "by_hand"}]}

    kind: Literal["any_of"] = "any_of"

    def observe(self, state: Parts, step: int, value: float) -> Judgement:  # noqa: D102
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

    def observe(self, state: Parts, step: int, value: float) -> Judgement:  # noqa: D102
        state, judgements = self._judge(state, step, value)
        return Judgement(
            state,
            all(each.holds for each in judgements),
            " and ".join(each.why for each in judgements),
        )


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
    at: StepPoint = Field(description="the step from which on it holds")

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
    mode: Literal["min", "max"] = Field(
        default="min", description="whether lower (`min`) or higher (`max`) values are better"
    )
    patience: Step = Field(
        default=10, description="for how many measurements without an improvement it waits"
    )
    threshold: NonNegative = Field(
        default=1e-4, description="how much better a value has to be to count as an improvement"
    )
    threshold_mode: Literal["rel", "abs"] = Field(
        default="rel",
        description="whether the threshold is relative to the best value or absolute",
    )

    @property
    def _rule(self) -> Improvement:
        mode: Literal["abs", "signed_rel"] = "abs" if self.threshold_mode == "abs" else "signed_rel"
        return Improvement(self.mode, self.threshold, mode)

    def init(self) -> Best:  # noqa: D102
        return Best(best=self._rule.worst)

    def observe(self, state: Best, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
        if self._rule.is_better(value, state.best):
            return Judgement(Best(best=value), holds=False)
        bad = state.bad + 1
        return Judgement(
            Best(best=state.best, bad=bad),
            bad > self.patience,
            f"it has not improved on {state.best!r} in {bad} measurements (now {value!r}; patience"
            f" {self.patience})",
        )


class Newest(PredicateState):
    """The newest finite values."""

    kind: Literal["newest"] = "newest"
    values: Packed = ()


class Slope(Predicate):
    """Holds when a one-sided t-test cannot tell that the newest `window` measurements fall.

    It is asked once there are so many. "Cannot tell" is a p-value of `significance` or more for
    "the slope is not below 0"; with `mode="max"` the metric is to rise. NaN and infinities are left
    out. The more noise, the larger the window that is needed to see a slow fall.
    """

    example: ClassVar[dict[str, Any]] = {"window": 100}

    kind: Literal["slope"] = "slope"
    mode: Literal["min", "max"] = Field(
        default="min", description="whether the metric is to fall (`min`) or to rise (`max`)"
    )
    window: Annotated[Count, Field(ge=3, le=1024)] = Field(
        default=100, description="how many of the newest measurements the line is fitted to"
    )
    significance: Annotated[Real, Field(gt=0, lt=1)] = Field(
        default=0.05, description="the probability of an error that is allowed, between 0 and 1"
    )

    def init(self) -> Newest:  # noqa: D102
        return Newest()

    def observe(self, state: Newest, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
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
    ratio: Annotated[Real, Field(gt=1)] | None = Field(
        default=2.0,
        description="above how many times the median of the window a value is a spike",
    )
    sigma: Positive | None = Field(
        default=None,
        description="above how many standard deviations over the mean of the window a value is a"
        " spike",
    )
    window: Annotated[Count, Field(ge=2, le=1024)] = Field(
        default=10, description="how many of the newest measurements a value is compared with"
    )

    def init(self) -> Newest:  # noqa: D102
        return Newest()

    def observe(self, state: Newest, step: int, value: float) -> Judgement:  # noqa: ARG002, D102
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
