"""Conversions of torch's schedulers: torch's values for any arguments, or a refusal."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR
from transformers import get_constant_schedule

from converted import Make, adam, both, convert, held, ours, sgd, step, theirs
from core.controllers.following import follow
from core.torch_schedulers import run
from pacesetter import UnsupportedSchedulerError
from pacesetter._from_torch._convert import LAWS
from pacesetter._groups import groups_of
from pacesetter_service.core.controllers import Controller
from pacesetter_service.core.schedules import Schedule
from strategies import metrics

lengths = st.integers(-2, 40) | st.floats(-2, 40) | st.sampled_from([0, 0.0, 2.5, 7.0])
parts = st.floats(0.01, 1)

ANY = {
    StepLR: {"step_size": lengths, "gamma": st.floats(-0.1, 1.5)},
    MultiStepLR: {"milestones": st.lists(lengths, max_size=6), "gamma": st.floats(0, 1.2)},
    ConstantLR: {"factor": parts, "total_iters": lengths},
    LinearLR: {
        "start_factor": parts,
        "end_factor": st.floats(0, 1),
        "total_iters": lengths,
    },
    ExponentialLR: {"gamma": st.floats(-0.1, 1.1)},
    PolynomialLR: {"total_iters": lengths, "power": st.sampled_from([0.0, 0.5, 1.0, 2.3, -1.0])},
    CosineAnnealingWarmRestarts: {
        "T_0": st.integers(1, 20),
        "T_mult": st.integers(1, 10),
        "eta_min": st.floats(-0.1, 0.2),
    },
    CyclicLR: {
        "base_lr": st.floats(0, 0.2),
        "max_lr": st.floats(0, 1),
        "step_size_up": st.integers(1, 20) | st.floats(0.1, 20),
        "step_size_down": st.none() | st.integers(0, 20) | st.floats(0, 20),
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": st.floats(0.9, 1),
        "cycle_momentum": st.booleans(),
    },
    OneCycleLR: {
        "max_lr": st.sampled_from([0.0, 0.3, 1e-4]),
        "total_steps": st.integers(70, 200),
        "pct_start": st.sampled_from([0.0, 1.0, 0.3]) | st.floats(0, 1),
        "three_phase": st.booleans(),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "div_factor": st.sampled_from([25.0, 1.0, math.inf]),
        "final_div_factor": st.sampled_from([1e4, 7.7, math.inf]),
        "cycle_momentum": st.booleans(),
    },
    SWALR: {
        "swa_lr": st.floats(0, 1),
        "anneal_epochs": st.integers(0, 30),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
    },
}
"""Arguments that torch accepts: fractions, zeros, infinities, none, and some that make no sense."""


@pytest.mark.parametrize("kind", ANY, ids=lambda kind: kind.__name__)
@given(data=st.data(), before=st.integers(0, 12), beta=st.booleans())
def test_any_arguments_give_torchs_values_or_are_refused_by_name(
    kind: Any, data: st.DataObject, before: int, beta: bool
) -> None:
    """From the step reached on, rate and momentum are those of stepping torch's."""
    given_ = data.draw(st.fixed_dictionaries(ANY[kind]))
    optimizer = adam if beta else sgd
    try:
        run(lambda o: kind(o, **given_), before + 50)
    except (ZeroDivisionError, ValueError, OverflowError):
        return  # torch refuses them
    before = 0 if kind is SWALR else before
    refusal = None
    try:
        session, torchs = both(
            lambda o: kind(o, **given_), steps=40, before=before, optimizer=optimizer
        )
        assert_allclose(session, torchs, rtol=1e-10, atol=1e-15)
    except UnsupportedSchedulerError as error:
        refusal = str(error)
    assert refusal is None or any(name in refusal for name in given_)


