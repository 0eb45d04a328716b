"""Presets of mmengine, by its own names, parameters and defaults.

As in mmengine, lengths are in epochs unless `by_epoch` is false. Epochs need the session's
`steps_per_epoch`, and the rate then changes once an epoch; with `convert_to_iter_based` it changes
at each step. Either way the lengths may be written in other units, `{"fraction": 0.5}`. `every` is
how many steps one count of a schedule takes; it follows from these and need not be given.

A schedule is active from `begin` until before `end`, and its last value is held from there on. So a
decay that ends "at `end`" does so at the last count before it. mmengine multiplies the rate that it
finds; these are its closed forms. Its *Momentum schedulers are the same laws, for `channels`, and
ReduceOnPlateauLR is the controller `plateau`.
"""

from math import isclose
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacesetter_service.catalogue.mmengine_windows import Windowed
from pacesetter_service.core.lengths import StepCount, StepPoint
from pacesetter_service.core.model import Flag, Fraction, NonNegative, Positive
from pacesetter_service.core.schedules.base import AnySchedule, Named, Schedule
from pacesetter_service.core.schedules.clocks import Freeze, Part, Sequence
from pacesetter_service.core.schedules.combinators import Product, Rebase, Relative
from pacesetter_service.core.schedules.eases import Cosine, Poly
from pacesetter_service.core.schedules.named.cycles import Divisor, OneCycle, Rate
from pacesetter_service.core.schedules.named.decays import MultiStep
from pacesetter_service.core.schedules.primitives import Exponential, Hold, Ramp
from pacesetter_service.core.schedules.tables import MAX_PIECES, PiecewiseConstant


class StepLR(Windowed):
    """Multiply the rate by `gamma` every `step_size`."""

    formula: ClassVar[str] = "base * gamma ** floor((t - begin) / step_size) for begin <= t < end"
    source: ClassVar[str] = "mmengine.optim.scheduler.StepLR"
    example: ClassVar[dict[str, Any]] = {"step_size": 30, "gamma": 0.1, "by_epoch": False}

    kind: Literal["mmengine.StepLR"] = "mmengine.StepLR"
    lengths: ClassVar[tuple[str, ...]] = ("step_size",)
    step_size: StepCount
    gamma: NonNegative = 0.1

    def law(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma, per=self.counts(self.step_size), staircase=True)


class MultiStepLR(Windowed):
    """Multiply the rate by `gamma` at each milestone; one named twice counts twice.

    As in mmengine, milestones count from `begin`.
    """

    formula: ClassVar[str] = (
        "base * gamma ** (number of milestones <= t - begin) for begin <= t < end"
    )
    source: ClassVar[str] = "mmengine.optim.scheduler.MultiStepLR"
    example: ClassVar[dict[str, Any]] = {"milestones": [30, 80], "gamma": 0.1, "by_epoch": False}

    kind: Literal["mmengine.MultiStepLR"] = "mmengine.MultiStepLR"
    lengths: ClassVar[tuple[str, ...]] = ("milestones",)
    milestones: Annotated[tuple[StepPoint, ...], Field(max_length=MAX_PIECES)]
    gamma: NonNegative = 0.1

    def law(self) -> Schedule:  # noqa: D102
        milestones = tuple(self.counts(milestone) for milestone in self.milestones)
        return MultiStep(milestones=milestones, gamma=self.gamma)


class ConstantLR(Windowed):
    """Reduce the rate by a factor, until it comes back at the last count before `end`.

    As in mmengine, a window of one count is reduced for good. mmengine divides by zero at the end
    of a factor of 0; this does not.
    """

    formula: ClassVar[str] = "base * (factor if begin <= t < end - 1 else 1)"
    source: ClassVar[str] = "mmengine.optim.scheduler.ConstantLR"
    example: ClassVar[dict[str, Any]] = {"factor": 0.5, "end": 100, "by_epoch": False}

    kind: Literal["mmengine.ConstantLR"] = "mmengine.ConstantLR"
    factor: Fraction = 1.0 / 3

    def law(self) -> Schedule:  # noqa: D102
        if self.span == 1:
            return Relative(schedule=Hold(value=self.factor))
        levels = (self.factor, 1.0)
        return Relative(schedule=PiecewiseConstant(boundaries=(self.span - 1,), levels=levels))


