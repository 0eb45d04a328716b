"""Rate limits: a token bucket for each address, and for each token.

The buckets are in memory, so each process counts separately.
"""

from collections.abc import Callable, Mapping
from math import ceil
from time import monotonic
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from pacesetter_service.api import problems
from pacesetter_service.complaints import bad_requests

MOST_CALLERS = 10_000
"""The most buckets that are kept; then full ones are dropped."""

PROBES = frozenset({"/livez", "/readyz"})
"""Addresses without a limit: a supervisor may call them as often as it likes."""


class Rates(NamedTuple):
    """How many calls a second there may be; 0 for any number.

    Attributes:
        per_token: With one token.
        per_address: From one address.
        burst: For how many seconds a silent caller may save calls up.
    """

    per_token: float = 0.0
    per_address: float = 0.0
    burst: float = 10.0


UNLIMITED = Rates()


class Buckets:
    """A bucket for each caller: it fills at a constant rate, and each call takes one unit out."""

    def __init__(self, rate: float, size: float) -> None:
        """Set up; every bucket starts full.

        Args:
            rate: How many calls each gains in a second.
            size: How many calls it holds, at least one.
        """
        self._rate = rate
        self._size = max(size, 1.0)
        self._callers: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, now: float) -> float:
        """Take a call from a caller's bucket; return seconds until there is one, 0 if there was."""
        left, then = self._callers.get(caller, (self._size, now))
        left = min(self._size, left + (now - then) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        if caller not in self._callers and len(self._callers) >= MOST_CALLERS:
            self._drop_full(now)
        self._callers[caller] = (left if wait else left - 1, now)
        return wait

    def _drop_full(self, now: float) -> None:
        """Drop callers whose buckets are full again; if there are none, drop the oldest."""
        filled = now - self._size / self._rate
        kept = {each: state for each, state in self._callers.items() if state[1] > filled}
        if len(kept) >= MOST_CALLERS:
            del kept[min(kept, key=lambda each: kept[each][1])]
        self._callers = kept


class RateLimit:
    """ASGI middleware that answers 429 to a caller that asks too often."""

    def __init__(
        self, app: ASGIApp, buckets: Buckets, caller_of: Callable[[Scope], str], who: str
    ) -> None:
        """Limit an application.

        Args:
            app: The limited application.
            buckets: The buckets of its callers.
            caller_of: Returns the caller of a request.
            who: What identifies callers: `token` or `address`.
        """
        self._app = app
        self._buckets = buckets
        self._caller_of = caller_of
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 429."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            wait = self._buckets.take(self._caller_of(scope), monotonic())
            if wait > 0:
                await self._refuse(scope, receive, send, wait)
                return
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, wait: float) -> None:
        bad_requests.tell("too_many_calls", by=self._who, caller=self._caller_of(scope))
        detail = (
            f"There are more calls of this {self._who} than PACESETTER_RATE_PER_"
            f"{self._who.upper()} lets through. Ask again when Retry-After says; trainers do so by"
            " themselves. To wait for news, follow the event stream instead of asking often."
        )
        headers: Mapping[str, str] = {"retry-after": str(ceil(wait))}
        answer = problems.document(429, "too_many_calls", detail, headers=headers)
        await answer(scope, receive, send)


def address_of(scope: Scope) -> str:
    """Return the address that a request came from; empty if it is unknown."""
    client = scope.get("client")
    return "" if client is None else str(client[0])