@given(
    st.integers(1, 60) | st.floats(0.3, 60),
    st.floats(0, 0.2),
    st.integers(0, 50),
)
def test_a_cosine_falls_as_torchs_and_is_held(length: float, low: float, before: int) -> None:
    """Up to `T_max` it is torch's, and then held; one that is past it already rises as torch's."""
    # Just beside its trough torch divides by almost zero, and its rate is no cosine any more.
    beside = (abs(each / length % 2 - 1) for each in range(120))
    assume(all(distance == 0 or distance > 1e-3 for distance in beside))
    make = lambda o: CosineAnnealingLR(o, length, eta_min=low)  # type: ignore[arg-type] # noqa: E731
    try:
        run(make, 120)
    except ZeroDivisionError:
        return  # torch reaches its minimum between two steps, and ignores it
    session, torchs = both(make, steps=60, before=before)
    falls = math.floor(length) - before + 1 if before <= length else 60
    assert_allclose(session[:falls], torchs[:falls], rtol=1e-6, atol=1e-12)
    if before <= length:
        assert set(session[falls:, 0]) <= {low}


def _joined(optimizer: Optimizer, names: list[str]) -> list[Any]:
    make: dict[str, Callable[[], Any]] = {
        "linear": lambda: LinearLR(optimizer, 0.1, total_iters=4),
        "constant": lambda: ConstantLR(optimizer, 0.3, total_iters=5),
        "exponential": lambda: ExponentialLR(optimizer, 0.9),
        "short cosine": lambda: CosineAnnealingLR(optimizer, 3, eta_min=0.001),
        "cosine": lambda: CosineAnnealingLR(optimizer, 200),
        "restarts": lambda: CosineAnnealingWarmRestarts(optimizer, 5, 2),
        "cycle": lambda: CyclicLR(optimizer, 0.01, 0.3, 2.5, mode="triangular2"),
        "one cycle": lambda: OneCycleLR(optimizer, 0.3, total_steps=200),
        "steady cycle": lambda: CyclicLR(optimizer, 0.01, 0.3, 3, cycle_momentum=False),
        "chain": lambda: ChainedScheduler(
            [PolynomialLR(optimizer, 80), ExponentialLR(optimizer, 0.99), StepLR(optimizer, 5)]
        ),
    }
    return [make[name]() for name in names]


PARTS = [
    "linear",
    "constant",
    "exponential",
    "short cosine",
    "cosine",
    "restarts",
    "cycle",
    "one cycle",
    "steady cycle",
]


@settings(max_examples=200)
@given(
    st.sampled_from([*PARTS, "chain"]),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=3),
    st.data(),
    st.integers(0, 25),
    st.booleans(),
)
def test_sequences_of_anything_are_torchs(
    first: str, others: list[str], data: st.DataObject, before: int, beta: bool
) -> None:
    """Chains first, cycles with momentum anywhere and empty parts run as in torch.

    That is with the bases that a cycle has left to the parts built after it, and with what a chain
    does twice at its first step.
    """
    milestones = sorted(
        data.draw(st.lists(st.integers(-1, 30), min_size=len(others), max_size=len(others)))
    )
    try:
        session, torchs = both(
            lambda o: SequentialLR(o, _joined(o, [first, *others]), milestones),
            steps=40,
            before=before,
            optimizer=adam if beta else sgd,
        )
    except UnsupportedSchedulerError as refused:
        # After an empty first part, the optimizer may hold what the second one does not say.
        if milestones[0] > before or "would write at its next step" not in str(refused):
            raise
        return
    last_is_held = [first, *others][-1] == "short cosine" and before <= milestones[-1] + 3
    end = max(milestones[-1] + 4 - before, 1) if last_is_held else 40
    assert_allclose(session[:end], torchs[:end], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("before", range(7))
def test_a_cosine_that_a_cycle_has_moved_rises_to_its_own_base(before: int) -> None:
    """Torch multiplies the cycle's rate down to the minimum, and rises to the cosine's base."""
    session, torchs = both(
        lambda o: SequentialLR(o, _joined(o, ["short cosine", "one cycle"]), [5]), before=before
    )
    assert_allclose(session, torchs, rtol=1e-9, atol=1e-12)
    if before == 0:
        assert torchs[0, 0] < torchs[4, 0] < 0.1


def test_a_chain_that_torch_cannot_come_to_is_what_it_says() -> None:
    """Torch fails at a chain after the first part; the session has the product that it means."""
    optimizer = sgd()
    chain = ChainedScheduler([ConstantLR(optimizer, 0.5, 3), ExponentialLR(optimizer, 0.9)])
    first = StepLR(optimizer, 99)
    described = convert(SequentialLR(optimizer, [first, chain], [4]), optimizer.param_groups, "")
    alone = sgd()
    parts = ChainedScheduler([ConstantLR(alone, 0.5, 3), ExponentialLR(alone, 0.9)])
    assert_allclose(ours(described, optimizer, 24)[4:], theirs(alone, parts, 20), rtol=1e-12)


def test_chains_of_chains_and_chains_of_one_are_taken_over() -> None:
    """A chain may be in a chain, and a chain of a single scheduler is that scheduler."""
    for make in (
        lambda o: ChainedScheduler(
            [LinearLR(o, 0.5, total_iters=2.5), ChainedScheduler([ExponentialLR(o, 0.9)])]
        ),
        lambda o: ChainedScheduler([OneCycleLR(o, 0.3, total_steps=60)]),
    ):
        session, torchs = both(make, before=5, steps=40)
        assert_allclose(session, torchs, rtol=1e-10)


# -- what the optimizer holds ---------------------------------------------------------------------

FALLING: dict[str, Make] = {
    "StepLR": lambda o: StepLR(o, 7, 0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [3, 25], 0.5),
    "ConstantLR": lambda o: ConstantLR(o, 0.3, 20),
    "LinearLR": lambda o: LinearLR(o, 0.1, total_iters=30),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.97),
    "PolynomialLR": lambda o: PolynomialLR(o, 90, 1.7),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 80),
    "with a floor": lambda o: CosineAnnealingLR(o, 80, eta_min=0.01),
    "ChainedScheduler": lambda o: ChainedScheduler([LinearLR(o, 0.2), ExponentialLR(o, 0.97)]),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o, 0.2), CosineAnnealingLR(o, 90)], [5]),
}


