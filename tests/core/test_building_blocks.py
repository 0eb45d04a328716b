"""The building blocks, each over a few steps whose values are worked out by hand."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pacesetter_service.core.decide import count_usable
from pacesetter_service.core.errors import ScheduleNotFiniteError
from pacesetter_service.core.model import Checked
from pacesetter_service.core.schedules import Schedule

DOWN = {"kind": "ramp", "start": 4.0, "end": 0.0, "steps": 4}
"""Four steps down: 4, 3, 2, 1, 0."""

HALF = {"kind": "ramp", "end": 0.0, "steps": 2}
"""From the base to zero in two steps."""

WORKED_OUT: dict[str, tuple[dict[str, Any], list[float]]] = {
    "hold": ({"value": 3.0}, [3, 3, 3, 3, 3, 3]),
    "ramp": (DOWN, [4, 3, 2, 1, 0, 0]),
    "exponential": ({"gamma": 0.5}, [8, 4, 2, 1, 0.5, 0.25]),
    "inverse_time": ({"rate": 1.0}, [8, 4, 8 / 3, 2, 8 / 5, 8 / 6]),
    "natural_exp": ({"rate": math.log(2)}, [8, 4, 2, 1, 0.5, 0.25]),
    "power_law": ({"exponent": 1.0}, [8, 4, 8 / 3, 2, 8 / 5, 8 / 6]),
    "saturation": (
        {"period": 1},
        [8 * (1 - math.exp(-t)) for t in range(1, 7)],
    ),
    "sigmoid": ({"gamma": 0.0, "midpoint": 3}, [4, 4, 4, 4, 4, 4]),
    "triangle_wave": (
        {"start": 0.0, "peak": 2.0, "up": 2, "down": 2, "envelope": "halving"},
        [0, 1, 2, 1, 0, 0.5],
    ),
    "piecewise_constant": (
        {"boundaries": [2, 4], "levels": ["base", 5.0, 1.0]},
        [8, 8, 5, 5, 1, 1],
    ),
    "knots": (
        {"points": [{"at": 1, "level": 1.0}, {"at": 3, "level": 5.0}]},
        [1, 1, 3, 5, 5, 5],
    ),
    "table": ({"levels": [5.0, 1.0, 4.0]}, [5, 1, 4, 4, 4, 4]),
    "relative": ({"schedule": {**HALF, "start": 1.0}}, [8, 4, 0, 0, 0, 0]),
    "rebase": ({"schedule": HALF, "by": 0.25}, [2, 1, 0, 0, 0, 0]),
    "scale": ({"schedule": DOWN, "by": 0.5}, [2, 1.5, 1, 0.5, 0, 0]),
    "clamp": ({"schedule": DOWN, "min": 1.0, "max": 3.0}, [3, 3, 2, 1, 1, 1]),
    "product": (
        {"schedule": DOWN, "factors": [{"kind": "exponential", "gamma": 0.5}]},
        [4, 1.5, 0.5, 0.125, 0, 0],
    ),
    "sum": ({"of": [DOWN, {"kind": "hold", "value": 1.0}]}, [5, 4, 3, 2, 1, 1]),
    "minimum": ({"of": [DOWN, {"kind": "hold", "value": 2.0}]}, [2, 2, 2, 1, 0, 0]),
    "maximum": ({"of": [DOWN, {"kind": "hold", "value": 2.0}]}, [4, 3, 2, 2, 2, 2]),
    "channels": ({"laws": {"lr": DOWN, "momentum": {"kind": "hold", "value": 0.9}}}, [4, 3, 2, 1]),
    "freeze": ({"schedule": DOWN, "at": 2}, [4, 3, 2, 2, 2, 2]),
    "delay": ({"schedule": DOWN, "by": 2}, [4, 4, 4, 3, 2, 1]),
    "shift": ({"schedule": DOWN, "by": 1}, [3, 2, 1, 0, 0, 0]),
    "stretch": ({"schedule": DOWN, "ratio": 2.0}, [4, 3.5, 3, 2.5, 2, 1.5]),
    "advance": ({"schedule": DOWN, "by": 2}, [4, 2, 0, 0, 0, 0]),
    "stair": ({"schedule": DOWN, "every": 2}, [4, 4, 2, 2, 0, 0]),
    "prolong": (
        {"schedule": {"kind": "ramp", "end": 0.0, "steps": 1}, "period": 2},
        [8, 4, 0, 2, 0, 8 / 6],
    ),
    "repeat": ({"schedule": HALF, "period": 2, "peak_decay": 0.5}, [8, 4, 4, 2, 2, 1]),
    "sequence": (
        {"parts": [{"schedule": DOWN, "steps": 2}, {"schedule": HALF}]},
        [4, 3, 8, 4, 0, 0],
    ),
    "splice": ({"first": DOWN, "steps": 2, "second": HALF}, [4, 3, 8, 4, 0, 0]),
    "warmup": ({"schedule": HALF, "steps": 4}, [0, 2, 4, 6, 8, 4]),
    "within": ({"schedule": {"kind": "exponential", "gamma": 0.5}, "steps": 2}, [8, 4, 2, 2, 2, 2]),
}


@pytest.mark.parametrize("kind", WORKED_OUT)
def test_a_block_gives_what_can_be_worked_out(kind: str) -> None:
    """From a base of 8 the first values are those that the formula gives by hand."""
    parameters, expected = WORKED_OUT[kind]
    values = Schedule.parse({**parameters, "kind": kind}).values(np.arange(6.0), 8.0)
    assert values[: len(expected)].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_splice_does_not_say_the_joint_twice() -> None:
    """If the second law starts where the first ended, it goes on from its next value."""
    first = {"kind": "ramp", "start": 2.0, "end": "base", "steps": 3}
    spliced = Schedule.parse({"kind": "splice", "first": first, "steps": 4, "second": HALF})
    assert spliced.values(np.arange(6.0), 8.0).tolist() == [2, 4, 6, 8, 4, 0]


def test_the_rectification_rises_to_the_base() -> None:
    """RAdam's factor starts small, never falls, and converges to one."""
    factors = Schedule.parse({"kind": "rectification"}).values(np.arange(20_000.0), 1.0)
    assert factors[0] == pytest.approx(0.0173, abs=1e-4)
    assert (np.diff(factors) >= -1e-12).all()
    assert factors[-1] == pytest.approx(1.0, abs=1e-4)


