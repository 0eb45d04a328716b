"""The named schedules against their laws, written as their sources write them, step by step."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError
from torch.optim import SGD
from torch.optim.swa_utils import SWALR
from transformers import get_scheduler

from core import named_laws as laws
from core.named_laws import Law, wave
from core.torch_schedulers import Floats
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.schedules.named.chebyshev import fractal_order

BASE = 0.1


def ours(spec: dict[str, Any] | str, steps: int, base: float = BASE) -> Floats:
    """Evaluate one of our schedules over the first steps."""
    return Schedule.parse(spec).values(np.arange(steps, dtype=np.float64), base)


CONSTANT = {"kind": "constant"}

RUNS: dict[str, tuple[dict[str, Any], Law]] = {
    "constant": (CONSTANT, lambda t: 0.1),
    "constant for some steps": (
        {"kind": "constant", "factor": 0.5, "total_iters": 7},
        lambda t: 0.05 if t < 7 else 0.1,
    ),
    "natural_exp": (
        {"kind": "natural_exp", "rate": 0.7, "per": 30},
        lambda t: 0.1 * math.exp(-0.7 * (t / 30)),
    ),
    "natural_exp in stairs": (
        {"kind": "natural_exp", "rate": 0.7, "per": 30, "staircase": True},
        lambda t: 0.1 * math.exp(-0.7 * (t // 30)),
    ),
    "geometric": (
        {"kind": "geometric", "total_steps": 100, "end_lr": 1e-5},
        lambda t: 0.1 * (1e-5 / 0.1) ** (min(t, 100) / 100),
    ),
    "geometric, growing": (
        {"kind": "geometric", "total_steps": 100, "end_lr": 2.0},
        lambda t: 0.1 * (2.0 / 0.1) ** (min(t, 100) / 100),
    ),
    "polynomial with cycles": (
        {"kind": "polynomial", "total_steps": 30, "power": 2.0, "min_lr": 0.01, "cycle": True},
        laws.polynomial_cycle,
    ),
    "cosine with an exponent": (
        {"kind": "cosine", "total_steps": 100, "min_lr": 0.001, "exponent": 2.0},
        laws.cosine_exponent,
    ),
    "cosine of some waves": (
        {"kind": "cosine", "total_steps": 100, "min_lr": 0.001, "waves": 1.25},
        laws.cosine_waves,
    ),
    "infinite": (
        {
            "kind": "infinite",
            "total_steps": 100,
            "warmup_steps": 10,
            "cooldown_steps": 30,
            "constant_lr": 0.04,
            "anneal_steps": 20,
            "min_lr": 0.002,
        },
        laws.infinite,
    ),
    "anytime": ({"kind": "anytime", "alpha": 50, "warmup_steps": 20}, laws.anytime),
    "anytime, as an inverse root": (
        {"kind": "inverse_sqrt", "timescale": 50, "warmup_steps": 20},
        laws.anytime,
    ),
    "optimal decay": (
        {"kind": "fsl_decay", "total_steps": 100, "beta": 1.4},
        laws.optimal_decay,
    ),
    "optimal decay, as a polynomial": (
        {"kind": "polynomial", "total_steps": 100, "power": 2 * 1.4 - 1},
        laws.optimal_decay,
    ),
    "optimal decay of a hard task": (
        {
            "kind": "fsl_decay",
            "total_steps": 100,
            "beta": 1.4,
            "decay_steps": 15,
            "warmup_steps": 10,
        },
        laws.optimal_decay_of_a_hard_task,
    ),
    "half a cosine": (
        {"kind": "cosine", "total_steps": 100, "min_lr": 0.01, "shape": "half"},
        laws.half_cosine,
    ),
    "a quarter of a cosine": (
        {"kind": "cosine", "total_steps": 100, "min_lr": 0.01, "shape": "quarter"},
        laws.quarter_cosine,
    ),
    "cosine_restarts": (
        {"kind": "cosine_restarts", "total_steps": 90, "num_cycles": 4},
        laws.restarts_of_transformers,
    ),
    "sgdr of torch": (
        {"kind": "sgdr", "period": 10, "growth": 3.0, "min_lr": 0.001},
        laws.sgdr_of_torch,
    ),
    "sgdr of katsura": (
        {
            "kind": "sgdr",
            "period": 30,
            "growth": 2.0,
            "peak_decay": 0.8,
            "warmup_steps": 5,
            "min_lr": 0.01,
        },
        laws.sgdr_of_katsura,
    ),
    "sgdr of mmengine": (
        {"kind": "sgdr", "periods": [20, 50, 30], "peak_decay": 0.5, "min_lr": 0.01},
        laws.sgdr_of_mmengine,
    ),
    "sgdr with a limit": (
        {"kind": "sgdr", "period": 20, "limit": 2, "min_lr": 0.01},
        lambda t: 0.01 + 0.09 * wave(t % 20 / 20) if t < 40 else 0.01,
    ),
    "k_decay of a cosine": (
        {"kind": "k_decay", "total_steps": 100, "k": 1.5, "min_lr": 0.001},
        laws.cosine_k_decay,
    ),
    "k_decay of a polynomial": (
        {"kind": "k_decay", "total_steps": 100, "k": 0.7, "shape": "polynomial", "power": 2.0},
        laws.polynomial_k_decay,
    ),
    "tanh": (
        {"kind": "tanh", "total_steps": 100, "min_lr": 0.001, "lb": -6.0, "ub": 3.0},
        laws.tanh_anneal,
    ),
    "sigmoid": (
        {"kind": "sigmoid", "gamma": 0.1, "midpoint": 50},
        lambda t: 0.1 * (1.0 / (1.0 + math.exp(0.1 * (t - 50)))),
    ),
    "rex of pytorch_optimizer": (
        {"kind": "rex", "total_steps": 100, "beta": 0.5, "min_lr": 0.01},
        laws.rex_of_pytorch_optimizer,
    ),
    "rex of axolotl": (
        {"kind": "rex", "total_steps": 100, "beta": 0.9, "min_lr": 0.01},
        laws.rex_of_axolotl,
    ),
    "linear_cosine": (
        {"kind": "linear_cosine", "total_steps": 100, "num_periods": 1.5, "alpha": 0.1},
        laws.linear_cosine,
    ),
    "sawtooth": (
        {
            "kind": "cyclic",
            "mode": "sawtooth",
            "base_lr": 0.001,
            "max_lr": "base",
            "step_size_up": 20,
        },
        laws.sawtooth,
    ),
    "one_cycle of fastai": (
        {
            "kind": "one_cycle",
            "total_steps": 90,
            "pct_start": 0.25,
            "final_div_factor": 1e5 / 25.0,
            "end_at": "total_steps",
        },
        laws.one_cycle_of_fastai,
    ),
    "one_cycle of optax": (
        {
            "kind": "one_cycle",
            "total_steps": 100,
            "anneal_strategy": "linear",
            "three_phase": True,
            "pct_final": 0.85,
            "end_at": "total_steps",
        },
        laws.one_cycle_of_optax,
    ),
    "flat_cosine": (
        {"kind": "flat_cosine", "total_steps": 90, "pct_start": 0.72, "min_lr": 0.001},
        laws.flat_cosine,
    ),
    "slanted_triangular": (
        {"kind": "slanted_triangular", "total_steps": 105},
        laws.slanted_triangular,
    ),
    "tri_stage": (
        {
            "kind": "tri_stage",
            "warmup_steps": 10,
            "hold_steps": 20,
            "decay_steps": 50,
            "final_lr_scale": 0.05,
        },
        laws.tri_stage,
    ),
    "tri_stage of the last stage alone": (
        {"kind": "tri_stage", "warmup_steps": 0, "hold_steps": 0, "decay_steps": 50},
        lambda t: 0.1 * math.exp(math.log(0.01) / 50 * min(t, 50)),
    ),
    "cosine_linear_tail": (
        {
            "kind": "cosine_linear_tail",
            "total_steps": 100,
            "decay_steps": 20,
            "warmup_steps": 10,
            "min_lr": 0.01,
            "end_lr": 0.002,
        },
        laws.cosine_linear_tail,
    ),
    "wsd of OLMo": (
        {
            "kind": "wsd",
            "total_steps": 100,
            "decay_steps": 20,
            "warmup_steps": 10,
            "min_lr": 0.01,
            "decay_ease": "linear",
        },
        laws.wsd_of_olmo,
    ),
    "wsd that falls while stable": (
        {
            "kind": "wsd",
            "total_steps": 100,
            "decay_steps": 20,
            "warmup_steps": 10,
            "min_lr": 0.001,
            "decay_ease": "linear",
            "stable": {"kind": "power_law", "exponent": 0.51, "timescale": 10, "shift": 10.0},
        },
        laws.power_of_olmo,
    ),
    "wsd_s": (
        {
            "kind": "wsd_s",
            "period": 30,
            "limit": 3,
            "decay_steps": 10,
            "warmup_steps": 5,
            "min_lr": 0.01,
            "decay_ease": "linear",
        },
        laws.wsd_s_of_olmo((30, 30, 30)),
    ),
    "wsd_s of given periods": (
        {
            "kind": "wsd_s",
            "periods": [30, 10, 50],
            "decay_steps": 10,
            "warmup_steps": 5,
            "min_lr": 0.01,
        },
        laws.wsd_s_of_olmo((30, 10, 50)),
    ),
    "inverse_sqrt": (
        {"kind": "inverse_sqrt", "warmup_steps": 10, "timescale": 40, "min_lr": 0.06},
        laws.inverse_sqrt_with_floor,
    ),
    "rsqrt_cooldown of big_vision": (
        {
            "kind": "rsqrt_cooldown",
            "total_steps": 100,
            "cooldown_steps": 20,
            "warmup_steps": 10,
            "timescale": 25,
        },
        laws.rsqrt_of_big_vision,
    ),
    "rsqrt_cooldown of OLMo's power": (
        {
            "kind": "rsqrt_cooldown",
            "total_steps": 100,
            "cooldown_steps": 20,
            "warmup_steps": 10,
            "exponent": 0.51,
            "cooldown": "linear",
            "end_lr": 0.001,
        },
        laws.power_of_olmo,
    ),
    "noam": ({"kind": "noam", "warmup_steps": 40, "model_size": 512.0}, laws.noam),
    "noam of ESPnet": ({"kind": "noam", "warmup_steps": 40, "min_lr": 0.08}, laws.noam_of_espnet),
    "noam_hold": (
        {
            "kind": "noam_hold",
            "warmup_steps": 10,
            "hold_steps": 20,
            "decay_rate": 0.7,
            "min_lr": 0.03,
        },
        laws.noam_hold,
    ),
    "chebyshev": ({"kind": "chebyshev", "num_epochs": 8, "every": 10}, laws.chebyshev),
    "jagged": (
        {
            "kind": "jagged",
            "schedule": CONSTANT,
            "restart_steps": 30,
            "warmup_steps": 5,
            "anneal_steps": 4,
            "min_lr_scale": 0.01,
        },
        laws.jagged,
    ),
    "multifactor": (
        {
            "kind": "multifactor",
            "factors": "two_constants * linear_warmup * rsqrt_normalized_decay"
            " * decay_every * cosine_decay",
            "warmup_steps": 10,
            "steps_per_decay": 40,
            "steps_per_cycle": 60,
            "second_constant": 0.03,
            "second_constant_step": 50,
            "minimum": 1e-4,
        },
        laws.multifactor,
    ),
    "multifactor without a constant": (
        {"kind": "multifactor", "factors": "rsqrt_decay", "warmup_steps": 16},
        lambda t: 1.0 / math.sqrt(max(t, 16)),
    ),
    "range_test": (
        {"kind": "range_test", "start_lr": 1e-6, "end_lr": 1.0},
        laws.range_test,
    ),
    "range_test in stairs": (
        {
            "kind": "range_test",
            "mode": "linear",
            "start_lr": 0.1,
            "end_lr": 1.0,
            "steps": 101,
            "stairs": 10,
        },
        laws.range_test_in_stairs,
    ),
    "untuned_warmup": (
        {"kind": "untuned_warmup", "schedule": CONSTANT, "beta2": 0.95},
        lambda t: 0.1 * min(1.0, (t + 1) / int(2.0 / (1.0 - 0.95))),
    ),
    "untuned_warmup, exponential": (
        {
            "kind": "untuned_warmup",
            "schedule": CONSTANT,
            "beta2": 0.95,
            "shape": "exponential",
        },
        lambda t: 0.1 * (1.0 - math.exp(-(t + 1) / int(1.0 / (1.0 - 0.95)))),
    ),
    "radam_warmup": (
        {"kind": "radam_warmup", "schedule": CONSTANT, "beta2": 0.99},
        laws.radam_warmup,
    ),
    "swa_anneal": (
        {
            "kind": "swa_anneal",
            "schedule": {"kind": "cosine", "total_steps": 100},
            "start": 75,
            "swa_lr": 0.05,
            "anneal_strategy": "linear",
        },
        lambda t: (
            0.1 * wave(t / 100)
            if t < 75
            else 0.05 * min((t - 75) / 10, 1.0) + 0.1 * wave(0.75) * (1 - min((t - 75) / 10, 1.0))
        ),
    ),
    "piecewise_linear": (
        {
            "kind": "piecewise_linear",
            "points": [
                {"at": 5, "level": 0.0},
                {"at": 30, "level": "base"},
                {"at": 90, "level": 0.01},
            ],
        },
        lambda t: float(np.interp(t, [5, 30, 90], [0.0, 0.1, 0.01])),
    ),
    "piecewise_cosine": (
        {
            "kind": "piecewise_cosine",
            "points": [{"at": 5, "level": "base"}, {"at": 65, "level": 0.01}],
        },
        lambda t: 0.01 + 0.09 * wave(min(max((t - 5) / 60, 0.0), 1.0)),
    ),
}

WARMUPS: dict[str, tuple[dict[str, Any], Law]] = {
    "linear": ({"ease": "linear"}, lambda t: t / 10),
    "constant": ({"ease": "constant", "start_factor": 0.3}, lambda t: 0.3),
    "log": ({"ease": "logarithmic"}, lambda t: math.log(t + 1) / math.log(10)),
    "cosine": ({"ease": "cosine"}, lambda t: 0.5 * (1 - math.cos(math.pi * t / 10))),
    "1-sqrt": ({"ease": {"kind": "poly", "power": 0.5}}, lambda t: 1 - math.sqrt(1 - t / 10)),
    "quadratic": (
        {"ease": {"kind": "power", "power": 2.0}, "offset": 1},
        lambda t: (t + 1) ** 2 / 10**2,
    ),
    "exponential": (
        {"ease": "geometric", "start_factor": 0.01},
        lambda t: 0.01 ** (1 - t / 10),
    ),
}


@pytest.mark.parametrize(("spec", "law"), RUNS.values(), ids=RUNS)
def test_a_named_schedule_is_its_law(spec: dict[str, Any], law: Law) -> None:
    """From the first step to beyond the end, the values are those of the source's own formula."""
    expected = [law(t) for t in range(130)]
    # Beside a zero of a cosine, 1 + cos has lost its digits to the 1.
    assert_allclose(ours(spec, 130), expected, rtol=1e-12, atol=2e-17)


