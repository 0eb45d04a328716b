"""The test of stationarity against statopt's SASA, on real training, and its traps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from core.controllers.streams import cuts_of
from pacesetter_service.core.controllers import Sample
from pacesetter_service.core.controllers.stationarity import Stationarity
from strategies import metrics


def deviation(kept: np.ndarray, mode: str) -> tuple[float, int]:
    """Return the deviation by statopt's bucket, and its degrees of freedom."""
    n = len(kept)
    b = math.floor(math.sqrt(n))
    if mode == "bm":
        means = kept[: n // b * b].reshape(-1, b).mean(axis=1)
        return math.sqrt(b / (len(means) - 1)) * float(np.linalg.norm(means - kept.mean())), b - 1
    if mode == "olbm":
        means = np.lib.stride_tricks.sliding_window_view(kept, b).mean(axis=1)
        k = len(means)
        factor = math.sqrt(b * n / (k * (k - 1)))
        return factor * float(np.linalg.norm(means - kept.mean())), n - b
    return float(kept.std(ddof=1)), n - 1


def statopt_sasa(values: list[float], mode: str, min_kept: int, ratio: int) -> list[int]:
    """Return where statopt's SASA drops the rate, with a test at every 20th step."""
    since: list[float] = []
    drops: list[int] = []
    for step, value in enumerate(values, start=1):
        since.append(value)
        kept = np.array(since[-math.ceil(len(since) / ratio) :])
        if len(kept) <= min_kept or step % 20:
            continue
        wide, freedom = deviation(kept, mode)
        half = wide * stats.t.ppf(0.975, freedom) / math.sqrt(len(kept))
        older, newer = kept[: len(kept) // 2].mean(), kept[len(kept) // 2 :].mean()
        tested = [kept.mean()] if drops else [older, newer]
        if all(each - half < 0 < each + half for each in tested) and older * newer > 0:
            drops.append(step - 1)
            since = []
    return drops


def statistics_of(seed: int, count: int) -> list[float]:
    """Draw a correlated statistic, above 0 first and around it after a while, again and again."""
    rng = np.random.default_rng(seed)
    values, wobble = [], 0.0
    for step, noise in enumerate(rng.normal(size=count)):
        wobble = 0.8 * wobble + noise
        values.append(wobble + 5.0 * math.exp(-(step % (count // 3)) / 60))
    return values


@pytest.mark.parametrize(
    ("variance", "mode"), [("batch_means", "bm"), ("overlapping", "olbm"), ("iid", "mb")]
)
def test_cuts_are_where_statopt_cuts(variance: str, mode: str) -> None:
    """Every cut is at the step of statopt's, with each of its variances; `mb` is `iid` there."""
    controller = Stationarity.model_validate(
        {"metric": "loss", "variance": variance, "min_kept": 100, "leak_ratio": 2, "interval": 20}
    )
    total = 0
    for seed in range(6):
        values = statistics_of(seed, 2400)
        cuts, levels = cuts_of(controller, values)
        assert cuts == statopt_sasa(values, mode, 100, 2)
        assert levels[""] == pytest.approx(0.1 ** (1 + len(cuts)))
        total += len(cuts)
    assert total >= 6


def test_the_default_variance_is_not_the_bug_of_statopt() -> None:
    """`mb`, statopt's default, falls through to `iid`; here batch means are the default."""
    values = statistics_of(2, 2400)
    few = {"metric": "loss", "min_kept": 100, "leak_ratio": 2, "interval": 20}
    cuts, _ = cuts_of(Stationarity.model_validate(few), values)
    assert cuts == statopt_sasa(values, "bm", 100, 2)
    assert cuts != statopt_sasa(values, "mb", 100, 2)


def train(steps: int, lr: float, momentum: float) -> tuple[list[float], list[float]]:
    """Train on noisy gradients; return the statistic of the docstring, and that of statopt."""
    torch.manual_seed(0)
    params = [torch.full((8,), 3.0, requires_grad=True)]
    optimizer = torch.optim.SGD(params, lr=lr, momentum=momentum)
    reported, expected = [], []
    for _ in range(steps):
        params[0].grad = params[0].detach() + torch.randn(8)

        before = [p.detach().clone() for p in params]
        optimizer.step()
        with torch.no_grad():
            d = [(old - p) / lr for old, p in zip(before, params, strict=True)]
            statistic = sum(
                float((p * s).sum() + lr / 2 * (s * s).sum())
                for p, s in zip(params, d, strict=True)
            )

        reported.append(statistic)
        used = optimizer.state[params[0]]["momentum_buffer"] if momentum else params[0].grad
        weights = params[0].detach()
        expected.append(float(weights @ used + 0.5 * lr * (used @ used)))
    return reported, expected


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_statistic_of_the_snippet_is_that_of_statopt(momentum: float) -> None:
    """Clients that follow the docstring report `<x, d> + lr / 2 |d|^2` of the true step."""
    reported, expected = train(200, 0.01, momentum)
    assert reported == pytest.approx(expected, rel=1e-2, abs=1e-2)


def test_a_training_is_cut_once_it_has_arrived() -> None:
    """While SGD is on its way to the minimum nothing is cut; where it jitters around it, it is."""
    lr = 0.005  # the way there takes 1 / lr steps, several times over
    values, _ = train(3000, lr, 0.0)
    controller = Stationarity(metric="loss", min_kept=100, leak_ratio=2, interval=20)
    cuts, _ = cuts_of(controller, values)
    assert cuts
    assert cuts[0] > 2 / lr


def test_passing_through_zero_is_not_taken_for_arriving() -> None:
    """Before the first cut each half alone must be near 0, so crossing 0 is not enough."""
    rng = np.random.default_rng(0)
    crossing = (np.linspace(4.0, -4.0, 200) + rng.normal(size=200)).tolist()
    controller = Stationarity(metric="loss", min_kept=100, leak_ratio=1, interval=20)
    assert cuts_of(controller, crossing)[0] == []


def test_halves_of_opposite_signs_are_not_stationary() -> None:
    """A mean of 0 between a half above and a half below it is no stationarity."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100)
    values = np.concatenate([noise - noise.mean() + 0.01, noise - noise.mean() - 0.01]).tolist()
    controller = Stationarity(metric="loss", min_kept=150, leak_ratio=1, interval=200)
    assert cuts_of(controller, values)[0] == []
    assert cuts_of(controller, np.abs(values[:100]).tolist() + values[100:])[0] == []


def test_a_statistic_without_noise_is_never_stationary() -> None:
    """A constant, 0 included, gives an interval of no width, which contains nothing."""
    controller = Stationarity(metric="loss", min_kept=8, leak_ratio=1, interval=1)
    assert cuts_of(controller, [0.0] * 100)[0] == []
    assert cuts_of(controller, [1e-9] * 100)[0] == []


def test_values_that_are_no_numbers_are_left_out() -> None:
    """NaN and infinities in the statistic only delay a cut by their number."""
    controller = Stationarity(metric="loss", min_kept=100, leak_ratio=2, interval=20)
    values = statistics_of(1, 1200)
    spoilt = [math.nan, math.inf, -math.inf, *values]
    assert cuts_of(controller, spoilt)[0] == [cut + 3 for cut in cuts_of(controller, values)[0]]


def test_a_cut_says_the_interval() -> None:
    """The reason has the metric, its mean, its uncertainty, and both halves."""
    controller = Stationarity(
        metric="loss", min_kept=8, leak_ratio=1, interval=16, significance=0.1
    )
    state = controller.init()
    for step in range(16):
        value = 1.0 if step % 2 else -0.9
        observation = controller.observe(state, Sample("loss", step, value, {"": 0.1}, {"": 0.1}))
        state = observation.state
    assert observation.verdict is None  # batches of four hardly differ: the mean is surely 0.05
    iid = controller.model_copy(update={"variance": "iid"})
    state = iid.init()
    for step in range(16):
        value = 1.0 if step % 2 else -0.9
        observation = iid.observe(state, Sample("loss", step, value, {"": 0.1}, {"": 0.1}))
        state = observation.state
    assert observation.verdict is not None
    assert observation.verdict.reason == (
        "the training is stationary at this rate: the mean of loss over 16 measurements is 0.05 ±"
        " 0.43 (significance 0.1), which contains 0, and its halves have means of one sign (0.05"
        " and 0.05)"
    )


def test_a_bucket_that_can_not_fill_is_refused() -> None:
    """`max_kept` must be above `min_kept`."""
    with pytest.raises(ValidationError, match="never holds more than 100"):
        Stationarity(metric="loss", min_kept=100, max_kept=100)


@given(st.lists(metrics, max_size=150), st.sets(st.integers(0, 150)))
def test_a_restart_changes_no_decision(values: list[float], restarts: set[int]) -> None:
    """With the state written as JSON and read back anywhere, cuts and levels are the same."""
    controller = Stationarity(metric="loss", min_kept=8, leak_ratio=2, interval=3, max_kept=12)
    assert cuts_of(controller, values, restarts) == cuts_of(controller, values)


@given(st.lists(st.floats(), max_size=80))
def test_levels_stay_positive_and_finite(values: list[float]) -> None:
    """No stream of floats, however extreme, makes a level 0, NaN or infinite."""
    controller = Stationarity(metric="loss", min_kept=8, leak_ratio=1, interval=1, factor=1e-30)
    level = cuts_of(controller, values)[1][""]
    assert 0 < level <= 0.1