@pytest.mark.parametrize("kind", FALLING)
@pytest.mark.parametrize("before", [0, 3, 12])
def test_a_rate_that_was_scaled_by_hand_is_carried_on(kind: str, before: int) -> None:
    """Torch multiplies what the optimizer holds, so the session goes on from there, per group."""
    trained = sgd(0.1, 0.5)
    scheduler = FALLING[kind](trained)
    for _ in range(before):
        step(trained, scheduler)
    trained.param_groups[1]["lr"] *= 0.5
    described = convert(scheduler, trained.param_groups, "loss")
    assert_allclose(ours(described, trained, 40), theirs(trained, scheduler, 40), rtol=1e-10)


def test_the_scale_is_the_number_that_was_typed(caplog: pytest.LogCaptureFixture) -> None:
    """The base is the old one times a half, to the bit, and a warning names both rates."""
    trained = sgd()
    scheduler = ExponentialLR(trained, 0.9)
    for _ in range(30):
        step(trained, scheduler)
    trained.param_groups[0]["lr"] *= 0.5
    assert convert(scheduler, trained.param_groups, "loss")["base_lr"] == 0.05
    assert "with 0.5 times the base" in caplog.text


def test_an_untouched_scheduler_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What torch drifts by multiplying thousands of times is no change by hand."""
    trained = sgd()
    scheduler = ChainedScheduler([ExponentialLR(trained, 0.9999), CosineAnnealingLR(trained, 5000)])
    for _ in range(4990):
        step(trained, scheduler)
    assert convert(scheduler, trained.param_groups, "loss")["base_lr"] == 0.1
    assert caplog.text == ""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rates_in_tensors_are_compared_as_far_as_they_go(dtype: torch.dtype) -> None:
    """A rate rounded by a tensor of few bits is no change by hand, but a halved one is."""
    trained = torch.optim.SGD(
        [torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1, dtype=dtype)
    )
    scheduler = ExponentialLR(trained, 0.99)
    for _ in range(20):
        step(trained, scheduler)
    base = convert(scheduler, trained.param_groups, "loss")["base_lr"]
    assert base == pytest.approx(0.1, rel=2e-2)
    trained.param_groups[0]["lr"].mul_(0.5)
    halved = convert(scheduler, trained.param_groups, "loss")["base_lr"]
    assert halved == pytest.approx(0.05, rel=1e-1 if dtype != torch.float64 else 1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: OneCycleLR(o, 0.3, total_steps=50),
        lambda o: CyclicLR(o, 0.01, 0.3, 5),
        lambda o: CosineAnnealingWarmRestarts(o, 9),
        lambda o: SequentialLR(o, [StepLR(o, 2), CosineAnnealingWarmRestarts(o, 9)], [1]),
    ],
)
def test_a_rate_that_torch_would_write_over_is_refused(make: Make) -> None:
    """These schedulers undo a change at their next step; the refusal names both rates."""
    trained = sgd()
    scheduler = make(trained)
    for _ in range(4):
        step(trained, scheduler)
    trained.param_groups[0]["lr"] *= 0.5
    with pytest.raises(UnsupportedSchedulerError, match=r"holds the learning rate .* at its next"):
        convert(scheduler, trained.param_groups, "loss")


@pytest.mark.parametrize("rate", [math.nan, math.inf, -0.1])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    """NaN is not accepted as a base."""
    trained = sgd()
    scheduler = StepLR(trained, 5)
    trained.param_groups[0]["lr"] = rate
    with pytest.raises(UnsupportedSchedulerError, match="no base learning rate leads"):
        convert(scheduler, trained.param_groups, "loss")


def test_a_law_that_has_overflowed_is_refused() -> None:
    """Torch would go on with infinity, which no session seals."""
    trained = sgd()
    scheduler = ExponentialLR(trained, 2.0)
    scheduler.last_epoch = 5000
    with pytest.raises(UnsupportedSchedulerError, match="left the range of float64"):
        convert(scheduler, trained.param_groups, "loss")


def test_a_rate_beside_a_law_at_zero_is_refused() -> None:
    """From 0 no base leads to what the optimizer holds."""
    trained = sgd()
    scheduler = PolynomialLR(trained, 3)
    for _ in range(5):
        step(trained, scheduler)
    trained.param_groups[0]["lr"] = 0.01
    with pytest.raises(UnsupportedSchedulerError, match="no base learning rate leads"):
        convert(scheduler, trained.param_groups, "loss")


def _saved(make: Make, steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    trained = sgd(0.1, 0.5)
    scheduler = make(trained)
    for _ in range(steps):
        step(trained, scheduler)
    return trained.state_dict(), scheduler.state_dict()


def _resumed(how: str, make: Make, saved: tuple[dict[str, Any], dict[str, Any]]) -> Any:
    trained = sgd(0.1, 0.5)
    of_optimizer, of_scheduler = saved
    if how == "optimizer first":
        trained.load_state_dict(of_optimizer)
        scheduler = make(trained)
        scheduler.load_state_dict(of_scheduler)
    elif how == "scheduler first":
        scheduler = make(trained)
        scheduler.load_state_dict(of_scheduler)
        trained.load_state_dict(of_optimizer)
    elif how == "optimizer only":
        trained.load_state_dict(of_optimizer)
        scheduler = make(trained)
    elif how == "equal initial_lr":
        for group, rate in zip(trained.param_groups, of_scheduler["_last_lr"], strict=True):
            group["lr"] = group["initial_lr"] = rate
        scheduler = make(trained)
        scheduler.load_state_dict(of_scheduler)
    else:
        scheduler = make(trained)
        scheduler.load_state_dict(of_scheduler)
    return trained, scheduler


@pytest.mark.parametrize(
    "how",
    [
        "optimizer first",
        "scheduler first",
        "optimizer only",
        "equal initial_lr",
        "scheduler only",
    ],
)
@pytest.mark.parametrize("kind", [kind for kind in FALLING if kind != "SequentialLR"])
def test_every_way_to_resume_goes_on_as_torch_does(how: str, kind: str) -> None:
    """In whatever order states were loaded, rightly or wrongly, the session has torch's rates."""
    trained, scheduler = _resumed(how, FALLING[kind], _saved(FALLING[kind], 9))
    described = convert(scheduler, trained.param_groups, "loss")
    assert_allclose(ours(described, trained, 40), theirs(trained, scheduler, 40), rtol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda o, last: StepLR(o, 7, 0.5, last_epoch=last),
        lambda o, last: ExponentialLR(o, 0.97, last_epoch=last),
        lambda o, last: CosineAnnealingLR(o, 80, last_epoch=last),
        lambda o, last: LinearLR(o, 0.1, total_iters=30, last_epoch=last),
        lambda o, last: PolynomialLR(o, 90, last_epoch=last),
        lambda o, last: CosineAnnealingWarmRestarts(o, 80, last_epoch=last),
    ],
)
@pytest.mark.parametrize("equal", [False, True])
def test_a_last_epoch_is_gone_on_from_as_torch_does(make: Any, equal: bool) -> None:
    """`initial_lr` may be the first rate or, wrongly, the one that has decayed."""
    trained = sgd()
    group = trained.param_groups[0]
    group["initial_lr"], group["lr"] = (0.02, 0.02) if equal else (0.1, 0.02)
    scheduler = make(trained, 9)
    described = convert(scheduler, trained.param_groups, "loss")
    assert described["start_step"] == 10
    assert_allclose(ours(described, trained, 30), theirs(trained, scheduler, 30), rtol=1e-10)


