"""Why a value is what it is, reconstructed from the events that caused it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.actions import Action, Limit, Order, Scale
from pacesetter_service.core.commands import Act, Command, Pass, Reading, Report, Seal
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.controllers.plateau import PlateauState
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    BoundaryPassed,
    Cancelled,
    Decided,
    Event,
    Forked,
    Logged,
    Missed,
    Ordered,
    RateDeviated,
    Sealed,
)
from pacesetter_service.core.evolve import evolve
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.timeline import Timeline
from pacesetter_service.insight.explain import Explanation, Recorded, Why, enough, explain
from strategies import metrics

PLATEAU = {"kind": "plateau", "metric": "val_loss", "patience": 1, "factor": 0.5}
COSINE = {"kind": "cosine", "total_steps": 1000}
STATE = PlateauState(best=1.0)


class History:
    """A session, what its log would hold, and what it has sealed."""

    def __init__(self, **spec: Any) -> None:
        spec = {"name": "why", "base_lr": 0.1, "controllers": [PLATEAU], **spec}
        self.session: Session = create(SessionSpec.model_validate(spec))
        self.log: list[Recorded] = []
        self.sealed: list[dict[str, float]] = []
        self.whole: dict[str, Timeline] = dict(self.session.timelines)
        """The timelines as they would be if no segment were ever dropped."""

    def do(self, command: Command) -> "History":
        """Submit a command."""
        for event in decide(self.session, command).events:
            self._fold(event)
        return self

    def train(self, *losses: float) -> "History":
        """Ask for a step and report a loss, for each of the steps."""
        for loss in losses:
            step = self.session.horizon
            self.do(Seal(step, 1)).do(Report((Reading(0, step, "val_loss", loss),)))
        return self

    def _fold(self, event: Event) -> None:
        before = self.session.timelines
        self.session = evolve(self.session, event)
        match event:
            case Sealed(count=count, values=values):
                self.sealed += [
                    {name: float(row[index]) for name, row in values.items()}
                    for index in range(count)
                ]
            case Decided() | Acted() | Missed() | BoundaryPassed():
                self.log.append(Recorded(event, len(self.log) + 1, 1, "2026-01-01T00:00:00+00:00"))
        for name, line in self.session.timelines.items():
            if line is not before[name]:
                self.whole[name] = self.whole[name].append(line.segments[-1])

    def until(self, step: int, *kinds: type) -> list[Recorded]:
        """Return what the store would: events that hold at a step, the newest first."""
        return [
            each
            for each in reversed(self.log)
            if isinstance(each.event, kinds) and each.event.at <= step  # type: ignore[attr-defined]
        ]

    def explain(self, step: int, **values: float) -> Explanation:
        """Explain a step; `values` are those of a step that is not sealed."""
        known = self.sealed[step] if step < len(self.sealed) else values
        nearby = self.until(step, Missed, BoundaryPassed)
        return explain(self.session, step, known, self.until(step, Decided, Acted), nearby)

    def why(self, step: int, **values: float) -> Why:
        """Explain the learning rate of a step."""
        return self.explain(step, **values).series["lr"]


def test_a_value_that_nothing_has_changed_names_its_law() -> None:
    """Without decisions or actions the reason is the schedule, from the session's creation."""
    history = History(schedule=COSINE, controllers=[], start_step=5).do(Seal(5, 3))
    said = explain(history.session, 6, history.sealed[1], [])
    why = said.series["lr"]
    assert (why.law, why.level, why.since, why.cause) == ("cosine", 0.1, 5, None)
    assert said.text() == (
        f"lr was {history.sealed[1]['lr']!r} at step 6 (sealed). cosine at base 0.1, as created at"
        " step 5; nothing has changed it since.\n"
    )


def test_a_cut_says_who_saw_what_and_why() -> None:
    """The text has the value, the law, the cut, controller, metric, values, patience and state."""
    history = History(schedule=COSINE).train(0.29, 0.3, 0.31, 0.2)
    text = history.explain(3).text()
    assert text == (
        f"lr was {history.sealed[3]['lr']!r} at step 3 (sealed). cosine, cut to 0.5 of its level"
        " (0.1 -> 0.05) since step 3: plateau #0 saw val_loss 0.31 at step 2; it has not improved"
        " on 0.29 in 2 measurements (now 0.31; patience 1). Its state: bad 1 -> 0."
        " Recorded 2026-01-01T00:00:00+00:00 as event 1.\n"
        "Its level is 0.05, its base 0.1.\n"
    )


def test_the_past_is_told_after_the_timelines_have_let_go_of_it() -> None:
    """A step far below the horizon is explained by the change that held there, not a later one."""
    history = History().train(*[1.0] * 12)
    assert history.session.timelines["lr"].segments[0].start > 4
    why = history.why(4)
    assert why.since == 3
    assert why.level == history.sealed[4]["lr"] == 0.05
    assert history.why(2).cause is None


