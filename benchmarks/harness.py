"""How all benchmarks measure: in turns with the baseline, as a ratio with its spread.

Speeds of a shared machine drift by half within minutes, so a speed alone is meaningless. Ours and
the baseline take turns in one run; each round gives one ratio; their median and quartiles are the
result.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
OUR_CORE, SERVER_CORE = ({CORES[0]}, {CORES[1]}) if len(CORES) > 1 else (set(), set())


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: Of each comparison.
        seconds: Of a timed part.
        tiny: Whether everything is only run through once, with next to no load: then the figures
            mean nothing.
    """

    rounds: int
    seconds: float
    tiny: bool = False

    def size(self, full: T, tiny: T) -> T:
        """Return the size that is measured, or the tiny one of a mere run-through."""
        return tiny if self.tiny else full


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on the ratio."""

    sense: Literal["<=", ">="]
    bound: float

    def met_by(self, ratio: float) -> bool:
        """Return whether a ratio meets it."""
        return ratio <= self.bound if self.sense == "<=" else ratio >= self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"


def at_most(bound: float) -> Goal:
    """Return the goal of a ratio of costs."""
    return Goal("<=", bound)


def at_least(bound: float) -> Goal:
    """Return the goal of a ratio of rates."""
    return Goal(">=", bound)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table: medians of ours and of the baseline, and the ratio's quartiles."""

    name: str
    unit: str
    ours: float
    baseline: float
    against: str
    quartiles: tuple[float, float, float]
    goal: Goal | None
    note: str

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return self.quartiles[1]

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.goal.met_by(self.ratio)


def result(
    name: str,
    pairs: Iterable[tuple[float, float]],
    *,
    unit: str,
    against: str,
    goal: Goal | None = None,
    note: str = "",
) -> Result:
    """Sum up the pairs (ours, baseline) of all rounds."""
    ours, baseline = zip(*pairs, strict=True)
    ratios = [mine / other for mine, other in zip(ours, baseline, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    medians = statistics.median(ours), statistics.median(baseline)
    return Result(name, unit, *medians, against, (low, middle, high), goal, note)


def take_turns(label: str, rounds: int, *sides: Callable[[], T]) -> list[tuple[T, ...]]:
    """Measure all sides in each round, with the order reversed each time.

    Returns:
        For each round what the sides gave, in the order of the arguments.
    """
    measured = []
    for number in range(rounds):
        _say(f"{label}: round {number + 1} of {rounds}")
        forward = number % 2 == 0
        values = [side() for side in (sides if forward else reversed(sides))]
        measured.append(tuple(values if forward else reversed(values)))
    _say("")
    return measured


def seconds_of(work: Callable[[], object]) -> float:
    """Return the processor time of one call, which does not pass while others have the core."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Run on these cores; processes started meanwhile stay there. Do nothing for no cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _say(text: str) -> None:
    """Show progress, on a line that the next one overwrites."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
