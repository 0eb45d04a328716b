"""Published curves are read as they are: with gaps, restarts, and other names of columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.curves import Run, read_curves
from benchmarks.planner import cases, predicted

from pacesetter_service.insight.loss_law import LossLaw
from pacesetter_service.insight.loss_law import Path as Rates

LAW = LossLaw(2.7, 9.0, 0.4, 0.22, 0.03, 0.4, 0.5)
TRUNK, PEAK, WARMUP = 12_000, 3e-4, 300


def runs() -> dict[str, np.ndarray]:
    """Return the rates of a trunk, of a short decay of it, and of two later ones."""
    flat = np.minimum((np.arange(TRUNK) + 1) / WARMUP, 1.0)
    found = {"constant": flat}
    for start, steps in ((4_000, 600), (9_000, 1_500), (10_000, 2_000)):
        found[f"from_{start}"] = np.concatenate((flat[:start], np.linspace(1, 0, steps)))
    return found


def rows(every: int = 20, warmup: bool = False) -> list[dict[str, Any]]:
    """Return the rows of a log of each, one run after the other."""
    found = []
    for name, rates in runs().items():
        steps = np.arange(0 if warmup else 2 * WARMUP, len(rates), every)
        losses = Rates(rates).losses(LAW, np.maximum(steps, WARMUP + 1))
        found += [
            {"model": "m", "schedule": name, "step": step, "lr": PEAK * rates[step], "loss": loss}
            for step, loss in zip(steps.tolist(), losses.tolist(), strict=True)
        ]
    return found


def write(folder: Path, some: list[dict[str, Any]], names: dict[str, str] | None = None) -> None:
    """Write rows, with other names of columns if given."""
    columns = names or {each: each for each in some[0]}
    lines = [",".join(columns.values())]
    lines += [",".join(str(row[each]) for each in columns) for row in some]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")


def errors(folder: Path) -> list[float]:
    """Return the errors in the predicted ends of the two later decays."""
    found = [predicted(case) for case in cases(read_curves(folder)) if case.share == 1]
    assert len(found) == 2
    return [abs(each.error) for each in found if each is not None]


def spoilt(some: list[dict[str, Any]], random: np.random.Generator) -> list[dict[str, Any]]:
    """Return rows of which a tenth has no number, and a third is missing."""
    kept = [row for row in some if random.random() > 0.3 or row["step"] > 10_000]
    for row in kept:
        if random.random() < 0.1:
            row["loss"] = random.choice(["", "nan", "inf"])
    return kept


def restarted(some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of runs that went back from step 6,000 to 5,000 after their losses rose."""
    found = []
    for name in dict.fromkeys(row["schedule"] for row in some):
        mine = [row for row in some if row["schedule"] == name]
        wrong = [{**row, "loss": 9.0} for row in mine if 5_000 <= row["step"] < 6_000]
        early = [row for row in mine if row["step"] < 5_000]
        found += [*early, *wrong, *(row for row in mine if row["step"] >= 5_000)]
    return found


@pytest.mark.parametrize("case", ["as it is", "spoilt", "warmup", "restarted", "few", "named"])
def test_layouts_of_rows_are_read(case: str, tmp_path: Path) -> None:
    """Ends are predicted to within a percent of the loss from each of them."""
    names = None
    match case:
        case "spoilt":
            some = spoilt(rows(), np.random.default_rng(0))
        case "warmup":
            some = rows(warmup=True)
        case "restarted":
            some = restarted(rows())
        case "few":
            some = rows(every=60)
        case "named":
            some = rows()
            titles = ("Model", "Run", "Global Step", "LR", "Val Loss")
            names = dict(zip(some[0], titles, strict=True))
        case _:
            some = rows()
    write(tmp_path, some, names)
    found = errors(tmp_path)
    assert len(found) == 2
    assert max(found) < 0.03


def test_of_a_step_that_is_there_twice_the_later_value_counts(tmp_path: Path) -> None:
    """What was trained again after a restart is what counts."""
    write(tmp_path, restarted(rows()))
    for run in read_curves(tmp_path):
        assert run.losses.max() < 9.0
        assert (np.diff(run.steps) > 0).all()


def test_rates_are_known_from_the_rows(tmp_path: Path) -> None:
    """Between rows they are linear, and before the first one they rise linearly from zero."""
    write(tmp_path, rows())
    [trunk, probe, *_] = read_curves(tmp_path)
    assert isinstance(trunk, Run)
    assert (trunk.peak, trunk.decays) == (PEAK, False)
    assert trunk.rates[: 2 * WARMUP] == pytest.approx(
        (np.arange(2 * WARMUP) + 1) / (2 * WARMUP + 1)
    )
    assert probe.start in (4_001, 4_002)


def test_too_little_is_declined_and_said(tmp_path: Path) -> None:
    """A probe with three measurements predicts nothing; a file that is no curve is refused."""
    write(tmp_path, rows(every=300))
    assert [predicted(case) for case in cases(read_curves(tmp_path)) if case.share == 1] == [
        None
    ] * 2
    write(tmp_path, [{"step": 1, "loss": 3.0}])
    with pytest.raises(SystemExit, match="no column for the lr"):
        read_curves(tmp_path)
    write(tmp_path, [{"step": "one", "lr": 0.1, "loss": 3.0}])
    with pytest.raises(SystemExit, match="give a number"):
        read_curves(tmp_path)
    (tmp_path / "curves.csv").unlink()
    with pytest.raises(SystemExit, match="has no curves"):
        read_curves(tmp_path)


def test_logs_are_read(tmp_path: Path) -> None:
    """A log names its schedule; one that ends early, or does not name it, is left out."""
    log = {
        "family": "ann124", "dataset": "d", "lr": 1e-3, "scheduler": "wsd", "warmup": 10,
        "iterations": 1_000, "decay_fraction": 0.2, "decay_shape": "linear", "cos_final_lr": -1,
        "resumed": True, "step": [800, 900, 990], "val_loss": [3.0, None, 2.9],
    }  # fmt: skip
    early = {**log, "step": [800, 900], "val_loss": [3.0, 2.9]}
    unknown = {**log, "scheduler": "cos"}
    (tmp_path / "logs.json").write_text(json.dumps([log, early, unknown]))
    [run] = read_curves(tmp_path)
    assert run.steps.tolist() == [800, 990]
    assert (run.start, run.total, run.chosen) == (801, 1_000, True)
    assert run.rates[[9, 500, 900]] == pytest.approx([1.0, 1.0, 0.5])
