"""Presets of fairseq, by its own names, parameters and defaults.

fairseq's `lr` belongs to its optimization, and is the base of the group here; only `fixed` has it
as a parameter too, as a list. fairseq's updates are steps here, and its epochs are a number of
steps.

Two things are left out: a list of `lr` for `polynomial_decay`, of which fairseq never uses the
first entry, and its `force_anneal`, with which every epoch decays anew from where the last one came
to.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import (
    Duration,
    Length,
    StepCount,
    StepPoint,
    known,
    steps_of,
    whole,
)
from pacesetter_service.core.model import (
    Count,
    Flag,
    Fraction,
    NonNegative,
    OneOf,
    Positive,
    Real,
)
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Part, Repeat, Sequence, Shift
from pacesetter_service.core.schedules.combinators import Clamp, Product, Relative, Sum
from pacesetter_service.core.schedules.eases import Cosine as CosineEase
from pacesetter_service.core.schedules.eases import Geometric, Poly
from pacesetter_service.core.schedules.named.cycles import Rate
from pacesetter_service.core.schedules.primitives import (
    Exponential,
    Hold,
    PowerLaw,
    Ramp,
    TriangleWave,
)
from pacesetter_service.core.schedules.tables import PiecewiseConstant
from pacesetter_service.core.schedules.warmup import Warmup

REDIRECTS: dict[str, str] = {
    "fairseq.reduce_lr_on_plateau": (
        "reduce_lr_on_plateau follows a metric and not the steps: put a `plateau` among the"
        " session's `controllers`, with patience from lr_patience, factor from lr_shrink and"
        " threshold from lr_threshold, beside a `sequence` of a `ramp` for the warmup and `hold`"
    ),
    "fairseq.manual": (
        "manual is a table: write update2lr, or epoch2lr with its keys less 1 in"
        ' {"epochs": ...}, as the `boundaries` and `levels` of `piecewise_constant`'
    ),
    "fairseq.pass_through": (
        "pass_through leaves the schedule to each optimizer: give each of the session's `groups` a"
        " schedule of its own"
    ),
}
"""Schedulers of fairseq that are not schedules here, with what to do instead."""

MAX_EPOCHS = 1_000
"""The most epochs for which `fixed` lists a learning rate."""

Shrink = Annotated[Real, Field(gt=0, le=1)]

LengthOrUnset = Annotated[
    Real | Duration,
    OneOf('Write a number of updates, or a length such as {"epochs": 5}; -1 is not given'),
]


class Warming(Named):
    """What several of fairseq's schedulers share: a line from `warmup_init_lr` to the base."""

    warmup_updates: StepPoint = 0
    warmup_init_lr: Real = -1.0

    def warmed(self, law: Schedule, unset: float) -> Schedule:
        """Put the warmup in front of a law; a negative `warmup_init_lr` counts as not given."""
        warmup = whole(self.warmup_updates)
        if warmup == 0:
            return law
        start = unset if self.warmup_init_lr < 0 else self.warmup_init_lr
        rise = Ramp(start=start, end="base", steps=warmup)
        return Sequence(parts=(Part(schedule=rise, steps=warmup), Part(schedule=law)))