BEYOND = {
    "hold": [4, 2, 0, 0, 0, 0, 0],
    "bounce": [4, 2, 0, 2, 4, 2, 0],
    "extrapolate": [4, 2, 0, -2, -4, -6, -8],
}


@pytest.mark.parametrize("policy", BEYOND)
def test_a_ramp_does_beyond_its_end_what_it_was_told(policy: str) -> None:
    """Holding is the default; rising again, or going on below zero, needs a request."""
    ramp = {"kind": "ramp", "start": 4.0, "end": 0.0, "steps": 2, "out_of_range": policy}
    assert Schedule.parse(ramp).values(np.arange(7.0), 8.0).tolist() == BEYOND[policy]


def test_a_ramp_can_refuse_to_go_on() -> None:
    """With `error` there is no value past the end, so nothing is sealed there."""
    ramp = {"kind": "ramp", "start": 4.0, "end": 0.0, "steps": 2, "out_of_range": "error"}
    values = Schedule.parse(ramp).values(np.arange(5.0), 8.0)
    assert values[:3].tolist() == [4, 2, 0]
    assert np.isnan(values[3:]).all()


THROUGH = {
    "hold": [1, 1, 1, 3, 5, 5, 5],
    "bounce": [5, 3, 1, 3, 5, 3, 1],
    "extrapolate": [-3, -1, 1, 3, 5, 7, 9],
}


@pytest.mark.parametrize("policy", THROUGH)
def test_knots_do_outside_their_range_what_they_were_told(policy: str) -> None:
    """From knots at the steps 2 and 4 the line goes on in both directions as the policy says."""
    points = [{"at": 2, "level": 1.0}, {"at": 4, "level": 5.0}]
    knots = Schedule.parse({"kind": "knots", "points": points, "out_of_range": policy})
    assert knots.values(np.arange(7.0), 8.0).tolist() == THROUGH[policy]
    assert knots.range_policy() == policy