@given(
    st.lists(st.one_of(metrics, st.sampled_from(["halve", "double"])), min_size=1, max_size=40),
    st.sampled_from([1, 3]),
)
def test_the_cause_is_always_the_change_that_governs(
    steps: list[float | str], lookahead: int
) -> None:
    """In any history each sealed step names the event that began its segment."""
    history = History(max_lookahead=lookahead, schedule=COSINE)
    for each in steps:
        if isinstance(each, str):
            history.do(Act(Scale(factor=0.5 if each == "halve" else 2.0, reason=each)))
        else:
            history.do(Seal(history.session.horizon, 3))
            last = history.session.horizon - 1
            history.do(Report((Reading(0, last, "val_loss", each),)))
    for step in range(len(history.sealed)):
        why, segment = history.why(step), history.whole["lr"].segment_at(step)
        assert why.since == segment.start
        assert why.value == history.sealed[step]["lr"]
        assert why.level in (None, segment.level)
        if why.cause is None:
            assert segment.cause == "created"
        elif isinstance(why.cause.event, Decided):
            assert why.cause.event.reason == segment.cause
        else:
            assert isinstance(why.cause.event, Acted)
            assert why.cause.event.action.cause() == segment.cause


def test_an_operator_is_named_with_the_reason_given() -> None:
    """An action is described as an order, with its reason, and named again after a later cut."""
    history = (
        History()
        .train(1.0)
        .do(Act(Scale(factor=0.5, reason="unstable"), actor="alice"))
        .train(1.0, 1.0, 1)
    )
    assert "constant, since step 1 by alice: scaled by 0.5: unstable." in history.why(1).text
    assert "Before that: step 1, by alice: scaled by 0.5: unstable." in history.why(3).text


def test_orders_are_told_however_many_cuts_came_after() -> None:
    """An operator's order that still holds is named after any number of decisions."""
    history = History().train(1.0).do(Act(Scale(factor=0.5, reason="unstable"), actor="alice"))
    history.train(*[1.0] * 30)
    assert "step 1, by alice: scaled by 0.5: unstable" in history.why(29).text
    changes = history.until(29, Decided, Acted)
    assert list(enough(history.session.spec, changes, 100)) == changes[:4]
    assert list(enough(history.session.spec, changes, 2)) == changes[:2]


