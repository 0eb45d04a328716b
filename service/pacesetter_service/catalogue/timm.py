"""Presets of timm, by its own names, parameters and defaults.

Lengths are in optimizer steps, as in timm with `t_in_epochs=False`. For a timm schedule that is
stepped once an epoch, write its lengths in epochs, `{"epochs": 90}`, and put the schedule into a
`stair` of `{"epochs": 1}`; the milestones of MultiStepLRScheduler are then one epoch lower than
timm's.

timm's `noise_*` parameters draw from torch's own generator, which cannot be reproduced here: put
the schedule into `noise`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import ControllerState, NamedController
from pacesetter_service.core.controllers.improvement import Improvement, Mode, refuse_impossible
from pacesetter_service.core.controllers.plateau import Floor, Plateau, PlateauState
from pacesetter_service.core.lengths import (
    Duration,
    Length,
    StepCount,
    StepPoint,
    known,
    steps_of,
    whole,
)
from pacesetter_service.core.model import Count, Flag, NonNegative, Positive, Real, Step
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import (
    Delay,
    Freeze,
    Part,
    Repeat,
    Sequence,
    Shift,
    Span,
)
from pacesetter_service.core.schedules.combinators import Clamp, Product, Relative, Sum
from pacesetter_service.core.schedules.eases import (
    Cosine,
    Decay,
    Ease,
    Linear,
    Poly,
    Power,
    Tanh,
    Warped,
)
from pacesetter_service.core.schedules.primitives import Exponential, Hold, PowerLaw, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, PiecewiseConstant, ascending
from pacesetter_service.core.schedules.warmup import Warmup

REDIRECTS: dict[str, str] = {
    "timm.PlateauLRScheduler": (
        "PlateauLRScheduler follows a metric and not the steps: put the controller"
        " `timm.PlateauLRScheduler`, or our `plateau`, among the session's `controllers`, beside"
        " any schedule"
    ),
}
"""Schedulers that are not schedules here, with what to do instead."""


class Warmed(Named):
    """What timm's schedules share: a straight line from `warmup_lr_init` to the base."""

    warmup_t: StepPoint = 0
    warmup_lr_init: NonNegative = 0.0
    warmup_prefix: Flag = False

    def warmed(self, law: Schedule) -> Schedule:
        """Put the warmup in front of a law, or over its first steps."""
        if self.warmup_t == 0:
            return law
        rise = Ramp(start=self.warmup_lr_init, end="base", steps=whole(self.warmup_t))
        parts = (Part(schedule=rise, steps=whole(self.warmup_t)), Part(schedule=law))
        return Sequence(parts=parts, clock="local" if self.warmup_prefix else "global")


class Cycled(Warmed):
    """What timm's decays with cycles share; each goes from its height down to `lr_min`.

    Cycle `i` is `t_initial * cycle_mul ** i` long and `base * cycle_decay ** i` high, and after
    `cycle_limit` of them `lr_min` is held.
    """

    t_initial: StepCount
    lr_min: NonNegative = 0.0
    cycle_mul: Annotated[Real, Field(ge=1)] = 1.0
    cycle_decay: Positive = 1.0
    cycle_limit: Count = 1

    def cycled(self, ease: Ease) -> Schedule:
        """Repeat a decay in the shape of an ease."""
        return Repeat(
            schedule=Ramp(end=self.lr_min, steps=self.t_initial, ease=ease),
            period=self.t_initial,
            growth=self.cycle_mul,
            peak_decay=self.cycle_decay,
            limit=self.cycle_limit,
        )


class CosineLRScheduler(Cycled):
    """Half a cosine wave down to `lr_min`, once or in cycles, after an optional warmup.

    As in timm, the warmup lies over the first steps of the decay, which the rate then jumps to from
    the base, unless `warmup_prefix` puts it in front. With a `k_decay` above 1 (arXiv:2004.05909)
    the rate stays high for longer. `lr_min` is reached at `t_initial`, one step after the last of
    the decay. Where `cycle_mul` is 3 or 10 timm finds some cycles with a logarithm that is off, and
    makes their first step with the end of the last one; this does not. Cycles that shrink, on which
    timm raises once they have shrunk to nothing, are refused.
    """

    formula: ClassVar[str] = (
        "lr_min + (base * cycle_decay ** i - lr_min)"
        " * (1 + cos(pi * t_i ** k_decay / length_i ** k_decay)) / 2 in cycle i"
    )
    source: ClassVar[str] = "timm.scheduler.CosineLRScheduler; arXiv:1608.03983, arXiv:2004.05909"
    example: ClassVar[dict[str, Any]] = {
        "t_initial": 1000,
        "lr_min": 1e-5,
        "warmup_t": 50,
        "warmup_lr_init": 1e-6,
        "warmup_prefix": True,
    }

    kind: Literal["timm.CosineLRScheduler"] = "timm.CosineLRScheduler"
    k_decay: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(self.cycled(bent(Cosine(), self.k_decay)))


