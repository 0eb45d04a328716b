"""Actions on the plan itself: replace, revert."""

from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.schedules import AnySchedule
from pacesetter_service.core.schedules.ends import length_of
from pacesetter_service.core.timeline import End, Segment, Timeline


class Replace(Action):
    """Another schedule from here on.

    With `clock="local"` it begins at its own step 0, with `"global"` it is as far as if it had run
    from the session's start. With `value="base"` its base is the group's own, at the `"level"` that
    controllers have made of it or as it was; with `"continue"` the value of this step.
    """

    formula: ClassVar[str] = "another schedule(t - at), or (t) with the global clock"
    example: ClassVar[dict[str, Any]] = {"schedule": {"kind": "cosine", "total_steps": 10_000}}
    every_channel: ClassVar[bool] = True
    sized_by: ClassVar[tuple[str, ...]] = ("schedule",)

    kind: Literal["replace"] = "replace"
    schedule: AnySchedule = Field(description="the law that takes over")
    clock: Literal["local", "global"] = Field(
        default="local",
        description="where it begins: `local` at its own step 0, `global` where it would be by now",
    )
    value: Literal["base", "level", "continue"] = Field(
        default="base",
        description="what its base is: the group's own, at the `level` of controllers, or the"
        " present value",
    )

    def check_channels(self, channels: AbstractSet[str]) -> None:  # noqa: D102
        driven = set(self.schedule.channels())
        if driven != channels:
            raise ActionRefusedError(
                f"The new schedule drives {', '.join(sorted(driven))}, but the session has"
                f" {', '.join(sorted(channels))}. Name a law for each of these with `channels`."
            ).about("schedule")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: D102
        law = self.schedule.channels()[plan.channel]
        clock = float(at) if self.clock == "global" else 0.0
        base, level = plan.base, plan.base
        if self.value == "level":
            level = _with_its_cuts(timeline.segment_at(at), plan.base)
        elif self.value == "continue":
            base = level = timeline.value(at)
        end = self._end(timeline.segment_at(at), at, clock) if plan.holds else None
        return timeline.start_anew(at, self.cause(), law, base, level=level, clock=clock, end=end)

    def _end(self, before: Segment, at: int, clock: float) -> End | None:
        """Return where the new law ends: where it says so, else where the plan it joins ends."""
        length = length_of(self.schedule)
        if length is not None:
            return End(length, own=True)
        left = before.cut_off(at)
        # The old law's clock may have run at another speed; the new one advances one unit a step.
        return None if left is None else End(clock + left.clock / before.speed, own=False)

    def order(self) -> str:  # noqa: D102
        return f"went over to another schedule ({self.schedule.model_dump().get('kind')})"


class Revert(Action):
    """Go back to the plan, as far as it would be by now.

    Scales, holds, settings, retimings and the laws that a `switch` has gone over to end; what
    controllers have cut stays cut.
    """

    formula: ClassVar[str] = "the session's schedule(t), at the level of its controllers"
    example: ClassVar[dict[str, Any]] = {}
    every_channel: ClassVar[bool] = True

    kind: Literal["revert"] = "revert"

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: D102
        level = _with_its_cuts(timeline.segment_at(at), plan.base)
        return timeline.start_anew(
            at, self.cause(), plan.schedule, plan.base, level=level, clock=float(at), end=plan.end
        )

    def order(self) -> str:  # noqa: D102
        return "went back to the plan"


def _with_its_cuts(segment: Segment, base: float) -> float:
    """Return the base, scaled as controllers have scaled the segment's own base."""
    if segment.base == base:
        return segment.level
    return base * (segment.level / segment.base) if segment.base else base
