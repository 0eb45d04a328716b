"""The size of windows."""

from types import SimpleNamespace

import pytest

from pacesetter import _pace
from pacesetter._pace import Pace


def _paced(step_seconds: float) -> Pace:
    pace = Pace()
    pace.step_seconds = step_seconds
    return pace


def test_the_first_window_holds_one_step():
    """A step may be an epoch: nothing more is sealed before one has been measured."""
    assert Pace().count(65536) == 1


@pytest.mark.parametrize(
    ("step_seconds", "length"),
    [(0.001, 6000), (0.1, 60), (3.0, 2), (4.0, 1), (3600.0, 1), (0.0, 65536)],
)
def test_a_window_lasts_six_seconds(step_seconds: float, length: int):
    """Once it has grown, a window holds the steps of six seconds, within 1 and the limit."""
    pace = _paced(step_seconds)
    for _ in range(20):
        count = pace.count(65536)
    assert count == length


def test_a_window_doubles_at_most():
    """A first measurement that is far too quick seals hardly anything."""
    pace = _paced(1e-6)
    assert [pace.count(65536) for _ in range(5)] == [1, 2, 4, 8, 16]
    while pace.count(65536) < 65536:
        pass


@pytest.mark.parametrize("step_seconds", [0.1, 1.0, 2.9, 3.0, 5.9, 6.1, 30.0])
def test_what_is_sealed_ahead_lasts_ten_seconds(step_seconds: float):
    """Of the trainer's window and the next one no more is left, or one step."""
    pace = _paced(step_seconds)
    for _ in range(20):
        length = pace.count(65536)
    mark = pace.mark(length, 0.01)
    fetched_ahead = length if mark < length else 0
    left = length - mark + fetched_ahead
    assert left <= 2 if length <= 2 and step_seconds >= 5 else left * step_seconds <= 10.0


def test_a_window_shrinks_at_once():
    """When steps get slow, an order does not wait for several windows."""
    pace = _paced(0.001)
    while pace.count(65536) < 6000:
        pass
    pace.step_seconds = 1.0
    assert pace.count(65536) == 6


def test_the_limit_holds_from_the_start():
    """No window is longer than the server allows."""
    pace = _paced(0.001)
    assert [pace.count(3) for _ in range(4)] == [1, 2, 3, 3]


def test_the_step_time_is_measured_between_edges(monkeypatch: pytest.MonkeyPatch):
    """The time since the last edge is divided by the steps made, without waits for the server."""
    clock = iter([100.0, 107.0, 108.0])
    monkeypatch.setattr(_pace, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    pace = Pace()
    pace.arrive(10)
    pace.depart()
    pace.arrive(12)
    assert pace.step_seconds == 0.5


def test_going_back_measures_nothing():
    """Going back to an earlier step keeps the step time as it was."""
    pace = _paced(0.5)
    pace.arrive(100)
    pace.arrive(10)
    assert pace.step_seconds == 0.5


@pytest.mark.parametrize(
    ("length", "step_seconds", "fetch_seconds", "mark"),
    [
        pytest.param(1, 1.0, 0.001, 1, id="one step is followed on demand"),
        pytest.param(100, None, 0.001, 50, id="half, when nothing was measured"),
        pytest.param(100, 0.1, 0.001, 50, id="half, when fetching is quick"),
        pytest.param(101, 0.1, 0.001, 50, id="half rounds to the early side"),
        pytest.param(100, 0.001, 0.014, 30, id="five fetches, when they take long"),
        pytest.param(30, 0.001, 0.0001, 10, id="20 ms at least"),
        pytest.param(100, 1e-6, 0.1, 0, id="at once, when the window is too short"),
    ],
)
def test_the_next_window_is_fetched_early_enough(
    length: int, step_seconds: float | None, fetch_seconds: float, mark: int
):
    """The lead is half the window, 20 ms or five fetches, whichever is most."""
    pace = Pace()
    pace.step_seconds = step_seconds
    assert pace.mark(length, fetch_seconds) == mark
