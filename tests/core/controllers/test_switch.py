"""Switching schedules by a metric: to which law, on which clock, from which value."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.controllers.streams import restarted
from pacesetter_service.core.actions import Scale
from pacesetter_service.core.commands import Act, Reading, Report, Seal
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.controllers.switch import Switch
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Decided, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.codec import dump_plan, load_plan
from strategies import metrics, rates

PLATEAUED = {"kind": "plateaued", "patience": 2}
COSINE = {"kind": "cosine", "total_steps": 10, "min_lr": 0.001}
PLAIN = {"kind": "cosine", "total_steps": 10}
LATER = {"kind": "exponential", "gamma": 0.5}
ONE_CYCLE = {
    "kind": "one_cycle",
    "max_lr": 0.1,
    "total_steps": 40,
    "cycle_momentum": True,
}
STAGE = {"when": PLATEAUED, "schedule": COSINE}


def switching(*stages: dict[str, Any], **spec: Any) -> Session:
    """Create a session under a switch of these stages, by default with a base rate of 0.1."""
    rule = {"kind": "switch", "metric": "loss", "stages": stages, **spec.pop("rule", {})}
    base = {} if "groups" in spec else {"base_lr": 0.1}
    before = spec.pop("controllers", [])
    return create(
        SessionSpec.model_validate({"name": "s", "controllers": [*before, rule], **base, **spec})
    )


def reopened(session: Session) -> Session:
    """Write the state as the store does and read it back."""
    rules, states = session.spec.rules, session.control.states
    return replace(
        session,
        timelines=load_plan(dump_plan(session)),
        control=replace(session.control, states=tuple(map(restarted, rules, states))),
    )


def train(
    session: Session, values: list[float | None], restarts: set[int] = frozenset()
) -> tuple[Session, dict[str, list[float]], list[Decided]]:
    """Train one step for each value: ask for it, then report; None is a step without a report."""
    rows: dict[str, list[float]] = {name: [] for name in session.timelines}
    decisions = []
    for value in values:
        step = session.horizon
        if step in restarts:
            session = reopened(session)
        events = decide(session, Seal(step, 1)).events
        session = evolve_all(session, events)
        decisions += [event for event in events if isinstance(event, Decided)]
        assert isinstance(events[-1], Sealed)
        for name, row in events[-1].values.items():
            rows[name].append(float(row[0]))
        if value is not None:
            report = Report((Reading(0, step, "loss", value),))
            session = evolve_all(session, decide(session, report).events)
    return session, rows, decisions


def law(
    schedule: dict[str, Any], count: int, base: float = 0.1, channel: str = "lr"
) -> list[float]:
    """Evaluate a schedule alone, from its own step 0."""
    curve = resolve(Schedule.parse(schedule), Clock(steps_per_epoch=5)).channels()[channel]
    return curve.values(np.arange(count, dtype=np.float64), base).tolist()


def test_a_constant_becomes_a_cosine_once_the_loss_has_plateaued() -> None:
    """Patience 2 ends at the fourth equal loss; from the next step the cosine is at its step 0."""
    _, rows, decisions = train(switching(STAGE), [1.0] * 20)
    assert rows["lr"] == [0.1] * 4 + law(COSINE, 16)
    [decision] = decisions
    assert decision.at == 4
    assert decision.advice == "switched"
    assert decision.reason == (
        "loss: it has not improved on 1.0 in 3 measurements (now 1.0; patience 2);"
        " stage 1 of 1 begins: cosine"
    )


def test_the_trainer_is_told() -> None:
    """A notice `switched` comes with the first step of the new law."""
    session, _, _ = train(switching(STAGE), [1.0] * 6)
    [notice] = session.control.notices
    assert (notice.step, notice.code) == (4, "switched")


def test_each_stage_has_a_clock_and_a_patience_of_its_own() -> None:
    """The second predicate begins when the first has held, and the second law at its step 0."""
    session = switching(STAGE, {"when": PLATEAUED, "schedule": LATER})
    session, rows, decisions = train(session, [1.0] * 12)
    assert [decision.at for decision in decisions] == [4, 8]
    assert rows["lr"] == [0.1] * 4 + law(COSINE, 4) + law(LATER, 4)
    assert session.control.states[0].predicate is None  # type: ignore[attr-defined]


def test_after_the_last_stage_nothing_happens() -> None:
    """With no stage left the state is final, whatever is measured."""
    session, _, decisions = train(switching(STAGE), [1.0] * 30 + [math.nan, 50.0])
    assert len(decisions) == 1
    assert session.control.states[0].stage == 1  # type: ignore[attr-defined]


CONTINUED = st.sampled_from(
    [
        {"kind": "constant"},
        PLAIN,
        {"kind": "linear", "start_factor": 1.0, "end_factor": 0.1, "total_iters": 9},
        {"kind": "exponential", "gamma": 0.9},
        {"kind": "polynomial", "total_steps": 9},
    ]
)


@given(rates, st.floats(0.5, 0.999), CONTINUED, st.integers(0, 5))
def test_continue_makes_no_jump_to_the_bit(
    base: float, gamma: float, schedule: dict[str, Any], patience: int
) -> None:
    """The first value of a law that starts at its base is the last value before it."""
    when = {"kind": "plateaued", "patience": patience}
    session = switching(
        {"when": when, "schedule": schedule, "value": "continue"},
        base_lr=base,
        schedule={"kind": "exponential", "gamma": gamma},
    )
    _, rows, [decision] = train(session, [1.0] * 12)
    before = rows["lr"][decision.at - 1]
    assert rows["lr"][decision.at :] == law(schedule, 12 - decision.at, before)
    assert rows["lr"][decision.at] == before


def test_level_keeps_what_controllers_have_cut_and_base_forgets_it() -> None:
    """After a cut to a half the cosine starts at a half, or at the base if that is asked for."""
    plateau = {"kind": "plateau", "metric": "loss", "factor": 0.5, "patience": 1, "cooldown": 50}
    starts = {}
    for value in ("level", "base", "continue"):
        stage = {**STAGE, "value": value}
        session = switching(stage, controllers=[plateau], schedule=LATER)
        _, rows, decisions = train(session, [1.0] * 5)
        assert [decision.at for decision in decisions] == [3, 4]
        starts[value] = rows["lr"][4]
    assert starts == {"level": 0.05, "base": 0.1, "continue": 0.1 * 0.5**3 * 0.5}


def test_groups_go_over_together_each_from_its_own_base() -> None:
    """Every group's law is the new one at that group's base, on one clock."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0, "schedule": LATER}}
    _, rows, _ = train(switching(STAGE, groups=groups), [1.0] * 10)
    assert rows["body.lr"] == [0.1] * 4 + law(COSINE, 6)
    assert rows["head.lr"] == law(LATER, 4, 1.0) + law(COSINE, 6, 1.0)


