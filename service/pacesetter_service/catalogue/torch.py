"""Presets of torch, by its own names, parameters and defaults.

The bits are those of torch's closed forms. Where torch multiplies the rate of the previous step,
its values drift from them in the last places, and depend on any other code that has changed that
rate. `last_epoch` is no parameter here: a session has a `start_step`. Nor is a list with a value
for each group: a session's groups have their own bases and schedules.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import ControllerState, NamedController
from pacesetter_service.core.controllers.improvement import Improvement, Mode, refuse_impossible
from pacesetter_service.core.controllers.plateau import (
    Floor,
    Plateau,
    PlateauStart,
    PlateauState,
)
from pacesetter_service.core.lengths import (
    Duration,
    Length,
    StepCount,
    StepPoint,
    known,
    whole,
)
from pacesetter_service.core.model import (
    MAX_STEP,
    Count,
    Flag,
    Fraction,
    NonNegative,
    Positive,
    Real,
    Step,
)
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Repeat, Sequence
from pacesetter_service.core.schedules.combinators import Product, Relative, Several
from pacesetter_service.core.schedules.eases import Cosine, Ease, Linear
from pacesetter_service.core.schedules.named.cycles import Cyclic, Divisor, OneCycle, Rate
from pacesetter_service.core.schedules.named.decays import (
    Constant,
    MultiStep,
    Polynomial,
    StepDecay,
)
from pacesetter_service.core.schedules.named.decays import Linear as LinearFactors
from pacesetter_service.core.schedules.primitives import Exponential, Hold, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, ascending

REDIRECTS: dict[str, str] = {
    "torch.LambdaLR": (
        "LambdaLR's law is a Python function, which is no data: write the law as an `expression`,"
        " or its values as a `table` inside `relative`"
    ),
    "torch.MultiplicativeLR": (
        "MultiplicativeLR's law is a Python function, which is no data: write its running product"
        " as an `expression`, or as a `table` inside `relative`; a constant factor is"
        " `torch.ExponentialLR`"
    ),
    "torch.ReduceLROnPlateau": (
        "ReduceLROnPlateau follows a metric and not the steps: put the controller"
        " `torch.ReduceLROnPlateau`, or our `plateau`, among the session's `controllers`, beside"
        " any schedule"
    ),
}
"""Schedulers of torch that are not schedules here, with what to do instead."""


class StepLR(Named):
    """Multiply the base by `gamma` every `step_size` steps."""

    formula: ClassVar[str] = "base * gamma ** floor(t / step_size)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.StepLR"
    example: ClassVar[dict[str, Any]] = {"step_size": 30, "gamma": 0.1}

    kind: Literal["torch.StepLR"] = "torch.StepLR"
    step_size: StepCount
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        return StepDecay(step_size=self.step_size, gamma=self.gamma)


class MultiStepLR(Named):
    """Multiply the base by `gamma` at each milestone; one named twice counts twice."""

    formula: ClassVar[str] = "base * gamma ** (number of milestones <= t)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.MultiStepLR"
    example: ClassVar[dict[str, Any]] = {"milestones": [30, 80], "gamma": 0.1}

    kind: Literal["torch.MultiStepLR"] = "torch.MultiStepLR"
    milestones: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        return MultiStep(milestones=self.milestones, gamma=self.gamma)


class ConstantLR(Named):
    """The base reduced by a factor until step `total_iters`, then the base.

    With `total_iters=0` it has the factor for ever, as in a training with torch's, which never
    comes to the step that would end it; its closed form says the base. On `factor=0` torch divides
    by zero where it ends.
    """

    formula: ClassVar[str] = "base * (factor if t < total_iters or total_iters = 0 else 1)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ConstantLR"
    example: ClassVar[dict[str, Any]] = {"factor": 0.5, "total_iters": 5}

    kind: Literal["torch.ConstantLR"] = "torch.ConstantLR"
    factor: Fraction = 1.0 / 3
    total_iters: StepPoint = 5

    def expand(self) -> Schedule:  # noqa: D102
        if self.total_iters == 0:
            return Relative(schedule=Hold(value=self.factor))
        return Constant(factor=self.factor, total_iters=self.total_iters)


class LinearLR(Named):
    """From one factor of the base to another in a straight line, then held.

    With `total_iters=0` it stays at `start_factor` for ever, as a training with torch's does; our
    `linear` is at its end then, as a warmup of no steps should be.
    """

    formula: ClassVar[str] = (
        "base * (start_factor + (end_factor - start_factor) * min(t, total_iters) / total_iters)"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.LinearLR"
    example: ClassVar[dict[str, Any]] = {"start_factor": 0.01, "total_iters": 100}

    kind: Literal["torch.LinearLR"] = "torch.LinearLR"
    start_factor: Annotated[Real, Field(gt=0, le=1)] = 1.0 / 3
    end_factor: Fraction = 1.0
    total_iters: StepPoint = 5

    def expand(self) -> Schedule:  # noqa: D102
        if self.total_iters == 0:
            return Relative(schedule=Hold(value=self.start_factor))
        return LinearFactors(
            start_factor=self.start_factor,
            end_factor=self.end_factor,
            total_iters=self.total_iters,
        )


class ExponentialLR(Named):
    """Multiply the base by `gamma` at every step."""

    formula: ClassVar[str] = "base * gamma ** t"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ExponentialLR"
    example: ClassVar[dict[str, Any]] = {"gamma": 0.95}

    kind: Literal["torch.ExponentialLR"] = "torch.ExponentialLR"
    gamma: NonNegative

    def expand(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma)


class PolynomialLR(Named):
    """A power of the remaining time, from the base down to 0, which is then held.

    With `total_iters=0` it is the base for ever, as in a training with torch's.
    """

    formula: ClassVar[str] = "base * (1 - min(t, total_iters) / total_iters) ** power"
    source: ClassVar[str] = "torch.optim.lr_scheduler.PolynomialLR"
    example: ClassVar[dict[str, Any]] = {"total_iters": 1000, "power": 2.0}

    kind: Literal["torch.PolynomialLR"] = "torch.PolynomialLR"
    total_iters: StepPoint = 5
    power: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        if self.total_iters == 0:
            return Hold()
        return Polynomial(total_steps=whole(self.total_iters), power=self.power)


class CosineAnnealingLR(Named):
    """Half a cosine wave from the base down to `eta_min`, and up again, for ever.

    As in torch it rises again after `T_max`; the kind `cosine` holds its last value.
    """

    formula: ClassVar[str] = "eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2"
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.CosineAnnealingLR; Loshchilov and Hutter 2016, arXiv:1608.03983"
    )
    example: ClassVar[dict[str, Any]] = {"T_max": 1000, "eta_min": 1e-6}

    kind: Literal["torch.CosineAnnealingLR"] = "torch.CosineAnnealingLR"
    T_max: StepCount
    eta_min: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(end=self.eta_min, steps=self.T_max, ease=Cosine(), out_of_range="extrapolate")


class CosineAnnealingWarmRestarts(Named):
    """Half a cosine wave from the base down to `eta_min`, again and again; cycles may grow.

    Cycle `i` lasts `T_0 * T_mult ** i` steps. Which one a step is in is found with whole numbers;
    torch's `step(epoch)` takes a logarithm, and gives `eta_min` for the base at some restarts with
    `T_mult` 3 or 10.
    """

    formula: ClassVar[str] = (
        "eta_min + (base - eta_min) * (1 + cos(pi * T_cur / T_i)) / 2, T_cur the steps since the"
        " cycle began, T_i its length"
    )
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts;"
        " Loshchilov and Hutter 2016, arXiv:1608.03983"
    )
    example: ClassVar[dict[str, Any]] = {"T_0": 10, "T_mult": 2}

    kind: Literal["torch.CosineAnnealingWarmRestarts"] = "torch.CosineAnnealingWarmRestarts"
    T_0: StepCount
    T_mult: Count = 1
    eta_min: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        first = whole(self.T_0)
        if self.T_mult == 1:
            return Repeat(schedule=self._cycle(first), period=first)
        # `repeat` would slow down the clock of the first cycle, which rounds; torch divides once.
        # Cycles grow so fast that a few dozen of them fill all time; the last one outlasts it.
        cycles, start, length = [], 0, first
        while start + length <= MAX_STEP:
            cycles.append(Part(schedule=self._cycle(length), steps=float(length)))
            start, length = start + length, length * self.T_mult
        last = Repeat(schedule=self._cycle(length), period=float(length))
        return Sequence(parts=(*cycles, Part(schedule=last)))

    def _cycle(self, length: int) -> Schedule:
        return Ramp(end=self.eta_min, steps=float(length), ease=Cosine())


class CyclicLR(Named):
    """Between `base_lr` and `max_lr` in triangles, for ever; momentum swings against it.

    As in torch it drives momentum unless `cycle_momentum` is false. `scale_fn` is a function and so
    no data: multiply a triangle by a law of your own with `product`. In torch the first value is
    not `base_lr` if another scheduler was there before; here it is. A `gamma` above 1, with which
    torch's momentum falls below 0, is refused, and so is a `step_size_down` of 0, which is the
    `sawtooth` of our `cyclic`. Step sizes need not be whole.
    """

    formula: ClassVar[str] = (
        "base_lr + (max_lr - base_lr) * triangle(t) * envelope(t), envelope 1, 2 ** -cycle or"
        " gamma ** t by mode"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.CyclicLR; Smith 2015, arXiv:1506.01186"
    example: ClassVar[dict[str, Any]] = {"base_lr": 0.001, "max_lr": 0.1}

    kind: Literal["torch.CyclicLR"] = "torch.CyclicLR"
    base_lr: Rate
    max_lr: Rate
    step_size_up: Length = 2000
    step_size_down: Length | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Fraction = 1.0
    cycle_momentum: Flag = True
    base_momentum: Fraction = 0.8
    max_momentum: Fraction = 0.9

    def expand(self) -> Schedule:  # noqa: D102
        return Cyclic.model_validate(_fields(self))


class OneCycleLR(Named):
    """Up to `max_lr` and down to almost nothing, in two or three phases; momentum against it.

    As in torch it drives momentum unless `cycle_momentum` is false, and lasts `total_steps` or else
    `epochs * steps_per_epoch`. Past its end torch goes negative, rises again, or raises; this holds
    its last value. torch divides by zero if the first phase ends at step 0; this leaves it out. An
    infinite divisor is written `"inf"`.
    """

    formula: ClassVar[str] = OneCycle.formula
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.OneCycleLR; Smith and Topin 2017, arXiv:1708.07120"
    )
    example: ClassVar[dict[str, Any]] = {"max_lr": 0.1, "epochs": 10, "steps_per_epoch": 100}

    kind: Literal["torch.OneCycleLR"] = "torch.OneCycleLR"
    max_lr: Rate
    total_steps: StepCount | None = None
    epochs: Count | None = None
    steps_per_epoch: Count | None = None
    pct_start: Fraction = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: Flag = True
    base_momentum: Fraction = 0.85
    max_momentum: Fraction = 0.95
    div_factor: Divisor = 25.0
    final_div_factor: Divisor = 1e4
    three_phase: Flag = False

    @model_validator(mode="after")
    def _a_cycle_that_can_be(self) -> Self:
        if self._length is None:
            raise PydanticCustomError(
                "no_length", "Say how long it is: give total_steps, or epochs and steps_per_epoch"
            )
        if known(self._length):
            _ = self.expanded
        return self

    @property
    def _length(self) -> int | Duration | None:
        if (
            self.total_steps is None
            and self.epochs is not None
            and self.steps_per_epoch is not None
        ):
            return self.epochs * self.steps_per_epoch
        return self.total_steps

    def expand(self) -> Schedule:  # noqa: D102
        return OneCycle.model_validate(_fields(self) | {"total_steps": self._length})


class SWALR(Named):
    """From the learning rate that it takes over to `swa_lr`, which is then held.

    It takes over its base. After another schedule, put both into a `sequence` with
    `"value": "continue"`. With `anneal_epochs=0` it is `swa_lr` from the start.
    """

    formula: ClassVar[str] = "base + (swa_lr - base) * anneal(min(t / anneal_epochs, 1))"
    source: ClassVar[str] = "torch.optim.swa_utils.SWALR; Izmailov et al. 2018, arXiv:1803.05407"
    example: ClassVar[dict[str, Any]] = {"swa_lr": 0.05}

    kind: Literal["torch.SWALR"] = "torch.SWALR"
    swa_lr: NonNegative
    anneal_epochs: StepPoint = 10
    anneal_strategy: Literal["cos", "linear"] = "cos"

    def expand(self) -> Schedule:  # noqa: D102
        if self.anneal_epochs == 0:
            return Hold(value=self.swa_lr)
        ease: Ease = Cosine() if self.anneal_strategy == "cos" else Linear()
        return Ramp(end=self.swa_lr, steps=whole(self.anneal_epochs), ease=ease)


class SequentialLR(Named):
    """One scheduler after the other; a milestone belongs to the next one.

    As torch's documentation means it: each starts from the base at its own step 0. torch 2.13 lets
    a CyclicLR or OneCycleLR anywhere in the list change the base of the others, raises for a
    SequentialLR or ChainedScheduler after the first, and skips a step of one that is the first;
    this does not. A milestone of 0, or one named twice, leaves the scheduler before it no step. An
    SWALR starts from the rate before it, so it is refused here: a `sequence` can go on from there.
    The last one has no end: a CosineAnnealingLR in that place rises again.
    """

    formula: ClassVar[str] = "schedulers[i](t - milestones[i - 1]), i the number of milestones <= t"
    source: ClassVar[str] = "torch.optim.lr_scheduler.SequentialLR"
    example: ClassVar[dict[str, Any]] = {
        "schedulers": [
            {"kind": "torch.LinearLR", "start_factor": 0.01, "total_iters": 100},
            {"kind": "torch.CosineAnnealingLR", "T_max": 900},
        ],
        "milestones": [100],
    }

    kind: Literal["torch.SequentialLR"] = "torch.SequentialLR"
    schedulers: Annotated[tuple[AnySchedule, ...], Field(min_length=1, max_length=256)]
    milestones: Annotated[tuple[StepPoint, ...], Field(max_length=255)]

    @field_validator("schedulers")
    @classmethod
    def _each_from_the_base(cls, schedulers: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        if any(isinstance(law, SWALR) for law in schedulers):
            raise PydanticCustomError(
                "takes_over",
                "torch.SWALR goes on from the rate before it, not from the base; use a `sequence`"
                ' with "value": "continue"',
            )
        return schedulers

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, milestones: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
        return ascending(milestones)

    @model_validator(mode="after")
    def _a_milestone_between_each_two(self) -> Self:
        if len(self.milestones) != len(self.schedulers) - 1:
            raise PydanticCustomError(
                "wrong_number_of_milestones",
                "{schedulers} schedulers need {needed} milestones, but there are {milestones};"
                " give one between each two",
                {
                    "schedulers": len(self.schedulers),
                    "needed": len(self.schedulers) - 1,
                    "milestones": len(self.milestones),
                },
            )
        if all(map(known, self.milestones)):
            _ = self.expanded
        return self

    def expand(self) -> Schedule:  # noqa: D102
        ends = [whole(milestone) for milestone in self.milestones]
        return Sequence(
            parts=tuple(
                Part(schedule=law, until=until)
                for law, begin, until in zip(
                    self.schedulers, [0, *ends], [*ends, None], strict=True
                )
                if until is None or until > begin
            )
        )


class ChainedScheduler(Named):
    """The base times the factors of several schedulers.

    torch lets each scheduler change the rate that the one before it left. For those that only
    multiply, which are the ones allowed here, that is the product of their factors, in any order.
    The others would erase what was done before them (CyclicLR, OneCycleLR,
    CosineAnnealingWarmRestarts; SequentialLR at its milestones) or depend on the order
    (CosineAnnealingLR with an `eta_min`), and are refused. In torch a CosineAnnealingLR also
    forgets the others when it rises again after `T_max`; this stays the product.
    """

    formula: ClassVar[str] = "base * factors of schedulers[0](t) * factors of schedulers[1](t) ..."
    source: ClassVar[str] = "torch.optim.lr_scheduler.ChainedScheduler"
    example: ClassVar[dict[str, Any]] = {
        "schedulers": [
            {"kind": "torch.ConstantLR", "factor": 0.1, "total_iters": 20},
            {"kind": "torch.ExponentialLR", "gamma": 0.9},
        ]
    }

    kind: Literal["torch.ChainedScheduler"] = "torch.ChainedScheduler"
    schedulers: Several

    @field_validator("schedulers")
    @classmethod
    def _factors_of_the_base(cls, schedulers: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        for law in schedulers:
            if isinstance(law, CosineAnnealingLR) and law.eta_min > 0:
                raise PydanticCustomError(
                    "not_a_factor",
                    "With an eta_min torch.CosineAnnealingLR is not a factor of the base, and the"
                    " result would depend on the order; set eta_min to 0, and put a `clamp` around"
                    " the chain if it needs a floor",
                )
            if not isinstance(law, _MULTIPLYING):
                raise PydanticCustomError(
                    "not_a_factor",
                    "{kind} does not multiply the rate but sets it, and in torch would erase what"
                    " the schedulers before it did; multiply laws of any kind with `product`",
                    {"kind": law.model_dump()["kind"]},
                )
        return schedulers

    def expand(self) -> Schedule:  # noqa: D102
        first, *factors = self.schedulers
        return Product(schedule=first, factors=tuple(factors)) if factors else first


_MULTIPLYING = (
    StepLR,
    MultiStepLR,
    ConstantLR,
    LinearLR,
    ExponentialLR,
    PolynomialLR,
    CosineAnnealingLR,
    ChainedScheduler,
)


def _fields(preset: Named) -> dict[str, Any]:
    """Return the parameters that a preset shares with the named kind that it expands to."""
    own = {"kind", "epochs", "steps_per_epoch"}
    return {name: getattr(preset, name) for name in type(preset).model_fields if name not in own}


class ReduceLROnPlateau(NamedController):
    """The `plateau` of torch: its decisions to the bit, for every metric.

    Over a constant schedule the rates are torch's own. Over any other the level is multiplied, so a
    warmup or a cosine goes on beneath it, which torch's scheduler cannot do. Where torch takes a
    list of floors, `min_lr` is an object with one for each group by its name. `start` takes torch's
    over in the middle: its `best`, its `num_bad_epochs` and its `cooldown_counter`.

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
    start: PlateauStart = PlateauStart()

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
            start=self.start,
        )
