"""Signals: they wake callers that wait for a session to change.

A signal is a hint: a caller that is woken looks at the session again, and goes on waiting if it was
woken in vain. Calls that are held for a measurement and feeds of events wait in the same way.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

ANY = "*"
"""Stands for every session, and is no session's name: its waiters are told of any change."""


class Signals:
    """The callers that wait for news of sessions, by name; all run in one event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners = 0
        self.released = False

    def awaited(self) -> tuple[str, ...]:
        """Return the names of the sessions that callers wait for; callable from any thread."""
        return tuple(self._waiting)

    def is_awaited(self, name: str) -> bool:
        """Return whether a caller waits for a session."""
        return name in self._waiting

    async def news(self, name: str, seconds: float) -> None:
        """Wait until the session has changed, the time is over, or `release` is called."""
        self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[name].add(future)
        try:
            with suppress(TimeoutError):
                # Before Python 3.12, `wait_for` loses a cancellation that comes with the news.
                async with asyncio.timeout(seconds):
                    await future
        finally:
            self._waiting[name].discard(future)
            if not self._waiting[name]:
                del self._waiting[name]

    def tell(self, name: str) -> None:
        """Tell all callers that wait for a session that it has changed."""
        for future in self._waiting.get(name, ()):
            if not future.done():
                future.set_result(None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Accept signals from other threads for the running loop inside the `with` block."""
        self._loop = asyncio.get_running_loop()
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    def tell_from_thread(self, names: Sequence[str]) -> None:
        """Do what `tell` does for some sessions, from a thread other than the event loop's."""
        if names and self._loop is not None and (self._listeners or self._waiting):
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                self._loop.call_soon_threadsafe(self._tell_all, names)

    def release(self) -> None:
        """Release all callers, whatever they wait for; `released` tells them not to wait again."""
        self.released = True
        self._tell_all(list(self._waiting))

    def _tell_all(self, names: Sequence[str]) -> None:
        for name in names:
            self.tell(name)
        self.tell(ANY)
