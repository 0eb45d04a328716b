"""AdaScale against the computation of fairscale's optimizer, and its traps."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.closed_loop import Loop, session
from pacesetter_service.core.actions import Retime, Scale
from pacesetter_service.core.commands import Act
from pacesetter_service.core.controllers import Sample
from pacesetter_service.core.controllers.adascale import Adascale, AdascaleState
from pacesetter_service.core.decide import decide
from pacesetter_service.core.evolve import evolve
from strategies import metrics

Pair = tuple[float, float]


def rule(**spec: Any) -> Adascale:
    """Make a controller of a gradient of 8 parts."""
    names = {"metric": "part_sqr", "metric_of_mean": "mean_sqr", "gradients": 8}
    return Adascale.model_validate({"kind": "adascale", **names, **spec})


def gains(controller: Adascale, pairs: list[Pair]) -> list[float]:
    """Return the gain after each step's pair of metrics."""
    state: Any = controller.init()
    found = []
    for step, pair in enumerate(pairs):
        for metric, value in zip(controller.watches, pair, strict=True):
            state = controller.observe(state, Sample(metric, step, value, {}, {})).state
        found.append(state.gain)
    return found


class Fairscale:
    """The gain of fairscale's AdaScale for one parameter group (adascale.py, `_final_callback`).

    It gets the sum of the parts' squared norms and the squared norm of their mean.
    """

    def __init__(self, parts: int, scale: float | None = None, factor: float | None = None) -> None:
        self.parts = parts
        self.scale = parts if scale is None else scale
        self.factor = max(1 - parts / 1000, 0) if factor is None else factor
        self.biased = {"var": 0.0, "sqr": 0.0}
        self.unbias = 0.0

    def gain(self, local_sqr: float, total_sqr: float) -> float:
        """Take one step, and return the gain of its update."""
        scale, parts, factor = self.scale, self.parts, self.factor
        var = local_sqr * (scale / parts) / (parts - 1) - total_sqr * scale / (parts - 1)
        sqr = total_sqr - var / scale
        new = {"var": max(var, 1e-6), "sqr": max(sqr, 0.0)}
        self.unbias = factor * self.unbias + (1.0 - factor)
        for name, value in new.items():
            self.biased[name] = factor * self.biased[name] + (1.0 - factor) * value
        var, sqr = (self.biased[name] / self.unbias for name in ("var", "sqr"))
        return (var + sqr) / (var / scale + sqr)


squares = st.floats(0.0, 1e6)


@given(
    st.sampled_from([2, 4, 8, 64, 1024, 2048]),
    st.sampled_from([None, 1.0, 5.5, 32.0]),
    st.sampled_from([None, 0.0, 0.9]),
    st.lists(st.tuples(squares, squares), max_size=30),
)
def test_the_gain_is_fairscales(
    parts: int, scale: float | None, factor: float | None, pairs: list[Pair]
) -> None:
    """On any stream the gain has the bits of fairscale's, which sums where this one averages.

    The numbers of parts are powers of two: with them a sum and the mean times n are the same float.
    """
    theirs = Fairscale(parts, scale, factor)
    ours = gains(rule(gradients=parts, scale=scale, smoothing=factor), pairs)
    assert ours == [theirs.gain(mean * parts, total) for mean, total in pairs]


@given(st.integers(2, 999), st.lists(st.tuples(squares, squares), max_size=10))
def test_the_gain_is_between_one_and_the_scale(parts: int, pairs: list[Pair]) -> None:
    """No batch is worth more than its size, and none less than a step."""
    for gain in gains(rule(gradients=parts), pairs):
        assert 1 - 1e-12 <= gain <= parts * (1 + 1e-12)


def test_without_noise_a_larger_batch_brings_nothing() -> None:
    """Parts that agree give gain 1; parts that are all noise give the scale."""
    [agree] = gains(rule(), [(4.0, 4.0)])
    assert agree == pytest.approx(1.0, abs=1e-6)
    [noise] = gains(rule(), [(4.0, 0.5)])
    assert noise == pytest.approx(8.0)


