"""The controller that ends a range test, against the stopping rules of the libraries."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.closed_loop import Loop, session
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.controllers import Controller, Sample
from pacesetter_service.core.controllers.range_test import RangeTest, RangeTestState
from pacesetter_service.core.decide import decide
from pacesetter_service.core.errors import SessionFinishedError
from strategies import metrics

TORCH_LR_FINDER = {"diverge": 5.0, "smoothing": {"kind": "ema", "beta": 0.95, "debias": False}}


def ends_at(losses: list[float], **parameters: Any) -> int | None:
    """Return the step whose loss ends the test."""
    rule = Controller.parse({"kind": "range_test", "metric": "loss", **parameters})
    state = rule.init()
    for step, loss in enumerate(losses):
        state, verdict = _observed(rule, state, step, loss)
        if verdict is not None:
            assert verdict.finish
            return step
    return None


def _observed(rule: Controller, state: Any, step: int, loss: float) -> tuple[Any, Any]:
    observation = rule.observe(state, Sample("loss", step, loss, {"": 1.0}, {"": 1.0}))
    return observation.state, observation.verdict


def fastai(losses: list[float]) -> int | None:
    """Stop as fastai 2.8.12 does: `AvgSmoothLoss` and `LRFinder.after_batch`, in float64."""
    average, best = 0.0, math.inf
    for step, loss in enumerate(losses):
        average = 0.98 * average + 0.02 * loss
        smooth = average / (1 - 0.98 ** (step + 1))
        best = min(best, smooth)
        if smooth > 4 * best:
            return step
    return None


def torch_lr_finder(losses: list[float]) -> int | None:
    """Stop as torch_lr_finder 0.2.2 does: `LRFinder.range_test`."""
    best, last = losses[0], losses[0]
    for step, loss in enumerate(losses):
        if step > 0:
            last = 0.05 * loss + 0.95 * last
            best = min(best, last)
        if last > 5 * best:
            return step
    return None


blown_up = st.tuples(
    st.lists(st.floats(0.1, 3), min_size=1, max_size=60),
    st.lists(st.floats(0.1, 1e6), max_size=40),
).map(lambda parts: parts[0] + parts[1])


@given(blown_up)
def test_it_ends_where_fastai_ends(losses: list[float]) -> None:
    """With fastai's defaults the same loss ends it, for any positive losses."""
    assert ends_at(losses) == fastai(losses)


@given(blown_up)
def test_it_ends_where_torch_lr_finder_ends(losses: list[float]) -> None:
    """With torch_lr_finder's smoothing and ratio the same loss ends it."""
    assert ends_at(losses, **TORCH_LR_FINDER) == torch_lr_finder(losses)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_it_at_once(loss: float) -> None:
    """NaN and both infinities end it, also as the first loss, and whatever `diverge` is."""
    assert ends_at([1.0, 0.9, loss]) == 2
    assert ends_at([loss], diverge=None) == 0


def test_without_a_ratio_only_the_end_ends_it() -> None:
    """With `diverge` null the loss may rise for ever."""
    assert ends_at([1.0] + [1e9] * 50, diverge=None) is None


def test_a_falling_loss_below_zero_does_not_end_it() -> None:
    """Four times a negative best would be lower still, so that every loss would exceed it."""
    falling = [1.0 - 0.1 * step for step in range(60)]
    assert ends_at(falling) is None
    assert ends_at([-1.0] * 30 + [-0.99] * 30) is None
    assert ends_at([-1.0, 2.5], smoothing={"kind": "ema", "beta": 0.0}) == 1


def test_it_is_over_after_the_last_step() -> None:
    """`steps` steps are measured, on the clock of the schedule, which ignores start_step."""
    assert ends_at([1.0] * 10, steps=7) == 6
    rule = RangeTest(metric="loss", steps=7)
    assert _observed(rule, rule.init(), 6, 1.0)[1].advice == "finished"


def test_it_ends_once() -> None:
    """Losses after the end lead to no second verdict."""
    rule = RangeTest(metric="loss")
    state, first = _observed(rule, rule.init(), 0, math.nan)
    assert first is not None
    assert _observed(rule, state, 1, math.nan) == (state, None)


@given(st.lists(metrics, max_size=40), st.sampled_from([{}, TORCH_LR_FINDER, {"steps": 5}]))
def test_any_losses_leave_a_state_that_survives_its_json(
    losses: list[float], parameters: dict[str, Any]
) -> None:
    """Whatever is measured, the state comes back from JSON as it was, to the bit."""
    rule = Controller.parse({"kind": "range_test", "metric": "loss", **parameters})
    state: Any = rule.init()
    for step, loss in enumerate(losses):
        state, verdict = _observed(rule, state, step, loss)
        assert verdict is None or verdict.finish
        assert RangeTestState.model_validate_json(state.model_dump_json()) == state
        assert not math.isnan(state.best)


def test_a_finished_session_gives_no_further_step() -> None:
    """The step after the blow-up is refused, with the reason; reports are still accepted."""
    loop = Loop(session({"kind": "range_test", "metric": "loss"}))
    loop.train([1.0, 0.9, 0.8, 1e3])
    assert loop.session.status == "finished"
    assert loop.session.horizon == 4
    with pytest.raises(SessionFinishedError, match=r"exceeds 4\.0 x its best.*at step 3"):
        decide(loop.session, Seal(4, 1))
    assert decide(loop.session, Seal(0, 4)).events == ()
    loop.give(Report((Reading(0, 3, "accuracy", 0.1),)))


def test_the_learning_rate_is_left_alone() -> None:
    """Until the end the steps have the values of the schedule, to the bit."""
    sweep = {"kind": "range_test", "steps": 20}
    plain = Loop(session(schedule=sweep, max_lookahead=1)).train([1.0] * 20)
    ended = Loop(session({"kind": "range_test", "metric": "loss", "steps": 20}, schedule=sweep))
    ended.train([1.0] * 20)
    assert list(ended.sealed.values()) == list(plain.sealed.values())[:20]


def test_a_guard_policy_shows_it_what_is_no_number() -> None:
    """With `nan` set to `guard` the NaN still ends the test."""
    rule = {"kind": "range_test", "metric": "loss"}
    loop = Loop(session(rule, metrics={"loss": {"nan": "guard"}})).train([1.0, math.nan])
    assert loop.session.status == "finished"
