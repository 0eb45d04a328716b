"""The greedy rule: the preset has the bits of transformers' GreedyLR, ours avoids its traps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers.optimization import GreedyLR as Theirs

from core.controllers.following import follow, train
from pacesetter_service.catalogue.hf import GreedyLR, GreedyLRState
from pacesetter_service.core.controllers import Controller, Sample
from pacesetter_service.core.controllers.greedy import Greedy, GreedyState
from strategies import metrics

GROUPS = {"body": 0.1, "head": 1e-3}

bounds = st.fixed_dictionaries({}, optional={group: st.floats(1e-9, 2e-3) for group in GROUPS})


def falling(falls: Sequence[float]) -> list[float]:
    """Return values that fall, or stay, from 1 on."""
    return [float(value) for value in 1.0 - np.cumsum(falls)]


streams = st.one_of(
    st.lists(metrics, min_size=1, max_size=80),
    st.lists(st.floats(0, 1e-2), min_size=1, max_size=80).map(falling),
)

theirs = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.floats(0.05, 0.99),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-6, 0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "warmup": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 1e-7, 1e-3]) | bounds,
        "max_lr": st.sampled_from([0.05, 1.0]),
        "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
        "smooth": st.booleans(),
        "window_size": st.integers(1, 5),
        "reset_start": st.integers(0, 4),
    }
)


def of_transformers(
    values: Sequence[float], bases: Mapping[str, float], **parameters: Any
) -> list[list[float]]:
    """Return the rate of each group after each value, as the library computes it."""
    weights = {group: torch.nn.Parameter(torch.zeros(1)) for group in bases}
    trained = torch.optim.SGD(
        [{"params": [weight], "lr": bases[group]} for group, weight in weights.items()]
    )
    for name, default in (("min_lr", 1e-3), ("max_lr", 1.0)):
        if isinstance(parameters.get(name), dict):
            parameters[name] = [parameters[name].get(group, default) for group in bases]
    scheduler = Theirs(trained, **parameters)
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append([float(group["lr"]) for group in trained.param_groups])
    return rates


def of_preset(
    values: Sequence[float], bases: Mapping[str, float], **parameters: Any
) -> list[list[float]]:
    """Return the rate of each group after each value, as the preset computes it."""
    followed = follow(GreedyLR(metric="loss", **parameters), values, bases)
    return [list(levels.values()) for levels in followed.levels]


@given(theirs, streams)
def test_any_metrics_give_the_bits_of_transformers(
    parameters: dict[str, Any], values: list[float]
) -> None:
    """Every rate of every group is the library's, through NaN, infinities and resets."""
    expected = of_transformers(values, GROUPS, **parameters)
    assert of_preset(values, GROUPS, **parameters) == expected


def stream(random: np.random.Generator) -> list[float]:
    """Return a typical stream: a falling, constant, wandering or broken loss."""
    steps = np.arange(150)
    noise = random.normal(size=150) * random.choice([0.0, 1e-7, 0.01, 0.3])
    shape = random.choice(["falling", "constant", "wandering", "below zero"])
    loss = {
        "falling": 2.0 * np.exp(-steps / random.integers(10, 200)),
        "constant": np.full(150, 0.7),
        "wandering": np.cumsum(random.normal(size=150)),
        "below zero": -steps / 50,
    }[str(shape)]
    values = loss + noise
    broken = random.random(150) < random.choice([0.0, 0.0, 0.02])
    values[broken] = random.choice([math.nan, math.inf, -math.inf], size=int(broken.sum()))
    return [float(value) for value in values]


def test_two_thousand_trainings_go_as_with_transformers() -> None:
    """Long streams of many shapes, half of them with the library's defaults, give its bits."""
    random = np.random.default_rng(20251212)
    for trial in range(2000):
        values, parameters = stream(random), {}
        if trial % 2:
            parameters = {
                "factor": float(random.uniform(0.3, 0.99)),
                "patience": int(random.integers(0, 6)),
                "cooldown": int(random.integers(0, 4)),
                "warmup": int(random.integers(0, 4)),
                "min_lr": float(10.0 ** random.uniform(-8, -3)),
                "smooth": bool(random.integers(2)),
                "window_size": int(random.integers(1, 20)),
                "reset_start": int(random.integers(1, 6)),
            }
        bases = {"": float(10.0 ** random.uniform(-5, 0))}
        expected = of_transformers(values, bases, **parameters)
        assert of_preset(values, bases, **parameters) == expected, (trial, parameters)


