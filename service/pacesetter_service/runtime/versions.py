"""Current versions of sessions, for calls that hold a state which may be outdated.

One query at a time serves all waiting calls, and none of them waits for the writer.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from pacesetter_service.runtime.pool import in_thread


class VersionReader:
    """Reads versions for the calls of one event loop; simultaneous calls share a query."""

    def __init__(self, read: Callable[[Iterable[str]], Mapping[str, int]]) -> None:
        """Set up.

        Args:
            read: Returns the versions of sessions by name; callable from any thread.
        """
        self._read = read
        self._waiting: defaultdict[str, list[asyncio.Future[int]]] = defaultdict(list)
        self._reading: asyncio.Task[None] | None = None

    async def version(self, name: str) -> int:
        """Return the version of a session, by a query that starts after this call; 0 for none.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting[name].append(future)
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._read_for_all())
        try:
            return await future
        finally:
            del future  # a failure would hold this frame, and this frame the failure

    async def _read_for_all(self) -> None:
        while self._waiting:
            # Later callers wait for the next query: this one may miss changes that they have seen.
            waiting, self._waiting = self._waiting, defaultdict(list)
            try:
                versions = await in_thread(self._read, list(waiting))
            except Exception as failure:
                _fail(waiting, failure)
                del waiting  # what is raised holds this frame
                continue
            for name, futures in waiting.items():
                for future in _of({name: futures}):
                    future.set_result(versions.get(name, 0))


def _fail(waiting: Mapping[str, list[asyncio.Future[int]]], failure: Exception) -> None:
    for future in _of(waiting):
        future.set_exception(failure)


def _of(waiting: Mapping[str, list[asyncio.Future[int]]]) -> list[asyncio.Future[int]]:
    """Return the futures of the calls that still wait."""
    return [each for futures in waiting.values() for each in futures if not each.done()]