@pytest.mark.parametrize(("spec", "law"), WARMUPS.values(), ids=WARMUPS)
def test_a_warmup_takes_any_shape(spec: dict[str, Any], law: Law) -> None:
    """Each shape of warmup that a library has is an ease; the schedule's value comes after it."""
    values = ours({"kind": "warmup", "schedule": CONSTANT, "steps": 10, **spec}, 12)
    assert_allclose(values[:10], [0.1 * law(t) for t in range(10)], rtol=1e-12, atol=2e-17)
    assert values[10:].tolist() == [0.1, 0.1]


DEGENERATE: dict[str, tuple[dict[str, Any] | str, dict[str, Any] | str]] = {
    "a cosine of k 1": (
        {"kind": "k_decay", "total_steps": 50},
        {"kind": "cosine", "total_steps": 50},
    ),
    "a rex of beta 0": (
        {"kind": "rex", "total_steps": 50, "beta": 0.0},
        {"kind": "polynomial", "total_steps": 50},
    ),
    "one restart": (
        {"kind": "cosine_restarts", "total_steps": 50},
        {"kind": "cosine", "total_steps": 50},
    ),
    "one given period": (
        {"kind": "sgdr", "periods": [50]},
        {"kind": "cosine", "total_steps": 50},
    ),
    "no flat part": (
        {"kind": "flat_cosine", "total_steps": 50, "pct_start": 0.0},
        {"kind": "cosine", "total_steps": 50},
    ),
    "a triangle that is not slanted up": (
        {"kind": "slanted_triangular", "total_steps": 50, "cut_frac": 0.001, "ratio": 1.0},
        "constant",
    ),
    "all of it decay": (
        {"kind": "wsd", "total_steps": 50, "decay_steps": 50, "decay_ease": "cosine"},
        {"kind": "cosine", "total_steps": 50},
    ),
    "a cosine all of whose steps are its tail": (
        {"kind": "cosine_linear_tail", "total_steps": 50, "decay_steps": 50},
        {"kind": "ramp", "end": 0.0, "steps": 50},
    ),
    "no anneal": (
        {"kind": "swa_anneal", "swa_lr": 0.05, "anneal_steps": 0},
        {"kind": "hold", "value": 0.05},
    ),
    "a constant product": ({"kind": "multifactor", "factors": "constant"}, "constant"),
    "an inverse root of no warmup": (
        {"kind": "inverse_sqrt"},
        {"kind": "power_law", "timescale": 10_000, "shift": 10_000.0},
    ),
    "a rate of 0": ({"kind": "natural_exp", "rate": 0.0}, "constant"),
}


