"""Megatron, DeepSpeed, torchtitan and fairseq: what presets change of them, and what they refuse.

That the rest is theirs is tested with golden values.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from pydantic import ValidationError

from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule

BASE = 0.1

MEGATRON = "megatron.OptimizerParamScheduler"


def values(
    spec: dict[str, Any], count: int, *, start: int = 0, channel: str = "lr"
) -> NDArray[np.float64]:
    """Evaluate one channel of a schedule in a session of 100 steps, 10 an epoch."""
    schedule = resolve(Schedule.parse(spec), Clock(total_steps=100, steps_per_epoch=10))
    t = np.arange(start, start + count, dtype=np.float64)
    return schedule.channels()[channel].values(t, BASE)


@given(
    st.integers(1, 300),
    st.integers(1, 30),
    st.integers(1, 60),
    st.sampled_from(["constant", "linear", "cosine", "inverse-square-root", "WSD"]),
)
def test_lengths_in_samples_are_those_in_steps(
    increment: int, warmup: int, decay: int, style: str
) -> None:
    """Megatron's lengths in samples, with an increment, mean the same as those in steps."""
    lengths = {
        "lr_warmup_steps": warmup,
        "lr_decay_steps": warmup + decay,
        "wsd_decay_steps": decay,
        "wd_incr_steps": decay,
    }
    spec = {
        "kind": MEGATRON,
        "lr_decay_style": style,
        "min_lr": 0.01,
        "start_wd": 0.01,
        "end_wd": 0.1,
        "wd_incr_style": "cosine",
    }
    samples = {name: length * increment for name, length in lengths.items()}
    for channel in ("lr", "weight_decay"):
        assert_allclose(
            values(spec | samples | {"increment": increment}, 120, channel=channel),
            values(spec | lengths, 120, channel=channel),
            rtol=1e-12,
        )


@pytest.mark.parametrize("decay_type", ["linear", "sqrt", "cosine"])
def test_torchtitan_holds_its_floor(decay_type: str) -> None:
    """Past the end, where torchtitan turns negative or rises again, the floor is held."""
    spec = {"kind": "torchtitan.lr_scheduler", "warmup_steps": 5, "decay_type": decay_type}
    assert set(values(spec, 100, start=100)) == {0.0}
    floored = values(spec | {"min_lr_factor": 0.25}, 100, start=100)
    assert set(floored) == {0.25 * BASE}


def test_torchtitan_without_a_decay_stays() -> None:
    """Past the end of a training without a decay, where torchtitan fails, the base is held."""
    spec = {"kind": "torchtitan.lr_scheduler", "warmup_steps": 5, "decay_ratio": 0.0}
    assert set(values(spec, 300, start=5)) == {BASE}


def test_deepspeeds_momentum_starts_high_and_stays_below_one() -> None:
    """The first step has the momentum of its law; one that grows stays below 1 in float32 too."""
    spec = {
        "kind": "deepspeed.OneCycle",
        "cycle_min_lr": 0.01,
        "cycle_max_lr": 0.1,
        "cycle_first_step_size": 10,
        "decay_step_size": 5,
        "decay_mom_rate": 0.1,
    }
    momenta = values(spec, 200, channel="momentum")
    assert momenta[0] == 0.9
    assert 0.9999999 < momenta.max() < 1.0
    assert momenta.astype(np.float32).max() < 1.0
    assert set(Schedule.parse(spec | {"cycle_momentum": False}).channels()) == {"lr"}


def test_deepspeeds_cosine_starts_at_its_ratio() -> None:
    """The first two steps both have warmup_min_ratio; DeepSpeed gives the very first one 0."""
    spec = {"kind": "deepspeed.WarmupCosineLR", "total_num_steps": 50, "warmup_num_steps": 10}
    assert_array_equal(values(spec | {"warmup_min_ratio": 0.5}, 2), [0.5 * BASE, 0.5 * BASE])


@pytest.mark.parametrize("t_mult", [2, 3, 10])
def test_fairseqs_cosine_misses_no_restart(t_mult: int) -> None:
    """Every cycle starts at its height, those too that a float logarithm places one early."""
    spec = {
        "kind": "fairseq.cosine",
        "lr_period_updates": 10,
        "t_mult": t_mult,
        "lr_shrink": 0.5,
    }
    for cycle in range(7):
        restart = 10 * (t_mult**cycle - 1) // (t_mult - 1)
        assert values(spec, 1, start=restart)[0] == BASE * 0.5**cycle


