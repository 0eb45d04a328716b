"""Preset of fastai: the callback ReduceLROnPlateau."""

from typing import Any, ClassVar, Literal

from pacesetter_service.core.controllers.base import ControllerState
from pacesetter_service.core.controllers.improvement import Mode
from pacesetter_service.core.controllers.plateau import Multiple, Plateau, PlateauState
from pacesetter_service.core.controllers.presets.monitored import Monitored
from pacesetter_service.core.metrics import MetricName
from pacesetter_service.core.model import Flag, NonNegative, Step


class ReduceLROnPlateau(Monitored):
    """The `plateau` of fastai: it divides by `factor` when the patience is reached, and that is 1.

    The metric may be written as `monitor`; it is `valid_loss` unless given. `comp` is "less" or
    "greater", for NumPy's functions; without it a metric with "loss" or "error" in its name gets
    better as it falls, and any other as it rises: an "mse" too, as in fastai. A measurement
    improves if `value + min_delta < best` (less) or `value - min_delta > best` (greater).

    A session is one fit: `reset_on_fit` is accepted and means nothing. fastai raises a rate that
    lies below `min_lr` to it at the next cut; here no cut raises a rate. An infinity in the right
    direction becomes the best and is never beaten, as in fastai.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level / factor, min_lr) once bad >= patience"
    source: ClassVar[str] = "fastai.callback.tracker.ReduceLROnPlateau"
    example: ClassVar[dict[str, Any]] = {"monitor": "valid_loss", "factor": 5.0, "patience": 2}

    kind: Literal["fastai.ReduceLROnPlateau"] = "fastai.ReduceLROnPlateau"
    metric: MetricName = "valid_loss"
    comp: Literal["less", "greater"] | None = None
    min_delta: NonNegative = 0.0
    patience: Step = 1
    factor: Multiple = 10.0
    min_lr: NonNegative = 0.0
    reset_on_fit: Flag = True

    def _direction(self) -> Mode:
        if self.comp is not None:
            return "min" if self.comp == "less" else "max"
        return "min" if "loss" in self.metric or "error" in self.metric else "max"

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            mode=self._direction(),
            divisor=self.factor,
            patience=self.patience,
            when="reached",
            threshold=self.min_delta,
            threshold_mode="abs_on_value",
            finite_only=False,
            min_lr=self.min_lr,
            eps=0.0,
        )