@pytest.mark.parametrize(("spec", "same"), DEGENERATE.values(), ids=DEGENERATE)
def test_a_degenerate_case_is_the_simpler_schedule(
    spec: dict[str, Any], same: dict[str, Any]
) -> None:
    """A parameter that disables what a schedule is named for leaves the simpler schedule."""
    assert_array_equal(ours(spec, 80), ours(same, 80))


def of_transformers(name: str, steps: int, **options: Any) -> Floats:
    """Run a scheduler of transformers."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = get_scheduler(name, optimizer, **options)
    values = []
    for _ in range(steps):
        values.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return np.array(values)


@pytest.mark.parametrize(
    ("warmup", "warmup_ease"),
    [("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", {"kind": "poly", "power": 0.5})],
)
@pytest.mark.parametrize(
    ("decay", "decay_ease"),
    [("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", {"kind": "power", "power": 0.5})],
)
def test_wsd_has_the_shapes_of_transformers(
    warmup: str, warmup_ease: Any, decay: str, decay_ease: Any
) -> None:
    """Every combination of warmup_stable_decay's shapes is one of eases."""
    torchs = of_transformers(
        "warmup_stable_decay",
        130,
        num_warmup_steps=20,
        num_training_steps=100,
        scheduler_specific_kwargs={
            "num_decay_steps": 30,
            "warmup_type": warmup,
            "decay_type": decay,
            "min_lr_ratio": 0.1,
        },
    )
    spec = {
        "kind": "wsd",
        "total_steps": 100,
        "warmup_steps": 20,
        "decay_steps": 30,
        "start_factor": 0.1,
        "min_lr": 0.1 * BASE,
        "warmup_ease": warmup_ease,
        "decay_ease": decay_ease,
    }
    assert_allclose(ours(spec, 130), torchs, rtol=1e-12)


