"""The real store and writer in the test's own process, on a file."""

import asyncio
from pathlib import Path

from pacesetter_service.runtime.work import Outcome, Work
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore


class Service:
    """A store and a writer, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._url = f"sqlite:///{folder / 'pacesetter.db'}"
        self._loop = asyncio.new_event_loop()
        self._start()

    def _start(self) -> None:
        self.store = SqliteStore(self._url)
        self._writer = Writer(self.store, max_cached=3)
        self._writer.start()

    def _stop(self) -> None:
        self._writer.stop()
        self.store.close()

    def restart(self) -> None:
        """Stop, and start from what is on the disk."""
        self._stop()
        self._start()

    def close(self) -> None:
        """Stop for good."""
        self._stop()
        self._loop.close()

    def do(self, work: Work) -> Outcome:
        """Submit work, and return its outcome."""
        return self._loop.run_until_complete(self._writer.submit(work))