# -- a training ------------------------------------------------------------------------------------


class Noisy:
    """Least squares by SGD on 8 micro-batches a step, which are one batch 8 times as large."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(50, 8, 4, 6, generator=generator, dtype=torch.float64)
        noise = torch.randn(50, 8, 4, 1, generator=generator, dtype=torch.float64)
        self.y = self.x.sum(dim=3, keepdim=True) + noise
        torch.manual_seed(6)
        self.model = torch.nn.Linear(6, 1).double()
        self.parts: list[torch.Tensor] = []
        for p in self.model.parameters():
            p.register_hook(self.keep)

    def keep(self, gradient: torch.Tensor) -> None:
        """Record the gradient of a part, as in the docstring."""
        self.parts.append(gradient.pow(2).sum())

    def pair(self, step: int) -> Pair:
        """Compute the gradients of a step; return both metrics, by the docstring's lines."""
        self.model.zero_grad()
        accumulated = 8
        for x, y in zip(self.x[step], self.y[step], strict=True):
            torch.nn.functional.mse_loss(self.model(x), y).backward()
        of_parts = sum(self.parts, torch.zeros(())) / accumulated
        grads = [p.grad / accumulated for p in self.model.parameters() if p.grad is not None]
        of_mean = sum((grad.pow(2).sum() for grad in grads), torch.zeros(()))
        self.parts.clear()
        return of_parts.item(), of_mean.item()

    def update(self, rate: float) -> None:
        """Make an update at a rate."""
        with torch.no_grad():
            for p in self.model.parameters():
                assert p.grad is not None
                p.sub_(p.grad / 8, alpha=rate)


def report(loop: Loop, step: int, pair: Pair) -> None:
    """Report both metrics of a step."""
    loop.report(step, {0: pair[0]}, "part_sqr").report(step, {0: pair[1]}, "mean_sqr")


def test_a_training_has_fairscales_rates_and_clock() -> None:
    """Each step has schedule(clock) * gain, and the clock has advanced by the sum of the gains.

    The gain of a step's gradients is that of the next update, and the first is made at gain 1.
    """
    task, theirs = Noisy(), Fairscale(8)
    loop = Loop(session(rule(), base_lr=0.02, schedule={"kind": "exponential", "gamma": 0.99}))
    gain, clock, expected = 1.0, 0.0, []
    for step in range(50):
        expected.append(0.02 * 0.99**clock * gain)
        task_pair = task.pair(step)
        task.update(loop.seal(step).sealed[step])
        report(loop, step, task_pair)
        clock += gain
        gain = theirs.gain(task_pair[0] * 8, task_pair[1])
    assert list(loop.sealed.values()) == pytest.approx(expected, rel=1e-12)
    assert gain > 3.0
    assert loop.session.timelines["lr"].segments[-1].clock_at(49) == pytest.approx(
        clock - loop.decided[-1].pace, rel=1e-12
    )


# -- what it does ----------------------------------------------------------------------------------


def train(loop: Loop, pairs: list[Pair]) -> list[float]:
    """Report a pair at each step; return the rates, one more than there are pairs."""
    for step, pair in enumerate(pairs, loop.session.horizon):
        report(loop.seal(step), step, pair)
    return list(loop.seal(loop.session.horizon).sealed.values())


NOISE, AGREE = (4.0, 0.5), (4.0, 4.0)


def test_the_gain_is_replaced_and_not_piled_up() -> None:
    """The same gain again changes nothing, and without noise the rate is the schedule's again."""
    loop = Loop(session(rule(smoothing=0.0)))
    rates = train(loop, [NOISE, NOISE, NOISE, AGREE])
    assert rates == pytest.approx([1.0, 8.0, 8.0, 8.0, 1.0], rel=1e-5)
    assert len(loop.decided) == 2


