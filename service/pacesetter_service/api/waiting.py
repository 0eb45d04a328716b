"""Waiting for a session to change: who asks for a step that needs a decision is told of news."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from time import monotonic


class Waiters:
    """Those who wait for news of sessions, by name; all of them in one event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._since: dict[str, tuple[int, float]] = {}

    async def news(self, name: str, seconds: float) -> None:
        """Return when the session has changed, or when the time is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[name].add(future)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(future, seconds)
        finally:
            self._waiting[name].discard(future)
            if not self._waiting[name]:
                del self._waiting[name]

    def wake(self, name: str) -> None:
        """Tell everybody who waits for a session that it has changed."""
        for future in self._waiting.get(name, ()):
            if not future.done():
                future.set_result(None)

    def waited(self, name: str, step: int) -> float:
        """Give for how many seconds a step of a session has been waited for, by anybody."""
        awaited, since = self._since.get(name, (-1, 0.0))
        if awaited != step:
            since = monotonic()
            self._since[name] = (step, since)
        return monotonic() - since

    def forget(self, name: str) -> None:
        """Forget since when a session's step was waited for: it is there."""
        self._since.pop(name, None)