def test_fairseqs_epochs_are_the_sessions() -> None:
    """An epoch of fixed may be the session's own."""
    spec = {"kind": "fairseq.fixed", "lr": [0.3, 0.2], "epoch": {"epochs": 1}, "force_anneal": 3}
    annealed = 0.2 * 0.1
    assert_array_equal(values(spec, 30), [0.3] * 10 + [0.2] * 10 + [annealed] * 10)


def test_the_length_of_the_training_is_the_sessions() -> None:
    """Where a library uses the training's own length, so does its preset."""
    for spec in (
        {"kind": "torchtitan.lr_scheduler", "warmup_steps": 5},
        {"kind": "fairseq.polynomial_decay"},
    ):
        curve = values(spec, 101)
        assert curve[99] > 0
        assert curve[100] == 0


REFUSED = {
    "samples in two ways": (
        {"kind": MEGATRON, "lr_decay_steps": {"samples": 1e6}, "increment": 8},
        "leave `increment` out",
    ),
    "a warmup that fills the decay": (
        {"kind": MEGATRON, "lr_decay_steps": 10, "lr_warmup_steps": 10},
        "must be above lr_warmup_steps",
    ),
    "WSD without a length": (
        {"kind": MEGATRON, "lr_decay_steps": 10, "lr_decay_style": "WSD"},
        "needs wsd_decay_steps",
    ),
    "a floor above the peak": (
        {"kind": MEGATRON, "lr_decay_steps": 10, "max_lr": 0.1, "min_lr": 0.2},
        "raise it",
    ),
    "half a weight decay": (
        {"kind": MEGATRON, "lr_decay_steps": 10, "start_wd": 0.1},
        "Give both",
    ),
    "a constant weight decay that grows": (
        {"kind": MEGATRON, "lr_decay_steps": 10, "start_wd": 0.1, "end_wd": 0.2},
        "set `wd_incr_style`",
    ),
    "a weight decay that grows for ever": (
        {
            "kind": MEGATRON,
            "lr_decay_steps": 10,
            "start_wd": 0.1,
            "end_wd": 0.2,
            "wd_incr_style": "linear",
        },
        "wd_incr_steps",
    ),
    "cosine waves of no length": ({"kind": "fairseq.cosine"}, "give lr_period_updates"),
    "a warmup that fills the wave": (
        {"kind": "fairseq.cosine", "max_update": 10, "warmup_updates": 10},
        "must be above warmup_updates",
    ),
    "epochs of no length": ({"kind": "fairseq.fixed", "force_anneal": 3}, '{"epochs": 1}'),
    "an inverse square root of nothing": (
        {"kind": "fairseq.inverse_sqrt", "warmup_updates": 0},
        "at least 1",
    ),
    "a decay that compounds": (
        {"kind": "fairseq.polynomial_decay", "force_anneal": 3},
        "leave `force_anneal` out",
    ),
    "a warmup that fills the training": (
        {"kind": "fairseq.polynomial_decay", "total_num_update": 10, "warmup_updates": 10},
        "must be above warmup_updates",
    ),
    "three stages without a decay": ({"kind": "fairseq.tri_stage"}, "give decay_steps"),
    "ratios of nothing": (
        {"kind": "fairseq.tri_stage", "phase_ratio": [0.1, 0.4, 0.5]},
        "max_update",
    ),
    "ratios that are no whole": (
        {"kind": "fairseq.tri_stage", "phase_ratio": [0.1, 0.4, 0.4], "max_update": 100},
        "add up to 1",
    ),
    "a triangle of one step": (
        {"kind": "fairseq.triangular", "max_lr": 0.5, "lr_period_updates": 1},
        "at least 2",
    ),
}


@pytest.mark.parametrize(("spec", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_preset_that_makes_no_sense_is_refused(spec: dict[str, Any], hint: str) -> None:
    """The error says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse(spec)
    [error] = caught.value.errors()
    assert hint in error["msg"]
