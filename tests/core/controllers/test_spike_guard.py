"""The spike guard: what counts as a spike, what follows from one, and a training that it saves."""

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.closed_loop import Loop, session
from pacesetter_service.core.actions import Scale
from pacesetter_service.core.commands import Act, Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, Observation, Sample, Verdict
from pacesetter_service.core.controllers.spike_guard import SpikeGuard, SpikeGuardState
from pacesetter_service.core.notices import Notice
from strategies import metrics

CALM = [1.0, 1.1, 0.9, 1.0]


def guard(**spec: Any) -> SpikeGuard:
    """Return a guard with a short window and a short cooldown."""
    return SpikeGuard.model_validate(
        {"metric": "loss", "window": 4, "min_window": 4, "cooldown": 2, "rewarm": 5, **spec}
    )


def watch(
    rule: SpikeGuard, values: list[float]
) -> Iterator[tuple[SpikeGuardState, Verdict | None]]:
    """Feed values of consecutive steps to a guard of two groups, whose levels follow it."""
    state: Any = rule.init()
    levels = {"body": 0.1, "head": 1.0}
    for step, value in enumerate(values):
        seen = Sample("loss", step, value, dict(levels), {"body": 0.1, "head": 1.0})
        observation: Observation = rule.observe(state, seen)
        state = observation.state
        if observation.verdict is not None:
            levels |= observation.verdict.levels
        yield state, observation.verdict


def answers(rule: SpikeGuard, values: list[float]) -> dict[int, str | None]:
    """Return the steps at which a guard gave advice, and the advice."""
    verdicts = [verdict for _, verdict in watch(rule, values)]
    return {step: each.advice for step, each in enumerate(verdicts) if each is not None}


# -- what a spike is -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_spike_at_once(value: float) -> None:
    """NaN, inf and -inf trip the guard even as the first of all measurements."""
    [(state, verdict)] = watch(guard(), [value])
    assert verdict is not None
    assert verdict.levels == {"body": 0.05, "head": 0.5}
    assert verdict.rewarm == (5, 0.1)
    assert verdict.advice == "roll_back"
    assert "is not finite, with no good value before it" in verdict.reason
    assert state.window == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_can_be_let_pass(value: float) -> None:
    """Without `not_finite` such values change nothing, the window included."""
    [*_, (before, _), (after, verdict)] = watch(guard(not_finite=False), [*CALM, value])
    assert verdict is None
    assert after == before


finite = st.floats(0.5, 2.0)


@given(st.lists(finite, min_size=8, max_size=8), st.floats(0.0, 20.0))
def test_the_sigma_rule_decides_as_olmo(window: list[float], value: float) -> None:
    """A value trips exactly where OLMo's optimizer skips the step (`std_mean` with n - 1)."""
    rule = guard(window=8, min_window=8, sigma=6.0, min_rise=0.0, not_finite=False)
    deviation, centre = torch.std_mean(torch.tensor(window, dtype=torch.float64))
    margin = value - float(centre) - 6 * float(deviation)
    if abs(margin) < 1e-9:  # torch rounds its sums differently
        return
    [*_, (_, verdict)] = watch(rule.model_copy(update={"ratio": None}), [*window, value])
    # The window fills without a verdict: fewer than 8 values are never judged.
    assert (verdict is not None) == (margin > 0)


@given(st.lists(st.integers(1, 1000), min_size=8, max_size=8), st.integers(0, 4000))
def test_the_ratio_rule_decides_as_llm_foundry(window: list[int], value: int) -> None:
    """Above zero a value trips where KillLossSpike counts an outlier: value >= ratio * mean."""
    rule = guard(window=8, min_window=8, sigma=None, ratio=2.0)
    [*_, (_, verdict)] = watch(rule, [*map(float, window), float(value)])
    assert (verdict is not None) == (value >= 2 * sum(window) / 8)


@pytest.mark.parametrize(
    ("window", "good", "spike"),
    [
        ([-1.0, -1.2, -0.8, -1.0], -0.5, 0.0),  # 2 * mean would call -0.5 a spike
        ([-1.0, 1.0, -1.0, 1.0], 0.9, 1.0),  # 2 * mean would call everything above 0 one
        ([10.0, 10.0, 10.0, 10.0], 19.0, 20.0),
    ],
)
def test_the_ratio_holds_below_zero_and_around_it(
    window: list[float], good: float, spike: float
) -> None:
    """Jumps are relative to the magnitude of the window, so the mean's sign does not matter."""
    rule = guard(sigma=None, ratio=2.0)
    assert answers(rule, [*window, good]) == {}
    assert answers(rule, [*window, spike]) == {4: "roll_back"}


