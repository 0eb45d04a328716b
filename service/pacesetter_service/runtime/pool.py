"""A bounded pool of threads for what takes long and serves one caller alone.

It stands apart from the event loop's own threads, so that those who ask for little never wait
behind those who ask for much. Work that no caller waits for any more is given up: at once while it
is queued, and at its next `check` while it runs. Its threads keep no process from ending.
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

P = ParamSpec("P")
T = TypeVar("T")


AT_ONCE = 8
"""How many functions wait for the disk at once.

A store has four connections to read with. Without a bound a crowd of callers would have forty
threads, which could do nothing but wait for these, and each of which keeps some memory of its own.
"""

_limiter: RunVar[CapacityLimiter] = RunVar("in_thread")  # each event loop has its own


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that waits for a disk and costs little on a thread of the event loop."""
    return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=_bound())


def _bound() -> CapacityLimiter:
    found = _limiter.get(None)
    if found is None:
        found = CapacityLimiter(AT_ONCE)
        _limiter.set(found)
    return found


def checked(items: Iterable[T], check: Check) -> Iterator[T]:
    """Pass things on, with a check before each whether the caller waits for them still."""
    for item in items:
        check()
        yield item


class AbandonedError(Exception):
    """The caller that the work was for has gone."""


@dataclass(slots=True, eq=False)
class _Task:
    function: Callable[[Check], object]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    abandoned: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        if self.abandoned.is_set():
            raise AbandonedError


class Pool:
    """So many threads, and a queue of so many that may wait for one."""

    def __init__(self, name: str, *, workers: int, waiting: int) -> None:
        """Set up; the threads start when they are first needed.

        Args:
            name: What its threads are called.
            workers: How many there are.
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
        """End the threads once no work waits for them, and wait until they have ended."""
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
                was cancelled.

        Raises:
            BusyError: Too many tasks wait already.
        """
        loop = asyncio.get_running_loop()
        task = _Task(function, loop, loop.create_future())
        self._put(task)
        try:
            result: T = await task.future
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        return result

    def _put(self, task: _Task) -> None:
        with self._changed:
            if len(self._tasks) + self._running >= self._most:
                raise BusyError
            self._tasks.append(task)
            if len(self._threads) < min(self._workers, len(self._tasks) + self._running):
                name = f"{self._name}-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.add(thread)
                thread.start()
            self._changed.notify()

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
                result, failure = _result_of(task)
            finally:
                with self._changed:
                    self._running -= 1
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                task.loop.call_soon_threadsafe(_resolve, task.future, result, failure)
            del task, result, failure  # nothing of it is held while this waits for the next


def _result_of(task: _Task) -> tuple[object, BaseException | None]:
    try:
        task.check()
        return task.function(task.check), None
    except BaseException as failure:
        return None, failure


def _resolve(future: "asyncio.Future[Any]", result: object, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
