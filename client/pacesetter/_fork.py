"""What must be renewed in a forked child: connections, threads and locks belong to the parent.

DataLoader workers fork after a client exists. A child that wrote to the parent's socket, or waited
for a lock that a thread of the parent held, would break both.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that holds what a child must not use."""

    def after_fork(self) -> None:
        """Replace it; called in the child, before any of its own code runs."""


_forked: weakref.WeakSet[Forked] = weakref.WeakSet()


def renew_in_child(holder: Forked) -> None:
    """Call `holder.after_fork()` in every child that is forked while `holder` is alive."""
    _forked.add(holder)


def _after_in_child() -> None:
    for holder in list(_forked):
        holder.after_fork()


class ForkableLock:
    """A lock of a whole module; it is free in a child, even if a thread of the parent held it."""

    def __init__(self) -> None:
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Take a new lock."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
