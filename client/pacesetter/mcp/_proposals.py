"""Proposals: dry runs by their numbers, each of which can be applied once, for a limited time."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

MOST = 64
"""How many proposals are kept; the oldest make room."""


class ProposalError(ValueError):
    """A proposal cannot be applied."""


@dataclass
class Proposed:
    """An order that was rehearsed.

    Attributes:
        id: Its number, by which it is applied.
        name: The session.
        body: The order, bound to the revision that it was rehearsed at.
        until: When it expires, by the monotonic clock.
        expires_at: The same moment, for people.
        applied: What became of it, once it was applied or refused; empty before.
    """

    id: str
    name: str
    body: Mapping[str, Any]
    until: float
    expires_at: str
    applied: str = ""


class Proposals:
    """The proposals of this process: a new process knows none of them.

    Args:
        expires: Seconds for which a proposal can be applied.
    """

    def __init__(self, expires: float) -> None:
        self._expires = expires
        self._known: dict[str, Proposed] = {}
        self._lock = threading.Lock()

    def add(self, name: str, body: Mapping[str, Any]) -> Proposed:
        """Keep an order that was rehearsed, and return it with its number."""
        end = datetime.fromtimestamp(time.time() + self._expires, timezone.utc)
        made = Proposed(
            "p-" + secrets.token_hex(6),
            name,
            body,
            time.monotonic() + self._expires,
            end.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        with self._lock:
            self._known[made.id] = made
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
        return made

    def take(self, number: str) -> Proposed:
        """Return a proposal to be applied now, and mark it as taken.

        Raises:
            ProposalError: There is no proposal of that number, or it has expired or was taken.
        """
        with self._lock:
            found = self._known.get(number)
            if found is None:
                raise ProposalError("There is no such proposal here. Make one with `propose`.")
            if found.applied:
                raise ProposalError(f"This proposal {found.applied}. Make another one.")
            if time.monotonic() >= found.until:
                raise ProposalError(
                    f"This proposal could be applied until {found.expires_at}. Look at the session"
                    " again with `status`, and make another one."
                )
            found.applied = "is being applied"
            return found

    def settle(self, proposed: Proposed, became: str) -> None:
        """Record what became of a proposal; empty if unknown, so that it may be tried again."""
        with self._lock:
            proposed.applied = became
