"""Curves of range tests, made by formula, and the format of a library's answers."""

import json
import math
import random
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "range_test"

Curve = tuple[list[float], list[float]]


def sweep(start: float, end: float, steps: int) -> list[float]:
    """Return rates that rise by the same factor at each step."""
    return [start * (end / start) ** (step / (steps - 1)) for step in range(steps)]


def loss_at(lr: float, best: float, blown_up: float) -> float:
    """Return a loss that falls towards `best` and rises from `blown_up` on."""
    fall = 1 / (1 + math.exp(2.5 * (math.log10(best) - math.log10(lr))))
    return 2.3 - 1.8 * fall + 0.4 * (lr / blown_up) ** 1.5


def noisy(lr: list[float], seed: int, noise: float, best: float, blown_up: float) -> list[float]:
    """Return a loss for each rate, with noise that is the same each time."""
    drawn = random.Random(seed)
    return [loss_at(rate, best, blown_up) + drawn.gauss(0, noise) for rate in lr]


def ema(losses: list[float], beta: float = 0.98) -> list[float]:
    """Smooth as fastai and Lightning do."""
    average, smooth = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        smooth.append(average / (1 - beta**count))
    return smooth


def curves() -> dict[str, Curve]:
    """Return every curve that the libraries are given."""
    usual = sweep(1e-7, 10.0, 100)
    fine = sweep(1e-8, 1.0, 300)
    short = sweep(1e-5, 1.0, 24)
    linear = [0.01 * step for step in range(1, 101)]
    smooth = ema(noisy(usual, 1, 0.02, 1e-3, 1.0))
    return {
        "smooth": (usual, ema(noisy(usual, 0, 0.0, 1e-3, 0.3))),
        "small noise": (usual, noisy(usual, 1, 0.002, 1e-3, 0.3)),
        "noise, smoothed": (usual, smooth),
        "ended early": (usual[:83], smooth[:83]),
        "not a number at the end": (usual[:90], [*smooth[:84], *[math.nan] * 6]),
        "fine": (fine, ema(noisy(fine, 2, 0.05, 1e-4, 0.1))),
        "short": (short, noisy(short, 3, 0.001, 1e-3, 0.3)),
        "linear": (linear, ema(noisy(linear, 4, 0.01, 0.05, 2.0))),
        "still falling": (usual, ema(noisy(usual, 5, 0.01, 3.0, 1e9))),
        "tiny losses": (usual, [1e-3 * loss for loss in noisy(usual, 6, 1e-3, 1e-3, 1.0)]),
    }


PLANNED = {"ended early": 100, "not a number at the end": 100}
"""How many steps were planned, where more than were made."""


def write(library: str, version: str, answers: dict[str, dict[str, float | None]]) -> None:
    """Write `tests/golden/range_test/<library>.json`: what each rule says about each curve."""
    cases: list[dict[str, Any]] = [
        {
            "curve": name,
            "planned": PLANNED.get(name, len(lr)),
            "lr": [rate.hex() for rate in lr],
            "loss": [loss.hex() for loss in losses],
            "rules": {
                rule: None if rate is None else rate.hex() for rule, rate in answers[name].items()
            },
        }
        for name, (lr, losses) in curves().items()
    ]
    lines = ",\n".join(json.dumps(each, allow_nan=False) for each in cases)
    FOLDER.mkdir(exist_ok=True)
    head = f'{{"library": "{library}", "version": "{version}", "cases": [\n'
    (FOLDER / f"{library}.json").write_text(f"{head}{lines}\n]}}\n")
    print(f"{library} {version}: {len(cases)} curves")
