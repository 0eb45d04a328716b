"""Golden values of dolomite-engine: the Power scheduler by the authors of its paper.

They train in two stages: the power, then another run that decays exponentially from what the power
had come to. So each case is the first one's values, and after them the second one's.
"""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: git+https://github.com/IBM/dolomite-engine@41d87737d3b51915cd431e7cb39b66e577412a44
#
# The schedulers' module is imported alone: of the rest it wants the names of some containers.

import importlib
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from common import case, drive, torch_optimizer, write

VERSION = "41d87737d3b51915cd431e7cb39b66e577412a44"


def stub(name: str, path: str | None = None, **attributes: object) -> None:
    """Replace a module that would import too much; `path` lets it have submodules."""
    module = ModuleType(name)
    if path is not None:
        module.__path__ = [path]
    vars(module).update(attributes)
    sys.modules[name] = module


ROOT = Path(str(distribution("dolomite-engine").locate_file("dolomite_engine")))
CONTAINERS = (
    "BackwardHookOptimizerContainer",
    "LRSchedulerContainer",
    "ModelContainer",
    "OptimizerContainer",
)
stub("dolomite_engine", str(ROOT))
stub("dolomite_engine.containers", **dict.fromkeys(CONTAINERS, object))
stub("dolomite_engine.optimization", str(ROOT / "optimization"))
schedulers = importlib.import_module("dolomite_engine.optimization.scheduler")


def values(of: str, lr: float, steps: int, **given: Any) -> list[float]:
    """Train some steps with one of the schedulers."""
    optimizer = torch_optimizer(lr)
    scheduler = getattr(schedulers, of)(
        optimizer, num_constant_steps=0, num_training_steps=steps, **given
    )
    return drive(optimizer, lambda _: scheduler.step(), steps)


def made(note: str, spec: dict[str, Any], tokens: float = 4_194_304.0) -> dict[str, Any]:
    """Return a case: the amplitude that meets the base at `capped_steps`, then the end if any."""
    base, exponent = 0.02, spec.get("exponent", 0.51)
    warmup, decay = spec.get("warmup_steps", 0), spec.get("decay_steps", 0)
    power = {
        "num_warmup_steps": warmup,
        "num_decay_steps": None,
        "lr_decay_factor": 0.0,
        "a": base * (spec["capped_steps"] * tokens) ** exponent,
        "b": -exponent,
        "c": tokens,
    }
    stage = spec.get("total_steps", 200) - decay
    found = values("PowerScheduler", base, stage + 1, **power)
    start = found.pop()
    if decay:
        end = {"num_warmup_steps": 0, "num_decay_steps": decay}
        factor = spec.get("min_lr", 0.0) / start
        found += values("ExponentialScheduler", start, decay + 1, lr_decay_factor=factor, **end)
    return case("power_scheduler", spec, found, base_lr=base, note=note)


ENDLESS = {"capped_steps": 30, "warmup_steps": 10}
CASES = [
    made("endless", ENDLESS),
    made("another exponent", {"capped_steps": 2, "warmup_steps": 1, "exponent": 0.5}),
    made("a warmup beyond the cap", {"capped_steps": 5, "warmup_steps": 40}),
    made("to zero", {**ENDLESS, "total_steps": 150, "decay_steps": 50}),
    made("to a floor", {**ENDLESS, "total_steps": 150, "decay_steps": 50, "min_lr": 0.001}),
]

if __name__ == "__main__":
    write("dolomite-engine", VERSION, "float64", CASES)
