"""The statistics against SciPy's, and the packed rows that they are computed from."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pacesetter_service.core.controllers.leaky_bucket import LeakyBucket
from pacesetter_service.core.packed import pack, unpack
from pacesetter_service.core.statistics import (
    ErrorOfMean,
    estimate_mean,
    mean,
    normal_cdf,
    spread,
    student_t_cdf,
    student_t_quantile,
    trend,
)

freedoms = st.sampled_from([1, 2, 3, 7, 31, 100, 999, 2046, 8000])
finite = st.floats(allow_nan=False, allow_infinity=False)
losses = st.floats(-10, 10)


@given(st.floats(-40, 40).filter(lambda t: t == 0 or abs(t) > 1e-6), freedoms)
def test_the_distribution_of_t_is_that_of_scipy(t: float, freedom: int) -> None:
    """The CDF agrees with SciPy's to ten digits, far into the tails."""
    assert student_t_cdf(t, freedom) == pytest.approx(
        stats.t.cdf(t, freedom), rel=1e-10, abs=1e-300
    )


@given(st.floats(1e-9, 1 - 1e-9), freedoms)
def test_the_quantile_of_t_is_that_of_scipy(p: float, freedom: int) -> None:
    """The inverse agrees with SciPy's."""
    assert student_t_quantile(p, freedom) == pytest.approx(
        stats.t.ppf(p, freedom), rel=1e-9, abs=1e-9
    )


@given(finite, freedoms)
def test_the_distribution_of_t_is_one_for_any_t(t: float, freedom: int) -> None:
    """For every t the two tails add up to 1, and both are between 0 and 1."""
    below, above = student_t_cdf(t, freedom), student_t_cdf(-t, freedom)
    assert 0 <= below <= 1
    assert below + above == pytest.approx(1, abs=1e-15)


def test_infinite_t_leaves_no_doubt() -> None:
    """A slope without any noise has the probabilities 0 and 1."""
    assert student_t_cdf(-math.inf, 5) == 0
    assert student_t_cdf(math.inf, 5) == 1
    assert student_t_cdf(0.0, 5) == 0.5


@given(st.floats(-30, 30))
def test_the_normal_distribution_is_that_of_scipy(z: float) -> None:
    """The CDF agrees with SciPy's."""
    assert normal_cdf(z) == pytest.approx(stats.norm.cdf(z), rel=1e-12, abs=0)


@given(st.integers(0, 1000), st.integers(3, 400), st.floats(-0.1, 0.1), st.floats(-1e6, 1e6))
def test_a_trend_has_the_p_value_of_scipy(
    seed: int, count: int, slope: float, offset: float
) -> None:
    """Slope and one-sided p-values are those of `linregress`."""
    noise = np.random.default_rng(seed).normal(size=count)
    values = offset + slope * np.arange(count) + noise
    line = trend(values.tolist())
    falling = stats.linregress(range(count), values, alternative="less")
    assert line.slope == pytest.approx(falling.slope, rel=1e-6, abs=1e-9)
    assert line.p_falling == pytest.approx(falling.pvalue, rel=1e-5)
    rising = stats.linregress(range(count), values, alternative="greater")
    assert line.p_rising == pytest.approx(rising.pvalue, rel=1e-5)


@given(st.lists(finite, min_size=4, max_size=60))
def test_no_finite_values_overflow(values: list[float]) -> None:
    """The largest and the smallest floats give statistics without NaN and without a warning."""
    line = trend(values)
    assert not math.isnan(line.t)
    assert 0 <= line.p_falling <= 1
    assert math.isfinite(mean(values))
    assert not math.isnan(spread(values).deviation)
    for method in ("batch_means", "overlapping", "iid"):
        assert not math.isnan(estimate_mean(values, method).half_width(0.05))


@given(finite, st.integers(4, 60))
def test_a_constant_has_no_trend(value: float, count: int) -> None:
    """Whatever the constant, its slope is exactly 0 and its p-value one half."""
    line = trend([value] * count)
    assert line.slope == 0
    assert line.t == 0
    assert line.p_falling == line.p_rising == 0.5


def test_a_straight_fall_is_sure() -> None:
    """Falling values without noise have a p-value of 0."""
    line = trend([3.0, 2.0, 1.0, 0.0])
    assert line.slope == pytest.approx(-1.0)
    assert line.p_falling == pytest.approx(0, abs=1e-20)
    assert line.p_rising == 1


@given(st.lists(losses, min_size=2, max_size=60))
def test_a_spread_is_that_of_numpy(values: list[float]) -> None:
    """Mean and sample deviation are NumPy's."""
    spread_out = spread(values)
    assert spread_out.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert spread_out.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("method", ["batch_means", "overlapping", "iid"])
def test_the_error_of_a_mean_covers_it(method: ErrorOfMean) -> None:
    """For independent values, 95 % intervals miss the mean about once in twenty times."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(300):
        estimate = estimate_mean(rng.normal(3.0, 1.0, size=100).tolist(), method)
        missed += abs(estimate.mean - 3.0) > estimate.half_width(0.05)
    assert 0.01 < missed / 300 < 0.12


def test_alike_neighbours_fool_the_error_for_independent_values() -> None:
    """For correlated values, `iid` claims to know a mean several times too precisely."""
    rng = np.random.default_rng(1)
    values = [0.0]
    for noise in rng.normal(size=2000):
        values.append(0.95 * values[-1] + noise)
    batches, iid = estimate_mean(values, "batch_means"), estimate_mean(values, "iid")
    assert batches.error > 3 * iid.error


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), max_size=40))
def test_packed_values_come_back_to_the_bit(values: list[float]) -> None:
    """NaN, infinities, -0 and the smallest numbers are included."""
    back = unpack(pack(tuple(values)))
    assert np.array(back).tobytes() == np.array(values).tobytes()


def test_a_bucket_comes_back_from_json() -> None:
    """JSON gives an equal bucket, in 16 digits a value."""
    bucket = LeakyBucket(kept=(0.1, 1e300, -0.0), total=7)
    text = json.dumps(bucket.model_dump())
    assert LeakyBucket.model_validate(json.loads(text)) == bucket
    assert len(bucket.model_dump()["kept"]) == 16 * 3


@given(st.integers(1, 10), st.integers(0, 200))
def test_a_bucket_keeps_the_newest_part(ratio: int, count: int) -> None:
    """Of n values it holds the newest `ceil(n / ratio)`."""
    bucket = LeakyBucket()
    for value in range(count):
        bucket = bucket.add(float(value), ratio, 4096)
    kept = math.ceil(count / ratio)
    assert bucket.kept == tuple(map(float, range(count - kept, count)))


def test_a_bucket_is_never_larger_than_its_limit() -> None:
    """At the limit the oldest value leaves for each that comes."""
    bucket = LeakyBucket()
    for value in range(100):
        bucket = bucket.add(float(value), 2, 10)
    assert bucket.kept == tuple(map(float, range(90, 100)))
