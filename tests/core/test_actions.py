"""What orders do to the curve: alone, on top of cuts, combined, cancelled and refused."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from orders import EASES, MOMENTUM, Run, bodies, run
from pacesetter_service.core.actions import Action
from pacesetter_service.core.commands import Act, Archive, Cancel, Reading, Seal
from pacesetter_service.core.errors import (
    ActionRefusedError,
    OrderNotFoundError,
    SessionArchivedError,
    SessionFinishedError,
    StepOutOfRangeError,
)
from pacesetter_service.core.events import Acted, Decided, Ordered
from pacesetter_service.core.forecast import forecast
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.eases import Ease
from pacesetter_service.core.schedules.ends import end_of
from strategies import metrics

COSINE = {"kind": "cosine", "total_steps": 100}
HALVING = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
GROUPS = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.4}}


def plain(start: int, end: int, series: str = "lr", **spec: Any) -> list[float]:
    """Return the values of the steps of a session without orders."""
    return run(**spec).lr(start, end, series)


def cut(session: Run, times: int) -> None:
    """Let the plateau controller halve the level, by a loss that does not improve."""
    for _ in range(times + 1):
        step = session.session.horizon
        session.seal(step + 1)
        session.report(Reading(0, step, "loss", 1.0))


# -- each order by itself ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [None, 30], ids=["now", "later"])
def test_set_is_one_rate_from_its_step_on(at: int | None) -> None:
    """Before the step the plan holds, from it on the ordered rate."""
    session = run(schedule=COSINE)
    session.seal(20)
    session.order(at, kind="set", lr=0.03)
    begins = at or 20
    expected = plain(0, begins, schedule=COSINE) + [0.03] * 80
    assert session.lr(0, begins + 80) == expected


@pytest.mark.parametrize("ease", ["linear", "cosine", "constant", {"kind": "power", "power": 0.5}])
def test_set_may_take_its_time(ease: Any) -> None:
    """Over some steps it begins at the present value and ends exactly at the rate."""
    session = run(schedule=COSINE)
    session.order(10, kind="set", lr=0.01, over=8, ease=ease)
    [present] = plain(10, 11, schedule=COSINE)
    way = Ease.parse(ease).between(present, 0.01, np.arange(8.0), 8)
    assert session.lr(10, 30) == [*way.tolist(), *[0.01] * 12]
    assert session.sealed["lr"][10] == present


def test_scale_multiplies_whatever_comes() -> None:
    """Values from the step on are the schedule's times the factor; two factors multiply."""
    session = run(schedule=COSINE)
    session.order(10, kind="scale", factor=0.5)
    session.order(20, kind="scale", factor=3.0)
    values = plain(0, 40, schedule=COSINE)
    assert session.lr(0, 40) == [
        *values[:10],
        *(value * 0.5 for value in values[10:20]),
        *(value * 1.5 for value in values[20:]),
    ]


def test_hold_keeps_a_value_and_release_resumes_behind_it() -> None:
    """The value of the hold's step stays; released, the step after it comes next, to the bit."""
    session = run(schedule=COSINE)
    session.order(10, kind="hold")
    session.order(17, kind="release")
    values = plain(0, 60, schedule=COSINE)
    assert session.lr(0, 60) == [*values[:11], *[values[10]] * 6, *values[11:54]]


def test_hold_and_release_at_one_step_change_nothing() -> None:
    """A hold that is released immediately has no effect."""
    session = run(schedule=COSINE)
    session.order(10, kind="hold")
    session.order(10, kind="release")
    assert session.lr(0, 60) == plain(0, 60, schedule=COSINE)


def test_hold_stops_every_channel() -> None:
    """Momentum stands still with the rate, and both go on together."""
    session = run(schedule=MOMENTUM)
    session.order(5, kind="hold")
    session.order(9, kind="release")
    for series in ("lr", "momentum"):
        values = plain(0, 30, series, schedule=MOMENTUM)
        assert session.lr(0, 30, series) == [*values[:6], *[values[5]] * 3, *values[6:27]]


def test_a_release_frees_what_is_still_held() -> None:
    """After `set` the rate is no longer held, but momentum is; `release` lets it go on."""
    session = run(schedule=MOMENTUM)
    session.order(5, kind="hold")
    session.order(7, kind="set", lr=0.02)
    session.order(9, kind="release")
    momentum = plain(0, 30, "momentum", schedule=MOMENTUM)
    assert session.lr(7, 30) == [0.02] * 23
    assert session.lr(9, 30, "momentum") == momentum[6:27]


