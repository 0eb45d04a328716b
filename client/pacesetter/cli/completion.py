"""What the shell completes: the names of sessions, asked of the server."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

MOST = 200
PATIENCE = 1.0
"""Seconds after which a shell gets no names: a person is waiting."""


def session_names(incomplete: str) -> list[str]:
    """Return the names of sessions that begin with what was typed; none if no server answers."""
    from pacesetter import PacesetterError  # noqa: PLC0415 - only when something is completed
    from pacesetter.cli.server import Server  # noqa: PLC0415

    with suppress(PacesetterError, ValueError):
        server = Server(None, timeout=PATIENCE, retry_for=0.0)
        try:
            found = server.status(name=f"{incomplete}*")
            return [str(each["name"]) for each in islice(found, MOST)]
        finally:
            server.close()
    return []
