"""The census: a periodic query on a separate thread, which blocks no caller."""

import threading

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.census import Census, Found
from serving import PATIENCE


def test_callers_in_between_are_told_what_was_found_last() -> None:
    """One query serves all callers within the time."""
    looks = []

    def look() -> Found:
        looks.append(1)
        return Found({"active": len(looks)})

    often = Census(look, every=0.0, patience=PATIENCE)
    while often.newest().sessions["active"] < 3:
        assert len(looks) <= 3
    seldom = Census(look, every=1e6, patience=PATIENCE)
    first = seldom.newest()
    assert seldom.newest() is first


def test_a_look_that_hangs_keeps_no_caller() -> None:
    """Meanwhile callers get the last figures, and one query runs, not one for each caller."""
    going_on, looks = threading.Event(), []

    def look() -> Found:
        looks.append(1)
        going_on.wait(PATIENCE)
        return Found({"active": 1})

    census = Census(look, every=1e6, patience=0.0)
    assert [census.newest().sessions for _ in range(3)] == [{}, {}, {}]
    going_on.set()
    assert census._done.wait(PATIENCE)
    assert census.newest().sessions == {"active": 1}
    assert len(looks) == 1


def test_a_database_that_is_away_leaves_what_was_known() -> None:
    """Callers still get the last figures."""
    looks = []

    def look() -> Found:
        looks.append(1)
        if len(looks) == 1:
            return Found({"active": 5})
        raise StorageUnavailableError("away")

    census = Census(look, every=0.0, patience=PATIENCE)
    while len(looks) < 3:
        assert census.newest().sessions == {"active": 5}