@given(theirs, st.lists(metrics, min_size=1, max_size=30))
def test_a_session_seals_the_bits_of_transformers(
    parameters: dict[str, Any], values: list[float]
) -> None:
    """A trainer that asks and reports in turn gets the library's rates, group by group."""
    spec = {
        "base_lr": None,
        "groups": {group: {"base_lr": base} for group, base in GROUPS.items()},
        "controllers": [{"kind": "hf.GreedyLR", "metric": "eval_loss", **parameters}],
    }
    _, rates = train(spec, values)
    assert rates == [list(GROUPS.values()), *of_transformers(values, GROUPS, **parameters)][:-1]


def test_the_preset_has_the_defaults_of_transformers() -> None:
    """An omitted parameter has the library's value."""
    scheduler = Theirs(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    ours = GreedyLR(metric="loss").model_dump(exclude={"kind", "metric", "from_step", "until_step"})
    bounds = {"min_lr": scheduler.min_lrs[0], "max_lr": scheduler.max_lrs[0]}
    assert ours == {name: getattr(scheduler, name, None) for name in ours} | bounds


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"kind": "hf.GreedyLR", "min_lr": 0.1, "max_lr": 0.01}, "above its `max_lr`"),
        ({"kind": "hf.GreedyLR", "min_lr": [0.1, 0.2]}, "an object with one for each group"),
        ({"kind": "hf.GreedyLR", "threshold_mode": "rel", "threshold": 1.0}, "give a ratio"),
        ({"kind": "greedy", "min_ratio": 2.0}, "a part of the base, above 0 and at most 1"),
        ({"kind": "greedy", "min_ratio": {"head": 0.0}}, "above 0 and at most 1"),
        ({"kind": "greedy", "max_ratio": 0.5}, "a multiple of the base, at least 1"),
        ({"kind": "greedy", "min_lr": 1e-3}, "give `min_ratio`, or `min_lr` in the session's"),
        ({"kind": "greedy", "smooth": True}, "Give the metric a `smoothing`"),
        ({"kind": "greedy", "reset_start": 500}, "Give `reset_after`"),
        ({"kind": "greedy", "threshold_mode": "rel"}, "signed_rel"),
        ({"kind": "greedy", "factor": 1.0}, "less than 1"),
    ],
)
def test_what_can_not_be_meant_is_refused(spec: dict[str, Any], says: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(ValidationError, match=says):
        Controller.parse({"metric": "loss", **spec})


def greedy(**parameters: Any) -> Greedy:
    """Return our own rule, quick to decide by default."""
    return Greedy(metric="loss", **{"patience": 0, "factor": 0.5, **parameters})


ours = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.floats(0.05, 0.99),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-6, 0.1]),
        "threshold_mode": st.sampled_from(["abs", "signed_rel"]),
        "cooldown": st.integers(0, 3),
        "warmup": st.integers(0, 3),
        "min_ratio": st.floats(1e-6, 1),
        "max_ratio": st.floats(1, 1e6),
        "reset_after": st.none() | st.integers(1, 20),
    }
)


@given(ours, streams)
def test_every_level_stays_between_the_bounds(
    parameters: dict[str, Any], values: list[float]
) -> None:
    """Whatever is measured, a level stays between the two ratios of its base."""
    rule = greedy(**parameters)
    assert isinstance(rule.min_ratio, float)
    assert isinstance(rule.max_ratio, float)
    for levels in follow(rule, values, GROUPS).levels:
        for group, level in levels.items():
            base = GROUPS[group]
            assert base * rule.min_ratio <= level <= base * rule.max_ratio


@given(ours, streams)
def test_nothing_that_is_not_finite_becomes_the_best(
    parameters: dict[str, Any], values: list[float]
) -> None:
    """The best is always one of the finite values, or not set."""
    rule = greedy(**parameters)
    state = follow(rule, values).state
    assert isinstance(state, GreedyState)
    assert state.best in [rule.improvement.worst, *filter(math.isfinite, values)]


@given(st.sampled_from(["ours", "theirs"]), st.data())
def test_a_restart_changes_nothing(whose: str, data: st.DataObject) -> None:
    """A state that went through JSON goes on to the same bits."""
    values = data.draw(streams)
    rule: Controller
    if whose == "ours":
        rule = greedy(**data.draw(ours))
    else:
        rule = GreedyLR(metric="loss", **data.draw(theirs))
    at = data.draw(st.integers(0, len(values)))
    assert follow(rule, values, GROUPS, at).levels == follow(rule, values, GROUPS).levels