def test_the_cuts_of_others_stay() -> None:
    """A gain that changes leaves alone what other controllers and operators did to the level."""
    guard = {"kind": "spike_guard", "metric": "loss", "rewarm": None, "factor": 0.5}
    loop = Loop(session(guard, rule(smoothing=0.0)))
    train(loop, [NOISE])
    loop.report(1, {0: math.nan})
    train(loop, [NOISE])
    loop.give(Act(Scale(factor=0.1)))
    rates = train(loop, [AGREE])
    assert rates[-1] == pytest.approx(0.05, rel=1e-5)


def test_all_groups_have_the_one_gain() -> None:
    """Each group's level is multiplied, and every clock runs at the gain's pace."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0}}
    loop = Loop(session(rule(smoothing=0.0), groups=groups))
    report(loop.seal(0), 0, NOISE)
    loop.seal(1)
    [decided] = loop.decided
    assert decided.levels == {
        "body.lr": (0.1, pytest.approx(0.8)),
        "head.lr": (1.0, pytest.approx(8.0)),
    }
    assert {line.segments[-1].pace for line in loop.session.timelines.values()} == {decided.pace}


def test_ranks_are_averaged() -> None:
    """With the metrics' default aggregate each rank reports its own part."""
    loop = Loop(session(rule(gradients=2, smoothing=0.0), ranks=2)).seal(0)
    loop.report(0, {0: 3.0, 1: 5.0}, "part_sqr").report(0, {0: 2.0, 1: 2.0}, "mean_sqr")
    assert loop.seal(1).sealed[1] == Fairscale(2, factor=0.0).gain(3.0 + 5.0, 2.0)


def test_the_reason_names_the_gain() -> None:
    """The log names the old and the new gain, and the averages that it follows from."""
    loop = Loop(session(rule(gradients=2, smoothing=0.0)))
    train(loop, [(4.0, 3.0)])
    [decided] = loop.decided
    assert decided.reason == (
        "a batch of scale 2.0 gains 1.3333333333333333 (before: 1.0): variance 2.0,"
        " squared gradient 2.0"
    )


# -- traps -----------------------------------------------------------------------------------------


def observe(controller: Adascale, readings: list[tuple[str, int, float]]) -> AdascaleState:
    """Feed single measurements."""
    state: Any = controller.init()
    for metric, step, value in readings:
        state = controller.observe(state, Sample(metric, step, value, {}, {})).state
    assert isinstance(state, AdascaleState)
    return state


def test_the_metrics_may_come_in_any_order() -> None:
    """Whichever half of a pair comes first, the gain is the same."""
    one = observe(rule(), [("part_sqr", 0, 4.0), ("mean_sqr", 0, 0.5)])
    other = observe(rule(), [("mean_sqr", 0, 0.5), ("part_sqr", 0, 4.0)])
    assert one == other
    assert one.gain > 1.0


def test_half_a_pair_is_left_out() -> None:
    """A value is never paired with that of another step, nor with one that comes too late."""
    readings = [("part_sqr", 0, 4.0), ("part_sqr", 1, 9.0), ("mean_sqr", 0, 0.5)]
    state = observe(rule(), readings)
    assert (state.gain, state.weight) == (1.0, 0.0)
    whole = observe(rule(), [*readings, ("mean_sqr", 1, 2.0)])
    assert whole.gain == observe(rule(), [("part_sqr", 1, 9.0), ("mean_sqr", 1, 2.0)]).gain


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, 1e308])
def test_a_bad_pair_is_left_out(bad: float) -> None:
    """NaN, infinities, negative values and overflow leave averages and gain alone."""
    good = gains(rule(), [NOISE, AGREE])
    assert gains(rule(), [NOISE, (bad, 1.0), AGREE])[::2] == good
    if bad != 1e308:
        assert gains(rule(), [NOISE, (1.0, bad), AGREE])[::2] == good


