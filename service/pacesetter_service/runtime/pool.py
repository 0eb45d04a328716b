"""A bounded pool of threads for long work that serves a single caller.

It is separate from the event loop's own threads, so that cheap calls never wait behind costly ones.
Work that no caller waits for any more is abandoned: immediately while it is queued, and at its next
`check` while it runs. Its threads do not keep the process from ending.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import BusyError
from pacesetter_service.runtime.threads import started

P = ParamSpec("P")
T = TypeVar("T")


AT_ONCE = 8
"""How many functions may wait for the disk simultaneously.

A store has four connections for reading. Without a bound, many callers would start forty threads,
which could only wait for these connections, and each of which takes memory.
"""

COMPUTING = 4
"""How many computing functions have a thread each: Python runs one of them at a time anyway."""

# Each event loop has its own.
_waiting: RunVar[CapacityLimiter] = RunVar("in_thread")
_computing: RunVar[CapacityLimiter] = RunVar("aside")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that reads from a disk, and answers from what it reads, on another thread."""
    return await _on_a_thread(partial(function, *args, **kwargs), _bound(_waiting, AT_ONCE))


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that only computes on another thread, so that no other call waits for it.

    It does not wait for functions that wait for a disk, nor do they wait for it.
    """
    return await _on_a_thread(partial(function, *args, **kwargs), _bound(_computing, COMPUTING))


async def _on_a_thread(function: Callable[[], T], limiter: CapacityLimiter) -> T:
    """Run a function on a thread of the event loop.

    It keeps its place among those that may run until it has ended, even if its caller goes away:
    otherwise callers that come and go would start any number of threads. A function whose caller
    goes before it begins is not run.
    """
    left = threading.Event()

    def work() -> Outcome[T]:
        return (None, AbandonedError()) if left.is_set() else _outcome_of(function)

    running = asyncio.ensure_future(to_thread.run_sync(work, limiter=limiter))
    try:
        return _given(await _begun(running))
    except asyncio.CancelledError:
        left.set()
        raise
    finally:
        del running  # what it raised holds this frame


async def _begun(running: "asyncio.Future[Outcome[T]]") -> "Outcome[T]":
    """Return the outcome of a function on a thread of the event loop.

    Raises:
        BusyError: The system starts no further thread.
    """
    try:
        return await asyncio.shield(running)
    except RuntimeError as error:  # not the function's: its outcome is returned
        raise BusyError from error
    finally:
        del running  # what it raised holds this frame


Outcome = tuple[T, None] | tuple[None, BaseException]
"""What a function returned, or what it raised."""


def _outcome_of(function: Callable[[], T]) -> Outcome[T]:
    """Return the result of a function, or the exception that it raised.

    An exception raised through a future would hold the frame that awaits the future, that frame the
    future, and the future the exception: a reference cycle, which would keep the whole request in
    memory until the garbage collector runs.
    """
    try:
        return function(), None
    except Exception as failure:
        return None, failure


def _given(outcome: Outcome[T]) -> T:
    """Return what a function returned, or raise what it raised."""
    if outcome[1] is None:
        return outcome[0]
    try:
        raise outcome[1]
    finally:
        del outcome  # the exception holds this frame


def _bound(kept: RunVar[CapacityLimiter], most: int) -> CapacityLimiter:
    found = kept.get(None)
    if found is None:
        found = CapacityLimiter(most)
        kept.set(found)
    return found


def checked(items: Iterable[T], check: Check) -> Iterator[T]:
    """Return items one by one; before each, check that the caller still waits for them."""
    for item in items:
        check()
        yield item


class AbandonedError(Exception):
    """The caller that the work was for has gone away."""


@dataclass(slots=True, eq=False)
class _Task:
    function: Callable[[Check], object]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Outcome[Any]]"
    abandoned: threading.Event = field(default_factory=threading.Event)


class Pool:
    """A bounded number of threads, and a bounded queue of tasks that wait for one."""

    def __init__(self, name: str, *, workers: int, waiting: int) -> None:
        """Set up; the threads start when they are first needed.

        Args:
            name: The prefix of its threads' names.
            workers: How many threads there are.
            waiting: The most tasks that may wait for one of them.
        """
        self._name = name
        self._workers = workers
        self._most = workers + waiting
        self._changed = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._running = 0
        self._threads: set[threading.Thread] = set()
        self._closing = False

    def close(self) -> None:
        """Let the threads finish all queued work, and wait until they have ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    async def run(self, function: Callable[[Check], T]) -> T:
        """Run a function on a thread, and return what it returns.

        Args:
            function: Is given a `check` to call now and then, which raises once the caller of `run`
                is cancelled.

        Raises:
            BusyError: Too many tasks wait already, or the system starts no thread for them.
        """
        loop = asyncio.get_running_loop()
        task = _Task(function, loop, loop.create_future())
        self._put(task)
        try:
            result: T = _given(await task.future)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        finally:
            del task  # the exception holds this frame
        return result

    def _put(self, task: _Task) -> None:
        with self._changed:
            if len(self._tasks) + self._running >= self._most:
                raise BusyError
            self._tasks.append(task)
            if len(self._threads) < min(self._workers, len(self._tasks) + self._running):
                self._add_thread()
            if not self._threads:  # the task would wait for ever
                self._tasks.pop()
                raise BusyError
            self._changed.notify()

    def _add_thread(self) -> None:
        """Start another thread; if the system refuses that, the others do all the work."""
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        if started(thread):
            self._threads.add(thread)

    def _abandon(self, task: _Task) -> None:
        task.abandoned.set()
        with self._changed, suppress(ValueError):  # it runs already
            self._tasks.remove(task)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._tasks:
                    if self._closing:
                        self._threads.discard(threading.current_thread())
                        return
                    self._changed.wait()
                task = self._tasks.popleft()
                self._running += 1
            try:
                outcome = _result_of(task.function, task.abandoned)
            finally:
                with self._changed:
                    self._running -= 1
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                task.loop.call_soon_threadsafe(_resolve, task.future, outcome)
            del task, outcome  # holds no reference while this waits for the next


def _result_of(function: Callable[[Check], object], abandoned: threading.Event) -> Outcome[object]:
    def check() -> None:
        if abandoned.is_set():
            raise AbandonedError

    try:
        check()
        return function(check), None
    except BaseException as failure:
        return None, failure


def _resolve(future: "asyncio.Future[Outcome[Any]]", outcome: Outcome[object]) -> None:
    if not future.done():
        future.set_result(outcome)
