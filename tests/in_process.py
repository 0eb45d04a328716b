"""The real store and ledger in the test's own process, on a file."""

import asyncio
from pathlib import Path

from pacesetter_service.ledger import Ledger, Outcome, Work
from pacesetter_service.storage.store import Store


class Service:
    """A store and a ledger, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._url = f"sqlite:///{folder / 'pacesetter.db'}"
        self._loop = asyncio.new_event_loop()
        self._start()

    def _start(self) -> None:
        self.store = Store(self._url)
        self._ledger = Ledger(self.store, max_cached=3)
        self._ledger.start()

    def _stop(self) -> None:
        self._ledger.stop()
        self.store.close()

    def restart(self) -> None:
        """Stop, and start on what is on the disk."""
        self._stop()
        self._start()

    def close(self) -> None:
        """Stop for good."""
        self._stop()
        self._loop.close()

    def do(self, work: Work) -> Outcome:
        """Have work done, or be refused."""
        return self._loop.run_until_complete(self._ledger.submit(work))
