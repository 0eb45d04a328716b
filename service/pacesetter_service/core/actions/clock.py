"""Actions on the clock: hold, release, retime."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pacesetter_service.core.actions.base import Action, Plan
from pacesetter_service.core.errors import ActionRefusedError
from pacesetter_service.core.lengths import StepCount, whole
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.clocks import Part, Sequence, Shift
from pacesetter_service.core.schedules.ends import end_of, is_constant
from pacesetter_service.core.schedules.primitives import Hold as Constant
from pacesetter_service.core.timeline import End, Timeline


class Hold(Action):
    """Stop the clock: the value of this step stays until `release`.

    Controllers and the other orders that change the height still do so.
    """

    formula: ClassVar[str] = "schedule(t at `at`)"
    example: ClassVar[dict[str, Any]] = {}
    idle: ClassVar[str] = "It is held already. Use `release` to let it go on."
    every_channel: ClassVar[bool] = True

    kind: Literal["hold"] = "hold"

    def moves(self, timeline: Timeline, at: int) -> bool:  # noqa: D102
        return timeline.segment_at(at).frozen is None

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        return timeline.go_on(at, self.cause(), frozen=at) if self.moves(timeline, at) else timeline

    def order(self) -> str:  # noqa: D102
        return "held"


class Release(Action):
    """Go on where `hold` stopped the clock, with the step after the one whose value was kept."""

    formula: ClassVar[str] = "schedule(t - steps held)"
    example: ClassVar[dict[str, Any]] = {}
    idle: ClassVar[str] = "Nothing is held there. Use `hold` first."
    every_channel: ClassVar[bool] = True

    kind: Literal["release"] = "release"

    def moves(self, timeline: Timeline, at: int) -> bool:  # noqa: D102
        return timeline.segment_at(at).frozen is not None

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: ARG002, D102
        if timeline.segment_at(at).frozen == at:  # held and released at one step: no value was kept
            return timeline.go_on(at, self.cause(), frozen=None)
        return timeline.thawed(at, self.cause())

    def order(self) -> str:  # noqa: D102
        return "released"


class Retime(Action):
    """Make the rest of the plan end at another step.

    With `rescale` the clock goes faster or slower from here on, so that what is left of the law
    fills the steps that are left. With `keep_then_tail` the present value is kept for the steps
    that were gained and the rest of the law follows unchanged: for stable phases, and for longer
    runs only.

    Where the law ends now is its own `total_steps` (or the length of a ramp that an order has
    begun), else the session's `total_steps`. `ends_at` says it for laws that do not: the step at
    which the law would end if nothing were ordered. Constant laws are left as they are.
    """

    formula: ClassVar[str] = "schedule(t0 + (t - at) * left of the law / steps left)"
    example: ClassVar[dict[str, Any]] = {"total_steps": 120_000}
    idle: ClassVar[str] = (
        "The law is constant there: there is no end to move. Use `cooldown`, or `replace`."
    )
    every_channel: ClassVar[bool] = True
    sized_by: ClassVar[tuple[str, ...]] = ("total_steps",)

    kind: Literal["retime"] = "retime"
    total_steps: StepCount = Field(description="the step at which the plan is to end")
    ends_at: StepCount | None = Field(
        default=None,
        description="the step at which the law ends if nothing is ordered, for laws that do not"
        " say so",
    )
    policy: Literal["rescale", "keep_then_tail"] = Field(
        default="rescale",
        description=(
            "`rescale` makes the clock faster or slower; `keep_then_tail` keeps the present"
            " value first"
        ),
    )

    def moves(self, timeline: Timeline, at: int) -> bool:  # noqa: D102
        return not is_constant(timeline.segment_at(at).schedule)

    def check(self, timeline: Timeline, at: int, plan: Plan) -> None:  # noqa: D102
        refuse_held(timeline, at)
        left, new = self._left(timeline, at, plan), self._new(at)
        if new <= 0:
            raise ActionRefusedError(
                f"Step {whole(self.total_steps)} lies behind: the order holds from step {at}."
                " Give a later `total_steps`."
            ).about("total_steps")
        if left is None:
            raise ActionRefusedError(
                f"It is not known where the law of {plan.channel} ends now. Say so with `ends_at`,"
                " or create sessions with `total_steps`."
            ).about("ends_at")
        if left <= 0:
            raise ActionRefusedError(
                f"The law of {plan.channel} has ended by step {at}: there is nothing left to"
                " retime. Use `replace` for a new law."
            )
        wrapped = _times_kept(timeline.segment_at(at).schedule)
        if self.policy == "keep_then_tail" and wrapped >= MAX_KEPT:
            raise ActionRefusedError(
                f"The rest of the law was put off {MAX_KEPT} times already. "
                "Use `replace` with the law that is to follow."
            ).about("policy")
        if self.policy == "keep_then_tail" and new < left:
            raise ActionRefusedError(
                f"{new} steps are fewer than the {left:g} that are left of the law. "
                'Use policy "rescale", or `cooldown`.'
            ).about("policy")

    def apply(self, timeline: Timeline, at: int, plan: Plan) -> Timeline:  # noqa: D102
        segment, end = timeline.segment_at(at), self._end(timeline, at, plan)
        left, new = self._left(timeline, at, plan), self._new(at)
        if segment.frozen is not None or end is None or left is None or left <= 0 or new <= 0:
            return timeline
        if self.policy == "rescale" or new <= left:
            tempo = segment.tempo * (left / new)
            return timeline.go_on(
                at, self.cause(), tempo=tempo, end=end if plan.holds else segment.end
            )
        kept, clock = new - left, segment.clock_at(at)
        value = float(segment.plain(at))
        law = Sequence(
            parts=(
                Part(schedule=Constant(value=value), steps=kept * segment.speed),
                Part(schedule=Shift(schedule=segment.schedule, by=clock)),
            )
        )
        later = End(kept * segment.speed + (end.clock - clock), end.own) if plan.holds else None
        return timeline.go_on(at, self.cause(), schedule=law, clock=0.0, end=later)

    def _end(self, timeline: Timeline, at: int, plan: Plan) -> End | None:
        """Return where the law ends now; None if that is unknown, or if it never ends."""
        segment = timeline.segment_at(at)
        if is_constant(segment.schedule):
            return None
        if self.ends_at is not None:
            steps = whole(self.ends_at) - at
            return End(segment.clock_at(at) + steps * segment.speed, own=False)
        own = end_of(segment.schedule)
        if own is not None:
            return End(own, own=True)
        if segment.end is None and segment.schedule == plan.schedule and plan.total_steps:
            return End(float(plan.total_steps), own=False)
        return segment.end

    def _left(self, timeline: Timeline, at: int, plan: Plan) -> float | None:
        """Return how many steps of the law are left at its present pace; None if unknown."""
        segment, end = timeline.segment_at(at), self._end(timeline, at, plan)
        if end is None:
            return None
        if self.ends_at is not None:
            return float(whole(self.ends_at) - at)
        return (end.clock - segment.clock_at(at)) / segment.speed

    def _new(self, at: int) -> int:
        return whole(self.total_steps) - at

    def order(self) -> str:  # noqa: D102
        return f"retimed to end at step {self.total_steps} ({self.policy})"


def refuse_held(timeline: Timeline, at: int) -> None:
    """Refuse an action that needs a running clock where the clock is held.

    Raises:
        ActionRefusedError: It is held there.
    """
    if timeline.segment_at(at).frozen is not None:
        raise ActionRefusedError(
            f"It is held at step {at}. Use `release` first; this can be ordered for the same step."
        )


MAX_KEPT = 8
"""How often the rest of a law can be postponed: each time wraps the law once more."""


def _times_kept(law: Schedule) -> int:
    """Count how often `keep_then_tail` has wrapped a law."""
    times = 0
    while isinstance(law, Sequence) and isinstance(law.parts[-1].schedule, Shift):
        law, times = law.parts[-1].schedule.schedule, times + 1
    return times