def test_inverse_sqrt_is_that_of_transformers() -> None:
    """The timescale is the warmup's length unless given, in transformers and here."""
    values = of_transformers("inverse_sqrt", 300, num_warmup_steps=20)
    assert_allclose(ours({"kind": "inverse_sqrt", "warmup_steps": 20}, 300), values, rtol=1e-12)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("length", [0, 1, 10])
def test_swa_anneal_is_that_of_torch(strategy: Any, length: int) -> None:
    """Torch's SWALR, attached to a constant rate, gives the same values."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=length, anneal_strategy=strategy)
    values = []
    for _ in range(20):
        values.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    spec = {
        "kind": "swa_anneal",
        "swa_lr": 0.05,
        "anneal_steps": length,
        "anneal_strategy": strategy,
    }
    # With nothing to anneal torch's own first step still has the rate from before.
    first = 1 if length == 0 else 0
    assert_allclose(ours(spec, 20)[first:], values[first:], rtol=1e-12)


def test_swa_anneal_leaves_other_channels_alone() -> None:
    """The momentum of the schedule goes on while its learning rate anneals."""
    body = {"kind": "one_cycle", "total_steps": 50, "cycle_momentum": True}
    spec = {"kind": "swa_anneal", "schedule": body, "start": 20, "swa_lr": 0.05}
    t = np.arange(50, dtype=np.float64)
    channels = Schedule.parse(spec).channels()
    plain = Schedule.parse(body).channels()
    assert_array_equal(channels["momentum"].values(t, 0.9), plain["momentum"].values(t, 0.9))
    assert_array_equal(channels["lr"].values(t[:20], 0.1), plain["lr"].values(t[:20], 0.1))
    assert channels["lr"].values(t[30:], 0.1).tolist() == [0.05] * 20


@pytest.mark.parametrize("growth", [3.0, 10.0])
def test_no_restart_is_missed(growth: float) -> None:
    """At the first step of each cycle the rate is the base, where float logarithms are off by one.

    With a growth of 3 or 10 they put some of these steps at the end of the cycle before.
    """
    starts = [50.0 * (growth**cycle - 1) / (growth - 1) for cycle in range(12)]
    law = Schedule.parse({"kind": "sgdr", "period": 50, "growth": growth})
    assert law.values(np.array(starts), 1.0).tolist() == [1.0] * 12
    assert (law.values(np.array(starts[1:]) - 1.0, 1.0) < 0.01).all()


@given(st.integers(1, 300))
def test_the_fractal_order_has_every_index_once(count: int) -> None:
    """Whatever the number of epochs, each of Chebyshev's factors is used once."""
    assert sorted(fractal_order(count)) == list(range(count))