def test_groups_continue_each_from_its_own_value() -> None:
    """With `continue` no group jumps, though they were at different values."""
    stage = {"when": PLATEAUED, "schedule": PLAIN, "value": "continue"}
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0, "schedule": LATER}}
    _, rows, _ = train(switching(stage, groups=groups), [1.0] * 10)
    for row in rows.values():
        assert row[4] == row[3]


def test_momentum_goes_over_with_the_rate() -> None:
    """A session that drives momentum gets both laws of the stage, each on the new clock."""
    second = {
        "kind": "channels",
        "laws": {"lr": COSINE, "momentum": {"kind": "hold", "value": 0.8}},
    }
    session = switching({"when": PLATEAUED, "schedule": second}, schedule=ONE_CYCLE)
    _, rows, _ = train(session, [1.0] * 10)
    assert rows["lr"] == law(ONE_CYCLE, 4) + law(COSINE, 6)
    assert rows["momentum"] == law(ONE_CYCLE, 4, channel="momentum") + [0.8] * 6


def test_momentum_can_continue() -> None:
    """With `continue` the momentum goes on from its own last value, not from the rate's."""
    second = {"kind": "channels", "laws": {"lr": PLAIN, "momentum": {"kind": "constant"}}}
    session = switching(
        {"when": PLATEAUED, "schedule": second, "value": "continue"}, schedule=ONE_CYCLE
    )
    _, rows, _ = train(session, [1.0] * 10)
    assert rows["lr"][4] == rows["lr"][3]
    assert rows["momentum"][4:] == [rows["momentum"][3]] * 6


