"""Noise around a schedule."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from core.torch_schedulers import Floats
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.noise import normal_quantile, splitmix64, uniform


def noisy(count: int, start: int = 0, **spec: Any) -> Floats:
    """Evaluate noise around a constant of 1."""
    law = Schedule.parse({"kind": "noise", "schedule": "constant", **spec})
    return law.values(np.arange(start, start + count, dtype=np.float64), 1.0)


def test_the_bits_are_those_of_splitmix64() -> None:
    """The published numbers of two seeds come out, from the first one on."""
    assert splitmix64(1234567, np.arange(5)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(0, np.arange(3)).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_any_number_of_the_sequence_is_had_at_once(seed: int, index: int) -> None:
    """The number at an index is what stepping SplitMix64 to it would give."""
    mask = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    expected = z ^ (z >> 31)
    assert splitmix64(seed, np.array([index])).tolist() == [expected]
    assert uniform(seed, np.array([index])).tolist() == [((expected >> 12) + 0.5) / 2**52]


@given(st.floats(1e-15, 1 - 1e-15))
def test_quantiles_are_those_of_the_normal_distribution(p: float) -> None:
    """The quantile function agrees with Python's, which follows the same algorithm."""
    assert_allclose(normal_quantile(np.array([p])), [NormalDist().inv_cdf(p)], rtol=1e-13)


def test_the_noise_is_written_down() -> None:
    """These bits may never change: a training that is resumed would see other rates."""
    assert noisy(3, seed=42, std=0.1, limit=0.5).tolist() == [
        1.0648176933037894,
        0.9005174569824057,
        0.9412998224644124,
    ]
    assert noisy(2, seed=7, distribution="uniform", limit=0.3).tolist() == [
        0.9338978490347629,
        0.7100729767168937,
    ]


def test_normal_noise_is_normal_within_its_limit() -> None:
    """Mean and deviation are as requested, and nothing is beyond the limit."""
    n = noisy(100_000, std=0.1, limit=0.5) - 1.0
    assert abs(n.mean()) < 0.001
    assert abs(n.std() - 0.1) < 0.001
    assert np.abs(n).max() <= 0.5
    ordered = np.sort(n)
    places = [NormalDist(0.0, 0.1).cdf(x) for x in ordered[::100].tolist()]
    assert np.abs(np.array(places) - np.arange(0, 1, 0.001)).max() < 0.006


def test_a_narrow_limit_cuts_the_distribution() -> None:
    """Timm's defaults leave the middle of a wide normal distribution, nearly uniform."""
    n = noisy(100_000) - 1.0
    assert np.abs(n).max() <= 0.67
    cut = NormalDist()
    inside = cut.cdf(0.67) - cut.cdf(-0.67)
    share = (cut.cdf(0.2) - cut.cdf(-0.2)) / inside
    assert abs((np.abs(n) < 0.2).mean() - share) < 0.006
    assert abs(n.mean()) < 0.005


def test_uniform_noise_is_even() -> None:
    """Every tenth of the range gets a tenth of the numbers."""
    n = noisy(100_000, distribution="uniform", limit=0.3) - 1.0
    counts, _ = np.histogram(n, bins=10, range=(-0.3, 0.3))
    assert counts.sum() == 100_000
    assert np.abs(counts / 10_000 - 1).max() < 0.05


def test_seeds_and_steps_are_not_related() -> None:
    """Neighbouring seeds and neighbouring steps have noise that does not correlate."""
    one, other = noisy(100_000, seed=1) - 1.0, noisy(100_000, seed=2) - 1.0
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02


@given(st.integers(0, 2**53 - 200), st.integers(1, 99), st.sampled_from(["normal", "uniform"]))
def test_blocks_have_the_noise_of_the_whole(start: int, cut: int, distribution: str) -> None:
    """The noise of a step does not depend on where a block starts, however late in the training."""
    whole = noisy(100, start, distribution=distribution)
    parts = [
        noisy(cut, start, distribution=distribution),
        noisy(100 - cut, start + cut, distribution=distribution),
    ]
    assert_array_equal(np.concatenate(parts), whole)


def test_noise_has_a_range_of_steps() -> None:
    """From `start` up to, not including, `end` there is noise; elsewhere none at all."""
    values = noisy(100, end=60)
    assert (values[60:] == 1.0).all()
    law = Schedule.parse({"kind": "noise", "schedule": "constant", "start": 20, "end": 60})
    ranged = law.values(np.arange(100.0), 1.0)
    assert (ranged[:20] == 1.0).all()
    assert (ranged[60:] == 1.0).all()
    assert_array_equal(ranged[20:60], values[20:60])
    assert (ranged[20:60] != 1.0).all()


def test_noise_may_fade() -> None:
    """With `decay` the same numbers are divided by a power of the time."""
    plain, faded = noisy(50) - 1.0, noisy(50, decay=0.5) - 1.0
    expected = [n / math.sqrt(1 + t) for t, n in enumerate(plain.tolist())]
    assert_allclose(faded, expected, rtol=1e-9)


def test_no_deviation_is_no_noise() -> None:
    """With `std=0` the schedule's own bits are left."""
    assert noisy(20, std=0.0).tolist() == [1.0] * 20


def test_other_channels_have_no_noise() -> None:
    """Momentum is left alone, and groups of another base have the same relative noise."""
    body = {"kind": "one_cycle", "total_steps": 50, "cycle_momentum": True}
    channels = Schedule.parse({"kind": "noise", "schedule": body}).channels()
    t = np.arange(50.0)
    plain = Schedule.parse(body).channels()
    assert_array_equal(channels["momentum"].values(t, 0.9), plain["momentum"].values(t, 0.9))
    ratio = channels["lr"].values(t, 0.2) / channels["lr"].values(t, 0.1)
    assert_allclose(ratio, 2.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"limit": 1.5}, "less than or equal to 1"),
        ({"limit": 0.0}, "greater than 0"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"start": 9, "end": 9}, "`end` must be above `start`"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(spec: dict[str, Any], hint: str) -> None:
    """A rate may not become negative, and a range has two ends."""
    with pytest.raises(ValidationError, match=hint):
        Schedule.parse({"kind": "noise", "schedule": "constant", **spec})