def test_a_sequence_whose_parts_are_elsewhere_is_refused() -> None:
    """`SequentialLR(last_epoch=...)` leaves its parts at their start, and torch goes on there."""
    trained = sgd()
    for group in trained.param_groups:
        group["initial_lr"] = group["lr"]
    parts = [LinearLR(trained), ExponentialLR(trained, 0.9)]
    scheduler = SequentialLR(trained, parts, [5], last_epoch=9)
    with pytest.raises(UnsupportedSchedulerError, match="is at step 10"):
        convert(scheduler, trained.param_groups, "loss")


OF_ONE_GROUP: dict[str, Make] = {
    **FALLING,
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 9),
    "CyclicLR": lambda o: CyclicLR(o, 0.01, 0.3, 5),
    "LambdaLR": get_constant_schedule,
    "OneCycleLR": lambda o: OneCycleLR(o, 0.3, total_steps=50),
    "SWALR": lambda o: SWALR(o, 0.05),
    "a cycle in a sequence": lambda o: SequentialLR(
        o, [LinearLR(o), OneCycleLR(o, 0.3, total_steps=50)], [3]
    ),
}


def test_every_scheduler_is_tried_with_a_group_too_many() -> None:
    """A scheduler that torch adds shows up here; MultiplicativeLR is refused in any case."""
    assert {*LAWS} - {"MultiplicativeLR"} <= {*OF_ONE_GROUP}


