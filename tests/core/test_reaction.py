"""What controllers see, when they may decide, and from which step a decision holds."""

import math
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.closed_loop import Guard, Loop, Recorder, session, shuffled
from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.attempts import RestorePoint, restore
from pacesetter_service.core.commands import Act, Await, Command, Pass, Reading, Report, Seal
from pacesetter_service.core.decide import MAX_PENDING, waits_for
from pacesetter_service.core.errors import PacesetterError, SessionFinishedError
from pacesetter_service.core.events import (
    BoundaryPassed,
    Decided,
    Measured,
    MeasurementsClosed,
    Missed,
    Observed,
    Sealed,
)
from pacesetter_service.core.wait import LONGEST_GAP
from strategies import metrics

NAN_POLICIES = {
    "bad": (["loss 1.0", "loss nan", "loss inf", "loss 2.0"],) * 2,
    "ignore": (["loss 1.0", "loss 2.0"],) * 2,
    "guard": (
        ["loss 1.0", "loss 2.0"],
        ["loss 1.0", "loss nan", "loss inf", "loss 2.0"],
    ),
}


def words(shown: list[tuple[str, int, float]]) -> list[str]:
    """Return what was shown as text, in which NaN equals itself."""
    return [f"{metric} {value!r}" for metric, _, value in shown]


@pytest.mark.parametrize("policy", NAN_POLICIES)
def test_a_policy_says_who_sees_what_is_no_number(policy: str) -> None:
    """`bad` shows it to all, `ignore` to none, `guard` to guards only."""
    rules = [Recorder(metric="loss"), Guard(metric="loss")]
    loop = Loop(session(*rules, metrics={"loss": {"nan": policy}}))
    loop.train([1.0, math.nan, math.inf, 2.0])
    assert (words(loop.shown(0)), words(loop.shown(1))) == NAN_POLICIES[policy]
    assert len(loop.of(Measured)) == 4, "hidden is not lost"


def test_a_view_is_another_look_at_the_same_measurements() -> None:
    """A metric with `of` has no readings; its smoothing and its NaN policy are its own."""
    loop = Loop(
        session(
            Recorder(metric="loss"),
            Recorder(metric="smooth loss"),
            metrics={
                "smooth loss": {
                    "of": "loss",
                    "smoothing": {"kind": "mean", "window": 2},
                    "nan": "ignore",
                }
            },
        )
    )
    loop.train([1.0, 3.0, math.nan, 5.0])
    assert words(loop.shown(0)) == ["loss 1.0", "loss 3.0", "loss nan", "loss 5.0"]
    assert words(loop.shown(1)) == ["smooth loss 1.0", "smooth loss 2.0", "smooth loss 4.0"]
    assert loop.session.watched == {"loss"}
    assert loop.session.control.consumed == {"loss": 3}


def test_nothing_is_shown_between_two_means() -> None:
    """With `every` a controller is called once in that many measurements."""
    loop = Loop(session(metrics={"loss": {"smoothing": {"kind": "every", "count": 3}}}))
    loop.train([1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 7.0])
    assert loop.shown() == [("loss", 2, 2.0), ("loss", 5, 20.0)]


