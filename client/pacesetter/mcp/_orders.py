"""The orders that can be proposed: those that change the height of a rate or stop its clock.

The service limits what a token may order; an order that is not here cannot be proposed at all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Steps = Annotated[int, Field(ge=1, le=10**9)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0, le=1)]


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    groups: list[str] | None = Field(
        default=None, max_length=64, description="the parameter groups it is for; all without it"
    )


class Scale(_Order):
    """Multiply the rate from a step on, whatever its schedule does."""

    kind: Literal["scale"]
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Set(_Order):
    """One rate from a step on, reached at once or over some steps; the schedule ends."""

    kind: Literal["set"]
    lr: Rate
    over: Annotated[int, Field(ge=0, le=10**9)] = 0


class Hold(_Order):
    """Stop the schedule's clock: the rate of that step stays until `release`."""

    kind: Literal["hold"]


class Release(_Order):
    """Let the schedule go on where `hold` stopped it."""

    kind: Literal["release"]


class Cooldown(_Order):
    """Down to a floor over some steps; the floor is a rate (`to`) or a part of the present one."""

    kind: Literal["cooldown"]
    steps: Steps
    to: Rate | None = None
    to_fraction: Part | None = None


class Rewarm(_Order):
    """Times a factor that rises to 1 in a straight line over some steps."""

    kind: Literal["rewarm"]
    steps: Steps
    factor: Part = 0.0


class Retime(_Order):
    """Make what is left of the schedule end at another step."""

    kind: Literal["retime"]
    total_steps: Steps


class Revert(_Order):
    """Go back to the plan, as far as it would be by now."""

    kind: Literal["revert"]


Order = Annotated[
    Scale | Set | Hold | Release | Cooldown | Rewarm | Retime | Revert,
    Field(discriminator="kind"),
]
"""An order, discriminated by its `kind`."""


def body_of(order: BaseModel, reason: str, at: int | None) -> dict[str, Any]:
    """Return an order in the form that the service takes."""
    said = order.model_dump(exclude_none=True)
    return {**said, "reason": reason, **({} if at is None else {"at": at})}
