"""Actions on the value of the learning rate: set, scale, cooldown, rewarm."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.actions.clock import refuse_held
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.lengths import StepCount, StepPoint, whole
from pacesetter_service.core.model import Fraction, NonNegative, Positive
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.eases import AnyEase, Linear, Power
from pacesetter_service.core.schedules.primitives import Hold, Ramp
from pacesetter_service.core.timeline import Rewarm as Rise
from pacesetter_service.core.timeline import Timeline


class Set(Action):
    """One learning rate from here on, reached at once or over a number of steps.

    It replaces the schedule, scales and holds included; controllers go on from the new rate.
    `revert` goes back to the plan.
    """

    formula: ClassVar[str] = "lr, after a ramp of `over` steps from the present value"
    example: ClassVar[dict[str, Any]] = {"lr": 0.001, "over": 100}
    sized_by: ClassVar[tuple[str, ...]] = ("lr",)

    kind: Literal["set"] = "set"
    lr: NonNegative = Field(description="the learning rate from then on")
    over: StepPoint = Field(
        default=0,
        description="the steps over which it is reached, from the present value; 0 is at once",
    )
    ease: AnyEase = Field(default=Linear(), description="the shape of the way there")

    def settles(self, at: int) -> int:  # noqa: D102
        return at + whole(self.over)

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        law: Schedule = Hold(value=self.lr)
        if self.over:
            law = Ramp(start=timeline.value(at), end=self.lr, steps=self.over, ease=self.ease)
        return timeline.start_anew(at, self.cause(), law, self.lr)

    def order(self) -> str:  # noqa: D102
        return f"set to {self.lr!r}" + (f" over {self.over} steps" if self.over else "")


class Scale(Action):
    """Multiply the learning rate by a factor, in the middle of whatever its schedule does."""

    formula: ClassVar[str] = "factor * schedule(t)"
    example: ClassVar[dict[str, Any]] = {"factor": 0.5}
    sized_by: ClassVar[tuple[str, ...]] = ("factor",)

    kind: Literal["scale"] = "scale"
    factor: Positive = Field(description="what the learning rate is multiplied by; 0.5 halves it")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        scale = timeline.segment_at(at).scale * self.factor
        return timeline.go_on(at, self.cause(), scale=scale)

    def order(self) -> str:  # noqa: D102
        return f"scaled by {self.factor!r}"


class Cooldown(Action):
    """Down to a floor, from the present value, over a number of steps or until a step.

    The floor is a learning rate (`to`) or a part of the present one (`to_fraction`, 0 if neither
    is given), and is held from then on. The default shape is that of warmup-stable-decay: one minus
    the square root of the way (Hägele et al. 2024, arXiv:2405.18392).
    """

    formula: ClassVar[str] = "ease(value(at), to, (t - at) / steps), then to"
    example: ClassVar[dict[str, Any]] = {"steps": 1000}
    sized_by: ClassVar[tuple[str, ...]] = ("to", "to_fraction")

    kind: Literal["cooldown"] = "cooldown"
    steps: StepCount | None = Field(default=None, description="over how many steps it goes down")
    until: StepPoint | None = Field(
        default=None, description="the step at which the floor is reached, in place of `steps`"
    )
    to: NonNegative | None = Field(default=None, description="the floor, as a learning rate")
    to_fraction: Fraction | None = Field(
        default=None, description="the floor, as a part of the present rate from 0 to 1"
    )
    ease: AnyEase = Field(default=Power(power=0.5), description="the shape of the way down")

    def _faults(self) -> Iterator[PydanticCustomError]:
        if (self.steps is None) == (self.until is None):
            yield PydanticCustomError("one_end", "Give `steps` or `until`, one of them")
        if self.to is not None and self.to_fraction is not None:
            yield PydanticCustomError("one_floor", "Give `to` or `to_fraction`, not both")

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: ARG002, D102
        if self._end(at) <= at:
            raise ActionRefusedError(
                f"The cooldown would begin at step {at} and end at step {self._end(at)}. "
                "Give an `until` that lies behind its beginning."
            ).about("until")
        if self._floor(timeline.value(at)) > timeline.value(at):
            raise ActionRefusedError(
                f"The rate is {timeline.value(at)!r} at step {at} already, below `to`. "
                "Use `set` with `over` to raise it."
            ).about("to")

    def settles(self, at: int) -> int:  # noqa: D102
        return self._end(at)

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        value = timeline.value(at)
        law = Ramp(start=value, end=self._floor(value), steps=self._end(at) - at, ease=self.ease)
        return timeline.start_anew(at, self.cause(), law, value)

    def _end(self, at: int) -> int:
        return at + whole(self.steps) if self.steps is not None else whole(self.until or 0)

    def _floor(self, value: float) -> float:
        return value * (self.to_fraction or 0.0) if self.to is None else self.to

    def order(self) -> str:  # noqa: D102
        end = f"over {self.steps} steps" if self.steps is not None else f"until step {self.until}"
        floor = self.to if self.to is not None else f"{self.to_fraction or 0.0} of itself"
        return f"cooled down to {floor} {end}"


class Rewarm(Action):
    """A warmup in the middle of the training: times a factor that rises to 1 in a straight line.

    What is held stays as it is until `release`, so it cannot be warmed up before.
    """

    formula: ClassVar[str] = "schedule(t) * (factor + (1 - factor) * min((t - at) / steps, 1))"
    example: ClassVar[dict[str, Any]] = {"steps": 100, "factor": 0.1}
    sized_by: ClassVar[tuple[str, ...]] = ("factor",)

    kind: Literal["rewarm"] = "rewarm"
    steps: StepCount = Field(description="over how many steps the factor rises to 1")
    factor: Fraction = Field(default=0.0, description="the factor that it rises from, 0 to 1")

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: ARG002, D102
        refuse_held(timeline, at)

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        if timeline.segment_at(at).frozen is not None:
            return timeline
        return timeline.go_on(at, self.cause(), rewarm=Rise(at, whole(self.steps), self.factor))

    def order(self) -> str:  # noqa: D102
        return f"warmed up again from {self.factor!r} over {self.steps} steps"
