"""Values that optax's schedules give an optimizer that they are injected into, in float32.

And what its plateau makes of updates with a rate of 0.1.
"""

# requires: optax==0.2.8 jax==0.10.2 numpy==2.4.6

from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import optax
from common import case, under_plateaus, write


def build(name: str, spec: dict[str, Any]) -> Any:
    """Return one of optax's schedules, the ones inside it included."""
    given = dict(spec)
    if "schedules" in spec:
        given["schedules"] = [
            build(
                inner["kind"].removeprefix("optax."),
                {k: v for k, v in inner.items() if k != "kind"},
            )
            for inner in spec["schedules"]
        ]
    return getattr(optax, name)(**given)


def run(name: str, spec: dict[str, Any], steps: range) -> list[float]:
    """Train with a schedule, and return the rates that the updates were made with."""
    injected = optax.inject_hyperparams(optax.sgd)(learning_rate=build(name, spec))
    state = injected.init(jnp.zeros(1))
    state = state._replace(count=jnp.asarray(steps.start, jnp.int32))
    values = []
    for _ in steps:
        _, state = injected.update(jnp.zeros(1), state)
        values.append(float(state.hyperparams["learning_rate"]))
    return values


POLYNOMIAL = {"init_value": 0.1, "end_value": 0.001, "transition_steps": 60}
WARMED = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 10}
DECAY = {"init_value": 0.3, "transition_steps": 20, "decay_rate": 0.5}

