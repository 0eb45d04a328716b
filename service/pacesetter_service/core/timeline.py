"""A timeline: which law governs which steps of one series from the horizon on.

A change of the future appends a segment; existing segments are never edited. Segments whose steps
are all sealed are dropped: their values are kept as bits, and the log of events keeps the reasons.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from pacesetter_service.core.schedules import Schedule, Steps, Values
from pacesetter_service.core.schedules.cost import Cost, Prices, Pricing, work

CLOSE = 1e-9
"""How near to a whole step a clock must be to count as having reached it: sums round."""


@dataclass(frozen=True, slots=True)
class Rewarm:
    """A factor that rises in a straight line from `factor` at step `start` to 1 `steps` later."""

    start: int
    steps: int
    factor: float

    def factors(self, start: int, count: int) -> Values:
        """Evaluate the steps `start` to `start + count`; exactly 1 from the end of the rise on."""
        passed = np.maximum(np.arange(start, start + count) - self.start, 0) / self.steps
        return np.where(passed < 1.0, self.factor + (1.0 - self.factor) * passed, 1.0)


@dataclass(frozen=True, slots=True)
class End:
    """Where a plan is over; from there on its last value is kept.

    Attributes:
        clock: What the law's clock reads at the first step past the plan.
        own: Whether the law itself ends there, so that its value there is its last one. Otherwise
            the plan cuts the law off, and the last value is that of the step before.
    """

    clock: float
    own: bool

    def stop(self, speed: float) -> float:
        """Return the reading at which a clock of that speed stops."""
        return self.clock if self.own else self.clock - speed


@dataclass(frozen=True, slots=True)
class Segment:
    """A law that governs a series from `start` until the next segment begins.

    Attributes:
        start: The first step that it governs.
        schedule: The law.
        clock: What the law's own clock reads at `start`.
        base: The base from the spec, or the one that a transition put in its place.
        level: The base as controllers have changed it. The law's values are multiplied by
            `level / base`, so that a cut has its effect on any schedule; where the law is at its
            base the value is the level itself, to the bit.
        cause: Why it was appended.
        scale: A further factor, ordered by operators.
        pace: How far controllers let the law's clock advance in one step.
        tempo: A further factor of the clock's advance, which operators order by a `retime`.
        rewarm: A warmup on top of the law, whatever the law does then.
        frozen: The step whose value is kept, if the clock is stopped.
        end: Where the plan is over, if that is known and the law does not go on past it.
    """

    start: int
    schedule: Schedule
    clock: float
    base: float
    level: float
    cause: str
    scale: float = 1.0
    pace: float = 1.0
    rewarm: Rewarm | None = None
    frozen: int | None = None
    tempo: float = 1.0
    end: End | None = None

    def values(self, start: int, count: int) -> Values:
        """Evaluate the steps `start` to `start + count`."""
        if self.frozen is not None:
            return np.repeat(replace(self, frozen=None).values(self.frozen, 1), count)
        passed = np.arange(start - self.start, start - self.start + count, dtype=np.float64)
        clock = self.clock + passed * self.speed
        if self.end is not None:
            clock = np.minimum(clock, self.end.stop(self.speed))
        # An overflow, or 0 times infinity: such values are refused later.
        with np.errstate(invalid="ignore", over="ignore"):
            values = self._law(clock) * self.scale
        return values if self.rewarm is None else values * self.rewarm.factors(start, count)

    def clock_at(self, step: int) -> float:
        """Return what the law's clock reads at a step."""
        return self.clock + (step - self.start) * self.speed

    @property
    def speed(self) -> float:
        """How far the law's clock advances in one step."""
        return self.pace * self.tempo

    @property
    def over(self) -> int | None:
        """The first step past the plan, which may lie before the segment; None if there is none.

        While the clock is stopped, the plan does not come to its end.
        """
        if self.end is None or self.frozen is not None:
            return None
        steps = (self.end.clock - self.clock) / self.speed
        return self.start + ceil(steps - CLOSE)

    def cut_off(self, step: int) -> End | None:
        """Return the end of another law that takes over at a step, from 0, within the same plan.

        None if the plan has no end, or is over: then the law has no end from the plan.
        """
        if self.end is None:
            return None
        left = self.end.clock - self.clock_at(step if self.frozen is None else self.frozen)
        return End(left, own=False) if left > 0 else None

    def plain(self, step: int) -> float:
        """Return the law's own value at a step, before levels, scales and rewarms."""
        return float(self.schedule.values(np.array([self.clock_at(step)]), self.base)[0])

    def _law(self, t: Steps) -> Values:
        values = self.schedule.values(t, self.base)
        if self.level == self.base:
            return values
        # A base of 0 has no ratio to its level: where the law is not at its base, its value stands.
        ratio = self.level / self.base if self.base else 1.0
        return np.where(values == self.base, self.level, values * ratio)

    @property
    def effective_level(self) -> float:
        """The level times the operators' scale: the unit of floors and thresholds."""
        return self.level * self.scale


