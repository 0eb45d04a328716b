"""The cost of evaluating a law: counted from its parts, never measured.

So a spec costs the same on every machine, and whether it is accepted depends on nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from pacesetter_service.core.model import Model

PER_CALL = 1000.0
"""The cost of one pass over a block, however short the block is."""

PER_COSTLY = 50.0
"""The cost of one number that the C library computes, where NumPy's bits differ between CPUs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of evaluating a block of steps; the unit is what a plain hold takes for one step.

    That is about a nanosecond on today's machines.

    Attributes:
        call: The cost of each block, however short it is.
        step: The additional cost of each of its steps.
    """

    call: float = 0.0
    step: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of evaluating both."""
        return Cost(self.call + other.call, self.step + other.step)

    def __mul__(self, times: float) -> "Cost":
        """Return the cost of evaluating `times` times."""
        return Cost(self.call * times, self.step * times)

    def of(self, count: int) -> float:
        """Return the cost of one block of `count` steps."""
        return self.call + self.step * count

    def affordable(self, budget: float) -> int:
        """Return how many steps one block may have within a budget; 0 if it can have none."""
        left = budget - self.call
        return 0 if left < self.step else int(min(left / self.step, 2.0**53))

    def in_slices(self, count: int, budget: float) -> tuple[int, float]:
        """Return how many steps a slice of a long block may have, and the cost of all slices.

        If a call alone costs most of the budget, the budget of a slice is twice the cost of a call.
        """
        size = max(self.affordable(max(budget, 2 * self.call)), 1)
        return size, ceil(count / size) * self.call + count * self.step


def work(passes: float, costly: float = 0.0) -> Cost:
    """Return the cost of `passes` passes over a block, with `costly` costly numbers a step."""
    return Cost(passes * PER_CALL, passes + costly * PER_COSTLY)


class Priced:
    """A mixin for what has a cost: schedules, and the eases in them.

    A member declares its own work: `passes` over its steps, and `costly` numbers a step. The cost
    of its parts is added. A member that evaluates a part more than once overrides `cost`.
    """

    passes: ClassVar[float] = 6.0
    """How many passes it makes over its steps; a plain hold makes one."""
    costly: ClassVar[float] = 0.0
    """How many numbers it computes at each step with the C library, for the sake of their bits."""

    def cost(self, of: "Pricing") -> Cost:
        """Return the cost of one block; `of` returns the cost of a part."""
        total = self.own_cost()
        for part in parts_of(self):
            total += of(part)
        return total

    def own_cost(self) -> Cost:
        """Return the cost without the parts."""
        return work(self.passes, self.costly)


Pricing = Callable[[Priced], Cost]


class Prices:
    """Costs by object: a part that occurs many times in a tree is priced once.

    So a tree that repeats its parts at every level may have an astronomic cost, but counting it
    does not take astronomic time.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Priced, Cost]] = {}

    def __call__(self, priced: Priced) -> Cost:
        """Return the cost of a schedule or an ease."""
        found = self._known.get(id(priced))
        if found is None:  # kept beside its cost, so that no other object can reuse its id
            found = self._known[id(priced)] = (priced, priced.cost(self))
        return found[1]


def parts_of(model: object) -> list[Priced]:
    """Return the schedules and eases in the fields of a model."""
    found: list[Priced] = []
    if isinstance(model, Model):
        for name in type(model).model_fields:
            found += _priced_in(getattr(model, name))
    return found


def _priced_in(value: object) -> Iterator[Priced]:
    if isinstance(value, Priced):
        yield value
    elif isinstance(value, Model):
        yield from parts_of(value)
    elif isinstance(value, tuple):
        # There may be very many numbers; a tuple that holds schedules holds nothing else.
        if value and isinstance(value[0], Model):
            for each in value:
                yield from _priced_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _priced_in(each)
