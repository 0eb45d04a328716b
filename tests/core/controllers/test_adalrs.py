"""AdaLRS: the paper's rule on losses whose slopes are known, and trainings that obey it."""

import json
import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.controllers.following import follow, train
from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, Sample, Verdict
from pacesetter_service.core.controllers.adalrs import AdaLrs, AdaLrsState
from pacesetter_service.core.decide import decide
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.limits import Limits
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from strategies import metrics

WINDOW = 5

parameters = st.fixed_dictionaries(
    {
        "window": st.integers(4, 8),
        "alpha": st.floats(1.1, 5),
        "beta": st.floats(1.1, 5),
        "decay": st.floats(0.5, 1),
        "errors": st.floats(0, 3),
        "backtrack": st.booleans(),
    }
)


def rule_of(**given: Any) -> AdaLrs:
    """Make a rule for a loss, with short windows."""
    return AdaLrs(metric="loss", **{"window": WINDOW, **given})


def lines(*slopes: float, start: float = 100.0) -> list[float]:
    """Return a loss that falls linearly within each window, by a given amount a measurement."""
    losses = [start]
    for slope in slopes:
        losses += [losses[-1] - slope * (each + 1) for each in range(WINDOW)]
    return losses[1:]


def changes(rule: AdaLrs, losses: list[float]) -> list[tuple[int, float, str | None]]:
    """Return the step, the level and the advice of each verdict, from a base of 1."""
    followed = follow(rule, losses, 1.0)
    return [
        (step, levels[""], verdict.advice)
        for step, (levels, verdict) in enumerate(
            zip(followed.levels, followed.verdicts, strict=True)
        )
        if verdict is not None
    ]


def test_a_trial_under_which_the_loss_falls_faster_is_kept() -> None:
    """The descent slows, three times the level is tried, and it falls faster: there it stays."""
    assert changes(rule_of(), lines(2.0, 1.0, 3.0)) == [(9, 3.0, "checkpoint")]


def test_the_next_trial_starts_from_what_was_kept() -> None:
    """After a trial that was kept the next one multiplies again, by a factor that has decayed."""
    found = changes(rule_of(decay=0.9), lines(2.0, 1.0, 3.0, 2.5, 4.0))
    assert found == [(9, 3.0, "checkpoint"), (19, 3.0 * (0.9 * 3.0), "checkpoint")]


def test_a_trial_under_which_it_falls_slower_fails_and_is_taken_back() -> None:
    """Half the level before the trial follows, and the trainer goes back to the trial's start."""
    followed = follow(rule_of(), lines(2.0, 1.0, 0.5), 1.0)
    assert followed.rates[-1] == 0.5
    tried, failed = followed.said
    assert (tried.advice, failed.advice) == ("checkpoint", "roll_back")
    assert failed.good_step == 0  # `follow` seals nothing: all verdicts hold from step 0


def test_a_trial_that_makes_no_difference_is_over_without_a_trace() -> None:
    """Equal slopes are neither faster nor slower: the old level returns, without a roll-back."""
    assert changes(rule_of(), lines(2.0, 1.0, 1.0)) == [(9, 3.0, "checkpoint"), (14, 1.0, None)]


def test_a_descent_that_does_not_slow_is_left_alone() -> None:
    """A loss that falls as fast as before, or faster, asks for no trial."""
    assert changes(rule_of(), lines(1.0, 1.0, 1.0, 2.0, 3.0)) == []


def test_a_difference_within_the_errors_of_the_slopes_is_none() -> None:
    """A faster trial is kept only if it is faster by more than both standard errors."""
    noise = np.array([1.0, -1.0, 0.0, 1.0, -1.0])  # moves no slope by much, and has an error
    losses = np.array(lines(2.0, 1.0, 1.2)) + np.tile(noise, 3)
    assert changes(rule_of(), losses.tolist())[-1][1] == 1.0
    assert changes(rule_of(errors=0.0), losses.tolist()) == [(9, 3.0, "checkpoint")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9])
