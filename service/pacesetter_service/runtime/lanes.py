"""The order of costly jobs at the writer: one by one, and sessions take turns.

A session whose steps are costly to evaluate waits only behind others like it, and no other session
waits behind it for longer than one of its jobs takes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

J = TypeVar("J")


class Lanes(Generic[J]):
    """Costly jobs, by the session that they are about; used by a single thread."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[J]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return self._count

    def waiting(self, name: str) -> int:
        """Return how many jobs of a name wait."""
        return len(self._waiting.get(name, ()))

    def put(self, name: str, job: J) -> None:
        """Queue a job for its turn, behind those of the same name."""
        self._waiting.setdefault(name, deque()).append(job)
        self._count += 1

    def take(self, is_light: Callable[[J], bool]) -> list[J]:
        """Take the next job of the name whose turn it is, and those of that name that became light.

        Many ranks ask for the same steps: once these are sealed, handing them out costs nothing.
        """
        if not self._waiting:
            return []
        name, jobs = self._waiting.popitem(last=False)
        taken = [jobs.popleft()]
        left = deque[J]()
        for job in jobs:
            (taken if is_light(job) else left).append(job)
        if left:
            self._waiting[name] = left  # at the end: now the others have their turns
        self._count -= len(taken)
        return taken
