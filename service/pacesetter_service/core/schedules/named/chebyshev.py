"""Chebyshev step sizes in fractal order."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Length, steps_of
from pacesetter_service.core.model import Count, Positive
from pacesetter_service.core.schedules.base import Named, Schedule
from pacesetter_service.core.schedules.clocks import Span
from pacesetter_service.core.schedules.combinators import Relative
from pacesetter_service.core.schedules.tables import MAX_TABLE, Table


class Chebyshev(Named):
    """The base times the inverse nodes of Chebyshev's polynomial, small and large ones in turn.

    `num_epochs` factors between `1 / big_m` and `1 / small_m`, each for `every` steps, in an order
    that keeps gradient descent stable; the last one is held. One epoch is the base divided by the
    mean of the two. pytorch_optimizer rounds the number of epochs up to a power of two, uses the
    first factor three times and ends two early; this does not.
    """

    formula: ClassVar[str] = (
        "base / (c - r * cos(pi * (order[floor(t / every)] + 1/2) / num_epochs)),"
        " c = (big_m + small_m) / 2, r = (big_m - small_m) / 2"
    )
    source: ClassVar[str] = (
        "Agarwal, Goel and Zhang 2021, arXiv:2103.01338; pytorch_optimizer get_chebyshev_schedule"
    )
    example: ClassVar[dict[str, Any]] = {"num_epochs": 16, "every": 100}

    kind: Literal["chebyshev"] = "chebyshev"
    num_epochs: Annotated[Count, Field(le=MAX_TABLE)]
    every: Length = 1.0
    small_m: Positive = 0.05
    big_m: Positive = 1.0

    def _faults(self) -> Iterator[PydanticCustomError]:
        if self.small_m > self.big_m:
            yield PydanticCustomError("not_ascending", "`small_m` is above `big_m`; swap them")

    def expand(self) -> Schedule:  # noqa: D102
        middle, radius = (self.big_m + self.small_m) / 2.0, (self.big_m - self.small_m) / 2.0
        places = (np.array(fractal_order(self.num_epochs)) + 0.5) * np.pi / self.num_epochs
        factors = 1.0 / (middle - radius * np.cos(places))
        table = Relative(schedule=Table(levels=tuple(factors.tolist())))
        return Span(schedule=table, ratio=steps_of(self.every))


def fractal_order(count: int) -> list[int]:
    """Return 0 to `count - 1` in an order where, at every scale, opposites follow each other."""
    order = [0]
    while len(order) < count:
        last = 2 * len(order) - 1
        order = list(chain.from_iterable((index, last - index) for index in order))
    return [index for index in order if index < count]
