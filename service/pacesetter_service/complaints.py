"""Log lines that any caller can cause, at a bounded rate: a caller cannot fill a disk with them.

Of each kind so many lines a minute are written; those beyond are counted, and one line says how
many they were when the minute is over.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import structlog

MOST = 10
"""Lines of one kind in one period."""

PERIOD = 60.0
"""Seconds that a period lasts, from its first line on."""


@dataclass(slots=True)
class _Period:
    began: float
    told: int = 0
    untold: int = 0


class Complaints:
    """Complaints of some kinds, which are constants of the code: their number is bounded too."""

    def __init__(
        self,
        write: Callable[..., object],
        *,
        most: int = MOST,
        period: float = PERIOD,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin without any.

        Args:
            write: What writes a line, which is told its kind and more.
            most: The most lines of one kind in one period.
            period: Seconds that a period lasts, from its first line on.
            clock: Seconds since whenever.
        """
        self._write = write
        self._most = most
        self._period = period
        self._clock = clock
        self._periods: dict[str, _Period] = {}
        self._lock = threading.Lock()

    def tell(self, kind: str, **details: object) -> None:
        """Write a line of a kind, or count it."""
        with self._lock:
            current = self._current(kind)
            if current.told < self._most:
                current.told += 1
                self._write(kind=kind, **details)
                return
            current.untold += 1
            if current.untold == 1:
                self._remember(kind, current.began + self._period - self._clock())

    def settle(self, *kinds: str) -> None:
        """Say how many lines of some kinds, or of all, were not written; they begin anew."""
        with self._lock:
            for kind in kinds or tuple(self._periods):
                self._settle(kind)

    def _current(self, kind: str) -> _Period:
        period, now = self._periods.get(kind), self._clock()
        if period is None or now - period.began >= self._period:
            self._settle(kind)
            period = self._periods[kind] = _Period(now)
        return period

    def _settle(self, kind: str) -> None:
        period = self._periods.pop(kind, None)
        if period is not None and period.untold:
            self._write(kind=kind, suppressed=period.untold)

    def _remember(self, kind: str, seconds: float) -> None:
        # Without a loop, in which no server runs, the next line of its kind settles it.
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_later(max(seconds, 0.0), self.settle, kind)


log = structlog.get_logger("pacesetter")


bad_requests = Complaints(lambda **details: log.warning("bad_request", **details))
"""Of requests that were refused for what they are; each kind is the code of a problem."""
