"""Presets of fastai, by its own names, parameters and defaults.

fastai's schedules are functions of the position in a training. Here the position is a fraction of
`total_steps`: the session's, unless a schedule has one of its own. Lengths that fastai counts in
epochs (`n_epoch`, `cycle_len`, `epochs`) need the session's `steps_per_epoch`. Or give the same
length in steps, under the name beside it, which takes precedence. A learning rate may be `"base"`,
which is fastai's `None`.

fastai computes in float32 where a piece of a schedule ends, and may enter the next one a step late:
`fit_sgdr(3, 1)` trains the first step of its last cycle at 8e-15. Here no rounding moves a start.
"""

from abc import abstractmethod
from itertools import accumulate
from math import isclose
from typing import Annotated, Any, ClassVar, Literal, Self, TypeGuard

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.catalogue.monitored import Monitored
from pacesetter_service.core.controllers.base import ControllerState
from pacesetter_service.core.controllers.improvement import Mode
from pacesetter_service.core.controllers.plateau import Multiple, Plateau, PlateauState
from pacesetter_service.core.lengths import Duration, StepCount, StepPoint, whole
from pacesetter_service.core.measuring import MetricName
from pacesetter_service.core.model import (
    Count,
    Flag,
    Fraction,
    Level,
    NonNegative,
    OneOf,
    Positive,
    Step,
)
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Repeat, Sequence, Span
from pacesetter_service.core.schedules.combinators import Channels, Rebase, Relative
from pacesetter_service.core.schedules.eases import Ease, Geometric, Haversine, Linear, Warped
from pacesetter_service.core.schedules.named.cycles import Divisor, Rate, divided
from pacesetter_service.core.schedules.primitives import Hold, Ramp

RateAboveZero = Annotated[
    Literal["base"] | Positive,
    OneOf('Write a learning rate above 0, or "base" for the base value'),
]

Moms = tuple[Fraction, Fraction, Fraction]
"""Momenta at the start of a cycle, at its peak and at its end."""

THE_SESSION = Duration(fraction=1.0)


class Annealer(Named):
    """A law of fastai over the position in the training."""

    total_steps: StepCount = THE_SESSION

    @abstractmethod
    def over(self, steps: float) -> Schedule:
        """Return the law over a number of steps, whole or not."""

    def expand(self) -> Schedule:  # noqa: D102
        return self.over(whole(self.total_steps))


def _way(start: Level, end: Level, steps: float, ease: Ease) -> Schedule:
    """Return the way between two values in fastai's arithmetic, which uses the position."""
    return Span(schedule=Ramp(start=start, end=end, steps=1, ease=ease), ratio=steps)


class SchedLin(Annealer):
    """From `start` to `end` in a straight line."""

    formula: ClassVar[str] = "start + t / total_steps * (end - start)"
    source: ClassVar[str] = "fastai.callback.schedule.SchedLin"
    example: ClassVar[dict[str, Any]] = {"start": 0.1, "end": 0.001, "total_steps": 1000}

    kind: Literal["fastai.SchedLin"] = "fastai.SchedLin"
    start: Rate
    end: Rate

    def over(self, steps: float) -> Schedule:  # noqa: D102
        return _way(self.start, self.end, steps, Linear())


class SchedCos(Annealer):
    """From `start` to `end` in half a cosine wave."""

    formula: ClassVar[str] = "start + (1 + cos(pi * (1 - t / total_steps))) * (end - start) / 2"
    source: ClassVar[str] = "fastai.callback.schedule.SchedCos"
    example: ClassVar[dict[str, Any]] = {"start": 0.1, "end": 0.001, "total_steps": 1000}

    kind: Literal["fastai.SchedCos"] = "fastai.SchedCos"
    start: Rate
    end: Rate

    def over(self, steps: float) -> Schedule:  # noqa: D102
        return _way(self.start, self.end, steps, Haversine())


class SchedNo(Annealer):
    """`start` for ever. As in fastai, `end` has to be there and says nothing."""

    formula: ClassVar[str] = "start"
    source: ClassVar[str] = "fastai.callback.schedule.SchedNo"
    example: ClassVar[dict[str, Any]] = {"start": 0.1, "end": 0.1, "total_steps": 1000}

    kind: Literal["fastai.SchedNo"] = "fastai.SchedNo"
    start: Rate
    end: Rate

    def over(self, steps: float) -> Schedule:  # noqa: ARG002, D102
        return Hold(value=self.start)