class ExponentialLR(Windowed):
    """Multiply the rate by `gamma` at each count."""

    formula: ClassVar[str] = "base * gamma ** (t - begin) for begin <= t < end"
    source: ClassVar[str] = "mmengine.optim.scheduler.ExponentialLR"
    example: ClassVar[dict[str, Any]] = {"gamma": 0.99, "by_epoch": False}

    kind: Literal["mmengine.ExponentialLR"] = "mmengine.ExponentialLR"
    gamma: NonNegative

    def law(self) -> Schedule:  # noqa: D102
        return Exponential(gamma=self.gamma)


class LinearLR(Windowed):
    """From one factor of the rate to another in a straight line.

    As in mmengine, the second factor is reached at the last count before `end`. mmengine divides by
    zero after a `start_factor` of 0; this does not.
    """

    formula: ClassVar[str] = (
        "base * (start_factor + (end_factor - start_factor) * (t - begin) / (end - begin - 1))"
        " for begin <= t < end"
    )
    source: ClassVar[str] = "mmengine.optim.scheduler.LinearLR"
    example: ClassVar[dict[str, Any]] = {"start_factor": 0.001, "end": 100, "by_epoch": False}

    kind: Literal["mmengine.LinearLR"] = "mmengine.LinearLR"
    start_factor: Fraction = 1.0 / 3
    end_factor: Fraction = 1.0

    def law(self) -> Schedule:  # noqa: D102
        if self.span == 1:
            return Relative(schedule=Hold(value=self.start_factor))
        line = Ramp(start=self.start_factor, end=self.end_factor, steps=self.span - 1)
        return Relative(schedule=line)


class PolyLR(Windowed):
    """A power of the remaining time down to `eta_min`, at the last count before `end`."""

    formula: ClassVar[str] = (
        "eta_min + (base - eta_min) * (1 - (t - begin) / (end - begin - 1)) ** power"
        " for begin <= t < end"
    )
    source: ClassVar[str] = "mmengine.optim.scheduler.PolyLR"
    example: ClassVar[dict[str, Any]] = {
        "eta_min": 1e-4,
        "power": 0.9,
        "end": 1000,
        "by_epoch": False,
    }

    kind: Literal["mmengine.PolyLR"] = "mmengine.PolyLR"
    eta_min: NonNegative = 0.0
    power: Positive = 1.0

    def law(self) -> Schedule:  # noqa: D102
        if self.span == 1:
            return Hold()
        return Ramp(end=self.eta_min, steps=self.span - 1, ease=Poly(power=self.power))

    def is_factor(self) -> bool:  # noqa: D102
        return self.eta_min == 0


class CosineAnnealingLR(Windowed):
    """Half a cosine wave down to `eta_min`, or to a part `eta_min_ratio` of the base.

    As in mmengine, `T_max` is the length of the window unless given, so that the last count before
    `end` stays above `eta_min`; and where the window is longer than `T_max`, the rate rises again.
    """

    formula: ClassVar[str] = (
        "eta_min + (base - eta_min) * (1 + cos(pi * (t - begin) / T_max)) / 2 for begin <= t < end"
    )
    source: ClassVar[str] = "mmengine.optim.scheduler.CosineAnnealingLR"
    example: ClassVar[dict[str, Any]] = {"T_max": 1000, "eta_min": 1e-5, "by_epoch": False}

    kind: Literal["mmengine.CosineAnnealingLR"] = "mmengine.CosineAnnealingLR"
    lengths: ClassVar[tuple[str, ...]] = ("T_max",)
    T_max: StepCount | None = None
    eta_min: NonNegative | None = None
    eta_min_ratio: NonNegative | None = None

    @model_validator(mode="after")
    def _one_floor(self) -> Self:
        if self.eta_min is not None and self.eta_min_ratio is not None:
            raise PydanticCustomError("two_floors", "Give `eta_min` or `eta_min_ratio`, not both")
        return self

    @property
    def _way(self) -> int:
        return self.span if self.T_max is None else self.counts(self.T_max)

    def law(self) -> Schedule:  # noqa: D102
        wave = {"steps": self._way, "ease": Cosine(), "out_of_range": "bounce"}
        if self.eta_min_ratio is not None:
            return Relative(schedule=Ramp(start=1.0, end=self.eta_min_ratio, **wave))
        return Ramp(end=self.eta_min or 0.0, **wave)

    def is_factor(self) -> bool:  # noqa: D102
        return not self.eta_min and not self.eta_min_ratio and self.span <= self._way + 1

    def looks_back(self) -> bool:  # noqa: D102
        return bool(self.eta_min_ratio) or self.span > self._way + 1


