"""Configs of composer, mmengine, fastai and ignite are used as they are written there."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError

from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule

PACE = Clock(total_steps=1000, steps_per_epoch=50, batch_size=8, tokens_per_step=4096)

SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "batches are steps": (
        {"kind": "composer.LinearScheduler", "t_max": "120ba"},
        {"kind": "composer.LinearScheduler", "t_max": 120},
    ),
    "epochs have their steps": (
        {"kind": "composer.LinearScheduler", "t_max": "3ep"},
        {"kind": "composer.LinearScheduler", "t_max": 150},
    ),
    "samples come in batches": (
        {"kind": "composer.LinearScheduler", "t_max": "8E2SP"},
        {"kind": "composer.LinearScheduler", "t_max": 100},
    ),
    "tokens come in batches": (
        {"kind": "composer.LinearScheduler", "t_max": "4.096e5tok"},
        {"kind": "composer.LinearScheduler", "t_max": 100},
    ),
    "a part of the duration": (
        {"kind": "composer.LinearScheduler", "t_max": "0.25dur"},
        {"kind": "composer.LinearScheduler", "t_max": 250},
    ),
    "no time at all is a warmup of none": (
        {"kind": "composer.CosineAnnealingWithWarmupScheduler", "t_warmup": "0ba"},
        {"kind": "composer.CosineAnnealingScheduler"},
    ),
    "epochs smoothed to steps": (
        {"kind": "mmengine.LinearLR", "begin": 1, "end": 4, "convert_to_iter_based": True},
        {"kind": "mmengine.LinearLR", "begin": 50, "end": 200, "by_epoch": False},
    ),
    "epochs that decay in stairs": (
        {"kind": "mmengine.MultiStepLR", "milestones": [8, 11]},
        {"kind": "mmengine.MultiStepLR", "milestones": [400, 550], "by_epoch": False},
    ),
    "epochs said twice": (
        {"kind": "mmengine.PolyLR", "end": {"epochs": 4}},
        {"kind": "mmengine.PolyLR", "end": 4},
    ),
    "a list in no order of time": (
        {
            "kind": "mmengine.param_scheduler",
            "schedulers": [
                {"type": "CosineAnnealingLR", "begin": 2, "end": 9, "eta_min": 0.01},
                {"type": "LinearLR", "end": 100, "by_epoch": False},
            ],
        },
        {
            "kind": "mmengine.param_scheduler",
            "schedulers": [
                {"kind": "mmengine.LinearLR", "end": 100, "by_epoch": False},
                {"kind": "mmengine.CosineAnnealingLR", "begin": 2, "end": 9, "eta_min": 0.01},
            ],
        },
    ),
    "epochs of a fit": (
        {"kind": "fastai.fit_one_cycle", "n_epoch": 4},
        {"kind": "fastai.fit_one_cycle", "total_steps": 200},
    ),
    "a fit of the whole session": (
        {"kind": "fastai.fit_flat_cos"},
        {"kind": "fastai.fit_flat_cos", "n_epoch": 20},
    ),
    "fine-tuning with nothing frozen": (
        {"kind": "fastai.fine_tune", "epochs": 4, "freeze_epochs": 0, "div_final": 1e3},
        {
            "kind": "fastai.fit_one_cycle",
            "n_epoch": 4,
            "lr_max": 1e-3,
            "div": 5.0,
            "div_final": 1e3,
            "pct_start": 0.3,
        },
    ),
    "combined schedules know their length": (
        {
            "kind": "fastai.combine_scheds",
            "pcts": [1.0],
            "scheds": [{"kind": "fastai.SchedLin", "start": 0.1, "end": 0.2}],
            "total_steps": 80,
        },
        {"kind": "fastai.SchedLin", "start": 0.1, "end": 0.2, "total_steps": 80},
    ),
    "shares that a rounding keeps from 1": (
        {
            "kind": "fastai.combine_scheds",
            "pcts": [0.1, 0.2, 0.7],
            "scheds": [
                {"kind": "fastai.SchedNo", "start": value, "end": 0.0} for value in (1.0, 2.0, 3.0)
            ],
            "total_steps": 100,
        },
        {"kind": "piecewise_constant", "boundaries": [10, 30], "levels": [1.0, 2.0, 3.0]},
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_two_ways_to_say_a_length_are_one_law(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A length in the unit of a library gives the very values of the length in steps."""
    t = np.arange(1100, dtype=np.float64)
    laws = [resolve(Schedule.parse(spec), PACE).channels() for spec in (one, other)]
    assert_array_equal(laws[0]["lr"].values(t, 0.25), laws[1]["lr"].values(t, 0.25))
    assert set(laws[0]) == set(laws[1])