def test_a_stage_must_drive_what_the_session_drives() -> None:
    """A law of the rate alone cannot take over a session that drives momentum too."""
    with pytest.raises(ValidationError, match="goes over to a schedule that drives lr"):
        switching(STAGE, schedule=ONE_CYCLE)


def test_a_plateau_in_the_warmup_is_not_seen() -> None:
    """Before `from_step` nothing is measured: losses that stand still in a warmup do not count."""
    warmup = {"kind": "warmup", "steps": 6, "schedule": {"kind": "constant"}}
    session = switching(STAGE, schedule=warmup, rule={"from_step": 6})
    _, rows, [decision] = train(session, [1.0] * 14)
    assert decision.at == 10
    assert rows["lr"] == law(warmup, 10) + law(COSINE, 4)


def test_lengths_in_stages_are_in_the_units_of_the_session() -> None:
    """Epochs in a stage's schedule and in its predicate are converted to steps."""
    stage = {
        "when": {"kind": "any_of", "of": [{"kind": "step", "at": {"epochs": 1}}]},
        "schedule": {"kind": "cosine", "total_steps": {"epochs": 2}},
    }
    _, rows, [decision] = train(switching(stage, steps_per_epoch=5), [1.0] * 16)
    assert decision.at == 6  # the measurement of step 5 decides the step after it
    assert rows["lr"] == [0.1] * 6 + law({"kind": "cosine", "total_steps": 10}, 10)


def test_a_step_without_a_measurement_is_passed_late() -> None:
    """`step` is evaluated at measurements only: the first one after it decides."""
    stage = {"when": {"kind": "step", "at": 3}, "schedule": COSINE}
    _, rows, [decision] = train(switching(stage), [1.0, None, None, None, None, None, 1.0, 1.0])
    assert decision.at == 7
    assert rows["lr"] == [0.1] * 7 + [0.1]


def test_a_rate_of_zero_continues_at_zero() -> None:
    """What continues a finished cosine stays at 0: `level` is what starts it again."""
    done = {"kind": "cosine", "total_steps": 3}
    for value, start in (("continue", 0.0), ("level", 0.1)):
        session = switching({**STAGE, "value": value}, schedule=done)
        _, rows, _ = train(session, [1.0] * 6)
        assert rows["lr"][3] == 0
        assert rows["lr"][4] == start


def test_an_operator_moves_on_by_hand() -> None:
    """`next_stage` switches whatever the predicate says, and begins the next one afresh."""
    manual = {"when": {"kind": "by_hand"}, "schedule": COSINE}
    rule = Switch.model_validate({"metric": "loss", "stages": [manual, STAGE]})
    first = rule.next_stage(rule.init(), 3)
    assert first.verdict is not None
    assert first.verdict.transition == rule.stages[0].transition
    assert first.verdict.reason == "by hand; stage 1 of 2 begins: cosine"
    assert first.state.stage == 1  # type: ignore[attr-defined]
    second = rule.next_stage(first.state, 5, "the night shift")
    assert second.verdict is not None
    assert second.verdict.reason == "the night shift; stage 2 of 2 begins: cosine"
    third = rule.next_stage(second.state, 7)
    assert third.verdict is None
    assert third.state == second.state


