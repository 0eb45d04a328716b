"""Smoothing against its definitions, and with non-finite values."""

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.closed_loop import Loop, session
from pacesetter_service.core.smoothing import Smoother, SmootherState
from strategies import metrics

finite = st.floats(-1e6, 1e6)
streams = st.lists(finite, min_size=1, max_size=40)
betas = st.floats(0, 0.999)
kinds = st.one_of(
    st.builds(lambda beta: {"kind": "ema", "beta": beta}, betas),
    st.builds(lambda beta: {"kind": "ema", "beta": beta, "debias": False}, betas),
    st.builds(lambda size: {"kind": "mean", "window": size}, st.integers(1, 9)),
    st.builds(lambda size: {"kind": "median", "window": size}, st.integers(1, 9)),
    st.builds(lambda size: {"kind": "every", "count": size}, st.integers(1, 9)),
)


def smoothed(spec: dict[str, Any], values: list[float]) -> list[float | None]:
    """Return what controllers see after each value."""
    smoother = Smoother.parse(spec)
    state, seen = SmootherState(), []
    for value in values:
        state, value_seen = smoother.smooth(state, value)
        seen.append(value_seen)
    return seen


@given(streams, betas)
def test_a_debiased_average_weighs_by_age(values: list[float], beta: float) -> None:
    """The k-th last value has the weight beta ** k, divided by all weights: pandas' `adjust`."""
    for end, seen in enumerate(smoothed({"kind": "ema", "beta": beta}, values), 1):
        weights = [beta**age for age in reversed(range(end))]
        parts = [weight * value for weight, value in zip(weights, values[:end], strict=True)]
        scale = math.fsum(map(abs, parts)) / math.fsum(weights)
        assert seen == pytest.approx(
            math.fsum(parts) / math.fsum(weights), abs=1e-9 * scale + 1e-300
        )


@given(streams, betas)
def test_a_plain_average_starts_from_the_first_value(values: list[float], beta: float) -> None:
    """Each value moves it by its share, to the bit; pandas' `adjust=False`."""
    average = values[0]
    expected = [average]
    for value in values[1:]:
        average = beta * average + (1.0 - beta) * value
        expected.append(average)
    assert smoothed({"kind": "ema", "beta": beta, "debias": False}, values) == expected


@given(st.floats(-1e6, 1e6), betas, st.booleans())
def test_the_first_value_counts_in_full(value: float, beta: float, debias: bool) -> None:
    """No average starts from zero."""
    [seen] = smoothed({"kind": "ema", "beta": beta, "debias": debias}, [value])
    assert seen == pytest.approx(value, rel=1e-12, abs=1e-300)


@given(streams, st.integers(1, 12))
def test_windows_look_at_the_newest_values(values: list[float], size: int) -> None:
    """Mean and median are of the last `window` values, or of all while there are fewer."""
    windows = [values[max(0, end - size) : end] for end in range(1, len(values) + 1)]
    means, medians = (
        smoothed({"kind": kind, "window": size}, values) for kind in ("mean", "median")
    )
    assert medians == [statistics.median(window) for window in windows]
    for seen, window in zip(means, windows, strict=True):
        assert seen == pytest.approx(
            math.fsum(window) / len(window), abs=1e-9 * max(map(abs, window))
        )


@given(streams, st.integers(1, 7))
def test_every_shows_one_value_for_so_many(values: list[float], count: int) -> None:
    """Between the means of `count` values controllers see nothing."""
    seen = smoothed({"kind": "every", "count": count}, values)
    for index, value in enumerate(seen, 1):
        if index % count:
            assert value is None
        else:
            part = values[index - count : index]
            assert value == pytest.approx(sum(part) / count, abs=1e-9 * max(map(abs, part)))


@given(st.lists(metrics, max_size=40), kinds)
def test_what_is_no_number_passes_and_spoils_nothing(
    values: list[float], spec: dict[str, Any]
) -> None:
    """NaN and infinities pass unchanged; the others are smoothed as if those were not there."""
    seen = smoothed(spec, values)
    calm = smoothed(spec, [value for value in values if math.isfinite(value)])
    for value, shown in zip(values, seen, strict=True):
        if not math.isfinite(value):
            assert repr(shown) == repr(value)
    rest = [shown for value, shown in zip(values, seen, strict=True) if math.isfinite(value)]
    assert rest == calm


@given(st.lists(metrics, max_size=30), kinds)
def test_the_memory_survives_as_json(values: list[float], spec: dict[str, Any]) -> None:
    """Storing the state between any two values changes no later bit."""
    smoother = Smoother.parse(spec)
    state = kept = SmootherState()
    for value in values:
        state, one = smoother.smooth(state, value)
        kept, other = smoother.smooth(
            SmootherState.model_validate_json(kept.model_dump_json()), value
        )
        assert repr(one) == repr(other)


def test_the_memory_is_bounded() -> None:
    """A window larger than ten thousand is refused: its state is written at every measurement."""
    with pytest.raises(ValidationError, match="10000"):
        Smoother.parse({"kind": "median", "window": 10_001})


def test_smoothing_is_between_the_ranks_and_the_controllers() -> None:
    """Values are aggregated first, then smoothed, then seen."""
    smoothing = {"kind": "ema", "beta": 0.5, "debias": False}
    loop = Loop(session(ranks=2, metrics={"loss": {"smoothing": smoothing}}))
    for step, value in enumerate([4.0, 8.0, 0.0]):
        loop.seal(step).report(step, {1: value + 1, 0: value - 1})
    loop.seal(3)
    assert loop.shown() == [("loss", 0, 4.0), ("loss", 1, 6.0), ("loss", 2, 3.0)]