def test_controllers_sleep_outside_their_steps() -> None:
    """They are awake from `from_step` to below `until_step`, and smoothing goes on meanwhile."""
    loop = Loop(
        session(
            Recorder(metric="loss", from_step=2, until_step=5),
            Recorder(metric="loss", from_step={"epochs": 1}),
            steps_per_epoch=4,
            metrics={"loss": {"smoothing": {"kind": "mean", "window": 2}}},
        )
    )
    loop.train([0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    assert loop.shown(0) == [("loss", 2, 3.0), ("loss", 3, 5.0), ("loss", 4, 7.0)]
    assert loop.shown(1) == [("loss", 4, 7.0), ("loss", 5, 9.0)]


def test_each_controller_sees_what_those_before_it_did() -> None:
    """They are called in the order of the spec, whichever view of the metric they watch."""
    loop = Loop(
        session(
            Recorder(metric="view", factor=0.5),
            Recorder(metric="loss", factor=0.1),
            Recorder(metric="view", factor=3.0),
            metrics={"view": {"of": "loss"}},
        )
    )
    loop.train([1.0])
    assert [(event.controller, event.levels["lr"]) for event in loop.decided] == [
        (0, (1.0, 0.5)),
        (1, (0.5, 0.5 * 0.1)),
        (2, (0.5 * 0.1, 0.5 * 0.1 * 3.0)),
    ]
    assert loop.sealed[1] == 0.5 * 0.1 * 3.0


def test_a_controller_of_several_metrics_sees_them_step_by_step() -> None:
    """Within a step they come in the order of their names, however they arrived."""
    loop = Loop(session(Recorder(metric="b", also=("a",)), max_lookahead=4)).seal(0, 4)
    for step, metric in [(1, "b"), (0, "b"), (1, "a"), (0, "a")]:
        loop.report(step, {0: float(step)}, metric)
    loop.seal(4)
    assert loop.shown() == [("a", 0, 0.0), ("b", 0, 0.0), ("a", 1, 1.0), ("b", 1, 1.0)]


@given(
    st.floats(1e-3, 1e3),
    st.floats(0, 2),
    st.none() | st.floats(2, 5),
    st.none() | st.floats(1.01, 10),
)
def test_no_controller_oversteps_the_limits(
    factor: float, low: float, high: float | None, change: float | None
) -> None:
    """The level stays within its bounds, and no decision changes it by more than is allowed."""
    limits = {"min_lr": low, "max_lr": high, "max_change": change}
    loop = Loop(session(Recorder(metric="loss", factor=factor), limits=limits, base_lr=2.0))
    loop.train([1.0] * 6)
    for old, new in pairwise(loop.sealed.values()):
        expected = old * factor
        if change is not None:
            expected = min(max(expected, old / change), old * change)
        assert new == max(min(expected, high or math.inf), low)


def test_a_verdict_of_which_the_limits_leave_nothing_is_no_decision() -> None:
    """At the bound a controller goes on observing, and the log is not filled with no-ops."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), limits={"min_lr": 0.5}))
    loop.train([1.0] * 5)
    assert len(loop.decided) == 1
    assert len(loop.of(Observed)) == 5
    assert loop.session.revision == 1


def test_limits_are_of_what_the_optimizer_gets() -> None:
    """An operator's scale counts: floor and ceiling hold for the level times the scale."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), limits={"min_lr": 0.2}))
    loop.give(Act(Scale(factor=0.5)))
    loop.train([1.0] * 4)
    assert list(loop.sealed.values()) == [0.5, 0.25, 0.2, 0.2, 0.2]


def test_what_ends_a_session_is_its_last_decision() -> None:
    """Measurements after the one that ended it are recorded, and shown to no controller."""
    rules = [
        Recorder(metric="loss", finish=True, advice="finished"),
        Recorder(metric="loss", factor=0.5),
    ]
    loop = Loop(session(*rules, max_lookahead=3)).seal(0, 3)
    for step in range(3):
        loop.report(step, {0: float(step)})
    loop.seal(3)
    assert loop.session.status == "finished"
    assert len(loop.decided) == 1
    assert loop.shown(1) == []
    assert [event.step for event in loop.of(Measured)] == [0, 1, 2]
    assert loop.session.horizon == 3
    with pytest.raises(SessionFinishedError, match=r"not sealed is 3: loss was 0\.0"):
        loop.seal(3)
    loop.report(2, {0: 1.0})
    assert loop.give(Seal(1, 5)) == ()


# -- decisions at boundaries -----------------------------------------------------------------------

EVERY = 5
REACTS = {"decide_every": EVERY}


def test_the_step_behind_a_boundary_waits_for_its_measurement() -> None:
    """Up to the boundary steps are sealed at once; the boundary itself waits for every rank."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), ranks=2, reaction=REACTS))
    assert list(loop.seal(0, 100).sealed) == list(range(EVERY))
    assert waits_for(loop.session, Seal(EVERY, 1)) == ("loss",)
    assert loop.give(Seal(EVERY, 1)) == ()
    loop.report(4, {0: 1.0})
    assert loop.give(Seal(EVERY, 1)) == ()
    loop.report(4, {1: 1.0}).seal(EVERY, 100)
    assert loop.sealed == {step: 1.0 if step < 5 else 0.5 for step in range(10)}
    assert [event.at for event in loop.decided] == [EVERY]


def test_between_boundaries_nothing_is_decided() -> None:
    """Measurements of all steps up to the boundary are consumed there, in order."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), reaction=REACTS))
    loop.train([1.0] * 4)
    assert loop.decided == []
    loop.report(4, {0: 1.0}).seal(EVERY)
    assert [event.at for event in loop.decided] == [EVERY] * 5
    assert loop.sealed[EVERY] == 0.5**5


def test_a_wish_that_begins_below_the_boundary_ends_at_it() -> None:
    """Sealed steps are returned without waiting."""
    loop = Loop(session(reaction=REACTS)).seal(0, 5)
    assert waits_for(loop.session, Seal(3, 10)) == ()
    assert loop.give(Seal(3, 10)) == ()


def test_a_passed_boundary_is_recorded_and_later_reports_count_for_the_next() -> None:
    """Without any report nothing is decided; what arrives afterwards is seen at the next one."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), reaction=REACTS)).seal(0, 5)
    loop.give(Pass(EVERY))
    assert loop.of(BoundaryPassed) == [BoundaryPassed(EVERY, ("loss",))]
    assert loop.give(Pass(EVERY)) == (), "passing twice is harmless"
    loop.seal(5, 5).report(4, {0: 1.0}).report(9, {0: 2.0}).seal(10)
    assert [(event.step, event.at) for event in loop.decided] == [(4, 10), (9, 10)]
    assert loop.sealed[9] == 1.0
    assert loop.sealed[10] == 0.25


def test_a_boundary_is_passed_with_a_quorum_if_there_is_one() -> None:
    """Three of four ranks decide when the fourth does not come; two do not, and the log says so."""
    loop = Loop(
        session(
            Recorder(metric="loss", factor=0.5),
            ranks=4,
            metrics={"loss": {"quorum": 3}},
            reaction=REACTS,
        )
    )
    loop.seal(0, 5).report(4, {0: 1.0, 1: 2.0, 3: 6.0}).give(Pass(5))
    loop.seal(5, 5).report(9, {0: 1.0, 1: 2.0}).give(Pass(10))
    loop.seal(10)
    assert loop.of(Measured) == [Measured(4, "loss", 3.0, 3, at=5)]
    assert loop.missed == [Missed(9, "loss", ranks=2, wanted=4, at=10)]
    assert (loop.sealed[5], loop.sealed[10]) == (0.5, 0.5)
    assert not loop.session.pending


def test_passing_is_for_the_boundary_that_was_waited_at() -> None:
    """An order to pass that comes too late, or where nothing is missing, does nothing."""
    loop = Loop(session(reaction=REACTS)).seal(0, 5)
    assert loop.give(Pass(10)) == ()
    loop.report(4, {0: 1.0})
    assert loop.give(Pass(5)) == ()


def test_boundaries_count_from_the_first_step() -> None:
    """A session that starts at step 3 decides at 8, 13 and so on."""
    loop = Loop(session(Recorder(metric="loss", factor=0.5), reaction=REACTS, start_step=3))
    loop.seal(3, 50)
    assert loop.session.horizon == 8
    loop.report(7, {0: 1.0}).seal(8, 50)
    assert loop.session.horizon == 13


def test_nobody_waits_for_a_controller_that_sleeps() -> None:
    """Boundaries are awaited only if a controller saw a step since the one before."""
    loop = Loop(session(Recorder(metric="loss", from_step=7, until_step=16), reaction=REACTS))
    awaits = []
    for boundary in range(5, 35, 5):
        loop.seal(boundary - 5, 5)
        awaits.append(bool(waits_for(loop.session, Seal(boundary, 1))))
        loop.report(boundary - 1, {0: 1.0})
    assert awaits == [False, True, True, True, False, False]


@pytest.mark.parametrize("asleep", [{"from_step": 10**6}, {"until_step": 1}])
def test_sleep_lets_nothing_pile_up(asleep: dict[str, int]) -> None:
    """Whatever the windows, reports during a sleep are consumed at the boundaries."""
    loop = Loop(session(Recorder(metric="loss", **asleep), reaction=REACTS, max_lookahead=64))
    loop.seal(0, 3).report(0, {0: 1.0})
    for _ in range(40):
        start = loop.session.horizon
        loop.seal(start, 64)
        for step in range(start, loop.session.horizon):
            loop.report(step, {0: 1.0})
        loop.seal(loop.session.horizon, 3)
        loop.report(loop.session.horizon - 1, {0: 1.0})
    assert loop.session.horizon > 200
    assert len(loop.session.pending) <= EVERY


def test_only_readings_decide_how_long_a_boundary_waits() -> None:
    """A metric that no controller watches is not waited for."""
    loop = Loop(session(Recorder(metric="view"), metrics={"view": {"of": "loss"}}, reaction=REACTS))
    loop.seal(0, 5).report(4, {0: 1.0}, "accuracy")
    assert waits_for(loop.session, Seal(5, 1)) == ("loss",)
    loop.report(4, {0: 1.0})
    assert waits_for(loop.session, Seal(5, 1)) == ()


RANKS = 3
readings = st.builds(
    Reading, st.integers(0, RANKS - 1), st.integers(0, 30), st.sampled_from("ab"), metrics
)
commands = st.one_of(
    st.builds(Seal, st.integers(0, 32), st.integers(1, 20)),
    st.lists(readings, min_size=1, max_size=4).map(lambda some: Report(tuple(some))),
    st.builds(
        lambda step, value: Report(
            tuple(Reading(r, step, m, value) for r in range(3) for m in "ab")
        ),
        st.integers(0, 30),
        metrics,
    ),
    st.builds(Pass, st.sampled_from([4, 8, 12, 16, 20])),
    st.builds(lambda factor: Act(Scale(factor=factor)), st.floats(0.5, 2)),
)
reacting = st.fixed_dictionaries(
    {
        "reaction": st.builds(lambda every: {"decide_every": every}, st.sampled_from([1, 2, 4])),
        "max_lookahead": st.none() | st.integers(1, 9),
        "metrics": st.fixed_dictionaries(
            {"a": st.sampled_from([{}, {"quorum": 2}, {"aggregate": "rank0"}, {"deadline": 2}])}
        ),
    }
)
sleepers = st.lists(
    st.builds(
        lambda metric, start, length: Recorder(
            metric=metric, factor=0.9, from_step=start, until_step=length and start + length
        ),
        st.sampled_from("ab"),
        st.integers(0, 12),
        st.none() | st.integers(1, 9),
    ),
    min_size=1,
    max_size=3,
)


def live(start: Loop, orders: list[Command]) -> Loop:
    """Apply commands one after the other; refused ones change nothing."""
    for order in orders:
        try:
            start.give(order)
        except PacesetterError:
            continue
    return start


@given(reacting, sleepers, st.lists(commands, max_size=60))
def test_no_step_is_sealed_before_its_boundary_was_decided_or_passed(
    spec: dict[str, Any], rules: list[Recorder], orders: list[Command]
) -> None:
    """A boundary needs each awake metric closed at the step before, or a pass.

    And whatever was decided holds from exactly the boundary.
    """
    every = spec["reaction"]["decide_every"]
    loop = live(Loop(session(*rules, ranks=RANKS, **spec)), orders)
    closed: dict[str, int] = {}
    passed: set[int] = set()
    decided: list[int] = []
    for event in loop.events:
        if isinstance(event, MeasurementsClosed):
            closed |= event.steps
        elif isinstance(event, BoundaryPassed):
            passed.add(event.at)
        elif isinstance(event, Decided):
            decided.append(event.at)
        elif isinstance(event, Sealed):
            boundary = event.start
            assert event.start // every == (event.start + event.count - 1) // every, "crossed"
            if boundary == 0 or boundary % every or boundary in passed:
                continue
            awake = range(boundary - every, boundary)
            for rule in rules:
                if any(map(rule.is_awake, awake)):
                    assert closed.get(rule.metric, -1) >= boundary - 1
    assert all(at % every == 0 and at > 0 for at in decided)
    assert len(loop.session.pending) < MAX_PENDING


@given(reacting, sleepers, st.integers(0, 2**32))
def test_racing_ranks_get_the_same_values_in_any_order(
    spec: dict[str, Any], rules: list[Recorder], seed: int
) -> None:
    """Each rank reports its steps in turn and asks for the next; any interleaving gives the same.

    Every rank may be ahead of the others up to the boundary, where all wait for all.
    """
    steps = 14
    dice = random.Random(seed)
    losses = {
        (rank, step, metric): dice.choice([dice.random(), 0.5, math.nan, math.inf])
        for rank in range(RANKS)
        for step in range(steps)
        for metric in "ab"
    }

    def race(order: random.Random) -> list[Any]:
        loop = Loop(session(*rules, ranks=RANKS, **{**spec, "max_lookahead": None}))
        at = [0] * RANKS
        for _ in range(100_000):
            running = [rank for rank in range(RANKS) if at[rank] < steps]
            if not running:
                break
            rank = order.choice(running)
            step = at[rank]
            loop.give(Seal(step, order.randint(1, 4)))
            if step >= loop.session.horizon:
                continue  # it waits, and asks again
            for metric in shuffled("ab", order):
                loop.report(step, {rank: losses[rank, step, metric]}, metric)
            at[rank] += 1
        assert loop.session.horizon >= steps, "the ranks wait for each other for ever"
        values_of_steps = [loop.sealed[step] for step in range(steps)]
        return [
            values_of_steps,
            repr([(e.at, e.step, e.value) for e in loop.decided if e.at < steps]),
        ]

    assert race(random.Random(seed + 1)) == race(random.Random(seed + 2))


def test_an_order_of_an_operator_needs_no_boundary() -> None:
    """An operator's order holds from the horizon, wherever that is."""
    loop = Loop(session(reaction=REACTS)).seal(0, 3)
    loop.give(Act(Scale(factor=0.5)))
    loop.seal(3, 9)
    assert loop.sealed == {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.5, 4: 0.5}


def waiting_at(step: int) -> Loop:
    """Return a session that waits for the measurement of the step before this boundary."""
    loop = Loop(session(Recorder(metric="loss"), reaction={"decide_every": EVERY}))
    while loop.session.horizon < step:
        loop.seal(loop.session.horizon)
        if loop.session.horizon < step:
            loop.report(loop.session.horizon - 1, {0: 1.0})
    return loop


def seconds_waited(loop: Loop, now: float) -> float | None:
    """Return how long the horizon has been waited for, once a trainer asks at a moment."""
    loop.give(Await(now))
    return None if loop.session.waited is None else loop.session.waited.seconds


def test_time_in_which_no_trainer_asks_is_not_waited() -> None:
    """A trainer that comes back an hour later resumes the wait nearly where it was left."""
    loop = waiting_at(EVERY)
    assert loop.session.waited is None
    assert seconds_waited(loop, 1000.0) == 0.0
    assert seconds_waited(loop, 1003.0) == 3.0
    assert seconds_waited(loop, 4603.0) == 3.0 + LONGEST_GAP
    assert seconds_waited(loop, 1000.0) == 3.0 + LONGEST_GAP, "no clock runs backwards"


def test_a_thousand_ranks_that_wait_are_recorded_once() -> None:
    """A rank that asks just after another records nothing, yet its wait counts."""
    loop = waiting_at(EVERY)
    assert [len(loop.give(Await(1000.0 + rank / 4000))) for rank in range(1000)] == [1] + [0] * 999
    assert loop.session.waited is not None
    assert loop.session.waited.until(1000.25).seconds == 0.25


def test_each_step_is_waited_for_from_the_start() -> None:
    """The next boundary, and the same step in another attempt, start at zero."""
    loop = waiting_at(EVERY)
    seconds_waited(loop, 1000.0)
    assert seconds_waited(loop, 1002.0) == 2.0
    past = RestorePoint(loop.session, (), (), ())
    assert restore(past, loop.session.horizon).waited is None
    loop.report(EVERY - 1, {0: 1.0})
    assert seconds_waited(loop, 1003.0) == 2.0, "nothing is waited for any more"
    for step in range(EVERY, 2 * EVERY):
        loop.seal(step)
    assert loop.session.horizon == 2 * EVERY
    assert seconds_waited(loop, 1004.0) == 0.0