def test_no_measurement_moves_on_from_by_hand() -> None:
    """With `by_hand` alone the law stays."""
    stage = {"when": {"kind": "by_hand"}, "schedule": COSINE}
    _, rows, decisions = train(switching(stage), [1.0, math.nan, -math.inf, 1.0, 1.0])
    assert rows["lr"] == [0.1] * 5
    assert not decisions


STAGES = [
    {**STAGE, "value": "continue"},
    {
        "when": {"kind": "any_of", "of": [{"kind": "spike", "window": 2}, PLATEAUED]},
        "schedule": LATER,
        "value": "level",
    },
    {
        "when": {
            "kind": "all_of",
            "of": [{"kind": "slope", "window": 4}, {"kind": "below", "value": 5.0}],
        },
        "schedule": {"kind": "constant"},
        "value": "base",
    },
]


@given(st.lists(metrics, max_size=30), st.sets(st.integers(0, 30)))
def test_a_restart_changes_nothing(values: list[float], restarts: set[int]) -> None:
    """State and timelines are written and read as the store does: the bits stay the same."""
    _, rows, decisions = train(switching(*STAGES), list(values))
    _, again, decisions_again = train(switching(*STAGES), list(values), restarts)
    assert again == rows
    assert repr(decisions_again) == repr(decisions)


@given(st.lists(metrics, max_size=30))
def test_stages_come_in_their_order_and_once(values: list[float]) -> None:
    """Whatever is measured, the stage never goes back, and advances by one at a time."""
    session, _, decisions = train(switching(*STAGES), list(values))
    assert [each.transition for each in decisions] == [
        stage.transition
        for stage in session.spec.rules[0].stages[: len(decisions)]  # type: ignore[attr-defined]
    ]


def test_a_switch_is_data() -> None:
    """Its JSON gives an equal controller, predicates and schedules included."""
    rule = Switch.model_validate({"metric": "loss", "stages": STAGES})
    assert Controller.parse(json.loads(json.dumps(jsonable(rule)))) == rule


def test_a_switch_without_stages_is_refused() -> None:
    """There must be a stage to switch to."""
    with pytest.raises(ValidationError, match="Name a stage"):
        Switch.model_validate({"metric": "loss", "stages": []})


def test_measurements_from_before_a_stage_are_not_its_own() -> None:
    """Windows sealed ahead delay a stage; what was measured until then does not end it."""
    below = {"when": {"kind": "below", "value": 1.0}, "schedule": LATER}
    session = switching(below, {**below, "schedule": COSINE}, max_lookahead=8)
    session = evolve_all(session, decide(session, Seal(0, 8)).events)
    for step in range(8):
        report = Report((Reading(0, step, "loss", 0.5),))
        session = evolve_all(session, decide(session, report).events)
    events = decide(session, Seal(8, 8)).events
    [decision] = [event for event in events if isinstance(event, Decided)]
    assert decision.at == 8
    assert decision.transition is not None
    assert jsonable(decision.transition.schedule)["kind"] == "exponential"


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_two_switches_in_one_step_continue_without_a_jump(scale: float) -> None:
    """When a second switch moves on in the same step, the value is still the last one."""
    stage = {**STAGE, "when": {"kind": "below", "value": 1.0}, "value": "continue"}
    other = {"kind": "switch", "metric": "loss", "stages": [stage]}
    exponential = {"kind": "exponential", "gamma": 0.9}
    session = switching({**stage, "schedule": PLAIN}, controllers=[other], schedule=exponential)
    session = evolve_all(session, decide(session, Act(Scale(factor=scale))).events)
    _, rows, decisions = train(session, [2.0, 2.0, 0.5, 2.0])
    assert len(decisions) == 2
    assert rows["lr"][3] == pytest.approx(rows["lr"][2], rel=1e-15)
