"""How long to wait before trying again: exponential, jittered, and as the server wishes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
LONGEST_RETRY_AFTER = 30.0

# The system's: who seeded Python's generator for a training must not see us draw from it, and
# forked workers must not all draw the same.
_jitter = random.SystemRandom()


def delays() -> Iterator[float]:
    """Return endless delays in seconds, doubling from 0.1 to 2, each cut to half or more of it.

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