@dataclass(frozen=True, slots=True)
class Timeline:
    """The segments of one series, in the order of their starts; there is always at least one."""

    segments: tuple[Segment, ...]

    def segment_at(self, step: int) -> Segment:
        """Return the segment that governs a step at or after the first segment's start."""
        return self.segments[self._index(step)]

    def values(self, start: int, count: int) -> Values:
        """Evaluate the steps `start` to `start + count`; float64, shape (count,)."""
        end = start + count
        first, last = self._index(start), self._index(end - 1)
        pieces = []
        for index in range(first, last + 1):
            segment = self.segments[index]
            begin = max(start, segment.start) if index > first else start
            until = self.segments[index + 1].start if index < last else end
            pieces.append(segment.values(begin, until - begin))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def go_on(self, start: int, cause: str, **changes: Any) -> "Timeline":  # noqa: ANN401
        """Go on from `start` as the last segment would, except for some fields of `Segment`."""
        current = self.segments[-1]
        clock = current.clock_at(start)
        if current.frozen is not None:
            # However fast the clock will run, it stands where it was stopped.
            speed = changes.get("pace", current.pace) * changes.get("tempo", current.tempo)
            clock = current.clock_at(current.frozen) + (start - current.frozen) * speed
        return self.append(
            replace(current, start=start, cause=cause, **{"clock": clock, **changes})
        )

    def start_anew(
        self,
        start: int,
        cause: str,
        schedule: Schedule,
        base: float,
        *,
        level: float | None = None,
        clock: float = 0.0,
        end: End | None = None,
    ) -> "Timeline":
        """Switch to another law from `start` on, with nothing left of earlier changes."""
        return self.append(
            Segment(start, schedule, clock, base, base if level is None else level, cause, end=end)
        )

    def thawed(self, start: int, cause: str) -> "Timeline":
        """Go on from `start` with the step after the one whose value was kept."""
        current = self.segments[-1]
        if current.frozen is None:
            return self
        rewarm = current.rewarm
        if rewarm is not None:
            # A rewarm that was ordered during the pause has not begun to rise.
            pause = start - (current.frozen + 1)
            begun = rewarm.start <= current.frozen
            rewarm = replace(rewarm, start=rewarm.start + pause if begun else start)
        clock = current.clock_at(current.frozen + 1)
        return self.go_on(start, cause, frozen=None, clock=clock, rewarm=rewarm)

    def cost(self, of: Pricing) -> Cost:
        """Return the cost of evaluating a block, wherever it lies; `of` gives a schedule's cost."""
        each = [of(segment.schedule) + SEGMENT for segment in self.segments]
        return Cost(sum(part.call for part in each), max(part.step for part in each))

    def value(self, step: int) -> float:
        """Evaluate one step."""
        return float(self.values(step, 1)[0])

    def append(self, segment: Segment) -> "Timeline":
        """Append a segment that takes over from its start on.

        If it starts where the last one starts, the last one has no step left to govern.
        """
        if segment.start < self.segments[-1].start:
            raise ValueError("a segment cannot start before the one that it follows")
        return Timeline((*self.segments, segment))

    def since(self, step: int) -> "Timeline":
        """Drop the segments that govern no step from `step` on."""
        return Timeline(self.segments[self._index(step) :])

    def _index(self, step: int) -> int:
        return max(bisect_right(self.segments, step, key=_start) - 1, 0)


class Timelines(dict[str, Timeline]):
    """The timelines of a session, by series; never changed once they are part of a session."""

    @cached_property
    def cost(self) -> Cost:
        """The cost of evaluating a block of all series, cached because it is asked for often."""
        of = Prices()
        return sum((line.cost(of) for line in self.values()), Cost())

    @cached_property
    def affordable(self) -> int:
        """How many steps one call may seal, so that no caller waits long for the writer."""
        return max(self.cost.affordable(SEALING), 1)


SEGMENT = work(6)
"""The cost that a segment adds to its law's: its clock, its level and its scale."""

SEALING = 2e8
"""The most that the values of one sealing may cost: about a fifth of a second of the writer."""


def _start(segment: Segment) -> int:
    return segment.start
