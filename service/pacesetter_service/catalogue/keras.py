"""Presets of keras, by its own names, parameters and defaults.

Their values are absolute, as in keras: the base is not used. keras computes in float32 and these
presets in float64, so the two agree to within a millionth. The `name` of a keras config is left
out.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.catalogue.monitored import Monitored
from pacesetter_service.core.controllers.base import ControllerState
from pacesetter_service.core.controllers.improvement import Mode
from pacesetter_service.core.controllers.plateau import Plateau, PlateauState
from pacesetter_service.core.lengths import Duration, Length, StepPoint, steps_of
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import Flag, NonNegative, Positive, Real, Step
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Prolong, Repeat, Sequence
from pacesetter_service.core.schedules.combinators import Product, Sum
from pacesetter_service.core.schedules.eases import Cosine, Poly
from pacesetter_service.core.schedules.primitives import Exponential, Hold, InverseTime, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, PiecewiseConstant, ascending

REDIRECTS: dict[str, str] = {
    "keras.ReduceLROnPlateau": (
        "ReduceLROnPlateau follows a metric and not the steps: put the controller"
        " `keras.ReduceLROnPlateau`, or our `plateau`, among the session's `controllers`, beside"
        " any schedule"
    ),
    "keras.LearningRateScheduler": (
        "LearningRateScheduler's law is a Python function, which is no data: write the law as an"
        " `expression`, or its values as a `table`"
    ),
}
"""Callbacks that are not schedules here, with what to do instead."""


class ExponentialDecay(Named):
    """Multiply the initial rate by `decay_rate` every `decay_steps`, smoothly or in stairs."""

    formula: ClassVar[str] = (
        "initial_learning_rate * decay_rate ** (t / decay_steps), the exponent floored with"
        " staircase"
    )
    source: ClassVar[str] = "keras.optimizers.schedules.ExponentialDecay"
    example: ClassVar[dict[str, Any]] = {
        "initial_learning_rate": 0.1,
        "decay_steps": 1000,
        "decay_rate": 0.96,
    }

    kind: Literal["keras.ExponentialDecay"] = "keras.ExponentialDecay"
    initial_learning_rate: NonNegative
    decay_steps: Length
    decay_rate: NonNegative
    staircase: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        factor = Exponential(gamma=self.decay_rate, per=self.decay_steps, staircase=self.staircase)
        return Product(schedule=Hold(value=self.initial_learning_rate), factors=(factor,))


class PiecewiseConstantDecay(Named):
    """A rate for each piece between ascending boundaries; a boundary belongs to the piece before.

    As in keras, a rate changes one step after its boundary: torch and optax change it there. The
    rates are called `values` in keras, which may be written too; here they are `levels`. No
    boundaries at all, on which keras raises, are one rate for ever.
    """

    formula: ClassVar[str] = "levels[number of boundaries < t]"
    source: ClassVar[str] = "keras.optimizers.schedules.PiecewiseConstantDecay"
    example: ClassVar[dict[str, Any]] = {
        "boundaries": [1000, 1500],
        "values": [0.1, 0.05, 0.01],
    }

    kind: Literal["keras.PiecewiseConstantDecay"] = "keras.PiecewiseConstantDecay"
    boundaries: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    levels: Annotated[tuple[NonNegative, ...], Field(min_length=1, max_length=MAX_PIECES + 1)]

    @model_validator(mode="before")
    @classmethod
    def _by_the_name_of_keras(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        # A field of that name would hide the method that every schedule has.
        if isinstance(data, dict) and "values" in data and "levels" not in data:
            return {"levels" if name == "values" else name: data[name] for name in data}
        return data

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, boundaries: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
        return ascending(boundaries)

    @model_validator(mode="after")
    def _one_level_a_piece(self) -> Self:
        if len(self.levels) != len(self.boundaries) + 1:
            raise PydanticCustomError(
                "wrong_number_of_levels",
                "{boundaries} boundaries make {pieces} pieces, but there are {levels} values;"
                " give one value for each piece",
                {
                    "boundaries": len(self.boundaries),
                    "pieces": len(self.boundaries) + 1,
                    "levels": len(self.levels),
                },
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        return PiecewiseConstant(
            boundaries=self.boundaries, levels=self.levels, boundary="previous"
        )


class PolynomialDecay(Named):
    """A power of the remaining time, from the initial rate to `end_learning_rate`.

    As in keras, the end is 0.0001 unless given. With `cycle` the horizon moves out by `decay_steps`
    whenever it is passed: the rate comes to its end at each multiple and jumps up after it, less
    high each time.
    """

    formula: ClassVar[str] = (
        "end_learning_rate + (initial_learning_rate - end_learning_rate) * (1 - t / n) ** power,"
        " n = decay_steps, or with cycle decay_steps * max(ceil(t / decay_steps), 1)"
    )
    source: ClassVar[str] = "keras.optimizers.schedules.PolynomialDecay"
    example: ClassVar[dict[str, Any]] = {
        "initial_learning_rate": 0.1,
        "decay_steps": 1000,
        "end_learning_rate": 0.01,
        "power": 0.5,
    }

    kind: Literal["keras.PolynomialDecay"] = "keras.PolynomialDecay"
    initial_learning_rate: NonNegative
    decay_steps: Length
    end_learning_rate: NonNegative = 0.0001
    power: Positive = 1.0
    cycle: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        steps = 1.0 if self.cycle else steps_of(self.decay_steps)
        decay = Ramp(
            start=self.initial_learning_rate,
            end=self.end_learning_rate,
            steps=steps,
            ease=Poly(power=self.power),
        )
        return Prolong(schedule=decay, period=self.decay_steps) if self.cycle else decay


class InverseTimeDecay(Named):
    """Divide the initial rate by a growing number, smoothly or in stairs."""

    formula: ClassVar[str] = (
        "initial_learning_rate / (1 + decay_rate * t / decay_steps), t / decay_steps floored with"
        " staircase"
    )
    source: ClassVar[str] = "keras.optimizers.schedules.InverseTimeDecay"
    example: ClassVar[dict[str, Any]] = {
        "initial_learning_rate": 0.1,
        "decay_steps": 1000,
        "decay_rate": 0.5,
    }

    kind: Literal["keras.InverseTimeDecay"] = "keras.InverseTimeDecay"
    initial_learning_rate: NonNegative
    decay_steps: Length
    decay_rate: NonNegative
    staircase: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        factor = InverseTime(rate=self.decay_rate, per=self.decay_steps, staircase=self.staircase)
        return Product(schedule=Hold(value=self.initial_learning_rate), factors=(factor,))


class CosineDecay(Named):
    """Half a cosine wave down to a part `alpha` of where it starts, after an optional warmup.

    With a `warmup_target` the rate first goes there in a straight line. As in keras, `decay_steps`
    does not count the warmup, and without `warmup_steps` the decay starts at the target. A warmup
    without a target, which keras leaves out without a word, is refused.
    """

    formula: ClassVar[str] = (
        "initial_learning_rate + (warmup_target - initial_learning_rate) * t / warmup_steps for"
        " t < warmup_steps, then start * (alpha + (1 - alpha) * (1 + cos(pi * u)) / 2) with"
        " u = min((t - warmup_steps) / decay_steps, 1)"
    )
    source: ClassVar[str] = "keras.optimizers.schedules.CosineDecay; arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {
        "initial_learning_rate": 0.0,
        "decay_steps": 1000,
        "warmup_target": 0.1,
        "warmup_steps": 100,
    }

    kind: Literal["keras.CosineDecay"] = "keras.CosineDecay"
    initial_learning_rate: NonNegative
    decay_steps: Length
    alpha: NonNegative = 0.0
    warmup_target: NonNegative | None = None
    warmup_steps: StepPoint = 0

    @model_validator(mode="after")
    def _some_target(self) -> Self:
        if self.warmup_steps != 0 and self.warmup_target is None:
            raise PydanticCustomError(
                "no_target", "A warmup needs a warmup_target; give one, or leave warmup_steps out"
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        initial, target = self.initial_learning_rate, self.warmup_target
        start = initial if target is None else target
        decay = Ramp(start=start, end=start * self.alpha, steps=self.decay_steps, ease=Cosine())
        if self.warmup_steps == 0:
            return decay
        rise = Ramp(start=initial, end=start, steps=steps_of(self.warmup_steps))
        parts = (Part(schedule=rise, steps=steps_of(self.warmup_steps)), Part(schedule=decay))
        return Sequence(parts=parts)


class CosineDecayRestarts(Named):
    """Half a cosine wave down to a part `alpha` of the initial rate, again and again.

    Cycle `i` is `first_decay_steps * t_mul ** i` long and, above the floor, `m_mul ** i` high: as
    in keras, the floor does not shrink. keras finds the cycle with a float32 logarithm, which is
    off at some restarts, with a `t_mul` of 7 at most of them, and makes their step with the end of
    the cycle before; this does not.
    """

    formula: ClassVar[str] = (
        "initial_learning_rate * (alpha + (1 - alpha) * m_mul ** i * (1 + cos(pi * u)) / 2),"
        " u the part of cycle i that has passed"
    )
    source: ClassVar[str] = "keras.optimizers.schedules.CosineDecayRestarts; arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {
        "initial_learning_rate": 0.1,
        "first_decay_steps": 1000,
        "m_mul": 0.8,
    }

    kind: Literal["keras.CosineDecayRestarts"] = "keras.CosineDecayRestarts"
    initial_learning_rate: NonNegative
    first_decay_steps: Length
    t_mul: Annotated[Real, Field(ge=1)] = 2.0
    m_mul: Positive = 1.0
    alpha: Annotated[NonNegative, Field(le=1)] = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        floor = self.initial_learning_rate * self.alpha
        waves = Repeat(
            schedule=Ramp(end=0.0, steps=self.first_decay_steps, ease=Cosine()),
            period=self.first_decay_steps,
            growth=self.t_mul,
            peak_decay=self.m_mul,
        )
        height = Hold(value=self.initial_learning_rate * (1.0 - self.alpha))
        return Sum(of=(Hold(value=floor), Product(schedule=height, factors=(waves,))))


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
"""The names of keras's own metrics that it maximizes."""

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
"""The names of keras's own metrics that it minimizes."""


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
                "It is not known whether {metric} gets better as it falls or as it rises: give mode"
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
