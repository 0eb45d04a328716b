"""Values that fastai's Learner trains a small model with, by its Recorder; its plateau by epoch.

fastai comes without torchvision and spacy, which its schedules have nothing to do with. It computes
in float32 where one piece of a schedule ends and the next begins.
"""

# requires: torch==2.13.0 numpy==2.4.6 fastcore==2.2.39 fasttransform==0.0.5 fastprogress==1.1.6
# requires: fastdownload==0.0.8 plum-dispatch==2.9.0 pandas scipy scikit-learn matplotlib pillow
# requires: cloudpickle pyyaml requests packaging
# requires-no-deps: fastai==2.8.12

import contextlib
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from common import case, under_plateaus, write
from fastai.basics import SGD, DataLoader, DataLoaders, Learner, Metric
from fastai.callback import schedule as fastai
from fastai.callback.tracker import ReduceLROnPlateau

warnings.simplefilter("ignore")

ITERATIONS = 20
"""Steps in an epoch."""


def learner(groups: int = 1, lr: float = 0.1) -> Learner:
    """Return a learner with a one-parameter layer for each group."""
    rows = [(torch.zeros(1), torch.zeros(1)) for _ in range(ITERATIONS)]
    loaders = DataLoaders(DataLoader(rows, bs=1), DataLoader(rows[:1], bs=1))
    layers = [torch.nn.Linear(1, 1) for _ in range(groups)]
    return Learner(
        loaders,
        torch.nn.Sequential(*layers),
        loss_func=torch.nn.functional.mse_loss,
        opt_func=SGD,
        lr=lr,
        splitter=lambda model: [list(layer.parameters()) for layer in model],
    )


def fitted(method: str, hyper: str = "lr", **arguments: Any) -> list[float]:
    """Fit with one of the Learner's methods, and return a hyperparameter at each step."""
    model = learner()
    with model.no_bar(), model.no_logging():
        getattr(model, method)(**arguments)
    return [float(value) for value in model.recorder.hps[hyper]]


def annealed(law: Any, epochs: int) -> list[float]:
    """Fit with a schedule of the learning rate, and return it at each step."""
    model = learner()
    with model.no_bar(), model.no_logging():
        model.fit(epochs, cbs=fastai.ParamScheduler({"lr": law}))
    return [float(value) for value in model.recorder.hps["lr"]]


def made(law: dict[str, Any]) -> Any:
    """Make fastai's schedule of a spec of ours."""
    arguments = {name: value for name, value in law.items() if name not in ("kind", "scheds")}
    if "scheds" in law:
        arguments["scheds"] = [made(each) for each in law["scheds"]]
    return getattr(fastai, law["kind"].removeprefix("fastai."))(**arguments)


def kind(name: str, **spec: Any) -> dict[str, Any]:
    """Write one of our specs."""
    return {"kind": f"fastai.{name}", **spec}


LAWS: list[tuple[str, dict[str, Any]]] = [
    ("down", kind("SchedLin", start=0.1, end=0.001)),
    ("up", kind("SchedLin", start=0.0, end=0.3)),
    ("down", kind("SchedCos", start=0.1, end=0.0)),
    ("up", kind("SchedCos", start=0.0, end=0.3)),
    ("its end is nothing", kind("SchedNo", start=0.02, end=0.1)),
    ("down", kind("SchedExp", start=0.1, end=1e-7)),
    ("up", kind("SchedExp", start=1e-7, end=10.0)),
    ("down", kind("SchedPoly", start=0.1, end=0.0, power=2)),
    ("up", kind("SchedPoly", start=0.0, end=0.1, power=3.5)),
    ("up and down", kind("combined_cos", pct=0.3, start=0.01, middle=0.1, end=1e-6)),
    ("no way up", kind("combined_cos", pct=0.0, start=0.01, middle=0.1, end=1e-3)),
    ("no way down", kind("combined_cos", pct=1.0, start=0.01, middle=0.1, end=1e-3)),
    (
        "four shapes",
        kind(
            "combine_scheds",
            pcts=[0.125, 0.25, 0.5, 0.125],
            scheds=[
                kind("SchedLin", start=0.0, end=0.1),
                kind("SchedNo", start=0.1, end=0.1),
                kind("SchedPoly", start=0.1, end=0.01, power=0.5),
                kind("SchedExp", start=0.01, end=1e-4),
            ],
        ),
    ),
    (
        "a jump, and one left out",
        kind(
            "combine_scheds",
            pcts=[0.25, 0.0, 0.75],
            scheds=[
                kind("SchedCos", start=0.1, end=0.02),
                kind("SchedNo", start=9.0, end=9.0),
                kind("SchedCos", start=0.2, end=0.0),
            ],
        ),
    ),
    (
        "nested",
        kind(
            "combine_scheds",
            pcts=[0.5, 0.5],
            scheds=[
                kind("combined_cos", pct=0.25, start=0.01, middle=0.1, end=0.05),
                kind("SchedCos", start=0.05, end=0.001),
            ],
        ),
    ),
]

EPOCHS = 4

FITS: list[tuple[str, str, dict[str, Any]]] = [
    ("fit_one_cycle", "defaults", {"n_epoch": 3}),
    (
        "fit_one_cycle",
        "parameters of its own",
        {
            "n_epoch": 2,
            "lr_max": 0.03,
            "div": 10.0,
            "div_final": 1e3,
            "pct_start": 0.4,
            "moms": (0.9, 0.8, 0.99),
        },
    ),
    ("fit_flat_cos", "defaults", {"n_epoch": 4}),
    ("fit_flat_cos", "short", {"n_epoch": 1, "lr": 0.5, "pct_start": 0.3, "div_final": 10.0}),
    ("fit_sgdr", "defaults", {"n_cycles": 3, "cycle_len": 1}),
    ("fit_sgdr", "three times as long", {"n_cycles": 2, "cycle_len": 1, "cycle_mult": 3}),
]


