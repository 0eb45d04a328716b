"""The presets of transformers against `get_scheduler`, installed beside them."""

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydantic import ValidationError
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler
from transformers.trainer_utils import SchedulerType

from core.torch_schedulers import Floats, closed_form
from pacesetter_service.catalogue import hf as presets
from pacesetter_service.core.schedules import Schedule

Parameters = dict[str, Any]

KINDS = [kind for kind in Schedule.kinds if kind.startswith("hf.")]

STEPS = ("num_warmup_steps", "num_training_steps")
"""What `get_scheduler` takes itself; all other parameters go through its keyword arguments."""

rests = st.just(0.0) | st.floats(1e-12, 1e-3)

waves = st.sampled_from([0.5, 1.0, 1.5, 3.0]) | st.floats(0.1, 5)

floors = st.one_of(
    st.fixed_dictionaries({"num_cycles": waves, "min_lr_rate": st.floats(0, 1)}),
    st.fixed_dictionaries({"num_cycles": waves, "min_lr": rests}),
)

shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])

OWN: dict[str, st.SearchStrategy[Parameters]] = {
    "constant": st.just({}),
    "constant_with_warmup": st.just({}),
    "linear": st.just({}),
    "cosine": st.fixed_dictionaries({"num_cycles": waves}),
    "cosine_with_restarts": st.fixed_dictionaries({"num_cycles": st.integers(1, 60)}),
    "polynomial": st.fixed_dictionaries({"lr_end": rests, "power": st.floats(0.1, 5)}),
    "inverse_sqrt": st.fixed_dictionaries({"timescale": st.none() | st.integers(1, 20_000)}),
    "cosine_with_min_lr": floors,
    "cosine_warmup_with_min_lr": st.builds(
        lambda floor, start: floor | {"warmup_lr_rate": start},
        floors,
        st.none() | st.floats(0, 1),
    ),
    "warmup_stable_decay": st.fixed_dictionaries(
        {
            "num_decay_steps": st.integers(0, 100),
            "num_stable_steps": st.integers(0, 100),
            "warmup_type": shapes,
            "decay_type": shapes,
            "min_lr_ratio": st.just(0.0) | st.floats(0, 1),
            "num_cycles": waves,
        }
    ),
}
"""Random parameters of each scheduler's own."""

TO_THE_BIT = {"constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts"}
"""The types whose bits are those of transformers; the others are within 1e-12."""


def theirs(kind: str, parameters: Parameters, steps: Iterable[int], lr: float) -> Floats:
    """Evaluate the scheduler of transformers."""
    lengths = {name: parameters.get(name) for name in STEPS}
    own = {name: value for name, value in parameters.items() if name not in STEPS}
    return closed_form(
        lambda o: get_scheduler(
            kind.removeprefix("hf."), o, **lengths, scheduler_specific_kwargs=own
        ),
        steps,
        lr,
    )


def ours(kind: str, parameters: Parameters, steps: Iterable[int], lr: float) -> Floats:
    """Evaluate the preset."""
    return Schedule.parse({"kind": kind, **parameters}).values(np.array(steps, dtype=float), lr)


def same(kind: str, parameters: Parameters, steps: Iterable[int], lr: float) -> None:
    """Compare, to the bit or within 1e-12, with no tolerance for 0."""
    expected, values = theirs(kind, parameters, steps, lr), ours(kind, parameters, steps, lr)
    if kind.removeprefix("hf.") in TO_THE_BIT:
        assert_array_equal(values, expected)
    else:
        assert_allclose(values, expected, rtol=1e-12, atol=0)


def test_every_scheduler_type_has_a_preset_or_an_advice() -> None:
    """No name of transformers' SchedulerType is missing; those that are code have an advice."""
    assert {f"hf.{name.value}" for name in SchedulerType} == {*KINDS, *presets.REDIRECTS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_has_the_parameters_and_defaults_of_transformers(kind: str) -> None:
    """Every parameter of the function is there, and those with a default have the same one."""
    function = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind.removeprefix("hf."))]
    parameters = dict(inspect.signature(function).parameters)
    del parameters["optimizer"], parameters["last_epoch"]
    fields = dict(Schedule.kinds[kind].model_fields)
    del fields["kind"]
    assert {*parameters, *STEPS} == {*fields}
    for name, parameter in parameters.items():
        if name not in STEPS:
            required = parameter.default is inspect.Parameter.empty
            assert fields[name].is_required() == required
            assert required or fields[name].default == parameter.default


