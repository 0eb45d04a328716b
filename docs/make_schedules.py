"""Write the pages about schedules: `make docs`.

Everything in them comes from the code: texts from the catalogue, pictures from the laws, errors
from measuring against the libraries' own values. Only the table of what exists elsewhere is written
down here, in `ROWS`.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

from pacesetter_service.catalogue import kinds as catalogue
from pacesetter_service.core.forecast import decimate
from pacesetter_service.core.lengths import Clock, resolve
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.insight import pictures

HERE = Path(__file__).parent
PAGES = HERE / "schedules"
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(TESTS), str(HERE)]

from parameter_tables import LENGTHS, table_of  # noqa: E402 - beside this file
from wrapping import fenced_tables, wrapped  # noqa: E402 - beside this file

from core.torch_schedulers import run  # noqa: E402 - the tests' own harness

PACE = Clock(total_steps=1000, steps_per_epoch=100, batch_size=32, tokens_per_step=32_768)
"""What the examples' lengths in other units come to."""

Row = tuple[str, str, str]

ROWS: list[Row] = [
    ("constant", "everyone", "`constant`, `hold`"),
    ("reduced constant, then restored", "torch, composer, mmengine", "`constant` (factor)"),
    ("linear ramp", "torch, optax, composer, mmengine, fastai", "`linear`, `ramp`"),
    ("step decay", "torch, timm, keras, composer, mmengine, fairseq", "`step`"),
    ("multi-step", "torch, timm, composer, mmengine, ignite", "`multistep`"),
    ("piecewise constant, absolute", "keras, fvcore, fairseq", "`piecewise_constant`"),
    (
        "piecewise interpolation",
        "optax, ignite, fastai, OLMo",
        "`knots`, `piecewise_linear`, `piecewise_cosine`",
    ),
    ("exponential", "torch, optax, keras, composer, mmengine", "`exponential`"),
    ("geometric from start to end", "fastai, speechbrain, OLMo", "`geometric`"),
    ("natural exponential", "paddle, TF1", "`natural_exp`"),
    ("inverse time", "keras, paddle, Caffe, DeepSpeed's tail", "`inverse_time`"),
    ("polynomial", "everyone", "`polynomial`"),
    ("polynomial with cycle", "keras, paddle, NeMo, TF1", "`keras.PolynomialDecay` (cycle)"),
    ("cosine, half a wave", "everyone", "`cosine`"),
    ("cosine to a power", "optax, levanter", "`cosine` (exponent)"),
    ("cosine with n waves", "transformers, TF1", "`cosine` (waves), `hf.cosine`"),
    ("cosine with a floor", "everyone", "`cosine` (min_lr)"),
    (
        "cosine with hard restarts",
        "torch, transformers, timm, optax, keras",
        "`cosine_restarts`, `repeat`",
    ),
    ("SGDR, growing periods", "torch, timm, keras, composer", "`sgdr`, `repeat` (growth)"),
    (
        "restarts with decayed peaks",
        "timm, keras, mmengine, ignite",
        "`sgdr`, `repeat` (peak_decay)",
    ),
    ("restarts with a warmup each", "optax, ignite, levanter", "`sgdr`, `optax.sgdr_schedule`"),
    ("k-decay", "timm", "`k_decay`, ease `warped`"),
    ("tanh", "timm", "`tanh`"),
    ("one-cycle, two phases", "torch, mmengine, fastai, optax", "`one_cycle`"),
    ("one-cycle, three phases", "torch, mmengine, paddle", "`one_cycle` (three_phase)"),
    ("cycle with an inverse-time tail", "DeepSpeed", "`deepspeed.OneCycle`"),
    ("flat, then cosine", "fastai", "`flat_cosine`"),
    ("triangular, triangular2, exp_range", "torch, ignite, fairseq, paddle", "`cyclic`"),
    ("saw-tooth", "ignite", "`ignite.LinearCyclicalScheduler` (monotonic), `repeat`"),
    ("slanted triangular", "AllenNLP", "`slanted_triangular`"),
    (
        "warmup, constant",
        "transformers, composer, DeepSpeed",
        "`warmup`, `hf.constant_with_warmup`",
    ),
    ("warmup, linear", "transformers, composer, DeepSpeed", "`warmup`, `hf.linear`"),
    ("warmup, cosine", "everyone", "`warmup_cosine`, `warmup`"),
    ("warmup, polynomial or steps", "composer, timm, NeMo", "`warmup`"),
    ("inverse square root", "transformers, fairseq, Megatron", "`inverse_sqrt`"),
    ("Noam", "AllenNLP, paddle, NeMo, espnet", "`noam`"),
    ("Noam-hold", "NeMo, speechbrain", "`noam_hold`"),
    ("power law", "OLMo, levanter", "`power_law`"),
    ("warmup, stable, decay", "transformers, timm, Megatron, torchtitan", "`wsd`"),
    ("Power scheduler", "dolomite-engine", "`power_scheduler`"),
    ("infinite: cosine, constant, anneal", "papers", "`infinite`"),
    ("anytime, with averaged weights", "papers", "`anytime`"),
    ("optimal under a functional scaling law", "papers", "`fsl_decay`"),
    ("inverse square root with cooldown", "llm-foundry, big_vision", "`rsqrt_cooldown`"),
    ("WSD-S, periodic", "OLMo, levanter", "`wsd_s`"),
    ("tri-stage", "fairseq, speechbrain, espnet", "`tri_stage`"),
    ("cosine, then a linear tail", "OLMo", "`cosine_linear_tail`"),
    ("half and quarter cosine", "OLMo, ParlAI", "`cosine` (shape)"),
    ("linear-cosine, with noise", "TF1", "`linear_cosine`, `noise`"),
    ("REX", "pytorch_optimizer, axolotl", "`rex`"),
    ("Chebyshev", "pytorch_optimizer", "`chebyshev`"),
    ("sigmoid, inverse power", "Caffe", "`sigmoid`, `inverse_time` (power)"),
    ("SWA: anneal to a constant", "torch", "`swa_anneal`, `torch.SWALR`"),
    ("any multiplier", "torch LambdaLR and others", "`expression`, `table`, `relative`"),
    ("product of named factors", "trax, T5X", "`multifactor`, `product`"),
    ("range test", "fastai, DeepSpeed, Lightning", "`range_test`"),
    ("Adafactor's relative step", "transformers", "`expression`: min(0.01, 1 / sqrt(t + 1))"),
    ("seeded noise", "timm, TF1", "`noise`: our own stream, the same everywhere"),
    ("jagged restarts (ReLoRA)", "axolotl", "`jagged`"),
    ("a value that follows another", "pytorch_optimizer", "`channels`, each with its law"),
    ("plateau", "everyone", "the controller `plateau`, over any schedule"),
    ("greedy up and down", "transformers", "the controllers `greedy`, `hf.GreedyLR`"),
    ("new-bob", "speechbrain", "the controller `newbob`"),
    ("KL-adaptive", "skrl, rl_games", "the controller `kl_adaptive`"),
    (
        "statistical tests",
        "dlib, statopt",
        "the controllers `dlib_slope`, `slope_test`, `stationarity`",
    ),
    ("momentum, weight decay", "torch, optax, fastai, Megatron", "`channels`"),
]
"""What the libraries have, who has it, and what serves it here."""

