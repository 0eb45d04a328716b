"""New-bob: the decisions of speechbrain's scheduler, and where our rule departs from them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.controllers.following import follow, train
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.newbob import NewBob, NewBobState
from strategies import metrics

parameters = st.fixed_dictionaries(
    {
        "factor": st.floats(0.05, 0.99),
        "threshold": st.sampled_from([0.0, 0.0025, 0.1, -0.01]),
        "patience": st.integers(0, 4),
    }
)

errors = st.one_of(st.floats(0, 10), st.sampled_from([0.0, 0.5, 0.4, 0.399, 1e-300]))


class Speechbrain:
    """The rule of `NewBobScheduler`, from speechbrain 1.1.2, speechbrain/nnet/schedulers.py."""

    def __init__(self, rate: float, factor: float, threshold: float, patience: int) -> None:
        self.rate = rate
        self.factor, self.threshold, self.patience = factor, threshold, patience
        self.seen: list[float] = []
        self.left = patience

    def __call__(self, value: float) -> float:
        """Take a value, and return the rate after it."""
        if self.seen:
            previous = self.seen[-1]
            improvement = 0 if previous == 0 else (previous - value) / previous
            if improvement < self.threshold:
                if self.left == 0:
                    self.rate *= self.factor
                    self.left = self.patience
                else:
                    self.left -= 1
        self.seen.append(value)
        return self.rate


def newbob(**given: Any) -> NewBob:
    """Make a rule for a loss."""
    return NewBob(metric="loss", **given)


@given(parameters, st.lists(errors, min_size=1, max_size=60))
def test_errors_give_the_bits_of_speechbrain(given: dict[str, Any], values: list[float]) -> None:
    """For metrics from 0 up every rate is the library's."""
    reference = Speechbrain(0.1, **given)
    assert follow(newbob(**given), values).rates == [reference(value) for value in values]


@given(parameters, st.lists(errors, min_size=1, max_size=30))
def test_a_session_seals_the_bits_of_speechbrain(
    given: dict[str, Any], values: list[float]
) -> None:
    """A trainer that asks and reports in turn gets the library's rates."""
    reference = Speechbrain(0.1, **given)
    expected = [0.1, *(reference(value) for value in values)][:-1]
    _, rates = train({"controllers": [{"kind": "newbob", "metric": "loss", **given}]}, values)
    assert rates == [[rate] for rate in expected]


def test_the_defaults_are_those_of_speechbrain() -> None:
    """The example of the library's own documentation: 10, 2, 2.5 leads to 1, 1, 0.5."""
    assert follow(newbob(), [10.0, 2.0, 2.5], 1.0).rates == [1.0, 1.0, 0.5]


@given(parameters, st.lists(metrics, min_size=1, max_size=60), st.data())
def test_a_restart_changes_nothing(
    given: dict[str, Any], values: list[float], data: st.DataObject
) -> None:
    """A state that went through JSON goes on to the same bits, whatever was measured."""
    at = data.draw(st.integers(0, len(values)))
    rule = newbob(**given)
    assert follow(rule, values, 0.1, at).rates == follow(rule, values).rates


@given(parameters, st.lists(metrics, min_size=1, max_size=60))
def test_a_value_that_is_not_finite_is_never_compared_with(
    given: dict[str, Any], values: list[float]
) -> None:
    """The value to compare with is the last finite one, or not set."""
    state = follow(newbob(**given), values).state
    assert isinstance(state, NewBobState)
    assert state.previous == next(filter(math.isfinite, reversed(values)), None)


def test_a_nan_is_poor_and_passes_for_progress_in_speechbrain() -> None:
    """NaN passes every comparison of the library, and so does the value after it."""
    values = [1.0, math.nan, 1.0, 1.0]
    reference = Speechbrain(1.0, 0.5, 0.0025, 0)
    assert [reference(value) for value in values] == [1.0, 1.0, 1.0, 0.5]
    assert follow(newbob(), values, 1.0).rates == [1.0, 0.5, 0.25, 0.125]


def test_progress_below_zero_is_progress() -> None:
    """A log-likelihood's loss that falls from -1 to -2 is cut there, and not here."""
    values = [-1.0, -2.0, -4.0]
    reference = Speechbrain(1.0, 0.5, 0.0025, 0)
    assert [reference(value) for value in values] == [1.0, 0.5, 0.25]
    assert follow(newbob(), values, 1.0).rates == [1.0, 1.0, 1.0]


def test_a_metric_may_rise() -> None:
    """With mode "max" an accuracy that rises is progress and one that stays is not."""
    assert follow(newbob(mode="max"), [0.5, 0.6, 0.7, 0.7], 1.0).rates == [1.0, 1.0, 1.0, 0.5]


def test_it_compares_with_the_measurement_before_and_not_with_the_best() -> None:
    """After a bad epoch, one no better than the epoch before it looks like progress."""
    assert follow(newbob(), [1.0, 2.0, 1.0, 2.0, 1.0], 1.0).rates == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_patience_is_not_restored_by_progress() -> None:
    """Poor measurements add up across good ones until the next cut."""
    values = [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert follow(newbob(patience=2), values, 1.0).rates == [1, 1, 1, 1, 0.5, 0.5, 0.5]


def test_a_perfect_metric_is_cut_as_well() -> None:
    """An improvement on 0 counts as none."""
    assert follow(newbob(), [0.0, 0.0], 1.0).rates == [1.0, 0.5]


def test_a_cut_stops_at_the_floor_and_never_raises() -> None:
    """`min_lr` ends the cuts; a rate below it stays where it is, and none becomes 0."""
    assert follow(newbob(min_lr=0.3), [1.0] * 4, 1.0).rates == [1.0, 0.5, 0.3, 0.3]
    assert follow(newbob(min_lr=0.3), [1.0] * 4, 0.1).said == []
    assert follow(newbob(), [1.0] * 1200, 1.0).rates[-1] > 0.0


def test_a_cut_says_why() -> None:
    """The reason has both values, the improvement, and the required improvement."""
    [cut] = follow(newbob(), [2.0, 1.998]).said
    assert cut.reason == (
        "loss went from 2.0 to 1.998, an improvement of 0.001 where 0.0025 was asked for"
        " (patience 0): multiplied by 0.5"
    )


@pytest.mark.parametrize("given", [{"factor": 1.0}, {"factor": 0.0}, {"patience": -1}])
def test_what_can_not_be_meant_is_refused(given: dict[str, Any]) -> None:
    """A factor must be between 0 and 1, and patience not below 0."""
    with pytest.raises(ValidationError):
        Controller.parse({"kind": "newbob", "metric": "loss", **given})
