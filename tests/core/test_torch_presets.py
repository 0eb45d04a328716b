"""The presets of torch against the classes that they are named after, installed beside them."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from core.torch_schedulers import Floats, closed_form, optimizer, run
from pacesetter_service.catalogue import torch as presets
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule
from strategies import factors, momenta, one_cycles, rates

Parameters = dict[str, Any]
Child = tuple[str, Parameters]

KINDS = [kind for kind in Schedule.kinds if kind.startswith("torch.")]

NOT_DATA = {"optimizer", "last_epoch", "scale_fn", "scale_mode"}
"""Parameters of torch's classes that presets lack: other objects, and functions."""

CLOSED = {
    "StepLR": st.fixed_dictionaries({"step_size": st.integers(1, 60), "gamma": factors}),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(st.integers(0, 140), max_size=8), "gamma": factors}
    ),
    "ConstantLR": st.fixed_dictionaries(
        {"factor": st.floats(0.01, 1), "total_iters": st.integers(1, 100)}
    ),
    "LinearLR": st.fixed_dictionaries(
        {
            "start_factor": st.floats(0.01, 1),
            "end_factor": st.floats(0.01, 1),
            "total_iters": st.integers(1, 100),
        }
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": st.floats(0.5, 1.01)}),
    "PolynomialLR": st.fixed_dictionaries(
        {"total_iters": st.integers(1, 140), "power": st.floats(0.1, 5)}
    ),
    "CosineAnnealingLR": st.fixed_dictionaries(
        {"T_max": st.integers(1, 60), "eta_min": st.floats(0, 1e-3)}
    ),
}
"""Random parameters for the schedulers that have a closed form."""

RESTARTS = st.fixed_dictionaries(
    {"T_0": st.integers(1, 40), "T_mult": st.integers(1, 10), "eta_min": st.floats(0, 0.1)}
)

children = st.one_of(
    *(st.tuples(st.just(name), parameters) for name, parameters in CLOSED.items()),
    st.tuples(st.just("CosineAnnealingWarmRestarts"), RESTARTS),
)
"""Schedulers for a SequentialLR; those that multiply stay clear of 0, where torch cannot go on."""


def torchs(name: str, trained: Optimizer, parameters: Parameters) -> LRScheduler:
    """Build torch's scheduler of that name."""
    scheduler: LRScheduler = getattr(lr_scheduler, name)(trained, **parameters)
    return scheduler


def ours(name: str, parameters: Parameters, steps: int, lr: float) -> Floats:
    """Evaluate the preset of that name over the first steps."""
    preset = Schedule.parse({"kind": f"torch.{name}", **parameters})
    return preset.values(np.arange(steps, dtype=np.float64), lr)


def specs(schedulers: list[Child]) -> list[Parameters]:
    """Return schedulers as the specs of our presets."""
    return [{"kind": f"torch.{name}", **parameters} for name, parameters in schedulers]