MEASURED: dict[str, list[str]] = {
    "constant": ["hf.constant", "optax.constant_schedule"],
    "reduced constant, then restored": ["torch.ConstantLR", "composer.ConstantScheduler"],
    "linear ramp": ["torch.LinearLR", "optax.linear_schedule", "composer.LinearScheduler"],
    "step decay": ["torch.StepLR", "timm.StepLRScheduler", "composer.StepScheduler"],
    "multi-step": ["torch.MultiStepLR", "timm.MultiStepLRScheduler"],
    "piecewise constant, absolute": ["keras.PiecewiseConstantDecay", "fairseq.fixed"],
    "piecewise interpolation": ["optax.piecewise_interpolate_schedule", "ignite.PiecewiseLinear"],
    "exponential": ["torch.ExponentialLR", "keras.ExponentialDecay", "optax.exponential_decay"],
    "geometric from start to end": ["fastai.SchedExp"],
    "inverse time": ["keras.InverseTimeDecay"],
    "polynomial": ["torch.PolynomialLR", "timm.PolyLRScheduler", "hf.polynomial"],
    "polynomial with cycle": ["keras.PolynomialDecay"],
    "cosine, half a wave": ["torch.CosineAnnealingLR", "keras.CosineDecay", "hf.cosine"],
    "cosine to a power": ["optax.cosine_decay_schedule"],
    "cosine with n waves": ["hf.cosine"],
    "cosine with a floor": ["hf.cosine_with_min_lr", "timm.CosineLRScheduler"],
    "cosine with hard restarts": ["hf.cosine_with_restarts", "torch.CosineAnnealingWarmRestarts"],
    "SGDR, growing periods": ["torch.CosineAnnealingWarmRestarts", "keras.CosineDecayRestarts"],
    "restarts with decayed peaks": ["timm.CosineLRScheduler", "keras.CosineDecayRestarts"],
    "restarts with a warmup each": ["optax.sgdr_schedule"],
    "k-decay": ["timm.CosineLRScheduler"],
    "tanh": ["timm.TanhLRScheduler"],
    "one-cycle, two phases": ["torch.OneCycleLR", "optax.cosine_onecycle_schedule"],
    "one-cycle, three phases": ["torch.OneCycleLR"],
    "cycle with an inverse-time tail": ["deepspeed.OneCycle"],
    "flat, then cosine": ["fastai.fit_flat_cos"],
    "triangular, triangular2, exp_range": ["torch.CyclicLR", "fairseq.triangular"],
    "saw-tooth": ["ignite.LinearCyclicalScheduler"],
    "warmup, constant": ["hf.constant_with_warmup", "deepspeed.WarmupLR"],
    "warmup, linear": ["hf.linear", "deepspeed.WarmupDecayLR"],
    "warmup, cosine": ["hf.cosine", "deepspeed.WarmupCosineLR"],
    "warmup, polynomial or steps": ["composer.PolynomialWithWarmupScheduler"],
    "inverse square root": ["hf.inverse_sqrt", "fairseq.inverse_sqrt"],
    "warmup, stable, decay": ["hf.warmup_stable_decay", "timm.WSDLRScheduler"],
    "Power scheduler": ["power_scheduler"],
    "inverse square root with cooldown": ["composer.InverseSquareRootWithWarmupScheduler"],
    "tri-stage": ["fairseq.tri_stage"],
    "SWA: anneal to a constant": ["torch.SWALR"],
    "range test": ["deepspeed.LRRangeTest"],
    "momentum, weight decay": ["torch.OneCycleLR", "megatron.OptimizerParamScheduler"],
}
"""The presets whose measured errors stand for a row; other rows are tested by their formulas."""


