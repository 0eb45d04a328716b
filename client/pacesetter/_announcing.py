"""The one line that says a training follows its session, and where to watch it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from urllib.parse import quote

from pacesetter._fork import ForkableLock
from pacesetter._info import SessionInfo

logger = logging.getLogger("pacesetter")

_said: set[tuple[str, str, int]] = set()
_lock = ForkableLock()


def announce(url: str, info: SessionInfo, step: int) -> None:
    """Log that a training begins at a step of a session, once per process and attempt.

    It is logged at INFO. If the program has configured logging, that configuration decides whether
    the line is shown. Otherwise Python would drop it, so it goes to the standard error, unless
    `PACESETTER_QUIET` is set.

    Args:
        url: The server's address.
        info: The session, in the attempt that begins or goes on.
        step: The step that is trained next.
    """
    begun = (url, info.name, info.attempt)
    with _lock:
        if begun in _said or is_quiet():
            return
        _said.add(begun)
    said = "pacesetter: session %s, attempt %d, step %d, %s"
    link = f"{url.rstrip('/')}/sessions/{quote(info.name, safe='')}"
    if not is_logging_left_alone():
        logger.info(said, info.name, info.attempt, step, link)
    elif sys.stderr is not None:  # None where a program has no console
        print(said % (info.name, info.attempt, step, link), file=sys.stderr)  # noqa: T201 - see above


def is_quiet(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the user wants no unrequested lines."""
    return environ.get("PACESETTER_QUIET", "").strip().lower() not in {"", "0", "false", "no"}


def is_logging_left_alone() -> bool:
    """Return whether the program has configured nothing that would show this logger's lines."""
    return (
        not logger.hasHandlers()
        and not logger.disabled
        and logger.level == logging.NOTSET
        and logging.root.level == logging.WARNING  # the default
        and logging.root.manager.disable < logging.INFO
    )
