"""Switch: change to another schedule when a metric says so."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.controllers.base import (
    Controller,
    ControllerState,
    Observation,
    Sample,
    Transition,
    Verdict,
)
from pacesetter_service.core.controllers.predicates import AnyPredicate, AnyPredicateState
from pacesetter_service.core.model import Model, Step
from pacesetter_service.core.schedules import AnySchedule


class Stage(Model):
    """When to go over to a schedule, and from which value it starts.

    `value` is what the schedule's base is: the group's own (`base`), that at the level which
    controllers have made of it (`level`), or the last value before it (`continue`).
    """

    when: AnyPredicate = Field(description="the predicate that ends the stage before")
    schedule: AnySchedule = Field(description="the law of this stage, from its own step 0")
    value: Literal["base", "level", "continue"] = Field(
        default="level",
        description=(
            "what its base is: the group's own, at the `level` of controllers, or the last "
            "value before it"
        ),
    )

    @property
    def transition(self) -> Transition:
        """What is ordered when the stage begins."""
        return Transition(schedule=self.schedule, value=self.value)


class SwitchState(ControllerState):
    """How many stages have begun, where, and the state of the next one's predicate, if any."""

    stage: Step = 0
    since: Step = 0
    predicate: AnyPredicateState | None = None


class Switch(Controller):
    """Go over to the schedule of the next stage when its predicate `when` holds.

    The session's own schedule governs until the first stage. Each stage's schedule starts on a
    clock of its own, at 0, in the step from which the decision holds: `{"kind": "cosine",
    "total_steps": 1000}` then takes 1,000 steps, whenever that is. A predicate begins with the
    first measurement of its predecessor's stage, so the patience of one stage is not used up by
    another.
    The trainer is told `switched`.

    Predicates: `plateaued`, `slope`, `below`, `above`, `spike`, `step`, `by_hand`, and `any_of` and
    `all_of` of them. `by_hand` waits for an operator. All read the one metric of this controller.

    - `value="level"` (the default): what controllers have cut stays cut.
    - `value="base"`: the group's base as the session was created with; cuts are forgotten.
    - `value="continue"`: without a jump. Of a schedule that starts at its base, such as `cosine`,
      the first value is the last one before it, to the bit (with a `min_lr`, to the rounding of
      its formula); of one with a warmup it is where the warmup leads to. After a rate of 0 it
      stays 0.

    All groups go over together, and all channels: a session that drives momentum needs `channels`
    in each stage. A schedule in absolute numbers, such as `one_cycle`, has those numbers at the
    base; with `level` it is cut as the level is.

    **Traps.** Lengths in `fraction` are of the session's `total_steps`, not of what is left of it.
    The decision holds from the first step that is not handed out yet, so with a large
    `max_lookahead` it comes late. For a stage that begins at a step and at no other there is
    `sequence`. `spike` is shown no NaN if the metric's policy for them is `ignore` or `guard`.
    """

    State: ClassVar[type[ControllerState]] = SwitchState
    formula: ClassVar[str] = "law = stages[i].schedule, from 0, once stages[i].when holds"
    source: ClassVar[str] = "its own; cf. SALSA's switch (statopt.SALSA), from tests to policies"
    example: ClassVar[dict[str, Any]] = {
        "metric": "val_loss",
        "stages": [
            {
                "when": {"kind": "plateaued", "patience": 5},
                "schedule": {"kind": "cosine", "total_steps": 1000},
            }
        ],
    }

    kind: Literal["switch"] = "switch"
    stages: Annotated[tuple[Stage, ...], Field(max_length=64)]

    def _faults(self) -> Iterator[PydanticCustomError]:
        if not self.stages:
            yield PydanticCustomError("no_stage", "Name a stage to go over to in `stages`")

    @property
    def transitions(self) -> tuple[Transition, ...]:  # noqa: D102
        return tuple(stage.transition for stage in self.stages)

    def init(self) -> SwitchState:  # noqa: D102
        return self._at(0, 0)

    def observe(self, state: SwitchState, seen: Sample) -> Observation:  # noqa: D102
        if state.predicate is None or seen.step < state.since:
            return Observation(state)
        judgement = self.stages[state.stage].when.observe(state.predicate, seen.step, seen.value)
        if judgement.holds:
            return self._next(state, seen.at, f"{seen.metric}: {judgement.why}")
        return Observation(state.model_copy(update={"predicate": judgement.state}))

    def next_stage(self, state: ControllerState, at: int, reason: str = "by hand") -> Observation:
        """Go on to the next stage at a step, whatever its predicate says; if there is one."""
        assert isinstance(state, SwitchState)  # noqa: S101 - each controller gets its own state back
        return Observation(state) if state.predicate is None else self._next(state, at, reason)

    def _next(self, state: SwitchState, at: int, why: str) -> Observation:
        stage, number = self.stages[state.stage], state.stage + 1
        reason = f"{why}; stage {number} of {len(self.stages)} begins: {_kind(stage.schedule)}"
        return Observation(
            self._at(number, at),
            Verdict(reason, transition=stage.transition, advice="switched"),
        )

    def _at(self, stage: int, step: int) -> SwitchState:
        """Return the state in which a stage has begun at a step, with nothing measured since."""
        if stage == len(self.stages):
            return SwitchState(stage=stage, since=step)
        return SwitchState(stage=stage, since=step, predicate=self.stages[stage].when.init())


def _kind(schedule: Model) -> str:
    kind: str = type(schedule).model_fields["kind"].default
    return kind
