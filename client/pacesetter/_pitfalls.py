"""Known pitfalls of a description, which the server names when a session is created by it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pacesetter._errors import printable

MOST_LOGGED = 20

logger = logging.getLogger("pacesetter")


def log_pitfalls(name: str, answer: Mapping[str, Any]) -> None:
    """Log what the server has found: errors and warnings as such, the rest as information."""
    found = answer.get("warnings")
    for each in (found if isinstance(found, list) else [])[:MOST_LOGGED]:
        if isinstance(each, Mapping):
            grave = each.get("severity") in {"error", "warning"}
            text = (
                f"{each.get('pointer')}: {each.get('message')}; {each.get('advice')}"
                f" [{each.get('code')}]"
            )
            logger.log(
                logging.WARNING if grave else logging.INFO, "session %s: %s", name, printable(text)
            )
