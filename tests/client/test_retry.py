"""Waiting between tries."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice

import pytest

from pacesetter._retry import delays, retry_after


def test_delays_double_up_to_two_seconds_with_jitter():
    """Each delay lies between half and all of 0.1, 0.2, 0.4... 2 seconds, and not all alike."""
    found = list(islice(delays(), 50))
    full = [min(0.1 * 2**n, 2.0) for n in range(50)]
    assert all(whole / 2 <= delay <= whole for delay, whole in zip(found, full, strict=True))
    assert len(set(found)) == 50


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("99999999999999999999", 30.0),
        ("soon", None),
        ("-3", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
    ],
)
def test_a_retry_after_header_is_read(header: str | None, seconds: float | None):
    """Seconds and dates are understood, capped at 30 s, and nonsense is ignored."""
    assert retry_after(header) == seconds


def test_a_date_to_come_is_waited_for():
    """A date is turned into the seconds until then."""
    seconds = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=10)))
    assert seconds is not None
    assert 5 < seconds <= 10


def test_waiting_leaves_the_trainers_random_numbers_alone():
    """A seeded training draws the same numbers with retries and without."""
    random.seed(3)
    expected = random.random()
    random.seed(3)
    next(delays())
    assert random.random() == expected
