"""How long a step has been waited for, as a value that every replica can continue."""

from dataclasses import dataclass

LONGEST_GAP = 5.0
"""The most seconds between two polls of a trainer that count as waiting."""

NOTED_EVERY = 0.5
"""For how many seconds the wait of a trainer is not recorded again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long trainers have waited for the measurements that a step awaits.

    Attributes:
        step: The step.
        seconds: For how long, without the time in which no trainer asked.
        looked: When a trainer last asked, in seconds since 1970.
    """

    step: int
    seconds: float
    looked: float

    def until(self, now: float) -> "Wait":
        """Return the wait of a trainer that asks now.

        A trainer that died while it waited and comes back an hour later has not waited an hour: it
        must still find the other ranks. So a long gap counts as a short one. The clocks of two
        replicas may differ, so a negative gap counts as nothing.
        """
        gap = min(max(now - self.looked, 0.0), LONGEST_GAP)
        return Wait(self.step, self.seconds + gap, now)

    def is_noted(self, now: float) -> bool:
        """Return whether it was recorded so recently that a thousand ranks need not repeat it."""
        return abs(now - self.looked) < NOTED_EVERY
