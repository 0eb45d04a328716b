"""How many steps to ask for, so that a change reaches the optimizer within about ten seconds.

An operator waits for what is sealed already: the rest of the window, and the next one where it was
fetched ahead. With windows of six seconds, where the next one is fetched when half is left, that is
nine seconds at most. Where a step takes longer than that, one step is sealed at a time.
"""

from __future__ import annotations

import math
import time

WINDOW_SECONDS = 6.0
LEAST_LEAD_SECONDS = 0.02
LEAD_FETCHES = 5
# The first window holds one step, since a step may be a millisecond or an epoch. From there,
# windows at most double: the first steps of a training on a GPU are only queued, and seem far
# quicker than they are.
FIRST = 1
GROWTH = 2


class Pace:
    """Measures the step time at the edges of windows, and nowhere else."""

    def __init__(self) -> None:
        self._step = -1
        self._time = 0.0
        self._count = 0
        self.step_seconds: float | None = None

    def arrive(self, step: int) -> None:
        """Note that the trainer has reached `step`."""
        now = time.perf_counter()
        if 0 <= self._step < step:
            self.step_seconds = (now - self._time) / (step - self._step)
        self._step, self._time = step, now

    def depart(self) -> None:
        """Note that the trainer goes on, so that waiting counts as no step's time."""
        self._time = time.perf_counter()

    @property
    def step(self) -> int:
        """The step at which the trainer was last seen; -1 before the first."""
        return self._step

    def count(self, limit: int) -> int:
        """Return how many steps the next window should hold, at least 1 and at most `limit`.

        They are at most twice those of the last one, and fewer as soon as steps get slower.
        """
        if self.step_seconds is None:
            wished = FIRST
        else:
            wished = int(min(WINDOW_SECONDS / max(self.step_seconds, 1e-9), limit))
        ceiling = max(FIRST, GROWTH * self._count)
        self._count = max(1, min(wished, ceiling, limit))
        return self._count

    def mark(self, length: int, fetch_seconds: float) -> int:
        """Return the index in a window of `length` steps at which to have the next one fetched.

        Half a window ahead, so that a server may restart unnoticed, and more when fetching takes
        long. A window of one step has no room for it: its successor is fetched on demand.
        """
        if length == 1:
            return 1
        lead = length - length // 2
        if self.step_seconds is not None:
            seconds = max(LEAST_LEAD_SECONDS, LEAD_FETCHES * fetch_seconds)
            lead = max(lead, math.ceil(min(seconds / max(self.step_seconds, 1e-9), length)))
        return length - lead
