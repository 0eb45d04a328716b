"""transformers' own schedules, which are functions: recognised by name, and converted."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, SequentialLR, StepLR
from transformers import optimization
from transformers.trainer_utils import SchedulerType

from converted import both, convert, ours, sgd, step, theirs
from pacesetter import UnsupportedSchedulerError

lengths = {"num_warmup_steps": st.integers(0, 30), "num_training_steps": st.integers(1, 60)}
cycles = {**lengths, "num_cycles": st.sampled_from([0.5, 1.0, 2.3])}
floors = st.sampled_from([{"min_lr": 0.01}, {"min_lr_rate": 0.1}])
stages = {
    "num_warmup_steps": st.integers(0, 20),
    "num_stable_steps": st.integers(0, 20),
    "num_decay_steps": st.integers(0, 20),
    "warmup_type": st.sampled_from(["linear", "cosine", "1-sqrt"]),
    "decay_type": st.sampled_from(["linear", "cosine", "1-sqrt"]),
    "min_lr_ratio": st.sampled_from([0.0, 0.1]),
}

ANY: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "constant": {},
    "constant_with_warmup": {"num_warmup_steps": lengths["num_warmup_steps"]},
    "linear": lengths,
    "cosine": cycles,
    "cosine_with_restarts": {**lengths, "num_cycles": st.integers(1, 5)},
    "polynomial": {**lengths, "power": st.sampled_from([0.5, 1.0, 2.0])},
    "inverse_sqrt": {
        "num_warmup_steps": lengths["num_warmup_steps"],
        "timescale": st.none() | st.integers(1, 99),
    },
    "cosine_with_min_lr": {**cycles, "floor": floors},
    "cosine_warmup_with_min_lr": {
        **cycles,
        "floor": floors,
        "warmup_lr_rate": st.none() | st.floats(0, 1),
    },
    "warmup_stable_decay": stages,
}

CONTROLLERS = {"reduce_lr_on_plateau", "greedy"}


def scheduler_of(kind: str, optimizer: Optimizer, **given_: Any) -> Any:
    """Build the scheduler that the Trainer would."""
    given_ |= given_.pop("floor", {})
    build: Callable[..., Any] = optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
    return build(optimizer, **given_)


def test_every_type_of_the_trainer_is_tried() -> None:
    """A type that transformers adds shows up here."""
    assert set(ANY) == {kind.value for kind in SchedulerType} - CONTROLLERS


@pytest.mark.parametrize("kind", ANY)
@given(data=st.data(), before=st.integers(0, 40))
def test_a_schedule_of_transformers_is_converted_to_its_kind(
    kind: str, data: st.DataObject, before: int
) -> None:
    """Two groups of different rates train on as with transformers' own, from any step on."""
    given_ = data.draw(st.fixed_dictionaries(ANY[kind]))
    if kind == "polynomial" and given_["num_training_steps"] <= given_["num_warmup_steps"]:
        return  # transformers may divide by zero
    session, torchs = both(
        lambda o: scheduler_of(kind, o, **given_),
        steps=50,
        before=before,
        optimizer=lambda: sgd(0.1, 0.5),
    )
    assert_allclose(session, torchs, rtol=1e-9, atol=1e-13)
    trained = sgd()
    described = convert(scheduler_of(kind, trained, **given_), trained.param_groups, "loss")
    assert described["schedule"]["kind"] == f"hf.{kind}"


def test_one_in_a_sequence_is_converted_too() -> None:
    """A schedule of transformers may follow one of torch's."""
    trained = sgd()
    parts = [
        StepLR(trained, 2, 0.5),
        scheduler_of("cosine", trained, num_warmup_steps=3, num_training_steps=40),
    ]
    scheduler = SequentialLR(trained, parts, [7])
    described = convert(scheduler, trained.param_groups, "loss")
    assert_allclose(ours(described, trained, 40), theirs(trained, scheduler, 40), rtol=1e-9)


def test_a_rate_that_it_would_write_over_is_refused() -> None:
    """Transformers' schedules write their values whatever the optimizer holds."""
    trained = sgd()
    scheduler = scheduler_of("linear", trained, num_warmup_steps=0, num_training_steps=50)
    step(trained, scheduler)
    trained.param_groups[0]["lr"] *= 0.5
    with pytest.raises(UnsupportedSchedulerError, match="would write at its next step"):
        convert(scheduler, trained.param_groups, "loss")


@pytest.mark.parametrize(
    ("kind", "given_", "names"),
    [
        ("linear", {"num_warmup_steps": 2.5, "num_training_steps": 9}, "num_warmup_steps=2.5"),
        ("linear", {"num_warmup_steps": -1, "num_training_steps": 9}, "num_warmup_steps=-1"),
        ("linear", {"num_warmup_steps": 0, "num_training_steps": 0}, "num_training_steps=0"),
        (
            "cosine",
            {"num_warmup_steps": 0, "num_training_steps": 9, "num_cycles": 0},
            "num_cycles=0",
        ),
        (
            "warmup_stable_decay",
            {"num_warmup_steps": 6, "num_training_steps": 9, "num_decay_steps": 6},
            "num_stable_steps=-3",
        ),
    ],
)
def test_what_no_kind_has_is_refused_by_name(kind: str, given_: Any, names: str) -> None:
    """The argument that no session supports is named."""
    trained = sgd()
    scheduler = scheduler_of(kind, trained, **given_)
    with pytest.raises(UnsupportedSchedulerError, match=names):
        convert(scheduler, trained.param_groups, "loss")


def test_what_is_not_known_names_where_to_look() -> None:
    """A new function of transformers, and its GreedyLR, are refused with the kinds to use."""

    def new(_: int) -> float:
        return 1.0

    new.__module__ = "transformers.optimization"
    trained = sgd()
    with pytest.raises(UnsupportedSchedulerError, match=r"hf\.cosine"):
        convert(LambdaLR(trained, new), trained.param_groups, "loss")
    with pytest.raises(UnsupportedSchedulerError, match=r"hf\.GreedyLR"):
        convert(optimization.GreedyLR(trained), trained.param_groups, "loss")