def test_a_trial_fails_at_once_where_the_loss_blows_up(value: float) -> None:
    """A value that is not finite, or the highest so far, ends a trial before its window is full."""
    assert changes(rule_of(), [*lines(2.0, 1.0), value]) == [
        (9, 3.0, "checkpoint"),
        (10, 0.5, "roll_back"),
    ]


def test_outside_a_trial_what_is_not_finite_is_left_out() -> None:
    """NaN and infinities are in no window; a high loss is in its own."""
    losses = lines(2.0, 1.0, 3.0)
    for value in (math.nan, math.inf):
        assert changes(rule_of(), [losses[0], value, *losses[1:]]) == [(10, 3.0, "checkpoint")]


def test_a_loss_that_rises_twice_is_cut_without_a_trial() -> None:
    """Two rising windows in a row halve the level; one alone does nothing."""
    assert changes(rule_of(), lines(1.0, -1.0, 1.0)) == []
    assert changes(rule_of(), lines(1.0, -1.0, -1.0)) == [(14, 0.5, None)]


def test_without_backtracking_nothing_is_told() -> None:
    """The levels are the same, and the trainer is told nothing."""
    told = changes(rule_of(backtrack=False), lines(2.0, 1.0, 0.5))
    assert told == [(9, 3.0, None), (14, 0.5, None)]


def test_no_trial_begins_that_would_not_be_over_in_time() -> None:
    """With `until_step` 15 a trial of five steps can begin at step 10, with 14 it cannot."""
    session, _ = train(
        {"controllers": [{**WATCH, "until_step": 15}], "base_lr": 1.0}, lines(2.0, 1.0, 3.0)
    )
    assert session.control.notices[-1].code == "checkpoint"
    session, rates = train(
        {"controllers": [{**WATCH, "until_step": 14}], "base_lr": 1.0}, lines(2.0, 1.0, 3.0)
    )
    assert session.control.notices == ()
    assert rates == [[1.0]] * 15


WATCH = {"kind": "adalrs", "metric": "loss", "window": WINDOW}


def test_a_session_tries_and_takes_back_at_the_steps_that_it_names() -> None:
    """The trial holds from the next step, and `roll_back` names that very step."""
    session, rates = train({"controllers": [WATCH], "base_lr": 1.0}, [*lines(2.0, 1.0, 0.5), 50.0])
    assert [rate for [rate] in rates] == [1.0] * 10 + [3.0] * 5 + [0.5]
    checkpoint, roll_back = session.control.notices
    assert (checkpoint.code, checkpoint.step) == ("checkpoint", 10)
    assert (roll_back.code, roll_back.step, roll_back.good_step) == ("roll_back", 15, 10)


def test_what_was_measured_at_another_level_is_not_counted() -> None:
    """Measurements of steps that were sealed before the trial do not enter its window."""
    rule = rule_of()
    state, levels = rule.init(), {"": 1.0}
    at = 20
    for step, value in enumerate(lines(2.0, 1.0)):
        seen = rule.observe(state, Sample("loss", step, value, levels, {"": 1.0}, at=at))
        state = seen.state
    assert isinstance(state, AdaLrsState)
    assert state.trial is not None
    for step in range(10, 20):
        state = rule.observe(state, Sample("loss", step, 5.0, {"": 3.0}, {"": 1.0}, at)).state
        assert isinstance(state, AdaLrsState)
        assert state.losses == ()


def test_limits_bound_a_trial_and_no_room_means_no_trial() -> None:
    """A trial goes as far as the session's limits allow, returns from there, and needs room."""
    losses = lines(2.0, 1.0, 1.0)
    assert [level for _, level, _ in changes(rule_of(max_lr=2.0), losses)] == [2.0, 1.0]
    assert changes(rule_of(max_lr=1.0), losses) == []
    rule, state = rule_of(), rule_of().init()
    for step, value in enumerate(losses[:10]):
        seen = Sample("loss", step, value, {"": 1.0}, {"": 1.0}, 0, Limits(max_change=1.5))
        state, verdict = (now := rule.observe(state, seen)).state, now.verdict
    assert verdict is not None
    assert verdict.levels == {"": 1.5}