@pytest.mark.parametrize("kind", OF_ONE_GROUP)
def test_a_group_that_the_scheduler_does_not_know_is_refused(kind: str) -> None:
    """Torch would fail at its next step, or leave the group as it is."""
    trained = sgd()
    scheduler = OF_ONE_GROUP[kind](trained)
    trained.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1})
    with pytest.raises(UnsupportedSchedulerError, match="was built for 1 param groups"):
        convert(scheduler, trained.param_groups, "loss")


def test_groups_begin_where_the_optimizer_began() -> None:
    """`groups_of` reads `initial_lr`: what an optimizer of a checkpoint holds has decayed."""
    trained = sgd(0.1, 0.5)
    scheduler = ExponentialLR(trained, 0.5)
    for _ in range(3):
        step(trained, scheduler)
    again = sgd(0.1, 0.5)
    again.load_state_dict(trained.state_dict())
    assert groups_of(again) == {"group0": {"base_lr": 0.1}, "group1": {"base_lr": 0.5}}


# -- plateaus -------------------------------------------------------------------------------------


@given(
    st.lists(metrics, max_size=25),
    st.lists(metrics, min_size=1, max_size=30),
    st.sampled_from(["min", "max"]),
    st.sampled_from([0.01, [0.01, 0.2]]),
)
def test_a_plateau_goes_on_with_all_that_torchs_has_seen(
    before: list[float], after: list[float], mode: Any, floor: Any
) -> None:
    """Best, bad epochs, cooldown and levels are kept: every later cut is torch's, in each group."""
    trained = sgd(0.1, 0.5)
    scheduler = ReduceLROnPlateau(
        trained, mode, factor=0.3, patience=2, cooldown=2, threshold=0.05, min_lr=floor
    )
    for value in before:
        scheduler.step(value)
    described = convert(scheduler, trained.param_groups, "loss")
    assert described.get("start_step", 0) == len(before)
    (controller,) = described["controllers"]
    groups = described.get("groups") or {"": described}  # where both have reached one rate
    bases = {name: group["base_lr"] for name, group in groups.items()}
    levels = follow(Controller.parse(controller), after, bases).levels
    for value, level in zip(after, levels, strict=True):
        scheduler.step(value)
        rates = [group["lr"] for group in trained.param_groups]
        assert list(level.values()) == rates[: len(level)]


