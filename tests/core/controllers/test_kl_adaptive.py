"""KL-adaptive: the decisions of skrl and rl_games, and where our rule departs from them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.controllers.following import follow, train
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.kl_adaptive import KlAdaptive

parameters = st.fixed_dictionaries(
    {
        "kl_threshold": st.floats(1e-4, 1),
        "min_lr": st.floats(1e-7, 1e-4),
        "max_lr": st.floats(1e-2, 1),
        "kl_factor": st.floats(1.01, 4),
        "lr_factor": st.floats(1.01, 4),
    }
)

divergences = st.one_of(
    st.floats(-0.01, 0.1),
    st.sampled_from([0.0, 0.004, 0.008, 0.016, math.nextafter(0.016, 1), math.nan, math.inf]),
)

rates_within = st.floats(1e-4, 1e-2)


def of_skrl(
    values: list[float],
    rate: float,
    kl_threshold: float = 0.008,
    min_lr: float = 1e-6,
    max_lr: float = 1e-2,
    kl_factor: float = 2,
    lr_factor: float = 1.5,
) -> list[float]:
    """Return the rates of KLAdaptiveLR: skrl 2.1.1, resources/schedulers/torch/kl_adaptive.py."""
    rates = []
    for kl in values:
        if kl > kl_threshold * kl_factor:
            rate = max(rate / lr_factor, min_lr)
        elif kl < kl_threshold / kl_factor:
            rate = min(rate * lr_factor, max_lr)
        rates.append(rate)
    return rates


def of_rl_games(values: list[float], rate: float, kl_threshold: float = 0.008) -> list[float]:
    """Return the rates of AdaptiveScheduler: rl_games 1.6.5, rl_games/common/schedulers.py."""
    rates = []
    for kl_dist in values:
        lr = rate
        if kl_dist > (2.0 * kl_threshold):
            lr = max(rate / 1.5, 1e-6)
        if kl_dist < (0.5 * kl_threshold):
            lr = min(rate * 1.5, 1e-2)
        rate = lr
        rates.append(rate)
    return rates


def adaptive(**given: Any) -> KlAdaptive:
    """Make a rule for a divergence."""
    return KlAdaptive(metric="kl", **given)


@given(parameters, rates_within, st.lists(divergences, min_size=1, max_size=60))
def test_a_rate_within_the_bounds_has_the_bits_of_skrl(
    given: dict[str, Any], rate: float, values: list[float]
) -> None:
    """Whatever is measured, NaN included, each rate is the library's."""
    assert follow(adaptive(**given), values, rate).rates == of_skrl(values, rate, **given)


@given(rates_within, st.lists(divergences, min_size=1, max_size=60))
def test_the_defaults_have_the_bits_of_both_libraries(rate: float, values: list[float]) -> None:
    """With no parameters each rate is that of skrl and of rl_games."""
    rates = follow(adaptive(), values, rate).rates
    assert rates == of_skrl(values, rate)
    assert rates == of_rl_games(values, rate)


@given(st.lists(divergences, min_size=1, max_size=30))
def test_a_session_seals_the_bits_of_skrl(values: list[float]) -> None:
    """A trainer that asks and reports in turn gets the library's rates, group by group."""
    groups = {"policy": 1e-3, "value": 3e-4}
    spec = {
        "base_lr": None,
        "groups": {group: {"base_lr": rate} for group, rate in groups.items()},
        "controllers": [{"kind": "kl_adaptive", "metric": "kl"}],
    }
    _, rates = train(spec, values)
    for index, rate in enumerate(groups.values()):
        expected = [rate, *of_skrl(values, rate)][:-1]
        assert [row[index] for row in rates] == expected


def test_a_restart_changes_nothing() -> None:
    """The rule has no memory, so nothing can be lost."""
    values = [0.1, 0.001, 0.008, 0.0]
    assert follow(adaptive(), values, 1e-3, 2).rates == follow(adaptive(), values, 1e-3).rates


def test_a_divergence_near_the_target_changes_nothing() -> None:
    """From half the target to twice the target, both included, the rate stays."""
    assert follow(adaptive(), [0.004, 0.008, 0.016], 1e-3).said == []


def test_a_rate_above_the_bounds_does_not_fall_when_it_should_rise() -> None:
    """If the divergence is too small, the libraries pull 0.1 down to 0.01; here it stays."""
    assert of_skrl([0.0], 0.1) == [0.01]
    followed = follow(adaptive(), [0.0, 0.1], 0.1)
    assert followed.rates == [0.1, 0.1 / 1.5]


def test_a_rate_below_the_bounds_does_not_rise_when_it_should_fall() -> None:
    """If the divergence is too large, the libraries lift 1e-7 to 1e-6; here it stays."""
    assert of_skrl([0.1], 1e-7) == [1e-6]
    assert follow(adaptive(), [0.1, 0.0], 1e-7).rates == [1e-7, 1e-7 * 1.5]


def test_a_nan_changes_nothing() -> None:
    """NaN says nothing about the rate; nor does -inf."""
    assert follow(adaptive(), [math.nan, -math.inf], 1e-3).said == []


def test_an_infinite_divergence_is_too_much() -> None:
    """A policy that rules out what the old one did is cut."""
    assert follow(adaptive(), [math.inf], 1e-3).rates == [1e-3 / 1.5]


def test_no_divergence_raises() -> None:
    """0, and an estimate below it, are less than half the target, as in the libraries."""
    assert follow(adaptive(), [0.0, -0.001], 1e-3).rates == [1e-3 * 1.5, 1e-3 * 1.5 * 1.5]


def test_a_group_with_a_base_of_zero_stays_there() -> None:
    """A frozen group is neither raised nor lifted to the floor."""
    levels = follow(adaptive(), [0.1, 0.0], {"frozen": 0.0, "policy": 1e-3}).levels
    assert {each["frozen"] for each in levels} == {0.0}


def test_decisions_say_why() -> None:
    """A reason names the divergence, the target and the factors."""
    down, up = follow(adaptive(), [0.02, 0.001], 1e-3).said
    assert down.reason == (
        "kl 0.02 is more than 2.0 times its target 0.008: divided by 1.5, to at least 1e-06"
    )
    assert up.reason == (
        "kl 0.001 is less than its target 0.008 divided by 2.0: multiplied by 1.5, to at most 0.01"
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"min_lr": 0.1}, "swap them"),
        ({"kl_threshold": 0.0}, "greater than 0"),
        ({"lr_factor": 1.0}, "greater than 1"),
        ({"kl_factor": 0.5}, "greater than 1"),
    ],
)
def test_what_can_not_be_meant_is_refused(given: dict[str, Any], says: str) -> None:
    """A target must be above 0, factors above 1, and the floor below the ceiling."""
    with pytest.raises(ValidationError, match=says):
        Controller.parse({"kind": "kl_adaptive", "metric": "kl", **given})