def test_a_floor_stops_the_search_below_it() -> None:
    """No failure and no cut goes below `min_lr`, and a level that is already below stays."""
    assert changes(rule_of(min_lr=0.8), lines(2.0, 1.0, 0.5))[-1][1] == 0.8
    low = follow(rule_of(min_lr=0.8), lines(2.0, 1.0, 0.5), 0.3)
    assert low.rates[-1] == 0.3


def test_an_operator_who_scales_during_a_trial_is_not_overruled() -> None:
    """A trial that is over keeps what an operator has made of the level meanwhile."""
    rule, state, levels = rule_of(), rule_of().init(), {"": 1.0}
    verdict: Verdict | None = None
    for step, value in enumerate(lines(2.0, 1.0, 1.0)):
        if step == 12:
            levels = {"": levels[""] * 0.5}
        now = rule.observe(state, Sample("loss", step, value, levels, {"": 1.0}))
        state, verdict = now.state, now.verdict
        levels = levels | dict(verdict.levels if verdict else {})
    assert levels == {"": 0.5}


@pytest.mark.parametrize("ending", [[1e9], lines(2.0, 1.0, 0.5)[10:]])
@pytest.mark.parametrize(
    "order",
    [
        {"kind": "set", "lr": 0.0001},
        {"kind": "set", "lr": 1.0},
        {"kind": "cooldown", "steps": 10},
        {"kind": "replace", "schedule": "constant"},
    ],
)
def test_a_rate_that_an_operator_sets_during_a_trial_is_left_alone(
    order: dict[str, Any], ending: list[float]
) -> None:
    """An order that drops the controllers' level ends the trial: no cut, and no roll-back."""
    tried, _ = train({"controllers": [WATCH], "base_lr": 1.0}, lines(2.0, 1.0))
    ordered = decide(tried, Act(Action.parse(order))).events
    session = evolve_all(tried, ordered)
    session = evolve_all(session, decide(session, Seal(10, 1)).events)
    expected = session.timelines["lr"].values(11, 50).tolist()
    for step, value in enumerate(ending, start=10):
        session = evolve_all(session, decide(session, Seal(step, 1)).events)
        report = Report((Reading(0, step, "loss", value),))
        session = evolve_all(session, decide(session, report).events)
    session = evolve_all(session, decide(session, Seal(10 + len(ending), 1)).events)
    [state] = session.control.states
    assert isinstance(state, AdaLrsState)
    assert state.trial is None
    assert "roll_back" not in [notice.code for notice in session.control.notices]
    assert session.timelines["lr"].since(11).values(11, 50).tolist() == expected


def test_groups_that_no_operator_touched_go_back_when_another_is_set() -> None:
    """An order for one group ends the trial of all: the others return to the level before it."""
    rule, state = rule_of(), rule_of().init()
    levels, bases = {"body": 1.0, "head": 1.0}, {"body": 1.0, "head": 1.0}
    said = []
    for step, value in enumerate(lines(2.0, 1.0, 1.0)):
        if step == 12:
            levels, bases = levels | {"head": 0.2}, bases | {"head": 0.2}
        now = rule.observe(state, Sample("loss", step, value, levels, bases))
        state = now.state
        if now.verdict is not None:
            said.append((step, now.verdict.advice))
            levels = levels | dict(now.verdict.levels)
    assert levels == {"body": 1.0, "head": 0.2}
    assert said == [(9, "checkpoint"), (12, None)]


@pytest.mark.parametrize("spacing", [1, 2, 7, 100])
def test_no_trial_outlives_the_search(spacing: int) -> None:
    """If measurements grow rare, the level before a trial is back when the search is over."""
    rule, state, levels = rule_of(until_step=20), rule_of().init(), {"": 1.0}
    steps = [*range(10), *range(10, 130, spacing)]
    for step, value in zip(steps, [*lines(2.0, 1.0), *[90.0] * 130], strict=False):
        if not rule.is_awake(step) and not rule.is_open(state):
            break
        now = rule.observe(state, Sample("loss", step, value, levels, {"": 1.0}, step + 1))
        assert isinstance(now.state, AdaLrsState)
        state = now.state
        levels = levels | dict(now.verdict.levels if now.verdict else {})
    assert state.trial is None
    assert levels[""] < 3.0
    if spacing == 2:
        assert levels == {"": 0.5}  # five of them came in time, and the trial was judged
    if spacing > 2:
        assert levels == {"": 1.0}


