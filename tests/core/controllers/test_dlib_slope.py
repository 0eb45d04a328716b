"""The rule of dlib against its recursive least squares, and its traps."""

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.controllers.streams import cuts_of, losses_of
from pacesetter_service.core.controllers import Sample
from pacesetter_service.core.controllers.dlib_slope import DlibSlope
from strategies import metrics


def steps_without_fall(losses: deque[float], discard: float | None = None) -> int:
    """Count as dlib does: walk back, and remember where a fall was last not evident.

    Recursive least squares on `y = a n + b`, begun with a covariance of 1e6 (running_gradient.h).
    """
    bound = math.inf
    if discard is not None:
        bound = sorted(losses)[math.floor((len(losses) - 1) * (1 - discard) + 0.5)]
    n, a, b, residual = 0, 0.0, 0.0, 0.0
    p, q, r = 1e6, 0.0, 1e6  # the covariance is [[p, q], [q, r]]
    count = 0
    for back, loss in enumerate(reversed(losses), start=1):
        if discard is None or loss <= bound:
            u, v = p * n + q, q * n + r
            scale = 1 + n * u + v
            p, q, r = p - u * u / scale, q - u * v / scale, r - v * v / scale
            gain_a, gain_b = p * n + q, q * n + r
            error = loss - (a * n + b)
            a, b = a + gain_a * error, b + gain_b * error
            residual += (loss - (a * n + b)) ** 2 * scale
            n += 1
        if n > 2:
            deviation = math.sqrt(residual / (n - 2) * 12 / (n**3 - n))
            falling = 1 - (0.5 * math.erfc(a / deviation / math.sqrt(2)) if deviation else a < 0)
            if falling < 0.51:
                count = back
    return count


def dlib_trainer(values: list[float], threshold: int) -> list[int]:
    """Return where dlib's trainer shrinks the learning rate (dnn/trainer.h)."""
    window: deque[float] = deque()
    budget, cuts = 0, []
    for step, value in enumerate(values):
        budget += 200
        window.append(value)
        while len(window) > threshold:
            window.popleft()
        if budget > threshold:
            budget = 0
            flat = steps_without_fall(window) >= threshold
            if flat and steps_without_fall(window, discard=0.1) >= threshold:
                cuts.append(step)
                for _ in range(min(400 + threshold // 10, len(window))):
                    window.popleft()
    return cuts


@pytest.mark.parametrize("threshold", [60, 200, 700])
def test_cuts_are_where_dlib_cuts(threshold: int) -> None:
    """On losses that fall and stay by turns, every cut is at the step of dlib's trainer."""
    controller, total = DlibSlope(metric="loss", threshold=threshold), 0
    for seed in range(3):
        values = losses_of(seed, 3000)
        cuts, levels = cuts_of(controller, values)
        assert cuts == dlib_trainer(values, threshold)
        assert levels[""] == pytest.approx(0.1 ** (1 + len(cuts)))
        total += len(cuts)
    assert total >= 2


def test_the_defaults_are_those_of_dlib() -> None:
    """For a constant: a full window of 2,000, tests every 11 steps, 600 forgotten at each cut."""
    cuts, _ = cuts_of(DlibSlope(metric="loss"), [1.0] * 3300)
    assert cuts == [2001, 2606, 3211]


def test_one_bad_batch_at_the_end_does_not_cut() -> None:
    """A jump makes the whole window seem to rise; without the largest tenth it still falls."""
    falling = [5.0 - 0.01 * step + 0.02 * math.sin(7 * step) for step in range(100)]
    spoilt = [*falling[:-3], 500.0, 500.0, 500.0]
    robust = DlibSlope(metric="loss", threshold=100, interval=1)
    plain = DlibSlope(metric="loss", threshold=100, interval=1, discard=0.0)
    assert cuts_of(robust, spoilt)[0] == []
    assert cuts_of(plain, spoilt)[0] != []


def test_a_fall_is_seen_however_far_from_0_it_happens() -> None:
    """For losses of a hundred million, dlib's initial guess hides a fall; here it is seen."""
    rng = np.random.default_rng(0)
    falling = 5.0 - 0.01 * np.arange(100) + 0.1 * rng.normal(size=100)
    far = (falling + 1e8).tolist()
    assert dlib_trainer(falling.tolist(), 100) == []
    assert dlib_trainer(far, 100) == [99]
    assert cuts_of(DlibSlope(metric="loss", threshold=100), far)[0] == []


def test_one_nan_does_not_blind_it_for_a_window() -> None:
    """While a NaN is in its window dlib cannot cut; here it is left out."""
    values = [1.0] * 150
    values[90] = math.nan
    assert dlib_trainer(values, 100) == []
    assert cuts_of(DlibSlope(metric="loss", threshold=100), values)[0] == [100]


def test_an_accuracy_that_rises_needs_the_mode_max() -> None:
    """A rising metric has not fallen, so it is cut unless the mode says that it should rise."""
    values = [0.1 + 1e-3 * step for step in range(120)]
    assert cuts_of(DlibSlope(metric="loss", threshold=100), values)[0] != []
    assert cuts_of(DlibSlope(metric="loss", threshold=100, mode="max"), values)[0] == []


def test_nothing_happens_before_the_window_is_full() -> None:
    """However flat the start, the first cut needs `threshold` measurements."""
    assert cuts_of(DlibSlope(metric="loss", threshold=100), [1.0] * 99)[0] == []


def test_a_cut_says_how_flat_it_was() -> None:
    """The reason has metric, window, slope and both probabilities."""
    controller = DlibSlope(metric="loss", threshold=4)
    state = controller.init()
    for step in range(4):
        observation = controller.observe(state, Sample("loss", step, 1.0, {"": 0.1}, {"": 0.1}))
        state = observation.state
    assert observation.verdict is not None
    assert observation.verdict.reason == (
        "loss has not fallen over 4 measurements: its slope is 0 a measurement, and the"
        " probability that it has is 0.5, below 0.51, also without the 0.1 of them that are worst"
    )


@given(st.lists(metrics, max_size=150), st.sets(st.integers(0, 150)))
def test_a_restart_changes_no_decision(values: list[float], restarts: set[int]) -> None:
    """With the state written as JSON and read back anywhere, cuts and levels are the same."""
    controller = DlibSlope(metric="loss", threshold=10, interval=3, drop=4)
    assert cuts_of(controller, values, restarts) == cuts_of(controller, values)


@given(st.lists(st.floats(), max_size=80))
def test_levels_stay_positive_and_finite(values: list[float]) -> None:
    """No stream of floats, however extreme, makes a level 0, NaN or infinite."""
    controller = DlibSlope(metric="loss", threshold=4, drop=1, factor=1e-30)
    level = cuts_of(controller, values)[1][""]
    assert 0 < level <= 0.1
