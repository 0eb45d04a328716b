"""Changes of other processes, heard immediately where PostgreSQL's notifications arrive.

The poller still goes on looking: notifications only make it look sooner.
"""

import threading
from collections.abc import Callable, Collection

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.store.notifications import DeafConnectionError
from pacesetter_service.store.postgres import PostgresStore

log = structlog.get_logger("pacesetter.listening")

TURN = 1.0
"""Seconds after which a listener that hears nothing checks whether it should end."""

AGAIN_AFTER = 15.0
"""Seconds after which a connection that was lost, or that heard nothing, is replaced."""

ADVICE = (
    "changes of other services are seen by looking, four times a second; listen-url must lead to"
    " the database itself, past PgBouncer and the like"
)


class Listener:
    """A thread that listens, and reports which sessions have changed."""

    def __init__(
        self, store: PostgresStore, url: str, tell: Callable[[Collection[str]], None]
    ) -> None:
        """Set up, without starting.

        Args:
            store: The database, as notifications are sent to it.
            url: The database itself, where they are received.
            tell: Is given the names of sessions; must be quick, and must not raise.
        """
        self._store = store
        self._url = url
        self._tell = tell
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except (DeafConnectionError, StorageUnavailableError) as error:
                log.warning("not_listening", reason=str(error), advice=ADVICE)
                self._ended.wait(AGAIN_AFTER)
            except Exception:  # the next connection may work
                log.exception("listening_failed")
                self._ended.wait(AGAIN_AFTER)

    def _listen(self) -> None:
        with self._store.listening(self._url) as listening:
            log.info("listening")
            while not self._ended.is_set():
                if names := listening.heard(TURN):
                    self._tell(names)
