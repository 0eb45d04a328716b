"""Statistics of a row of values, for rules that ask whether a metric still moves.

Sums are exact (`fsum`) and everything else goes through the C library, so that a decision does not
depend on how a CPU adds. Values are finite, however large; the results are never NaN.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, erfc, exp, fsum, inf, isqrt, lgamma, log, log1p, sqrt
from typing import Literal

ErrorOfMean = Literal["batch_means", "overlapping", "iid"]
"""How the error of a mean is estimated; only `iid` assumes that the values are independent."""

_TINY = 1e-300
_PRECISION = 1e-16


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean of some values and their sample standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through values spaced one apart, fitted by least squares.

    Attributes:
        slope: How much the line rises from one value to the next.
        t: The slope in units of its standard error; 0 if nothing moves, infinite if the values lie
            exactly on a sloping line.
        count: How many values there are, at least 3.
        error: The standard error of the slope.
    """

    slope: float
    t: float
    count: int
    error: float

    @property
    def p_falling(self) -> float:
        """The p-value of "the values do not fall" against "they fall": near 0 they surely do."""
        return student_t_cdf(self.t, self.count - 2)

    @property
    def p_rising(self) -> float:
        """The p-value of "the values do not rise" against "they rise"."""
        return student_t_cdf(-self.t, self.count - 2)


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """The mean of values that may depend on each other, and how precisely it is known.

    Attributes:
        mean: The mean.
        error: Its standard error.
        freedom: The degrees of freedom of that estimate.
    """

    mean: float
    error: float
    freedom: int

    def half_width(self, significance: float) -> float:
        """Return half the width of the confidence interval at `1 - significance`."""
        return self.error * student_t_quantile(1.0 - significance / 2.0, self.freedom)


def normal_cdf(z: float) -> float:
    """Return the probability that a standard normal variable is at most `z`."""
    return 0.5 * erfc(-z / sqrt(2.0))


def student_t_cdf(t: float, freedom: int) -> float:
    """Return the probability that Student's t with `freedom` (1 or more) degrees is at most `t`."""
    tail = _student_t_tail(abs(t), freedom)
    return tail if t < 0 else 1.0 - tail


def student_t_quantile(p: float, freedom: int) -> float:
    """Return the `t` whose `student_t_cdf` is `p`, where 0 < p < 1."""
    tail = min(p, 1.0 - p)
    if tail == 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while _student_t_tail(high, freedom) > tail:
        low, high = high, 2.0 * high
    while low < (middle := 0.5 * (low + high)) < high:
        if _student_t_tail(middle, freedom) > tail:
            low = middle
        else:
            high = middle
    return copysign(high, p - 0.5)