WINDOW = {"by_epoch": False, "begin": 0, "end": 100}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a unit that is no length": (
        {"kind": "composer.StepScheduler", "step_size": "10iter"},
        "step_size",
        '"10ep"',
    ),
    "a number alone": ({"kind": "composer.StepScheduler", "step_size": "10"}, "step_size", "unit"),
    "a negative time": (
        {"kind": "composer.StepScheduler", "step_size": "-1ba"},
        "step_size",
        "unit",
    ),
    "a part of a batch": (
        {"kind": "composer.StepScheduler", "step_size": "1.5ba"},
        "step_size",
        "whole number of ba",
    ),
    "more than the training": (
        {"kind": "composer.CosineAnnealingScheduler", "t_max": "2dur"},
        "t_max",
        '"1dur"',
    ),
    "intervals that shrink": (
        {"kind": "composer.CosineAnnealingWarmRestartsScheduler", "t_0": "9ba", "t_mult": 0.5},
        "t_mult",
        "greater than or equal to 1",
    ),
    "a cooldown that warms": (
        {
            "kind": "composer.InverseSquareRootWithWarmupScheduler",
            "t_warmup": 1,
            "t_scale": 1,
            "t_cooldown": 1,
            "alpha_f_cooldown": 0.5,
        },
        "",
        "lower it",
    ),
    "an empty window": (
        {"kind": "mmengine.PolyLR", **WINDOW, "begin": 100},
        "",
        "`end` must be above `begin`",
    ),
    "a part of an epoch": (
        {"kind": "mmengine.StepLR", "step_size": 75, "every": 50},
        "",
        "convert_to_iter_based",
    ),
    "two floors": (
        {"kind": "mmengine.CosineAnnealingLR", "eta_min": 0.0, "eta_min_ratio": 0.0},
        "",
        "not both",
    ),
    "no floor": ({"kind": "mmengine.CosineRestartLR", "periods": [5]}, "", "Give either"),
    "too few weights": (
        {"kind": "mmengine.CosineRestartLR", "periods": [5, 5], "eta_min": 0.0},
        "",
        "for each of the `periods`",
    ),
    "a cycle divided by nothing": (
        {"kind": "mmengine.OneCycleLR", **WINDOW, "eta_max": 0.1, "final_div_factor": 0.0},
        "final_div_factor",
        '"inf"',
    ),
    "a floor in the company of a warmup": (
        {
            "kind": "mmengine.param_scheduler",
            "schedulers": [
                {"type": "LinearLR", **WINDOW},
                {"type": "PolyLR", **WINDOW, "eta_min": 0.01},
            ],
        },
        "",
        "let one begin where the other ends",
    ),
    "a part of a base that is not there": (
        {
            "kind": "mmengine.param_scheduler",
            "schedulers": [
                {"type": "LinearLR", **WINDOW, "end_factor": 0.9},
                {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 100, "T_max": 9},
            ],
        },
        "",
        "a factor of 1",
    ),
    "one cycle in a list": (
        {
            "kind": "mmengine.param_scheduler",
            "schedulers": [
                {"type": "OneCycleLR", **WINDOW, "eta_max": 0.1},
                {"type": "StepLR", **WINDOW, "step_size": 9},
            ],
        },
        "schedulers",
        "by itself",
    ),
    "a stranger in a list of mmengine": (
        {"kind": "mmengine.param_scheduler", "schedulers": ["constant"]},
        "schedulers",
        "`sequence`",
    ),
    "a type that mmengine has not": (
        {"kind": "mmengine.param_scheduler", "schedulers": [{"type": "StepRL"}]},
        "schedulers.0.kind",
        "Did you mean 'mmengine.StepLR'?",
    ),
    "a stranger among positions": (
        {"kind": "fastai.combine_scheds", "pcts": [1.0], "scheds": ["constant"]},
        "scheds",
        "`sequence`",
    ),
    "shares that are not the whole": (
        {
            "kind": "fastai.combine_scheds",
            "pcts": [0.5],
            "scheds": [{"kind": "fastai.SchedLin", "start": 0.1, "end": 0.2}],
        },
        "",
        "add up to 0.5",
    ),
    "too few shares": (
        {
            "kind": "fastai.combine_scheds",
            "pcts": [1.0],
            "scheds": [{"kind": "fastai.SchedLin", "start": 0.1, "end": 0.2}] * 2,
        },
        "",
        "one share",
    ),
    "growth from nothing": (
        {"kind": "fastai.SchedExp", "start": 0.0, "end": 0.1},
        "start",
        "above 0",
    ),
    "a cycle of one step": (
        {
            "kind": "ignite.LinearCyclicalScheduler",
            "start_value": 0.1,
            "end_value": 0.0,
            "cycle_size": 1,
        },
        "",
        "at least 2",
    ),
    "a warmup of a triangle": (
        {
            "kind": "ignite.LinearCyclicalScheduler",
            "start_value": 0.1,
            "end_value": 0.0,
            "cycle_size": 10,
            "warmup_duration": 3,
        },
        "",
        "`monotonic`",
    ),
    "cycles and warmups that part": (
        {
            "kind": "ignite.CosineAnnealingScheduler",
            "start_value": 0.1,
            "end_value": 0.0,
            "cycle_size": 10,
            "cycle_mult": 1.5,
            "warmup_duration": 3,
        },
        "",
        "whole `cycle_mult`",
    ),
    "milestones that go back": (
        {"kind": "ignite.PiecewiseLinear", "milestones_values": [[9, 0.1], [3, 0.2]]},
        "",
        "Sort",
    ),
    "too few durations": (
        {"kind": "ignite.ConcatScheduler", "schedulers": ["constant"] * 3, "durations": [5]},
        "",
        "for each scheduler but the last one",
    ),
    "a warmup of one step": (
        {
            "kind": "ignite.create_lr_scheduler_with_warmup",
            "lr_scheduler": "constant",
            "warmup_start_value": 0.0,
            "warmup_duration": 1,
        },
        "",
        "at least 2",
    ),
    "a warmup that composer would not stretch": (
        {
            "kind": "stretch",
            "ratio": 2.0,
            "schedule": {"kind": "composer.CosineAnnealingWithWarmupScheduler", "t_warmup": 9},
        },
        "",
        "leave `stretch` out",
    ),
    "the same deep inside": (
        {
            "kind": "stretch",
            "ratio": 2.0,
            "schedule": {
                "kind": "product",
                "schedule": "constant",
                "factors": [
                    {
                        "kind": "composer.LinearWithWarmupScheduler",
                        "t_warmup": 9,
                        "scale_warmup": True,
                    }
                ],
            },
        },
        "",
        "leave `stretch` out",
    ),
    "channels that are spliced": (
        {
            "kind": "splice",
            "first": "constant",
            "steps": 5,
            "second": {"kind": "one_cycle", "total_steps": 20, "cycle_momentum": True},
        },
        "",
        "inside `channels`",
    ),
}


