"""Preset of timm: the plateau of its PlateauLRScheduler."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pacesetter_service.core.controllers.base import ControllerState, NamedController
from pacesetter_service.core.controllers.improvement import Improvement, Mode, refuse_impossible
from pacesetter_service.core.controllers.plateau import Floor, Plateau, PlateauState
from pacesetter_service.core.model import NonNegative, Real, Step


class PlateauLRScheduler(NamedController):
    """The rule of torch's ReduceLROnPlateau with timm's names; higher metrics are better.

    It is the plateau alone. For its warmup (`warmup_t`, `warmup_lr_init`) wrap the session's
    schedule in a `warmup` and let `from_step` be where that ends: as in timm, metrics from before
    are not seen. For its noise (`noise_…`) use the schedule `noise`.

    timm saves the best value and not the counts, so that a resumed training waits for its full
    patience again. Here the counts are kept. The traps are those of `torch.ReduceLROnPlateau`.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level * decay_rate, lr_min) once bad > patience_t"
    source: ClassVar[str] = "timm.scheduler.PlateauLRScheduler"
    example: ClassVar[dict[str, Any]] = {"metric": "top1", "patience_t": 3, "lr_min": 1e-5}

    kind: Literal["timm.PlateauLRScheduler"] = "timm.PlateauLRScheduler"
    decay_rate: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience_t: Step = 10
    threshold: NonNegative = 1e-4
    cooldown_t: Step = 0
    lr_min: Floor = 0.0
    mode: Mode = "max"

    @model_validator(mode="after")
    def _a_threshold_can_be_passed(self) -> Self:
        refuse_impossible(Improvement(self.mode, self.threshold))
        return self

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            mode=self.mode,
            factor=self.decay_rate,
            patience=self.patience_t,
            threshold=self.threshold,
            finite_only=False,
            cooldown=self.cooldown_t,
            min_lr=self.lr_min,
        )
