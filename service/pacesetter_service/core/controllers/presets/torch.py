"""Preset of torch: ReduceLROnPlateau, to the bit."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pacesetter_service.core.controllers.base import ControllerState, NamedController
from pacesetter_service.core.controllers.improvement import Improvement, Mode, refuse_impossible
from pacesetter_service.core.controllers.plateau import Floor, Plateau, PlateauState
from pacesetter_service.core.model import NonNegative, Real, Step


class ReduceLROnPlateau(NamedController):
    """The `plateau` of torch: its decisions to the bit, for every metric.

    Over a constant schedule the rates are torch's own. Over any other the level is multiplied, so a
    warmup or a cosine goes on beneath it, which torch's scheduler can not do. Where torch takes a
    list of floors, `min_lr` is an object with one for each group by its name.

    What torch does and `plateau` need not:

    - With `rel` a metric below zero that gets worse counts as better, so nothing is ever cut: give
      "abs" here, or use `plateau` with "signed_rel".
    - One `-inf` (`inf` with mode "max") is the best for ever: `plateau` never takes one for a best.
    - `patience` and `cooldown` are exceeded and not reached: a patience of 2 cuts at the third bad
      measurement in a row.
    - At the floor, and when a cut would be of at most `eps`, nothing is said and nothing happens.
    - A relative threshold of 1 or more with mode "min", which no metric above zero can pass, is
      refused here.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level * factor, min_lr) once bad > patience"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    example: ClassVar[dict[str, Any]] = {"metric": "val_loss", "factor": 0.5, "patience": 3}

    kind: Literal["torch.ReduceLROnPlateau"] = "torch.ReduceLROnPlateau"
    mode: Mode = "min"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Step = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Step = 0
    min_lr: Floor = 0.0
    eps: NonNegative = 1e-8

    @model_validator(mode="after")
    def _a_threshold_can_be_passed(self) -> Self:
        refuse_impossible(Improvement(self.mode, self.threshold, self.threshold_mode))
        return self

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            mode=self.mode,
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            threshold_mode=self.threshold_mode,
            finite_only=False,
            cooldown=self.cooldown,
            min_lr=self.min_lr,
            eps=self.eps,
        )
