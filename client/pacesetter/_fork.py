"""What must be renewed in a forked child: connections, threads and locks belong to the parent.

DataLoader workers fork after a client exists. A child that wrote to the parent's socket, or waited
for a lock that a thread of the parent held, would break both.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
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
    """A lock of a whole module; in a child it is free, also if a thread of the parent held it."""

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


_at_ends: dict[Callable[[], object], int] = {}  # and the process at whose end each is called


def at_end_of_worker(work: Callable[[], object]) -> None:
    """Call a function once at the end of this process if it is a worker of `multiprocessing`.

    A worker that was forked runs none of the functions of `atexit`. It begins by forgetting what
    it has inherited, so this is to be called once there is something to do.
    """
    process, util = map(sys.modules.get, ("multiprocessing.process", "multiprocessing.util"))
    if process is None or util is None or process.parent_process() is None:
        return
    if _at_ends.get(work) != os.getpid():
        _at_ends[work] = os.getpid()
        util.Finalize(None, work, exitpriority=0)