class OneCycleLR(Windowed):
    """Up to `eta_max` and down to almost nothing, in two or three phases.

    As in mmengine it is torch's OneCycleLR without momentum. `eta_max` has no default here, as
    mmengine's 0 trains nothing. Past `total_steps` mmengine fails; here the last value is held.
    """

    formula: ClassVar[str] = "one_cycle(eta_max, total_steps = end - begin) for begin <= t < end"
    source: ClassVar[str] = "mmengine.optim.scheduler.OneCycleLR"
    example: ClassVar[dict[str, Any]] = {"eta_max": 0.1, "total_steps": 1000, "by_epoch": False}

    kind: Literal["mmengine.OneCycleLR"] = "mmengine.OneCycleLR"
    lengths: ClassVar[tuple[str, ...]] = ("total_steps",)
    eta_max: Rate
    total_steps: StepCount | None = None
    pct_start: Fraction = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    div_factor: Divisor = 25.0
    final_div_factor: Divisor = 1e4
    three_phase: Flag = False

    @model_validator(mode="after")
    def _phases_ascend(self) -> Self:
        if self.is_resolved():
            self.law()
        return self

    def law(self) -> Schedule:  # noqa: D102
        total = self.span if self.total_steps is None else self.counts(self.total_steps)
        return OneCycle(
            max_lr=self.eta_max,
            total_steps=total,
            pct_start=self.pct_start,
            anneal_strategy=self.anneal_strategy,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
            three_phase=self.three_phase,
        )

    def is_factor(self) -> bool:  # noqa: D102
        return False


class CosineRestartLR(Windowed):
    """Half a cosine wave down from a part of the base in each of several periods.

    As in mmengine each period has its weight, of which the default is one, and after the last
    period its last value is held, which is not yet the floor.
    """

    formula: ClassVar[str] = (
        "eta_min + (base * restart_weights[i] - eta_min) * (1 + cos(pi * t_i / periods[i])) / 2"
        " in period i, for begin <= t < end"
    )
    source: ClassVar[str] = "mmengine.optim.scheduler.CosineRestartLR"
    example: ClassVar[dict[str, Any]] = {
        "periods": [100, 200, 400],
        "restart_weights": [1.0, 0.5, 0.25],
        "eta_min": 1e-5,
        "by_epoch": False,
    }

    kind: Literal["mmengine.CosineRestartLR"] = "mmengine.CosineRestartLR"
    lengths: ClassVar[tuple[str, ...]] = ("periods",)
    periods: Annotated[tuple[StepCount, ...], Field(min_length=1, max_length=256)]
    restart_weights: Annotated[tuple[NonNegative, ...], Field(max_length=256)] = (1.0,)
    eta_min: NonNegative | None = None
    eta_min_ratio: NonNegative | None = None

    @model_validator(mode="after")
    def _one_floor(self) -> Self:
        if (self.eta_min is None) == (self.eta_min_ratio is None):
            raise PydanticCustomError("no_floor", "Give either `eta_min` or `eta_min_ratio`")
        return self

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if len(self.periods) != len(self.restart_weights):
            raise PydanticCustomError(
                "wrong_number_of_weights", "Give one of `restart_weights` for each of the `periods`"
            )
        return self

    def law(self) -> Schedule:  # noqa: D102
        lengths = [self.counts(period) for period in self.periods]
        parts = (
            Part(schedule=self._period(length, weight), steps=length)
            for length, weight in zip(lengths, self.restart_weights, strict=True)
        )
        return Freeze(schedule=Sequence(parts=tuple(parts)), at=sum(lengths) - 1)

    def _period(self, steps: int, weight: float) -> Schedule:
        if self.eta_min_ratio is not None:
            wave = Ramp(start=weight, end=self.eta_min_ratio, steps=steps, ease=Cosine())
            return Relative(schedule=wave)
        return Rebase(schedule=Ramp(end=self.eta_min or 0.0, steps=steps, ease=Cosine()), by=weight)

    def is_factor(self) -> bool:  # noqa: D102
        return False

    def looks_back(self) -> bool:  # noqa: D102
        return True


