"""Values that keras's schedules and its plateau give an optimizer, in float32.

Keras runs on its NumPy backend, which needs the others here to be imported.
"""

# requires: keras==3.15.1 numpy==2.4.6 scipy==1.17.1 jax==0.10.2

import os
from importlib.metadata import version
from typing import Any

os.environ["KERAS_BACKEND"] = "numpy"

import keras
import numpy as np
from common import case, under_plateaus, write


def run(name: str, spec: dict[str, Any], steps: range) -> list[float]:
    """Train with a schedule, and return the rates that the optimizer had."""
    law = getattr(keras.optimizers.schedules, name)(**spec)
    optimizer = keras.optimizers.SGD(learning_rate=law)
    weight = keras.Variable(np.zeros(1, np.float32))
    optimizer.build([weight])
    optimizer.iterations.assign(steps.start)
    values = []
    for _ in steps:
        values.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.zeros(1)], [weight])
    return values


DECAY = {"initial_learning_rate": 0.3, "decay_steps": 20, "decay_rate": 0.6}
POLYNOMIAL = {"initial_learning_rate": 0.1, "decay_steps": 30}
COSINE = {"initial_learning_rate": 0.1, "decay_steps": 60}
RESTARTS = {"initial_learning_rate": 0.1, "first_decay_steps": 16}

CASES: list[tuple[str, str, dict[str, Any], range]] = [
    ("ExponentialDecay", "smooth", DECAY, range(130)),
    ("ExponentialDecay", "stairs", {**DECAY, "staircase": True}, range(130)),
    ("ExponentialDecay", "a fraction of a step", {**DECAY, "decay_steps": 7.5}, range(60)),
    ("ExponentialDecay", "growth", {**DECAY, "decay_rate": 1.2, "decay_steps": 40}, range(60)),
    (
        "PiecewiseConstantDecay",
        "a boundary belongs to the piece before",
        {"boundaries": [10, 25, 26], "values": [1.0, 0.5, 0.1, 0.02]},
        range(40),
    ),
    (
        "PiecewiseConstantDecay",
        "one at 0 and one twice",
        {"boundaries": [0, 5, 5], "values": [0.4, 0.3, 0.2, 0.1]},
        range(10),
    ),
    ("PolynomialDecay", "defaults", POLYNOMIAL, range(50)),
    (
        "PolynomialDecay",
        "square root",
        {**POLYNOMIAL, "end_learning_rate": 0.01, "power": 0.5},
        range(50),
    ),
    (
        "PolynomialDecay",
        "up to 0.4",
        {**POLYNOMIAL, "end_learning_rate": 0.4, "power": 2.0},
        range(40),
    ),
    ("PolynomialDecay", "cycle", {**POLYNOMIAL, "cycle": True}, range(140)),
    (
        "PolynomialDecay",
        "cycle of a square",
        {**POLYNOMIAL, "decay_steps": 17, "cycle": True, "power": 2.0, "end_learning_rate": 0.02},
        range(100),
    ),
    ("InverseTimeDecay", "smooth", DECAY, range(130)),
    ("InverseTimeDecay", "stairs", {**DECAY, "staircase": True}, range(130)),
    ("CosineDecay", "defaults", COSINE, range(80)),
    ("CosineDecay", "floor", {**COSINE, "alpha": 0.1}, range(80)),
    (
        "CosineDecay",
        "warmup",
        {**COSINE, "initial_learning_rate": 0.0, "warmup_target": 0.2, "warmup_steps": 15},
        range(90),
    ),
    (
        "CosineDecay",
        "warmup down to a floor",
        {**COSINE, "warmup_target": 0.05, "warmup_steps": 10, "alpha": 0.2},
        range(80),
    ),
    ("CosineDecay", "target without a warmup", {**COSINE, "warmup_target": 0.05}, range(70)),
    ("CosineDecayRestarts", "defaults", RESTARTS, range(250)),
    (
        "CosineDecayRestarts",
        "lower each time",
        {**RESTARTS, "m_mul": 0.7, "alpha": 0.1},
        range(150),
    ),
    (
        "CosineDecayRestarts",
        "equal cycles",
        {**RESTARTS, "t_mul": 1.0, "m_mul": 0.9, "alpha": 0.05},
        range(90),
    ),
    ("CosineDecayRestarts", "half as long again", {**RESTARTS, "t_mul": 1.5}, range(120)),
    ("CosineDecayRestarts", "higher each time", {**RESTARTS, "m_mul": 1.5}, range(120)),
]
"""Schedule, what it shows, parameters, and which steps."""


def under_a_plateau(spec: dict[str, Any], metrics: list[float]) -> list[float]:
    """Train an epoch for each metric, and return the rates that they were made with."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", **spec)
    callback.set_model(model)
    callback.on_train_begin()
    values = []
    for epoch, metric in enumerate(metrics):
        values.append(float(model.optimizer.learning_rate))
        callback.on_epoch_end(epoch, {"val_loss": metric})
    return values


PLATEAUS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "patience": {"patience": 3, "factor": 0.5},
    "no patience": {"patience": 0, "factor": 0.7, "min_lr": 0.002},
    "cooldown": {"patience": 2, "cooldown": 3, "factor": 0.5},
    "cooldown of one": {"patience": 2, "cooldown": 1, "factor": 0.5, "min_delta": 0.0},
    "higher is better": {"patience": 3, "mode": "max", "factor": 0.5, "cooldown": 2},
    "threshold and floor": {"patience": 2, "min_delta": -0.25, "min_lr": 0.02, "factor": 0.3},
    "a step of the stairs": {"patience": 4, "min_delta": 1 / 64, "factor": 0.9, "cooldown": 2},
    "two hundredths more": {"mode": "max", "min_delta": 0.02, "patience": 1, "factor": 0.9},
    "two hundredths less": {"min_delta": 0.02, "patience": 1, "factor": 0.9},
}


def main() -> None:
    """Write the values."""
    plateaus = under_plateaus("keras.ReduceLROnPlateau", PLATEAUS, under_a_plateau)
    cases = [
        case(f"keras.{name}", spec, run(name, spec, steps), start=steps.start, note=note)
        for name, note, spec, steps in CASES
    ]
    write("keras", version("keras"), "float32", cases, plateaus)


if __name__ == "__main__":
    main()