def test_a_change_of_one_group_is_no_cause_for_another() -> None:
    """A group at its floor is not said to have been cut with the others."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0, "schedule": COSINE}}
    floor = {**PLATEAU, "min_lr": {"body": 0.1}}
    history = History(base_lr=None, groups=groups, controllers=[floor]).train(*[1.0] * 4)
    series = history.explain(3).series
    assert series["body.lr"].cause is None
    assert series["body.lr"].law == "constant"
    assert series["head.lr"].since == 3
    assert "cut to 0.5 of its level (1 -> 0.5)" in series["head.lr"].text


def test_series_with_one_reason_share_a_paragraph() -> None:
    """Two groups under one law are described together, each with its own value."""
    groups = {name: {"base_lr": 0.1} for name in ("body", "head")}
    history = History(base_lr=None, groups=groups).train(1.0)
    assert (
        history.explain(0).text().startswith("body.lr was 0.1, head.lr was 0.1 at step 0 (sealed)")
    )


def test_a_forecast_tells_the_decision_that_is_on_its_way() -> None:
    """Past the horizon, the cut that the next sealing will make is named as not recorded yet."""
    history = History().train(0.5, 0.6, 0.7)
    said = history.explain(3, lr=0.05)
    assert not said.sealed
    assert said.text().startswith("lr would be 0.05 at step 3 (forecast). constant, cut to 0.5")
    assert said.series["lr"].cause is not None
    assert said.series["lr"].cause.seq is None
    assert "That will be recorded when step 3 is sealed." in said.text()
    assert "Steps from 3 on are not sealed" in said.text()


def test_a_boundary_that_waits_or_was_passed_is_mentioned() -> None:
    """The notes say which metric is awaited, and which steps were sealed without it."""
    history = History(reaction={"decide_every": 2}, ranks=2).do(Seal(0, 2))
    history.do(Report((Reading(0, 1, "val_loss", 1.0),)))
    waits = history.explain(2, lr=0.1).text()
    assert "Step 2 waits for the measurement of val_loss at step 1." in waits
    history.do(Pass(2)).do(Seal(2, 1))
    notes = history.explain(2).notes
    assert any("1 of 2 ranks had reported it" in note for note in notes)
    assert any("Step 2 was sealed without the measurement of val_loss" in note for note in notes)


def decided(**changes: Any) -> Decided:
    """Return a decision of the first controller at step 4."""
    known: dict[str, Any] = {
        "controller": 0,
        "metric": "val_loss",
        "step": 3,
        "value": math.nan,
        "at": 4,
        "reason": "because",
        "before": STATE,
        "after": STATE,
    }
    return Decided(**{**known, **changes})


def test_a_law_that_took_over_is_named_until_the_next_one() -> None:
    """After a transition the law is its schedule, also where a later cut is the cause."""
    law = Transition(schedule=Schedule.parse({"kind": "linear", "total_iters": 9}))
    history = History(schedule=COSINE, max_lookahead=8).do(Seal(0, 4))
    history._fold(decided(transition=law))
    history._fold(decided(at=6, levels={"lr": (0.1, 0.05)}))
    history.do(Seal(4, 3))
    assert history.why(3).law == "cosine"
    assert "linear, which took over at the level reached since step 4" in history.why(4).text
    assert history.why(6).law == "linear"
    assert history.why(6).since == 6


@pytest.mark.parametrize(
    ("action", "law", "said"),
    [
        ({"kind": "set", "lr": 0.01}, "hold", "by alice: set to 0.01: asked"),
        (
            {"kind": "replace", "schedule": {"kind": "one_cycle", "total_steps": 50}},
            "one_cycle",
            "another schedule (one_cycle)",
        ),
        ({"kind": "revert"}, "cosine", "went back to the plan"),
        ({"kind": "scale", "factor": 2.0}, "cosine", "scaled by 2.0"),
        ({"kind": "hold"}, "cosine", "Its clock is stopped: it keeps the value of step 4."),
    ],
)
def test_an_order_names_the_law_that_follows_from_it(
    action: dict[str, Any], law: str, said: str
) -> None:
    """The explanation after an order names the law that governs from then on."""
    history = History(schedule=COSINE, controllers=[]).do(Seal(0, 2))
    given = Action.parse({**action, "reason": "asked"})
    history.do(Act(given, at=4, actor="alice"))
    waiting = history.explain(5, lr=0.1).series["lr"]
    history.do(Seal(2, 10))
    sealed = history.why(5)
    for why in (waiting, sealed):
        assert (why.law, why.since) == (law, 4)
        assert said in why.text
    assert waiting.cause is not None
    assert waiting.cause.seq is None
    assert history.why(3).law == "cosine"
    assert history.why(3).cause is None


def test_limits_change_no_value_and_are_no_cause() -> None:
    """An order that only bounds others is not the reason of a value."""
    history = History(controllers=[]).do(Act(Limit(max_lr=1.0))).do(Seal(0, 3))
    assert history.why(2).cause is None


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Ordered(Order(3, 9, Scale(factor=2.0), "bo")), "bo ordered for step 9: scaled by 2.0."),
        (Acted(Order(3, 9, Scale(factor=2.0), "bo")), "From step 9 on, by bo: scaled by 2.0."),
        (Cancelled(3, "bo"), "bo cancelled order 3."),
        (AttemptOpened(2, 9, "job-7", "bo", ()), "bo opened attempt 2 at step 9 (job-7)"),
        (Forked("old", 2, 9, "bo"), "bo forked this session from step 9 of old, attempt 2."),
        (RateDeviated(1, 9, "lr", 0.2, 0.1), "Rank 1 trained step 9 with lr = 0.2, but 0.1 was"),
        (Missed(9, "loss", 1, 2, 11), "Step 9 has no measurement of loss: 1 of 2 ranks had"),
        (BoundaryPassed(9, ("a", "b")), "Step 9 was sealed without the measurement of a, b that"),
        (Archived(), "The session was archived"),
    ],
)
def test_every_event_has_its_sentence(event: Logged, said: str) -> None:
    """Every kind of event can be read as a sentence."""
    assert event.text(History().session.spec).startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": {"lr": (0.1, 0.2)}}, "lr raised to 2 of its level (0.1 -> 0.2)"),
        ({"levels": {"lr": (0.0, 0.2)}}, "lr raised from 0 to 0.2 (0 -> 0.2)"),
        ({"levels": {"a.lr": (0.2, 0.1), "b.lr": (2.0, 1.0)}}, "a.lr, b.lr cut to 0.5 of its"),
        ({"levels": {"lr": (0.1, math.nextafter(0.1, 0))}}, "0.1 -> 0.09999999999999999"),
        ({"pace": 1.5}, "the schedule's clock set to go 1.5 steps in one"),
        ({"rewarm": (100, 0.1)}, "rewarmed from 0.1 of the rate over 100 steps"),
        ({"advice": "roll_back"}, 'the trainer is told "roll_back"'),
        ({"finish": True}, "the session is finished"),
        ({"value": math.inf}, "saw val_loss inf at step 3"),
        ({"value": math.nan}, "saw val_loss nan at step 3"),
    ],
)
def test_every_effect_of_a_decision_is_said(changes: dict[str, Any], said: str) -> None:
    """Every effect of a decision has its words, non-finite values included."""
    spec = History().session.spec
    assert said in decided(**changes).text(spec)


def test_a_finished_session_says_so_above_its_horizon() -> None:
    """A forecast past the end names the end and its reason."""
    history = History().do(Seal(0, 4))
    history._fold(decided(finish=True, advice="finished", reason="the loss diverged"))
    said = history.explain(9, lr=0.1)
    assert (
        "The session is finished, no step from 1 on will be sealed: the loss diverged."
        in said.notes
    )