def test_some_groups_may_be_held_alone_and_released_with_all() -> None:
    """`release` for all frees the group that is held, and a second `hold` takes the others."""
    session = run(schedule=COSINE, groups=GROUPS)
    session.order(5, kind="hold", groups=["head"])
    session.order(7, kind="hold")
    session.order(9, kind="release")
    body = plain(0, 20, "body.lr", schedule=COSINE, groups=GROUPS)
    head = plain(0, 20, "head.lr", schedule=COSINE, groups=GROUPS)
    assert session.lr(0, 20, "body.lr") == [*body[:8], body[7], *body[8:19]]
    assert session.lr(0, 20, "head.lr") == [*head[:6], *[head[5]] * 3, *head[6:17]]


def test_a_held_value_is_scaled_and_set() -> None:
    """Orders for the height take effect while the clock stands still."""
    session = run(schedule=COSINE)
    session.order(10, kind="hold")
    session.order(12, kind="scale", factor=0.5)
    session.order(14, kind="set", lr=0.007)
    values = plain(0, 20, schedule=COSINE)
    assert session.lr(10, 16) == [values[10]] * 2 + [values[10] * 0.5] * 2 + [0.007] * 2


@pytest.mark.parametrize("ease", EASES, ids=str)
@pytest.mark.parametrize("end", [{"steps": 12}, {"until": 32}], ids=["steps", "until"])
@pytest.mark.parametrize("now", [True, False], ids=["now", "later"])
def test_cooldown_goes_down_to_its_floor(ease: Any, end: dict[str, int], now: bool) -> None:
    """From the present value, never up, to exactly the floor at the step it names, and stays."""
    session = run(schedule=COSINE)
    session.seal(20 if now else 13)
    session.order(None if now else 20, kind="cooldown", to=0.001, ease=ease, **end)
    values = session.lr(20, 60)
    assert values[0] == pytest.approx(plain(20, 21, schedule=COSINE)[0], rel=1e-15)
    assert all(after <= before for before, after in pairwise(values))
    assert values[11] > 0.001
    assert values[12:] == [0.001] * 28


def test_cooldown_is_to_zero_in_the_shape_of_wsd() -> None:
    """Without a floor it goes to 0, by one minus the square root of the way."""
    session = run(schedule={"kind": "constant"})
    session.order(4, kind="cooldown", steps=9)
    expected = [0.1 * (1 - math.sqrt(passed / 9)) for passed in range(9)]
    assert session.lr(4, 15) == [*expected, 0.0, 0.0]


def test_cooldown_takes_a_part_as_its_floor() -> None:
    """`to_fraction` is a fraction of the value at its first step."""
    session = run(schedule=COSINE)
    session.order(40, kind="cooldown", steps=5, to_fraction=0.1, ease="linear")
    [present] = plain(40, 41, schedule=COSINE)
    assert session.lr(45, 47) == [present * 0.1] * 2


def test_rewarm_multiplies_by_a_rising_factor() -> None:
    """It rises linearly from the factor to 1, over the steps, on top of the schedule."""
    session = run(schedule=COSINE)
    session.order(10, kind="rewarm", steps=5, factor=0.2)
    values = plain(0, 30, schedule=COSINE)
    factors = [0.2 + (1 - 0.2) * (passed / 5) for passed in range(5)]
    assert session.lr(10, 15) == [v * f for v, f in zip(values[10:15], factors, strict=True)]
    assert session.lr(15, 30) == values[15:]


def test_retime_rescales_what_is_left() -> None:
    """The schedule ends at the new step; on the way it passes through the values it had."""
    session = run(schedule=COSINE)
    session.order(20, kind="retime", total_steps=60)
    values = plain(0, 101, schedule=COSINE)
    assert session.lr(20, 61) == values[20:101:2]
    assert session.lr(61, 70) == [values[100]] * 9


def test_retime_keeps_and_then_follows_the_tail() -> None:
    """The gained steps keep the value of the order's step; the rest follows to the bit."""
    session = run(schedule=COSINE)
    session.order(20, kind="retime", total_steps=130, policy="keep_then_tail")
    values = plain(0, 110, schedule=COSINE)
    assert session.lr(0, 140) == [*values[:20], *[values[20]] * 30, *values[20:110]]


def test_retime_moves_momentum_with_the_rate() -> None:
    """Both channels end at the new step, each by its own law."""
    session = run(schedule=MOMENTUM)
    session.order(10, kind="retime", total_steps=110)
    assert session.lr(110, 112) == [0.001, 0.001]
    assert session.lr(110, 112, "momentum") == [0.85, 0.85]
    rate = plain(0, 61, schedule=MOMENTUM)
    assert session.lr(10, 110, "lr")[::2] == rate[10:60]


