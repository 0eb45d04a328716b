"""Preset of keras: the callback ReduceLROnPlateau."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import ControllerState
from pacesetter_service.core.controllers.improvement import Mode
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.controllers.presets.monitored import Monitored
from pacesetter_service.core.metrics import MetricName
from pacesetter_service.core.model import NonNegative, Real, Step

HIGHER_IS_BETTER = {
    "acc",
    "accuracy",
    "auc",
    "binary_accuracy",
    "binary_io_u",
    "categorical_accuracy",
    "concordance_correlation",
    "cosine_similarity",
    "f1_score",
    "fbeta_score",
    "io_u",
    "mean_io_u",
    "one_hot_io_u",
    "one_hot_mean_io_u",
    "pearson_correlation",
    "precision",
    "precision_at_recall",
    "r2_score",
    "recall",
    "recall_at_precision",
    "sensitivity_at_specificity",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "specificity_at_sensitivity",
    "top_k_categorical_accuracy",
}
"""Names of keras's own metrics that it maximizes."""

LOWER_IS_BETTER = {
    "binary_crossentropy",
    "categorical_crossentropy",
    "categorical_hinge",
    "hinge",
    "logcosh",
    "loss",
    "mae",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "mse",
    "root_mean_squared_error",
    "sparse_categorical_crossentropy",
    "squared_hinge",
}
"""Names of those that it minimizes."""


class ReduceLROnPlateau(Monitored):
    """The `plateau` of keras: it cuts when the patience is reached, by an absolute threshold.

    The metric may be written as `monitor`; it is `val_loss` unless given. `mode="auto"` knows which
    way keras's own metrics get better, by their names, and asks about others. `verbose` is accepted
    and means nothing: the log of events has every cut.

    A patience of 2 cuts at the second bad measurement in a row (torch: at the third). The last
    measurement of a `cooldown` counts already, so 2 leave out one, and 1 is as good as 0. A
    measurement improves if `value + min_delta < best` (min) or `value - min_delta > best` (max).
    Keras compares in its backend's precision, which is float32 but for NumPy's; this compares in
    float64.

    Not as in keras:

    - Its first metric is the best even if it is NaN, and then nothing is ever better. Here NaN
      never is; and a first infinity in the wrong direction counts as a bad measurement.
    - It forgets the best and the counts at each `fit()`. Here a session remembers them.
    - It is refused together with a LearningRateSchedule. Here the schedule goes on beneath it.

    An infinity in the right direction becomes the best and is never beaten, as in keras.
    """

    State: ClassVar[type[ControllerState]] = PlateauState
    formula: ClassVar[str] = "level = max(level * factor, min_lr) once bad >= patience"
    source: ClassVar[str] = "keras.callbacks.ReduceLROnPlateau"
    example: ClassVar[dict[str, Any]] = {"monitor": "val_loss", "factor": 0.2, "patience": 5}

    kind: Literal["keras.ReduceLROnPlateau"] = "keras.ReduceLROnPlateau"
    metric: MetricName = "val_loss"
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    patience: Step = 10
    verbose: Step = 0
    mode: Literal["auto", "min", "max"] = "auto"
    min_delta: Real = 1e-4
    cooldown: Step = 0
    min_lr: NonNegative = 0.0

    @model_validator(mode="after")
    def _a_direction_is_known(self) -> Self:
        if self._direction() is None:
            raise PydanticCustomError(
                "direction_unknown",
                "Nobody knows whether {metric} gets better as it falls or as it rises: give mode"
                ' "min" or "max"',
                {"metric": self.metric},
            )
        return self

    def _direction(self) -> Mode | None:
        if self.mode != "auto":
            return self.mode
        name = self.metric.removeprefix("val_")
        if name in LOWER_IS_BETTER:
            return "min"
        return "max" if name in HIGHER_IS_BETTER else None

    def expand(self) -> Plateau:  # noqa: D102
        return Plateau(
            **self.common,
            mode=self._direction() or "min",
            factor=self.factor,
            patience=self.patience,
            when="reached",
            threshold=abs(self.min_delta),
            threshold_mode="abs_on_value",
            finite_only=False,
            cooldown=max(self.cooldown - 1, 0),
            min_lr=self.min_lr,
            eps=0.0,
        )
