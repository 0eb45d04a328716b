"""Golden values of torchtitan: the LambdaLR that its configuration builds, stepped by torch."""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: torchtitan==0.3.0
#
# The scheduler's module is imported alone: of the rest of torchtitan it wants a base class for its
# configuration, a logger, and the name of a type.

import logging
import sys
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType
from typing import Any

from common import case, drive, torch_optimizer, write


def stub(name: str, path: str | None = None, **attributes: object) -> None:
    """Replace a module that would import too much; `path` lets it have submodules."""
    module = ModuleType(name)
    if path is not None:
        module.__path__ = [path]
    vars(module).update(attributes)
    sys.modules[name] = module


class Configurable:
    """Replaces torchtitan's, which registers and checks what is configured."""

    @dataclass(kw_only=True, slots=True)
    class Config:
        """The root of configurations."""


ROOT = Path(str(distribution("torchtitan").locate_file("torchtitan")))
stub("torchtitan", str(ROOT))
stub("torchtitan.config", Configurable=Configurable)
stub("torchtitan.tools")
stub("torchtitan.tools.logging", logger=logging.getLogger("torchtitan"))
stub("torchtitan.components", str(ROOT / "components"))
stub("torchtitan.components.optimizer", str(ROOT / "components" / "optimizer"))
stub("torchtitan.components.optimizer.optimizer", OptimizersContainer=list)

from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer  # noqa: E402

BASE = 0.1


def made(steps: int, spec: dict[str, Any], *, note: str | None = None) -> dict[str, Any]:
    """Train some steps of those that the spec, or its pace, has in all."""
    pace = {} if "total_steps" in spec else {"total_steps": 300}
    optimizer = torch_optimizer(BASE)
    config = LRSchedulersContainer.Config(**spec)
    scheduler = config.build(optimizers=[optimizer], training_steps=pace.get("total_steps"))
    values = drive(optimizer, lambda _: scheduler.step(), steps)
    return case("torchtitan.lr_scheduler", spec, values, base_lr=BASE, note=note, pace=pace or None)


# Up to total_steps, where the floor is reached: what comes after it is not repeated here.
cases = [
    made(301, {}, note="defaults"),
    *(
        made(201, {"warmup_steps": 20, "total_steps": 200, "decay_type": decay, **more}, note=note)
        for decay in ("linear", "sqrt", "cosine")
        for more, note in (
            ({}, decay),
            ({"decay_ratio": 0.3}, f"{decay} in the last 0.3"),
            ({"decay_ratio": 0.333, "min_lr_factor": 0.1}, f"{decay} to a floor"),
        )
    ),
    made(51, {"warmup_steps": 0, "total_steps": 50}, note="no warmup"),
    made(51, {"warmup_steps": 1, "total_steps": 50, "decay_ratio": 1.0}, note="all decay"),
    made(51, {"warmup_steps": 20, "total_steps": 50, "decay_ratio": 0.9}, note="decay cut"),
    made(50, {"warmup_steps": 200, "total_steps": 50}, note="warmup cut"),
    made(50, {"warmup_steps": 10, "total_steps": 50, "decay_ratio": 0.0}, note="no decay"),
    made(51, {"warmup_steps": 10, "total_steps": 50, "decay_ratio": 0.25}, note="half a step"),
]

write("torchtitan", version("torchtitan"), "float64", cases)
