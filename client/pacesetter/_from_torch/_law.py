"""A law with what it says now, and what becomes of it where the optimizer holds another rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from pacesetter._errors import UnsupportedSchedulerError
from pacesetter._from_torch._numbers import typed
from pacesetter._groups import is_tensor

DRIFT = 1e-9
"""How far torch may have drifted from its law by repeated multiplication, relative to it."""

ROUNDED = 1e-2
"""How far a rate in a tensor of few bits may be from its law, relative to it."""


@dataclass(frozen=True)
class Law:
    """A base learning rate and the schedule that scales it.

    Attributes:
        base: The base.
        schedule: The schedule in a session's form.
        value: What torch's formula says at the step that the scheduler has reached.
        floor: Torch multiplies what the optimizer holds above this rate; None if it writes its own
            value, whatever the optimizer holds.
        said: Texts to log where a training goes on by the law.
    """

    base: float
    schedule: dict[str, Any]
    value: float
    floor: float | None = None
    said: tuple[str, ...] = ()


def carried(law: Law, held: Any, scheduler: str) -> Law:  # noqa: ANN401 - a number or a tensor
    """Return the law that goes on from the rate in the optimizer, as torch would.

    Args:
        law: The law by the scheduler's arguments.
        held: The learning rate of the param group.
        scheduler: What to call the scheduler.

    Raises:
        UnsupportedSchedulerError: Torch would not go on from that rate, or no base leads there.
    """
    rate = float(held)
    if agrees(law, held):
        return law
    says = f"the optimizer holds the learning rate {rate!r} where {scheduler} says {law.value!r}"
    if law.floor is None:
        raise UnsupportedSchedulerError(
            f"{says}, which torch would write at its next step: set it in each param group, as "
            'group["lr"] = rate for the rates in scheduler.get_last_lr(), or build the scheduler '
            "with the rates that it is to follow"
        )
    above = law.value - law.floor
    if above == 0.0 or not 0.0 <= (rate - law.floor) / above < math.inf:  # refuses NaN too
        raise UnsupportedSchedulerError(
            f"{says}, and no base learning rate leads from one to the other: build the scheduler "
            "anew, over an optimizer with the rates that it is to start from"
        )
    scale = (rate - law.floor) / above
    scale = typed(scale, lambda each: math.isclose(each, scale, rel_tol=1e-12))
    said = f"{says}: the session goes on from there as torch would, with {scale!r} times the base"
    base = law.floor + (law.base - law.floor) * scale
    return replace(law, base=base, value=rate, said=(*law.said, said))


def agrees(law: Law, held: Any) -> bool:  # noqa: ANN401 - a number or a tensor
    """Return whether the rate in the optimizer is what the law says, within torch's precision."""
    coarse = is_tensor(held) and "float64" not in str(held.dtype)
    part = ROUNDED if coarse else DRIFT
    beside_zero = DRIFT * abs(law.base)
    return math.isclose(float(held), law.value, rel_tol=part, abs_tol=beside_zero)