def test_floors_of_groups_make_groups_of_equal_rates() -> None:
    """A floor for each param group is assigned by name, so the session has groups nevertheless."""
    trained = sgd(0.1, 0.1)
    scheduler = ReduceLROnPlateau(trained, min_lr=[0.01, 0.02])
    described = convert(scheduler, trained.param_groups, "loss")
    assert described["groups"] == {"group0": {"base_lr": 0.1}, "group1": {"base_lr": 0.1}}
    assert described["controllers"][0]["min_lr"] == {"group0": 0.01, "group1": 0.02}


# -- refusals -------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Make, str]] = {
    "half a step": (lambda o: StepLR(o, 2.5), "step_size=2.5"),  # type: ignore[arg-type]
    "a factor below zero": (lambda o: ExponentialLR(o, -0.5), "gamma=-0.5"),
    "an endless line": (lambda o: LinearLR(o, total_iters=math.inf), "total_iters=inf"),  # type: ignore[arg-type]
    "a wave of no length": (lambda o: CosineAnnealingLR(o, 0), "T_max=0"),
    "no way down": (
        lambda o: CyclicLR(o, 0.1, 0.2, 5, 0, cycle_momentum=False),
        "`cyclic` with the mode `sawtooth`",
    ),
    "falling milestones": (
        lambda o: SequentialLR(o, [StepLR(o, 5), StepLR(o, 5), StepLR(o, 5)], [20, 10]),
        r"milestones=\[20, 10\]: give them rising",
    ),
    "half a milestone": (
        lambda o: SequentialLR(o, [StepLR(o, 5), StepLR(o, 5)], [2.5]),  # type: ignore[list-item]
        "milestones=2.5",
    ),
    "a function": (lambda o: LambdaLR(o, lambda _: 1.0), '"kind": "expression"'),
    "a product of functions": (lambda o: MultiplicativeLR(o, lambda _: 1.0), '"expression"'),
    "a plateau of no factor": (lambda o: ReduceLROnPlateau(o, factor=0.0), "factor=0.0"),
    "half a patience": (
        lambda o: ReduceLROnPlateau(o, patience=2.5),  # type: ignore[arg-type]
        "patience=2.5",
    ),
    "a threshold below zero": (lambda o: ReduceLROnPlateau(o, threshold=-1.0), "threshold=-1.0"),
}


@pytest.mark.parametrize(("make", "names"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_argument_and_what_to_do(make: Make, names: str) -> None:
    """The message names the argument, so its reader need not know this code."""
    trained = sgd()
    scheduler = make(trained)
    with pytest.raises(UnsupportedSchedulerError, match=names):
        convert(scheduler, trained.param_groups, "loss")


def test_the_advice_for_a_scale_fn_is_the_law_itself() -> None:
    """With that function, in place of the one in the example, it gives torch's rates."""
    trained = sgd()
    scheduler = CyclicLR(
        trained, 0.01, 0.3, 2.5, scale_fn=lambda t: 0.99**t, scale_mode="iterations"
    )
    with pytest.raises(UnsupportedSchedulerError) as refused:
        convert(scheduler, trained.param_groups, "loss")
    advice = str(refused.value).partition("such as ")[2]
    law = Schedule.parse(json.loads(advice))
    rates = [row[0] for row in theirs(trained, scheduler, 30)]
    assert_allclose(law.values(np.arange(30.0), 0.1), rates, rtol=1e-12)


def test_what_a_part_leaves_is_not_taken_for_its_law() -> None:
    """Momentum that a cycle has left keeps the very bits that torch leaves."""
    trained = adam()
    scheduler = SequentialLR(
        trained, [CyclicLR(trained, 0.01, 0.3, 3), ExponentialLR(trained, 0.9)], [4]
    )
    described = convert(scheduler, trained.param_groups, "loss")
    session = ours(described, trained, 10)
    torchs = theirs(trained, scheduler, 10)
    assert_array_equal(session[:, 1], torchs[:, 1])
    assert held(trained)[1] == session[-1, 1]
