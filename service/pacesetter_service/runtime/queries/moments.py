"""When steps were trained, by the record: it knows when their windows were handed out."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from pacesetter_service.core.attempts import Span, spans
from pacesetter_service.runtime.pool import in_thread
from pacesetter_service.runtime.queries.attempt_ranges import range_of
from pacesetter_service.runtime.queries.status import Status
from pacesetter_service.runtime.service import Service
from pacesetter_service.store.moments import HandedOut

LOOKS = 300
"""About how many windows of a session are read."""

FEWEST = 2
"""The fewest moments that make a line."""

EARLIEST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""The first and last second of the calendar, whose years have four digits; since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Steps and when each was trained; in between, time is interpolated linearly.

    Attributes:
        steps: Ascending.
        seconds: The moment of each, since 1970 in UTC; ascending.
    """

    steps: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether other steps can be placed too."""
        return len(self.steps) >= FEWEST

    def at(self, step: float) -> float:
        """Return when a step was or will be trained; beyond the known steps, the nearest moment."""
        return float(np.interp(step, self.steps, self.seconds))

    def reaching(self, first: float, last: float, pace: float | None) -> "Moments":
        """Return moments for more steps: those before and after the known ones take `pace` seconds.

        Where the calendar would be left, the moments end at its first or last second instead.
        """
        if not self.steps:
            return self
        step = pace if pace is not None else self._mean_pace()
        if step is None:
            return self
        steps, seconds = list(self.steps), list(self.seconds)
        if first < steps[0]:
            place, moment = _reached(first, steps[0], seconds[0], step)
            steps.insert(0, place)
            seconds.insert(0, moment)
        if last > steps[-1]:
            place, moment = _reached(last, steps[-1], seconds[-1], step)
            steps.append(place)
            seconds.append(moment)
        return Moments(steps, seconds)

    def _mean_pace(self) -> float | None:
        """Return the median of the seconds that a step took."""
        if not self.known:
            return None
        paces = np.diff(self.seconds) / np.diff(self.steps)
        return float(np.median(paces))


def _reached(step: float, known: float, at: float, pace: float) -> tuple[float, float]:
    """Return a step and its moment, from a known step; or the step where the calendar ends."""
    moment = at + pace * (step - known)
    shown = min(max(moment, EARLIEST), LATEST)
    return (step, moment) if shown == moment else (known + (shown - at) / pace, shown)


async def read_moments(service: Service, status: Status, *, attempt: int | None = None) -> Moments:
    """Return when the steps of a session were trained, as far as is known.

    A window is handed out some seconds before it is trained. The newest trained step is placed when
    a rank last called.

    Args:
        service: The service.
        status: Where the session's training stands.
        attempt: An earlier attempt; None for the running one.

    Raises:
        ArgumentError: The session has no such attempt.
    """
    entry = await service.writer.find(status.stored.session.spec.name)
    ref = await range_of(service, entry, attempt)
    running = entry.stored.session.attempt.includes(ref.attempt)
    newest = status.step if running else None
    end = ref.end if newest is None else min(newest + 1, ref.end)

    def answer() -> Moments:
        parts = list(spans(ref.lineage, ref.start, max(end, ref.start)))
        total = sum(each.end - each.start for each in parts)
        found = [_of_span(service, each, total) for each in parts]
        heard = None if newest is None or status.last_heard is None else (
            newest + 1, datetime.fromisoformat(status.last_heard).timestamp()
        )  # fmt: skip
        return _joined(parts, found, heard)

    return await in_thread(answer)


def _of_span(service: Service, span: Span, total: int) -> list[HandedOut]:
    length = span.end - span.start
    looks = min(max(LOOKS * length // max(total, 1), FEWEST), length)
    steps = np.linspace(span.start, span.end - 1, looks, dtype=np.int64)
    return service.store.handed_out(span.ref, steps.tolist())


def _joined(
    parts: list[Span], found: list[list[HandedOut]], heard: tuple[int, float] | None
) -> Moments:
    """Return the moments of all parts, without those that would go back in time.

    The training may have stood still between the last window of a part and the next part. So the
    last step of that window is placed by the pace before it.
    """
    places: list[tuple[float, float]] = []
    for number, (span, windows) in enumerate(zip(parts, found, strict=True)):
        places += windows
        if number < len(parts) - 1 and len(windows) >= FEWEST:
            (one, then), (two, later) = windows[-2:]
            pace = (later - then) / (two - one)
            places.append((span.end - 0.5, later + pace * (span.end - 0.5 - two)))
    if heard is not None:
        places.append(heard)
    steps: list[float] = []
    seconds: list[float] = []
    for step, at in sorted(places, key=lambda each: each[0]):
        if not steps or (step > steps[-1] and at >= seconds[-1]):
            steps.append(float(step))
            seconds.append(at)
    return Moments(steps, seconds)