class PolyLRScheduler(Cycled):
    """A power of the remaining time down to `lr_min`, once or in cycles, after an optional warmup.

    As in timm, the power is 0.5 unless given, so that the rate falls late; warmup, cycles and
    `k_decay` are those of `timm.CosineLRScheduler`.
    """

    formula: ClassVar[str] = (
        "lr_min + (base * cycle_decay ** i - lr_min)"
        " * (1 - t_i ** k_decay / length_i ** k_decay) ** power in cycle i"
    )
    source: ClassVar[str] = "timm.scheduler.PolyLRScheduler; arXiv:2004.05909"
    example: ClassVar[dict[str, Any]] = {"t_initial": 1000, "power": 0.9, "lr_min": 1e-5}

    kind: Literal["timm.PolyLRScheduler"] = "timm.PolyLRScheduler"
    power: Positive = 0.5
    k_decay: Positive = 1.0

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(self.cycled(bent(Poly(power=self.power), self.k_decay)))


class TanhLRScheduler(Cycled):
    """A hyperbolic tangent down to `lr_min`, once or in cycles, after an optional warmup.

    As in timm, a warmup that lies over the decay rises to what the decay is when the warmup ends,
    where timm's other schedules rise to the base and jump; in front of it (`warmup_prefix`) it
    rises to the base. The decay starts and ends a little below the base and above `lr_min`, as far
    as the tangent of `lb` and `ub` is from 1.
    """

    formula: ClassVar[str] = (
        "lr_min + (base * cycle_decay ** i - lr_min)"
        " * (1 - tanh(lb * (1 - u) + ub * u)) / 2 with u = t_i / length_i in cycle i"
    )
    source: ClassVar[str] = "timm.scheduler.TanhLRScheduler; arXiv:1806.01593"
    example: ClassVar[dict[str, Any]] = {"t_initial": 1000, "lr_min": 1e-5}

    kind: Literal["timm.TanhLRScheduler"] = "timm.TanhLRScheduler"
    lb: Real = -7.0
    ub: Real = 3.0

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.lb >= self.ub:
            raise PydanticCustomError("not_ascending", "`lb` must be below `ub`; swap them")
        return self

    def expand(self) -> Schedule:  # noqa: D102
        law = self.cycled(Tanh(low=self.lb, high=self.ub))
        if self.warmup_prefix or self.warmup_t == 0:
            return self.warmed(law)
        rise = Warmup(schedule=law, steps=whole(self.warmup_t), mode="replace")
        start = Ramp(start=self.warmup_lr_init, end=0.0, steps=whole(self.warmup_t))
        return Sum(of=(start, rise))


class StepLRScheduler(Warmed):
    """Multiply the base by `decay_rate` every `decay_t` steps, after an optional warmup.

    As in timm, the rate of decay is 1 unless given, which is none, and the warmup is in front of
    the decay unless `warmup_prefix` is false.
    """

    formula: ClassVar[str] = "base * decay_rate ** floor(t / decay_t)"
    source: ClassVar[str] = "timm.scheduler.StepLRScheduler"
    example: ClassVar[dict[str, Any]] = {"decay_t": 30, "decay_rate": 0.1, "warmup_t": 5}

    kind: Literal["timm.StepLRScheduler"] = "timm.StepLRScheduler"
    decay_t: Length
    decay_rate: NonNegative = 1.0
    warmup_prefix: Flag = True

    def expand(self) -> Schedule:  # noqa: D102
        return self.warmed(Exponential(gamma=self.decay_rate, per=self.decay_t, staircase=True))


class MultiStepLRScheduler(Warmed):
    """Multiply the base by `decay_rate` one step before each milestone, after an optional warmup.

    As in timm, which keeps it on purpose: a milestone of 10 is in force at step 9 already, unlike
    torch's. The rate of decay is 1 unless given, which is none, and the warmup is in front of the
    decay unless `warmup_prefix` is false. timm takes milestones that do not ascend, and then looks
    for its place among them in vain; here they are refused.
    """

    formula: ClassVar[str] = "base * decay_rate ** (number of milestones <= t + 1)"
    source: ClassVar[str] = "timm.scheduler.MultiStepLRScheduler"
    example: ClassVar[dict[str, Any]] = {"decay_t": [30, 80], "decay_rate": 0.1, "warmup_t": 5}

    kind: Literal["timm.MultiStepLRScheduler"] = "timm.MultiStepLRScheduler"
    decay_t: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    decay_rate: NonNegative = 1.0
    warmup_prefix: Flag = True

    @field_validator("decay_t")
    @classmethod
    def _ascending(cls, decay_t: tuple[int | Duration, ...]) -> tuple[int | Duration, ...]:
        return ascending(decay_t)

    def expand(self) -> Schedule:  # noqa: D102
        law = Relative(schedule=PiecewiseConstant.of_powers(self.decay_rate, self.decay_t))
        return self.warmed(Shift(schedule=law, by=1.0))