def test_a_fall_of_what_should_rise_is_a_spike() -> None:
    """With mode "max" the guard trips on a fall and not on a rise."""
    rewards = [100.0, 101.0, 99.0, 100.0]
    assert answers(guard(mode="max"), [*rewards, 20.0]) == {4: "roll_back"}
    assert answers(guard(mode="max"), [*rewards, 900.0]) == {}
    assert answers(guard(), [*rewards, 20.0]) == {}


def test_a_constant_window_has_zero_deviation() -> None:
    """Then a small rise is no spike, but a jump is one."""
    assert answers(guard(), [*[2.0] * 4, 2.0, 2.01]) == {}
    assert answers(guard(), [*[2.0] * 4, 2.1]) == {4: "roll_back"}


def test_a_window_of_zeros_says_nothing() -> None:
    """A loss that has been exactly 0 has no magnitude: only a non-finite value is a spike."""
    rule = guard(ratio=2.0, min_rise=0.0)
    assert answers(rule, [*[0.0] * 4, 1e-9, 3.0]) == {5: "roll_back"}
    assert answers(guard(), [*[0.0] * 4, 1e-9]) == {}
    assert answers(guard(), [*[0.0] * 4, math.nan]) == {4: "roll_back"}


def test_too_few_values_are_not_judged() -> None:
    """Until the window has `min_window` good values, half its length by default, all is normal."""
    assert answers(guard(min_window=None, window=8), [1.0, 1.1, 1.0, 500.0]) == {}
    assert answers(guard(min_window=None, window=8), [1.0, 1.1, 1.0, 1.0, 500.0]) == {
        4: "roll_back"
    }


def test_a_spike_never_enters_the_window() -> None:
    """What counts as normal is not moved by spikes, within a cooldown or outside."""
    states = [state for state, _ in watch(guard(), [*CALM, 50.0, math.nan, 60.0])]
    assert [state.window for state in states[3:]] == [tuple(CALM)] * 4


# -- how often it counts ---------------------------------------------------------------------------


def test_a_spike_in_the_cooldown_does_not_count() -> None:
    """A spike of several measurements is one; a spike after the cooldown is another."""
    assert answers(guard(), [*CALM, 50.0, 60.0, math.nan]) == {4: "roll_back"}
    assert answers(guard(), [*CALM, 50.0, 60.0, math.nan, 70.0]) == {
        4: "roll_back",
        7: "roll_back",
    }


def test_good_values_end_the_cooldown_too() -> None:
    """The cooldown counts measurements, whatever their values."""
    assert answers(guard(), [*CALM, 50.0, 1.0, 1.0, 50.0]) == {4: "roll_back", 7: "roll_back"}


def test_without_a_cooldown_each_counts() -> None:
    """The cap is then reached soon."""
    rule = guard(cooldown=0, max_trips=2)
    assert answers(rule, [*CALM, 50.0, 50.0, 50.0]) == {
        4: "roll_back",
        5: "roll_back",
        6: "diverged",
    }


def test_beyond_the_cap_it_only_tells() -> None:
    """The spike after `max_trips` changes no level and starts no warmup; the session goes on."""
    verdicts = [each for _, each in watch(guard(cooldown=0, max_trips=1), [math.nan] * 3)]
    assert [each.levels for each in verdicts if each] == [{"body": 0.05, "head": 0.5}, {}, {}]
    assert [each.rewarm for each in verdicts if each] == [(5, 0.1), None, None]
    assert [each.finish for each in verdicts if each] == [False, False, False]


def test_beyond_the_cap_it_can_end_the_session() -> None:
    """With then="stop" no further step is sealed."""
    loop = Loop(session(guard(cooldown=0, max_trips=1, then="stop")))
    loop.seal(0).report(0, {0: math.nan}).seal(1).report(1, {0: math.nan})
    loop.give(Seal(2, 1))
    assert loop.session.status == "finished"
    assert [decided.advice for decided in loop.decided] == ["roll_back", "diverged"]
    assert "the session ends" in loop.session.control.notices[-1].message