def test_new_bests_in_a_row_raise_and_others_cut() -> None:
    """More than `patience` of either kind, without one of the other kind between them, decide."""
    rule = greedy(patience=1, max_ratio=2.0, min_ratio=0.25)
    rates = follow(rule, [5, 4, 3, 2, 2, 2, 2, 2, 2, 1, 2, 0.5, 2], 1.0).rates
    assert rates == [1, 2, 2, 2, 2, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_a_rate_below_the_librarys_floor_is_never_cut_there_and_is_cut_here() -> None:
    """5e-5 below a `min_lr` of 1e-3 only climbs; a floor relative to the base lets it fall."""
    worse, better = [1.0] * 2000, falling([1e-3] * 600)
    assert set(of_preset(worse, {"": 5e-5}, reset_start=10_000)[-1]) == {5e-5}
    [climbed] = of_preset(better, {"": 5e-5})[-1]
    assert climbed > 7e-4
    assert follow(Greedy(metric="loss", reset_after=None), worse, 5e-5).rates[-1] == 5e-5 * 0.01


def test_the_preset_says_once_that_it_can_not_cut() -> None:
    """The trainer is told of the first cut below `min_lr`, with both numbers."""
    [told] = follow(GreedyLR(metric="loss"), [1.0] * 200, 5e-5).said
    assert told.advice == "at_floor"
    assert told.levels == {}
    assert "every rate is at or below its min_lr (0.001)" in told.reason


def test_one_nan_spoils_the_librarys_smoothing_and_not_ours() -> None:
    """A running sum that has seen NaN stays NaN; a metric's smoothing leaves it out."""
    values = [1.0, math.nan, *falling([0.01] * 60)]
    smooth = {"min_lr": 1e-6, "smooth": True, "window_size": 3, "patience": 2}
    spoilt = follow(GreedyLR(metric="loss", **smooth), values)
    assert isinstance(spoilt.state, GreedyLRState)
    assert math.isnan(spoilt.state.total)
    assert all(
        after <= before for before, after in zip(spoilt.rates, spoilt.rates[1:], strict=False)
    )
    spec = {
        "metrics": {"loss": {"smoothing": {"kind": "mean", "window": 3}}},
        "controllers": [{"kind": "greedy", "metric": "loss", "patience": 2}],
    }
    _, rates = train(spec, values)
    assert rates[-1][0] > 0.1


def test_a_small_rate_stops_short_of_the_librarys_floor_and_reaches_ours() -> None:
    """With `eps` 1e-8 no rate below 2e-7 changes, so there is no floor and no reset."""
    worse = [1.0] * 3000
    rule = GreedyLR(metric="loss", min_lr=1e-7, patience=0, reset_start=3)
    assert 1e-7 < follow(rule, worse, 1e-6).rates[-1] < 2.1e-7
    ours = follow(greedy(factor=0.95, min_ratio=0.1, reset_after=100), worse, 1e-6).rates
    assert min(ours) == 1e-6 * 0.1
    assert ours.count(1e-6) > 1


def test_an_infinite_best_is_unbeatable_there_and_no_best_here() -> None:
    """After one -inf every value is bad for the library; our rule ignores -inf."""
    values = [-math.inf, *falling([0.01] * 20)]
    assert follow(GreedyLR(metric="loss", patience=2, min_lr=1e-6), values).rates[-1] < 0.1
    assert follow(greedy(patience=2), values).rates[-1] > 0.1


def test_the_best_is_known_during_a_rest() -> None:
    """Later values are compared with a low one of the cooldown, which the library forgets."""
    values = [1.0, 1.0, 0.1, 0.1, 0.5]
    assert follow(greedy(cooldown=2), values, 1.0).rates == [2, 1, 1, 1, 0.5]
    theirs = GreedyLR(metric="loss", patience=0, factor=0.5, cooldown=2, max_lr=2.0)
    assert follow(theirs, values, 1.0).rates == [2, 1, 1, 1, 2]


def test_worse_values_below_zero_are_not_better() -> None:
    """A relative threshold of a negative best requires more, not less."""
    values = [-1.0, -0.95, -0.9, -0.88]
    relative = {"threshold": 0.1, "patience": 0, "factor": 0.5}
    library = GreedyLR(metric="reward", threshold_mode="rel", max_lr=100.0, **relative)
    assert follow(library, values, 1.0).rates == [2, 4, 8, 16]
    rule = greedy(threshold_mode="signed_rel", **relative)
    assert follow(rule, values, 1.0).rates == [2, 1, 0.5, 0.25]


def test_reset_after_counts_measurements_and_reset_start_cuts() -> None:
    """With a patience of 4 the library waits five measurements for each count of its reset."""
    worse = [1.0] * 40
    rule = greedy(patience=4, min_ratio=0.5, max_ratio=1.0, reset_after=8)
    ours = follow(rule, worse).rates
    assert ours[:14] == [0.1] * 5 + [0.05] * 8 + [0.1]
    library = GreedyLR(
        metric="loss", patience=4, factor=0.5, min_lr=0.05, max_lr=0.1, reset_start=3
    )
    assert follow(library, worse).rates[:16] == [0.1] * 5 + [0.05] * 10 + [0.1]


def test_a_reset_waits_for_every_group_and_gives_each_its_base() -> None:
    """While one group is above its floor the count does not begin; then all start anew."""
    rule = greedy(min_ratio={"body": 0.5, "head": 0.125}, max_ratio={"body": 1.0, "head": 1.0})
    rule = rule.model_copy(update={"reset_after": 3})
    levels = follow(rule, [1.0] * 8, {"body": 1.0, "head": 8.0}).levels
    assert [each["body"] for each in levels] == [1, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1]
    assert [each["head"] for each in levels] == [8, 4, 2, 1, 1, 1, 8, 8]


def test_a_new_best_at_the_floor_puts_the_reset_off() -> None:
    """Only consecutive measurements without a new best count."""
    values = [1.0, 1.0, 1.0, 0.9, *[1.0] * 4]
    rule = greedy(patience=1, min_ratio=0.5, reset_after=3)
    assert follow(rule, values, 1.0).rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 1, 1]


