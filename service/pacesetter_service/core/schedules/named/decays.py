"""Decays: the schedules that fall from the base, by the names that people know them by.

They take the parameters of their torch namesakes and match torch's closed forms to the bit, with
two deliberate differences. Past its end a schedule holds its last value, where torch's cosine rises
again. Parameters on which torch divides by zero are refused when the spec is written.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, StepPoint, steps_of, whole
from pacesetter_service.core.model import Flag, Fraction, NonNegative, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze, Prolong, Shift
from pacesetter_service.core.schedules.combinators import Clamp, Relative
from pacesetter_service.core.schedules.eases import Cosine as CosineEase
from pacesetter_service.core.schedules.eases import Poly, QuarterCosine
from pacesetter_service.core.schedules.primitives import Exponential, Hold, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, PiecewiseConstant


class Constant(Named):
    """The base, reduced by a factor for the first `total_iters` steps if one is given."""

    formula: ClassVar[str] = "base * (factor if t < total_iters else 1)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ConstantLR (there factor=1/3, total_iters=5)"
    example: ClassVar[dict[str, Any]] = {}

    kind: Literal["constant"] = "constant"
    factor: NonNegative = 1.0
    total_iters: StepPoint = 0

    def expand(self) -> Schedule:  # noqa: D102
        if self.total_iters == 0:
            return Hold()
        # The odd sum is torch's: for some factors it differs from 1 in the last place.
        full = self.factor + (1 - self.factor)
        return Relative(
            schedule=PiecewiseConstant(boundaries=(self.total_iters,), levels=(self.factor, full))
        )


class Linear(Named):
    """From one factor of the base to another in a straight line.

    With `total_iters=0` it is at its end from the start.
    """

    formula: ClassVar[str] = (
        "base * (start_factor + (end_factor - start_factor) * min(t, total_iters) / total_iters)"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.LinearLR"
    example: ClassVar[dict[str, Any]] = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 100}

    kind: Literal["linear"] = "linear"
    start_factor: NonNegative = 1.0 / 3
    end_factor: NonNegative = 1.0
    total_iters: StepPoint = 5

    def expand(self) -> Schedule:  # noqa: D102
        if self.total_iters == 0:
            return Relative(schedule=Hold(value=self.end_factor))
        # Frozen at the formula's own last value, which equals torch's even where rounding makes it
        # miss `end_factor`; clamped, because near 0 it may round to below 0.
        line = Ramp(
            start=self.start_factor,
            end=self.end_factor,
            steps=whole(self.total_iters),
            out_of_range="extrapolate",
        )
        return Relative(
            schedule=Clamp(schedule=Freeze(schedule=line, at=self.total_iters), min=0.0)
        )


class StepDecay(Named):
    """Multiply the base by `gamma` every `step_size` steps."""

    formula: ClassVar[str] = "base * gamma ** floor(t / step_size)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.StepLR"
    example: ClassVar[dict[str, Any]] = {"step_size": 30, "gamma": 0.1}

    kind: Literal["step"] = "step"
    step_size: StepCount
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma, per=self.step_size, staircase=True)


class MultiStep(Named):
    """Multiply the base by `gamma` at each milestone; one named twice counts twice."""

    formula: ClassVar[str] = "base * gamma ** (number of milestones <= t)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.MultiStepLR"
    example: ClassVar[dict[str, Any]] = {"milestones": [30, 80], "gamma": 0.1}

    kind: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    gamma: NonNegative = 0.1

    def expand(self) -> Schedule:  # noqa: D102
        milestones = sorted(self.milestones, key=steps_of)
        return Relative(schedule=PiecewiseConstant.of_powers(self.gamma, milestones))


class Cosine(Named):
    """Half a cosine wave from the base down to `min_lr`, which is then held.

    `min_ratio` is the floor as a part of the base, in place of `min_lr`.

    `exponent` raises the wave to a power. With other than half a wave (`waves`) it swings, and what
    it has come to at `total_steps` is held. `shape="half"` is the second half of it only, from the
    middle down (OLMo's half_cos, whose base is the peak that the whole would have);
    `shape="quarter"` is a quarter of a wave, slow at first and steep at the end (ParlAI).
    """

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * ((1 + cos(2 * pi * waves * u)) / 2) ** exponent,"
        " u = min(t / total_steps, 1); half: u = (1 + t / total_steps) / 2;"
        " quarter: min_lr + (base - min_lr) * cos(pi / 2 * u)"
    )
    source: ClassVar[str] = (
        "torch.optim.lr_scheduler.CosineAnnealingLR, which rises again after T_max; "
        "Loshchilov and Hutter 2016, arXiv:1608.03983"
    )
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "min_lr": 1e-6}

    kind: Literal["cosine"] = "cosine"
    total_steps: StepCount
    min_lr: NonNegative = 0.0
    min_ratio: Fraction | None = None
    exponent: Positive = 1.0
    waves: Positive = 0.5
    shape: Literal["full", "half", "quarter"] = "full"

    def _faults(self) -> Iterator[PydanticCustomError]:
        yield from two_floors(self.min_lr, self.min_ratio)
        if self.shape == "quarter" and (self.exponent, self.waves) != (1.0, 0.5):
            yield PydanticCustomError(
                "two_shapes", "A quarter of a wave has neither `exponent` nor `waves`; leave them"
            )
        if self.shape == "half" and self.waves != 0.5:
            yield PydanticCustomError("two_shapes", "Give `shape` or `waves`, not both")

    def expand(self) -> Schedule:  # noqa: D102
        if self.min_ratio is None:
            return self._down_to(self.min_lr)
        return Relative(schedule=self._down_to(self.min_ratio))

    def _down_to(self, floor: float) -> Schedule:
        steps = whole(self.total_steps)
        if self.shape == "quarter":
            return Ramp(end=floor, steps=steps, ease=QuarterCosine())
        ease = CosineEase(waves=self.waves, exponent=self.exponent)
        if self.shape == "half":
            return Shift(schedule=Ramp(end=floor, steps=2 * steps, ease=ease), by=steps)
        if self.waves == 0.5:
            return Ramp(end=floor, steps=steps, ease=ease)
        swing = Ramp(end=floor, steps=steps, ease=ease, out_of_range="extrapolate")
        return Freeze(schedule=swing, at=steps)


class Polynomial(Named):
    """A power of the remaining time, from the base down to `min_lr`, which is then held.

    With `cycle` the horizon is prolonged by `total_steps` each time it is reached, and the rate
    jumps up to where it is on the way to the new one.
    """

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * (1 - t / total_steps) ** power for t < total_steps, then"
        " min_lr; cycle: total_steps * max(ceil(t / total_steps), 1) in its place"
    )
    source: ClassVar[str] = "torch.optim.lr_scheduler.PolynomialLR; keras PolynomialDecay (cycle)"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "power": 2.0}

    kind: Literal["polynomial"] = "polynomial"
    total_steps: StepCount
    power: Positive = 1.0
    min_lr: NonNegative = 0.0
    cycle: Flag = False

    def expand(self) -> Schedule:  # noqa: D102
        ease = Poly(power=self.power)
        if self.cycle:
            once = Ramp(end=self.min_lr, steps=1, ease=ease)
            return Prolong(schedule=once, period=self.total_steps)
        return Ramp(end=self.min_lr, steps=self.total_steps, ease=ease)


def two_floors(min_lr: float, min_ratio: float | None) -> Iterator[PydanticCustomError]:
    """Return the fault of a floor that is given twice, as a rate and as a fraction of the base."""
    if min_ratio is not None and min_lr != 0.0:
        yield PydanticCustomError(
            "two_floors",
            "The floor is `min_lr`, a learning rate, or `min_ratio`, a part of the base: give one",
        )
