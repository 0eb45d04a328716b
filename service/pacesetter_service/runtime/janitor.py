"""Background work of the service, done in slices between the work that callers wait for.

It removes the rows of purged sessions and of interrupted imports, gives the space that they leave
back, and puts away sessions that are older than the settings keep. All of it goes through the
writer's queue, a slice at a time, so that no training waits for longer than a slice takes. Several
processes may do this on one database: a process skips what another one has removed already.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.runtime.ranks import wall_clock
from pacesetter_service.runtime.threads import started
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import purging
from pacesetter_service.store.store import Store

Chore = Callable[[Callable[[], bool]], Awaitable[None]]
"""Work that is done periodically; it is given a function that says whether to end early."""

log = structlog.get_logger("pacesetter.janitor")

PAGES = 256
"""How many pages are given back in one slice: about a megabyte."""

PAUSE = 0.001
"""Seconds between two slices, in which others can use the database."""

AGAIN = 30.0
"""Seconds after which failed work is tried again."""


CUT_OFF = 86_400.0
"""Seconds after which no process can still be working on an import: it was interrupted."""

LOOK = 3_600.0
"""Seconds between looks at a shared database: other processes may end without notice."""


class Janitor:
    """A thread that starts when there is work for it."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._starting = threading.Lock()
        self._called = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._chore: Chore | None = None
        self._every = 0.0
        self._due = 0.0

    def keep(self, chore: Chore, every: float) -> None:
        """Do a chore every `every` seconds, first after `every` seconds, however often woken."""
        self._every, self._due = every, monotonic() + every
        self._chore = chore
        self.wake()

    def wake(self) -> None:
        """Look for work; if the system starts no thread for it, the next call tries again."""
        self._called.set()
        with self._starting:
            if self._thread is None and not self._ended:
                thread = threading.Thread(target=self._run, name="janitor", daemon=True)
                if started(thread):
                    self._thread = thread

    def stop(self) -> None:
        """End after the current slice; the writer must still be running."""
        self._ended = True
        self._called.set()
        with self._starting:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        wait: float | None = None
        while not self._ended:
            self._called.wait(LOOK if wait is None and self._store.shared else wait)
            self._called.clear()
            try:
                asyncio.run(self._work())
                wait = None if self._chore is None else max(self._due - monotonic(), 0.0)
            except PacesetterError as error:  # the database is away, or another came first
                log.info("put_off", reason=str(error))
                wait = AGAIN
            except Exception:
                log.exception("janitor_failed")
                wait = AGAIN

    async def _work(self) -> None:
        for session_id in await self._writer.call(self._hidden):
            rows = 0
            while not self._ended and await self._writer.call(lambda: self._removed(session_id)):  # noqa: B023
                rows += 1
                await asyncio.sleep(PAUSE)
            log.info("purged", session=session_id, slices=rows, finished=not self._ended)
        while not self._ended and await self._writer.call(lambda: self._store.reclaim(PAGES)):
            await asyncio.sleep(PAUSE)
        if self._chore is not None and monotonic() >= self._due:
            # Last: if it fails, the hidden rows are still removed.
            await self._chore(lambda: self._ended)
            self._due = monotonic() + self._every

    def _hidden(self) -> list[int]:
        with self._store.at_once() as connection:
            if self._store.shared:  # otherwise the start has removed them
                purging.hide_cut_off_imports(connection, wall_clock(CUT_OFF))
            return purging.hidden(connection)

    def _removed(self, session_id: int) -> bool:
        with self._store.transaction(frees=True) as connection:
            return purging.remove_some(connection, session_id)