@pytest.mark.parametrize("kind", KINDS)
@given(
    data=st.data(),
    warmup=st.just(0) | st.integers(0, 40),
    length=st.integers(1, 90),
    lr=st.floats(1e-2, 10),
)
def test_a_preset_gives_the_values_of_transformers(
    kind: str, data: st.DataObject, warmup: int, length: int, lr: float
) -> None:
    """From the first step until long after the training has ended the values are the same."""
    own = data.draw(OWN[kind.removeprefix("hf.")])
    lengths = {"num_warmup_steps": warmup, "num_training_steps": warmup + length}
    same(kind, {**lengths, **own}, range(250), lr)


@pytest.mark.parametrize("kind", KINDS)
@given(
    data=st.data(),
    warmup=st.integers(1, 80),
    missing=st.integers(0, 80),
    lr=st.floats(1e-2, 10),
)
def test_a_training_no_longer_than_its_warmup_goes_on_as_there(
    kind: str, data: st.DataObject, warmup: int, missing: int, lr: float
) -> None:
    """With no time for a decay the values are those of transformers, where it does not raise."""
    own = data.draw(OWN[kind.removeprefix("hf.")])
    length = max(warmup - missing, 1)
    assume(kind != "hf.polynomial" or length < warmup)
    lengths = {"num_warmup_steps": warmup, "num_training_steps": length}
    same(kind, {**lengths, **own}, range(120), lr)


LONG = 100_000

NEAR_THE_TURNS = sorted(
    {max(turn + step, 0) for turn in (0, 2000, LONG, 198_000) for step in range(-60, 60)}
)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("hf.linear", {}),
        ("hf.cosine", {}),
        ("hf.cosine_with_restarts", {"num_cycles": 49}),
        ("hf.polynomial", {"power": 2.0, "lr_end": 0.0}),
        ("hf.inverse_sqrt", {}),
        ("hf.cosine_with_min_lr", {"min_lr": 0.0}),
        ("hf.cosine_warmup_with_min_lr", {"min_lr_rate": 0.0}),
        *(
            (
                "hf.warmup_stable_decay",
                {"num_decay_steps": 20_000, "warmup_type": shape, "decay_type": shape},
            )
            for shape in ("linear", "cosine", "1-sqrt")
        ),
    ],
)
def test_a_long_training_has_the_values_of_transformers_beside_its_zeros(
    kind: str, own: Parameters
) -> None:
    """Where a value is the small difference of large ones it is still the same within 1e-12."""
    lengths = {"num_warmup_steps": 2000, "num_training_steps": LONG}
    same(kind, {**lengths, **own}, NEAR_THE_TURNS, 0.1)


def test_cosine_rises_again() -> None:
    """A decay's length after the end of the training the value is at the base again."""
    lengths = {"num_warmup_steps": 10, "num_training_steps": 110}
    assert ours("hf.cosine", lengths, [10, 110, 210], 0.5).tolist() == [0.5, 0.0, 0.5]


def test_a_floor_is_right_for_each_group() -> None:
    """A group with another base still ends at `min_lr` and `lr_end`; transformers scales."""
    lengths = {"num_training_steps": 100}
    assert ours("hf.cosine_with_min_lr", lengths | {"min_lr": 0.01}, [100], 5.0) == 0.01
    assert ours("hf.polynomial", lengths | {"lr_end": 0.01}, [100, 200], 5.0).tolist() == [0.01] * 2


REFUSED: dict[str, tuple[str, Parameters, str]] = {
    "no floor": ("hf.cosine_with_min_lr", {"num_training_steps": 9}, "Give either min_lr"),
    "two floors": (
        "hf.cosine_warmup_with_min_lr",
        {"num_training_steps": 9, "min_lr": 0.0, "min_lr_rate": 0.1},
        "Give either min_lr",
    ),
    "no length": ("hf.warmup_stable_decay", {"num_decay_steps": 5}, "num_stable_steps"),
    "a decay that starts before the warmup ends": (
        "hf.warmup_stable_decay",
        {"num_warmup_steps": 6, "num_decay_steps": 5, "num_training_steps": 10},
        "A warmup of 6 and a decay of 5 do not fit into 10 training steps",
    ),
}


@pytest.mark.parametrize(("kind", "parameters", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(kind: str, parameters: Parameters, hint: str) -> None:
    """The error says what to do."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse({"kind": kind, **parameters})
    [error] = caught.value.errors()
    assert hint in error["msg"]


@pytest.mark.parametrize("kind", presets.REDIRECTS)
def test_what_is_no_schedule_is_found_elsewhere(kind: str) -> None:
    """The error of a name that is no schedule says what to use instead."""
    with pytest.raises(ValidationError) as caught:
        Schedule.parse({"kind": kind, "some": "parameters"})
    [error] = caught.value.errors()
    assert error["loc"] == ("kind",)
    assert presets.REDIRECTS[kind] in error["msg"]