def test_every_scheduler_of_torch_has_a_preset_or_an_advice() -> None:
    """No class that torch exports is missing; those that are code have an advice."""
    classes = {*lr_scheduler.__all__, "SWALR"} - {"LRScheduler"}
    assert {f"torch.{name}" for name in classes} == {*KINDS, *presets.REDIRECTS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_has_the_parameters_and_defaults_of_torch(kind: str) -> None:
    """Names, order and defaults are those of the class's signature."""
    name = kind.removeprefix("torch.")
    signature = inspect.signature(SWALR if name == "SWALR" else getattr(lr_scheduler, name))
    theirs = {
        parameter.name: parameter.default
        for parameter in signature.parameters.values()
        if parameter.name not in NOT_DATA
    }
    fields = Schedule.kinds[kind].model_fields
    assert theirs == {
        name: inspect.Parameter.empty if field.is_required() else field.default
        for name, field in fields.items()
        if name != "kind"
    }


@pytest.mark.parametrize("name", CLOSED)
@given(data=st.data(), lr=rates)
def test_a_closed_form_has_the_bits_of_torch(name: str, data: st.DataObject, lr: float) -> None:
    """Where torch has a closed form, the preset gives its bits, past its end too."""
    parameters = data.draw(CLOSED[name])
    theirs = closed_form(lambda o: torchs(name, o, parameters), range(300), lr)
    assert_array_equal(ours(name, parameters, 300, lr), theirs)


@pytest.mark.parametrize("name", ["ConstantLR", "LinearLR", "PolynomialLR"])
@given(rates)
def test_what_has_no_length_is_what_a_training_with_torch_has(name: str, lr: float) -> None:
    """With `total_iters=0` torch stays where it starts, whatever its closed form says."""
    theirs, _ = run(lambda o: torchs(name, o, {"total_iters": 0}), 9, lr)
    assert_array_equal(ours(name, {"total_iters": 0}, 9, lr), theirs)


@given(RESTARTS, rates)
def test_warm_restarts_have_the_bits_of_torch(parameters: Parameters, lr: float) -> None:
    """Stepping CosineAnnealingWarmRestarts gives the same bits, growing cycles included."""
    theirs, _ = run(lambda o: torchs("CosineAnnealingWarmRestarts", o, parameters), 300, lr)
    assert_array_equal(ours("CosineAnnealingWarmRestarts", parameters, 300, lr), theirs)


@given(st.integers(1, 50), st.integers(2, 10), st.integers(0, 12))
def test_a_restart_is_never_missed(first: int, growth: int, cycle: int) -> None:
    """Each cycle starts at the base, where torch's `step(epoch)` may still be in the one before."""
    start = sum(first * growth**index for index in range(cycle))
    preset = Schedule.parse(
        {"kind": "torch.CosineAnnealingWarmRestarts", "T_0": first, "T_mult": growth}
    )
    around = preset.values(np.array([start - 1.0, start])[-1 if start == 0 else 0 :], 0.1)
    assert around[-1] == 0.1
    assert (around[:-1] < 0.1).all() or first * growth ** max(cycle - 1, 0) == 1


def drives_as_torch_does(name: str, parameters: Parameters, steps: int) -> None:
    """Compare both channels with a running scheduler."""
    rates_of_torch, momenta_of_torch = run(lambda o: torchs(name, o, parameters), steps)
    laws = Schedule.parse({"kind": f"torch.{name}", **parameters}).channels()
    t = np.arange(steps, dtype=np.float64)
    assert_array_equal(laws["lr"].values(t, 0.1), rates_of_torch)
    assert_array_equal(laws["momentum"].values(t, 0.9), momenta_of_torch)


@given(
    st.fixed_dictionaries(
        {
            "base_lr": st.floats(0, 1),
            "max_lr": st.floats(0, 1),
            "step_size_up": st.integers(1, 40) | st.floats(0.1, 40),
            "step_size_down": st.none() | st.integers(1, 40) | st.floats(0.1, 40),
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": st.floats(0.9, 1),
            "base_momentum": momenta,
            "max_momentum": momenta,
        }
    )
)
def test_cyclic_has_the_bits_of_torch(parameters: Parameters) -> None:
    """CyclicLR is reproduced in all modes, over fractions of a step too, momentum included."""
    drives_as_torch_does("CyclicLR", parameters, 200)


@given(one_cycles(), st.booleans())
def test_one_cycle_has_the_bits_of_torch(parameters: Parameters, epochs: bool) -> None:
    """OneCycleLR is reproduced from total_steps, or from epochs times steps_per_epoch."""
    total = parameters["total_steps"]
    if epochs:
        split = next(size for size in (7, 5, 3, 2, 1) if total % size == 0)
        parameters = parameters | {"total_steps": None, "epochs": total // split}
        parameters["steps_per_epoch"] = split
    drives_as_torch_does("OneCycleLR", parameters, total)
    past = ours("OneCycleLR", parameters, total + 50, 0.1)
    assert set(past[total - 1 :]) == {past[total - 1]}


@given(
    st.integers(1, 30),
    st.sampled_from([0.0, 0.5, 0.75, 1.0]) | st.floats(0, 1),
    st.booleans(),
    st.tuples(*[st.sampled_from([25.0, math.inf])] * 2),
)
def test_one_cycle_has_the_bits_of_torch_at_its_edges(
    total: int, pct_start: float, three_phase: bool, divisors: tuple[float, float]
) -> None:
    """These are phases of no length, phases that are cut off, and divisors that leave 0."""
    parameters = {
        "max_lr": 0.3,
        "total_steps": total,
        "pct_start": pct_start,
        "three_phase": three_phase,
    }
    named = dict(zip(("div_factor", "final_div_factor"), divisors, strict=True))
    try:
        theirs, momenta = run(lambda o: torchs("OneCycleLR", o, parameters | named), total - 1)
    except ZeroDivisionError:  # the first phase ends at step 0
        return
    written = {name: "inf" if each == math.inf else each for name, each in named.items()}
    laws = Schedule.parse({"kind": "torch.OneCycleLR", **parameters, **written}).channels()
    t = np.arange(total - 1.0)
    assert_array_equal(laws["lr"].values(t, 0.1), np.maximum(theirs, 0.0))
    assert_array_equal(laws["momentum"].values(t, 0.9), momenta)


SWA = st.fixed_dictionaries(
    {
        "swa_lr": st.floats(0, 1),
        "anneal_epochs": st.integers(0, 60),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
    }
)


@given(SWA, st.floats(1e-3, 10))
def test_swa_anneals_as_torch_does(parameters: Parameters, lr: float) -> None:
    """SWALR goes from the rate at which it is attached to its own, within 1e-12."""
    theirs, _ = run(lambda o: SWALR(o, **parameters), 100, lr)
    assert_allclose(ours("SWALR", parameters, 100, lr), theirs, rtol=1e-12, atol=1e-16 * lr)


@given(SWA, st.integers(0, 40))
def test_swa_takes_over_in_a_sequence(parameters: Parameters, swa_start: int) -> None:
    """In the loop that torch documents, SWALR goes on from what the sequence came to."""
    trained = optimizer(0.1)
    before = lr_scheduler.ExponentialLR(trained, 0.95)
    swa = SWALR(trained, **parameters | {"anneal_epochs": 1 + parameters["anneal_epochs"]})
    theirs = []
    for epoch in range(100):
        theirs.append(trained.param_groups[0]["lr"])
        trained.step()
        (swa if epoch > swa_start else before).step()
    taken_over = {
        "kind": "sequence",
        "value": "continue",
        "parts": [
            {"schedule": {"kind": "torch.ExponentialLR", "gamma": 0.95}, "until": swa_start + 1},
            {
                "schedule": {
                    "kind": "torch.SWALR",
                    **parameters,
                    "anneal_epochs": swa.anneal_epochs,
                }
            },
        ],
    }
    values = Schedule.parse(taken_over).values(np.arange(100.0), 0.1)
    assert_allclose(values, theirs, rtol=1e-12, atol=1e-17)


@given(st.lists(children, min_size=1, max_size=4), st.data(), st.floats(1e-3, 10))
def test_a_sequence_runs_as_in_torch(
    schedulers: list[Child], data: st.DataObject, lr: float
) -> None:
    """SequentialLR hands over as torch's does, at milestones of 0 and repeated ones too."""
    count = len(schedulers) - 1
    milestones = sorted(data.draw(st.lists(st.integers(0, 80), min_size=count, max_size=count)))
    theirs, _ = run(
        lambda o: lr_scheduler.SequentialLR(
            o, [torchs(name, o, parameters) for name, parameters in schedulers], milestones
        ),
        120,
        lr,
    )
    written = {"schedulers": specs(schedulers), "milestones": milestones}
    assert_allclose(ours("SequentialLR", written, 120, lr), theirs, rtol=1e-12, atol=0)


def test_a_sequence_in_a_sequence_starts_from_its_own_step_0() -> None:
    """Where torch raises, or skips a step, each scheduler starts from its own step 0."""
    inner = {
        "kind": "torch.SequentialLR",
        "schedulers": specs(
            [
                ("ConstantLR", {"factor": 0.5, "total_iters": 9}),
                ("ExponentialLR", {"gamma": 0.5}),
            ]
        ),
        "milestones": [2],
    }
    halves = [0.5, 0.5, 1.0, 0.5, 0.25]
    nested = {"schedulers": [inner, inner], "milestones": [5]}
    assert ours("SequentialLR", nested, 10, 1.0).tolist() == halves + halves


def test_a_cycle_leaves_the_base_of_its_neighbours_alone() -> None:
    """In torch a OneCycleLR in the list changes what the others start from; here it does not."""
    cycle = {"max_lr": 0.1, "total_steps": 20, "cycle_momentum": False}
    constant = {"factor": 0.1, "total_iters": 3}
    written = {
        "schedulers": specs([("ConstantLR", constant), ("OneCycleLR", cycle)]),
        "milestones": [3],
    }
    values = ours("SequentialLR", written, 23, 0.5)
    assert values[:3].tolist() == [0.05] * 3
    assert_array_equal(values[3:], ours("OneCycleLR", cycle, 20, 0.5))


@given(
    st.lists(
        st.one_of(
            *(
                st.tuples(st.just(name), parameters)
                for name, parameters in CLOSED.items()
                if name != "CosineAnnealingLR"
            ),
            st.tuples(
                st.just("CosineAnnealingLR"),
                st.fixed_dictionaries({"T_max": st.integers(100, 300)}),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    rates,
)
def test_a_chain_is_the_product_of_its_factors(schedulers: list[Child], lr: float) -> None:
    """ChainedScheduler gives what torch's gives to schedulers that multiply, within 1e-12."""
    theirs, _ = run(
        lambda o: lr_scheduler.ChainedScheduler(
            [torchs(name, o, parameters) for name, parameters in schedulers]
        ),
        100,
        lr,
    )
    values = ours("ChainedScheduler", {"schedulers": specs(schedulers)}, 100, lr)
    assert_allclose(values, theirs, rtol=1e-12, atol=0)


REFUSED: dict[str, tuple[Child, str]] = {
    "no length of one cycle": (("OneCycleLR", {"max_lr": 0.1, "epochs": 3}), "give total_steps"),
    "a triangle with no way down": (
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_down": 0}),
        "a positive number of steps",
    ),
    "a divisor of nothing": (
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "final_div_factor": 0.0}),
        '"inf"',
    ),
    "a negative rate": (("CosineAnnealingLR", {"T_max": 9, "eta_min": -0.1}), "greater than or eq"),
    "a wave of no length": (("CosineAnnealingLR", {"T_max": 0}), "at least 1"),
    "a milestone too few": (
        ("SequentialLR", {"schedulers": specs([("ConstantLR", {})] * 3), "milestones": [5]}),
        "3 schedulers need 2 milestones, but there are 1",
    ),
    "milestones in disorder": (
        ("SequentialLR", {"schedulers": specs([("ConstantLR", {})] * 3), "milestones": [5, 3]}),
        "Sort these",
    ),
    "momentum in one part only": (
        (
            "SequentialLR",
            {
                "schedulers": specs(
                    [("ConstantLR", {}), ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0})]
                ),
                "milestones": [5],
            },
        ),
        "the same channels",
    ),
    "SWA from the base": (
        (
            "SequentialLR",
            {
                "schedulers": specs([("ConstantLR", {}), ("SWALR", {"swa_lr": 0.1})]),
                "milestones": [5],
            },
        ),
        '"value": "continue"',
    ),
    "a chain with what sets the rate": (
        (
            "ChainedScheduler",
            {
                "schedulers": specs(
                    [
                        ("ExponentialLR", {"gamma": 0.9}),
                        ("CosineAnnealingWarmRestarts", {"T_0": 5}),
                    ]
                )
            },
        ),
        "torch.CosineAnnealingWarmRestarts does not multiply the rate but sets it",
    ),
    "a chain with a floor": (
        (
            "ChainedScheduler",
            {"schedulers": specs([("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.1})])},
        ),
        "set eta_min to 0",
    ),
}


@pytest.mark.parametrize(("preset", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(preset: Child, hint: str) -> None:
    """The error says what to do, when the spec is written and not when it is used."""
    name, parameters = preset
    with pytest.raises(ValidationError) as caught:
        Schedule.parse({"kind": f"torch.{name}", **parameters})
    [error] = caught.value.errors()
    assert hint in error["msg"]


@pytest.mark.parametrize("milestone", [200, {"epochs": 2}])
def test_lengths_may_be_in_other_units(milestone: int | Parameters) -> None:
    """What depends on lengths in steps is checked once they are steps."""
    cycle = {"kind": "torch.OneCycleLR", "max_lr": 0.1, "cycle_momentum": False}
    epochs, steps = (
        {
            "kind": "torch.SequentialLR",
            "schedulers": [
                {"kind": "torch.CosineAnnealingWarmRestarts", "T_0": first},
                cycle | {"total_steps": total},
            ],
            "milestones": [milestone],
        }
        for first, total in (({"epochs": 1}, {"epochs": 3}), (100, 300))
    )
    pace = Clock(steps_per_epoch=100)
    assert resolve(Schedule.parse(epochs), pace) == resolve(Schedule.parse(steps), pace)


@pytest.mark.parametrize("kind", presets.REDIRECTS)
def test_what_is_no_schedule_is_found_elsewhere(kind: str) -> None:
    """The error of a name that is no schedule says what to use instead."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse({"kind": kind, "some": "parameters"})
    [error] = caught.value.errors()
    assert error["loc"] == ("kind",)
    assert presets.REDIRECTS[kind] in error["msg"]