class SchedExp(Annealer):
    """From `start` to `end` by a constant factor at each step; both are above 0."""

    formula: ClassVar[str] = "start * (end / start) ** (t / total_steps)"
    source: ClassVar[str] = "fastai.callback.schedule.SchedExp"
    example: ClassVar[dict[str, Any]] = {"start": 0.1, "end": 0.001, "total_steps": 1000}

    kind: Literal["fastai.SchedExp"] = "fastai.SchedExp"
    start: RateAboveZero
    end: RateAboveZero

    def over(self, steps: float) -> Schedule:  # noqa: D102
        return _way(self.start, self.end, steps, Geometric())


class SchedPoly(Annealer):
    """From `start` to `end` by a power of the time that has passed."""

    formula: ClassVar[str] = "start + (end - start) * (t / total_steps) ** power"
    source: ClassVar[str] = "fastai.callback.schedule.SchedPoly"
    example: ClassVar[dict[str, Any]] = {
        "start": 0.1,
        "end": 0.001,
        "power": 2.0,
        "total_steps": 1000,
    }

    kind: Literal["fastai.SchedPoly"] = "fastai.SchedPoly"
    start: Rate
    end: Rate
    power: Positive

    def over(self, steps: float) -> Schedule:  # noqa: D102
        return _way(self.start, self.end, steps, Warped(ease=Linear(), power=self.power))