INTRODUCTION = """\
# Schedules

A schedule is JSON with a `kind`. Building blocks make laws, combinators join them, names stand for
compositions, and presets take another library's own names, parameters and defaults, so that a
config moves over unread. `GET /v1/schedules` serves all of this, `POST /v1/schedules/preview` draws
any of it.

- **`base`** is the base learning rate of the group; where a level is asked for, a number is
  absolute and `"base"` follows it.
- **Lengths** are steps, or `{"epochs": 5}`, `{"fraction": 0.1}`, `{"samples": 1e6}`,
  `{"tokens": 1e9}`, which the session's `steps_per_epoch`, `total_steps`, `batch_size` and
  `tokens_per_step` turn into the nearest whole number of steps.
- **Past its end** a schedule holds its last value. It never rises again or goes negative by itself,
  unless its entry names that as the library's own way. `ramp`, `knots` and `table` can be told what
  there is outside their range, before it and past it, and `within` tells any other schedule: `hold`
  the value at the nearer end, `bounce` the way back and forth again, `extrapolate` the formula as
  it stands, `error` nothing, so that sealing is refused. Each entry says which of these its example
  comes to past its end; what has no end, such as `exponential`, goes on by its formula.
- **In a session nothing rises past its plan.** From the session's `total_steps` on, or from where
  the schedule's own `total_steps` or `num_training_steps` ends, if that is sooner, the last rate is
  kept, whatever the law says there (`hf.cosine` would rise again, as in the library); the trainer
  is told `plan_over`. `retime` moves the end, `replace` begins another plan, and a session created
  with `"after_end": "law"` follows the law. A period, such as the `T_max` of
  `torch.CosineAnnealingLR`, is no end. Previews show the law.
- **`t`** is the 0-based index of the optimizer step that uses the value.

| page | kinds |
|---|---|
"""

PARITY = """
## How close

The largest error over all steps of all cases, measured when this page was made: relative to the
library's own value, or to its peak where the library computes in float32.

| kind | compared with | cases | largest error |
|---|---|---|---|
"""