def test_no_trips_at_all_is_to_be_told_only() -> None:
    """With `max_trips` 0 the guard watches and never acts."""
    [(state, verdict)] = watch(guard(max_trips=0), [math.nan])
    assert verdict is not None
    assert (verdict.levels, verdict.advice, verdict.finish) == ({}, "diverged", False)
    assert state.trips == (0,)


def test_old_spikes_are_forgotten() -> None:
    """With `within` only spikes in that many steps count against the cap."""
    calm = [1.0] * 10
    values = [*CALM, 50.0, *calm, 50.0, *calm, 50.0]
    assert list(answers(guard(max_trips=1), values).values()) == [
        "roll_back",
        "diverged",
        "diverged",
    ]
    assert list(answers(guard(max_trips=1, within=11), values).values()) == ["roll_back"] * 3
    assert list(answers(guard(max_trips=1, within=12), values).values()) == [
        "roll_back",
        "diverged",
        "diverged",
    ]


def test_a_new_normal_ends_in_diverged() -> None:
    """A loss that moves to another level for good is never taken for normal; a person is told."""
    told = answers(guard(max_trips=2), [*CALM, *[50.0] * 20])
    assert list(told.values()) == ["roll_back", "roll_back", *["diverged"] * 5]


# -- what it does ----------------------------------------------------------------------------------


def test_the_reason_can_be_read_at_night() -> None:
    """It has metric, value, step, what was normal, the rule, the last good step and the count."""
    [*_, (_, verdict)] = watch(guard(within=1000), [1.0, 1.5, 0.5, 1.0, 9.0])
    assert verdict is not None
    assert verdict.reason == (
        "loss 9.0 at step 4 is 8.0 above the mean 1.0 of the last 4 good values, which deviate by"
        " 0.408248290463863 (sigma 6.0); the last good value is that of step 3; spike 1 of the 3"
        " that are answered within 1000 steps: level times 0.5; go back to weights from before step"
        " 3's update"
    )


def test_the_rate_rises_again_after_the_cut() -> None:
    """From the step after the spike on it rises linearly to half of what it was."""
    rule = guard(min_window=2, rewarm=4, rewarm_from=0.2)
    loop = Loop(session(rule)).train([1.0, 1.0, 1.0, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0])
    rises = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    expected = [1.0] * 4 + [0.5 * each for each in rises]
    assert list(loop.sealed.values()) == pytest.approx(expected, rel=1e-15)
    assert loop.sealed[8] == 0.5


def test_a_guard_without_a_rewarm_or_a_cut() -> None:
    """Both are optional: the rate is then cut at once, or only warmed up again."""
    at_once = Loop(session(guard(rewarm=None))).train([math.nan, 1.0])
    assert list(at_once.sealed.values()) == [1.0, 0.5, 0.5]
    warmed = Loop(session(guard(factor=1.0, rewarm=2, rewarm_from=0.0))).train([math.nan, 1.0, 1.0])
    assert list(warmed.sealed.values()) == [1.0, 0.0, 0.5, 1.0]


def test_lengths_may_be_epochs() -> None:
    """The warmup and the span of the cap take lengths in any unit that the session knows."""
    rule = {
        "kind": "spike_guard",
        "metric": "loss",
        "rewarm": {"epochs": 2},
        "within": {"epochs": 1},
    }
    loop = Loop(session(rule, steps_per_epoch=10)).train([math.nan])
    [decided] = loop.decided
    assert decided.rewarm == (20, 0.1)
    assert "within 10 steps" in decided.reason


