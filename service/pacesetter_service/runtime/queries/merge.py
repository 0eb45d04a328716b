"""Which checkpoints to merge instead of a decay, by the rates that a session has sealed."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from pacesetter_service.core.actions.level import Cooldown
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.session import Session
from pacesetter_service.insight.merging import EASES, Merge, Shape, merge
from pacesetter_service.runtime.arguments import ArgumentError
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.attempt_ranges import range_of, sealed_values
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.windows import Block, refuse_too_many


class CheckpointView(BaseModel):
    """One checkpoint of a merge."""

    step: int = Field(description="its weights are those before the update of this step")
    weight: float = Field(description="what it counts in the merge; all together are 1")
    share: float = Field(
        description="with what part the updates since the checkpoint before it count"
    )


class LeftOutView(BaseModel):
    """A checkpoint that should not be merged."""

    step: int = Field(description="the checkpoint's step")
    reason: str = Field(description="why, in words")


class StandsForView(BaseModel):
    """The order that the merge replaces."""

    action: dict[str, object] = Field(description="the action, a `cooldown`")
    at: int = Field(description="the step that it would hold from")


class MergeAnswer(BaseModel):
    """Which checkpoints to merge, with which weights, and which order the merge replaces."""

    session: str = Field(description="the session's name")
    shape: Shape = Field(description="the shape of the decay")
    checkpoints: list[CheckpointView] = Field(
        description="the checkpoints to merge, the oldest first"
    )
    stands_for: StandsForView = Field(description="the order in whose place the merge is")
    left_out: list[LeftOutView] = Field(description="the checkpoints that are not to be merged")


async def read_merge(
    service: Service,
    name: str,
    checkpoints: Sequence[int],
    shape: Shape,
    floor: float,
    over: int | None,
) -> MergeAnswer:
    """Return the weights with which checkpoints of a session replace a decay.

    Args:
        service: The service.
        name: The session's name.
        checkpoints: Their steps, in any order; each holds the weights before its step's update.
        shape: The shape of the decay.
        floor: The end of the decay, as a fraction of the rate.
        over: The most steps before the last checkpoint that it covers; None for all at the
            constant rate.

    Raises:
        SessionNotFoundError: There is no session of that name.
        ArgumentError: Too few checkpoints were trained at one constant rate, or one is not sealed.
        StepOutOfRangeError: They lie too far apart.
    """
    entry = await service.writer.find(name)
    session, steps = entry.stored.session, sorted(set(checkpoints))
    _refuse_unknown(session, steps)
    series = len(session.timelines)
    refuse_too_many(series, steps[-1] - steps[0])
    ref = await range_of(service, entry, None)

    def answer() -> MergeAnswer:
        block = sealed_values(service.store, ref, series, steps[0], steps[-1])
        found = merge(_rates(session, block), steps, EASES[shape], floor, over)
        return _shown(session, found, shape, floor)

    return await in_thread(answer)


def _refuse_unknown(session: Session, steps: Sequence[int]) -> None:
    first, horizon = session.spec.start_step, session.horizon
    wrong = [step for step in steps if not first <= step <= horizon]
    if wrong:
        raise ArgumentError(
            "checkpoint",
            f"There is no checkpoint of step {wrong[0]}: what the session has sealed leads from"
            f" step {first} to step {horizon}",
        )
    if len(steps) < 2:
        raise ArgumentError("checkpoint", "One checkpoint is no merge; name two or more")


def _rates(session: Session, block: Block) -> Block:
    """Return the rows of the learning rates; other channels may change freely."""
    rates = {each.name for each in session.spec.series() if each.channel == "lr"}
    return block[[index for index, name in enumerate(session.timelines) if name in rates]]


def _said(action: Cooldown) -> dict[str, object]:
    """Return an action as it is ordered, without the fields that it leaves open."""
    said: dict[str, object] = jsonable(action)
    return {name: value for name, value in said.items() if value not in (None, "")}


def _shown(session: Session, found: Merge, shape: Shape, floor: float) -> MergeAnswer:
    if not found.checkpoints:
        told = "; ".join(f"{each.step}: {each.reason}" for each in found.left_out[-3:])
        raise ArgumentError(
            "checkpoint",
            "Fewer than two of them were trained at one constant rate, and a merge stands for a"
            f" decay only there ({told}). Name checkpoints of a constant phase",
        )
    start, end = found.checkpoints[0].step, found.checkpoints[-1].step
    action = Cooldown(steps=end - start, to_fraction=floor, ease=EASES[shape])
    return MergeAnswer(
        session=session.spec.name,
        shape=shape,
        checkpoints=[
            CheckpointView(step=each.step, weight=each.weight, share=each.share)
            for each in found.checkpoints
        ],
        stands_for=StandsForView(action=_said(action), at=start),
        left_out=[LeftOutView(step=each.step, reason=each.reason) for each in found.left_out],
    )
