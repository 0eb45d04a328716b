"""Actions on the clock: hold, release, retime."""

from typing import ClassVar, Literal

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.schedules.clocks import Part, Sequence, Shift
from pacesetter_service.core.schedules.primitives import Hold as Constant
from pacesetter_service.core.timeline import Timeline


class Hold(Action):
    """Stop the clock: the value of this step stays until `release`."""

    formula: ClassVar[str] = "schedule(t at `at`)"
    every_channel: ClassVar[bool] = True

    kind: Literal["hold"] = "hold"

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: ARG002, D102
        if timeline.segment_at(at).frozen is not None:
            raise ActionRefusedError("It is held already. Use `release` to let it go on.")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        if timeline.segment_at(at).frozen is not None:
            return timeline
        return timeline.go_on(at, self.cause(), frozen=at)

    def order(self) -> str:  # noqa: D102
        return "held"


class Release(Action):
    """Go on where `hold` stopped the clock."""

    formula: ClassVar[str] = "schedule(t - steps held)"
    every_channel: ClassVar[bool] = True

    kind: Literal["release"] = "release"

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: ARG002, D102
        if timeline.segment_at(at).frozen is None:
            raise ActionRefusedError("Nothing is held there. Use `hold` first.")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        return timeline.thawed(at, self.cause())

    def order(self) -> str:  # noqa: D102
        return "released"


class Retime(Action):
    """Make the rest of the plan end at another step.

    With `rescale` the clock goes faster or slower from here on, so that what is left of the law
    fills the steps that are left. With `keep_then_tail` the present value is kept for the steps
    that were gained and the rest of the law follows unchanged: for stable phases, and for longer
    runs only. `ends_at` says where the law ends now; the session's total_steps if not given.
    """

    formula: ClassVar[str] = "schedule(t0 + (t - at) * left of the law / steps left)"
    every_channel: ClassVar[bool] = True

    kind: Literal["retime"] = "retime"
    total_steps: StepCount
    ends_at: StepCount | None = None
    policy: Literal["rescale", "keep_then_tail"] = "rescale"

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: D102
        if self.ends_at is None and plan.total_steps is None:
            raise ActionRefusedError(
                "Nobody knows where the law ends now. Say so with `ends_at`, or create sessions"
                " with `total_steps`."
            )
        left, new = self._left(timeline, at, plan), self._new(at)
        if new <= 0:
            raise ActionRefusedError(
                f"Step {whole(self.total_steps)} lies behind: the order holds from step {at}."
            )
        if left <= 0:
            raise ActionRefusedError(
                f"The law has ended by step {at}: there is nothing left to retime. "
                "Use `replace` for a new law."
            )
        if self.policy == "keep_then_tail" and new < left:
            raise ActionRefusedError(
                f"{new} steps are fewer than the {left:g} that are left of the law. "
                'Use policy "rescale", or `cooldown`.'
            )

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: D102
        segment, left, new = timeline.segment_at(at), self._left(timeline, at, plan), self._new(at)
        if self.policy == "rescale" or new <= left:
            return timeline.go_on(at, self.cause(), pace=segment.pace * (left / new))
        kept, clock = new - left, segment.clock_at(at)
        value = float(segment.plain(at))
        law = Sequence(
            parts=(
                Part(schedule=Constant(value=value), steps=kept * segment.pace),
                Part(schedule=Shift(schedule=segment.schedule, by=clock)),
            )
        )
        return timeline.go_on(at, self.cause(), schedule=law, clock=0.0)

    def _left(self, timeline: Timeline, at: int, plan: Plan) -> float:
        """Give how many steps are left of the law at its present pace."""
        segment = timeline.segment_at(at)
        end = whole(self.ends_at) if self.ends_at is not None else plan.total_steps or 0
        return (end - segment.clock_at(at)) / segment.pace

    def _new(self, at: int) -> int:
        return whole(self.total_steps) - at

    def order(self) -> str:  # noqa: D102
        return f"retimed to end at step {self.total_steps} ({self.policy})"