def mean(values: Sequence[float]) -> float:
    """Average without overflow in between."""
    unit = _unit(values)
    return fsum(value / unit for value in values) / len(values) * unit


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and standard deviation of two or more values."""
    unit = _unit(values)
    scaled = [value / unit for value in values]
    centre = fsum(scaled) / len(scaled)
    squares = fsum((value - centre) ** 2 for value in scaled)
    return Spread(centre * unit, sqrt(squares / (len(scaled) - 1)) * unit)


def trend(values: Sequence[float]) -> Trend:
    """Fit a line through three or more values.

    `t = slope / sqrt(rss / (n - 2) / sxx)` with `sxx = (n^3 - n) / 12`; the p-value from Student's
    t is that of `scipy.stats.linregress(range(n), values, alternative="less")`.
    """
    count = len(values)
    # Relative to the first value, a constant is exactly 0; halves cannot overflow.
    risen = [0.5 * value - 0.5 * values[0] for value in values]
    unit = _unit(risen)
    y = [rise / unit for rise in risen]
    middle, centre = 0.5 * (count - 1), fsum(y) / count
    sxx = (count**3 - count) / 12.0
    slope = fsum((x - middle) * (each - centre) for x, each in enumerate(y)) / sxx
    rss = fsum((each - centre - slope * (x - middle)) ** 2 for x, each in enumerate(y))
    error = sqrt(rss / (count - 2) / sxx)
    t = slope / error if error > 0.0 else copysign(inf, slope) if slope else 0.0
    return Trend(2.0 * slope * unit, t, count, 2.0 * error * unit)


def estimate_mean(values: Sequence[float], method: ErrorOfMean) -> MeanEstimate:
    """Estimate the mean of four or more values, and its error.

    With `n` values and batches of `b = floor(sqrt(n))`, the standard error is

    ===========  ===================================================  ==========
    method       standard error * sqrt(n)                             freedom
    ===========  ===================================================  ==========
    batch_means  sqrt(b / (k - 1) * sum((batch mean - mean)^2))       b - 1
    overlapping  sqrt(b n / (k (k - 1)) * sum((batch mean - mean)^2)) n - b
    iid          the sample standard deviation                        n - 1
    ===========  ===================================================  ==========

    over the `k` batches side by side, or one at each value. Successive values of a training are
    alike, so `iid` takes the mean for better known than it is.
    """
    unit = _unit(values)
    scaled = [value / unit for value in values]
    centre = fsum(scaled) / len(scaled)
    deviation, freedom = _DEVIATIONS[method](scaled, centre)
    return MeanEstimate(centre * unit, deviation / sqrt(len(scaled)) * unit, freedom)


def _batch_means(values: Sequence[float], centre: float) -> tuple[float, int]:
    size = isqrt(len(values))
    batches = [
        fsum(values[start : start + size]) / size
        for start in range(0, len(values) - size + 1, size)
    ]
    squares = fsum((batch - centre) ** 2 for batch in batches)
    return sqrt(size / (len(batches) - 1) * squares), size - 1


def _overlapping(values: Sequence[float], centre: float) -> tuple[float, int]:
    size, count = isqrt(len(values)), len(values)
    batches = [fsum(values[start : start + size]) / size for start in range(count - size + 1)]
    squares = fsum((batch - centre) ** 2 for batch in batches)
    return sqrt(size * count / (len(batches) * (len(batches) - 1)) * squares), count - size


def _iid(values: Sequence[float], centre: float) -> tuple[float, int]:
    squares = fsum((value - centre) ** 2 for value in values)
    return sqrt(squares / (len(values) - 1)), len(values) - 1


_DEVIATIONS: Mapping[ErrorOfMean, Callable[[Sequence[float], float], tuple[float, int]]] = {
    "batch_means": _batch_means,
    "overlapping": _overlapping,
    "iid": _iid,
}


def _unit(values: Sequence[float]) -> float:
    """Return a divisor for values such that none of their squares overflows."""
    return max(map(abs, values)) or 1.0


def _student_t_tail(t: float, freedom: int) -> float:
    """Return the probability of more than `t`, which is not negative.

    It is half of the regularized incomplete beta function `I_x(freedom / 2, 1 / 2)` at
    `x = freedom / (freedom + t^2)` (Abramowitz and Stegun, 26.7.1).
    """
    square = t * t
    if square == inf:
        return 0.0
    a, b = 0.5 * freedom, 0.5
    x, y = freedom / (freedom + square), square / (freedom + square)
    if y == 0.0:
        return 0.5
    front = exp(
        lgamma(a + b) - lgamma(a) - lgamma(b) - a * log1p(square / freedom) + b * log(y)
    )  # x^a y^b / B(a, b)
    if x < (a + 1.0) / (a + b + 2.0):
        return 0.5 * front * _beta_fraction(a, b, x) / a
    return 0.5 * (1.0 - front * _beta_fraction(b, a, y) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function by Lentz's method.

    Source: Abramowitz and Stegun, 26.5.8; it converges within about `sqrt(max(a, b))` terms.
    """
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction, change, m = d, inf, 0
    while abs(change - 1.0) > _PRECISION and m < 10_000:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            change = c * d
            fraction *= change
    return fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
