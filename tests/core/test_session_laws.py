"""Laws of a session that no sequence of commands, in any order, can break."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act, Archive, Command, Reading, Report, Seal
from pacesetter_service.core.decide import MAX_PENDING, decide
from pacesetter_service.core.errors import (
    ActionRefusedError,
    PacesetterError,
    ScheduleNotFiniteError,
    SessionArchivedError,
    StaleAttemptError,
    StepOutOfRangeError,
    TooManyReportsError,
)
from pacesetter_service.core.events import Event, Sealed
from pacesetter_service.core.evolve import evolve, evolve_all
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.orders import planned
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import MAX_VALUES, MAX_WINDOW, SessionSpec
from same import text_of
from strategies import metrics, schedules


def session(**spec: Any) -> Session:
    """Create a session, by default with a base rate of 0.1."""
    base = {} if "groups" in spec else {"base_lr": 0.1}
    return create(SessionSpec.model_validate({"name": "law", **base, **spec}))


PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}

commands = st.one_of(
    st.builds(Seal, st.integers(0, 60), st.integers(1, 20)),
    st.builds(
        lambda step, value: Report((Reading(0, step, "loss", value),)), st.integers(0, 60), metrics
    ),
    st.builds(lambda factor: Act(Scale(factor=factor)), st.floats(0.1, 2)),
)


def run(state: Session, orders: list[Command]) -> tuple[Session, list[Event], dict[int, float]]:
    """Apply commands one after the other; refused ones change nothing."""
    happened: list[Event] = []
    sealed: dict[int, float] = {}
    for order in orders:
        try:
            events = decide(state, order).events
        except PacesetterError:
            continue
        for event in events:
            if isinstance(event, Sealed):
                for offset, value in enumerate(event.values["lr"]):
                    assert event.start + offset not in sealed, "sealed twice"
                    sealed[event.start + offset] = float(value)
        state = evolve_all(state, events)
        happened += events
    return state, happened, sealed


@given(schedules, st.lists(commands, max_size=25))
def test_sealed_steps_are_contiguous_and_sealed_once(
    schedule: dict[str, Any], orders: list[Command]
) -> None:
    """Whatever the commands, the sealed steps are exactly those below the horizon, each once."""
    state, _, sealed = run(session(schedule=schedule, controllers=[PLATEAU]), orders)
    assert sorted(sealed) == list(range(state.horizon))


@given(schedules, st.lists(commands, max_size=20), st.lists(commands, max_size=20))
def test_what_is_sealed_never_changes(
    schedule: dict[str, Any], before: list[Command], after: list[Command]
) -> None:
    """No later command changes a value that was handed out."""
    start = session(schedule=schedule, controllers=[PLATEAU])
    middle, _, sealed = run(start, before)
    _, _, later = run(middle, after)
    _, _, together = run(start, before + after)
    assert together == sealed | later


@given(st.lists(commands, max_size=30), st.integers(0, 60))
def test_folding_in_parts_equals_folding_whole(orders: list[Command], cut: int) -> None:
    """The state is the fold of its events, wherever the fold is interrupted."""
    start = session(schedule={"kind": "exponential", "gamma": 0.9}, controllers=[PLATEAU])
    state, events, _ = run(start, orders)
    first = evolve_all(start, events[:cut])
    assert text_of(evolve_all(first, events[cut:])) == text_of(state)


@given(st.lists(st.tuples(st.integers(0, 19), metrics), max_size=40), st.randoms())
def test_the_order_of_delivery_does_not_matter(
    reports: list[tuple[int, float]], shuffle: random.Random
) -> None:
    """Reports that arrive between two sealings have the same effect in any order."""
    start = evolve_all(ready := session(controllers=[PLATEAU], max_lookahead=20), [])
    start = evolve_all(ready, decide(ready, Seal(0, 20)).events)
    by_step = dict(reversed(reports))
    readings = [Reading(0, step, "loss", value) for step, value in by_step.items()]
    shuffled = list(readings)
    shuffle.shuffle(shuffled)
    ends = []
    for order in (readings, shuffled):
        state = start
        for reading in order:
            state = evolve_all(state, decide(state, Report((reading,))).events)
        events = decide(state, Seal(20, 5)).events
        assert isinstance(events[-1], Sealed)
        ends.append(
            (events[-1].values["lr"].tolist(), repr(evolve_all(state, events).control.states))
        )
    assert ends[0] == ends[1]


@given(st.lists(st.tuples(st.integers(0, 9), metrics), min_size=1, max_size=20))
def test_a_report_counts_once(reports: list[tuple[int, float]]) -> None:
    """Repeating reports, with the same or with other values, changes nothing."""
    start = session(controllers=[PLATEAU], max_lookahead=10)
    start = evolve_all(start, decide(start, Seal(0, 10)).events)
    readings = tuple(Reading(0, step, "loss", value) for step, value in reports)
    once = evolve_all(start, decide(start, Report(readings)).events)
    contradicted = tuple(reading._replace(value=9.0) for reading in readings)
    twice = evolve_all(once, decide(once, Report(contradicted)).events)
    assert repr(twice.pending) == repr(once.pending)
    sealed = evolve_all(once, decide(once, Seal(10, 1)).events)
    late = evolve_all(sealed, decide(sealed, Report(readings)).events)
    newest = max(step for step, _ in reports)
    assert all(reading.step > newest for reading in late.pending.values())


@given(st.permutations(list(range(8))), st.lists(metrics, min_size=8, max_size=8))
def test_ranks_are_averaged_in_their_own_order(order: list[int], values: list[float]) -> None:
    """The measurement of a step has the same bits in whatever order its ranks report."""
    start = session(controllers=[PLATEAU], ranks=8)
    start = evolve_all(start, decide(start, Seal(0, 1)).events)
    measured = []
    for ranks in (range(8), order):
        state = start
        for rank in ranks:
            report = Report((Reading(rank, 0, "loss", values[rank]),))
            state = evolve_all(state, decide(state, report).events)
        measured.append(repr(evolve_all(state, decide(state, Seal(1, 1)).events).control.states))
    assert measured[0] == measured[1]


def test_a_measurement_waits_for_all_ranks() -> None:
    """Until every rank has reported a step, controllers do not see it."""
    state = session(controllers=[{**PLATEAU, "patience": 0}], ranks=2)
    state = evolve_all(state, decide(state, Seal(0, 1)).events)
    state = evolve_all(state, decide(state, Report((Reading(1, 0, "loss", 1.0),))).events)
    state = evolve_all(state, decide(state, Seal(1, 1)).events)
    assert state.control.consumed == {}
    state = evolve_all(state, decide(state, Report((Reading(0, 0, "loss", 1.0),))).events)
    state = evolve_all(state, decide(state, Seal(2, 1)).events)
    assert state.control.consumed == {"loss": 0}


def test_controllers_bring_a_lookahead_of_one() -> None:
    """A session with a controller seals one step at a time by default."""
    assert session(controllers=[PLATEAU]).spec.lookahead == 1
    assert session(controllers=[PLATEAU], max_lookahead=64).spec.lookahead == 64
    assert session().spec.lookahead is None


def test_asking_again_changes_nothing() -> None:
    """A window below the horizon causes no event."""
    state = session()
    state = evolve_all(state, decide(state, Seal(0, 50)).events)
    assert decide(state, Seal(3, 40)).events == ()


def test_an_action_holds_from_the_horizon() -> None:
    """Scaling leaves sealed values alone and multiplies all later ones, floors included."""
    schedule = {"kind": "cosine", "total_steps": 100, "min_lr": 0.01}
    plain = session(schedule=schedule)
    scaled = evolve_all(plain, decide(plain, Seal(0, 10)).events)
    scaled = evolve_all(scaled, decide(scaled, Act(Scale(factor=0.5, reason="too hot"))).events)
    assert scaled.horizon == 10
    expected = plain.timelines["lr"].values(10, 110)
    assert forecast(scaled, 10, 110)["lr"].tolist() == (expected * 0.5).tolist()
    assert scaled.revision == 1
    line = planned(scaled, 11).timelines["lr"]
    assert line.segments[-1].cause == "scaled by 0.5: too hot"


def test_groups_have_their_own_series() -> None:
    """Each group has its own base and may have its own schedule; `lr` comes first in each."""
    state = session(
        schedule={"kind": "step", "step_size": 2, "gamma": 0.5},
        groups={
            "body": {"base_lr": 1.0},
            "head": {
                "base_lr": 3.0,
                "schedule": {"kind": "one_cycle", "total_steps": 9, "cycle_momentum": True},
            },
        },
    )
    assert list(state.timelines) == ["body.lr", "head.lr", "head.momentum"]
    assert state.timelines["body.lr"].values(0, 4).tolist() == [1.0, 1.0, 0.5, 0.5]


REFUSALS = {
    "a stale attempt": (Seal(6, 1, attempt=2), StaleAttemptError, "attempt 1 is the running one"),
    "a stale report": (
        Report((Reading(0, 0, "loss", 1.0),), attempt=7),
        StaleAttemptError,
        "attempt 1",
    ),
    "a step far ahead": (Seal(MAX_WINDOW + 100, 1), StepOutOfRangeError, "too far ahead"),
    "a step before the first": (Seal(2, 1), StepOutOfRangeError, "first step, 5"),
    "a report from the future": (
        Report((Reading(0, 2**52, "loss", 1.0),)),
        StepOutOfRangeError,
        "Nothing can have been measured",
    ),
    "a rank too many": (
        Report((Reading(3, 5, "loss", 1.0),)),
        StepOutOfRangeError,
        "`ranks` set to the world size",
    ),
}


@pytest.mark.parametrize(("order", "error", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_what_makes_no_sense_is_refused(
    order: Command, error: type[PacesetterError], hint: str
) -> None:
    """The refusal has its own type and says what to do."""
    state = session(start_step=5, controllers=[PLATEAU])
    state = evolve_all(state, decide(state, Seal(5, 1)).events)
    with pytest.raises(error, match=hint):
        decide(state, order)


def test_an_archived_session_takes_nothing_more() -> None:
    """Archiving ends sealing and reporting; archiving twice is harmless."""
    state = evolve_all(session(), decide(session(), Archive()).events)
    assert decide(state, Archive()).events == ()
    with pytest.raises(SessionArchivedError):
        decide(state, Seal(0, 1))


def test_a_law_that_leaves_the_floats_is_not_sealed() -> None:
    """A growing exponential is refused where it overflows, and sealed up to there."""
    state = session(schedule={"kind": "exponential", "gamma": 10.0})
    state = evolve_all(state, decide(state, Seal(0, 1000, pace=1e-3)).events)
    assert state.horizon == 309
    with pytest.raises(ScheduleNotFiniteError, match="inf for 'lr' at step 309"):
        decide(state, Seal(309, 20, pace=1e-3))


def test_waiting_reports_are_bounded() -> None:
    """Readings that no sealing consumes are refused before they fill the memory."""
    state = session(controllers=[PLATEAU], max_lookahead=MAX_WINDOW)
    for start in range(0, MAX_PENDING, MAX_WINDOW):
        state = evolve_all(state, decide(state, Seal(start, MAX_WINDOW, pace=1e-4)).events)
    first = tuple(Reading(0, step, "loss", 1.0) for step in range(MAX_PENDING))
    state = evolve_all(state, decide(state, Report(first)).events)
    with pytest.raises(TooManyReportsError, match="Ask for the next steps") as refused:
        decide(state, Report((Reading(0, MAX_PENDING, "loss", 1.0),)))
    assert refused.value.field == ("reports",)


def test_evolve_takes_values_as_they_were_sealed() -> None:
    """The fold never evaluates a law: it moves the horizon to where the event says."""
    state = session()
    moved = evolve(state, Sealed(0, 3, {"lr": np.array([1.0, 2.0, 3.0])}))
    assert moved.horizon == 3


def test_a_window_that_begins_sealed_is_given_as_far_as_it_goes() -> None:
    """Steps past the horizon that cannot be sealed do not hide those below it."""
    growing = session(schedule={"kind": "exponential", "gamma": 10.0})
    growing = evolve_all(growing, decide(growing, Seal(0, 1000, pace=1e-3)).events)
    assert decide(growing, Seal(300, 20)).events == ()
    archived = session()
    archived = evolve_all(archived, decide(archived, Seal(0, 10)).events)
    archived = evolve_all(archived, decide(archived, Archive()).events)
    assert decide(archived, Seal(5, 20)).events == ()
    running = evolve_all(session(), decide(session(), Seal(0, 10)).events)
    assert decide(running, Seal(5, 20, attempt=9)).events == ()


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_a_scale_without_a_way_back_is_refused(factor: float) -> None:
    """Scaling to nothing or beyond the floats would ruin the session for good."""
    state = session()
    state = evolve_all(state, decide(state, Act(Scale(factor=factor))).events)
    with pytest.raises(ActionRefusedError):
        decide(state, Act(Scale(factor=factor)))


def test_many_groups_have_shorter_windows() -> None:
    """The values that one call seals are bounded, however many series a session has."""
    groups = {f"g{number}": {"base_lr": 0.1} for number in range(1024)}
    state = session(groups=groups)
    assert state.max_window == MAX_VALUES // 1024
    events = decide(state, Seal(0, MAX_WINDOW, pace=1e-4)).events
    assert isinstance(events[-1], Sealed)
    assert events[-1].count == state.max_window
