"""Presets of timm, optax and keras: what they refuse, and where they are better than the libraries.

That they give the libraries' values is tested in `test_golden_parity`.
"""

from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydantic import ValidationError

from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.model import MAX_STEP
from pacesetter_service.core.schedules import Schedule


def values(spec: dict[str, Any], at: list[int], base: float = 0.1) -> list[float]:
    """Evaluate a schedule at some steps."""
    return Schedule.parse(spec).values(np.array(at, dtype=np.float64), base).tolist()


CONSTANT = {"kind": "optax.constant_schedule", "value": 0.1}
LATER = {"kind": "optax.linear_schedule", "init_value": 0.1, "end_value": 0.0}
CYCLE = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 9, "decay_steps": 9}
SWINGING = {"kind": "one_cycle", "total_steps": 9, "cycle_momentum": True}

REFUSED = {
    "cycles that shrink": (
        {"kind": "timm.CosineLRScheduler", "t_initial": 10, "cycle_mul": 0.5},
        "cycle_mul",
        "greater than or equal to 1",
    ),
    "no cycles": (
        {"kind": "timm.TanhLRScheduler", "t_initial": 10, "cycle_limit": 0},
        "cycle_limit",
        "greater than or equal to 1",
    ),
    "bounds of a tangent that do not ascend": (
        {"kind": "timm.TanhLRScheduler", "t_initial": 10, "lb": 3.0, "ub": -7.0},
        "",
        "swap them",
    ),
    "noise of timm": (
        {"kind": "timm.PolyLRScheduler", "t_initial": 10, "noise_range_t": 3},
        "noise_range_t",
        "no such field",
    ),
    "milestones that do not ascend": (
        {"kind": "timm.MultiStepLRScheduler", "decay_t": [9, 3]},
        "decay_t",
        "ascending order",
    ),
    "more decay than time": (
        {"kind": "timm.WSDLRScheduler", "t_initial": 10, "decay_t": 11},
        "",
        "must not be above t_initial",
    ),
    "no timescale": (
        {"kind": "timm.WSDLRScheduler", "t_initial": 10, "decay_t": 5, "stable_fn": "rsqrt"},
        "",
        "needs a stable_timescale",
    ),
    "a negative value": ({"kind": "optax.constant_schedule", "value": -0.1}, "value", "equal to 0"),
    "a rate of 0": (
        {
            "kind": "optax.exponential_decay",
            "init_value": 0.1,
            "transition_steps": 5,
            "decay_rate": 0.0,
        },
        "decay_rate",
        "greater than 0",
    ),
    "a negative scale": (
        {
            "kind": "optax.piecewise_constant_schedule",
            "init_value": 0.1,
            "boundaries_and_scales": {"3": -1.0},
        },
        "boundaries_and_scales.3",
        "equal to 0",
    ),
    "a boundary that is no step": (
        {
            "kind": "optax.piecewise_constant_schedule",
            "init_value": 0.1,
            "boundaries_and_scales": {"soon": 1.0},
        },
        "boundaries_and_scales.soon.[key]",
        "valid integer",
    ),
    "a warmup of no steps at all": (
        {
            "kind": "optax.warmup_constant_schedule",
            "init_value": 0.0,
            "peak_value": 0.1,
            "warmup_steps": 0,
        },
        "warmup_steps",
        "at least 1",
    ),
    "a peak at the end": (
        {
            "kind": "optax.cosine_onecycle_schedule",
            "transition_steps": 10,
            "peak_value": 0.1,
            "pct_start": 1.0,
        },
        "",
        "end at steps 10, 10",
    ),
    "phases that meet": (
        {"kind": "optax.linear_onecycle_schedule", "transition_steps": 1, "peak_value": 0.1},
        "",
        "raise transition_steps",
    ),
    "no time to decay": (
        {"kind": "optax.sgdr_schedule", "cosine_kwargs": [{**CYCLE, "warmup_steps": 3}, CYCLE]},
        "cosine_kwargs.1",
        "must be above warmup_steps",
    ),
    "a boundary too few": (
        {"kind": "optax.join_schedules", "schedules": [CONSTANT, CONSTANT], "boundaries": []},
        "",
        "need 1 boundaries",
    ),
    "boundaries that do not ascend": (
        {"kind": "optax.join_schedules", "schedules": [CONSTANT] * 3, "boundaries": [9, 3]},
        "boundaries",
        "ascending order",
    ),
    "schedules with other channels": (
        {"kind": "optax.join_schedules", "schedules": [CONSTANT, SWINGING], "boundaries": [9]},
        "",
        "the same channels",
    ),
    "a value too few": (
        {"kind": "keras.PiecewiseConstantDecay", "boundaries": [3], "values": [0.1]},
        "",
        "one value for each piece",
    ),
    "values under both names": (
        {
            "kind": "keras.PiecewiseConstantDecay",
            "boundaries": [],
            "values": [0.1],
            "levels": [0.2],
        },
        "values",
        "no such field",
    ),
    "a warmup to nowhere": (
        {
            "kind": "keras.CosineDecay",
            "initial_learning_rate": 0.1,
            "decay_steps": 10,
            "warmup_steps": 5,
        },
        "",
        "give one, or leave warmup_steps out",
    ),
    "a factor of cycles below 1": (
        {
            "kind": "keras.CosineDecayRestarts",
            "initial_learning_rate": 0.1,
            "first_decay_steps": 10,
            "t_mul": 0.5,
        },
        "t_mul",
        "greater than or equal to 1",
    ),
}