def test_a_session_ends_a_trial_behind_the_search() -> None:
    """A measurement from `until_step` on ends an open trial, and no other one follows."""
    losses: list[float | None] = [*lines(2.0, 1.0), 90.0, *[None] * 6, 89.0, 88.0, 87.0]
    session = create(
        SessionSpec.model_validate(
            {"name": "rare", "base_lr": 1.0, "controllers": [{**WATCH, "until_step": 16}]}
        )
    )
    for step, value in enumerate(losses):
        session = evolve_all(session, decide(session, Seal(step, 1)).events)
        if value is not None:
            report = Report((Reading(0, step, "loss", value),))
            session = evolve_all(session, decide(session, report).events)
    [state] = session.control.states
    assert isinstance(state, AdaLrsState)
    assert state.trial is None
    assert state.losses == ()
    assert session.timelines["lr"].value(len(losses)) == 1.0


def test_a_trial_survives_json_to_the_bit() -> None:
    """A state with a trial and its bases is the same after it was written and read."""
    state = follow(rule_of(), lines(2.0, 1.0), {"body": 0.1, "head": 1 / 3}).state
    assert isinstance(state, AdaLrsState)
    assert state.trial is not None
    assert state.trial.bases == {"body": 0.1, "head": 1 / 3}
    assert AdaLrsState.model_validate_json(json.dumps(jsonable(state))) == state


@given(parameters, st.lists(metrics, min_size=1, max_size=80), st.data())
def test_a_restart_changes_nothing(
    given: dict[str, Any], values: list[float], data: st.DataObject
) -> None:
    """A state that went through JSON goes on to the same bits, whatever was measured."""
    at = data.draw(st.integers(0, len(values)))
    rule = rule_of(**given)
    assert follow(rule, values, 0.1, at).rates == follow(rule, values).rates


@given(parameters, st.lists(metrics, min_size=1, max_size=80))
def test_a_level_stays_between_its_bounds(given: dict[str, Any], values: list[float]) -> None:
    """No measurement moves a level out of `min_lr` to `max_lr`."""
    rule = rule_of(min_lr=0.05, max_lr=0.4, **given)
    assert all(0.05 <= rate <= 0.4 for rate in follow(rule, values).rates)


@given(parameters, st.lists(st.floats(0.1, 10), min_size=1, max_size=120))
def test_every_change_is_by_one_of_the_two_factors(
    given: dict[str, Any], values: list[float]
) -> None:
    """A level rises by at most alpha, and falls at most to what its trial began from, cut."""
    rates = [0.1, *follow(rule_of(**given), values).rates]
    for before, after in pairwise(rates):
        assert after <= before * given["alpha"] * (1 + 1e-12)
        assert after >= before / given["alpha"] / given["beta"] * (1 - 1e-12)


@given(st.lists(st.floats(0.1, 10), min_size=400, max_size=400))
def test_the_search_comes_to_rest(values: list[float]) -> None:
    """Once both factors have decayed to 1 nothing changes: after ln(3) / ln(2), so two, tries."""
    rule = rule_of(window=4, decay=0.5)
    assert len(follow(rule, values).said) <= 4
    assert len(set(follow(rule, values).rates[-100:])) == 1


def test_decisions_say_why() -> None:
    """They name the two speeds, the factor, and the step to go back to."""
    tried, failed = follow(rule_of(), lines(2.0, 1.0, 0.5), 1.0).said
    assert tried.reason == (
        "loss falls by 1 a measurement, and fell by 2 in the window before: 3 times the level is"
        " tried over 5 measurements"
    )
    assert failed.reason.startswith(
        "loss falls by 0.5 a measurement under trial, and fell by 1 before it (errors "
    )
    assert failed.reason.endswith(
        "): the trial has failed, and 0.5 times the level before it follows; go back to weights"
        " from before step 0's update"
    )
    [blown] = follow(rule_of(), [*lines(2.0, 1.0), math.nan], 1.0).said[1:]
    assert blown.reason.startswith("loss nan at step 10 is not finite: the trial has failed")


