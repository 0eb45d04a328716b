"""The cost of laws is computed before anything is evaluated, and bounded by a budget."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.catalogue.lint import Subject, lint
from pacesetter_service.core import decide as deciding
from pacesetter_service.core import orders
from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Reading, Report, Seal
from pacesetter_service.core.cost import (
    SLICE,
    SMALL_WINDOW,
    evaluated,
    readable,
    refuse_costly,
    refuse_costly_reading,
)
from pacesetter_service.core.decide import MAX_METRICS, decide
from pacesetter_service.core.errors import (
    ActionRefusedError,
    TooCostlyError,
    TooManyMetricsError,
)
from pacesetter_service.core.events import Decided, Measured, Sealed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.orders import ORDERED_SERIES
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.cost import Cost, Prices
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import MAX_WINDOW, SessionSpec
from pacesetter_service.core.timeline import SEALING

LENGTHS = {
    "total_steps": 10_000,
    "steps_per_epoch": 100,
    "batch_size": 32,
    "tokens_per_step": 100,
}

SUM_OF_EXPS = "base * (" + " + ".join(f"exp(-t / {100 + each})" for each in range(16)) + ")"
"""An expression with the most costly operations that are allowed."""


def session_of(schedule: object, **more: Any) -> Session:
    """Return a session that follows a schedule."""
    base = {} if "groups" in more else {"base_lr": 0.1}
    fields = {"name": "x", "schedule": schedule, **LENGTHS, **base, **more}
    return create(SessionSpec.model_validate(fields))


def example(kind: str) -> dict[str, Any]:
    """Return the example of a kind, complete."""
    return {"kind": kind, **Schedule.kinds[kind].example}


def costly(groups: int, each: int) -> dict[str, Any]:
    """Return groups that follow sums of that many costly expressions."""
    return {
        f"g{group}": {
            "base_lr": 0.1,
            "schedule": {
                "kind": "sum",
                "of": [
                    {"kind": "expression", "value": f"{SUM_OF_EXPS} + {group}.{one}"}
                    for one in range(each)
                ],
            },
        }
        for group in range(groups)
    }


@pytest.mark.parametrize("kind", catalogue.schedules())
def test_each_kind_costs_at_least_a_hold_and_is_within_the_budget(kind: str) -> None:
    """The example of every kind may be sealed in whole windows; none is cheaper than a hold."""
    session = session_of(example(kind))
    hold = session_of({"kind": "hold"}).timelines.cost
    cost = session.timelines.cost
    assert cost.call >= hold.call
    assert cost.step >= hold.step
    assert session.max_window == MAX_WINDOW
    refuse_costly(session.spec)


def holes(value: object, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of schedules within an example."""
    pairs: list[tuple[Any, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    found = []
    for key, each in pairs:
        if isinstance(each, dict) and each.get("kind") in Schedule.kinds and key != "ease":
            found.append((*place, key))
        found += holes(each, (*place, key))
    return found


NESTING = [(kind, place) for kind in catalogue.schedules() for place in holes(example(kind))]


@pytest.mark.parametrize(("kind", "place"), NESTING, ids=str)
def test_what_stands_in_itself_many_times_is_counted_without_being_evaluated(
    kind: str, place: tuple[Any, ...]
) -> None:
    """A kind nested 24 deep in itself is priced, and inspected if its price allows that.

    Several kinds evaluate their child twice, so that the deepest one is evaluated 2 ** 24 times: a
    count that followed the evaluation would never end here.
    """
    inner = example(kind)
    for _ in range(24):
        outer = json.loads(json.dumps(example(kind)))
        target = outer
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = inner
        inner = outer
    try:
        spec = session_of(inner).spec
    except ValueError:
        return  # some kinds are refused within themselves
    with suppress(TooCostlyError):
        refuse_costly(spec)
        lint(Subject(spec))


@pytest.mark.parametrize("kind", ["splice", "warmup"])
def test_what_a_combinator_evaluates_twice_counts_twice(kind: str) -> None:
    """Each level of these doubles the cost of the innermost law."""
    bottom = {"kind": "expression", "value": SUM_OF_EXPS}
    inner = {**example(kind), ("second" if kind == "splice" else "schedule"): bottom}
    outer = {**example(kind), ("second" if kind == "splice" else "schedule"): inner}
    of = Prices()
    costs = [of(Schedule.parse(each)) for each in (bottom, inner, outer)]
    assert costs[1].step >= 2 * costs[0].step
    assert costs[2].step >= 2 * costs[1].step


def test_an_expression_costs_by_its_size() -> None:
    """Operations are counted; those that are computed number by number count more."""
    plain, longer, exp = (
        session_of({"kind": "expression", "value": value}).timelines.cost
        for value in ("base", "base * 2 + t * 0", "base * exp(-t)")
    )
    assert plain.step < longer.step < exp.step
    assert plain.call < longer.call


def test_many_costly_groups_are_refused_with_the_cost_the_budget_and_the_remedy() -> None:
    """No window of 32 groups of 64 costly expressions is evaluated."""
    spec = session_of("constant", groups=costly(32, 64)).spec
    with pytest.raises(TooCostlyError) as refused:
        refuse_costly(spec)
    text = str(refused.value)
    assert f"{SEALING:.3g}" in text
    assert f"{SMALL_WINDOW} steps" in text
    assert "g0.lr is the dearest" in text
    assert "Reduce the number of groups" in text


def test_a_law_that_a_controller_goes_over_to_counts_too() -> None:
    """A `switch` whose next stage is beyond the budget is refused at creation."""
    dear: dict[str, Any] = {"kind": "expression", "value": SUM_OF_EXPS}
    for _ in range(20):
        dear = {"kind": "splice", "first": dear, "steps": 5, "second": "constant"}
    stage = {"schedule": dear, "when": {"kind": "at_step", "step": 10}}
    switch = {
        "kind": "switch",
        "metric": "loss",
        "stages": [{**stage, "when": {"kind": "plateaued", "patience": 2}}],
    }
    spec = session_of("constant", controllers=[switch]).spec
    with pytest.raises(TooCostlyError):
        refuse_costly(spec)


def test_costly_sessions_seal_in_smaller_parts_and_the_same_bits() -> None:
    """One call seals what the budget allows; together the calls give what one block would."""
    session = session_of("constant", groups=costly(8, 16))
    most = session.max_window
    assert SMALL_WINDOW <= most < 2000
    assert session.timelines.cost.of(most) <= SEALING < session.timelines.cost.of(most + 1)
    pieces, asked = [], 2 * most
    after = session
    while after.horizon < asked:
        events = decide(after, Seal(after.horizon, asked - after.horizon, pace=1e-4)).events
        [sealed] = [event for event in events if isinstance(event, Sealed)]
        assert sealed.count <= most
        pieces.append(sealed.values["g3.lr"])
        after = evolve_all(after, events)
    whole = session.timelines["g3.lr"].values(0, asked)
    assert b"".join(piece.tobytes() for piece in pieces) == whole.tobytes()


def test_an_order_that_makes_a_session_too_costly_is_refused() -> None:
    """`replace` is held to the budget of a new session."""
    session = session_of("constant")
    dear: dict[str, Any] = {"kind": "expression", "value": SUM_OF_EXPS}
    for _ in range(20):
        dear = {"kind": "splice", "first": dear, "steps": 5, "second": "constant"}
    with pytest.raises(TooCostlyError):
        decide(session, Act(Action.parse({"kind": "replace", "schedule": dear})))


def test_a_costly_law_that_takes_over_shortens_the_window_that_reaches_it() -> None:
    """A law ordered for a later step counts as soon as a window may reach it."""
    session = session_of("constant")
    dear: dict[str, Any] = {"kind": "expression", "value": SUM_OF_EXPS}
    for _ in range(5):
        dear = {"kind": "splice", "first": dear, "steps": 5, "second": "constant"}
    act = Act(Action.parse({"kind": "replace", "schedule": dear}), at=10)
    ordered = evolve_all(session, decide(session, act).events)
    assert ordered.max_window == MAX_WINDOW
    events = decide(ordered, Seal(0, MAX_WINDOW, pace=1e-4)).events
    [sealed] = [event for event in events if isinstance(event, Sealed)]
    assert 10 < sealed.count < MAX_WINDOW
    assert sealed.count == evolve_all(ordered, events).timelines.affordable


@given(call=st.floats(0, 1e9), step=st.floats(1e-3, 1e6), budget=st.floats(1, 1e10))
def test_what_is_affordable_is_the_most_that_the_budget_allows(
    call: float, step: float, budget: float
) -> None:
    """One block of that many steps is within it, and one of a step more is not."""
    cost = Cost(call, step)
    most = cost.affordable(budget)
    slack = 1e-9 * (budget + call)
    assert most == 0 or cost.of(most) <= budget + slack
    assert most == 2**53 or cost.of(most + 1) >= budget - slack


@given(call=st.floats(1, 1e9), step=st.floats(0.001, 1e6), count=st.integers(1, 10**6))
def test_slices_cover_a_block_and_none_is_much_beyond_its_budget(
    call: float, step: float, count: int
) -> None:
    """A slice costs no more than its budget, or twice the cost of a call itself."""
    cost = Cost(call, step)
    size, total = cost.in_slices(count, SLICE)
    assert size >= 1
    assert cost.of(size) <= max(SLICE, 2 * call, call + step) * (1 + 1e-9)
    assert total >= cost.of(count) * (1 - 1e-9)


def test_reading_beyond_the_budget_is_refused_with_how_much_there_may_be() -> None:
    """The advice can be followed: as many steps as it names are within the budget."""
    cost = session_of("constant", groups=costly(8, 16)).timelines.cost
    fewer = readable(cost)
    with pytest.raises(TooCostlyError, match=f"Ask for at most {fewer} steps"):
        refuse_costly_reading(cost, 10**6)
    refuse_costly_reading(cost, fewer)


def test_evaluating_in_slices_asks_between_them_and_gives_the_same_bits() -> None:
    """A caller that has left is noticed between two slices, whatever work is left."""
    lines = session_of("constant", groups=costly(8, 16)).timelines
    size, _ = lines.cost.in_slices(1, SLICE)
    count, asked = 2 * size + 1, []
    values = evaluated(lines, 5, count, lambda: asked.append(None))
    assert len(asked) == 3 * len(lines)
    assert values["g1.lr"].tobytes() == lines["g1.lr"].values(5, count).tobytes()


def test_very_many_measurements_are_consumed_part_by_part_as_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sealing consumes a bounded number; the result equals that of one pass."""
    plateau = {"kind": "plateau", "metric": "loss", "factor": 0.9, "patience": 0}
    session = session_of("constant", controllers=[plateau], max_lookahead=100)
    session = evolve_all(session, decide(session, Seal(0, 100, pace=1e-3)).events)
    readings = tuple(Reading(0, step, "loss", 1.0) for step in range(100))
    reported = evolve_all(session, decide(session, Report(readings)).events)
    at_once = decide(reported, Seal(100, 1)).events
    monkeypatch.setattr(deciding, "CONSUMED_SERIES", 30)
    events, after, parts = [], reported, 0
    while after.horizon == 100:
        more = decide(after, Seal(100, 1)).events
        assert sum(isinstance(event, Measured) for event in more) <= 30
        events += more
        after, parts = evolve_all(after, more), parts + 1
    assert parts == 4
    kinds_of = (Measured, Decided)
    assert [event for event in events if isinstance(event, kinds_of)] == [
        event for event in at_once if isinstance(event, kinds_of)
    ]
    assert after.timelines == evolve_all(reported, at_once).timelines


@pytest.mark.parametrize(
    ("series", "most"), [(8 * 1024, 8), pytest.param(ORDERED_SERIES, 32, marks=pytest.mark.slow)]
)
def test_orders_that_wait_are_bounded_by_what_they_may_change(
    series: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand groups fewer orders may wait: one sealing may have to carry all of them out."""
    monkeypatch.setattr(orders, "ORDERED_SERIES", series)
    monkeypatch.setattr(orders, "FEW_ORDERS", min(most, orders.FEW_ORDERS))
    groups = {f"g{each}": {"base_lr": 0.1} for each in range(1024)}
    session = session_of("constant", groups=groups)
    half = Action.parse({"kind": "scale", "factor": 0.99})
    for each in range(most):
        session = evolve_all(session, decide(session, Act(half, at=10 + each)).events)
    with pytest.raises(ActionRefusedError, match=f"{most} orders wait already, the most for 1024"):
        decide(session, Act(half, at=99))


def test_names_of_metrics_are_capped_and_those_that_are_watched_are_free() -> None:
    """A full session accepts known names and those that a controller waits for, and no other."""
    session = session_of(
        "constant", controllers=[{"kind": "plateau", "metric": "val"}], max_lookahead=10
    )
    session = evolve_all(session, decide(session, Seal(0, 10)).events)
    full = tuple(Reading(0, 0, f"m{each}", 1.0) for each in range(MAX_METRICS))
    session = evolve_all(session, decide(session, Report(full)).events)
    with pytest.raises(TooManyMetricsError, match=f"at most {MAX_METRICS} names.*'one more'"):
        decide(session, Report((Reading(0, 1, "one more", 1.0),)))
    again = decide(session, Report((Reading(0, 1, "m7", 2.0), Reading(0, 1, "val", 2.0)))).events
    assert evolve_all(session, again).reported == session.reported | {"val"}