ENDS: dict[str, tuple[Any, float | None]] = {
    "its own total_steps": (COSINE, 100),
    "after a warmup": ({"kind": "warmup", "steps": 10, "schedule": COSINE}, 110),
    "under a warmup": (
        {"kind": "warmup", "steps": 10, "mode": "multiply", "schedule": COSINE},
        100,
    ),
    "in a sequence": (
        {"kind": "sequence", "parts": [{"schedule": "constant", "steps": 7}, {"schedule": COSINE}]},
        107,
    ),
    "until a step": (
        {"kind": "sequence", "parts": [{"schedule": "constant", "until": 9}, {"schedule": COSINE}]},
        109,
    ),
    "bounded": ({"kind": "clamp", "min": 0.01, "schedule": COSINE}, 100),
    "delayed": ({"kind": "delay", "by": 5, "schedule": COSINE}, 105),
    "ahead": ({"kind": "shift", "by": 5.0, "schedule": COSINE}, 95),
    "slower": ({"kind": "stretch", "ratio": 2.0, "schedule": COSINE}, 200),
    "faster": ({"kind": "advance", "by": 4, "schedule": COSINE}, 25),
    "a ramp": ({"kind": "ramp", "end": 0.0, "steps": 30}, 30),
    "in bounds of time": ({"kind": "within", "steps": 44, "schedule": COSINE}, 44),
    "endless": ({"kind": "exponential", "gamma": 0.9}, None),
    "for ever": ({"kind": "repeat", "period": 30, "schedule": COSINE}, None),
}


@pytest.mark.parametrize(("law", "end"), ENDS.values(), ids=ENDS)
def test_laws_say_where_they_end(law: Any, end: float | None) -> None:
    """A law with an end gives it on its own clock, through whatever is wrapped around it."""
    assert end_of(Schedule.parse(law)) == end


def test_retime_finds_the_end_of_an_ordered_ramp() -> None:
    """A cooldown under way is retimed by its own end, not by that of the plan."""
    session = run(schedule=COSINE, total_steps=100)
    session.order(50, kind="cooldown", steps=20, ease="linear")
    session.order(60, kind="retime", total_steps=80)
    values = session.lr(50, 85)
    assert values[10:30:2] == pytest.approx(np.linspace(values[10], 0, 11)[:-1].tolist(), rel=1e-12)
    assert values[30:] == [0.0] * 5
    assert min(values[10:30]) > 0


def test_retime_takes_the_sessions_length_or_what_it_is_told() -> None:
    """A law without an end has the session's total_steps, or `ends_at`."""
    law = {"kind": "exponential", "gamma": 0.9}
    told, known = run(schedule=law), run(schedule=law, total_steps=50)
    with pytest.raises(ActionRefusedError, match="ends_at"):
        told.order(10, kind="retime", total_steps=30)
    told.order(10, kind="retime", total_steps=30, ends_at=50)
    known.order(10, kind="retime", total_steps=30)
    assert told.lr(0, 40) == known.lr(0, 40)
    assert told.lr(29, 30) == pytest.approx(plain(48, 49, schedule=law), rel=1e-12)
    assert told.lr(29, 40) == told.lr(29, 30) * 11


@pytest.mark.parametrize("clock", ["local", "global"])
@pytest.mark.parametrize("value", ["base", "level", "continue"])
def test_replace_goes_over_to_another_schedule(clock: str, value: str) -> None:
    """Its clock begins at 0 or has run from the start; its base is the plan's, or the value."""
    law = {"kind": "cosine", "total_steps": 50}
    session = run(schedule=COSINE)
    session.order(30, kind="replace", schedule=law, clock=clock, value=value)
    base = plain(30, 31, schedule=COSINE)[0] if value == "continue" else 0.1
    start = 0 if clock == "local" else 30
    assert session.lr(30, 60) == plain(start, start + 30, schedule=law, base_lr=base)


def test_replace_takes_the_level_of_controllers_and_no_other() -> None:
    """With `level` cuts stay; what an operator had set is no cut."""
    for first in (None, 0.07):
        session = run(controllers=[HALVING])
        if first is not None:
            session.order(None, kind="set", lr=first)
        cut(session, 2)
        session.seal(4)
        session.order(4, kind="replace", schedule=COSINE, value="level")
        assert session.lr(4, 5) == [0.025]