@pytest.mark.parametrize(("spec", "place", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_config_that_makes_no_sense_is_refused(
    spec: dict[str, Any], place: str, hint: str
) -> None:
    """The error names the place and says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse(spec)
    error = caught.value.errors()[0]
    assert ".".join(map(str, error["loc"])) == place
    assert hint in error["msg"]


def test_fine_tuning_from_the_base_follows_it() -> None:
    """A base_lr of `base` gives what the number gives, in every group of the model."""
    t = np.arange(300, dtype=np.float64)
    spec = {"kind": "fastai.fine_tune", "steps": 200, "freeze_steps": 50, "position": 0.5}
    of_base, of_number = (
        Schedule.parse({**spec, "base_lr": base_lr}).channels() for base_lr in ("base", 0.25)
    )
    assert_allclose(of_base["lr"].values(t, 0.25), of_number["lr"].values(t, 9.0), rtol=1e-12)
    assert_array_equal(of_base["momentum"].values(t, 0.9), of_number["momentum"].values(t, 0.9))


def test_a_list_is_judged_once_its_lengths_are_steps() -> None:
    """Windows in epochs and in steps are compared once the session defines an epoch."""
    spec = {
        "kind": "mmengine.param_scheduler",
        "schedulers": [
            {"type": "LinearLR", "by_epoch": False, "end": 101},
            {"type": "PolyLR", "begin": 2, "end": 9, "eta_min": 0.01},
        ],
    }
    parsed = Schedule.parse(spec)
    resolve(parsed, Clock(steps_per_epoch=51))
    with pytest.raises(ValidationError, match="let one begin where the other ends"):
        resolve(parsed, Clock(steps_per_epoch=50))


def test_cut_cycles_that_cannot_grow_are_equal() -> None:
    """A growth that is cut off each time leaves equal cycles, without end."""
    spec = {
        "kind": "composer.CosineAnnealingWarmRestartsScheduler",
        "t_0": "10ba",
        "t_mult": 1.05,
    }
    t = 10.0 * np.arange(10**6, 10**6 + 5)
    assert Schedule.parse(spec).values(t, 0.1).tolist() == [0.1] * 5
