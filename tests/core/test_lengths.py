"""Lengths in other units than steps."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from pacesetter_service.core.lengths import Clock, Duration, resolve
from pacesetter_service.core.model import jsonable
from pacesetter_service.core.schedules import Schedule

CLOCK = Clock(total_steps=1000, steps_per_epoch=30, batch_size=32, tokens_per_step=65_536)

WORTH = {"epochs": (2.5, 75), "fraction": (0.07, 70), "samples": (640, 20), "tokens": (1e6, 15)}


@pytest.mark.parametrize("unit", WORTH)
def test_a_unit_comes_to_whole_steps(unit: str) -> None:
    """Each unit is converted to the nearest number of steps."""
    length, steps = WORTH[unit]
    assert CLOCK.steps(Duration(**{unit: length})) == steps


@pytest.mark.parametrize("unit", WORTH)
def test_a_unit_needs_its_number(unit: str) -> None:
    """A number that the session lacks cannot be assumed; the error names it."""
    with pytest.raises(PydanticCustomError, match="give it beside the schedule"):
        Clock().steps(Duration(**{unit: 1}))


NESTED: dict[str, Any] = {
    "kind": "sequence",
    "parts": [
        {"schedule": {"kind": "step", "step_size": {"epochs": 1}}, "steps": {"epochs": 3}},
        {"schedule": {"kind": "cosine", "total_steps": {"fraction": 0.5}}},
    ],
}


def test_lengths_are_found_wherever_they_stand() -> None:
    """A tree in other units is the same tree in steps."""
    resolved = resolve(Schedule.parse(NESTED), CLOCK)
    in_steps = json.loads(
        json.dumps(NESTED)
        .replace('{"epochs": 1}', "30")
        .replace('{"epochs": 3}', "90")
        .replace('{"fraction": 0.5}', "500")
    )
    assert resolved == Schedule.parse(in_steps)
    assert resolve(resolved, CLOCK) is resolved


def test_a_spec_keeps_its_units() -> None:
    """A spec is written as it was read."""
    schedule = Schedule.parse(NESTED)
    assert Schedule.parse(jsonable(schedule)) == schedule
    assert jsonable(schedule)["parts"][0]["steps"] == {"epochs": 3.0}


def test_a_length_that_comes_to_nothing_is_refused() -> None:
    """A period of a thousandth of an epoch is no step at all, and no period."""
    schedule = Schedule.parse({"kind": "step", "step_size": {"epochs": 0.001}})
    with pytest.raises(ValidationError, match="at least 1"):
        resolve(schedule, CLOCK)


@pytest.mark.parametrize(
    "length",
    [
        {},
        {"epochs": None},
        {"epochs": 1, "fraction": 0.5},
        {"epoch": 1},
        {"fraction": 1.5},
        {"epochs": -1},
    ],
)
def test_a_crooked_length_is_refused(length: dict[str, float]) -> None:
    """A length names one unit, and the error shows how."""
    with pytest.raises(ValidationError, match="a length such as"):
        Schedule.parse({"kind": "cosine", "total_steps": length})