def test_revert_goes_back_to_the_plan() -> None:
    """Scales, holds and settings end; the plan is where it would be by now."""
    values = plain(0, 50, schedule=COSINE)
    for body in ({"kind": "scale", "factor": 0.3}, {"kind": "hold"}, {"kind": "set", "lr": 0.5}):
        session = run(schedule=COSINE)
        session.order(10, **body)
        session.order(20, kind="revert")
        assert session.lr(20, 50) == values[20:]


def test_revert_keeps_cuts_to_the_bit() -> None:
    """Cuts by controllers stay, whatever operators did to the rate meanwhile."""
    session = run(controllers=[{**HALVING, "factor": 1 / 3}], base_lr=0.7)
    cut(session, 3)
    session.seal(5)
    before = session.sealed["lr"][4]
    session.order(None, kind="scale", factor=0.3)
    session.order(7, kind="revert")
    assert session.lr(7, 8) == [before]


def test_limit_changes_what_may_be_ordered() -> None:
    """Values stay as they are; from its step on orders are held to the new limits."""
    session = run(schedule=COSINE)
    session.order(10, kind="limit", max_lr=0.2, max_change=1.5)
    session.order(5, kind="set", lr=0.1)
    assert session.lr(0, 20) == plain(0, 5, schedule=COSINE) + [0.1] * 15
    with pytest.raises(ActionRefusedError, match=r"limit's factor of 1\.5"):
        session.order(None, kind="scale", factor=1.6)


# -- some groups, momentum, cuts -----------------------------------------------------------------

HEIGHTS: list[dict[str, Any]] = [
    {"kind": "set", "lr": 0.02},
    {"kind": "set", "lr": 0.02, "over": 5},
    {"kind": "scale", "factor": 0.5},
    {"kind": "cooldown", "steps": 10},
    {"kind": "rewarm", "steps": 10},
]

CLOCKS: list[dict[str, Any]] = [
    {"kind": "hold"},
    {"kind": "retime", "total_steps": 70},
    {"kind": "replace", "schedule": {"kind": "step", "step_size": 3}},
]


def named(body: dict[str, Any]) -> str:
    """Name an order for a test's id."""
    return "-".join(map(str, body.values()))[:40]


@pytest.mark.parametrize("body", HEIGHTS + CLOCKS, ids=named)
def test_an_order_for_a_group_leaves_the_others_alone(body: dict[str, Any]) -> None:
    """Of two groups only the named one changes, as it would alone."""
    session = run(schedule=COSINE, groups=GROUPS)
    session.order(10, **body, groups=["head"])
    body_lr = plain(0, 60, "body.lr", schedule=COSINE, groups=GROUPS)
    assert session.lr(0, 60, "body.lr") == body_lr
    alone = run(schedule=COSINE, base_lr=0.4)
    alone.order(10, **body)
    assert session.lr(0, 60, "head.lr") == alone.lr(0, 60)


@pytest.mark.parametrize("body", HEIGHTS, ids=named)
def test_orders_for_the_rate_leave_momentum_alone(body: dict[str, Any]) -> None:
    """Momentum follows its schedule, whatever level is ordered for the rate."""
    session = run(schedule=MOMENTUM)
    session.order(10, **body)
    assert session.lr(0, 60, "momentum") == plain(0, 60, "momentum", schedule=MOMENTUM)


@pytest.mark.parametrize("body", HEIGHTS, ids=named)
def test_cuts_come_on_top_of_orders(body: dict[str, Any]) -> None:
    """A cut after an order halves what the order has made of the rate."""
    orders, both = run(max_lookahead=1), run(controllers=[HALVING])
    for session in (orders, both):
        session.seal(2)
        session.order(None, **body)
        session.seal(4)
    both.report(Reading(0, 2, "loss", 1.0), Reading(0, 3, "loss", 1.0))
    uncut = orders.lr(4, 30)
    assert both.lr(4, 30) == [value * 0.5 for value in uncut]


@pytest.mark.parametrize("body", HEIGHTS, ids=named)
def test_orders_come_on_top_of_cuts(body: dict[str, Any]) -> None:
    """An order on a rate that was cut starts from the cut rate."""
    session = run(controllers=[HALVING])
    cut(session, 2)
    session.seal(4)
    assert session.sealed["lr"][3] == 0.025
    session.order(4, **body)
    alone = run(base_lr=0.025)
    alone.order(4, **body)
    assert session.lr(4, 30) == alone.lr(4, 30)


# -- switch --------------------------------------------------------------------------------------

STAGES = {
    "kind": "switch",
    "metric": "loss",
    "stages": [
        {"when": {"kind": "below", "value": 0.1}, "schedule": COSINE, "value": "continue"},
        {"when": {"kind": "by_hand"}, "schedule": {"kind": "exponential", "gamma": 0.5}},
    ],
}


