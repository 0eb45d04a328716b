"""Schedules against torch.optim.lr_scheduler itself, installed beside them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.optim import lr_scheduler as torch_lr

from core.torch_schedulers import Build, Floats, closed_form, run
from pacesetter_service.core.schedules import Schedule
from strategies import factors, one_cycles, rates

LONG = 10_000

LONG_RUNS: list[tuple[Build, dict[str, Any]]] = [
    (lambda o: torch_lr.StepLR(o, 300, 0.5), {"kind": "step", "step_size": 300, "gamma": 0.5}),
    (
        lambda o: torch_lr.MultiStepLR(o, [30, 80, 80, 5000]),
        {"kind": "multistep", "milestones": [80, 30, 80, 5000]},
    ),
    (
        lambda o: torch_lr.ConstantLR(o, 0.3, 50),
        {"kind": "constant", "factor": 0.3, "total_iters": 50},
    ),
    (
        lambda o: torch_lr.LinearLR(o, 1.0, 0.0, LONG),
        {"kind": "linear", "start_factor": 1.0, "end_factor": 0.0, "total_iters": LONG},
    ),
    (lambda o: torch_lr.ExponentialLR(o, 0.999), {"kind": "exponential", "gamma": 0.999}),
    (lambda o: torch_lr.CosineAnnealingLR(o, LONG), {"kind": "cosine", "total_steps": LONG}),
    (
        lambda o: torch_lr.CosineAnnealingLR(o, LONG, eta_min=1e-6),
        {"kind": "cosine", "total_steps": LONG, "min_lr": 1e-6},
    ),
    (
        lambda o: torch_lr.PolynomialLR(o, LONG, 2.0),
        {"kind": "polynomial", "total_steps": LONG, "power": 2.0},
    ),
    (
        lambda o: torch_lr.CyclicLR(o, 0.001, 0.1, 20),
        {"kind": "cyclic", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 20},
    ),
    (
        lambda o: torch_lr.OneCycleLR(o, 0.1, LONG),
        {"kind": "one_cycle", "max_lr": 0.1, "total_steps": LONG},
    ),
    (
        lambda o: torch_lr.SequentialLR(
            o, [torch_lr.LinearLR(o, 0.01, 1.0, 100), torch_lr.CosineAnnealingLR(o, 9900)], [100]
        ),
        {
            "kind": "warmup",
            "steps": 100,
            "start_factor": 0.01,
            "schedule": {"kind": "cosine", "total_steps": 9900},
        },
    ),
]


def ours(spec: dict[str, Any], steps: int, base: float = 0.1) -> Floats:
    """Evaluate one of our schedules over the first steps."""
    return Schedule.parse(spec).values(np.arange(steps, dtype=np.float64), base)


@pytest.mark.parametrize(("build", "spec"), LONG_RUNS, ids=[spec["kind"] for _, spec in LONG_RUNS])
def test_a_long_training_sees_what_torch_gives(build: Build, spec: dict[str, Any]) -> None:
    """Over 10,000 steps the values are those of torch's running scheduler within 1e-12."""
    torchs, _ = run(build, LONG)
    assert_allclose(ours(spec, LONG), torchs, rtol=1e-12, atol=0)


def equal_to_the_bit(build: Build, spec: dict[str, Any], lr: float, steps: int = 150) -> None:
    """Compare with torch's closed form, whose bits are promised."""
    assert_array_equal(ours(spec, steps, lr), closed_form(build, range(steps), lr))


@given(rates, st.integers(1, 60), factors)
def test_step_decay_has_the_bits_of_torch(lr: float, size: int, gamma: float) -> None:
    """StepLR's closed form is reproduced to the bit."""
    equal_to_the_bit(
        lambda o: torch_lr.StepLR(o, size, gamma),
        {"kind": "step", "step_size": size, "gamma": gamma},
        lr,
    )


@given(rates, st.lists(st.integers(0, 140), max_size=8), factors)
def test_multistep_has_the_bits_of_torch(lr: float, milestones: list[int], gamma: float) -> None:
    """MultiStepLR's closed form is reproduced to the bit, repeated milestones included."""
    equal_to_the_bit(
        lambda o: torch_lr.MultiStepLR(o, milestones, gamma),
        {"kind": "multistep", "milestones": milestones, "gamma": gamma},
        lr,
    )


