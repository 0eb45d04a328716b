"""Anneals: from the base to another value over `total_steps`, in many shapes.

Each is a ramp in the shape of an ease, and holds its final value.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.model import NonNegative, Positive, Real
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze
from pacesetter_service.core.schedules.combinators import Product, Relative, Sum
from pacesetter_service.core.schedules.eases import (
    Cosine,
    Ease,
    Geometric,
    Linear,
    Poly,
    Reversed,
    Rex,
    Tanh,
    Warped,
)
from pacesetter_service.core.schedules.primitives import Hold, Ramp


class GeometricAnneal(Named):
    """From the base to `end_lr` by the same factor at every step, down or up; then `end_lr`.

    Both must be above 0. For an end that is a fraction of the base put it into `relative`.
    """

    formula: ClassVar[str] = "base * (end_lr / base) ** (t / total_steps), then end_lr"
    source: ClassVar[str] = "fastai SchedExp; speechbrain WarmAndExpDecayLRSchedule; OLMo (growing)"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "end_lr": 1e-5}

    kind: Literal["geometric"] = "geometric"
    total_steps: StepCount
    end_lr: Positive

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(end=self.end_lr, steps=self.total_steps, ease=Geometric())


class KDecay(Named):
    """A cosine or a power of the remaining time whose progress `u` is bent to `u ** k`.

    `k=1` is the plain one; above 1 the rate stays high for longer and falls faster at the end.
    """

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * shape(u ** k), u = t / total_steps, shape(v) ="
        " (1 + cos(pi * v)) / 2 or (1 - v) ** power"
    )
    source: ClassVar[str] = "Zhang and Li 2020, arXiv:2004.05909; timm's k_decay"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "k": 1.5, "min_lr": 1e-6}

    kind: Literal["k_decay"] = "k_decay"
    total_steps: StepCount
    # (2 ** 53) ** 16 is within float64.
    k: Annotated[Real, Field(gt=0, le=16)] = 1.0
    shape: Literal["cosine", "polynomial"] = "cosine"
    power: Positive = 1.0
    min_lr: NonNegative = 0.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.shape == "cosine" and self.power != 1.0:
            yield PydanticCustomError(
                "no_power", '`power` is for the shape "polynomial"; set it, or leave `power` out'
            )

    def expand(self) -> Schedule:  # noqa: D102
        ease: Ease = Cosine() if self.shape == "cosine" else Poly(power=self.power)
        bent = Warped(ease=ease, power=self.k) if self.k != 1.0 else ease
        return Ramp(end=self.min_lr, steps=self.total_steps, ease=bent)


class TanhAnneal(Named):
    """Down to `min_lr` in the shape of a hyperbolic tangent between `lb` and `ub`.

    It starts a little below the base and, at `total_steps`, jumps the rest of the way to `min_lr`.
    """

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * (1 - tanh(lb * (1 - u) + ub * u)) / 2, u = t / total_steps,"
        " then min_lr"
    )
    source: ClassVar[str] = "Hsueh et al. 2018, arXiv:1806.01593; timm TanhLRScheduler"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "min_lr": 1e-6}

    kind: Literal["tanh"] = "tanh"
    total_steps: StepCount
    min_lr: NonNegative = 0.0
    lb: Real = -7.0
    ub: Real = 3.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.lb >= self.ub:
            yield PydanticCustomError("not_ascending", "`lb` must be below `ub`; swap them")

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(end=self.min_lr, steps=self.total_steps, ease=Tanh(low=self.lb, high=self.ub))


class RexAnneal(Named):
    """Slow at first and fast at the end, down to `min_lr`.

    Two curves go by this name: `beta=0.5` is the paper's and pytorch_optimizer's, `beta=0.9`
    axolotl's. So it has no default. `beta=0` is a straight line.
    """

    formula: ClassVar[str] = (
        "min_lr + (base - min_lr) * z / (1 - beta + beta * z), z = 1 - t / total_steps, then min_lr"
    )
    source: ClassVar[str] = "Chen et al. 2021, arXiv:2107.04197; pytorch_optimizer; axolotl RexLR"
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000, "beta": 0.5}

    kind: Literal["rex"] = "rex"
    total_steps: StepCount
    beta: Annotated[Real, Field(ge=0, lt=1)]
    min_lr: NonNegative = 0.0

    def expand(self) -> Schedule:  # noqa: D102
        return Ramp(end=self.min_lr, steps=self.total_steps, ease=Rex(beta=self.beta))


class LinearCosine(Named):
    """A straight line times a cosine wave, raised by `beta`; what it ends in is held.

    TensorFlow's noisy variant adds random numbers to the line: put this into `noise` for noise that
    can be computed at any step.
    """

    formula: ClassVar[str] = (
        "base * ((alpha + 1 - u) * (1 + cos(2 * pi * num_periods * u)) / 2 + beta),"
        " u = min(t / total_steps, 1)"
    )
    source: ClassVar[str] = (
        "tf.compat.v1.train.linear_cosine_decay; Bello et al. 2017, arXiv:1709.07417"
    )
    example: ClassVar[dict[str, Any]] = {"total_steps": 1000}

    kind: Literal["linear_cosine"] = "linear_cosine"
    total_steps: StepCount
    num_periods: Positive = 0.5
    alpha: NonNegative = 0.0
    beta: NonNegative = 0.001

    def expand(self) -> Schedule:  # noqa: D102
        steps = whole(self.total_steps)
        left = Reversed(ease=Linear())
        line = Ramp(start=1.0 + self.alpha, end=self.alpha, steps=steps, ease=left)
        ease = Cosine(waves=self.num_periods)
        wave = Ramp(start=1.0, end=0.0, steps=steps, ease=ease, out_of_range="extrapolate")
        swinging = Product(schedule=line, factors=(Freeze(schedule=wave, at=steps),))
        return Relative(schedule=Sum(of=(swinging, Hold(value=self.beta))))
