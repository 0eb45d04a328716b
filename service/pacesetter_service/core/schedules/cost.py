"""What a law costs to evaluate: counted from what it is made of, never measured.

So a spec costs the same on every machine, and whether it is taken depends on nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from pacesetter_service.core.model import Model

PER_CALL = 1000.0
"""What it costs to go over a block once, however short it is."""

PER_COSTLY = 50.0
"""What one number costs that the C library computes, where NumPy's bits are not the same."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What evaluating a block of steps costs, in what a plain hold takes for one step.

    That is about a nanosecond on today's machines.

    Attributes:
        call: What each block costs, however short it is.
        step: What each step of it costs besides.
    """

    call: float = 0.0
    step: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of evaluating both."""
        return Cost(self.call + other.call, self.step + other.step)

    def __mul__(self, times: float) -> "Cost":
        """Return the cost of evaluating several times."""
        return Cost(self.call * times, self.step * times)

    def of(self, count: int) -> float:
        """Return the cost of one block of so many steps."""
        return self.call + self.step * count

    def affordable(self, budget: float) -> int:
        """Return how many steps one block may have within a budget; 0 if it can have none."""
        left = budget - self.call
        return 0 if left < self.step else int(min(left / self.step, 2.0**53))

    def in_slices(self, count: int, budget: float) -> tuple[int, float]:
        """Return how many steps a slice of a long block may have, and what all slices cost.

        Where a call alone costs most of the budget a slice has as many steps as double that.
        """
        size = max(self.affordable(max(budget, 2 * self.call)), 1)
        return size, ceil(count / size) * self.call + count * self.step


def work(passes: float, costly: float = 0.0) -> Cost:
    """Return the cost of going over a block so many times, and of so many costly numbers a step."""
    return Cost(passes * PER_CALL, passes + costly * PER_COSTLY)


class Priced:
    """What has a cost: schedules, and the eases in them.

    A member states its own work, `passes` over its steps and `costly` numbers a step; what stands
    in it is added. Who evaluates a part more than once says so in `cost`.
    """

    passes: ClassVar[float] = 6.0
    """How often it goes over its steps, as a plain hold does once."""
    costly: ClassVar[float] = 0.0
    """How many numbers it computes at each step for the sake of their bits."""

    def cost(self, of: "Pricing") -> Cost:
        """Return what one block costs; `of` gives the same of a part."""
        total = self.own_cost()
        for part in parts_of(self):
            total += of(part)
        return total

    def own_cost(self) -> Cost:
        """Return what it costs without its parts."""
        return work(self.passes, self.costly)


Pricing = Callable[[Priced], Cost]


class Prices:
    """Costs by what they are of: what stands in a tree many times is looked into once.

    So a tree that repeats its parts at every level costs a number that may be astronomic, and not
    the time to count it.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Priced, Cost]] = {}

    def __call__(self, priced: Priced) -> Cost:
        """Return the cost of a schedule or an ease."""
        found = self._known.get(id(priced))
        if found is None:  # kept with its cost, so that no other can get its id
            found = self._known[id(priced)] = (priced, priced.cost(self))
        return found[1]


def parts_of(model: object) -> list[Priced]:
    """Return the schedules and eases that stand in the fields of a model."""
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
        # Of numbers there may be very many; who holds schedules holds nothing else.
        if value and isinstance(value[0], Model):
            for each in value:
                yield from _priced_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _priced_in(each)
