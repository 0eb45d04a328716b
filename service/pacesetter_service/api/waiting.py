"""Waiting for a session to change: who asks for a step that needs a decision is told of news."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

Moment = tuple[int, int]
"""An attempt of a session, and a step of it: later ones are greater."""

LONGEST_GAP = 5.0
"""The most seconds between two looks at a clock that count as waiting."""


@dataclass(slots=True)
class _Clock:
    """How long a step has been waited for, and when somebody last looked."""

    moment: Moment
    looked: float
    seconds: float = 0.0


class Waiters:
    """Those who wait for news of sessions, by name; all of them in one event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._clocks: dict[str, _Clock] = {}
        self.released = False

    async def news(self, name: str, seconds: float) -> None:
        """Return when the session has changed, when the time is over, or on `release`."""
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

    def release(self) -> None:
        """Let everybody go, whatever they wait for, and have nobody wait any more."""
        self.released = True
        for name in list(self._waiting):
            self.wake(name)

    def waited(self, name: str, moment: Moment) -> float:
        """Give for how many seconds a step of a session has been waited for, by anybody.

        A trainer that died while it waited and comes back an hour later has not waited an hour: it
        is to find the other ranks, so time in which nobody asked does not count.
        """
        now = monotonic()
        clock = self._clocks.get(name)
        if clock is None or clock.moment != moment:
            clock = self._clocks[name] = _Clock(moment, now)
        clock.seconds += min(now - clock.looked, LONGEST_GAP)
        clock.looked = now
        return clock.seconds

    def forget(self, name: str, horizon: Moment) -> None:
        """Forget how long a step below the horizon was waited for: it is there."""
        clock = self._clocks.get(name)
        if clock is not None and clock.moment < horizon:
            del self._clocks[name]