def test_an_envelope_of_ones_own() -> None:
    """A triangle from 0 times an expression, on top of a constant, is a scale_fn of torch."""
    triangle = {"kind": "cyclic", "base_lr": 0.0, "max_lr": 0.09, "step_size_up": 10}
    envelope = {"kind": "expression", "value": "0.5 ** (t // 20)"}
    spec = {
        "kind": "sum",
        "of": [
            {"kind": "hold", "value": 0.01},
            {"kind": "product", "schedule": triangle, "factors": [envelope]},
        ],
    }
    torchs = {
        "kind": "cyclic",
        "base_lr": 0.01,
        "max_lr": 0.1,
        "step_size_up": 10,
        "mode": "triangular2",
    }
    assert_allclose(ours(spec, 100), ours(torchs, 100), rtol=1e-12)


def test_the_power_scheduler_is_that_of_its_paper() -> None:
    """With the paper's a, b and largest rate it is its formula: warmup, cap, power and end."""
    spec = {
        "kind": "power_scheduler",
        "capped_steps": laws.CAPPED_STEPS,
        "warmup_steps": 100,
        "total_steps": 1000,
        "decay_steps": 200,
    }
    expected = [laws.power_scheduler(t) for t in range(1100)]
    assert_allclose(ours(spec, 1100, base=0.02), expected, rtol=1e-12, atol=1e-17)
    assert 100 < laws.CAPPED_STEPS < 800