@pytest.mark.parametrize(("spec", "place", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_preset_that_makes_no_sense_is_refused(
    spec: dict[str, Any], place: str, hint: str
) -> None:
    """The error names the place and says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse(spec)
    [error] = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == place
    assert hint in error["msg"]


CYCLES_OF_TIMM = ["timm.CosineLRScheduler", "timm.PolyLRScheduler", "timm.TanhLRScheduler"]


@given(
    st.sampled_from(CYCLES_OF_TIMM),
    st.integers(1, 100),
    st.sampled_from([2, 3, 5, 7, 10]),
    st.integers(1, 8),
)
def test_timm_cycles_restart_where_they_should(
    kind: str, period: int, growth: int, cycle: int
) -> None:
    """Every cycle starts at its own height, also where timm's logarithm is off by one."""
    spec = {"kind": kind, "t_initial": period, "cycle_mul": float(growth), "cycle_limit": 9}
    restart = period * (growth**cycle - 1) // (growth - 1)
    assert values(spec, [restart]) == values(spec, [0])


@given(st.integers(1, 100), st.sampled_from([2, 3, 7, 10]), st.integers(1, 8))
def test_keras_cycles_restart_where_they_should(period: int, growth: int, cycle: int) -> None:
    """Every cycle starts with the initial rate, also where keras's logarithm is off by one."""
    spec = {
        "kind": "keras.CosineDecayRestarts",
        "initial_learning_rate": 0.3,
        "first_decay_steps": period,
        "t_mul": float(growth),
    }
    assert values(spec, [period * (growth**cycle - 1) // (growth - 1)]) == [0.3]


def test_growing_heights_overflow_like_all_growth() -> None:
    """Ever higher cycles reach infinity, which is not sealed, and raise no exception."""
    spec = {"kind": "repeat", "schedule": "constant", "period": 1, "peak_decay": 2.0}
    assert values(spec, [10, MAX_STEP - 1]) == [0.1 * 1024, np.inf]


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "multistep", "milestones": [3, 5], "gamma": 1e200},
        {"kind": "torch.MultiStepLR", "milestones": [5, 3], "gamma": 1e200},
        {"kind": "composer.MultiStepScheduler", "milestones": ["3ba", "5ba"], "gamma": 1e200},
        {"kind": "mmengine.MultiStepLR", "milestones": [3, 5], "gamma": 1e200, "by_epoch": False},
        {"kind": "timm.MultiStepLRScheduler", "decay_t": [4, 6], "decay_rate": 1e200},
    ],
    ids=itemgetter("kind"),
)
def test_growing_milestones_overflow_like_all_growth(spec: dict[str, Any]) -> None:
    """A factor above 1 at each of them comes to infinity as well, where it was asked for too."""
    assert values(spec, [2, 3, 5]) == [0.1, 0.1 * 1e200, np.inf]


@pytest.mark.parametrize("kind", ["timm.CosineLRScheduler", "timm.PolyLRScheduler"])
def test_a_way_that_is_bent_beyond_the_floats_is_no_way(kind: str) -> None:
    """Where the length to the power is no number any more, neither is what lies on the way."""
    law = {"kind": kind, "t_initial": 100, "k_decay": 1e300}
    assert not np.isfinite(values(law, [2, 50])).any()


LENGTHS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"kind": "timm.CosineLRScheduler", "t_initial": {"epochs": 9}, "warmup_t": {"epochs": 1}},
        {"kind": "timm.CosineLRScheduler", "t_initial": 90, "warmup_t": 10},
    ),
    (
        {"kind": "timm.MultiStepLRScheduler", "decay_t": [5, {"epochs": 3}], "decay_rate": 0.1},
        {"kind": "timm.MultiStepLRScheduler", "decay_t": [5, 30], "decay_rate": 0.1},
    ),
    (
        {"kind": "timm.WSDLRScheduler", "t_initial": {"epochs": 9}, "decay_t": {"epochs": 2}},
        {"kind": "timm.WSDLRScheduler", "t_initial": 90, "decay_t": 20},
    ),
    (
        {
            "kind": "optax.join_schedules",
            "schedules": [{**LATER, "transition_steps": {"epochs": 2}}, CONSTANT],
            "boundaries": [{"epochs": 1}],
        },
        {
            "kind": "optax.join_schedules",
            "schedules": [{**LATER, "transition_steps": 20}, CONSTANT],
            "boundaries": [10],
        },
    ),
    (
        {
            "kind": "optax.linear_onecycle_schedule",
            "transition_steps": {"epochs": 6},
            "peak_value": 1.0,
        },
        {"kind": "optax.linear_onecycle_schedule", "transition_steps": 60, "peak_value": 1.0},
    ),
    (
        {
            "kind": "keras.CosineDecay",
            "initial_learning_rate": 0.0,
            "decay_steps": {"epochs": 5},
            "warmup_target": 0.1,
            "warmup_steps": {"epochs": 1},
        },
        {
            "kind": "keras.CosineDecay",
            "initial_learning_rate": 0.0,
            "decay_steps": 50,
            "warmup_target": 0.1,
            "warmup_steps": 10,
        },
    ),
]


