"""Values of mmengine's learning rate schedulers, stepped as a runner's ParamSchedulerHook does.

mmengine comes without opencv, which its schedulers do not need.
"""

# requires: torch==2.13.0 numpy==2.4.6 addict pyyaml termcolor rich yapf matplotlib
# requires-no-deps: mmengine==0.10.7

import warnings
from importlib.metadata import version
from typing import Any

from common import case, drive, torch_optimizer, write
from mmengine.optim import scheduler

EPOCH = 6
"""Steps in an epoch."""


def built(optimizer: Any, spec: dict[str, Any]) -> Any:
    """Build a scheduler as a runner does."""
    arguments = dict(spec)
    law = getattr(scheduler, arguments.pop("type"))
    if arguments.pop("convert_to_iter_based", False):
        return law.build_iter_from_epoch(optimizer, **arguments, epoch_length=EPOCH)
    return law(optimizer, **arguments)


def run(schedulers: list[dict[str, Any]], steps: int, lr: float) -> list[float]:
    """Train with a list of schedulers."""
    optimizer = torch_optimizer(lr)
    laws = [built(optimizer, spec) for spec in schedulers]

    def advance(step: int) -> None:
        for law in laws:
            if not law.by_epoch:
                law.step()
        if (step + 1) % EPOCH == 0:
            for law in laws:
                if law.by_epoch:
                    law.step()

    return drive(optimizer, advance, steps)


def by_step(begin: int = 0, end: int | None = None, **more: Any) -> dict[str, Any]:
    """Write a window in steps."""
    window = {"begin": begin} if end is None else {"begin": begin, "end": end}
    return {"by_epoch": False, **window, **more}


SINGLE: list[tuple[str, str, dict[str, Any], int]] = [
    ("StepLR", "steps", by_step(step_size=20), 90),
    ("StepLR", "epochs", {"step_size": 4, "gamma": 0.5}, 90),
    ("StepLR", "in a window", by_step(7, 50, step_size=9, gamma=0.7), 80),
    ("StepLR", "in a window of epochs", {"step_size": 2, "begin": 3, "end": 9}, 80),
    ("StepLR", "epochs as steps", {"step_size": 2, "end": 9, "convert_to_iter_based": True}, 80),
    ("MultiStepLR", "steps", by_step(milestones=[30, 10, 60, 60]), 90),
    ("MultiStepLR", "milestones from the begin on", by_step(5, milestones=[0, 8, 20]), 50),
    ("MultiStepLR", "epochs", {"milestones": [8, 11], "end": 12}, 80),
    ("ConstantLR", "steps", by_step(end=10), 20),
    ("ConstantLR", "in a window", by_step(5, 12, factor=0.2), 20),
    ("ConstantLR", "one step", by_step(3, 4, factor=0.5), 20),
    ("ConstantLR", "no end", by_step(), 20),
    ("ConstantLR", "epochs", {"end": 3}, 30),
    ("ExponentialLR", "steps", by_step(gamma=0.95), 100),
    ("ExponentialLR", "epochs in a window", {"gamma": 0.8, "begin": 2, "end": 10}, 80),
    ("LinearLR", "steps", by_step(end=10), 20),
    ("LinearLR", "down in a window", by_step(5, 60, start_factor=0.9, end_factor=0.01), 80),
    ("LinearLR", "one step", by_step(3, 4, start_factor=0.25), 20),
    ("LinearLR", "epochs", {"start_factor": 0.001, "end": 5}, 50),
    (
        "LinearLR",
        "epochs as steps",
        {"start_factor": 0.001, "end": 5, "convert_to_iter_based": True},
        50,
    ),
    ("PolyLR", "steps", by_step(end=90), 100),
    ("PolyLR", "in a window", by_step(10, 80, eta_min=1e-4, power=0.9), 100),
    ("PolyLR", "one step", by_step(3, 4), 20),
    ("PolyLR", "epochs", {"eta_min": 0.001, "power": 2.0, "end": 12}, 90),
    ("CosineAnnealingLR", "a window", by_step(end=70), 90),
    ("CosineAnnealingLR", "T_max", by_step(T_max=70, end=71), 90),
    ("CosineAnnealingLR", "floor", by_step(10, 80, eta_min=0.01), 100),
    ("CosineAnnealingLR", "part of the base", by_step(T_max=40, end=90, eta_min_ratio=0.1), 110),
    ("CosineAnnealingLR", "rises again", by_step(T_max=20), 110),
    ("CosineAnnealingLR", "epochs", {"T_max": 12, "end": 12, "eta_min": 1e-3}, 90),
    (
        "CosineAnnealingLR",
        "epochs as steps",
        {"begin": 2, "end": 12, "convert_to_iter_based": True},
        90,
    ),
    ("OneCycleLR", "steps", by_step(eta_max=0.3, total_steps=80), 80),
    ("OneCycleLR", "a window", by_step(10, 90, eta_max=0.3, pct_start=0.25), 110),
    (
        "OneCycleLR",
        "three lines",
        by_step(
            eta_max=0.3,
            end=70,
            three_phase=True,
            anneal_strategy="linear",
            div_factor=10.0,
            final_div_factor=100.0,
        ),
        90,
    ),
    ("OneCycleLR", "epochs", {"eta_max": 0.3, "total_steps": 12}, 70),
    (
        "OneCycleLR",
        "epochs as steps",
        {"eta_max": 0.3, "total_steps": 12, "convert_to_iter_based": True},
        70,
    ),
    ("CosineRestartLR", "one period", by_step(periods=[40], eta_min=0.0), 60),
    (
        "CosineRestartLR",
        "weights",
        by_step(5, periods=[10, 20, 40], restart_weights=[1, 0.5, 0.25], eta_min=1e-3),
        100,
    ),
    (
        "CosineRestartLR",
        "part of the base",
        by_step(periods=[10, 20], restart_weights=[0.5, 1], eta_min_ratio=0.1, end=25),
        60,
    ),
    (
        "CosineRestartLR",
        "epochs",
        {"periods": [5, 8], "restart_weights": [1, 1], "eta_min": 0.0},
        90,
    ),
]
"""Scheduler, what it shows, parameters, and how many steps."""


