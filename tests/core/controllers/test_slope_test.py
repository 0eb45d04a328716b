"""The slope test against statopt's SLOPE, and its traps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from core.controllers.streams import cuts_of, losses_of
from pacesetter_service.core.controllers import Sample
from pacesetter_service.core.controllers.slope_test import SlopeTest
from strategies import metrics


def statopt_slope(values: list[float], min_kept: int, ratio: int, every: int) -> list[int]:
    """Return where statopt's SLOPE drops the rate: its test by covariances, p-value by SciPy."""
    since, drops = [], []
    for step, value in enumerate(values, start=1):
        since.append(value)
        kept = since[-math.ceil(len(since) / ratio) :]
        if len(kept) <= min_kept or step % every:
            continue
        x, y = np.arange(len(kept), dtype=float), np.array(kept)
        x, y = x - x.mean(), y - y.mean()
        spreads = math.sqrt((x @ x) * (y @ y))
        r = float(x @ y) / spreads if spreads else 0.0
        freedom = len(kept) - 2
        t = r * math.sqrt(freedom / ((1 - r + 1e-20) * (1 + r + 1e-20)))
        if stats.t.cdf(t, freedom) >= 0.05:
            drops.append(step - 1)
            since = []
    return drops


@pytest.mark.parametrize("ratio", [2, 3, 8])
def test_cuts_are_where_statopt_cuts(ratio: int) -> None:
    """On losses that fall and stay by turns, every cut is at the step of statopt's."""
    controller = SlopeTest(metric="loss", min_kept=100, leak_ratio=ratio, interval=20)
    total = 0
    for seed in range(6):
        values = losses_of(seed, 4000)
        cuts, levels = cuts_of(controller, values)
        assert cuts == statopt_slope(values, 100, ratio, 20)
        assert levels == {"": 0.1 * 0.5 ** len(cuts)}
        total += len(cuts)
    assert total >= 6


def test_the_defaults_are_those_of_statopt() -> None:
    """For a constant the first cut is at measurement 8,100, the first test of a filled bucket."""
    cuts, levels = cuts_of(SlopeTest(metric="loss"), [1.0] * 8200)
    assert cuts == [8099]
    assert levels == {"": 0.05}


def test_a_loss_that_falls_is_never_cut() -> None:
    """While the fall is clear, no test cuts."""
    values = [5.0 - 1e-3 * step + 0.01 * math.sin(step) for step in range(3000)]
    assert (
        cuts_of(SlopeTest(metric="loss", min_kept=50, interval=10, leak_ratio=2), values)[0] == []
    )


def test_an_accuracy_that_rises_is_cut_unless_the_mode_is_max() -> None:
    """A metric that should rise needs `mode="max"`: in the other mode it does not fall."""
    values = [0.1 + 1e-3 * step for step in range(300)]
    few = {"min_kept": 50, "interval": 10, "leak_ratio": 2}
    assert cuts_of(SlopeTest(metric="loss", **few), values)[0] != []
    assert cuts_of(SlopeTest(metric="loss", mode="max", **few), values)[0] == []


def test_a_slow_fall_in_large_noise_is_cut_though_it_falls() -> None:
    """A slope that the test cannot tell from 0 counts as flat; a larger bucket can tell."""
    rng = np.random.default_rng(0)
    values = (5.0 - 2e-4 * np.arange(4000) + rng.normal(size=4000)).tolist()
    small = SlopeTest(metric="loss", min_kept=50, leak_ratio=1, interval=10)
    large = SlopeTest(metric="loss", min_kept=2000, max_kept=4000, leak_ratio=1, interval=10)
    assert cuts_of(small, values)[0] != []
    assert cuts_of(large, values)[0] == []


def test_the_first_descent_leaks_out() -> None:
    """A steep beginning is forgotten as the bucket fills: a plateau after it is seen."""
    values = [100.0 - step for step in range(100)] + [0.0] * 1000
    controller = SlopeTest(metric="loss", min_kept=50, leak_ratio=8, interval=10)
    assert cuts_of(controller, values)[0]


@given(st.lists(st.integers(0, 299), max_size=40))
def test_values_that_are_no_numbers_are_as_if_not_measured(places: list[int]) -> None:
    """NaN and infinities among the losses only delay a cut by their number of steps."""
    controller = SlopeTest(metric="loss", min_kept=20, leak_ratio=2, interval=5)
    values = losses_of(3, 300)
    spoilt = list(values)
    for place in places:
        spoilt.insert(place, [math.nan, math.inf, -math.inf][place % 3])
    cuts, levels = cuts_of(controller, spoilt)
    numbers = [index for index, value in enumerate(spoilt) if math.isfinite(value)]
    assert [numbers.index(cut) for cut in cuts] == cuts_of(controller, values)[0]
    assert levels == cuts_of(controller, values)[1]


@given(st.lists(metrics, max_size=150), st.sets(st.integers(0, 150)))
def test_a_restart_changes_no_decision(values: list[float], restarts: set[int]) -> None:
    """With the state written as JSON and read back anywhere, cuts and levels are the same."""
    controller = SlopeTest(metric="loss", min_kept=5, leak_ratio=2, interval=3, max_kept=8)
    assert cuts_of(controller, values, restarts) == cuts_of(controller, values)


@given(st.lists(st.floats(), max_size=80))
def test_levels_stay_positive_and_finite(values: list[float]) -> None:
    """No stream of floats, however extreme, makes a level 0, NaN or infinite."""
    controller = SlopeTest(metric="loss", min_kept=3, leak_ratio=1, interval=1, factor=1e-30)
    level = cuts_of(controller, values)[1][""]
    assert 0 < level <= 0.1


def test_the_state_is_bounded() -> None:
    """However long the plateau or the fall, at most `max_kept` values are kept."""
    controller = SlopeTest(metric="loss", min_kept=10, max_kept=16, leak_ratio=1, interval=1000)
    state = controller.init()
    for step in range(300):
        state = controller.observe(state, Sample("loss", step, -step, {"": 0.1}, {"": 0.1})).state
    assert len(state.bucket.kept) == 16  # type: ignore[attr-defined]


def test_a_floor_lifts_no_level() -> None:
    """A level below `min_lr` stays where it is; one above is cut to it."""
    controller = SlopeTest(metric="loss", min_kept=3, leak_ratio=1, interval=4, min_lr=0.08)
    state = controller.init()
    levels = {"low": 0.01, "high": 0.1}
    for step in range(4):
        observation = controller.observe(state, Sample("loss", step, 1.0, levels, levels))
        state = observation.state
    assert observation.verdict is not None
    assert observation.verdict.levels == {"high": 0.08}


def test_a_cut_says_slope_and_p_value() -> None:
    """The reason has the metric, the number of measurements, slope, p-value and limit."""
    controller = SlopeTest(metric="loss", min_kept=3, leak_ratio=1, interval=4)
    state = controller.init()
    for step in range(4):
        observation = controller.observe(state, Sample("loss", step, 1.0, {"": 0.1}, {"": 0.1}))
        state = observation.state
    assert observation.verdict is not None
    assert observation.verdict.reason == (
        "loss does not fall any more: its slope over 4 measurements is 0 a measurement"
        " (p-value 0.5; significance 0.05)"
    )


def test_a_bucket_that_can_not_fill_is_refused() -> None:
    """`max_kept` must be above `min_kept`."""
    with pytest.raises(ValidationError, match="never holds more than 100"):
        SlopeTest(metric="loss", min_kept=100, max_kept=100)