def test_groups_move_together_and_a_base_of_zero_stays() -> None:
    """All groups change by the same factor; a search cannot start from 0."""
    bases = {"frozen": 0.0, "body": 0.1, "head": 1.0}
    levels = follow(rule_of(), lines(2.0, 1.0, 3.0), bases).levels[-1]
    assert levels == {"frozen": 0.0, "body": 0.1 * 3.0, "head": 3.0}


class Regression(NamedTuple):
    """The result of a regression: its loss above the noise, and the level."""

    excess: float
    level: float


def regression(base: float, rule: AdaLrs | None, seed: int) -> Regression:
    """Train a linear regression, its spectrum a power law, for 3,000 steps of 64 samples each.

    From 80 % of the steps on the rate falls linearly to 0. Where the notices say so, the trainer
    saves its weights and goes back to them.
    """
    chance = np.random.default_rng(seed)
    spectrum = np.arange(1.0, 101.0) ** -1.3
    target = chance.choice([-1.0, 1.0], 100) * np.arange(1.0, 101.0) ** -0.3
    weights, kept, level = np.zeros(100), np.zeros(100), base
    state = rule.init() if rule else None
    for step in range(3_000):
        x = chance.normal(size=(64, 100)) * np.sqrt(spectrum)
        residual = x @ (weights - target) + 0.3 * chance.normal(size=64)
        weights = weights - level * min(1.0, (3_000 - step) / 600) * (x.T @ residual / 64)
        if rule is None or state is None or not rule.is_awake(step):
            continue
        loss = float(np.mean(residual**2) / 2)
        now = rule.observe(state, Sample("loss", step, loss, {"": level}, {"": base}, step + 1))
        state = now.state
        if now.verdict is not None:
            level = now.verdict.levels.get("", level)
            kept = weights.copy() if now.verdict.advice == "checkpoint" else kept
            weights = kept.copy() if now.verdict.advice == "roll_back" else weights
    return Regression(float(np.sum(spectrum * (weights - target) ** 2) / 2), level)


SEARCH = AdaLrs(metric="loss", window=80, from_step=300, until_step=2100)


def test_a_base_that_is_far_too_low_is_raised_and_the_training_ends_lower() -> None:
    """From a base 30 times too low each run ends lower, and half of them by more than 80 %."""
    found = [regression(0.01, SEARCH, seed) for seed in range(3)]
    ratios = [run.excess / regression(0.01, None, seed).excess for seed, run in enumerate(found)]
    assert max(ratios) < 0.9
    assert sorted(ratios)[1] < 0.2
    assert sum(run.level > 0.01 for run in found) >= 2


def test_the_search_is_no_substitute_for_a_good_base() -> None:
    """With the best base from the start, the final loss is a tenth of that after a search."""
    assert 10 * regression(0.3, None, 0).excess < regression(0.01, SEARCH, 0).excess


def test_windows_that_are_too_short_for_the_noise_do_harm() -> None:
    """At the best base, slopes of 40 noisy losses mislead: the final loss is ten times higher."""
    short = AdaLrs(metric="loss", window=40, errors=0.5, from_step=300, until_step=2100)
    assert regression(0.3, short, 0).excess > 10 * regression(0.3, None, 0).excess


def test_on_a_task_that_is_soon_over_the_search_lowers_a_good_rate() -> None:
    """Where each window halves the loss, every trial looks like a failure, and the level falls."""
    losses = [math.exp(-0.2 * step) for step in range(400)]  # as if no rate made a difference
    assert follow(rule_of(window=10), losses, 1.0).rates[-1] < 0.01


@pytest.mark.parametrize(
    "given", [{"alpha": 1.0}, {"beta": 1.0}, {"decay": 1.1}, {"min_lr": 2.0, "max_lr": 1.0}]
)
def test_what_can_not_be_meant_is_refused(given: dict[str, Any]) -> None:
    """Both factors must be above 1 and decay, and there must be room between the bounds."""
    with pytest.raises(ValidationError):
        Controller.parse({"kind": "adalrs", "metric": "loss", **given})
