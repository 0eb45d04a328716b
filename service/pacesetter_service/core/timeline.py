"""A timeline: which law governs which steps of one series.

To change the future is to append a segment; nothing is ever edited, so what was sealed under an
earlier segment can always be explained by it.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from pacesetter_service.core.schedules import Schedule, Steps, Values


@dataclass(frozen=True, slots=True)
class Segment:
    """A law that governs a series from `start` until the next segment begins.

    `origin` is the step at which the law's own clock reads 0. `base` is what the spec gave the
    group; `level` is what controllers have made of it: the law's values are multiplied by
    `level / base`, so that a cut has its effect on any schedule, and where the law is at its base
    the value is the level itself, to the bit. `scale` is what operators have ordered: one factor
    more.
    """

    start: int
    schedule: Schedule
    origin: int
    base: float
    level: float
    cause: str
    scale: float = 1.0

    def values(self, start: int, count: int) -> Values:
        """Evaluate the steps `start` to `start + count`."""
        t = np.arange(start - self.origin, start - self.origin + count, dtype=np.float64)
        return self._law(t) * self.scale

    def _law(self, t: Steps) -> Values:
        values = self.schedule.values(t, self.base)
        if self.level == self.base:
            return values
        return np.where(values == self.base, self.level, values * (self.level / self.base))

    @property
    def effective_level(self) -> float:
        """What the level comes to after the operators' scale: the unit of floors and thresholds."""
        return self.level * self.scale


@dataclass(frozen=True, slots=True)
class Timeline:
    """The segments of one series, in the order of their starts; there is always at least one."""

    segments: tuple[Segment, ...]

    def segment_at(self, step: int) -> Segment:
        """Give the segment that governs a step at or after the first segment's start."""
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

    def go_on(
        self, start: int, cause: str, *, level: float | None = None, scale: float | None = None
    ) -> "Timeline":
        """Go on from `start` with the same law at another level or scale."""
        current = self.segments[-1]
        return self.append(
            replace(
                current,
                start=start,
                cause=cause,
                level=current.level if level is None else level,
                scale=current.scale if scale is None else scale,
            )
        )

    def append(self, segment: Segment) -> "Timeline":
        """Add a segment that takes over from its start on.

        One that starts where the last one starts leaves that one without a step to govern.
        """
        if segment.start < self.segments[-1].start:
            raise ValueError("a segment can not start before the one that it follows")
        return Timeline((*self.segments, segment))

    def _index(self, step: int) -> int:
        return max(bisect_right(self.segments, step, key=_start) - 1, 0)


def _start(segment: Segment) -> int:
    return segment.start
