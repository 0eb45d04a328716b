"""Work with a bounded wait, whatever it does: it runs in threads that can be abandoned.

A name lookup has no time limit, and the limits of sockets begin again with each byte. Only in this
way is a trainer's wait bounded whatever the network does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Does work, each piece in its own thread, and knows the threads that were abandoned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[threading.Thread] = []

    def within(self, seconds: float, work: Callable[[], T]) -> T:
        """Return what the work returns, or raise what it raises.

        Raises:
            TimeoutError: The work takes longer; it goes on in an abandoned thread.
        """
        outcome: queue.SimpleQueue[T | _Raised] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put(work())
            except BaseException as error:
                outcome.put(_Raised(error))

        thread = threading.Thread(target=run, name="pacesetter-exchange", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends
            return work()
        try:
            got = outcome.get(timeout=seconds)
        except queue.Empty:
            with self._lock:
                self._left.append(thread)
            raise TimeoutError from None
        if isinstance(got, _Raised):
            raise got.error
        return got

    def left(self) -> int:
        """Return how many abandoned threads are still running."""
        with self._lock:
            self._left = [thread for thread in self._left if thread.is_alive()]
            return len(self._left)


class _Raised:
    """What work has raised, as distinct from what it has returned."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
