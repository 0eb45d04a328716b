"""How many steps to ask for: a window should last about ten seconds, however long a step takes.

Ten seconds is what an operator waits for a change to reach the optimizer.
"""

from __future__ import annotations

import math
import time

WINDOW_SECONDS = 10.0
LEAST_LEAD_SECONDS = 0.02
LEAD_FETCHES = 5
# The first window holds one step: a step may be a millisecond or an epoch, and an epoch's loop must
# not have sixty epochs sealed before anybody knows. The second is as long as the first step says.
FIRST = 1
SECOND_AT_MOST = 64
GROWTH = 8


class Pace:
    """Measures the step time at the edges of windows, and nowhere else."""

    def __init__(self) -> None:
        self._step = -1
        self._time = 0.0
        self._count = 0
        self.step_seconds: float | None = None

    def arrive(self, step: int) -> None:
        """Note that the trainer has come to `step`."""
        now = time.perf_counter()
        if 0 <= self._step < step:
            self.step_seconds = (now - self._time) / (step - self._step)
        self._step, self._time = step, now

    def depart(self) -> None:
        """Note that the trainer goes on, so that waiting counts as no step's time."""
        self._time = time.perf_counter()

    def count(self, limit: int) -> int:
        """Steps that the next window should hold, at least 1 and at most `limit`.

        It grows eightfold at most: the first steps of a training on a GPU are only queued, and seem
        far quicker than they are.
        """
        if self.step_seconds is None:
            wished = FIRST
        else:
            wished = int(min(WINDOW_SECONDS / max(self.step_seconds, 1e-9), limit))
        ceiling = max(SECOND_AT_MOST, GROWTH * self._count)
        self._count = max(1, min(wished, ceiling, limit))
        return self._count

    def mark(self, length: int, fetch_seconds: float) -> int:
        """The index in a window of `length` steps at which to have the next one fetched.

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
