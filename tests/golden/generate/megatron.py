"""Golden values of Megatron: its scheduler writes to parameter groups, `increment` at a time."""

# requires-no-deps: megatron-core==0.16.1
#
# The scheduler's module is imported alone: of the rest of Megatron it wants a logging function.

import sys
from importlib.metadata import distribution, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from common import case, drive, write


def stub(name: str, path: str | None = None, **attributes: object) -> None:
    """Replace a module that would import too much; `path` lets it have submodules."""
    module = ModuleType(name)
    if path is not None:
        module.__path__ = [path]
    vars(module).update(attributes)
    sys.modules[name] = module


CORE = Path(str(distribution("megatron-core").locate_file("megatron/core")))
stub("megatron", str(CORE.parent))
stub("megatron.core", str(CORE))
stub("megatron.core.utils", log_single_rank=lambda *_: None)

from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler  # noqa: E402

BASE = 0.1

WITHOUT_WD = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 1, "wd_incr_style": "constant"}
DEFAULTS = {
    "init_lr": 0.0,
    "max_lr": BASE,
    "min_lr": 0.0,
    "lr_warmup_steps": 0,
    "lr_decay_style": "linear",
    "lr_wsd_decay_style": "exponential",
}


def made(
    steps: int, spec: dict[str, Any], *, field: str = "lr", note: str | None = None
) -> dict[str, Any]:
    """Train some steps as Megatron does, which counts its samples after each of them."""
    group: dict[str, Any] = {}
    optimizer = SimpleNamespace(param_groups=[group], step=lambda: None)
    parameters = DEFAULTS | WITHOUT_WD | spec
    increment = parameters.pop("increment", 1)
    scheduler = OptimizerParamScheduler(optimizer, **parameters)
    values = drive(optimizer, lambda _: scheduler.step(increment), steps, field)
    channel = "lr" if field == "lr" else field
    kind = "megatron.OptimizerParamScheduler"
    return case(kind, spec, values, base_lr=BASE, channel=channel, note=note)


WARM = {"lr_warmup_steps": 20, "lr_decay_steps": 150, "max_lr": 3e-4, "init_lr": 1e-6}
GROWING = {"lr_decay_steps": 100, "start_wd": 0.0, "end_wd": 0.1, "wd_incr_steps": 120}

cases = [
    made(120, {"lr_decay_steps": 100}, note="defaults"),
    *(
        made(170, WARM | {"lr_decay_style": style, "min_lr": 1e-5}, note=style)
        for style in ("constant", "linear", "cosine", "inverse-square-root")
    ),
    made(260, {"lr_decay_steps": 250, "lr_decay_style": "cosine"}, note="cosine down to 0"),
    made(
        120,
        {"lr_decay_steps": 100, "lr_decay_style": "inverse-square-root", "min_lr": 0.02},
        note="inverse-square-root without warmup",
    ),
    *(
        made(
            170,
            WARM
            | {"lr_decay_style": "WSD", "wsd_decay_steps": 60, "lr_wsd_decay_style": style}
            | {"min_lr": floor},
            note=f"WSD {style} to {floor}",
        )
        for style in ("linear", "cosine", "exponential", "minus_sqrt")
        for floor in (0.0, 1e-5)
    ),
    made(
        120,
        {
            "lr_warmup_steps": 40,
            "lr_decay_steps": 100,
            "lr_decay_style": "WSD",
            "wsd_decay_steps": 80,
        },
        note="WSD over the warmup",
    ),
    made(
        130,
        {
            "max_lr": 3e-4,
            "min_lr": 3e-5,
            "lr_warmup_steps": 1000,
            "lr_decay_steps": 5001,
            "lr_decay_style": "cosine",
            "increment": 48,
        },
        note="samples",
    ),
    made(
        60,
        {
            "lr_warmup_steps": 0.02 * 12_345,
            "lr_decay_steps": 12_345,
            "lr_decay_style": "cosine",
            "increment": 256,
        },
        note="a warmup of a fraction of the samples",
    ),
    *(
        made(140, GROWING | {"wd_incr_style": style}, field="weight_decay", note=style)
        for style in ("linear", "cosine")
    ),
    made(
        60,
        {
            "lr_decay_steps": 5000,
            "start_wd": 0.01,
            "end_wd": 0.1,
            "wd_incr_steps": 5000,
            "wd_incr_style": "cosine",
            "increment": 96,
        },
        field="weight_decay",
        note="samples",
    ),
    made(
        20,
        {"lr_decay_steps": 100, "start_wd": 0.1, "end_wd": 0.1},
        field="weight_decay",
        note="constant",
    ),
]

write("megatron", version("megatron-core"), "float64", cases)