def test_switch_moves_a_controller_to_its_next_stage() -> None:
    """The next stage begins at the order's step, on its own clock; the trainer is told."""
    session = run(controllers=[STAGES], max_lookahead=16)
    session.order(10, kind="switch", reason="it is time")
    assert session.lr(0, 50) == [0.1] * 10 + plain(0, 40, schedule=COSINE)
    [decided] = [event for event in session.events if isinstance(event, Decided)]
    assert (decided.at, decided.advice) == (10, "switched")
    assert "by hand (it is time); stage 1 of 2 begins: cosine" in decided.reason
    assert [(notice.step, notice.code) for notice in session.session.control.notices] == [
        (10, "switched")
    ]


def test_each_switch_is_one_stage() -> None:
    """Two orders are two stages, also if both wait; a third has nowhere to go."""
    session = run(controllers=[HALVING, STAGES], max_lookahead=16)
    session.order(5, kind="switch", controller=1)
    session.order(9, kind="switch", controller=1)
    with pytest.raises(ActionRefusedError, match="is in its last stage by then"):
        session.order(12, kind="switch", controller=1)
    assert session.lr(9, 12) == [0.1, 0.05, 0.025]
    assert session.session.control.states[1].stage == 2  # type: ignore[attr-defined]


def test_switch_needs_a_switch() -> None:
    """Another controller, or none, is refused, and those that can be switched are named."""
    session = run(controllers=[HALVING, STAGES])
    with pytest.raises(ActionRefusedError, match=r"Controller 0 has no stages.*have: 1\."):
        session.order(kind="switch")
    with pytest.raises(ActionRefusedError, match="no `switch`; use `replace`"):
        run().order(kind="switch", controller=4)


# -- combined ------------------------------------------------------------------------------------

happenings = st.one_of(
    st.tuples(st.just("order"), bodies(("body", "head")), st.none() | st.integers(-2, 25)),
    st.tuples(st.just("seal"), st.integers(1, 12), st.none()),
    st.tuples(st.just("report"), st.tuples(metrics, metrics), st.none()),
    st.tuples(st.just("cancel"), st.integers(1, 8), st.none()),
)

SPECS: dict[str, dict[str, Any]] = {
    "groups": {"groups": GROUPS, "schedule": COSINE, "controllers": [HALVING], "max_lookahead": 9},
    "momentum": {"schedule": MOMENTUM, "controllers": [HALVING], "max_lookahead": 9},
    "limits": {
        "schedule": COSINE,
        "controllers": [HALVING],
        "max_lookahead": 9,
        "limits": {"min_lr": 1e-3, "max_lr": 1.0, "max_change": 8.0},
    },
    "stages": {"controllers": [STAGES], "max_lookahead": 9},
}


def live(session: Run, events: list[tuple[str, Any, Any]]) -> None:
    """Apply a sequence of commands to a session; what is refused leaves it as it was."""
    for what, value, ahead in events:
        horizon = session.session.horizon
        try:
            if what == "order":
                session.order(None if ahead is None else max(horizon + ahead, 0), **value)
            elif what == "seal":
                session.give(Seal(horizon, value))
            elif what == "cancel":
                session.cancel(value)
            elif horizon > 1:
                session.report(
                    *(Reading(0, horizon - 1 - i, "loss", v) for i, v in enumerate(value))
                )
        except (ActionRefusedError, StepOutOfRangeError, OrderNotFoundError):
            continue


@pytest.mark.parametrize("name", SPECS)
@example(
    [
        ("order", {"kind": "set", "lr": 0.0, "over": 1}, None),
        ("order", {"kind": "scale", "factor": 1e200}, None),
        ("order", {"kind": "hold"}, 1),
        ("order", {"kind": "cooldown", "steps": 1}, None),
        ("order", {"kind": "scale", "factor": 1e200}, None),
    ]
)
@given(events=st.lists(happenings, max_size=25))
def test_no_sequence_of_orders_gives_what_nobody_can_train_with(
    name: str, events: list[tuple[str, Any, Any]]
) -> None:
    """Whatever is ordered, sealing goes on, each step once, with rates finite and not negative."""
    session = run(**SPECS[name])
    live(session, events)
    session.seal(session.session.horizon + 30)
    for series, values in session.sealed.items():
        assert sorted(values) == list(range(session.session.horizon))
        assert all(math.isfinite(value) for value in values.values())
        if series.endswith("lr"):
            assert min(values.values()) >= 0


