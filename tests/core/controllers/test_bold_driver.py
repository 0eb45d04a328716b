"""The bold driver: the decisions of MATLAB's traingda, and a training that obeys them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.controllers.following import follow, train
from pacesetter_service.core.controllers import Controller, Sample
from pacesetter_service.core.controllers.bold_driver import BoldDriver, BoldDriverState
from strategies import metrics

parameters = st.fixed_dictionaries(
    {
        "up": st.floats(1.001, 2),
        "down": st.floats(0.05, 0.99),
        "max_perf_inc": st.floats(1, 2),
    }
)

errors = st.one_of(st.floats(1e-6, 10), st.sampled_from([1.0, 1.04, 1.05, 0.99]))

UNBOUNDED = {"min_ratio": 1e-300, "max_ratio": 1e300}
"""Bounds that no parity test reaches: the library has none."""


def of_traingda(
    values: list[float], rate: float, up: float, down: float, max_perf_inc: float
) -> list[float]:
    """Return the rate after each epoch: the loop of traingda.m, revision 1.1.6.16 (2012)."""
    perf, rates = values[0], [rate]
    for perf2 in values[1:]:
        if (perf2 / perf) > max_perf_inc:
            rate = rate * down
        else:
            if perf2 < perf:
                rate = rate * up
            perf = perf2
        rates.append(rate)
    return rates


def driver(**given: Any) -> BoldDriver:
    """Make a rule for a loss."""
    return BoldDriver(metric="loss", **given)


@given(parameters, st.lists(errors, min_size=1, max_size=60))
def test_errors_give_the_bits_of_traingda(given: dict[str, Any], values: list[float]) -> None:
    """For positive errors every rate is MATLAB's."""
    rule = driver(**given, **UNBOUNDED)
    assert follow(rule, values).rates == of_traingda(values, 0.1, **given)


@given(st.lists(errors, min_size=1, max_size=20))  # 18 cuts: one above the default floor
def test_a_session_seals_the_bits_of_traingda(values: list[float]) -> None:
    """With the defaults, a trainer that asks and reports in turn gets MATLAB's rates."""
    expected = of_traingda(values, 0.1, 1.05, 0.7, 1.04)
    _, rates = train({"controllers": [{"kind": "bold_driver", "metric": "loss"}]}, values)
    assert rates == [[rate] for rate in [0.1, *expected][:-1]]


@given(parameters, st.lists(metrics, min_size=1, max_size=60), st.booleans(), st.data())
def test_a_restart_changes_nothing(
    given: dict[str, Any], values: list[float], roll_back: bool, data: st.DataObject
) -> None:
    """A state that went through JSON goes on to the same bits, whatever was measured."""
    at = data.draw(st.integers(0, len(values)))
    rule = driver(roll_back=roll_back, **given)
    assert follow(rule, values, 0.1, at).rates == follow(rule, values).rates


@given(parameters, st.lists(metrics, min_size=1, max_size=60), st.booleans())
def test_a_level_stays_between_its_bounds(
    given: dict[str, Any], values: list[float], roll_back: bool
) -> None:
    """Whatever is measured, a level stays between the two ratios of its base."""
    rule = driver(roll_back=roll_back, min_ratio=0.5, max_ratio=1.5, **given)
    assert all(0.5 <= rate <= 1.5 for rate in follow(rule, values, 1.0).rates)


def test_a_training_that_goes_back_converges_at_a_rate_that_diverges_without() -> None:
    """Descent on x^2/2 from a rate of 3, which diverges, settles by discarding steps."""
    rule, state = driver(), BoldDriverState()
    rate, x, kept = 3.0, 1.0, 1.0
    for step in range(200):
        seen = Sample("loss", step, x * x / 2, {"": rate}, {"": 3.0})
        observation = rule.observe(state, seen)
        assert isinstance(observation.state, BoldDriverState)
        state, verdict = observation.state, observation.verdict
        rate = verdict.levels.get("", rate) if verdict else rate
        x = kept if verdict and verdict.advice == "roll_back" else x
        kept, x = x, x - rate * x
    assert abs(x) < 0.01
    assert abs((1.0 - 3.0) ** 200) > 1e60  # with the same rate throughout