def test_a_guard_sees_what_is_hidden_from_others() -> None:
    """With the policy `guard` NaN reaches the guard and no other controller."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0}
    loop = Loop(session(plateau, guard(), metrics={"loss": {"nan": "guard"}}))
    loop.train([1.0, math.nan])
    assert [decided.controller for decided in loop.decided] == [1]


def test_a_level_never_vanishes() -> None:
    """Endless cuts stop above 0, and recovery still finds its way back."""
    rule = guard(factor=1e-200, cooldown=0, recover_after=1, recover_factor=1e300)
    [*_, (_, last)] = watch(rule, [math.nan, math.nan, 1.0])
    assert last is not None
    assert all(0.0 < level < math.inf for level in last.levels.values())


# -- recovery --------------------------------------------------------------------------------------


def levels_of(rule: SpikeGuard, values: list[float], **spec: Any) -> list[float]:
    """Return the levels of a session that reports these values."""
    rates = Loop(session(rule, **spec)).train(values).sealed.values()
    return [float(rate) for rate in rates]


def test_the_level_recovers_step_by_step() -> None:
    """After each `recover_after` good measurements it is doubled, up to where it was."""
    rule = guard(rewarm=None, factor=0.3, cooldown=0, recover_after=2, recover_factor=2.0)
    rates = levels_of(rule, [math.nan, *[1.0] * 7])
    assert rates == pytest.approx([1.0, 0.3, 0.3, 0.6, 0.6, 1.0, 1.0, 1.0, 1.0], rel=1e-15)
    assert max(rates) == 1.0


def test_a_spike_starts_the_count_of_good_ones_anew() -> None:
    """Recovery needs consecutive good measurements; a spike in the cooldown interrupts them too."""
    rule = guard(rewarm=None, cooldown=3, recover_after=2)
    rates = levels_of(rule, [math.nan, 1.0, math.nan, 1.0, 1.0, 1.0])
    assert rates == [1.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]


def test_recovery_leaves_the_cuts_of_others_alone() -> None:
    """Only this guard's own cuts are undone."""
    rule = guard(rewarm=None, cooldown=0, recover_after=3)
    loop = Loop(session(rule)).seal(0).report(0, {0: math.nan}).seal(1)
    loop.give(Act(Scale(factor=0.1)))
    loop.train([1.0] * 4)
    assert loop.sealed[5] == pytest.approx(0.1, rel=1e-15)