MISSED, RESTART = {"n_cycles": 3, "cycle_len": 1}, 3 * ITERATIONS
"""A fit, and the step that starts its last cycle, which float32 still counts to the one before."""


def fine_tuned(groups: int, hyper: str, **arguments: Any) -> list[list[float]]:
    """Fine-tune a model, and return a hyperparameter of each of its groups at each step."""
    model = learner(groups)
    seen: list[list[float]] = []

    class Watch(fastai.Callback):  # type: ignore[misc, name-defined]
        """Records what each batch was trained with."""

        order = 100
        run_valid = False

        def before_batch(self) -> None:
            seen.append([float(group[hyper]) for group in self.opt.hypers])

    with model.no_bar(), model.no_logging(), model.added_cbs(Watch()):
        model.fine_tune(**arguments)
    return [list(values) for values in zip(*seen, strict=True)]


def fine_tunes() -> list[dict[str, Any]]:
    """Return the cases of fine-tuning."""
    pace = {"steps_per_epoch": ITERATIONS}
    several = {"epochs": 3, "freeze_epochs": 2, "base_lr": 0.01, "lr_mult": 50, "div": 8.0}
    name = "fastai.fine_tune"
    whole = [
        case(name, {"epochs": 2}, fine_tuned(1, "lr", epochs=2)[0], note="defaults", pace=pace),
        case(
            name,
            {"epochs": 2},
            fine_tuned(1, "mom", epochs=2)[0],
            channel="momentum",
            base_lr=0.9,
            note="defaults",
            pace=pace,
        ),
    ]
    of_groups = fine_tuned(3, "lr", **several)
    return whole + [
        case(name, several | {"position": position}, values, note=note, pace=pace)
        for position, note, values in zip(
            (0.0, 0.5, 1.0),
            ("the first group", "the middle group", "the last group"),
            of_groups,
            strict=True,
        )
    ]


class Scripted(Metric):  # type: ignore[misc]
    """A metric whose value in each epoch is written down beforehand."""

    name = "loss_as_scripted"

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)

    def reset(self) -> None:
        """Start an epoch."""

    def accumulate(self, learn: Learner) -> None:
        """Take a batch."""

    @property
    def value(self) -> float:
        """The value of the epoch."""
        return next(self.values)


def under_a_plateau(spec: dict[str, Any], metrics: list[float]) -> list[float]:
    """Train an epoch for each metric, and return the rates that they were made with."""
    rows = [(torch.zeros(1), torch.zeros(1))]
    loaders = DataLoaders(DataLoader(rows, bs=1), DataLoader(rows, bs=1))
    model = Learner(
        loaders,
        torch.nn.Linear(1, 1),
        loss_func=torch.nn.functional.mse_loss,
        opt_func=SGD,
        metrics=[Scripted(metrics)],
    )
    given = {**spec, "comp": getattr(np, spec["comp"])} if "comp" in spec else spec
    plateau = ReduceLROnPlateau(monitor=Scripted.name, **given)
    values: list[float] = []

    class Watch(fastai.Callback):  # type: ignore[misc, name-defined]
        """Records what each epoch was trained with."""

        def before_epoch(self) -> None:
            values.append(float(self.opt.hypers[-1]["lr"]))

    with model.no_bar(), model.no_logging(), contextlib.redirect_stdout(None):
        model.fit(len(metrics), lr=0.1, cbs=[plateau, Watch()])
    return values


PLATEAUS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "patience": {"patience": 3, "factor": 2.0, "min_lr": 0.003},
    "no patience": {"patience": 0, "factor": 1.5},
    "threshold": {"patience": 2, "factor": 3.0, "min_delta": 0.25},
    "higher is better": {"comp": "greater", "patience": 3, "factor": 10.0, "min_delta": 1 / 64},
    "two hundredths more": {"comp": "greater", "min_delta": 0.02, "patience": 1, "factor": 1.5},
    "two hundredths less": {"min_delta": 0.02, "patience": 1, "factor": 1.5},
}


def main() -> None:
    """Write the values."""
    plateaus = under_plateaus("fastai.ReduceLROnPlateau", PLATEAUS, under_a_plateau)
    cases = []
    for note, law in LAWS:
        spec = {name: value for name, value in law.items() if name != "kind"}
        values = annealed(made(law), EPOCHS)
        length = {"total_steps": EPOCHS * ITERATIONS}
        cases.append(case(law["kind"], spec, values, note=note, pace=length))
    pace = {"steps_per_epoch": ITERATIONS}
    for method, note, spec in FITS:
        name = f"fastai.{method}"
        values = fitted(method, **spec)
        if spec == MISSED:
            late = RESTART + 1
            after = f"{note}, after the restart that fastai misses"
            cases.append(case(name, spec, values[late:], start=late, note=after, pace=pace))
            values = values[:RESTART]
        cases.append(case(name, spec, values, note=note, pace=pace))
        if method == "fit_one_cycle":
            momenta = fitted(method, "mom", **spec)
            cases.append(
                case(name, spec, momenta, channel="momentum", base_lr=0.9, note=note, pace=pace)
            )
    write("fastai", version("fastai"), "float32", [*cases, *fine_tunes()], plateaus)


main()