class Cosine(Warming):
    """Cosine waves from the base down to `min_lr`, each cycle lower and perhaps longer.

    As in fairseq both heights shrink by `lr_shrink` (0.1 unless told) at every restart, a warmup
    starts at `min_lr` unless told, and without `lr_period_updates` the first period is all of
    `max_update` that the warmup leaves, so that it restarts just there.

    A cycle is found with whole numbers. fairseq takes a float logarithm, which some restarts are
    missed by where `t_mult` is not 1, and cannot have periods that get shorter; those are refused.
    """

    formula: ClassVar[str] = (
        "lr_shrink ** i * (min_lr + (base - min_lr) * (1 + cos(pi * t_i / length_i)) / 2) in cycle"
        " i, of length lr_period_updates * t_mult ** i, after a linear warmup"
    )
    source: ClassVar[str] = "fairseq CosineLRSchedule; arXiv:1608.03983"
    example: ClassVar[dict[str, Any]] = {
        "warmup_updates": 100,
        "warmup_init_lr": 1e-7,
        "min_lr": 1e-5,
        "max_update": 1000,
    }

    kind: Literal["fairseq.cosine"] = "fairseq.cosine"
    min_lr: NonNegative = 0.0
    t_mult: Annotated[Real, Field(ge=1)] = 1.0
    lr_period_updates: LengthOrUnset = -1.0
    lr_shrink: Shrink = 0.1
    max_update: StepCount | None = None

    @model_validator(mode="after")
    def _some_period(self) -> Self:
        if not known(self.lr_period_updates) or self.lr_period_updates > 0:
            return self
        if self.max_update is None:
            raise PydanticCustomError(
                "no_period", "Say how long a period is: give lr_period_updates or max_update"
            )
        warmup, until = self.warmup_updates, self.max_update
        if known(warmup) and known(until) and until <= warmup:
            raise PydanticCustomError(
                "no_time_to_decay",
                "max_update ({until}) must be above warmup_updates ({warmup}):"
                " it counts the warmup too",
                {"until": until, "warmup": warmup},
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        period = steps_of(self.lr_period_updates)
        if period <= 0:
            period = float(whole(self.max_update or 0) - whole(self.warmup_updates))
        wave = Ramp(end=self.min_lr, steps=period, ease=CosineEase())
        heights = Repeat(
            schedule=Hold(), period=period, growth=self.t_mult, peak_decay=self.lr_shrink
        )
        waves = Repeat(schedule=wave, period=period, growth=self.t_mult)
        return self.warmed(Product(schedule=waves, factors=(heights,)), unset=self.min_lr)


class Fixed(Named):
    """A learning rate for each epoch, and from `force_anneal` on a decay at every epoch.

    `lr` is the base unless given; the last of a list is kept. `epoch` is how long an epoch is, such
    as 5000, or `{"epochs": 1}` for the session's own: fairseq knows it, and it is needed here for a
    list and for `force_anneal`. As in fairseq epochs are numbered from 1, the epoch `force_anneal`
    has one `lr_shrink` already, and the warmup multiplies whatever there is by
    `(t + 1) / warmup_updates`.
    """

    formula: ClassVar[str] = (
        "lr[e - 1] for the epoch e = floor(t / epoch) + 1, then"
        " lr[-1] * lr_shrink ** (e + 1 - force_anneal) from the epoch force_anneal on,"
        " times min((t + 1) / warmup_updates, 1)"
    )
    source: ClassVar[str] = "fairseq FixedLRSchedule"
    example: ClassVar[dict[str, Any]] = {"force_anneal": 30, "warmup_updates": 100, "epoch": 1000}

    kind: Literal["fairseq.fixed"] = "fairseq.fixed"
    force_anneal: Count | None = None
    lr_shrink: Fraction = 0.1
    warmup_updates: StepPoint = 0
    lr: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=MAX_EPOCHS)] = ("base",)
    epoch: StepCount | None = None

    @model_validator(mode="after")
    def _epochs_have_a_length(self) -> Self:
        if self.epoch is None and (self.force_anneal is not None or len(self.lr) > 1):
            raise PydanticCustomError(
                "no_epoch",
                "Several `lr` and `force_anneal` go by epochs: say how long one is in `epoch`, such"
                ' as 5000 steps, or {"epochs": 1} for the session\'s own',
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        law = self._by_epochs()
        if self.warmup_updates == 0:
            return law
        return Warmup(schedule=law, steps=whole(self.warmup_updates), mode="multiply", offset=1)

    def _by_epochs(self) -> Schedule:
        if self.epoch is None:
            return Hold(value=self.lr[0])
        epoch = whole(self.epoch)
        boundaries = tuple(epoch * passed for passed in range(1, len(self.lr)))
        listed = PiecewiseConstant(boundaries=boundaries, levels=self.lr)
        if self.force_anneal is None:
            return listed
        shrunk = Exponential(gamma=self.lr_shrink, per=epoch, staircase=True)
        # The first epoch of annealing has already been shrunk once.
        annealed = Product(
            schedule=Hold(value=self.lr[-1]), factors=(Shift(schedule=shrunk, by=epoch),)
        )
        if self.force_anneal == 1:
            return annealed
        before = Part(schedule=listed, steps=(self.force_anneal - 1) * epoch)
        return Sequence(parts=(before, Part(schedule=annealed)))


class InverseSqrt(Warming):
    """A line up to the base, then the inverse square root of the time.

    As in fairseq the warmup starts at 0 unless told. fairseq divides by zero without a warmup; that
    is refused.
    """

    formula: ClassVar[str] = (
        "warmup_init_lr + (base - warmup_init_lr) * t / warmup_updates for t < warmup_updates,"
        " then base * sqrt(warmup_updates / t)"
    )
    source: ClassVar[str] = "fairseq InverseSquareRootSchedule; arXiv:1706.03762"
    example: ClassVar[dict[str, Any]] = {"warmup_updates": 4000, "warmup_init_lr": 1e-7}

    kind: Literal["fairseq.inverse_sqrt"] = "fairseq.inverse_sqrt"
    warmup_updates: StepCount = 4000

    def expand(self) -> Schedule:  # noqa: D102
        warmup = float(whole(self.warmup_updates))
        return self.warmed(PowerLaw(timescale=warmup, shift=warmup), unset=0.0)


class PolynomialDecay(Named):
    """A line from 0 up to the base, then a power of the remaining time to `end_learning_rate`.

    As in fairseq the first step of a warmup uses 0, and `total_num_update`, which counts the
    warmup, is the training's own length unless given. A total that the warmup fills is refused.
    """

    formula: ClassVar[str] = (
        "base * t / W for t < W, then end_learning_rate + (base - end_learning_rate)"
        " * (1 - (t - W) / (total_num_update - W)) ** power, with W = warmup_updates"
    )
    source: ClassVar[str] = "fairseq PolynomialDecayLRSchedule"
    example: ClassVar[dict[str, Any]] = {"warmup_updates": 100, "total_num_update": 1000}

    kind: Literal["fairseq.polynomial_decay"] = "fairseq.polynomial_decay"
    warmup_updates: StepPoint = 0
    force_anneal: None = None
    end_learning_rate: NonNegative = 0.0
    power: Positive = 1.0
    total_num_update: Length = Duration(fraction=1.0)

    @field_validator("force_anneal", mode="before")
    @classmethod
    def _not_by_epochs(cls, epoch: object) -> None:
        if epoch is not None:
            raise PydanticCustomError(
                "not_offered",
                "fairseq's annealing makes every epoch decay anew from where the last one has come"
                " to, which is not offered; leave `force_anneal` out",
            )

    @model_validator(mode="after")
    def _time_to_decay(self) -> Self:
        warmup, total = self.warmup_updates, self.total_num_update
        if known(warmup) and known(total) and total <= warmup:
            raise PydanticCustomError(
                "no_time_to_decay",
                "total_num_update ({total}) must be above warmup_updates ({warmup}):"
                " it counts the warmup too",
                {"total": total, "warmup": warmup},
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        warmup = whole(self.warmup_updates)
        length = steps_of(self.total_num_update) - warmup
        fall = Ramp(end=self.end_learning_rate, steps=length, ease=Poly(power=self.power))
        if warmup == 0:
            return fall
        rise = Ramp(start=0.0, end="base", steps=warmup)
        return Sequence(parts=(Part(schedule=rise, steps=warmup), Part(schedule=fall)))


class Step(Warming):
    """Multiply the base by `lr_decay` every `lr_deacy_period` updates, down to `min_lr`.

    As in fairseq, whose spelling that is, the warmup starts at `min_lr` unless told, and the
    periods are counted from its end.
    """

    formula: ClassVar[str] = (
        "max(base * lr_decay ** floor(k / lr_deacy_period), min_lr) with k = t - warmup_updates,"
        " after a linear warmup"
    )
    source: ClassVar[str] = "fairseq StepLRSchedule"
    example: ClassVar[dict[str, Any]] = {"warmup_updates": 100, "lr_deacy_period": 1000}

    kind: Literal["fairseq.step"] = "fairseq.step"
    min_lr: NonNegative = 0.0
    lr_deacy_period: StepCount = 25000
    lr_decay: Fraction = 0.5

    def expand(self) -> Schedule:  # noqa: D102
        stairs = Exponential(gamma=self.lr_decay, per=whole(self.lr_deacy_period), staircase=True)
        return self.warmed(Clamp(schedule=stairs, min=self.min_lr), unset=self.min_lr)


class TriStage(Named):
    """A line up to the base, a stay, an exponential down to `final_lr_scale` of it, which is held.

    The three lengths are given, or follow from `phase_ratio` and `max_update`, rounded down. Where
    fairseq fails, without a decay and for a `final_lr_scale` of 0, this refuses; ratios that add up
    to 1 but for rounding fail there and are taken here.
    """

    formula: ClassVar[str] = (
        "base * (init_lr_scale + (1 - init_lr_scale) * t / W) for t < W, then base for H steps,"
        " then base * final_lr_scale ** ((t - W - H) / D), then base * final_lr_scale,"
        " with W, H, D = warmup_steps, hold_steps, decay_steps"
    )
    source: ClassVar[str] = "fairseq TriStageLRSchedule; arXiv:1904.08779"
    example: ClassVar[dict[str, Any]] = {"phase_ratio": [0.1, 0.4, 0.5], "max_update": 1000}

    kind: Literal["fairseq.tri_stage"] = "fairseq.tri_stage"
    warmup_steps: StepPoint = 0
    hold_steps: StepPoint = 0
    decay_steps: StepPoint = 0
    phase_ratio: tuple[Fraction, Fraction, Fraction] | None = None
    init_lr_scale: NonNegative = 0.01
    final_lr_scale: Positive = 0.01
    max_update: Length | None = None

    @model_validator(mode="after")
    def _ratios_of_something(self) -> Self:
        if self.phase_ratio is None:
            return self
        if abs(sum(self.phase_ratio) - 1.0) > 1e-9:
            raise PydanticCustomError("not_a_whole", "The phase_ratio must add up to 1")
        if self.max_update is None:
            raise PydanticCustomError("no_length", "Say in `max_update` what the phase_ratio is of")
        return self

    @model_validator(mode="after")
    def _some_decay(self) -> Self:
        lengths = (self.max_update,) if self.phase_ratio else (self.decay_steps,)
        if all(map(known, lengths)) and self._phases()[2] == 0:
            raise PydanticCustomError(
                "no_time_to_decay",
                "There is no step to decay in; give decay_steps, or phase_ratio and max_update",
            )
        return self

    def _phases(self) -> tuple[int, int, int]:
        if self.phase_ratio is None:
            return whole(self.warmup_steps), whole(self.hold_steps), whole(self.decay_steps)
        total = steps_of(self.max_update or 0)
        warmup, hold, decay = (int(total * ratio) for ratio in self.phase_ratio)
        return warmup, hold, decay

    def expand(self) -> Schedule:  # noqa: D102
        warmup, hold, decay = self._phases()
        rise = Ramp(start=self.init_lr_scale, end=1.0, steps=max(warmup, 1))
        fall = Ramp(start=1.0, end=self.final_lr_scale, steps=decay, ease=Geometric())
        before = [(rise, warmup), (Hold(value=1.0), hold)]
        parts = [Part(schedule=law, steps=steps) for law, steps in before if steps]
        return Relative(schedule=Sequence(parts=(*parts, Part(schedule=fall))))


class Triangular(Named):
    """Up from the base to `max_lr` and down again, for ever, each cycle lower.

    As in fairseq `max_lr` shrinks by `lr_shrink` at every cycle, to 0.1 unless told, and the base
    does not unless `shrink_min` says so: where `max_lr` comes to lie below it, the triangles stand
    on their heads. A period of an odd length is a step shorter.
    """

    formula: ClassVar[str] = (
        "base + (max_lr * lr_shrink ** i - base) * triangle(t) in cycle i,"
        " of length 2 * floor(lr_period_updates / 2); base * lr_shrink ** i with shrink_min"
    )
    source: ClassVar[str] = "fairseq TriangularLRSchedule; arXiv:1506.01186"
    example: ClassVar[dict[str, Any]] = {"max_lr": 0.5, "lr_period_updates": 1000, "lr_shrink": 0.5}

    kind: Literal["fairseq.triangular"] = "fairseq.triangular"
    max_lr: NonNegative
    lr_period_updates: Length = 5000.0
    lr_shrink: Shrink = 0.1
    shrink_min: Flag = False

    @model_validator(mode="after")
    def _up_and_down(self) -> Self:
        if known(self.lr_period_updates) and self.lr_period_updates < 2:
            raise PydanticCustomError(
                "no_period", "lr_period_updates must be at least 2: a step up and a step down"
            )
        return self

    def expand(self) -> Schedule:  # noqa: D102
        half = steps_of(self.lr_period_updates) // 2
        shrinking = Repeat(schedule=Hold(), period=2 * half, peak_decay=self.lr_shrink)
        # Two complementary triangles, because each end shrinks in its own way.
        high = TriangleWave(start=0.0, peak=1.0, up=half, down=half)
        low = TriangleWave(start=1.0, peak=0.0, up=half, down=half)
        top = Product(schedule=Hold(value=self.max_lr), factors=(high, shrinking))
        bottom = Product(schedule=Hold(), factors=(low, shrinking) if self.shrink_min else (low,))
        return Sum(of=(bottom, top))
