"""The presets of optax and keras against these libraries, for any arguments that they take.

Golden files hold the values for fixed arguments; here hypothesis looks for arguments that a preset
distorts. A preset may refuse what a library takes, and never makes another law of it.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import optax

from pacesetter_service.core.schedules import Schedule

some_steps = st.lists(st.integers(0, 44), min_size=6, max_size=8, unique=True).map(sorted)
"""A library's schedule that is not compiled takes milliseconds for each."""

rates = st.sampled_from([0.0, 0.1, 0.37])
counts = st.integers(-1, 40)
powers = st.sampled_from([0.5, 1.0, 2.0])
scales = st.none() | st.dictionaries(
    st.integers(0, 40), st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=2
)
"""Always two, since JAX compiles anew for each number of them."""

cycle = {
    "init_value": rates,
    "peak_value": rates,
    "warmup_steps": counts,
    "decay_steps": counts,
    "end_value": st.sampled_from([0.0, 0.01]),
    "exponent": powers,
}
decay = {
    "transition_steps": counts,
    "decay_rate": st.sampled_from([0.0, 0.5, 1.0, 1.1]),
    "transition_begin": counts,
    "staircase": st.booleans(),
    "end_value": st.none() | st.just(0.05),
}

OPTAX: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "constant_schedule": {"value": rates},
    "polynomial_schedule": {
        "init_value": rates,
        "end_value": rates,
        "power": powers,
        "transition_steps": counts,
        "transition_begin": counts,
    },
    "linear_schedule": {
        "init_value": rates,
        "end_value": rates,
        "transition_steps": counts,
        "transition_begin": counts,
    },
    "piecewise_constant_schedule": {"init_value": rates, "boundaries_and_scales": scales},
    "piecewise_interpolate_schedule": {
        "interpolate_type": st.sampled_from(["linear", "cosine"]),
        "init_value": rates,
        "boundaries_and_scales": scales,
    },
    "exponential_decay": {"init_value": rates, **decay},
    "cosine_decay_schedule": {
        "init_value": rates,
        "decay_steps": counts,
        "alpha": st.sampled_from([0.0, 0.2]),
        "exponent": powers,
    },
    "linear_onecycle_schedule": {
        "transition_steps": counts,
        "peak_value": rates,
        "pct_start": st.floats(0, 1),
        "pct_final": st.floats(0, 1),
    },
    "cosine_onecycle_schedule": {
        "transition_steps": counts,
        "peak_value": rates,
        "pct_start": st.floats(0, 1),
        "final_div_factor": st.sampled_from([1e4, np.inf]),
    },
    "warmup_constant_schedule": {"init_value": rates, "peak_value": rates, "warmup_steps": counts},
    "warmup_cosine_decay_schedule": cycle,
    "warmup_exponential_decay_schedule": {
        "init_value": rates,
        "peak_value": rates,
        "warmup_steps": counts,
        **decay,
    },
    "sgdr_schedule": {"cosine_kwargs": st.lists(st.fixed_dictionaries(cycle), max_size=3)},
}

KERAS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "ExponentialDecay": {
        "initial_learning_rate": rates,
        "decay_steps": st.integers(1, 40),
        "decay_rate": st.sampled_from([0.0, 0.5, 1.1]),
        "staircase": st.booleans(),
    },
    "PiecewiseConstantDecay": {
        "boundaries": st.lists(st.integers(0, 40), max_size=4).map(sorted),
        "values": st.lists(rates, min_size=1, max_size=5),
    },
    "PolynomialDecay": {
        "initial_learning_rate": rates,
        "decay_steps": st.integers(1, 40),
        "end_learning_rate": rates,
        "power": powers,
        "cycle": st.booleans(),
    },
    "InverseTimeDecay": {
        "initial_learning_rate": rates,
        "decay_steps": st.integers(1, 40),
        "decay_rate": st.sampled_from([0.0, 0.5, 3.0]),
        "staircase": st.booleans(),
    },
    "CosineDecay": {
        "initial_learning_rate": rates,
        "decay_steps": st.integers(1, 40),
        "alpha": st.sampled_from([0.0, 0.2]),
        "warmup_target": st.none() | rates,
        "warmup_steps": st.integers(0, 20),
    },
    "CosineDecayRestarts": {
        "initial_learning_rate": rates,
        "first_decay_steps": st.integers(1, 40),
        "t_mul": st.sampled_from([1.0, 2.0]),
        "m_mul": st.sampled_from([1.0, 0.8]),
        "alpha": st.sampled_from([0.0, 0.2]),
    },
}


def written(given_: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as JSON has them."""
    return {name: "inf" if value == np.inf else value for name, value in given_.items()}


def compare(
    kind: str, given_: dict[str, Any], library: Callable[[int], Any], steps: list[int]
) -> None:
    """Compare the curves, unless the library has none or the preset refuses it."""
    theirs = np.array([float(library(step)) for step in steps])
    if not np.isfinite(theirs).all():
        return
    try:
        law = Schedule.parse({"kind": kind, **written(given_)})
    except ValidationError:
        return
    values = law.values(np.array(steps, dtype=np.float64), 0.5)
    assert_allclose(values, theirs, rtol=1e-5, atol=1e-6 * max(float(np.abs(theirs).max()), 0.1))


def test_every_preset_of_both_is_tried() -> None:
    """A new schedule shows up here; `join_schedules` joins others, and has separate tests."""
    ours = {kind for kind in Schedule.kinds if kind.startswith(("optax.", "keras."))}
    tried = {f"optax.{name}" for name in OPTAX} | {f"keras.{name}" for name in KERAS}
    assert ours == tried | {"optax.join_schedules"}


@pytest.mark.parametrize("name", OPTAX)
@settings(max_examples=15)
@given(data=st.data(), steps=some_steps)
def test_a_schedule_of_optax_is_reproduced_or_refused(
    name: str, data: st.DataObject, steps: list[int]
) -> None:
    """Lengths of 0 and below, no boundaries, rates of 0 and percentages at their ends included."""
    given_ = data.draw(st.fixed_dictionaries(OPTAX[name]))
    try:
        library = getattr(optax, name)(**given_)
        library(0)
    except (ValueError, ZeroDivisionError, IndexError):
        return
    compare(f"optax.{name}", given_, lambda step: library(np.float32(step)), steps)


@pytest.mark.parametrize("name", KERAS)
@settings(max_examples=15)
@given(data=st.data(), steps=some_steps)
def test_a_schedule_of_keras_is_reproduced_or_refused(
    name: str, data: st.DataObject, steps: list[int]
) -> None:
    """Decays of nothing, boundaries that coincide and rates of 0 included."""
    given_ = data.draw(st.fixed_dictionaries(KERAS[name]))
    try:
        library = getattr(keras.optimizers.schedules, name)(**given_)
        library(0)
    except (ValueError, IndexError):
        return
    compare(f"keras.{name}", given_, library, steps)