class ParamScheduler(Named):
    """Several schedules of mmengine at once, as the `param_scheduler` of a config lists them.

    Each goes on from the rate that it finds. Those that only multiply may be active together, such
    as a warmup and a multi-step decay; one that aims at a floor above 0 has its window to itself. A
    schedule of the list may have mmengine's `type` in the place of a `kind`.
    """

    formula: ClassVar[str] = "one after the other, from the rate that is found; factors multiply"
    source: ClassVar[str] = "mmengine.hooks.ParamSchedulerHook; mmengine.runner.Runner"
    example: ClassVar[dict[str, Any]] = {
        "schedulers": [
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "end": 100},
            {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 100, "end": 1000},
        ]
    }

    kind: Literal["mmengine.param_scheduler"] = "mmengine.param_scheduler"
    schedulers: Annotated[tuple[AnySchedule, ...], Field(min_length=1, max_length=64)]

    @field_validator("schedulers", mode="before")
    @classmethod
    def _types_are_kinds(cls, schedulers: Any) -> Any:  # noqa: ANN401 - whatever a caller sent
        if not isinstance(schedulers, list | tuple):
            return schedulers
        return tuple(map(_of_type, schedulers))

    @field_validator("schedulers")
    @classmethod
    def _of_mmengine(cls, schedulers: tuple[Schedule, ...]) -> tuple[Schedule, ...]:
        if not all(isinstance(each, Windowed) for each in schedulers):
            raise PydanticCustomError(
                "not_of_mmengine",
                "Only schedules of mmengine can be in this list; join others with `sequence`",
            )
        if len(schedulers) > 1 and any(isinstance(each, OneCycleLR) for each in schedulers):
            raise PydanticCustomError(
                "one_cycle_among_others",
                "OneCycleLR changes what the others start from in mmengine; leave it by itself",
            )
        return schedulers

    @model_validator(mode="after")
    def _has_a_closed_form(self) -> Self:
        if not all(each.is_resolved() for each in self._members):
            return self
        groups = self._groups()
        for index, group in enumerate(groups):
            if len(group) > 1 and not all(each.is_factor() for each in group):
                raise PydanticCustomError(
                    "overlapping_windows",
                    "A schedule with a floor above 0, or with restarts, is active together with"
                    " another one; let one begin where the other ends",
                )
            if group[0].looks_back() and not self._leave_the_base(groups[:index]):
                raise PydanticCustomError(
                    "not_from_the_base",
                    "A schedule that aims at a part of the base, by `eta_min_ratio`, by restarts or"
                    " by a `T_max` before its end, finds another rate than the base; put it first,"
                    " after a warmup to a factor of 1, or give `eta_min`",
                )
        return self

    @property
    def _members(self) -> list[Windowed]:
        return [each for each in self.schedulers if isinstance(each, Windowed)]

    def _groups(self) -> list[list[Windowed]]:
        """Return the schedules in the order of time; those active together form a group."""
        groups: list[list[Windowed]] = []
        for each in sorted(self._members, key=lambda each: each.window[0]):
            if groups and each.window[0] < max(other.window[1] for other in groups[-1]):
                groups[-1].append(each)
            else:
                groups.append([each])
        return groups

    def _leave_the_base(self, groups: list[list[Windowed]]) -> bool:
        """Return whether these schedules end with the base itself as the rate."""
        if not all(each.is_factor() for group in groups for each in group):
            return False
        last = max((each.window[1] for group in groups for each in group), default=0)
        left = _joined(groups).values(np.array([float(last)]), 1.0) if groups else [1.0]
        return isclose(left[0], 1.0, rel_tol=1e-12)

    def expand(self) -> Schedule:  # noqa: D102
        return _joined(self._groups())


def _joined(groups: list[list[Windowed]]) -> Schedule:
    """Put groups one after the other, each from the rate that the group before it has left."""
    begins = [group[0].window[0] for group in groups]
    laws = [_together(group, begin) for group, begin in zip(groups, begins, strict=True)]
    if begins[0] > 0:
        begins, laws = [0, *begins], [Hold(), *laws]
    parts = [Part(schedule=law, until=until) for law, until in zip(laws, begins[1:], strict=False)]
    return Sequence(parts=(*parts, Part(schedule=laws[-1])), value="continue")


def _together(group: list[Windowed], begin: int) -> Schedule:
    if len(group) == 1:
        return group[0].since(begin)
    return Product(schedule=Hold(), factors=tuple(each.since(begin) for each in group))


def _of_type(schedule: object) -> object:
    """Replace the `type` of mmengine's registry in a schedule by the schedule's kind."""
    if not isinstance(schedule, dict) or "kind" in schedule or "type" not in schedule:
        return schedule
    rest = {name: value for name, value in schedule.items() if name != "type"}
    return {"kind": f"mmengine.{schedule['type']}"} | rest