CASES: list[tuple[str, str, dict[str, Any], range]] = [
    ("constant_schedule", "any", {"value": 0.003}, range(5)),
    ("polynomial_schedule", "linear", {**POLYNOMIAL, "power": 1.0}, range(70)),
    ("polynomial_schedule", "quadratic", {**POLYNOMIAL, "power": 2.0}, range(70)),
    (
        "polynomial_schedule",
        "late square root",
        {**POLYNOMIAL, "power": 0.5, "transition_begin": 13},
        range(80),
    ),
    ("polynomial_schedule", "up", {**POLYNOMIAL, "end_value": 0.4, "power": 3.0}, range(65)),
    (
        "polynomial_schedule",
        "no steps",
        {**POLYNOMIAL, "power": 2.0, "transition_steps": 0},
        range(5),
    ),
    ("linear_schedule", "to 0", {**POLYNOMIAL, "end_value": 0.0}, range(70)),
    ("linear_schedule", "late and up", {**POLYNOMIAL, "transition_begin": 5}, range(70)),
    ("linear_schedule", "no steps", {**POLYNOMIAL, "transition_steps": 0}, range(5)),
    ("piecewise_constant_schedule", "defaults", {"init_value": 0.1}, range(5)),
    (
        "piecewise_constant_schedule",
        "scales accumulate",
        {"init_value": 0.1, "boundaries_and_scales": {40: 0.5, 10: 0.1, 25: 3.0, 0: 0.9}},
        range(50),
    ),
    (
        "piecewise_constant_schedule",
        "down to 0",
        {"init_value": 0.1, "boundaries_and_scales": {5: 0.0, 8: 2.0}},
        range(12),
    ),
    ("exponential_decay", "smooth", DECAY, range(150)),
    ("exponential_decay", "stairs", {**DECAY, "staircase": True, "transition_begin": 7}, range(99)),
    ("exponential_decay", "floor", {**DECAY, "end_value": 0.05, "transition_begin": 3}, range(80)),
    ("exponential_decay", "floor above the start", {**DECAY, "end_value": 0.5}, range(9)),
    ("exponential_decay", "ceiling", {**DECAY, "decay_rate": 1.3, "end_value": 0.8}, range(99)),
    ("exponential_decay", "rate 1", {**DECAY, "decay_rate": 1.0, "end_value": 0.2}, range(5)),
    ("cosine_decay_schedule", "defaults", {"init_value": 0.1, "decay_steps": 90}, range(110)),
    (
        "cosine_decay_schedule",
        "part and power",
        {"init_value": 0.2, "decay_steps": 63, "alpha": 0.05, "exponent": 1.5},
        range(80),
    ),
    (
        "cosine_decay_schedule",
        "small power",
        {"init_value": 0.2, "decay_steps": 40, "exponent": 0.5},
        range(50),
    ),
    *(
        (
            "piecewise_interpolate_schedule",
            shape,
            {
                "interpolate_type": shape,
                "init_value": 0.1,
                "boundaries_and_scales": {70: 0.1, 10: 5.0, 40: 0.3},
            },
            range(90),
        )
        for shape in ("linear", "cosine")
    ),
    (
        "piecewise_interpolate_schedule",
        "a boundary at 0",
        {
            "interpolate_type": "cosine",
            "init_value": 0.1,
            "boundaries_and_scales": {0: 0.5, 20: 0.1},
        },
        range(25),
    ),
    (
        "piecewise_interpolate_schedule",
        "no boundaries",
        {"interpolate_type": "linear", "init_value": 0.1},
        range(5),
    ),
    (
        "linear_onecycle_schedule",
        "defaults",
        {"transition_steps": 100, "peak_value": 0.1},
        range(120),
    ),
    (
        "linear_onecycle_schedule",
        "phases cut to steps",
        {
            "transition_steps": 77,
            "peak_value": 1.0,
            "pct_start": 0.25,
            "pct_final": 0.7,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
        range(90),
    ),
    (
        "linear_onecycle_schedule",
        "from the peak",
        {"transition_steps": 30, "peak_value": 0.1, "pct_start": 0.01},
        range(35),
    ),
    (
        "cosine_onecycle_schedule",
        "defaults",
        {"transition_steps": 100, "peak_value": 0.1},
        range(120),
    ),
    (
        "cosine_onecycle_schedule",
        "factors",
        {
            "transition_steps": 77,
            "peak_value": 1.0,
            "pct_start": 0.5,
            "div_factor": 5.0,
            "final_div_factor": 100.0,
        },
        range(90),
    ),
    (
        "cosine_onecycle_schedule",
        "from the peak",
        {"transition_steps": 30, "peak_value": 0.1, "pct_start": 0.0},
        range(35),
    ),
    ("warmup_constant_schedule", "any", {**WARMED, "init_value": 0.02}, range(20)),
    ("warmup_cosine_decay_schedule", "defaults", {**WARMED, "decay_steps": 90}, range(110)),
    (
        "warmup_cosine_decay_schedule",
        "end and power",
        {**WARMED, "init_value": 0.5, "decay_steps": 80, "end_value": 0.004, "exponent": 2.0},
        range(90),
    ),
    (
        "warmup_cosine_decay_schedule",
        "no warmup",
        {**WARMED, "warmup_steps": 0, "decay_steps": 50, "end_value": 0.01},
        range(60),
    ),
    (
        "warmup_cosine_decay_schedule",
        "a peak of 0",
        {**WARMED, "init_value": 0.1, "peak_value": 0.0, "decay_steps": 30, "end_value": 0.01},
        range(40),
    ),
    (
        "warmup_exponential_decay_schedule",
        "smooth",
        {**WARMED, "transition_steps": 20, "decay_rate": 0.4},
        range(110),
    ),
    (
        "warmup_exponential_decay_schedule",
        "late stairs with a floor",
        {
            **WARMED,
            "transition_steps": 12,
            "decay_rate": 0.4,
            "transition_begin": 9,
            "staircase": True,
            "end_value": 0.005,
        },
        range(90),
    ),
    (
        "warmup_exponential_decay_schedule",
        "no warmup",
        {**WARMED, "warmup_steps": 0, "transition_steps": 12, "decay_rate": 0.4},
        range(30),
    ),
    (
        "sgdr_schedule",
        "three cycles",
        {
            "cosine_kwargs": [
                {**WARMED, "decay_steps": 40},
                {**WARMED, "decay_steps": 60, "peak_value": 0.05, "end_value": 0.001},
                {**WARMED, "decay_steps": 30, "warmup_steps": 0, "exponent": 2.0},
            ]
        },
        range(150),
    ),
    ("sgdr_schedule", "one cycle", {"cosine_kwargs": [{**WARMED, "decay_steps": 30}]}, range(40)),
    (
        "join_schedules",
        "local clocks",
        {
            "schedules": [
                {"kind": "optax.linear_schedule", **POLYNOMIAL, "transition_steps": 20},
                {"kind": "optax.exponential_decay", **DECAY},
                {"kind": "optax.constant_schedule", "value": 0.01},
                {"kind": "optax.cosine_decay_schedule", "init_value": 0.1, "decay_steps": 30},
            ],
            "boundaries": [15, 40, 50],
        },
        range(99),
    ),
    (
        "join_schedules",
        "boundaries that leave schedules out",
        {
            "schedules": [
                {"kind": "optax.constant_schedule", "value": 0.5},
                {"kind": "optax.exponential_decay", **DECAY},
                {"kind": "optax.constant_schedule", "value": 0.01},
                {"kind": "optax.cosine_decay_schedule", "init_value": 0.1, "decay_steps": 30},
            ],
            "boundaries": [0, 20, 20],
        },
        range(60),
    ),
    (
        "join_schedules",
        "a single one",
        {"schedules": [{"kind": "optax.linear_schedule", **POLYNOMIAL}], "boundaries": []},
        range(9),
    ),
]
"""Function, what it shows, parameters, and which steps."""


@cache
def compiled(spec: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """Return the update of a plateau, and its first state."""
    rule = optax.contrib.reduce_on_plateau(**dict(spec))
    return jax.jit(rule.update), rule.init(jnp.zeros(1))


def under_a_plateau(spec: dict[str, Any], metrics: list[float]) -> list[float]:
    """Update once for each metric, and return the rate before each: optax's changes immediately."""
    update, state = compiled(tuple(spec.items()))
    values = []
    for metric in metrics:
        values.append(0.1 * float(state.scale))
        _, state = update(jnp.ones(1), state, value=metric)
    return values


PLATEAUS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "patience": {"patience": 3, "factor": 0.5},
    "patience of one": {"patience": 1, "factor": 0.7, "min_scale": 0.02},
    "cooldown": {"patience": 2, "cooldown": 3, "factor": 0.5},
    "cooldown of one": {"patience": 2, "cooldown": 1, "factor": 0.5},
    "absolute": {"patience": 2, "rtol": 0.0, "atol": 0.25, "factor": 0.3, "min_scale": 0.1},
    "both": {"patience": 3, "rtol": 0.03, "atol": 1 / 64, "factor": 0.5, "cooldown": 1},
    "averages": {"patience": 2, "accumulation_size": 4, "factor": 0.5},
}


def main() -> None:
    """Write the values."""
    plateaus = under_plateaus("optax.reduce_on_plateau", PLATEAUS, under_a_plateau)
    cases = [
        case(f"optax.{name}", spec, run(name, spec, steps), start=steps.start, note=note)
        for name, note, spec, steps in CASES
    ]
    write("optax", version("optax"), "float32", cases, plateaus)


if __name__ == "__main__":
    main()
