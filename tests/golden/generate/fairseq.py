"""Golden values of fairseq: its schedulers, asked before each update as its trainer does."""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: fairseq==0.12.2
#
# It comes as source, whose extensions want a C++ compiler and some minutes. The schedulers' package
# is imported alone: of the rest of fairseq it wants a registry and a root for its configurations.

import importlib
import sys
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType
from typing import Any

from common import case, torch_optimizer, write


def stub(name: str, path: str | None = None, **attributes: object) -> ModuleType:
    """Replace a module that would import too much; `path` lets it have submodules."""
    module = ModuleType(name)
    if path is not None:
        module.__path__ = [path]
    vars(module).update(attributes)
    sys.modules[name] = module
    return module


@dataclass
class FairseqDataclass:
    """Replaces fairseq's, which handles command lines."""


CONFIGURATIONS: dict[str, type[Any]] = {}
SCHEDULERS: dict[str, type[Any]] = {}


def register(name: str, dataclass: type[Any] | None = None) -> Any:
    """Keep a scheduler and its configuration under its name."""

    def keep(scheduler: type[Any]) -> type[Any]:
        SCHEDULERS[name] = scheduler
        if dataclass is not None:
            CONFIGURATIONS[name] = dataclass
        return scheduler

    return keep


ROOT = Path(str(distribution("fairseq").locate_file("fairseq")))
stub("omegaconf", II=lambda name: f"${{{name}}}", DictConfig=dict)
root = stub("fairseq", str(ROOT))
root.utils = stub("fairseq.utils")
root.registry = stub(
    "fairseq.registry", setup_registry=lambda *_, **__: (None, register, SCHEDULERS, CONFIGURATIONS)
)
stub("fairseq.dataclass", FairseqDataclass=FairseqDataclass)
stub("fairseq.dataclass.utils", gen_parser_from_dataclass=None)
optim = stub("fairseq.optim", str(ROOT / "optim"))

from fairseq.optim.fairseq_optimizer import FairseqOptimizer  # noqa: E402

optim.FairseqOptimizer = FairseqOptimizer

importlib.import_module("fairseq.optim.lr_scheduler")
assert set(SCHEDULERS) > {"cosine", "fixed", "inverse_sqrt", "tri_stage"}

BASE = 0.1


class Optimizer(FairseqOptimizer):
    """A torch optimizer in fairseq's clothes."""

    def __init__(self) -> None:
        super().__init__(None)
        self._optimizer = torch_optimizer(BASE)