class CombineScheds(Annealer):
    """Schedules of fastai one after the other, each over its share of the training.

    The shares add up to 1; one of 0 leaves its schedule out. Those that are combined need no
    `total_steps` of their own. fastai refuses shares whose sum differs from 1 by a rounding, such
    as 0.1, 0.2 and 0.7; this does not.
    """

    formula: ClassVar[str] = "scheds[i] over its share pcts[i] of total_steps"
    source: ClassVar[str] = "fastai.callback.schedule.combine_scheds"
    example: ClassVar[dict[str, Any]] = {
        "pcts": [0.3, 0.7],
        "scheds": [
            {"kind": "fastai.SchedLin", "start": 0.01, "end": 0.1},
            {"kind": "fastai.SchedCos", "start": 0.1, "end": 0.0},
        ],
        "total_steps": 1000,
    }

    kind: Literal["fastai.combine_scheds"] = "fastai.combine_scheds"
    pcts: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=256)]
    scheds: Annotated[tuple[AnySchedule, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="before")
    @classmethod
    def _one_length_for_all(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        """Add the length of the whole to combined schedules, so that they are complete."""
        if not isinstance(data, dict) or not isinstance(data.get("scheds"), list | tuple):
            return data
        length = {"total_steps": data.get("total_steps", THE_SESSION)}
        scheds = [length | each if _is_annealer(each) else each for each in data["scheds"]]
        return data | {"scheds": scheds}

    @field_validator("scheds")
    @classmethod
    def _of_position(cls, scheds: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        if not all(isinstance(each, Annealer) for each in scheds):
            raise PydanticCustomError(
                "not_of_position",
                "Only schedules over the position can be combined: fastai.Sched* and"
                " fastai.combine*; join others with `sequence`",
            )
        return scheds

    @model_validator(mode="after")
    def _shares_of_the_whole(self) -> Self:
        if len(self.pcts) != len(self.scheds):
            raise PydanticCustomError(
                "wrong_number_of_shares", "Give one share in `pcts` for each of the `scheds`"
            )
        if not isclose(sum(self.pcts), 1.0, rel_tol=1e-9):
            raise PydanticCustomError(
                "not_the_whole",
                "The `pcts` add up to {sum}; make them add up to 1",
                {"sum": f"{sum(self.pcts):g}"},
            )
        return self

    def over(self, steps: float) -> Schedule:  # noqa: D102
        # Rounded, because a sum of shares may lie a rounding error past the intended step.
        edges = [0.0, *(round(steps * share, 6) for share in accumulate(self.pcts))]
        parts = [
            Part(schedule=law.over(end - start), until=end)
            for law, start, end in zip(self.scheds, edges, edges[1:], strict=False)
            if isinstance(law, Annealer) and end > start
        ]
        return Sequence(parts=tuple(parts))


def _is_annealer(sched: object) -> TypeGuard[dict[str, Any]]:
    kind = sched.get("kind") if isinstance(sched, dict) else None
    return isinstance(kind, str) and issubclass(Schedule.kinds.get(kind, Schedule), Annealer)


class CombinedCos(Annealer):
    """From `start` to `middle` and on to `end` in half cosine waves; the first takes `pct`."""

    formula: ClassVar[str] = (
        "SchedCos(start, middle) over pct of total_steps, SchedCos(middle, end)"
    )
    source: ClassVar[str] = "fastai.callback.schedule.combined_cos"
    example: ClassVar[dict[str, Any]] = {
        "pct": 0.25,
        "start": 0.004,
        "middle": 0.1,
        "end": 1e-6,
        "total_steps": 1000,
    }

    kind: Literal["fastai.combined_cos"] = "fastai.combined_cos"
    pct: Fraction
    start: Rate
    middle: Rate
    end: Rate

    def over(self, steps: float) -> Schedule:  # noqa: D102
        waves = (
            SchedCos(start=self.start, end=self.middle),
            SchedCos(start=self.middle, end=self.end),
        )
        return CombineScheds(pcts=(self.pct, 1 - self.pct), scheds=waves).over(steps)


class InEpochs(Named):
    """A schedule whose lengths fastai counts in epochs; each has a name in steps beside it."""

    in_epochs: ClassVar[dict[str, str]] = {"n_epoch": "total_steps"}

    @model_validator(mode="before")
    @classmethod
    def _epochs_as_lengths(cls, data: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if not isinstance(data, dict):
            return data
        lengths = {
            steps: {"epochs": data[epochs]}
            for epochs, steps in cls.in_epochs.items()
            if data.get(epochs) is not None and steps not in data
        }
        return data | lengths


def _cycle(
    peak: Rate,
    share: float,
    div: Divisor,
    div_final: Divisor,
    steps: float,
    moms: Moms | None = None,
) -> Schedule:
    """Return cosine waves from `peak / div` to `peak` to `peak / div_final`, with momentum."""
    top = 1.0 if peak == "base" else peak
    start, end = divided(top, div), divided(top, div_final)
    rate = CombinedCos(pct=share, start=start, middle=top, end=end).over(steps)
    lr = Relative(schedule=rate) if peak == "base" else rate
    if moms is None:
        return lr
    start, middle, end = moms
    momentum = CombinedCos(pct=share, start=start, middle=middle, end=end).over(steps)
    return Channels(laws={"lr": lr, "momentum": momentum})


class FitOneCycle(InEpochs):
    """Up to `lr_max` and down to almost nothing in cosine waves; momentum goes the other way.

    As in fastai it drives momentum, unless `moms` is null, and the end of the second wave is one
    step past the last.
    """

    formula: ClassVar[str] = (
        "combined_cos(pct_start, lr_max / div, lr_max, lr_max / div_final);"
        " momentum combined_cos(pct_start, *moms)"
    )
    source: ClassVar[str] = "fastai Learner.fit_one_cycle; Smith and Topin 2017, arXiv:1708.07120"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "lr_max": 0.01}

    kind: Literal["fastai.fit_one_cycle"] = "fastai.fit_one_cycle"
    n_epoch: Positive | None = None
    total_steps: StepCount = THE_SESSION
    lr_max: Rate = "base"
    div: Divisor = 25.0
    div_final: Divisor = 1e5
    pct_start: Fraction = 0.25
    moms: Moms | None = (0.95, 0.85, 0.95)

    def expand(self) -> Schedule:  # noqa: D102
        steps = whole(self.total_steps)
        return _cycle(self.lr_max, self.pct_start, self.div, self.div_final, steps, self.moms)


class FitFlatCos(InEpochs):
    """`lr` for the most part of the training, then half a cosine wave to almost nothing.

    As in fastai it leaves momentum alone. fastai ignores the `start_epoch` that it takes; this does
    not take one.
    """

    formula: ClassVar[str] = "combined_cos(pct_start, lr, lr, lr / div_final)"
    source: ClassVar[str] = "fastai Learner.fit_flat_cos"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "lr": 0.01}

    kind: Literal["fastai.fit_flat_cos"] = "fastai.fit_flat_cos"
    n_epoch: Positive | None = None
    total_steps: StepCount = THE_SESSION
    lr: Rate = "base"
    div_final: Divisor = 1e5
    pct_start: Fraction = 0.75

    def expand(self) -> Schedule:  # noqa: D102
        return _cycle(self.lr, self.pct_start, 1.0, self.div_final, whole(self.total_steps))


class FitSgdr(InEpochs):
    """`n_cycles` half cosine waves from `lr_max` to 0, each `cycle_mult` times as long as the last.

    With a `cycle_mult` of 1 fastai divides by zero; here the cycles are equally long.
    """

    formula: ClassVar[str] = (
        "SchedCos(lr_max, 0) over cycle i, which is cycle_steps * cycle_mult ** i long"
    )
    source: ClassVar[str] = "fastai Learner.fit_sgdr; Loshchilov and Hutter 2016, arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {"n_cycles": 3, "cycle_steps": 100, "lr_max": 0.01}

    kind: Literal["fastai.fit_sgdr"] = "fastai.fit_sgdr"
    in_epochs: ClassVar[dict[str, str]] = {"cycle_len": "cycle_steps"}
    n_cycles: Count
    cycle_len: Positive | None = None
    cycle_steps: StepCount
    lr_max: Rate = "base"
    cycle_mult: Count = 2

    def expand(self) -> Schedule:  # noqa: D102
        wave = Ramp(start=self.lr_max, end=0.0, steps=self.cycle_steps, ease=Haversine())
        return Repeat(
            schedule=wave, period=self.cycle_steps, growth=self.cycle_mult, limit=self.n_cycles
        )


class FineTune(InEpochs):
    """A cycle with the body of the model frozen, then one at half the rate with all of it trained.

    As in fastai the groups of parameters get rates of their own: `position` says which group this
    is, from 0, the first one, to 1, the last one, which is the head. In the second cycle they are
    spread evenly in their logarithm from `base_lr / 2 / lr_mult` to `base_lr / 2`. Between the
    cycles fastai clears the optimizer's state; that is left to the trainer.
    """

    formula: ClassVar[str] = (
        "fit_one_cycle(base_lr, pct_start=0.99) over freeze_steps, then over steps"
        " fit_one_cycle(base_lr / 2 * lr_mult ** (position - 1), div, pct_start)"
    )
    source: ClassVar[str] = "fastai Learner.fine_tune; Howard and Ruder 2018, arXiv:1801.06146"
    example: ClassVar[dict[str, Any]] = {"steps": 1000, "freeze_steps": 200, "base_lr": 0.002}

    kind: Literal["fastai.fine_tune"] = "fastai.fine_tune"
    in_epochs: ClassVar[dict[str, str]] = {"epochs": "steps", "freeze_epochs": "freeze_steps"}
    epochs: Positive | None = None
    steps: StepCount
    base_lr: Rate = 2e-3
    freeze_epochs: NonNegative | None = None
    freeze_steps: StepPoint = Duration(epochs=1.0)
    lr_mult: Positive = 100.0
    pct_start: Fraction = 0.3
    div: Divisor = 5.0
    div_final: Divisor = 1e5
    moms: Moms | None = (0.95, 0.85, 0.95)
    position: Fraction = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        frozen, trained = whole(self.freeze_steps), whole(self.steps)
        spread = self.lr_mult ** (self.position - 1.0)
        second = self._cycle(0.5 * spread, self.pct_start, self.div, trained)
        if frozen == 0:
            return second
        # fastai gives all groups but the last a tenth, although they are frozen.
        first = self._cycle(1.0 if self.position == 1.0 else 0.1, 0.99, 25.0, frozen)
        return Sequence(parts=(Part(schedule=first, steps=frozen), Part(schedule=second)))

    def _cycle(self, share: float, pct: float, div: Divisor, steps: int) -> Schedule:
        if self.base_lr == "base":
            cycle = _cycle("base", pct, div, self.div_final, steps, self.moms)
            return Rebase(schedule=cycle, by=share)
        return _cycle(self.base_lr * share, pct, div, self.div_final, steps, self.moms)


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