class WSDLRScheduler(Named):
    """Warm up, stay, and go down to `lr_min` in the last `decay_t` of `t_initial` steps.

    As in timm, the warmup is in front and does not count in `t_initial`; a stable phase that falls
    (`rsqrt`, `power`) goes on falling during the decay, which multiplies it, and never comes below
    `lr_min`; `lr_min` is reached one step after the last of the decay. A `decay_fn` that is a
    function has no equal here: write it as a `ramp` with an ease of its own.
    """

    formula: ClassVar[str] = (
        "lr_min + (max(base * stable(t_s), lr_min) - lr_min) * decay(u), where t_s = t - warmup_t"
        " and u goes from 0 to 1 over the last decay_t steps of t_initial"
    )
    source: ClassVar[str] = "timm.scheduler.WSDLRScheduler; arXiv:2404.06395, arXiv:2405.18392"
    example: ClassVar[dict[str, Any]] = {"t_initial": 1000, "decay_t": 200, "warmup_t": 50}

    kind: Literal["timm.WSDLRScheduler"] = "timm.WSDLRScheduler"
    t_initial: StepCount
    decay_t: StepCount
    lr_min: NonNegative = 0.0
    stable_fn: Literal["constant", "rsqrt", "power"] = "constant"
    stable_timescale: Length | None = None
    stable_power: Positive = 0.5
    decay_fn: Literal["linear", "1-sqrt", "cosine", "power", "exp"] = "1-sqrt"
    decay_power: Positive = 0.5
    decay_ratio: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    warmup_t: StepPoint = 0
    warmup_lr_init: NonNegative = 0.0

    @model_validator(mode="after")
    def _time_to_decay(self) -> Self:
        lengths = (self.t_initial, self.decay_t)
        if all(map(known, lengths)) and whole(self.decay_t) > whole(self.t_initial):
            raise PydanticCustomError(
                "no_time_to_decay",
                "decay_t ({decay}) must not be above t_initial ({total}), which counts it too",
                {"decay": self.decay_t, "total": self.t_initial},
            )
        return self

    @model_validator(mode="after")
    def _some_timescale(self) -> Self:
        if self.stable_fn != "constant" and self.stable_timescale is None and self.warmup_t == 0:
            raise PydanticCustomError(
                "no_timescale",
                "The stable_fn {stable} needs a stable_timescale where there is no warmup_t to"
                " take it from; give one",
                {"stable": self.stable_fn},
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        decayed = self._decayed(Clamp(schedule=self._stable(), min=self.lr_min))
        law = Freeze(schedule=decayed, at=self.t_initial)
        if self.warmup_t == 0:
            return law
        rise = Ramp(start=self.warmup_lr_init, end="base", steps=whole(self.warmup_t))
        parts = (Part(schedule=rise, steps=whole(self.warmup_t)), Part(schedule=law))
        return Sequence(parts=parts)

    def _stable(self) -> Schedule:
        if self.stable_fn == "constant":
            return Hold()
        timescale = self.stable_timescale or whole(self.warmup_t)
        exponent = 0.5 if self.stable_fn == "rsqrt" else self.stable_power
        # The time of the power law over the timescale is timm's 1 + t / timescale.
        return Span(
            schedule=PowerLaw(exponent=exponent, shift=1.0), ratio=float(steps_of(timescale))
        )

    def _decayed(self, stable: Schedule) -> Schedule:
        shapes: dict[str, Ease] = {
            "linear": Linear(),
            "1-sqrt": Power(power=0.5),
            "cosine": Cosine(),
            "power": Power(power=self.decay_power),
            "exp": Decay(ratio=self.decay_ratio),
        }
        decay_t = whole(self.decay_t)
        # Over one unit of a stretched clock, because timm divides before everything else.
        down = Ramp(start=1.0, end=0.0, steps=1, ease=shapes[self.decay_fn])
        decay = Delay(
            schedule=Span(schedule=down, ratio=float(decay_t)),
            by=whole(self.t_initial) - decay_t,
        )
        if self.lr_min == 0.0:
            return Product(schedule=stable, factors=(decay,))
        above = Product(schedule=Sum(of=(stable, Hold(value=-self.lr_min))), factors=(decay,))
        return Sum(of=(Hold(value=self.lr_min), above))


def bent(ease: Ease, k_decay: float) -> Ease:
    """Bend the progress of an ease, as k-decay does."""
    return ease if k_decay == 1.0 else Warped(ease=ease, power=k_decay)


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