def test_a_discarded_step_is_not_what_the_next_is_compared_with() -> None:
    """After a rise by more than 4 % the old value stays, and the trainer is told to go back."""
    followed = follow(driver(), [1.0, 1.2, 1.1, 0.9], 1.0)
    assert followed.rates == [1.0, 0.7, 0.7 * 0.7, 0.7 * 0.7 * 1.05]
    assert [verdict.advice for verdict in followed.said] == ["roll_back", "roll_back", None]


def test_a_small_rise_is_kept_without_a_change() -> None:
    """A rise by up to 4 % changes no rate, and the next value is compared with it."""
    assert follow(driver(), [1.0, 1.03, 1.06], 1.0).said == []


def test_who_does_not_go_back_is_compared_with_the_value_before() -> None:
    """Without `roll_back` one rise cuts once, and the trainer gets no notice."""
    values = [1.0, 2.0, 2.0, 2.0]
    followed = follow(driver(roll_back=False), values, 1.0)
    assert followed.rates == [1.0, 0.7, 0.7, 0.7]
    assert followed.said[0].advice is None
    assert follow(driver(), values, 1.0).rates == pytest.approx([1.0, 0.7, 0.49, 0.343])


def test_a_small_rise_below_zero_is_small_and_progress_is_progress() -> None:
    """The ratio of two negative values means nothing: what counts is the rise relative to |K|."""
    assert follow(driver(), [-1.0, -1.2], 1.0).rates == [1.0, 1.05]
    assert follow(driver(), [-1.0, -0.97], 1.0).rates == [1.0, 1.0]
    assert follow(driver(), [-1.0, -0.9], 1.0).rates == [1.0, 0.7]
    assert follow(driver(), [0.0, 1e-9], 1.0).rates == [1.0, 0.7]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_went_wrong_and_is_never_kept(value: float) -> None:
    """It cuts, asks for a roll-back, and later values are compared with the one before it."""
    for roll_back in (True, False):
        followed = follow(driver(roll_back=roll_back), [1.0, value, 0.9], 1.0)
        assert followed.rates == [1.0, 0.7, 0.7 * 1.05]


def test_the_first_value_is_compared_with_nothing() -> None:
    """A first value changes nothing; a first NaN cuts, but there is nothing to go back to."""
    assert follow(driver(), [5.0]).said == []
    [cut] = follow(driver(), [math.nan], 1.0).said
    assert cut.levels == {"": 0.7}
    assert cut.advice is None


def test_a_noisy_loss_drives_the_rate_to_its_floor() -> None:
    """The loss of single batches often rises by more than 4 %: the rule is not meant for it."""
    noisy = [1.0, *[0.9, 1.1] * 200]
    assert follow(driver(roll_back=False), noisy, 1.0).rates[-1] < 0.0015


def test_a_level_near_the_largest_number_does_not_overflow() -> None:
    """A raise stops at the largest finite number."""
    rates = follow(driver(up=10.0, max_ratio=1e9), [3.0, 2.0, 1.0], 1e308).rates
    assert all(map(math.isfinite, rates))


def test_groups_move_together_and_a_base_of_zero_stays() -> None:
    """All groups change by the same factor, within their own bounds."""
    bases = {"frozen": 0.0, "body": 0.1, "head": 1.0}
    levels = follow(driver(), [1.0, 0.5], bases).levels[-1]
    assert levels == {"frozen": 0.0, "body": 0.1 * 1.05, "head": 1.05}


def test_decisions_say_why() -> None:
    """A reason names both values and what was done."""
    up, down = follow(driver(), [1.0, 0.5, 0.6]).said
    assert up.reason == "loss fell from 1.0 to 0.5: multiplied by 1.05"
    assert down.reason == (
        "loss went from 0.5 to 0.6, and at most 1.04 times as much is let pass: multiplied by 0.7,"
        " and the step is to be discarded"
    )


@pytest.mark.parametrize(
    "given", [{"up": 1.0}, {"down": 1.0}, {"max_perf_inc": 0.9}, {"min_ratio": 2.0}]
)
def test_what_can_not_be_meant_is_refused(given: dict[str, Any]) -> None:
    """Up must be above 1, down below it, and the tolerated rise must not be a fall."""
    with pytest.raises(ValidationError):
        Controller.parse({"kind": "bold_driver", "metric": "loss", **given})
