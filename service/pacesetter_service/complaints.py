"""Log lines that any caller can cause, at a bounded rate: a caller cannot fill a disk with them.

A bounded number of lines of each kind is written a minute. Further ones are counted, and one line
says how many there were when the minute is over.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import structlog

MOST = 10
"""The most lines of one kind in one period."""

PERIOD = 60.0
"""The length of a period in seconds, from its first line on."""


@dataclass(slots=True)
class _Period:
    began: float
    told: int = 0
    untold: int = 0


class Complaints:
    """Complaints by kind; kinds are constants in the code, so their number is bounded too."""

    def __init__(
        self,
        write: Callable[..., object],
        *,
        most: int = MOST,
        period: float = PERIOD,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start with no complaints.

        Args:
            write: Writes a line; it is given its kind and details.
            most: The most lines of one kind in one period.
            period: The length of a period in seconds, from its first line on.
            clock: Returns seconds since an arbitrary moment.
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
        """Log how many lines of some kinds, or of all, were not written; their periods end."""
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
        # Without an event loop no server runs, and the next line of the kind settles it.
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_later(max(seconds, 0.0), self.settle, kind)


log = structlog.get_logger("pacesetter")


bad_requests = Complaints(lambda **details: log.warning("bad_request", **details))
"""Complaints about malformed requests; each kind is the code of a problem."""
