"""Golden values of DeepSpeed: its schedulers, stepped after the optimizer as its engine does."""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: deepspeed==0.19.8
#
# The schedulers' module is imported alone: of the rest of DeepSpeed it wants a logger.

import logging
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from common import case, drive, torch_optimizer, write


def stub(name: str, path: str | None = None, **attributes: object) -> None:
    """Replace a module that would import too much; `path` lets it have submodules."""
    module = ModuleType(name)
    if path is not None:
        module.__path__ = [path]
    vars(module).update(attributes)
    sys.modules[name] = module


ROOT = Path(str(distribution("deepspeed").locate_file("deepspeed")))
stub("deepspeed", str(ROOT))
stub("deepspeed.runtime", str(ROOT / "runtime"))
silent = logging.getLogger("deepspeed")
silent.disabled = True
stub("deepspeed.utils", logger=silent)

from deepspeed.runtime import lr_schedules  # noqa: E402

BASE = 0.1


def made(
    name: str,
    steps: int,
    spec: dict[str, Any],
    *,
    note: str | None = None,
    start: int = 0,
) -> dict[str, Any]:
    """Train some steps; those before `start` are not written down."""
    optimizer = torch_optimizer(BASE)
    scheduler = getattr(lr_schedules, name)(optimizer, **spec)
    values = drive(optimizer, lambda _: scheduler.step(), steps)
    return case(f"deepspeed.{name}", spec, values[start:], base_lr=BASE, start=start, note=note)


def momentum(steps: int, spec: dict[str, Any], note: str) -> dict[str, Any]:
    """Train some steps with Adam; the first one, at cycle_min_mom, is not repeated here."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=BASE)
    scheduler = lr_schedules.OneCycle(optimizer, **spec)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        scheduler.step()
    return case(
        "deepspeed.OneCycle", spec, values[1:], base_lr=0.9, channel="momentum", start=1, note=note
    )


SWEEP = {
    "lr_range_test_min_lr": 1e-4,
    "lr_range_test_step_size": 30,
    "lr_range_test_step_rate": 5.0,
}
CYCLE = {"cycle_min_lr": 0.001, "cycle_max_lr": 0.01, "cycle_first_step_size": 40}
TAIL = {"decay_lr_rate": 0.3, "decay_mom_rate": 0.001, "decay_step_size": 7}
SHAPES: dict[str, dict[str, Any]] = {
    "no tail": {},
    "tail": TAIL,
    "halves of other lengths": TAIL | {"cycle_second_step_size": 23},
    "from 0": {"cycle_min_lr": 0.0, "cycle_first_step_size": 37},
    "stairs": TAIL | {"cycle_first_stair_count": 7},
    "stairs on the way up": {"cycle_first_stair_count": 5, "cycle_second_stair_count": 0},
    "stairs on the way down": {"cycle_second_step_size": 30, "cycle_second_stair_count": 4},
    "more stairs than steps": {"cycle_second_step_size": 11, "cycle_first_stair_count": 60},
    "no second half": TAIL | {"cycle_second_step_size": 0},
    "tail without a rate": {"decay_step_size": 7},
}
WARMUPS: dict[str, dict[str, Any]] = {
    "log": {"warmup_num_steps": 40},
    "linear": {"warmup_num_steps": 40, "warmup_type": "linear"},
    "a warmup of one step": {"warmup_num_steps": 1},
}
ENDS = {
    "": {"total_num_steps": 120},
    "no longer than the warmup": {"total_num_steps": 40},
    "shorter than the warmup": {"total_num_steps": 20},
}

cases = [
    made("LRRangeTest", 100, {}, note="defaults"),
    made("LRRangeTest", 100, SWEEP),
    made("LRRangeTest", 100, SWEEP | {"lr_range_test_staircase": True}, note="staircase"),
    made("OneCycle", 60, {"cycle_min_lr": 0.001, "cycle_max_lr": 0.01}, note="defaults"),
    *(made("OneCycle", 130, CYCLE | more, note=note) for note, more in SHAPES.items()),
    *(
        momentum(130, CYCLE | more, note)
        for note, more in SHAPES.items()
        if note in ("no tail", "tail", "stairs")
    ),
    made("WarmupLR", 60, {}, note="defaults"),
    *(made("WarmupLR", 60, spec, note=note) for note, spec in WARMUPS.items()),
    *(
        made("WarmupLR", 60, spec | {"warmup_min_lr": 1e-8, "warmup_max_lr": 0.01}, note=note)
        for note, spec in WARMUPS.items()
    ),
    made("WarmupDecayLR", 60, {"total_num_steps": 5000}, note="defaults"),
    *(
        made("WarmupDecayLR", 130, spec | end | {"warmup_min_lr": low}, note=f"{note} {ending}")
        for note, spec in WARMUPS.items()
        for ending, end in ENDS.items()
        for low in (0.0, 1e-6)
    ),
    made("WarmupCosineLR", 60, {"total_num_steps": 5000}, note="defaults"),
    *(
        made("WarmupCosineLR", 130, spec | end, note=f"{note} {ending}")
        for note, spec in WARMUPS.items()
        for ending, end in ENDS.items()
    ),
    made(
        "WarmupCosineLR",
        320,
        {"total_num_steps": 300, "warmup_num_steps": 40, "cos_min_ratio": 0.0},
        note="down to 0",
    ),
    # Its very first step, with 0, is not repeated here.
    made(
        "WarmupCosineLR",
        130,
        {"total_num_steps": 120, "warmup_num_steps": 40, "warmup_min_ratio": 0.1},
        note="from a ratio",
        start=1,
    ),
]

write("deepspeed", version("deepspeed"), "float64", cases)
