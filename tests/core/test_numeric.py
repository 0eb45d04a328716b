"""Arithmetic whose bits are promised is compared with Python's own, on whatever CPU this runs."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.schedules import numeric


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(-50, 50)), min_size=1, max_size=64))
def test_powers_have_the_bits_of_python(pairs: list[tuple[float, float]]) -> None:
    """Each power is the C library's, whether one side is shared or both vary."""
    bases, exponents = (np.array(column) for column in zip(*pairs, strict=True))
    assert numeric.power(bases, exponents).tolist() == [b**e for b, e in pairs]
    assert numeric.power_of(pairs[0][0], exponents).tolist() == [pairs[0][0] ** e for _, e in pairs]
    assert numeric.power_to(bases, pairs[0][1]).tolist() == [b ** pairs[0][1] for b, _ in pairs]


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=64))
def test_exponentials_have_the_bits_of_python(numbers: list[float]) -> None:
    """So have exp, tanh, tan and, of what is above 0, log."""
    x = np.array(numbers)
    assert numeric.exp(x).tolist() == [math.exp(each) for each in numbers]
    assert numeric.tanh(x).tolist() == [math.tanh(each) for each in numbers]
    assert numeric.tan(x).tolist() == [math.tan(each) for each in numbers]
    positive = np.abs(x) + 1e-9
    assert numeric.log(positive).tolist() == [math.log(each) for each in positive.tolist()]


def test_what_leaves_the_floats_is_infinite_or_nothing() -> None:
    """Overflow gives infinity and no real number NaN, without a warning or an error."""
    assert numeric.power_of(10.0, np.array([400.0])).tolist() == [math.inf]
    assert numeric.exp(np.array([1e4, math.inf])).tolist() == [math.inf, math.inf]
    assert np.isnan(numeric.power(np.array([-2.0]), np.array([0.5]))).all()
    assert np.isnan(numeric.log(np.array([0.0, -1.0]))).all()
    assert np.isnan(numeric.tan(np.array([math.inf]))).all()