@pytest.mark.parametrize(("written", "steps"), LENGTHS, ids=lambda spec: spec["kind"])
def test_lengths_may_be_in_epochs(written: dict[str, Any], steps: dict[str, Any]) -> None:
    """A preset takes lengths in other units, which no library does."""
    resolved = resolve(Schedule.parse(written), Clock(steps_per_epoch=10))
    t = np.arange(120, dtype=np.float64)
    assert_array_equal(resolved.values(t, 0.1), Schedule.parse(steps).values(t, 0.1))


def test_timm_by_epochs_is_a_stair() -> None:
    """A stair of an epoch holds what timm sets once an epoch, milestones one epoch lower."""
    milestones = {
        "kind": "timm.MultiStepLRScheduler",
        "decay_t": [{"epochs": 2}, {"epochs": 4}],
        "decay_rate": 0.5,
    }
    stair = Schedule.parse({"kind": "stair", "schedule": milestones, "every": {"epochs": 1}})
    law = resolve(stair, Clock(steps_per_epoch=10))
    at = np.array([19.0, 20.0, 39.0, 40.0])  # timm's milestones would be 3 and 5
    assert law.values(at, 1.0).tolist() == [1.0, 0.5, 0.5, 0.25]


def test_keras_without_boundaries_is_a_constant() -> None:
    """With one rate and no boundary, where keras raises, that rate holds for ever."""
    spec = {"kind": "keras.PiecewiseConstantDecay", "boundaries": [], "values": [0.2]}
    assert values(spec, [0, MAX_STEP]) == [0.2, 0.2]
