"""The predicates: when each holds, what it says, and that a restart does not matter."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from pacesetter_service.core.controllers.predicates import Predicate, PredicateState
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.model import jsonable
from strategies import metrics

PLATEAUED = {"kind": "plateaued", "patience": 2}
ABOVE = {"kind": "above", "value": 0.0}
EXAMPLES = [{"kind": kind, **member.example} for kind, member in sorted(Predicate.kinds.items())]

predicates = st.sampled_from(
    [
        *EXAMPLES,
        {"kind": "plateaued", "patience": 1, "mode": "max", "threshold_mode": "abs"},
        {"kind": "slope", "window": 5},
        {"kind": "slope", "window": 3, "mode": "max", "significance": 0.5},
        {"kind": "spike", "window": 3},
        {"kind": "spike", "window": 2, "ratio": None, "sigma": 3.0},
        {"kind": "above", "value": 0.3, "in_a_row": 2},
        {"kind": "all_of", "of": [PLATEAUED, ABOVE, {"kind": "any_of", "of": [ABOVE, PLATEAUED]}]},
    ]
)


def predicate(**data: Any) -> Predicate:
    """Build a predicate, its lengths in steps."""
    return resolve(Predicate.parse(data), Clock(steps_per_epoch=10))


def restarted(state: PredicateState) -> PredicateState:
    """Write a state as JSON and read it back."""
    return PredicateState.parse(json.loads(json.dumps(state.model_dump())))


def holds(asked: Predicate, values: list[float], restarts: set[int] = frozenset()) -> list[bool]:
    """Feed values to a predicate, one a step from 0; return whether it held at each."""
    state, held = asked.init(), []
    for step, value in enumerate(values):
        if step in restarts:
            state = restarted(state)
        state, now, why = asked.observe(state, step, value)
        assert why or not now
        held.append(now)
    return held


def reasons(asked: Predicate, values: list[float]) -> str:
    """Feed values to a predicate; return what it says of the last one."""
    state, why = asked.init(), ""
    for step, value in enumerate(values):
        state, _, why = asked.observe(state, step, value)
    return why


@given(predicates, st.lists(metrics, max_size=60), st.sets(st.integers(0, 60)))
def test_a_restart_changes_no_answer(
    data: dict[str, Any], values: list[float], restarts: set[int]
) -> None:
    """With the state written as JSON and read back anywhere, every answer is the same."""
    asked = predicate(**data)
    assert holds(asked, values, restarts) == holds(asked, values)


@given(predicates, st.lists(st.floats(), max_size=60))
def test_any_floats_have_an_answer(data: dict[str, Any], values: list[float]) -> None:
    """NaN, infinities and the largest floats cause no exception and no warning."""
    assert len(holds(predicate(**data), values)) == len(values)


@pytest.mark.parametrize("data", EXAMPLES, ids=lambda data: data["kind"])
def test_every_predicate_is_data(data: dict[str, Any]) -> None:
    """Each example comes back from JSON as an equal predicate."""
    asked = Predicate.parse(data)
    assert Predicate.parse(json.loads(json.dumps(jsonable(asked)))) == asked


def test_a_misspelt_predicate_is_answered_with_the_right_name() -> None:
    """The error names the family and the nearest kind."""
    with pytest.raises(
        ValidationError, match=r"no such kind of predicate.*Did you mean 'plateaued'"
    ):
        Predicate.parse({"kind": "plateau"})


def test_plateaued_holds_after_more_than_patience_measurements() -> None:
    """With patience 2 it holds at the third measurement without improvement, as in torch."""
    assert holds(predicate(**PLATEAUED), [1.0, 1.0, 1.0, 1.0, 1.0]) == [False] * 3 + [True] * 2


def test_plateaued_starts_again_after_an_improvement() -> None:
    """The count starts over after an improvement."""
    values = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert holds(predicate(**PLATEAUED), values) == [False] * 6 + [True]


def test_plateaued_asks_for_better_values_below_zero_too() -> None:
    """The relative threshold has a sign, so a worse negative value is no improvement."""
    worse = [-1.0, -0.95, -0.9, -0.85]
    assert holds(predicate(**PLATEAUED, threshold=0.1), worse)[-1]
    better = [-1.0, -1.2, -1.4, -1.6]
    assert not any(holds(predicate(**PLATEAUED, threshold=0.1), better))


def test_plateaued_takes_no_infinity_for_the_best() -> None:
    """Later values are not compared with minus infinity, once seen; nor with NaN."""
    values = [1.0, -math.inf, math.nan, 0.9, 0.8]
    assert not any(holds(predicate(**PLATEAUED), values))


def test_plateaued_counts_values_that_are_no_numbers_as_bad() -> None:
    """A metric that is NaN from the start has not improved."""
    assert holds(predicate(**PLATEAUED), [math.nan] * 3) == [False, False, True]


def test_below_and_above_want_a_row_of_measurements() -> None:
    """`in_a_row` counts consecutive ones, and the bound itself is not beyond it."""
    below = predicate(kind="below", value=0.5, in_a_row=2)
    assert holds(below, [0.4, 0.5, 0.4, 0.3, 0.2]) == [False, False, False, True, True]
    above = predicate(kind="above", value=0.5)
    assert holds(above, [0.5, 0.6, math.inf, -math.inf]) == [False, True, True, False]


def test_nan_is_neither_below_nor_above() -> None:
    """NaN breaks a row on both sides."""
    for kind in ("below", "above"):
        assert holds(predicate(kind=kind, value=0.5), [math.nan]) == [False]
    below = predicate(kind="below", value=0.5, in_a_row=2)
    assert holds(below, [0.4, math.nan, 0.4]) == [False, False, False]


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=30))
def test_slope_has_the_p_value_of_scipy(values: list[float]) -> None:
    """At each measurement with a full window the answer is that of `linregress`."""
    held = holds(predicate(kind="slope", window=5), values)
    for end in range(5, len(values) + 1):
        window = values[end - 5 : end]
        if len(set(window)) > 2:  # two values make a tie of rounding errors in SciPy
            p = stats.linregress(range(5), window, alternative="less").pvalue
            if abs(p - 0.05) > 1e-6:
                assert held[end - 1] == (p >= 0.05)
    assert not any(held[:4])


def test_slope_of_a_constant_holds() -> None:
    """A constant does not fall."""
    assert holds(predicate(kind="slope", window=4), [0.1] * 4) == [False, False, False, True]


def test_slope_leaves_out_what_is_no_number() -> None:
    """NaN and infinities are not in the window, and it does not hold at them."""
    values = [4.0, math.nan, 3.0, math.inf, 2.0, 1.0]
    assert not any(holds(predicate(kind="slope", window=4), values))


def test_spike_holds_at_nan_first_of_all() -> None:
    """NaN is a spike, even as the first measurement."""
    for value in (math.nan, math.inf, -math.inf):
        assert holds(predicate(kind="spike"), [value]) == [True]


def test_spike_by_ratio_is_far_above_the_mean() -> None:
    """With ratio 2 a loss is a spike above twice the mean of the window, and not at it."""
    spike = predicate(kind="spike", window=3)
    assert holds(spike, [1.0, 1.0, 1.0, 2.0])[-1] is False
    assert holds(spike, [1.0, 1.0, 1.0, 2.1])[-1] is True
    assert holds(spike, [1.0, 1.0, 9.0])[-1] is False  # the window is not full


def test_spike_by_ratio_is_above_the_mean_below_zero_too() -> None:
    """A steady negative metric is no spike, one that jumps up is."""
    spike = predicate(kind="spike", window=3)
    assert holds(spike, [-1.0, -1.0, -1.0, -0.9, -1.1])[3:] == [False, False]
    assert holds(spike, [-1.0, -1.0, -1.0, 0.5])[-1] is True


def test_spike_by_sigma_needs_some_noise() -> None:
    """After constants the least rise is infinitely many deviations: the rule waits."""
    spike = predicate(kind="spike", window=3, ratio=None, sigma=3.0)
    assert holds(spike, [1.0, 1.0, 1.0, 1.1])[-1] is False
    assert holds(spike, [1.0, 1.1, 0.9, 1.2, 2.0])[3:] == [False, True]


def test_a_spike_does_not_enter_the_window() -> None:
    """The second of two spikes is as far above the mean as the first."""
    assert holds(predicate(kind="spike", window=3), [1.0, 1.0, 1.0, 9.0, 9.0])[3:] == [True, True]


def test_step_holds_from_the_first_measurement_there_or_later() -> None:
    """Lengths in epochs work; the step itself need not be measured."""
    asked = predicate(kind="step", at={"epochs": 1})
    state = asked.init()
    answers = [asked.observe(state, step, math.nan).holds for step in (0, 9, 10, 14)]
    assert answers == [False, False, True, True]


def test_by_hand_never_holds() -> None:
    """No measurement makes it hold."""
    assert not any(holds(predicate(kind="by_hand"), [1.0, math.nan, -math.inf]))


def test_any_of_holds_when_one_does() -> None:
    """Every part sees every measurement; the reason is that of the parts that hold."""
    asked = predicate(kind="any_of", of=[PLATEAUED, {"kind": "below", "value": 0.1}])
    assert holds(asked, [1.0, 0.05, 0.5, 0.5, 0.5]) == [False, True, False, False, True]
    assert reasons(asked, [1.0, 0.05]) == (
        "it was below 0.1 1 times in a row (now 0.05; asked for 1)"
    )


def test_all_of_holds_when_all_do_at_once() -> None:
    """A part that held earlier does not count; the reason names them all."""
    asked = predicate(kind="all_of", of=[PLATEAUED, {"kind": "below", "value": 0.6}])
    assert holds(asked, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]) == [False] * 7 + [True]
    assert reasons(asked, [0.5] * 4) == (
        "it has not improved on 0.5 in 3 measurements (now 0.5; patience 2) and"
        " it was below 0.6 4 times in a row (now 0.5; asked for 1)"
    )


def test_a_combination_of_nothing_is_refused() -> None:
    """`any_of` and `all_of` need a part."""
    with pytest.raises(ValidationError, match="Name a predicate"):
        predicate(kind="any_of", of=[])
