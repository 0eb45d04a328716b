"""Bounds: what a token may order at most."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.actions import Action
from pacesetter_service.core.errors import NotAllowedError
from pacesetter_service.core.model import Checked, Count, Model, Real, did_you_mean

CHANGES_COUNTED = 256
"""How many changes of one actor a session remembers; no token may make more in its window."""

OTHER_CALLS = ("fork", "restart", "take_back")
"""The calls besides actions that bounds may allow: a new session, a new attempt, a take-back."""

BY_DEFAULT = ("cooldown", "hold", "release", "rewarm", "scale", "set")
"""The kinds of actions that bounds allow unless they name others."""


def _known(what: str) -> str:
    known = (*Action.kinds, *OTHER_CALLS)
    if what not in known:
        hint = did_you_mean(what, known) or f" Name some of: {', '.join(sorted(known))}"
        raise PydanticCustomError(
            "not_known", "No action and no call is called so.{hint}", {"hint": hint}
        )
    return what


class Changes(Model):
    """How many changes may hold within a number of steps."""

    count: Annotated[Count, Field(le=CHANGES_COUNTED)] = Field(
        description="the most changes of which the first steps lie so near to each other"
    )
    per_steps: Count = Field(description="how many steps that is")


class Bounds(Checked):
    """What may be ordered with a token at most; everything else that changes something is refused.

    A factor compares the value of a step with what it would be without the order, at every step
    that is looked at.
    """

    factor_range: tuple[Real, Real] | None = Field(
        default=None,
        description="the smallest and the largest factor by which an order may change a value,"
        " against what would hold without it, such as `[0.5, 2.0]`; without it, any",
    )
    changes: Changes | None = Field(
        default=None, description="how many orders may hold within some steps; without it, any"
    )
    actions: Annotated[
        tuple[Annotated[str, AfterValidator(_known)], ...], Field(min_length=1, max_length=32)
    ] = Field(
        default=BY_DEFAULT,
        description="the kinds of actions that may be ordered; `fork`, `restart` and `take_back`"
        " allow these calls, too",
    )

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.factor_range is None:
            return
        low, high = self.factor_range
        if not 0 <= low <= 1 <= high:
            yield PydanticCustomError(
                "no_range",
                "`factor_range` is the smallest and the largest factor, with 1 between them, such"
                " as [0.5, 2.0]",
            )


def refuse_kind(bounds: Bounds, what: str) -> None:
    """Refuse an action, or another call, that the bounds do not allow.

    Raises:
        NotAllowedError: They do not.
    """
    if what not in bounds.actions:
        raise NotAllowedError(what, bounds.actions)
