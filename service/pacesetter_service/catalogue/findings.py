"""The input and output of lint: a spec with its curves, and findings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from pacesetter_service.core.schedules import Schedule, Values
from pacesetter_service.core.schedules.cost import Prices
from pacesetter_service.core.spec import SessionSpec

Severity = Literal["error", "warning", "info"]

Architecture = Literal["transformer", "cnn", "rnn", "mlp", "other"]
"""The architectures that rules of thumb tell apart."""

SAMPLES = 4000
"""At how many steps a long curve is sampled."""

LOOKED_INTO = 5e8
"""The most that the sampled curves may cost together."""

MAX_GROUPS = 32
"""The most groups whose curves are sampled."""


class Finding(NamedTuple):
    """One known pitfall in a spec.

    Attributes:
        code: Stable, for programs.
        severity: `error` if it can hardly be intended, `warning` if it often ends badly.
        pointer: JSON pointer to the place in the spec.
        message: What the problem is.
        advice: What to do.
        source: Who says so.
    """

    code: str
    severity: Severity
    pointer: str
    message: str
    advice: str
    source: str


@dataclass(frozen=True)
class Curve:
    """The learning rate of a group over the planned steps, sampled from the first to the last."""

    pointer: str
    schedule: Schedule
    base: float
    start: int
    total: int

    @cached_property
    def steps(self) -> Values:
        """The sampled steps."""
        count = min(self.total, SAMPLES)
        places = np.linspace(self.start, self.start + self.total - 1, count)
        return np.unique(np.round(places))

    @cached_property
    def values(self) -> Values:
        """The law's values at these steps."""
        return self.schedule.values(self.steps, self.base)

    @property
    def peak(self) -> float:
        """The highest of these values."""
        return float(np.max(self.values))

    @property
    def peak_part(self) -> float:
        """At which fraction of the run, 0 to 1, the peak is first reached."""
        return float(np.argmax(self.values >= 0.99 * self.peak)) / len(self.values)


@dataclass(frozen=True)
class Subject:
    """What is checked: a spec, how long it is meant to run, and what it trains."""

    spec: SessionSpec
    planned_steps: int | None = None
    architecture: Architecture | None = None

    @property
    def total(self) -> int | None:
        """How many steps the training is meant to take, if the spec or the caller says so."""
        return self.planned_steps or self.spec.total_steps

    @cached_property
    def curves(self) -> list[Curve]:
        """The curves of all `lr` series; empty if their length is not known."""
        if self.total is None:
            return []
        start, of, cost = self.spec.start_step, Prices(), 0.0
        curves: list[Curve] = []
        for law in self.laws:
            # The first ones say enough, where all of them would take too long.
            cost += of(law[1]).of(SAMPLES)
            if curves and cost > LOOKED_INTO:
                break
            curves.append(Curve(*law, start, max(self.total - start, 1)))
        return curves

    @cached_property
    def laws(self) -> list[tuple[str, Schedule, float]]:
        """The schedules as they were written, in steps, with their places and their bases."""
        laws = islice(self.spec.laws(), MAX_GROUPS)
        return [
            (f"/groups/{law.group}" if law.own else "/schedule", law.schedule, law.base)
            for law in laws
        ]


Rule = Callable[[Subject], Iterator[Finding]]

RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule."""
    RULES.append(function)
    return function