@pytest.mark.parametrize("limits", [{"max_lr": 2.0}, {"max_change": 2.0}, {"max_lr": 8.0}])
def test_what_a_limit_clips_of_a_rise_does_not_lower_the_level_later(
    limits: dict[str, float],
) -> None:
    """When the gain is 1 again the level is at its base, whatever was clipped of the rise."""
    loop = Loop(session(rule(smoothing=0.0), limits=limits))
    [_, high, back] = train(loop, [NOISE, AGREE])
    assert high == pytest.approx(min(limits.values()), rel=1e-5)
    assert back == pytest.approx(1.0, rel=1e-5)


def test_what_a_limit_clips_follows_at_the_next_measurements() -> None:
    """With `max_change` the level reaches its gain in several steps."""
    loop = Loop(session(rule(smoothing=0.0), limits={"max_change": 2.0}))
    assert train(loop, [NOISE] * 4) == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0], rel=1e-5)


def test_a_retime_outlives_the_next_gain() -> None:
    """The clock runs the gain times as fast as the operator has ordered."""
    law = {"kind": "cosine", "total_steps": 1000}
    plain, retimed = (Loop(session(rule(smoothing=0.0), schedule=law)) for _ in range(2))
    order = Retime(total_steps=500)
    [ordered] = decide(retimed.session, Act(order, 0)).events
    retimed.session = evolve(retimed.session, ordered)
    train(plain, [NOISE, AGREE])
    train(retimed, [NOISE, AGREE])
    speeds = [each.session.timelines["lr"].segments[-1].speed for each in (plain, retimed)]
    assert speeds[1] == pytest.approx(2 * speeds[0], rel=1e-5)


def test_tiny_gradients_look_like_noise() -> None:
    """Squared norms far below `min_variance` give the scale as gain, until that is lowered."""
    pair = (4e-12, 4e-12)
    assert gains(rule(), [pair]) == pytest.approx([8.0], rel=1e-4)
    assert gains(rule(min_variance=1e-18), [pair]) == pytest.approx([1.0], rel=1e-4)


def test_many_ranks_need_no_smoothing() -> None:
    """From 1000 parts on each step stands for itself, as with fairscale."""
    alone = gains(rule(gradients=1000), [NOISE])
    assert gains(rule(gradients=1000), [AGREE, NOISE])[1:] == alone


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"metric_of_mean": "part_sqr"}, "under two names"),
        ({"gradients": 1}, "greater than or equal to 2"),
        ({"scale": 0.5}, "greater than or equal to 1"),
        ({"smoothing": 1.0}, "less than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any], hint: str) -> None:
    """One part has no variance, and one name is no pair."""
    with pytest.raises(ValidationError, match=hint):
        rule(**spec)


# -- laws ------------------------------------------------------------------------------------------

readings = st.lists(
    st.tuples(
        st.sampled_from(["part_sqr", "mean_sqr"]),
        st.integers(0, 5),
        st.one_of(metrics, st.floats(0, 10), st.sampled_from([1e308, 5e-324])),
    ),
    max_size=40,
)


@given(readings)
def test_levels_are_always_the_gain_times_what_they_were(
    shown: list[tuple[str, int, float]],
) -> None:
    """Whatever comes in whatever order, each level is its base times the gain, and the pace too."""
    controller, levels = rule(smoothing=0.5), {"body": 0.1, "head": 1.0, "frozen": 0.0}
    bases = dict(levels)
    state: Any = controller.init()
    pace = 1.0
    for metric, step, value in shown:
        observation = controller.observe(state, Sample(metric, step, value, dict(levels), bases))
        state, verdict = observation.state, observation.verdict
        if verdict is not None:
            levels |= verdict.levels
            pace = verdict.pace or math.nan
        assert pace == state.gain
        for group, level in levels.items():
            assert level == pytest.approx(bases[group] * state.gain, rel=1e-13)
        written = state.model_dump_json()
        assert AdascaleState.model_validate_json(written).model_dump_json() == written