@given(st.floats(0.5, 60.0), st.integers(0, 80), st.floats(0.1, 1.0))
def test_the_power_knows_no_length(capped: float, warmup: int, exponent: float) -> None:
    """Until its end begins it is the endless law, never above the base, and never rising."""
    endless = {
        "kind": "power_scheduler",
        "capped_steps": capped,
        "warmup_steps": warmup,
        "exponent": exponent,
    }
    whole, ended = (
        ours(spec, 200) for spec in (endless, {**endless, "total_steps": 200, "decay_steps": 60})
    )
    assert_allclose(ended[:141], whole[:141], rtol=1e-15)
    assert (whole <= BASE).all()
    assert (np.diff(whole[warmup:]) <= 0).all()
    assert (ended[warmup:] <= whole[warmup:] * (1 + 1e-12)).all()


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.5, 90.0), st.floats(0.1, 1.0))
@example(50, 50, 10.0, 0.51)
def test_an_end_that_follows_a_warmup_at_once_starts_from_the_power(
    warmup: int, decay: int, capped: float, exponent: float
) -> None:
    """With nothing in between, warmup and end aim at the formula's power, not at the base."""
    spec = {
        "kind": "power_scheduler",
        "capped_steps": capped,
        "warmup_steps": warmup,
        "exponent": exponent,
        "decay_steps": decay,
        "total_steps": warmup + decay,
    }
    top = BASE * (1.0 if warmup < math.ceil(capped) else (warmup / capped) ** -exponent)
    t = np.arange(warmup + decay + 1)
    down = (np.exp(1 - (t - warmup) / decay) - 1) / (math.e - 1)
    expected = np.where(t < warmup, top * t / warmup, top * down)
    assert_allclose(ours(spec, len(t)), expected, rtol=1e-12, atol=1e-15)


