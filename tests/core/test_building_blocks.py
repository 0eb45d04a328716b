"""The building blocks, each over a few steps whose values can be worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

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
}


@pytest.mark.parametrize("kind", WORKED_OUT)
def test_a_block_gives_what_can_be_worked_out(kind: str) -> None:
    """From a base of 8 the first values are those that the law's formula gives by hand."""
    parameters, expected = WORKED_OUT[kind]
    values = Schedule.parse({**parameters, "kind": kind}).values(np.arange(6.0), 8.0)
    assert values[: len(expected)].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_a_splice_does_not_say_the_joint_twice() -> None:
    """Where the second law starts where the first ended, it goes on from its next value."""
    first = {"kind": "ramp", "start": 2.0, "end": "base", "steps": 3}
    spliced = Schedule.parse({"kind": "splice", "first": first, "steps": 4, "second": HALF})
    assert spliced.values(np.arange(6.0), 8.0).tolist() == [2, 4, 6, 8, 4, 0]


def test_the_rectification_rises_to_the_base() -> None:
    """RAdam's factor starts small, never falls, and comes to one."""
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
    """Holding is the rule; rising again, or going on below zero, only happens on request."""
    ramp = {"kind": "ramp", "start": 4.0, "end": 0.0, "steps": 2, "outside": policy}
    assert Schedule.parse(ramp).values(np.arange(7.0), 8.0).tolist() == BEYOND[policy]


def test_a_ramp_can_refuse_to_go_on() -> None:
    """With `error` there is no value past the end, and nothing that could be sealed."""
    ramp = {"kind": "ramp", "start": 4.0, "end": 0.0, "steps": 2, "outside": "error"}
    values = Schedule.parse(ramp).values(np.arange(5.0), 8.0)
    assert values[:3].tolist() == [4, 2, 0]
    assert np.isnan(values[3:]).all()


def test_a_part_can_go_on_from_where_the_last_one_ended() -> None:
    """With `value: continue` each part's base is the value that the part before came to."""
    halving = {"kind": "exponential", "gamma": 0.5}
    parts = [{"schedule": halving, "steps": 2}, {"schedule": halving}]
    sequence = Schedule.parse({"kind": "sequence", "parts": parts, "value": "continue"})
    assert sequence.values(np.arange(5.0), 8.0).tolist() == [8, 4, 2, 1, 0.5]


def test_restarts_fall_where_whole_numbers_say() -> None:
    """At every restart of tripling periods the cycle is the new one; a float logarithm is not."""
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
