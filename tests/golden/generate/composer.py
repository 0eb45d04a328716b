"""Values of composer's schedulers and llm-foundry's, compiled into the LambdaLR of a trainer.

Neither package can be installed beside a current torch, and both import all that trainings need:
their packages are left empty here and the modules of the schedulers alone are imported.
"""

# requires: torch==2.13.0 numpy==2.4.6
# requires-no-deps: mosaicml==0.32.1 llm-foundry==0.22.0

import importlib
import importlib.util
import sys
import types
import warnings
from importlib.metadata import version
from typing import Any

from common import case, drive, torch_optimizer, write

EPOCH, BATCH, TOKENS = 40, 8, 4096


def empty(name: str, **contents: Any) -> types.ModuleType:
    """Replace a package by an empty one, whose submodules can still be imported."""
    parent, _, last = name.rpartition(".")
    if parent:
        home = [f"{place}/{last}" for place in sys.modules[parent].__path__]
    else:
        found = importlib.util.find_spec(name)
        assert found is not None
        home = list(found.submodule_search_locations or [])
    package = types.ModuleType(name)
    package.__path__ = home
    vars(package).update(contents)
    sys.modules[name] = package
    return package


empty("composer")
utils = empty("composer.utils")
utils.StringEnum = importlib.import_module("composer.utils.string_enum").StringEnum  # type: ignore[attr-defined]
core = empty("composer.core", State=types.SimpleNamespace)
time = importlib.import_module("composer.core.time")
core.Time, core.TimeUnit = time.Time, time.TimeUnit  # type: ignore[attr-defined]
optim = empty("composer.optim")
composer = importlib.import_module("composer.optim.scheduler")
vars(optim).update(vars(composer))
empty("llmfoundry")
empty("llmfoundry.utils")
empty("llmfoundry.optim")
empty("llmfoundry.utils.warnings", experimental_class=lambda _: lambda made: made)
foundry = importlib.import_module("llmfoundry.optim.scheduler")


def run(name: str, spec: dict[str, Any], steps: int, lr: float, length: str) -> list[float]:
    """Train with one of the schedulers, as long as `length` says or beyond."""
    module = composer if hasattr(composer, name) else foundry
    optimizer = torch_optimizer(lr)
    state = types.SimpleNamespace(
        timestamp=time.Timestamp(),
        max_duration=time.Time.from_timestring(length),
        dataloader_len=EPOCH,
        optimizers=[optimizer],
    )
    law = composer.compile_composer_scheduler(getattr(module, name)(**spec), state)

    def advance(step: int) -> None:
        state.timestamp = state.timestamp.to_next_batch(BATCH, TOKENS)
        if (step + 1) % EPOCH == 0:
            state.timestamp = state.timestamp.to_next_epoch()
        law.step()

    return drive(optimizer, advance, steps)


CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("StepScheduler", "batches", {"step_size": "30ba"}, "110ba"),
    ("StepScheduler", "epochs", {"step_size": "1ep", "gamma": 0.5}, "3ep"),
    ("StepScheduler", "tokens", {"step_size": "4.096e4tok", "gamma": 0.9}, "100ba"),
    ("MultiStepScheduler", "batches", {"milestones": ["30ba", "50ba", "50ba", "80ba"]}, "100ba"),
    (
        "MultiStepScheduler",
        "in no order and in several units",
        {"milestones": ["0.75dur", "160sp", "1ep", "0ba"], "gamma": 0.3},
        "2ep",
    ),
    ("MultiStepScheduler", "none", {"milestones": []}, "5ba"),
    ("ConstantScheduler", "defaults", {}, "20ba"),
    ("ConstantScheduler", "a part at first", {"alpha": 0.3, "t_max": "12ba"}, "20ba"),
    ("LinearScheduler", "defaults", {}, "100ba"),
    (
        "LinearScheduler",
        "held",
        {"alpha_i": 0.1, "alpha_f": 1e-7, "t_max": "37ba"},
        "60ba",
    ),
    ("LinearScheduler", "up", {"alpha_i": 0.0, "alpha_f": 1.3, "t_max": "0.5dur"}, "90ba"),
    ("ExponentialScheduler", "defaults", {"gamma": 0.5}, "3ep"),
    ("ExponentialScheduler", "batches", {"gamma": 0.9, "decay_period": "7ba"}, "100ba"),
    ("CosineAnnealingScheduler", "defaults", {}, "120ba"),
    ("CosineAnnealingScheduler", "held", {"t_max": "61ba", "alpha_f": 0.013}, "90ba"),
    ("CosineAnnealingScheduler", "a long one", {"t_max": "1000ba"}, "1003ba"),
    ("CosineAnnealingWarmRestartsScheduler", "defaults", {"t_0": "30ba"}, "100ba"),
    (
        "CosineAnnealingWarmRestartsScheduler",
        "twice as long",
        {"t_0": "10ba", "t_mult": 2.0, "alpha_f": 0.05},
        "160ba",
    ),
    (
        "CosineAnnealingWarmRestartsScheduler",
        "half as long again and cut",
        {"t_0": "7ba", "t_mult": 1.5},
        "150ba",
    ),
    (
        "CosineAnnealingWarmRestartsScheduler",
        "too short to grow",
        {"t_0": "10ba", "t_mult": 1.09},
        "60ba",
    ),
    ("PolynomialScheduler", "defaults", {"power": 2.0}, "100ba"),
    ("PolynomialScheduler", "held", {"power": 0.7, "t_max": "2e2sp", "alpha_f": 0.02}, "40ba"),
    (
        "MultiStepWithWarmupScheduler",
        "batches",
        {"t_warmup": "10ba", "milestones": ["30ba", "80ba"]},
        "100ba",
    ),
    (
        "MultiStepWithWarmupScheduler",
        "a milestone inside the warmup",
        {"t_warmup": "20ba", "milestones": ["10ba", "30ba"], "gamma": 0.5, "scale_warmup": True},
        "50ba",
    ),
    ("ConstantWithWarmupScheduler", "defaults", {"t_warmup": "9ba"}, "30ba"),
    ("ConstantWithWarmupScheduler", "a part", {"t_warmup": "0.5dur", "alpha": 0.3}, "30ba"),
    ("LinearWithWarmupScheduler", "defaults", {"t_warmup": "9ba"}, "100ba"),
    (
        "LinearWithWarmupScheduler",
        "from a part to a part",
        {"t_warmup": "7ba", "alpha_i": 0.8, "alpha_f": 1e-6, "t_max": "60ba"},
        "60ba",
    ),
    ("LinearWithWarmupScheduler", "no warmup", {"t_warmup": "0ba"}, "40ba"),
    ("LinearWithWarmupScheduler", "nothing but warmup", {"t_warmup": "1dur"}, "40ba"),
    ("CosineAnnealingWithWarmupScheduler", "defaults", {"t_warmup": "1ep"}, "3ep"),
    (
        "CosineAnnealingWithWarmupScheduler",
        "tokens",
        {"t_warmup": "40960tok", "t_max": "409600tok", "alpha_f": 0.1},
        "409600tok",
    ),
    ("PolynomialWithWarmupScheduler", "defaults", {"t_warmup": "9ba"}, "100ba"),
    (
        "PolynomialWithWarmupScheduler",
        "power 0.5",
        {"t_warmup": "9ba", "power": 0.5, "t_max": "50ba", "alpha_f": 0.01},
        "50ba",
    ),
    (
        "InverseSquareRootWithWarmupScheduler",
        "defaults",
        {"t_warmup": "10ba", "t_scale": "10ba", "t_cooldown": "30ba"},
        "100ba",
    ),
    (
        "InverseSquareRootWithWarmupScheduler",
        "floors",
        {
            "t_warmup": "10ba",
            "t_scale": "3ba",
            "t_cooldown": "20ba",
            "t_max": "90ba",
            "alpha_f_decay": 0.1,
            "alpha_f_cooldown": 0.02,
        },
        "90ba",
    ),
    (
        "InverseSquareRootWithWarmupScheduler",
        "no cooldown",
        {"t_warmup": "0ba", "t_scale": "25ba", "t_cooldown": "0ba", "t_max": "60ba"},
        "60ba",
    ),
    (
        "InverseSquareRootWithWarmupScheduler",
        "cooldown from the warmup on",
        {"t_warmup": "30ba", "t_scale": "5ba", "t_cooldown": "50ba", "t_max": "60ba"},
        "60ba",
    ),
]
"""Scheduler, what it shows, parameters, and the length of the training; 25 steps more are made."""


def main() -> None:
    """Write the values."""
    warnings.simplefilter("ignore")  # composer's about a warmup of 0, which is meant
    cases = []
    for name, note, spec, length in CASES:
        span = time.Time.from_timestring(length)
        size = {"ba": 1, "ep": EPOCH, "tok": 1 / TOKENS}[span.unit.value]
        steps = round(span.value * size)
        pace = {
            "total_steps": steps,
            "steps_per_epoch": EPOCH,
            "batch_size": BATCH,
            "tokens_per_step": TOKENS,
        }
        lr = 0.1 if len(cases) % 2 else 0.37
        start = max(steps - 100, 0)
        values = run(name, spec, steps + 25, lr, length)[start:]
        cases.append(
            case(f"composer.{name}", spec, values, base_lr=lr, start=start, note=note, pace=pace)
        )
    write("composer", version("mosaicml"), "float64", cases)


main()
