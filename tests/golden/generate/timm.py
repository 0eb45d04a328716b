"""Values of timm's schedulers, stepped by update (`t_in_epochs=False`); its plateau by epoch.

timm comes without what its models need, and only its schedulers are imported.
"""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: timm==1.0.31

import importlib.util
import sys
import types
import warnings
from importlib.metadata import version
from typing import Any

from common import case, drive, torch_optimizer, under_plateaus, write

found = importlib.util.find_spec("timm")
assert found is not None
bare = types.ModuleType("timm")
bare.__path__ = list(found.submodule_search_locations or [])
sys.modules["timm"] = bare
scheduler = importlib.import_module("timm.scheduler")


def run(name: str, spec: dict[str, Any], steps: int, lr: float) -> list[float]:
    """Train with one of timm's schedulers."""
    optimizer = torch_optimizer(lr)
    law = getattr(scheduler, name)(optimizer, t_in_epochs=False, **spec)
    # timm's training script does so too: the constructor leaves the first value to the base's.
    law.step_update(0)
    return drive(optimizer, lambda step: law.step_update(step + 1), steps)


CASES: list[tuple[str, str | None, dict[str, Any], range]] = [
    ("CosineLRScheduler", "defaults", {"t_initial": 100}, range(130)),
    (
        "CosineLRScheduler",
        "a long one to its end",
        {"t_initial": 1000, "lr_min": 0.0},
        range(950, 1010),
    ),
    ("CosineLRScheduler", "floor", {"t_initial": 37, "lr_min": 0.003}, range(60)),
    ("CosineLRScheduler", "one step", {"t_initial": 1, "lr_min": 0.01}, range(4)),
    ("CosineLRScheduler", "above the base", {"t_initial": 20, "lr_min": 0.3}, range(30)),
    (
        "CosineLRScheduler",
        "warmup over it",
        {"t_initial": 60, "warmup_t": 7, "warmup_lr_init": 0.001},
        range(80),
    ),
    (
        "CosineLRScheduler",
        "warmup in front",
        {"t_initial": 60, "warmup_t": 7, "warmup_lr_init": 0.001, "warmup_prefix": True},
        range(80),
    ),
    (
        "CosineLRScheduler",
        "warmup down",
        {"t_initial": 60, "warmup_t": 10, "warmup_lr_init": 0.5, "warmup_prefix": True},
        range(30),
    ),
    ("CosineLRScheduler", "warmup longer than it", {"t_initial": 5, "warmup_t": 9}, range(15)),
    (
        "CosineLRScheduler",
        "equal cycles",
        {"t_initial": 20, "cycle_limit": 4, "cycle_decay": 0.5, "lr_min": 1e-4},
        range(100),
    ),
    (
        "CosineLRScheduler",
        "cycles twice as long",
        {"t_initial": 10, "cycle_mul": 2.0, "cycle_decay": 0.7, "cycle_limit": 4},
        range(160),
    ),
    (
        "CosineLRScheduler",
        "cycles half as long again",
        {"t_initial": 16, "cycle_mul": 1.5, "cycle_limit": 3, "warmup_t": 5, "warmup_prefix": True},
        range(100),
    ),
    (
        "CosineLRScheduler",
        "cycles three times as long",
        {"t_initial": 2, "cycle_mul": 3.0, "cycle_limit": 9, "lr_min": 1e-3},
        range(150),
    ),
    (
        "CosineLRScheduler",
        "past a restart that timm misses",
        {"t_initial": 2, "cycle_mul": 3.0, "cycle_limit": 9, "lr_min": 1e-3},
        range(243, 320),
    ),
    (
        "CosineLRScheduler",
        "ever higher cycles",
        {"t_initial": 8, "cycle_limit": 3, "cycle_decay": 2.0},
        range(30),
    ),
    ("CosineLRScheduler", "k-decay", {"t_initial": 80, "k_decay": 2.0, "lr_min": 1e-3}, range(90)),
    (
        "CosineLRScheduler",
        "k-decay below 1 in cycles",
        {"t_initial": 10, "k_decay": 0.7, "cycle_mul": 2.0, "cycle_limit": 3},
        range(80),
    ),
    ("PolyLRScheduler", "defaults", {"t_initial": 100}, range(130)),
    ("PolyLRScheduler", "power 0.9", {"t_initial": 63, "power": 0.9, "lr_min": 1e-4}, range(80)),
    (
        "PolyLRScheduler",
        "cycles with warmup over them",
        {"t_initial": 12, "power": 2.0, "cycle_mul": 2.0, "cycle_limit": 3, "warmup_t": 4},
        range(100),
    ),
    (
        "PolyLRScheduler",
        "cycles with warmup in front",
        {
            "t_initial": 12,
            "cycle_decay": 0.5,
            "cycle_limit": 5,
            "warmup_t": 4,
            "warmup_lr_init": 1e-5,
            "warmup_prefix": True,
            "lr_min": 1e-6,
        },
        range(80),
    ),
    ("PolyLRScheduler", "k-decay", {"t_initial": 70, "power": 1.0, "k_decay": 3.0}, range(80)),
    ("TanhLRScheduler", "defaults", {"t_initial": 100}, range(130)),
    (
        "TanhLRScheduler",
        "bounds",
        {"t_initial": 50, "lb": -3.0, "ub": 2.0, "lr_min": 1e-3},
        range(60),
    ),
    (
        "TanhLRScheduler",
        "warmup over it",
        {"t_initial": 50, "lb": -3.0, "warmup_t": 20, "warmup_lr_init": 0.002},
        range(60),
    ),
    (
        "TanhLRScheduler",
        "warmup in front",
        {
            "t_initial": 50,
            "lb": -2.0,
            "warmup_t": 20,
            "warmup_lr_init": 2e-3,
            "warmup_prefix": True,
        },
        range(80),
    ),
    (
        "TanhLRScheduler",
        "cycles",
        {"t_initial": 10, "cycle_mul": 2.0, "cycle_decay": 0.5, "cycle_limit": 3, "lr_min": 1e-3},
        range(80),
    ),
    ("StepLRScheduler", "defaults", {"decay_t": 30}, range(70)),
    ("StepLRScheduler", "ordinary", {"decay_t": 30, "decay_rate": 0.1}, range(130)),
    ("StepLRScheduler", "a fraction of a step", {"decay_t": 2.4, "decay_rate": 0.9}, range(60)),
    (
        "StepLRScheduler",
        "warmup in front",
        {"decay_t": 10, "decay_rate": 0.5, "warmup_t": 5, "warmup_lr_init": 1e-4},
        range(60),
    ),
    (
        "StepLRScheduler",
        "warmup over it",
        {"decay_t": 10, "decay_rate": 0.5, "warmup_t": 15, "warmup_prefix": False},
        range(60),
    ),
    ("MultiStepLRScheduler", "defaults", {"decay_t": [5, 9]}, range(20)),
    (
        "MultiStepLRScheduler",
        "one early",
        {"decay_t": [10, 30, 31, 60], "decay_rate": 0.1},
        range(80),
    ),
    (
        "MultiStepLRScheduler",
        "repeated",
        {"decay_t": [0, 1, 8, 8, 8], "decay_rate": 0.9},
        range(20),
    ),
    ("MultiStepLRScheduler", "none", {"decay_t": [], "decay_rate": 0.9}, range(5)),
    (
        "MultiStepLRScheduler",
        "warmup in front",
        {"decay_t": [10, 20], "decay_rate": 0.3, "warmup_t": 6, "warmup_lr_init": 1e-3},
        range(40),
    ),
    (
        "MultiStepLRScheduler",
        "warmup over it",
        {"decay_t": [4, 20], "decay_rate": 0.3, "warmup_t": 6, "warmup_prefix": False},
        range(40),
    ),
    ("WSDLRScheduler", "defaults", {"t_initial": 80, "decay_t": 20}, range(100)),
    ("WSDLRScheduler", "all decay", {"t_initial": 40, "decay_t": 40, "lr_min": 1e-3}, range(50)),
    (
        "WSDLRScheduler",
        "warmup",
        {"t_initial": 60, "decay_t": 10, "warmup_t": 8, "warmup_lr_init": 1e-4, "lr_min": 1e-5},
        range(80),
    ),
    *(
        (
            "WSDLRScheduler",
            f"{stable} and {decay}",
            {
                "t_initial": 60,
                "decay_t": 23,
                "warmup_t": 10,
                "stable_fn": stable,
                "stable_power": 0.7,
                "decay_fn": decay,
                "decay_power": 2.0,
                "decay_ratio": 0.05,
                "lr_min": floor,
            },
            range(75),
        )
        for stable, decay, floor in [
            ("constant", "linear", 0.0),
            ("constant", "cosine", 0.0),
            ("rsqrt", "linear", 0.0),
            ("rsqrt", "1-sqrt", 1e-4),
            ("power", "cosine", 1e-4),
            ("power", "power", 0.0),
            ("constant", "exp", 0.0),
            ("rsqrt", "exp", 1e-3),
        ]
    ),
    (
        "WSDLRScheduler",
        "timescale of its own",
        {"t_initial": 60, "decay_t": 20, "stable_fn": "rsqrt", "stable_timescale": 2.5},
        range(70),
    ),
    (
        "WSDLRScheduler",
        "a stable phase that meets the floor",
        {
            "t_initial": 60,
            "decay_t": 20,
            "stable_fn": "power",
            "stable_timescale": 3.0,
            "stable_power": 2.0,
            "lr_min": 1e-3,
        },
        range(70),
    ),
    (
        "WSDLRScheduler",
        "a long decay to its end",
        {"t_initial": 2000, "decay_t": 1000, "decay_fn": "cosine"},
        range(1950, 2010),
    ),
]
"""Scheduler, what it shows, parameters, and which steps."""