def made(
    name: str,
    steps: int,
    spec: dict[str, Any],
    *,
    note: str | None = None,
    pace: dict[str, int] | None = None,
    start: int = 0,
) -> dict[str, Any]:
    """Train some updates; a scheduler is asked for its rate at their number, and told of epochs."""
    lengths = {"max_update": -1, "total_num_update": (pace or {}).get("total_steps")}
    given = {"lr": [BASE]} | lengths | {k: v for k, v in spec.items() if k != "epoch"}
    if given["lr"] == ["base"]:
        given["lr"] = [BASE]
    configuration = CONFIGURATIONS[name]
    names = configuration.__dataclass_fields__
    cfg = configuration(**{key: value for key, value in given.items() if key in names})
    optimizer = Optimizer()
    scheduler = SCHEDULERS[name](cfg, optimizer)
    epoch = spec.get("epoch", 10**9)
    values = []
    for update in range(steps):
        if update % epoch == 0:
            scheduler.step_begin_epoch(update // epoch + 1)
        scheduler.step_update(update)
        values.append(optimizer.get_lr())
        optimizer.optimizer.step()
    return case(
        f"fairseq.{name}", spec, values[start:], base_lr=BASE, note=note, pace=pace, start=start
    )


PERIODS = {"lr_period_updates": 30, "min_lr": 0.001}

cases = [
    made("cosine", 150, {"max_update": 100}, note="defaults"),
    made(
        "cosine",
        160,
        {"max_update": 100, "warmup_updates": 20, "min_lr": 0.002},
        note="warmup from min_lr",
    ),
    made(
        "cosine",
        150,
        PERIODS | {"warmup_updates": 15, "warmup_init_lr": 1e-7, "lr_shrink": 0.8},
        note="periods",
    ),
    made("cosine", 250, PERIODS | {"t_mult": 2.0, "lr_shrink": 0.5}, note="twice as long"),
    made("cosine", 250, PERIODS | {"t_mult": 1.5, "lr_shrink": 1.0}, note="half as long again"),
    made("cosine", 250, {"lr_period_updates": 20, "t_mult": 3.0}, note="down to 0"),
    made("fixed", 20, {}, note="defaults"),
    made("fixed", 60, {"warmup_updates": 25}, note="warmup"),
    made("fixed", 100, {"lr": [0.1, 0.05, 0.3], "epoch": 20}, note="a list"),
    made(
        "fixed",
        150,
        {
            "lr": [0.1, 0.05, 0.3],
            "epoch": 17,
            "force_anneal": 5,
            "lr_shrink": 0.7,
            "warmup_updates": 30,
        },
        note="a list, a warmup, annealed",
    ),
    made(
        "fixed",
        90,
        {"lr": [0.1, 0.05, 0.3], "epoch": 17, "force_anneal": 2},
        note="annealed before the list ends",
    ),
    made("fixed", 90, {"epoch": 20, "force_anneal": 1}, note="annealed from the start"),
    made("inverse_sqrt", 100, {}, note="defaults"),
    made("inverse_sqrt", 200, {"warmup_updates": 40}, note="warmup from 0"),
    made("inverse_sqrt", 200, {"warmup_updates": 37, "warmup_init_lr": 1e-4}, note="warmup"),
    made("polynomial_decay", 120, {}, pace={"total_steps": 100}, note="defaults"),
    *(
        made(
            "polynomial_decay",
            200,
            {
                "warmup_updates": 23,
                "total_num_update": 180,
                "power": power,
                "end_learning_rate": end,
            },
            note=f"power {power} to {end}",
        )
        for power in (1.0, 2.0, 0.5)
        for end in (0.0, 0.001)
    ),
    made("step", 50, {"lr_deacy_period": 10}, note="defaults"),
    made(
        "step",
        200,
        {"warmup_updates": 20, "lr_deacy_period": 15, "lr_decay": 0.7, "min_lr": 0.01},
        note="warmup from min_lr, a floor",
    ),
    made(
        "step",
        100,
        {"warmup_updates": 20, "warmup_init_lr": 1e-5, "lr_deacy_period": 15},
        note="warmup",
    ),
    made(
        "tri_stage",
        200,
        {"warmup_steps": 20, "hold_steps": 50, "decay_steps": 100},
        note="lengths",
    ),
    made(
        "tri_stage",
        220,
        {
            "phase_ratio": [0.1, 0.4, 0.5],
            "max_update": 205,
            "init_lr_scale": 0.1,
            "final_lr_scale": 0.05,
        },
        note="ratios",
    ),
    made("tri_stage", 60, {"decay_steps": 50}, note="only a decay"),
    made("tri_stage", 60, {"hold_steps": 10, "decay_steps": 30}, note="no warmup"),
    made("triangular", 100, {"max_lr": 0.5}, note="defaults"),
    made("triangular", 200, {"max_lr": 0.5, "lr_period_updates": 40}, note="upside down"),
    made(
        "triangular",
        200,
        {"max_lr": 0.5, "lr_period_updates": 41, "lr_shrink": 0.9},
        note="an odd period",
    ),
    made(
        "triangular",
        200,
        {"max_lr": 0.5, "lr_period_updates": 60, "lr_shrink": 0.5, "shrink_min": True},
        note="shrinking both",
    ),
]

write("fairseq", version("fairseq"), "float64", cases)
