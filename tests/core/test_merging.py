"""Merges: the average of checkpoints equals the result of a decayed training, to twelve digits."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.primitives import Ramp
from pacesetter_service.insight.merging import EASES, SHAPES, Merge, Shape, merge

Floats = npt.NDArray[np.float64]

LR, STEPS = 0.05, 120


class Trained(NamedTuple):
    """The weights before each update, and the gradient of each."""

    weights: Floats
    gradients: Floats


def trained(slope: float, seed: int = 0) -> Trained:
    """Train by SGD at a constant rate on a quadratic, or with `slope` 0 on a linear, noisy loss."""
    chance = np.random.default_rng(seed)
    curvature, weights = slope * chance.uniform(0.1, 2.0, 7), [chance.normal(size=7)]
    gradients = []
    for _ in range(STEPS):
        gradients.append(curvature * weights[-1] + chance.normal(size=7))
        weights.append(weights[-1] - LR * gradients[-1])
    return Trained(np.array(weights), np.array(gradients))


def rates(count: int, rows: int = 1) -> Floats:
    """Return constant rates of some groups."""
    return np.full((rows, count), LR)


def averaged(found: Merge, run: Trained) -> Floats:
    """Return the merged weights."""
    return sum((each.weight * run.weights[each.step] for each in found.checkpoints), np.zeros(7))


steps_of_checkpoints = st.lists(st.integers(0, STEPS), min_size=2, max_size=30, unique=True).map(
    sorted
)


@given(
    steps_of_checkpoints,
    st.sampled_from(SHAPES),
    st.floats(0, 0.9),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 9),
)
def test_a_merge_is_the_first_checkpoint_and_all_updates_by_their_shares(
    steps: list[int], shape: Shape, floor: float, slope: float, seed: int
) -> None:
    """Recorded gradients, each times its share and the rate, lead to the merged weights."""
    run = trained(slope, seed)
    found = merge(rates(steps[-1] - steps[0]), steps, EASES[shape], floor)
    expected = run.weights[steps[0]].copy()
    for before, after in pairwise(found.checkpoints):
        expected -= after.share * LR * run.gradients[before.step : after.step].sum(axis=0)
    assert_allclose(averaged(found, run), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_with_a_checkpoint_at_every_step_it_is_the_decayed_training_itself(
    shape: Shape, floor: float
) -> None:
    """On a linear loss, whose gradients stay, it is where a cooldown of that shape would end."""
    run, start = trained(0.0), 40
    steps = list(range(start, STEPS + 1))
    found = merge(rates(STEPS - start), steps, EASES[shape], floor)
    law: Schedule = Ramp(start=LR, end=LR * floor, steps=STEPS - start, ease=EASES[shape])
    decayed = law.values(np.arange(STEPS - start, dtype=np.float64), LR)
    expected = run.weights[start] - (decayed[:, None] * run.gradients[start:]).sum(axis=0)
    assert_allclose(averaged(found, run), expected, rtol=0, atol=1e-12)


def test_on_a_quadratic_it_is_no_longer_the_decayed_training() -> None:
    """With lower rates the gradients would have been others: the theory uses those that were."""
    run, start = trained(1.0), 40
    found = merge(rates(STEPS - start), list(range(start, STEPS + 1)), EASES["linear"])
    law: Schedule = Ramp(start=LR, end=0.0, steps=STEPS - start, ease=EASES["linear"])
    chance, weights = np.random.default_rng(0), run.weights[start].copy()
    curvature = chance.uniform(0.1, 2.0, 7)
    chance.normal(size=7)
    noise = [chance.normal(size=7) for _ in range(STEPS)]
    for step in range(start, STEPS):
        rate = law.values(np.array([step - start], dtype=np.float64), LR)[0]
        weights = weights - rate * (curvature * weights + noise[step])
    apart = np.abs(averaged(found, run) - weights).max()
    assert 1e-4 < apart < np.abs(run.weights[-1] - weights).max()


@given(steps_of_checkpoints, st.sampled_from(SHAPES), st.floats(0, 0.99))
def test_weights_are_an_average(steps: list[int], shape: Shape, floor: float) -> None:
    """None is negative, they add up to 1, and the shares fall from 1 to no less than 0."""
    found = merge(rates(steps[-1] - steps[0], rows=2), steps, EASES[shape], floor)
    weights = [each.weight for each in found.checkpoints]
    shares = [each.share for each in found.checkpoints]
    assert min(weights) >= -1e-15
    assert sum(weights) == pytest.approx(1.0, abs=1e-14)
    assert shares[0] == 1.0
    assert all(after <= before + 1e-15 for before, after in pairwise(shares))
    assert shares[-1] >= 0.0
    assert found.left_out == ()


@pytest.mark.parametrize("every", [1, 5, 30])
def test_a_linear_decay_weighs_all_alike_and_the_ends_by_half(every: int) -> None:
    """It is the plain mean of papers, except for the two ends."""
    steps = list(range(0, 121, every))
    found = merge(rates(120), steps, EASES["linear"])
    weights = [each.weight for each in found.checkpoints]
    count = len(steps) - 1
    half = 0.5 * (1 + 1 / every)
    assert_allclose(weights[1:-1], [1 / count] * (count - 1), rtol=1e-9)
    assert weights[-1] == pytest.approx(half / count, rel=1e-9)


def test_what_was_trained_before_the_rate_was_constant_is_left_out() -> None:
    """Checkpoints count from the step on at which no group's rate changed any more."""
    ramp = np.array([[0.01, 0.02, 0.05, 0.05, 0.05, 0.05], [0.1, 0.1, 0.1, 0.2, 0.2, 0.2]])
    found = merge(ramp, [10, 12, 13, 16], EASES["linear"])
    assert [each.step for each in found.checkpoints] == [13, 16]
    assert [each.step for each in found.left_out] == [10, 12]
    assert "constant from step 13 on" in found.left_out[0].reason


def test_what_lies_before_the_decay_is_left_out() -> None:
    """With `over` the decay is no longer than that; one checkpoint gives no merge."""
    found = merge(rates(100), [0, 50, 70, 80, 100], EASES["linear"], over=30)
    assert [each.step for each in found.checkpoints] == [70, 80, 100]
    assert found.left_out[-1].reason == "it is more than 30 steps before the last one, 100"
    assert merge(rates(100), [0, 50, 100], EASES["linear"], over=30).checkpoints == ()
