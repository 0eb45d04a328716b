"""How long to wait before trying again: exponential, jittered, and as the server asks."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from pacesetter._errors import (
    APIError,
    AwaitingMeasurementError,
    PacesetterError,
    ServerUnavailableError,
    TransportError,
    away,
)

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
LONGEST_RETRY_AFTER = 30.0

logger = logging.getLogger("pacesetter")

# The system's generator: a training that seeded Python's must not see us draw from it, and forked
# workers must not all draw the same.
_jitter = random.SystemRandom()


def delays() -> Iterator[float]:
    """Yield delays in seconds without an end, doubling from 0.1 to 2, each cut to half or more.

    The jitter keeps a thousand trainers that lost the server together from coming back together.
    """
    delay = FIRST_DELAY
    while True:
        yield delay * _jitter.uniform(0.5, 1.0)
        delay = min(2 * delay, LONGEST_DELAY)


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, at most 30; None if unusable."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(min(int(header[:9]), LONGEST_RETRY_AFTER))
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):  # the latter for a year that no calendar has
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds = (moment - datetime.now(timezone.utc)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


class LateError(TransportError):
    """The server may be there, but did not answer in the time available."""


class Spell:
    """One spell of retrying: it has a deadline, and its start and end are logged."""

    def __init__(self, url: str, wait: float) -> None:
        self._url = url
        self._wait = wait
        self._began = time.monotonic()
        self._logged = False
        self._cut = False
        self._awaited: AwaitingMeasurementError | None = None

    def limit(self, timeout: float) -> float:
        """Return the seconds that the next try may take."""
        if self._wait <= 0:
            return timeout
        limit = min(timeout, max(self._left(), 0.1))
        self._cut = limit < timeout
        return limit

    def pause(self, delay: float, error: PacesetterError) -> float:
        """Return the seconds to sleep before the next try.

        Raises:
            ServerUnavailableError: There is no time left for another try.
        """
        wished = error.retry_after if isinstance(error, APIError) else None
        pause = max(delay, wished or 0.0)
        if isinstance(error, AwaitingMeasurementError):
            self._awaited = error
        elif not (self._cut and isinstance(error, LateError)):
            self._awaited = None  # the server is no longer there
        if self._left() <= 0:
            if self._awaited is not None:
                raise ServerUnavailableError(
                    f"waited for {self._wait:.3g} s, and may not any longer: {self._awaited}"
                ) from self._awaited
            raise away(self._url, self._wait, error) from error
        if not self._logged:
            self._logged = True
            logger.warning("%s; trying again for up to %.3g s", error, self._wait)
        return max(min(pause, self._left()), 0.0)  # time passes between two looks at the clock

    def over(self) -> None:
        """Log that the server answers again, if its silence was logged."""
        if self._logged:
            logger.warning(
                "%s answers again after %.1f s", self._url, time.monotonic() - self._began
            )

    def _left(self) -> float:
        return self._began + self._wait - time.monotonic()
