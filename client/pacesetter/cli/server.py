"""The server, as this command calls it: in the user's name, and no longer than a person waits."""

from __future__ import annotations

import logging

from pacesetter._client import Client
from pacesetter.cli.context import actor

LOGGER = logging.getLogger("pacesetter")

TIMEOUT = 30.0
"""Seconds that one exchange may take."""

RETRY_FOR = 3.0
"""Seconds for which a call is retried: a person is waiting, and can try again too."""

PATIENCE = 300.0
"""Seconds that a server may be away while a command follows it."""


class Server(Client):
    """A client in the name of the person at the terminal.

    Args:
        url: The server's address; without one `PACESETTER_URL`, else `http://127.0.0.1:7070`.
        timeout: Seconds that one exchange may take.
        retry_for: Seconds for which a call is retried while the server is away.
    """

    def __init__(
        self, url: str | None, *, timeout: float = TIMEOUT, retry_for: float | None = None
    ) -> None:
        if retry_for is None:
            retry_for = RETRY_FOR
        super().__init__(url, timeout=timeout, retry_for=retry_for, actor=actor())
        self._mute = logging.NullHandler()
        if retry_for <= RETRY_FOR:  # the warnings would only say what the error will soon say
            LOGGER.addHandler(self._mute)

    def close(self) -> None:
        """Close the connections, and leave the log as it was."""
        LOGGER.removeHandler(self._mute)
        super().close()