def test_lengths_may_be_in_other_units() -> None:
    """Epochs and fractions are converted to steps before named schedules expand."""
    clock = Clock(total_steps=1000, steps_per_epoch=50)
    spec = {
        "kind": "wsd",
        "total_steps": {"fraction": 1.0},
        "warmup_steps": {"epochs": 1},
        "decay_steps": {"fraction": 0.2},
    }
    steps = {"kind": "wsd", "total_steps": 1000, "warmup_steps": 50, "decay_steps": 200}
    assert resolve(Schedule.parse(spec), clock) == Schedule.parse(steps)
    periods = Schedule.parse({"kind": "sgdr", "periods": [{"epochs": 1}, {"epochs": 2}]})
    assert resolve(periods, clock) == Schedule.parse({"kind": "sgdr", "periods": [50, 100]})


def test_lengths_in_other_units_may_stand_anywhere() -> None:
    """Parts are checked against each other once their lengths are steps."""
    clock = Clock(steps_per_epoch=10)
    warm = {"kind": "warmup_cosine", "warmup_steps": {"epochs": 1}, "total_steps": {"epochs": 5}}
    cycle = {"kind": "one_cycle", "total_steps": {"epochs": 5}, "cycle_momentum": True}

    def after(law: Any) -> dict[str, Any]:
        return {
            "kind": "sequence",
            "parts": [{"schedule": law, "steps": {"epochs": 5}}, {"schedule": "constant"}],
        }

    resolved = resolve(Schedule.parse(after(warm)), clock)
    assert resolved.values(np.array([0.0, 50.0]), 0.1).tolist() == [0.01, 0.1]
    with pytest.raises(ValidationError, match="the same channels"):
        resolve(Schedule.parse(after(cycle)), clock)
    stable = {"kind": "wsd", "total_steps": 50, "decay_steps": 10, "stable": cycle}
    with pytest.raises(ValidationError, match="one value only"):
        resolve(Schedule.parse(stable), clock)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two shapes": (
        {"kind": "cosine", "total_steps": 9, "shape": "half", "waves": 1.0},
        "not both",
    ),
    "a bent quarter": (
        {"kind": "cosine", "total_steps": 9, "shape": "quarter", "exponent": 2.0},
        "leave them",
    ),
    "a sawtooth's way down": (
        {"kind": "cyclic", "base_lr": 0.0, "mode": "sawtooth", "step_size_down": 3},
        "leave `step_size_down` out",
    ),
    "a third phase of two": (
        {"kind": "one_cycle", "total_steps": 100, "pct_final": 0.8},
        "set `three_phase`",
    ),
    "no periods": ({"kind": "sgdr"}, "Give `period`"),
    "two kinds of periods": ({"kind": "sgdr", "period": 3, "periods": [3]}, "Give `period`"),
    "given periods that grow": (
        {"kind": "sgdr", "periods": [3], "growth": 2.0},
        "leave `growth`",
    ),
    "a period of warmup": ({"kind": "sgdr", "period": 5, "warmup_steps": 5}, "above warmup_steps"),
    "a period of less than its decay": (
        {"kind": "wsd_s", "periods": [30, 5], "decay_steps": 10},
        "room for decay_steps",
    ),
    "no time for the stages": (
        {"kind": "wsd", "total_steps": 10, "warmup_steps": 5, "decay_steps": 6},
        "warmup_steps and decay_steps together (11)",
    ),
    "a stable phase of two values": (
        {
            "kind": "wsd",
            "total_steps": 10,
            "decay_steps": 6,
            "stable": {"kind": "one_cycle", "total_steps": 10, "cycle_momentum": True},
        },
        "one value only",
    ),
    "no time for the cooldown": (
        {"kind": "rsqrt_cooldown", "total_steps": 10, "cooldown_steps": 11},
        "cooldown_steps together",
    ),
    "a line's end without a line": (
        {"kind": "rsqrt_cooldown", "total_steps": 10, "cooldown_steps": 5, "end_lr": 0.1},
        "leave `end_lr` out",
    ),
    "a power of a cosine": ({"kind": "k_decay", "total_steps": 9, "power": 2.0}, "leave `power`"),
    "a power without an end's place": (
        {"kind": "power_scheduler", "capped_steps": 5, "decay_steps": 5},
        "give both",
    ),
    "a power with a floor that it never comes to": (
        {"kind": "power_scheduler", "capped_steps": 5, "min_lr": 0.1},
        "give both",
    ),
    "a law of no capacity": (
        {"kind": "fsl_decay", "total_steps": 9, "beta": 1.0},
        "greater than 1",
    ),
    "a law of absurd capacity": (
        {"kind": "fsl_decay", "total_steps": 9, "beta": 1e6},
        "less than or equal to 100",
    ),
    "a tangent upside down": ({"kind": "tanh", "total_steps": 9, "lb": 3.0, "ub": 3.0}, "swap"),
    "a rex of nobody's": ({"kind": "rex", "total_steps": 9}, "required"),
    "an interval upside down": ({"kind": "chebyshev", "num_epochs": 4, "small_m": 2.0}, "swap"),
    "a misspelt factor": (
        {"kind": "multifactor", "factors": "constant * linear_warmpu"},
        "Did you mean 'linear_warmup'?",
    ),
    "two constants twice": (
        {"kind": "multifactor", "factors": "constant * two_constants"},
        "one of the constants",
    ),
    "a range that falls": (
        {"kind": "range_test", "start_lr": 1.0, "end_lr": 0.1},
        "below `end_lr`",
    ),
    "a range of one step": ({"kind": "range_test", "steps": 1}, "two `steps`"),
    "no time to train": (
        {"kind": "jagged", "schedule": "constant", "restart_steps": 5, "warmup_steps": 5},
        "together",
    ),
    "a lead of a whole period": (
        {"kind": "repeat", "schedule": "constant", "period": 5, "lead": 5},
        "below `period`",
    ),
}


@pytest.mark.parametrize(("spec", "hint"), REFUSED.values(), ids=REFUSED)
def test_parameters_that_make_no_sense_are_refused(spec: dict[str, Any], hint: str) -> None:
    """The error says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse(spec)
    [error] = caught.value.errors()
    assert hint in error["msg"]