@pytest.mark.parametrize("name", SPECS)
@given(
    events=st.lists(happenings, max_size=12), body=bodies(), ahead=st.none() | st.integers(0, 20)
)
def test_what_was_forecast_is_sealed(
    name: str, events: list[tuple[str, Any, Any]], body: dict[str, Any], ahead: int | None
) -> None:
    """If nothing else happens, the curve that an order promised is the one that is sealed."""
    session = run(**SPECS[name])
    live(session, events)
    horizon = session.session.horizon
    try:
        session.order(None if ahead is None else horizon + ahead, **body)
    except ActionRefusedError:
        return
    promised = forecast(session.session, horizon, 60)
    for series, values in promised.items():
        assert session.lr(horizon, horizon + 60, series) == values.tolist()


@pytest.mark.parametrize("name", SPECS)
@given(events=st.lists(happenings, max_size=12), body=bodies(), ahead=st.integers(1, 20))
def test_a_cancelled_order_never_was(
    name: str, events: list[tuple[str, Any, Any]], body: dict[str, Any], ahead: int
) -> None:
    """Cancelling gives the curve back to the bit, and no other order's number changes."""
    session = run(**SPECS[name])
    live(session, events)
    horizon, before = session.session.horizon, session.session
    try:
        number = session.order(horizon + ahead, **body)
    except ActionRefusedError:
        return
    session.cancel(number)
    curves = forecast(before, horizon, 60)
    again = forecast(session.session, horizon, 60)
    assert {name: row.tobytes() for name, row in curves.items()} == {
        name: row.tobytes() for name, row in again.items()
    }
    assert session.session.orders.waiting == before.orders.waiting
    with pytest.raises(OrderNotFoundError):
        session.cancel(number)


# -- limits --------------------------------------------------------------------------------------

BOUNDED = {"limits": {"min_lr": 0.01, "max_lr": 0.5, "max_change": 4.0}}

BEYOND: dict[str, dict[str, Any]] = {
    "above": {"kind": "scale", "factor": 3.9, "groups": ["head"]},
    "below": {"kind": "set", "lr": 0.009},
    "at its end": {"kind": "set", "lr": 0.6, "over": 50},
    "at its floor": {"kind": "cooldown", "steps": 30},
    "at its fraction": {"kind": "cooldown", "until": 40, "to_fraction": 0.01},
    "too fast": {"kind": "scale", "factor": 0.2},
    "warmed from nothing": {"kind": "rewarm", "steps": 10},
}


@pytest.mark.parametrize("body", BEYOND.values(), ids=BEYOND)
def test_what_oversteps_the_limits_is_refused(body: dict[str, Any]) -> None:
    """It is checked at its step and where it ends, and the refusal says what to do."""
    session = run(**BOUNDED, groups=GROUPS)
    session.seal(5)
    with pytest.raises(ActionRefusedError, match="the action `limit`"):
        session.order(None, **body)


def test_limits_are_those_of_the_orders_step() -> None:
    """A pending `limit` holds for orders after it, and only for those."""
    session = run(**BOUNDED)
    session.order(20, kind="limit", max_lr=5.0)
    session.order(21, kind="set", lr=3.0)
    with pytest.raises(ActionRefusedError, match="outside the limits"):
        session.order(19, kind="set", lr=3.0)


def test_an_order_may_not_push_a_waiting_one_over_the_limits() -> None:
    """Pending orders stay within the limits whatever is ordered before them, limits included."""
    session = run(limits={"max_lr": 0.5})
    session.order(20, kind="scale", factor=4.0)
    for body in ({"kind": "scale", "factor": 2.0}, {"kind": "limit", "max_lr": 0.3}):
        with pytest.raises(ActionRefusedError, match="Order 1, which waits for step 20"):
            session.order(10, **body)
    session.order(30, kind="scale", factor=0.5)
    overflowing = run()
    overflowing.order(20, kind="scale", factor=1e200)
    with pytest.raises(ActionRefusedError, match="no learning rate"):
        overflowing.order(10, kind="scale", factor=1e200)


def test_a_shape_that_leaves_the_rates_on_its_way_is_refused() -> None:
    """There is no geometric way from or to 0, which is said before a training depends on it."""
    with pytest.raises(ActionRefusedError, match="no learning rate"):
        run().order(kind="cooldown", steps=10, ease="geometric")


# -- refusals ------------------------------------------------------------------------------------

NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "a group that is not there": ({"kind": "hold", "groups": ["tail"]}, "groups are body, head"),
    "a release of nothing": ({"kind": "release"}, "Use `hold` first"),
    "an end that lies behind": ({"kind": "cooldown", "until": 10}, "an `until` that lies behind"),
    "a floor above the rate": ({"kind": "cooldown", "steps": 5, "to": 1.0}, "Use `set` with"),
    "a retiming to the past": ({"kind": "retime", "total_steps": 9}, "Give a later `total_steps`"),
    "a tail that does not fit": (
        {"kind": "retime", "total_steps": 50, "policy": "keep_then_tail"},
        'Use policy "rescale"',
    ),
    "a channel too many": (
        {"kind": "replace", "schedule": MOMENTUM},
        "drives lr, momentum, but the session has lr",
    ),
    "epochs of unknown length": (
        {"kind": "cooldown", "steps": {"epochs": 2}},
        "needs the session's steps_per_epoch",
    ),
    "a length of nothing": (
        {"kind": "cooldown", "steps": {"fraction": 0.0001}},
        "Give it in steps",
    ),
}


@pytest.mark.parametrize(("body", "hint"), NONSENSE.values(), ids=NONSENSE)
def test_what_makes_no_sense_is_refused(body: dict[str, Any], hint: str) -> None:
    """The refusal says why, and what to do instead."""
    session = run(schedule=COSINE, groups=GROUPS, total_steps=100)
    session.seal(10)
    with pytest.raises(ActionRefusedError, match=hint):
        session.order(None, **body)


def test_a_channel_too_few_is_refused() -> None:
    """A schedule that would leave momentum without a law is refused."""
    with pytest.raises(ActionRefusedError, match="Name a law for each"):
        run(schedule=MOMENTUM).order(kind="replace", schedule=COSINE)


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "limit", "min_lr": 1.0, "max_lr": 0.1},
        {"kind": "limit", "max_lr": 0.1, "groups": ["head"]},
        {"kind": "switch", "groups": ["head"]},
        {"kind": "cooldown"},
        {"kind": "cooldown", "steps": 5, "until": 9},
        {"kind": "cooldown", "steps": 5, "to": 0.1, "to_fraction": 0.1},
        {"kind": "scale", "factor": 0.0},
        {"kind": "set", "lr": math.nan},
        {"kind": "set", "lr": -1.0},
    ],
    ids=named,
)
def test_an_order_that_contradicts_itself_is_no_order(body: dict[str, Any]) -> None:
    """Such an order is never created, so no session ever has it pending."""
    with pytest.raises(ValidationError):
        Action.parse(body)


def test_what_is_held_is_not_held_again_nor_warmed_nor_retimed() -> None:
    """While the clock stands still, `release` comes first; orders of one step keep their order."""
    session = run(schedule=COSINE)
    session.order(10, kind="hold")
    with pytest.raises(ActionRefusedError, match="held already"):
        session.order(12, kind="hold")
    for body in ({"kind": "rewarm", "steps": 5}, {"kind": "retime", "total_steps": 80}):
        with pytest.raises(ActionRefusedError, match="Use `release` first"):
            session.order(12, **body)
    session.order(12, kind="release")
    session.order(12, kind="rewarm", steps=5)
    assert session.lr(12, 13) == [0.0]


@pytest.mark.parametrize(
    "body", [{"kind": "rewarm", "steps": 5}, {"kind": "retime", "total_steps": 80}]
)
def test_an_order_whose_release_is_cancelled_does_no_harm(body: dict[str, Any]) -> None:
    """An order that has become impossible when its step comes changes nothing."""
    session = run(schedule=COSINE)
    session.order(10, kind="hold")
    release = session.order(12, kind="release")
    session.order(12, **body)
    session.cancel(release)
    held = plain(10, 11, schedule=COSINE)[0]
    assert session.lr(10, 40) == [held] * 30


def test_what_is_sealed_can_not_be_ordered() -> None:
    """The refusal names the first step that can still change."""
    session = run()
    session.seal(8)
    with pytest.raises(StepOutOfRangeError, match="can still change is 8"):
        session.order(7, kind="hold")


def test_an_ended_session_takes_no_orders() -> None:
    """This holds for an archived session and for one that a controller has finished."""
    archived = run()
    archived.give(Archive())
    with pytest.raises(SessionArchivedError):
        archived.order(kind="hold")
    stopping = {"kind": "spike_guard", "metric": "loss", "max_trips": 0, "then": "stop"}
    ended = run(controllers=[stopping])
    ended.seal(1)
    ended.report(Reading(0, 0, "loss", math.nan))
    ended.give(Seal(1, 1))
    with pytest.raises(SessionFinishedError, match="Stop the training here"):
        ended.order(kind="hold")