def of_type(name: str, **spec: Any) -> dict[str, Any]:
    """Write a scheduler of a list."""
    return {"type": name, **spec}


LISTS: list[tuple[str, list[dict[str, Any]], int]] = [
    (
        "warmup in steps and a decay in epochs, both from the start",
        [
            of_type("LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=50),
            of_type("MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
        ],
        90,
    ),
    (
        "a decay that starts during the warmup",
        [
            of_type("LinearLR", start_factor=0.1, by_epoch=False, end=30),
            of_type("ExponentialLR", gamma=0.98, by_epoch=False, begin=15),
            of_type("CosineAnnealingLR", by_epoch=False, begin=10, end=60),
        ],
        80,
    ),
    (
        "warmup and cosine, in epochs and by step",
        [
            of_type("LinearLR", start_factor=1e-3, end=3, convert_to_iter_based=True),
            of_type("CosineAnnealingLR", T_max=12, begin=3, end=15, eta_min=1e-4),
        ],
        110,
    ),
    (
        "warmup and a cosine to a part of the base",
        [
            of_type("LinearLR", start_factor=0.01, by_epoch=False, end=20),
            of_type("CosineAnnealingLR", by_epoch=False, begin=20, end=90, eta_min_ratio=0.05),
        ],
        100,
    ),
    (
        "warmup, a pause and a cosine",
        [
            of_type("LinearLR", start_factor=1e-5, by_epoch=False, end=20),
            of_type(
                "CosineAnnealingLR",
                eta_min=0.005,
                begin=6,
                end=12,
                T_max=6,
                convert_to_iter_based=True,
            ),
        ],
        90,
    ),
    (
        "warmup and a power",
        [
            of_type("LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=15),
            of_type("PolyLR", eta_min=0.0, power=0.9, begin=15, end=80, by_epoch=False),
        ],
        90,
    ),
    (
        "warmup and restarts",
        [
            of_type("LinearLR", by_epoch=False, end=10),
            of_type(
                "CosineRestartLR",
                by_epoch=False,
                begin=10,
                periods=[20, 20],
                restart_weights=[1, 0.5],
                eta_min=0.002,
            ),
        ],
        70,
    ),
    (
        "from where the one before has ended",
        [
            of_type("PolyLR", eta_min=0.04, by_epoch=False, begin=5, end=30),
            of_type("CosineAnnealingLR", eta_min=0.01, by_epoch=False, begin=30, end=60),
            of_type("ConstantLR", factor=0.5, by_epoch=False, begin=60, end=70),
        ],
        80,
    ),
]
"""What a list shows, its schedulers, and how many steps."""


def main() -> None:
    """Write the values."""
    warnings.simplefilter("ignore")
    pace = {"steps_per_epoch": EPOCH}
    cases = []
    for name, note, spec, steps in SINGLE:
        lr = 0.1 if len(cases) % 2 else 0.37
        values = run([of_type(name, **spec)], steps, lr)
        cases.append(case(f"mmengine.{name}", spec, values, base_lr=lr, note=note, pace=pace))
    for note, schedulers, steps in LISTS:
        values = run(schedulers, steps, 0.1)
        spec = {"schedulers": schedulers}
        cases.append(case("mmengine.param_scheduler", spec, values, note=note, pace=pace))
    write("mmengine", version("mmengine"), "float64", cases)


main()