def main() -> None:
    """Write every page and every picture."""
    (PAGES / "img").mkdir(parents=True, exist_ok=True)
    for kind in catalogue.schedules():
        (PAGES / "img" / f"{kind}.svg").write_text(picture(kind))
    for family, kinds in families().items():
        (PAGES / f"{family}.md").write_text(page(family, kinds))
    (HERE / "schedules.md").write_text(overview())


def families() -> dict[str, list[str]]:
    """Return the kinds of each page: our own in two, and one for each library."""
    found: dict[str, list[str]] = {"named": [], "building-blocks": []}
    for kind in catalogue.schedules():
        library, dot, _ = kind.partition(".")
        block = catalogue.describe_schedule(kind)["family"] == "building block"
        family = library if dot else "building-blocks" if block else "named"
        found.setdefault(family, []).append(kind)
    return found


def overview() -> str:
    """The page that leads to the others."""
    lines = INTRODUCTION.splitlines()
    measured = {kind: error for kind, _, _, error in parity()}
    for family, kinds in families().items():
        lines.append(
            f"| [{family}](schedules/{family}.md) | {', '.join(f'`{k}`' for k in kinds)} |"
        )
    lines += [
        "",
        "## What others have, and what serves it here",
        "",
        "| schedule | there | here | shown by | largest error |",
        "|---|---|---|---|---|",
        *(_row(row, measured) for row in ROWS),
        *PARITY.splitlines(),
        *(f"| `{kind}` | {what} | {cases} | {error} |" for kind, what, cases, error in parity()),
        "",
    ]
    return wrapped("\n".join(lines))


HOMES = ("golden", "presets", "parity", "test_named", "test_noise", "test_expression")
"""Where tests of single kinds live; others use kinds for something else."""


def _row(row: Row, measured: dict[str, str]) -> str:
    """One row of the table: its kinds, the tests that name them, and the worst measured error."""
    what, where, here = row
    kinds = [kind for kind in re.findall(r"`([^`]+)`", here) if kind in Schedule.kinds]
    presets = MEASURED.get(what, [])
    tests = {test for kind in [*kinds, *presets] for test in tests_of(kind)}
    homes = sorted(test for test in tests if any(home in test for home in HOMES))
    shown = ", ".join(f"`{test.removeprefix('tests/')}`" for test in homes or sorted(tests))
    if not kinds:
        shown = "`core/controllers/test_plateau.py`" if what == "plateau" else ""
    errors = [float(measured[preset]) for preset in presets]
    error = f"{max(errors):.0e}" if errors else ("formula" if kinds else "")
    return f"| {what} | {where} | {here} | {shown} | {error} |"


def page(family: str, kinds: list[str]) -> str:
    """The page of one family of kinds."""
    lines = [f"# {family}", "", "[All schedules](../schedules.md)", "", LENGTHS, ""]
    for kind in kinds:
        lines += _entry(kind)
    return wrapped("\n".join(lines))


def _entry(kind: str) -> Iterator[str]:
    about = catalogue.describe_schedule(kind)
    yield f"## {kind}"
    yield ""
    yield fenced_tables(about["description"])
    yield ""
    yield f"![{kind}](img/{kind}.svg)"
    yield ""
    yield f"- law: `{about['formula']}`"
    yield f"- source: {about['source']}"
    yield f"- example: `{json.dumps(about['example'])}`"
    yield f"- past the example's end: `{about['out_of_range']}`"
    yield f"- shown by: {', '.join(f'`{path}`' for path in tests_of(kind))}"
    yield ""
    yield from table_of(about["parameters"])
    yield ""


def tests_of(kind: str) -> list[str]:
    """Return the tests that name a kind; every kind is under the laws of all schedules besides."""
    library, dot, name = kind.partition(".")
    words = [f'"{kind}"'] + ([f'"{name}"', f".{name}", f"{name}("] if dot else [])
    homes = [TESTS / "core" / f"test_{library}_presets.py"] if dot else []
    modules = homes if homes and homes[0].exists() else sorted((TESTS / "core").glob("test_*.py"))
    golden = [path for path in sorted((TESTS / "golden").glob("*.json")) if path.stem == library]
    found = [path for path in modules if any(word in path.read_text() for word in words)]
    found += [path for path in golden if f'"{kind}"' in path.read_text()]
    if not dot:  # a kind of our own that others have, too
        every = sorted((TESTS / "golden").glob("*.json"))
        found += [path for path in every if f'{{"kind": "{kind}", "spec"' in path.read_text()]
    return [str(path.relative_to(TESTS.parent)) for path in found]