def under_a_plateau(spec: dict[str, Any], metrics: list[float]) -> list[float]:
    """Train an epoch for each metric, and return the rates that they were made with."""
    optimizer = torch_optimizer(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and says so
        law = scheduler.PlateauLRScheduler(optimizer, **spec)
    return drive(optimizer, lambda epoch: law.step(epoch + 1, metrics[epoch]), len(metrics))


PLATEAUS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lower is better": {"mode": "min", "patience_t": 3, "decay_rate": 0.5},
    "cooldown and floor": {
        "mode": "min",
        "patience_t": 1,
        "cooldown_t": 2,
        "decay_rate": 0.5,
        "lr_min": 0.003,
        "threshold": 0.05,
    },
    "higher is better": {"patience_t": 2, "cooldown_t": 1, "decay_rate": 0.7},
}


def main() -> None:
    """Write the values."""
    plateaus = under_plateaus("timm.PlateauLRScheduler", PLATEAUS, under_a_plateau)
    cases = []
    for index, (name, note, spec, steps) in enumerate(CASES):
        lr = 0.1 if index % 2 else 0.37
        values = run(name, spec, steps.stop, lr)[steps.start :]
        made = case(f"timm.{name}", spec, values, base_lr=lr, start=steps.start, note=note)
        cases.append(made)
    write("timm", version("timm"), "float64", cases, plateaus)


main()
