"""Preset of paddle: ReduceOnPlateau."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pacesetter_service.core.controllers.base import ControllerState, NamedController
from pacesetter_service.core.controllers.improvement import (
    Improvement,
    Mode,
    ThresholdMode,
    refuse_impossible,
)
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.model import Flag, NonNegative, Real, Step


class ReduceOnPlateau(NamedController):
    """The `plateau` of paddle: as torch's, but during a cooldown no metric is looked at.

    So a best value that is reached then is missed, and the next measurements are compared with an
    older one. The relative threshold is computed as `best - best * threshold`, the last bit of
    which is not always torch's. `learning_rate` is the session's `base_lr`; `verbose` is accepted
    and means nothing: the log of events has every cut.

    paddle's first metric is the best whatever it is: after a NaN, or an infinity in the wrong
    direction with `rel`, nothing is ever better. Here neither becomes the best, and each counts as
    a bad measurement. With `rel` worse values of a metric below zero count as better, and an
    infinity in the right direction is the best for ever, as in paddle.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level * factor, min_lr) once bad > patience"
    source: ClassVar[str] = "paddle.optimizer.lr.ReduceOnPlateau"
    example: ClassVar[dict[str, Any]] = {"metric": "loss", "factor": 0.5, "patience": 5}

    kind: Literal["paddle.ReduceOnPlateau"] = "paddle.ReduceOnPlateau"
    mode: Mode = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Step = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Step = 0
    min_lr: NonNegative = 0.0
    epsilon: NonNegative = 1e-8
    verbose: Flag = False

    @model_validator(mode="after")
    def _a_threshold_can_be_passed(self) -> Self:
        refuse_impossible(Improvement(self.mode, self.threshold, self._by()))
        return self

    def _by(self) -> ThresholdMode:
        return "rel_subtracted" if self.threshold_mode == "rel" else "abs"

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            mode=self.mode,
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            threshold_mode=self._by(),
            finite_only=False,
            cooldown=self.cooldown,
            cooldown_ignores="all",
            min_lr=self.min_lr,
            eps=self.epsilon,
        )
