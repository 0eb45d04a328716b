"""Preset of optax: contrib.reduce_on_plateau."""

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    ControllerState,
    NamedController,
    Observation,
    Seen,
)
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.model import Count, Fraction, NonNegative, Real, Step


class ReduceOnPlateauState(ControllerState):
    """The plateau's state, and the values since it was last shown one.

    Attributes:
        plateau: What the rule remembers.
        count: How many values there have been.
        average: Their running average; 0 if there have been none.
    """

    plateau: PlateauState
    count: int = 0
    average: float = 0.0


class ReduceOnPlateau(NamedController):
    """The `plateau` of optax: of averages, with a relative and an absolute threshold at once.

    Each `accumulation_size` values make one average, and that is what is compared: it improves if
    `average < (1 - rtol) * best - atol`. Lower is better; report `-accuracy` to maximize it, with
    an `atol` and `rtol=0`, because the relative part takes worse values below zero for better ones.
    A patience of 2 cuts at the second bad average in a row (torch: at the third); during a cooldown
    bad ones are ignored and the best is kept up to date.

    optax scales the updates, and `min_scale` is the floor of that scale. Here the level is
    multiplied, `min_scale` is a ratio of the base, and the trainer's rate is what optax's updates
    amount to with plain SGD. It computes in float32 and this in float64.

    One NaN spoils the average that it falls into and no other. An average of `-inf` becomes the
    best and is never beaten, as in optax. Not as in optax, what makes no sense is refused: a
    patience of 0, which there cuts at each improvement; an `rtol` of 1, with which nothing ever
    improves; a `min_scale` above 1, which raises the rate.
    """

    State: ClassVar[type[ControllerState]] = ReduceOnPlateauState
    formula: ClassVar[str] = (
        "level = max(level * factor, min_scale * base) once bad = patience, of the means of"
        " accumulation_size values"
    )
    source: ClassVar[str] = "optax.contrib.reduce_on_plateau"
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "patience": 5, "accumulation_size": 200}

    kind: Literal["optax.reduce_on_plateau"] = "optax.reduce_on_plateau"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Count = 10
    rtol: Annotated[Fraction, Field(lt=1)] = 1e-4
    atol: NonNegative = 0.0
    cooldown: Step = 0
    accumulation_size: Count = 1
    min_scale: Fraction = 0.0

    @model_validator(mode="after")
    def _a_tolerance(self) -> Self:
        if self.rtol == 0.0 and self.atol == 0.0:
            raise PydanticCustomError(
                "no_tolerance", "Give an `rtol` or an `atol` above 0, as optax asks"
            )
        return self

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            factor=self.factor,
            patience=self.patience,
            when="reached",
            threshold=self.rtol,
            threshold_mode="rel_and_abs",
            threshold_abs=self.atol,
            finite_only=False,
            cooldown=self.cooldown,
            min_ratio=self.min_scale,
            eps=0.0,
        )

    @cached_property
    def _rule(self) -> Plateau:
        return self.expand()

    def init(self) -> ReduceOnPlateauState:  # noqa: D102
        return ReduceOnPlateauState(plateau=self._rule.init())

    def observe(self, state: ControllerState, seen: Seen) -> Observation:  # noqa: D102
        assert isinstance(state, ReduceOnPlateauState)  # noqa: S101 - it gets its own state back
        count = state.count + 1
        average = (state.count * state.average + seen.value) / count
        if count < self.accumulation_size:
            return Observation(state.model_copy(update={"count": count, "average": average}))
        of_average = self._rule.observe(state.plateau, replace(seen, value=average))
        assert isinstance(of_average.state, PlateauState)  # noqa: S101 - as above
        return Observation(ReduceOnPlateauState(plateau=of_average.state), of_average.verdict)
