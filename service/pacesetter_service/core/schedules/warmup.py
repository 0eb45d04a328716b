"""Warmup in front of any schedule, in each way that libraries do it."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import StepPoint, whole
from pacesetter_service.core.model import NonNegative, ZeroOrOne
from pacesetter_service.core.schedules.base import AnySchedule, Base, Schedule, Steps, Values
from pacesetter_service.core.schedules.clocks import Delay
from pacesetter_service.core.schedules.combinators import drives
from pacesetter_service.core.schedules.cost import Cost, Pricing
from pacesetter_service.core.schedules.eases import AnyEase, Linear
from pacesetter_service.core.schedules.out_of_range import OutOfRange


class Warmup(Schedule):
    """Rise to a schedule's value over the first `steps` steps.

    The factor goes from `start_factor` to 1 in the shape of `ease`; `offset=1` makes the first step
    use the factor of step 1, so that it does not train with a learning rate of 0. A warmup of 0
    steps is none: the schedule itself.

    `mode` says what the factor multiplies, and which clock the schedule sees afterwards:

    ========  ==========================  ===================
    mode      during the warmup           afterwards
    ========  ==========================  ===================
    prefix    the schedule's first value  schedule(t - steps)
    overlay   the base                    schedule(t), a jump
    multiply  schedule(t)                 schedule(t)
    replace   schedule(steps)             schedule(t), smooth
    ========  ==========================  ===================

    Channels other than `lr` are not warmed: they wait at their first value with `prefix` and follow
    the schedule's clock otherwise.
    """

    formula: ClassVar[str] = (
        "target * (start_factor + (1 - start_factor) * ease((t + offset) / steps)) for t < steps,"
        " then the schedule"
    )
    source: ClassVar[str] = (
        "prefix: torch SequentialLR, optax; overlay: timm; multiply: pytorch-warmup;"
        " replace: fvcore"
    )
    example: ClassVar[dict[str, Any]] = {
        "schedule": {"kind": "cosine", "total_steps": 900},
        "steps": 100,
    }

    passes: ClassVar[float] = 12.0

    kind: Literal["warmup"] = "warmup"
    schedule: AnySchedule
    steps: StepPoint
    start_factor: NonNegative = 0.0
    ease: AnyEase = Linear()
    mode: Literal["prefix", "overlay", "multiply", "replace"] = "prefix"
    offset: ZeroOrOne = 0

    def cost(self, of: Pricing) -> Cost:  # noqa: D102
        # The value that a warmup aims at costs another evaluation, at each step if the base varies.
        aims = self.mode in ("prefix", "replace")
        return self.own_cost() + of(self.ease) + of(self.schedule) * (2 if aims else 1)

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        law = self.schedule.channels()["lr"]
        steps = float(whole(self.steps))
        after = law.values(t - steps if self.mode == "prefix" else t, base)
        warming = t < steps
        if steps == 0.0 or not warming.any():  # true of most windows of most trainings
            return after
        rising = self._rise(law, after, base, np.clip(t, 0.0, steps))
        return np.where(warming, rising, after)

    def _rise(self, law: Schedule, after: Values, base: Base, t: Steps) -> Values:
        elapsed, duration = t + self.offset, float(whole(self.steps))
        target: Base
        match self.mode:
            case "prefix":
                target = _value_at(0.0, law, base, t)
            case "overlay":
                target = base
            case "replace":
                target = _value_at(duration, law, base, t)
            case "multiply":
                return after * self.ease.between(self.start_factor, 1.0, elapsed, duration)
        return self.ease.between(self.start_factor * target, target, elapsed, duration)

    def channels(self) -> dict[str, Schedule]:  # noqa: D102
        laws = self.schedule.channels()
        others = {name: self._delayed(law) for name, law in laws.items() if name != "lr"}
        return {"lr": self.model_copy(update={"schedule": laws["lr"]})} | others

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.schedule.range_policy()

    def _delayed(self, law: Schedule) -> Schedule:
        if self.mode != "prefix":
            return law
        return Delay(schedule=law, by=self.steps)


def _value_at(step: float, law: Schedule, base: Base, t: Steps) -> Base:
    """Return a law's value at one step, for all of `t`: one number unless the base varies."""
    if isinstance(base, np.ndarray):
        return law.values(np.full_like(t, step), base)
    return float(law.values(np.array([step]), base)[0])


class Splice(Schedule):
    """One law for some steps and then another, without saying the value at the joint twice.

    Where the second law starts with the very value that the first one ends with, it goes on from
    its step 1; otherwise from its step 0. With `steps=0` it is the second law alone.
    """

    formula: ClassVar[str] = (
        "first(t) for t < steps, then second(t - steps), or second(t - steps + 1)"
        " if second(0) = first(steps - 1)"
    )
    source: ClassVar[str] = "ignite create_lr_scheduler_with_warmup"
    example: ClassVar[dict[str, Any]] = {
        "first": {"kind": "ramp", "start": 0.0, "end": "base", "steps": 99},
        "steps": 100,
        "second": {"kind": "cosine", "total_steps": 900},
    }

    kind: Literal["splice"] = "splice"
    first: AnySchedule
    steps: StepPoint
    second: AnySchedule

    def _faults(self) -> Iterator[PydanticCustomError]:
        if any(len(drives(law) or ()) > 1 for law in (self.first, self.second)):
            yield PydanticCustomError(
                "nested_channels",
                "Laws that are spliced can drive one value only; splice inside `channels`",
            )

    def cost(self, of: Pricing) -> Cost:  # noqa: D102
        return self.own_cost() + (of(self.first) + of(self.second)) * 2

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102
        steps = float(whole(self.steps))
        if steps == 0.0:
            return self.second.values(t, base)
        end = self.first.values(np.full_like(t, steps - 1.0), base)
        said = end == self.second.values(np.zeros_like(t), base)
        second = self.second.values(np.maximum(t - steps + said, 0.0), base)
        return np.where(t < steps, self.first.values(np.minimum(t, steps - 1.0), base), second)

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.second.range_policy()
