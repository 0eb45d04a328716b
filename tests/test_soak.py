"""The judgement of samples in a soak, and a soak of twenty seconds; `soak.py` has the hour."""

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growth import Bound, Sample, growth_of, per_hour, settled
from soak import soak

BOUND = Bound(share=0.05, least=4.0)


def _samples(dice: random.Random, slope: float, outliers: float = 0.25) -> list[Sample]:
    """Return an hour of noisy samples in three lives, each of which begins at another level."""
    found = []
    for number in range(120):
        life = number // 40
        value = 100.0 + 30.0 * life + slope * (number % 40) / 120 + dice.gauss(0.0, 0.2)
        if dice.random() < outliers:
            value += dice.choice((-1, 1)) * dice.uniform(5.0, 500.0)
        found.append(Sample(number / 2, life, value))
    return found


@given(st.integers(0, 2**32), st.floats(10.0, 1000.0))
def test_a_leak_is_found_whatever_the_noise(seed: int, slope: float) -> None:
    """A growth beyond its bound is found, though one sample in four is far off."""
    samples = _samples(random.Random(seed), slope)
    growth = growth_of("memory", samples, BOUND)
    assert growth.is_too_much
    assert "TOO MUCH" in str(growth)


@given(st.integers(0, 2**32), st.floats(-1000.0, 2.0))
def test_what_is_flat_or_shrinks_is_no_leak(seed: int, slope: float) -> None:
    """Noise, outliers and a new life at another level are no growth."""
    samples = _samples(random.Random(seed), slope)
    assert not growth_of("memory", samples, BOUND).is_too_much


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.floats(-1e3, 1e3))
def test_a_line_has_its_slope(at: list[float], slope: float) -> None:
    """For samples without noise the slope is that of their line, in units an hour."""
    moments = sorted({round(each, 3) for each in at} | {0.0, 60.0})
    samples = [Sample(each, 0, slope * each / 60.0) for each in moments]
    assert per_hour(samples) == pytest.approx(slope, abs=1e-6)


def test_the_beginning_of_each_life_is_left_out() -> None:
    """Caches that fill after a start are not judged, at any start."""
    samples = [Sample(at, at // 10, 0.0) for at in range(20)]
    kept = [each.at for each in settled(samples, 4)]
    assert kept == [4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 18, 19]


def test_one_sample_has_no_slope() -> None:
    """If no two samples can be compared, the error says what to do."""
    with pytest.raises(ValueError, match="sample longer"):
        per_hour([Sample(0.0, 0, 1.0), Sample(1.0, 1, 2.0)])


@pytest.mark.skipif(sys.platform != "linux", reason="the samples come from /proc")
def test_a_short_soak_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Under all kinds of callers, with a restart, no call fails, and all resources are freed.

    Growth needs the hour: in twenty seconds caches fill.
    """
    verdict = soak(tmp_path, minutes=1 / 3, a_minute=30, restarts=(0.5,))
    assert verdict.errors == []
    assert verdict.lost == 0
    assert verdict.left == []
    assert verdict.size.is_as_computed
    assert verdict.restarts == 1
    wanted = {"steps", "values", "orders", "reads", "followed", "purged"}
    assert not wanted - {what for what, number in verdict.done.items() if number}
    looked_at = {*verdict.unjudged, *(each.name for each in verdict.growths)}
    assert {each.partition(":")[0] for each in looked_at} == {"service", "clients", "database"}
