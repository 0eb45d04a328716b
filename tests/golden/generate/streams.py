"""Random metrics and parameters for plateaus, the same ones wherever they are drawn.

All values are multiples of 1/64, and so exact in float32 too; none begins with NaN or an infinity,
from which some libraries never recover.
"""

import math
import random
from typing import Any

COUNT = 2000
"""How many streams each library gets."""

LENGTH = 40


def metrics(number: int) -> list[float]:
    """Draw the metrics of one training."""
    noise = random.Random(f"metrics {number}")
    start, speed = noise.uniform(-4, 4), noise.choice([-0.2, -0.05, 0.0, 0.05])
    spread = noise.choice([0.0, 0.05, 0.5])
    values = [start + speed * step + noise.gauss(0, 1) * spread for step in range(LENGTH)]
    exact = [round(value * 64) / 64 for value in values]
    if number % 3 == 0:
        for _ in range(noise.randrange(1, 6)):
            odd = noise.choice([math.nan, math.inf, -math.inf])
            exact[noise.randrange(1, LENGTH)] = odd
    return exact


def keras(number: int) -> dict[str, Any]:
    """Draw parameters of keras's ReduceLROnPlateau."""
    draw = random.Random(f"keras {number}")
    return {
        "mode": draw.choice(["min", "max"]),
        "factor": draw.choice([0.1, 0.5, 0.7, 0.9]),
        "patience": draw.randrange(5),
        "min_delta": draw.choice([0.0, 1 / 64, 0.25]),
        "cooldown": draw.randrange(4),
        "min_lr": draw.choice([0.0, 0.01]),
    }


def optax(number: int) -> dict[str, Any]:
    """Draw parameters of optax's reduce_on_plateau; few of them, as each is compiled once."""
    draw = random.Random(f"optax {number % 100}")
    return {
        "factor": draw.choice([0.1, 0.5, 0.7]),
        "patience": draw.randrange(1, 5),
        "rtol": draw.choice([0.0, 1 / 64]),
        "atol": draw.choice([1 / 64, 0.25]),
        "cooldown": draw.randrange(4),
        "accumulation_size": draw.choice([1, 1, 2, 4]),
        "min_scale": draw.choice([0.0, 0.1]),
    }