def test_a_level_a_bit_off_its_floor_is_at_it() -> None:
    """An operator's scale may round the floor up by a bit: it is neither cut nor blocks a reset."""
    rule = greedy(min_ratio=0.1, reset_after=1)
    floor = math.nextafter(0.2 * 0.1, 1.0)
    seen = Sample("loss", 5, 2.0, {"": floor}, {"": 0.2})
    verdict = rule.observe(GreedyState(best=1.0), seen).verdict
    assert verdict is not None
    assert verdict.levels == {"": 0.2}


def test_a_group_with_a_base_of_zero_stays_there() -> None:
    """Neither a raise nor a cut moves a frozen group, and it does not block another's reset."""
    bases = {"frozen": 0.0, "head": 1.0}
    values = [3.0, 2.0, *[4.0] * 10]
    levels = follow(greedy(min_ratio=0.5, reset_after=2), values, bases).levels
    assert {each["frozen"] for each in levels} == {0.0}
    assert [each["head"] for each in levels] == [2, 4, 2, 1, 0.5, 0.5, 1, 2, 1, 0.5, 0.5, 1]


def test_a_level_near_the_largest_number_does_not_overflow() -> None:
    """A raise stops at the largest finite number."""
    rates = follow(greedy(max_ratio=1e9), [3.0, 2.0, 1.0], 1e308).rates
    assert all(map(math.isfinite, rates))


def test_decisions_say_why() -> None:
    """A reason has the metric, the values, the counts and the change; the floor is reported."""
    rule = greedy(max_ratio=1.0, min_ratio=0.5, reset_after=2)
    down, back = follow(rule, [0.5, 0.7, 0.6, 0.6], 1.0).said
    assert down.reason == (
        "loss has not improved on 0.5 in 1 measurements (now 0.7; patience 0): multiplied by 0.5,"
        " and now at the floor"
    )
    assert down.advice == "at_floor"
    assert back.reason == (
        "loss has not improved on 0.5 in 2 measurements with every level at its floor (now 0.6;"
        " reset_after 2): back to the base"
    )
    [up] = follow(greedy(patience=1), [0.5, 0.4]).said
    assert up.reason == (
        "loss has been a new best 2 times in a row (now 0.4; patience 1): divided by 0.5"
    )


def test_nothing_but_nan_is_said_to_be_no_value() -> None:
    """Before any finite value there is no best to mention."""
    [cut] = follow(greedy(), [math.nan], 1.0).said
    assert cut.reason.startswith("loss has shown no value in 1 measurements (now nan; patience 0)")