def test_recovery_never_exceeds_the_level_before() -> None:
    """Where a limit has softened the cut, the way back ends at the level before it as well."""
    rule = guard(rewarm=None, factor=0.1, cooldown=0, recover_after=1, recover_factor=4.0)
    rates = levels_of(rule, [math.nan, *[1.0] * 5], limits={"min_lr": 0.5})
    assert rates == [1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


# -- laws ------------------------------------------------------------------------------------------

rules = st.builds(
    guard,
    ratio=st.sampled_from([None, 1.5, 2.0]),
    sigma=st.sampled_from([None, 3.0, 6.0]),
    cooldown=st.integers(0, 3),
    max_trips=st.integers(0, 4),
    within=st.sampled_from([None, 5]),
    recover_after=st.sampled_from([None, 1, 3]),
    factor=st.sampled_from([0.1, 0.5, 1.0]),
    mode=st.sampled_from(["min", "max"]),
)
streams = st.lists(st.one_of(metrics, st.sampled_from([1e308, -1e308, 5e-324])), max_size=40)


@given(rules, streams)
def test_levels_stay_finite_and_never_exceed_the_first(
    rule: SpikeGuard, values: list[float]
) -> None:
    """Whatever is measured, each ordered level is above 0 and at most what it was at the start."""
    for state, verdict in watch(rule, values):
        assert all(map(math.isfinite, state.window))
        assert len(state.window) <= 4
        assert len(state.trips) <= max(rule.max_trips, 1)
        for group, level in (verdict.levels if verdict else {}).items():
            assert 0.0 < level <= {"body": 0.1, "head": 1.0}[group]


@given(rules, streams)
def test_a_state_survives_json(rule: SpikeGuard, values: list[float]) -> None:
    """Every state is read back equal, to the bit."""
    for state, _ in watch(rule, values):
        assert SpikeGuardState.model_validate_json(state.model_dump_json()) == state


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"sigma": None, "not_finite": False}, "Nothing would be a spike"),
        ({"window": 3, "min_window": 4}, "swap them"),
        ({"factor": 0.0}, "greater than 0"),
        ({"ratio": 1.0}, "greater than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], hint: str) -> None:
    """The error says what to do instead."""
    with pytest.raises(ValidationError, match=hint):
        guard(**spec)


def test_the_defaults_are_for_a_night() -> None:
    """NaN always trips, and so do 6 deviations over 128 values; half, 100 warmup steps, 3 times."""
    rule = Controller.parse({"kind": "spike_guard", "metric": "loss"})
    assert isinstance(rule, SpikeGuard)
    assert (rule.not_finite, rule.ratio, rule.sigma, rule.window) == (True, None, 6.0, 128)
    assert (rule.factor, rule.rewarm, rule.max_trips) == (0.5, 100, 3)


# -- a training ------------------------------------------------------------------------------------


class Training:
    """A small regression by SGD in float64, driven by a session; every run is the same."""

    STEPS = 160

    def __init__(self, *controllers: SpikeGuard) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(self.STEPS, 32, 8, generator=generator, dtype=torch.float64)
        weights = torch.randn(8, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(self.STEPS, 32, 1, generator=generator, dtype=torch.float64)
        self.y = self.x @ weights + 0.1 * noise
        torch.manual_seed(2)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        ).double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9)
        self.loop = Loop(session(controllers=controllers, base_lr=0.02))
        self.losses: list[float] = []
        self.saved: list[tuple[int, Any]] = []

    def run(self, jump_at: int | None = None) -> float:
        """Train, at 60 times the rate from a step on; return the mean of the last losses."""
        for step in range(self.STEPS):
            if step == jump_at:
                self.loop.give(Act(Scale(factor=60.0)))
            self.loop.seal(step)
            if any(notice.step == step for notice in self.advised()):
                self.load()
            self.save(step)
            self.losses.append(self.update(step, self.loop.sealed[step]))
            self.loop.give(Report((Reading(0, step, "loss", self.losses[-1]),)))
        return sum(self.losses[-20:]) / 20

    def advised(self) -> list[Notice]:
        """Return the notices to roll back."""
        return [each for each in self.loop.session.control.notices if each.code == "roll_back"]

    def update(self, step: int, rate: float) -> float:
        """Make one step, as any trainer does."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.model(self.x[step]), self.y[step])
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def save(self, step: int) -> None:
        """Save the state before a step, every 10 steps."""
        if step % 10 == 0:
            state = (self.model.state_dict(), self.optimizer.state_dict())
            self.saved.append((step, deepcopy(state)))

    def load(self) -> None:
        """Load what was saved no later than the last good step that the guard knows."""
        [state] = self.loop.session.control.states
        assert isinstance(state, SpikeGuardState)
        assert state.good is not None
        step, (model, optimizer) = max(each for each in self.saved if each[0] <= state.good)
        self.saved = [each for each in self.saved if each[0] <= step]
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)


def saviour(**spec: Any) -> SpikeGuard:
    """Return a guard for a training of some hundred steps."""
    return guard(**{"window": 32, "min_window": 16, "cooldown": 3, "rewarm": 10, **spec})


def test_a_bad_batch_kills_the_fixed_schedule_and_not_the_guarded_one() -> None:
    """After one corrupt batch the weights are lost; with the guard's advice the training ends well.

    Neither training knows in advance which batch it is.
    """
    ends = []
    for controllers in [(), (saviour(),)]:
        training = Training(*controllers)
        training.x[83] *= 1e4
        ends.append((training.run(), training))
    (fixed, _), (guarded, training) = ends
    assert not fixed < 1.0
    assert guarded < 0.1
    assert [notice.step for notice in training.advised()] == [84]


def test_a_jump_of_the_rate_kills_the_fixed_schedule_and_not_the_guarded_one() -> None:
    """At 60 times its rate the training diverges; the guard cuts until it is stable again.

    Going back alone would not help here: the training would diverge again each time.
    """
    fixed = Training().run(jump_at=80)
    returning = Training(saviour(factor=1.0, rewarm=None, max_trips=20)).run(jump_at=80)
    training = Training(saviour(factor=0.1, max_trips=20))
    guarded = training.run(jump_at=80)
    assert not fixed < 1.0
    assert not returning < 1.0
    assert guarded < 0.2
    rates = list(training.loop.sealed.values())
    assert rates[-1] < 0.1 * max(rates)


def test_a_sound_training_is_left_alone() -> None:
    """Where nothing goes wrong the guard gives no advice and every rate is the schedule's."""
    training = Training(saviour())
    training.run()
    assert training.loop.decided == []
    assert set(training.loop.sealed.values()) == {0.02}