def test_knots_can_refuse_to_go_on() -> None:
    """With `error` there is no value before the first knot and after the last one."""
    points = [{"at": 2, "level": 1.0}, {"at": 4, "level": 5.0}]
    knots = Schedule.parse({"kind": "knots", "points": points, "out_of_range": "error"})
    assert_array_equal(knots.values(np.arange(7.0), 8.0), [np.nan, np.nan, 1, 3, 5, np.nan, np.nan])


LEVELS = {
    "hold": [5, 5, 5, 1, 4, 4, 4, 4],
    "bounce": [4, 1, 5, 1, 4, 1, 5, 1],
    "error": [np.nan, np.nan, 5, 1, 4, np.nan, np.nan, np.nan],
}


@pytest.mark.parametrize("policy", LEVELS)
def test_a_table_does_outside_its_range_what_it_was_told(policy: str) -> None:
    """A table holds, goes back without repeating its last value, or refuses."""
    table = Schedule.parse({"kind": "table", "levels": [5.0, 1.0, 4.0], "out_of_range": policy})
    assert_array_equal(table.values(np.arange(-2.0, 6.0), 8.0), LEVELS[policy])
    assert table.range_policy() == policy


def test_a_range_of_one_step_has_no_way_back() -> None:
    """With nowhere to go, bouncing is holding."""
    for law in (
        {"kind": "table", "levels": [5.0]},
        {"kind": "knots", "points": [{"at": 3, "level": 5.0}]},
    ):
        values = Schedule.parse({**law, "out_of_range": "bounce"}).values(np.arange(-2.0, 6.0), 8.0)
        assert values.tolist() == [5.0] * 8


def test_where_a_policy_gives_nothing_sealing_is_refused() -> None:
    """Steps in the range can be trained with; the first one past it is refused by number."""
    law = {"kind": "within", "schedule": {"kind": "exponential", "gamma": 0.5}, "steps": 2}
    values = Schedule.parse({**law, "out_of_range": "error"}).values(np.arange(5.0), 8.0)
    assert count_usable(0, {"lr": values[:3]}) == 3
    with pytest.raises(ScheduleNotFiniteError, match="nan for 'lr' at step 3"):
        count_usable(0, {"lr": values})


def test_every_channel_has_the_range() -> None:
    """The effect of `within` on the clock applies to the momentum too."""
    cycle = {"kind": "one_cycle", "total_steps": 20, "cycle_momentum": True}
    bounced = {"kind": "within", "schedule": cycle, "steps": 19, "out_of_range": "bounce"}
    momentum = Schedule.parse(bounced).channels()["momentum"].values(np.arange(39.0), 8.0)
    there = Schedule.parse(cycle).channels()["momentum"].values(np.arange(20.0), 8.0)
    assert momentum.tolist() == [*there, *there[-2::-1]]


HOLDING = {"kind": "hold"}
BOUNCING = {**DOWN, "out_of_range": "bounce"}
REFUSING = {**DOWN, "out_of_range": "error"}
ENDLESS = {"kind": "exponential", "gamma": 0.5}

