"""Rates of paddle's plateau, stepped with one metric after another."""

# requires: paddlepaddle==3.3.1

from importlib.metadata import version
from typing import Any

from common import under_plateaus, write
from paddle.optimizer.lr import ReduceOnPlateau


def under_a_plateau(spec: dict[str, Any], metrics: list[float]) -> list[float]:
    """Train an epoch for each metric, and return the rates that they were made with."""
    rule = ReduceOnPlateau(learning_rate=0.1, **spec)
    values = []
    for metric in metrics:
        values.append(float(rule.last_lr))
        rule.step(metric)
    return values


PLATEAUS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "patience": {"patience": 3, "factor": 0.5},
    "no patience": {"patience": 0, "factor": 0.7, "min_lr": 0.002, "threshold": 0.0},
    "cooldown": {"patience": 2, "cooldown": 3, "factor": 0.5},
    "cooldown of one": {"patience": 1, "cooldown": 1, "factor": 0.5, "threshold": 0.01},
    "absolute": {"patience": 2, "threshold_mode": "abs", "threshold": 1 / 64, "factor": 0.9},
    "higher is better": {"mode": "max", "patience": 3, "cooldown": 2, "factor": 0.5},
    "small changes": {"patience": 1, "factor": 0.5, "epsilon": 0.004},
}


def main() -> None:
    """Write the values."""
    plateaus = under_plateaus("paddle.ReduceOnPlateau", PLATEAUS, under_a_plateau)
    write("paddle", version("paddlepaddle"), "float64", [], plateaus)


main()
