"""What a schedule is: data with a pure law.

The rule of this package: the value at `t` depends on `t` and the base alone, never on an earlier
evaluation of another step. So a window deep in a training costs as much as the first one, and
evaluating in blocks gives the same bits as evaluating everything in one go.
"""

from abc import abstractmethod
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.core.model import AnyOf, Level, Tagged
from pacesetter_service.core.schedules.cost import Cost, Priced, Pricing
from pacesetter_service.core.schedules.out_of_range import OutOfRange

Steps = NDArray[np.float64]
"""Local times, one for each requested value; whole unless a combinator rescaled the clock."""

Values = NDArray[np.float64]

Base = float | Values
"""The base value: one number, or one for each step where a combinator lets it change."""


class Schedule(Priced, Tagged, family="schedule"):
    """A law `t -> value`; `base` is the group's own base value, in the same unit as the answer."""

    formula: ClassVar[str]
    """The law in one line, for the catalogue."""
    source: ClassVar[str]
    """Where the law comes from: a paper, or the library function that it equals."""
    example: ClassVar[dict[str, Any]]
    """Parameters of a complete and typical use; `kind` is added by the catalogue."""
    usual: ClassVar[tuple[str, ...]] = (
        "constant",
        "cosine",
        "warmup_cosine",
        "linear",
        "step",
        "one_cycle",
        "wsd",
    )

    def unstretchable(self) -> str | None:
        """Say what to do instead of stretching this law, if its library stretches only part."""
        return None

    @abstractmethod
    def values(self, t: Steps, base: Base) -> Values:
        """Evaluate the law.

        Args:
            t: Local times, float64, shape (n,); 0 is the schedule's first step.
            base: What `"base"` stands for: a number, or an array of the shape of `t`.

        Returns:
            float64, shape (n,).
        """

    def channels(self) -> "dict[str, Schedule]":
        """Return the law of each hyperparameter that this schedule drives; `lr` is always one."""
        return {"lr": self}

    def range_policy(self) -> OutOfRange:
        """Return what holds past the law's end; a law without an end goes on by its formula.

        `hold` is a promise: from some step on the values stay the same. A combinator that bounds
        its child's clock, such as `freeze`, has its own policy; others have their children's.
        """
        policy: OutOfRange = getattr(self, "out_of_range", "extrapolate")
        return policy


AnySchedule = Annotated[Schedule, AnyOf(Schedule)]


class Named(Schedule):
    """A schedule known by a name, which only expands to a tree of primitives and combinators."""

    @abstractmethod
    def expand(self) -> Schedule:
        """Return the tree that this name stands for."""

    @cached_property
    def expanded(self) -> Schedule:
        """The tree, built once."""
        return self.expand()

    def values(self, t: Steps, base: Base) -> Values:  # noqa: D102 - as in Schedule
        return self.expanded.values(t, base)

    def cost(self, of: Pricing) -> Cost:  # noqa: D102 - as in Priced
        return of(self.expanded)

    def channels(self) -> dict[str, Schedule]:  # noqa: D102 - as in Schedule
        return self.expanded.channels()

    def range_policy(self) -> OutOfRange:  # noqa: D102
        return self.expanded.range_policy()


def level_value(level: Level, base: Base) -> Base:
    """Resolve a level: to the base itself, or to the number that it is."""
    return base if level == "base" else level


def at_steps(base: Base, chosen: NDArray[np.bool_]) -> Base:
    """Return the base at the chosen steps."""
    return base[chosen] if isinstance(base, np.ndarray) else base