STATED: dict[str, tuple[dict[str, Any], str]] = {
    "hold": (HOLDING, "hold"),
    "a ramp": (DOWN, "hold"),
    "a ramp that bounces": (BOUNCING, "bounce"),
    "pieces": (WORKED_OUT["piecewise_constant"][0] | {"kind": "piecewise_constant"}, "hold"),
    "a law without an end": (ENDLESS, "extrapolate"),
    "within": ({"kind": "within", "schedule": ENDLESS, "steps": 9}, "hold"),
    "within that bounces": (
        {"kind": "within", "schedule": ENDLESS, "steps": 9, "out_of_range": "bounce"},
        "bounce",
    ),
    "a stopped clock": ({"kind": "freeze", "schedule": ENDLESS, "at": 9}, "hold"),
    "a shifted clock": ({"kind": "shift", "schedule": BOUNCING, "by": 3}, "bounce"),
    "a slow clock": ({"kind": "stretch", "schedule": REFUSING, "ratio": 3.0}, "error"),
    "a prolonged horizon": ({"kind": "prolong", "schedule": DOWN, "period": 4}, "extrapolate"),
    "a repetition": ({"kind": "repeat", "schedule": REFUSING, "period": 4}, "extrapolate"),
    "a limited repetition": (
        {"kind": "repeat", "schedule": REFUSING, "period": 4, "limit": 2},
        "hold",
    ),
    "a sequence": (
        {"kind": "sequence", "parts": [{"schedule": REFUSING, "steps": 4}, {"schedule": DOWN}]},
        "hold",
    ),
    "a splice": ({"kind": "splice", "first": DOWN, "steps": 2, "second": BOUNCING}, "bounce"),
    "a warmup": ({"kind": "warmup", "schedule": ENDLESS, "steps": 4}, "extrapolate"),
    "factors": ({"kind": "relative", "schedule": DOWN}, "hold"),
    "endless noise": ({"kind": "noise", "schedule": DOWN}, "extrapolate"),
    "noise that ends": ({"kind": "noise", "schedule": BOUNCING, "end": 9}, "bounce"),
    "a product": ({"kind": "product", "schedule": DOWN, "factors": [ENDLESS]}, "extrapolate"),
    "a sum": ({"kind": "sum", "of": [DOWN, HOLDING]}, "hold"),
    "a sum that bounces": ({"kind": "sum", "of": [BOUNCING, HOLDING]}, "bounce"),
    "a sum that refuses": ({"kind": "sum", "of": [ENDLESS, REFUSING]}, "error"),
    "channels": ({"kind": "channels", "laws": {"lr": DOWN, "momentum": ENDLESS}}, "extrapolate"),
    "a name": ({"kind": "cosine", "total_steps": 9}, "hold"),
    "a growing cycle": (
        {"kind": "torch.CosineAnnealingWarmRestarts", "T_0": 9, "T_mult": 2},
        "extrapolate",
    ),
}


@pytest.mark.parametrize(("spec", "policy"), STATED.values(), ids=STATED)
def test_every_law_states_what_there_is_past_its_end(spec: dict[str, Any], policy: str) -> None:
    """A law declares its own policy, and a combinator derives it from its children's."""
    assert Schedule.parse(spec).range_policy() == policy


def test_a_part_can_go_on_from_where_the_last_one_ended() -> None:
    """With `value: continue` each part's base is the last value of the part before."""
    halving = {"kind": "exponential", "gamma": 0.5}
    parts = [{"schedule": halving, "steps": 2}, {"schedule": halving}]
    sequence = Schedule.parse({"kind": "sequence", "parts": parts, "value": "continue"})
    assert sequence.values(np.arange(5.0), 8.0).tolist() == [8, 4, 2, 1, 0.5]


def test_restarts_fall_where_whole_numbers_say() -> None:
    """Every restart of tripling periods is on the new cycle; a float logarithm would miss some."""
    repeat = Schedule.parse(
        {
            "kind": "repeat",
            "schedule": {"kind": "cosine", "total_steps": 10},
            "period": 10,
            "growth": 3,
        }
    )
    restarts = np.array([10 * (3**i - 1) // 2 for i in range(1, 30)], dtype=np.float64)
    assert set(repeat.values(restarts, 8.0)) == {8.0}


def kinds_below(root: type[Checked]) -> Iterator[type[Checked]]:
    """Return every class that derives from one."""
    for kind in root.__subclasses__():
        yield kind
        yield from kinds_below(kind)


def test_a_kind_tells_the_faults_of_its_parents_too() -> None:
    """An override of `_faults` calls that of its parents too."""
    for kind in set(kinds_below(Checked)):
        told = [each for each in kind.__mro__ if "_faults" in vars(each) and each is not Checked]
        if told[1:] and told[0] is kind:
            assert "super()._faults()" in inspect.getsource(kind._faults), kind