def picture(kind: str) -> str:
    """Draw a kind's example over the steps in which something happens."""
    channels = resolve(
        Schedule.parse(catalogue.describe_schedule(kind)["example"]), PACE
    ).channels()
    length = _eventful(channels["lr"])
    t = np.arange(length, dtype=np.float64)
    curves = {name: np.nan_to_num(law.values(t, 0.1)) for name, law in channels.items()}
    kept = decimate(curves, 480)
    return pictures.draw(kept.tolist(), {name: row[kept].tolist() for name, row in curves.items()})


def _eventful(law: Schedule) -> int:
    values = law.values(np.arange(4000, dtype=np.float64), 0.1)
    changes = np.flatnonzero(np.abs(np.diff(values)) > 1e-4 * np.nanmax(np.abs(values)))
    last = int(changes[-1]) + 1 if len(changes) else 40
    return min(max(int(1.15 * last), 40), 4000)


def parity() -> Iterator[tuple[str, str, int, str]]:
    """Measure every preset against what its library gave, or gives."""
    yield from live()
    for path in sorted((TESTS / "golden").glob("*.json")):
        file = json.loads(path.read_text())
        errors: dict[str, list[float]] = {}
        for case in file["cases"]:
            errors.setdefault(case["kind"], []).append(_error(case, file["float"]))
        what = f"{file['library']} {file['version']}, {file['float']}"
        for kind, found in sorted(errors.items()):
            yield kind, what, len(found), f"{max(found):.0e}"


def live() -> Iterator[tuple[str, str, int, str]]:
    """Measure the examples of the presets of the libraries that are installed."""
    t = np.arange(400, dtype=np.float64)
    for kind in catalogue.schedules():
        library, _, name = kind.partition(".")
        example = {
            k: v for k, v in catalogue.describe_schedule(kind)["example"].items() if k != "kind"
        }
        if library == "torch":
            build, what = partial(_of_torch, name, example), f"torch {torch.__version__}"
        elif library == "hf":
            build, what = partial(_of_hf, name, example), f"transformers {transformers.__version__}"
        else:
            continue
        theirs, _ = run(build, _lasting(example), 0.1)
        ours = Schedule.parse({"kind": kind, **example}).values(t[: len(theirs)], 0.1)
        differences = np.abs(ours - theirs)
        relative = np.divide(differences, theirs, out=differences.copy(), where=theirs > 0)
        yield kind, what.partition("+")[0] + ", float64", 1, f"{relative.max():.0e}"


def _lasting(example: dict[str, Any]) -> int:
    """How many steps can be compared: torch's one-cycle raises after its last."""
    return min(int(example.get("total_steps", 400)), 400)


def _of_torch(name: str, example: dict[str, Any], trained: Optimizer) -> LRScheduler:
    children = example.get("schedulers")
    if children is not None:
        built = [
            _of_torch(
                child["kind"].partition(".")[2],
                {key: value for key, value in child.items() if key != "kind"},
                trained,
            )
            for child in children
        ]
        if name == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(built)
        return lr_scheduler.SequentialLR(trained, built, example["milestones"])
    scheduler: LRScheduler = getattr(lr_scheduler, name, SWALR)(trained, **example)
    return scheduler


def _of_hf(name: str, example: dict[str, Any], trained: Optimizer) -> LRScheduler:
    arguments = dict(example)
    warmup = arguments.pop("num_warmup_steps", None)
    training = arguments.pop("num_training_steps", None)
    scheduler: LRScheduler = transformers.get_scheduler(
        name, trained, warmup, training, scheduler_specific_kwargs=arguments
    )
    return scheduler


def _error(case: dict[str, Any], precision: str) -> float:
    theirs = np.array([float.fromhex(value) for value in case["values"]])
    law = resolve(
        Schedule.parse({"kind": case["kind"], **case["spec"]}), Clock(**case.get("pace", {}))
    ).channels()[case["channel"]]
    t = np.arange(case["start"], case["start"] + len(theirs), dtype=np.float64)
    ours = law.values(t, case["base_lr"])
    differences = np.abs(ours - theirs)
    sizes = np.abs(theirs)
    scale = np.full_like(sizes, sizes.max()) if precision == "float32" else sizes
    return float(np.max(np.divide(differences, scale, out=differences.copy(), where=scale > 0)))


if __name__ == "__main__":
    main()