@given(rates, st.floats(0, 1), st.integers(1, 100))
def test_constant_has_the_bits_of_torch(lr: float, factor: float, total: int) -> None:
    """ConstantLR's closed form is reproduced to the bit."""
    equal_to_the_bit(
        lambda o: torch_lr.ConstantLR(o, factor, total),
        {"kind": "constant", "factor": factor, "total_iters": total},
        lr,
    )


@given(rates, st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(1, 100))
def test_linear_has_the_bits_of_torch(lr: float, start: float, end: float, total: int) -> None:
    """LinearLR's closed form is reproduced to the bit, after its end too."""
    equal_to_the_bit(
        lambda o: torch_lr.LinearLR(o, start, end, total),
        {"kind": "linear", "start_factor": start, "end_factor": end, "total_iters": total},
        lr,
    )


@given(rates, st.floats(0.5, 1.01))
def test_exponential_has_the_bits_of_torch(lr: float, gamma: float) -> None:
    """ExponentialLR's closed form is reproduced to the bit."""
    equal_to_the_bit(
        lambda o: torch_lr.ExponentialLR(o, gamma), {"kind": "exponential", "gamma": gamma}, lr
    )


@given(rates, st.integers(1, 150), st.floats(0, 0.1))
def test_cosine_has_the_bits_of_torch(lr: float, total: int, floor: float) -> None:
    """CosineAnnealingLR's closed form is reproduced to the bit up to T_max, and then held."""
    spec = {"kind": "cosine", "total_steps": total, "min_lr": floor}
    equal_to_the_bit(
        lambda o: torch_lr.CosineAnnealingLR(o, total, floor), spec, lr, steps=total + 1
    )
    assert set(ours(spec, total + 50, lr)[total:]) == {floor}


@given(rates, st.integers(1, 140), st.floats(0.1, 5))
def test_polynomial_has_the_bits_of_torch(lr: float, total: int, power: float) -> None:
    """PolynomialLR's closed form is reproduced to the bit."""
    equal_to_the_bit(
        lambda o: torch_lr.PolynomialLR(o, total, power),
        {"kind": "polynomial", "total_steps": total, "power": power},
        lr,
    )


def drives_like_torch(build: Build, spec: dict[str, Any], steps: int) -> None:
    """Compare both channels with a running scheduler whose law is absolute."""
    rates_of_torch, momenta_of_torch = run(build, steps)
    t = np.arange(steps, dtype=np.float64)
    channels = Schedule.parse({**spec, "cycle_momentum": True}).channels()
    assert_array_equal(channels["lr"].values(t, 0.1), rates_of_torch)
    assert_array_equal(channels["momentum"].values(t, 0.9), momenta_of_torch)


@given(
    st.floats(0, 0.1),
    st.floats(0.1, 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["triangular", "triangular2", "exp_range"]),
    st.floats(0.9, 1),
)
def test_cyclic_has_the_bits_of_torch(
    low: float, high: float, up: int, down: int, mode: str, gamma: float
) -> None:
    """CyclicLR is reproduced to the bit in all of its modes, momentum included."""
    spec = {
        "base_lr": low,
        "max_lr": high,
        "step_size_up": up,
        "step_size_down": down,
        "mode": mode,
        "gamma": gamma,
    }
    drives_like_torch(
        lambda o: torch_lr.CyclicLR(o, **spec),  # type: ignore[arg-type]
        {"kind": "cyclic", **spec},
        150,
    )


@given(one_cycles())
def test_one_cycle_has_the_bits_of_torch(spec: dict[str, Any]) -> None:
    """OneCycleLR is reproduced to the bit with two and three phases, momentum included."""
    drives_like_torch(
        lambda o: torch_lr.OneCycleLR(o, **spec), {"kind": "one_cycle", **spec}, spec["total_steps"]
    )


@given(one_cycles())
def test_one_cycle_holds_where_torch_goes_wrong(spec: dict[str, Any]) -> None:
    """From total_steps on, where torch goes negative or raises, the last value is held."""
    total = spec["total_steps"]
    values = ours({"kind": "one_cycle", **spec}, total + 100)
    assert (values >= 0).all()
    assert set(values[total - 1 :]) == {values[total - 1]}


def test_base_stands_for_the_peak() -> None:
    """A one-cycle whose max_lr is `base` peaks at the base and follows it."""
    spec = {"kind": "one_cycle", "max_lr": "base", "total_steps": 100}
    absolute = {"kind": "one_cycle", "max_lr": 0.3, "total_steps": 100}
    assert_allclose(ours(spec, 100, base=0.3), ours(absolute, 100), rtol=1e-14)
