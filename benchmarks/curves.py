"""Published curves of trainings, read from a folder, in two layouts.

`*.json` holds a list of logs of decays and their trunks, as github.com/fabian-sp/lr-scheduling has
them (arXiv 2501.18965): `{"family", "dataset", "lr", "scheduler", "warmup", "iterations",
"decay_fraction", "decay_shape", "resumed", "cos_final_lr", "step": [...], "val_loss": [...]}`.

`*.csv` holds a row for each measurement, with a column for the step, the learning rate and the
loss, as github.com/thu-yao-01-luo/MultiPowerLaw has them (arXiv 2503.12811). Other columns
(`model`, `schedule`) distinguish runs; the first of them is what trainings of one trunk share.

Values that are not finite are left out. If a step occurs twice, as after a restart, the later row
counts. Before the first row the rate is assumed to have risen to it linearly.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacesetter_service.insight.loss_law import Floats

COMPLETE = 0.98
"""The share of its steps that a log must have."""

CHOSEN = "25M"
"""The first column of the rows that the planner's constants were chosen on."""

BELOW = 1 - 1e-6
"""A rate below this part of the peak belongs to a decay."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "steps", "iteration", "iter", "global_step"),
    "lr": ("lr", "learning_rate"),
    "loss": ("loss", "val_loss", "valid_loss", "eval_loss", "train_loss", "training_loss"),
}
"""Names of columns, in any case."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training.

    Attributes:
        trunk: What trainings share that may have one trunk: in words.
        name: Its name among these.
        peak: Its largest rate.
        rates: The learning rate of each step, as a fraction of the peak.
        steps: The steps at which it was measured, ascending.
        losses: The losses at these steps.
        start: The first step of its decay; the length of the path if it has none.
        bent: Whether its decay is not linear.
        chosen: Whether the planner's constants were chosen on it.
    """

    trunk: str
    name: str
    peak: float
    rates: Floats
    steps: NDArray[np.int64]
    losses: Floats
    start: int
    bent: bool = False
    chosen: bool = False

    @property
    def total(self) -> int:
        """The first step that was not trained."""
        return len(self.rates)

    @property
    def decays(self) -> bool:
        """Whether its rate falls at all."""
        return self.start < self.total


def read_curves(folder: FilePath) -> list[Run]:
    """Return all whole trainings of a folder.

    Raises:
        SystemExit: There are no trainings, or a file cannot be read.
    """
    found = [
        *(run for each in sorted(folder.glob("*.json")) for run in _of_logs(each)),
        *(run for each in sorted(folder.glob("*.csv")) for run in _of_rows(each)),
    ]
    if not found:
        raise SystemExit(
            f"{folder} has no curves: give it the .json or .csv files that --help names"
        )
    return found


def _of_logs(file: FilePath) -> Iterator[Run]:
    for log in json.loads(file.read_text()):
        steps, losses = tidy(log["step"], log["val_loss"])
        rates = _rates_of(log)
        if rates is None or not len(steps) or steps[-1] < COMPLETE * len(rates):
            continue
        series = "124m" if "124" in log["family"] else "first"
        bent = log["decay_shape"] == "sqrt" or log["scheduler"] == "cos"
        yield Run(
            f"{series} series, {log['dataset']}, {log['lr']:g}",
            f"{log['scheduler']} {log['iterations']} {log['decay_fraction']}",
            log["lr"],
            rates,
            steps,
            losses,
            start_of(rates),
            bent,
            chosen=series == "124m" and log["lr"] >= 5e-4 and not bent,
        )


def _rates_of(log: Mapping[str, Any]) -> Floats | None:
    """Return the learning rates of a log as fractions of its peak; None if it lacks them."""
    total, warmup = int(log["iterations"]), int(log["warmup"])
    rates = np.ones(total)
    if log["scheduler"] == "cos":
        end = log["cos_final_lr"]
        if end is None or end <= 0:
            return None
        floor = end / log["lr"]
        gone = np.arange(total - warmup) / (total - warmup)
        rates[warmup:] = floor + (1 - floor) * (1 + np.cos(np.pi * gone)) / 2
    else:
        length = round(total * log["decay_fraction"])
        gone = np.arange(length) / max(length, 1)
        rates[total - length :] = 1 - (np.sqrt(gone) if log["decay_shape"] == "sqrt" else gone)
    rates[:warmup] = np.minimum(rates[:warmup], (np.arange(warmup) + 1) / warmup)
    return rates


def _of_rows(file: FilePath) -> Iterator[Run]:
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        columns = _columns(reader.fieldnames or (), file)
        others = [each for each in reader.fieldnames or () if each not in columns.values()]
        runs: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
        for row in reader:
            runs.setdefault(tuple(row[each] for each in others), []).append(row)
    for key, rows in runs.items():
        at, lr, loss = (_numbers(file, rows, columns[each]) for each in ("step", "lr", "loss"))
        steps, losses = tidy(at, loss)
        placed, heights = tidy(at, lr)
        if not len(steps) or not len(heights) or heights.max() <= 0:
            continue
        where = np.arange(int(placed[-1]) + 1)
        rates = np.interp(where, placed, heights)
        rates[: placed[0]] = heights[0] * (where[: placed[0]] + 1) / (placed[0] + 1)
        peak = float(rates.max())
        rates /= peak
        yield Run(
            f"{key[0] if key else file.stem}, {peak:g}",
            " ".join(key[1:]) or file.stem,
            peak,
            rates,
            steps,
            losses,
            start_of(rates),
            chosen=bool(key) and key[0] == CHOSEN,
        )


def _columns(there: Iterable[str], file: FilePath) -> dict[str, str]:
    known = {each.strip().lower().replace(" ", "_"): each for each in there}
    found = {}
    for wanted, names in NAMES.items():
        named = [known[each] for each in names if each in known]
        if not named:
            raise SystemExit(f"{file} has no column for the {wanted}: call it {' or '.join(names)}")
        found[wanted] = named[0]
    return found


def _numbers(file: FilePath, rows: Iterable[Mapping[str, str]], column: str) -> Floats:
    """Return a column, with NaN for missing values."""
    try:
        return np.array([float(row[column] or "nan") for row in rows])
    except ValueError as wrong:
        raise SystemExit(f"{file}, column {column}: {wrong}; give a number, or nothing") from wrong


def tidy(steps: Any, values: Any) -> tuple[NDArray[np.int64], Floats]:  # noqa: ANN401 - as it came
    """Return the finite values, ascending by step; of a repeated step the later value."""
    at, found = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    known = np.isfinite(at) & np.isfinite(found)
    found = found[known][::-1]
    unique, first = np.unique(at[known].astype(np.int64)[::-1], return_index=True)
    return unique, found[first]


def start_of(rates: Floats) -> int:
    """Return the step at which a training begins to decay."""
    top = int(np.argmax(rates))
    below = rates[top:] < BELOW * rates[top]
    return top + int(np.argmax(below)) if below.any() else len(rates)