# -- keys and notices ----------------------------------------------------------------------------


def test_a_key_makes_a_repeated_order_the_same_one() -> None:
    """The second order of a key changes nothing, also when the first was carried out long ago."""
    session = run()
    act = Act(Action.parse({"kind": "scale", "factor": 0.5}), 3, "ann", "once")
    session.give(act)
    assert session.give(act) == ()
    session.seal(10)
    assert session.give(act) == ()
    assert session.lr(9, 10) == [0.05]
    assert session.session.orders.keys == {"once": (1, 3, "scaled by 0.5")}


def test_a_key_is_one_orders_only() -> None:
    """Another order under a used key is refused; a cancelled order frees its key."""
    session = run()
    half = Action.parse({"kind": "scale", "factor": 0.5})
    session.give(Act(half, 3, "ann", "once"))
    for action, at in ((Action.parse({"kind": "set", "lr": 0.3}), 3), (half, 4)):
        with pytest.raises(ActionRefusedError, match="belongs to order 1, for step 3: scaled by"):
            session.give(Act(action, at, "ann", "once"))
    session.give(Cancel(1))
    session.give(Act(Action.parse({"kind": "set", "lr": 0.3}), 3, "ann", "once"))
    assert session.lr(3, 4) == [0.3]


def test_a_switch_while_it_is_held_waits_at_its_start() -> None:
    """The new law stays at its own step 0 until the release, and never goes backwards."""
    stage = {"when": {"kind": "by_hand"}, "schedule": {"kind": "exponential", "gamma": 0.5}}
    session = run(controllers=[{"kind": "switch", "metric": "loss", "stages": [stage]}])
    session.seal(5)
    session.order(None, kind="hold")
    session.seal(30)
    session.order(None, kind="switch", controller=0)
    session.seal(35)
    session.order(None, kind="release")
    assert session.lr(30, 37) == [0.1] * 5 + [0.05, 0.025]


def test_the_rest_of_a_law_is_not_put_off_for_ever() -> None:
    """Each postponement wraps the law once more; a plan nested too deeply is refused."""
    session = run(schedule=COSINE, total_steps=100)
    for times in range(8):
        total = 200 + 100 * times
        session.order(None, kind="retime", total_steps=total, policy="keep_then_tail")
        session.seal(session.session.horizon + 1)
    with pytest.raises(ActionRefusedError, match="put off 8 times"):
        session.order(None, kind="retime", total_steps=2000, policy="keep_then_tail")


@pytest.mark.parametrize(
    ("factor", "told"), [(0.51, False), (0.5, True), (2.0, True), (1.9, False)]
)
def test_a_large_change_is_told_beforehand(factor: float, told: bool) -> None:
    """For a factor of 2 or more, the trainer is told to save a checkpoint first."""
    session = run()
    session.seal(4)
    session.order(9, kind="scale", factor=factor, reason="a try")
    codes = [(notice.step, notice.code) for notice in session.session.control.notices]
    assert codes == ([(4, "large_change")] if told else [])


def test_who_ordered_it_and_why_stays_with_it() -> None:
    """The order and the resulting segment both have them."""
    session = run()
    session.order(3, kind="scale", factor=0.5, reason="too hot")
    [ordered] = [event for event in session.events if isinstance(event, Ordered)]
    assert (ordered.order.actor, ordered.order.action.reason) == ("ann", "too hot")
    session.seal(4)
    [acted] = [event for event in session.events if isinstance(event, Acted)]
    assert acted.order == ordered.order
    assert session.session.timelines["lr"].segments[-1].cause == "scaled by 0.5: too hot"


# -- what a held clock must survive --------------------------------------------------------------


def test_a_spike_while_it_is_held_does_not_stop_the_training() -> None:
    """The guard's second warmup has a rate to train with, held and after the release."""
    guard = {"kind": "spike_guard", "metric": "loss", "rewarm": 10, "rewarm_from": 0.1}
    session = run(controllers=[guard], max_lookahead=16)
    session.seal(5)
    session.order(None, kind="hold")
    session.seal(20)
    session.report(Reading(0, 19, "loss", math.nan))
    session.seal(25)
    session.order(None, kind="release")
    assert min(session.lr(20, 60)) > 0
    assert session.lr(59, 60) == [0.05]


def test_a_held_value_stays_when_the_pace_changes() -> None:
    """However fast the clock is to run after the release."""
    line = run(schedule=COSINE).session.timelines["lr"]
    held = line.go_on(10, "held", frozen=10)
    assert held.go_on(20, "faster", pace=2.0).value(25) == line.value(10)
