"""The closed loop against the fixed schedule, in real trainings; `make closed-loop` runs this.

A small convolutional network and a small transformer are trained again and again, with the same
weights and batches for each seed, and learning rates from a real service: by a fixed schedule, by
`plateau` and `greedy`, which see the validation loss, and under a `spike_guard`. Then a fault is
provoked on the way, and the fixed schedule does not survive it. The program writes
`closed_loop.md`, its pictures and its numbers.

Each training's learning rates are compared with the server's record; one mismatch ends it all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import closed_loop_page as page
import closed_loop_picture as picture
import torch
from closed_loop_arms import ARMS, BURST, FIXED, PROVOKED, SLIP, Arm, Fault
from closed_loop_results import Comparison, Ending, Endings, Results, Trial, versions
from closed_loop_run import Run, Trainer
from closed_loop_tasks import Task, digits, text
from demo_service import ServiceProcess

from pacesetter import Client

SEEDS = 5
SEARCHED = range(100, 103)
MISJUDGED = (0.1, 4.0)
"""Factors of the base learning rate for the comparisons where it does not suit."""

Runs = dict[str, list[Run]]
"""The trainings of each arm, by its name."""


class Experiment:
    """Trains, draws and counts.

    Args:
        trainer: trains against the service.
        folder: where the pictures are written.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self._trainer = trainer
        self._folder = folder
        self._trained = 0

    def compare(
        self, task: Task, arms: Sequence[Arm], seeds: int, factor: float = 1.0
    ) -> tuple[Comparison, Runs]:
        """Train all arms at a multiple of the base learning rate that suits the fixed schedule."""
        base_lr = factor * task.base_lr
        runs = self._train(task, arms, seeds, base_lr)
        endings = {arm: [Ending.of(run) for run in trained] for arm, trained in runs.items()}
        compared = Comparison(
            task.name, task.what, factor, base_lr, task.steps, task.every, endings
        )
        return compared, runs

    def provoke(
        self, task: Task, fault: Fault, arms: Sequence[Arm], undisturbed: Sequence[Ending]
    ) -> Trial:
        """Train all arms through a fault, with the seeds of the trainings that had none."""
        runs = self._train(task, arms, len(undisturbed), task.base_lr, fault)
        endings: Endings = {
            arm: [
                Ending.of(run, calm.accuracy)
                for run, calm in zip(trained, undisturbed, strict=True)
            ]
            for arm, trained in runs.items()
        }
        picture.draw_trial(runs, fault, self._folder / f"{fault.name}.png")
        return Trial(task.name, fault.name, fault.what, fault.at, task.steps, endings)

    def draw(self, task: Task, runs: Runs) -> None:
        """Draw the trainings of a comparison."""
        picture.draw_comparison(runs, task, self._folder / f"{task.name}.png")

    def _train(
        self,
        task: Task,
        arms: Sequence[Arm],
        seeds: int,
        base_lr: float,
        fault: Fault | None = None,
    ) -> Runs:
        runs: Runs = {}
        for arm in arms:
            began = time.perf_counter()
            runs[arm.name] = [
                self._trainer.train(
                    self._name(task), task, arm, seed=seed, base_lr=base_lr, fault=fault
                )
                for seed in range(seeds)
            ]
            losses = " ".join(f"{run.val_losses[-1]:.4f}" for run in runs[arm.name])
            setting = fault.name if fault else f"{base_lr:g}"
            seconds = time.perf_counter() - began
            print(f"{task.name:<7} {setting:<6} {arm.name:<16} {losses}  ({seconds:.1f} s)")
        return runs

    def _name(self, task: Task) -> str:
        self._trained += 1
        return f"{task.name}-{self._trained}"


def in_full(experiment: Experiment) -> Results:
    """Run everything, in some minutes."""
    comparisons: list[Comparison] = []
    trials: list[Trial] = []
    # The text takes longer, and its losses deviate less from seed to seed.
    for task, fault, fewer in ((digits(), BURST, SEEDS), (text(), SLIP, 3)):
        compared, runs = experiment.compare(task, ARMS, SEEDS)
        experiment.draw(task, runs)
        comparisons.append(compared)
        comparisons += [experiment.compare(task, ARMS, fewer, factor)[0] for factor in MISJUDGED]
        trials.append(experiment.provoke(task, fault, PROVOKED, compared.arms[FIXED.name]))
    return Results(versions(), comparisons, trials)


def in_short(experiment: Experiment) -> Results:
    """Run one seed of the quicker training, shortened, and some of the arms, in some seconds."""
    task, early = replace(digits(), steps=216), replace(BURST, at=120)
    compared, runs = experiment.compare(task, (FIXED, *ARMS[2:]), seeds=1)
    experiment.draw(task, runs)
    ends = (FIXED, PROVOKED[-1])
    trial = experiment.provoke(task, early, ends, compared.arms[FIXED.name])
    return Results(versions(), [compared], [trial])


def search(trainer: Trainer) -> None:
    """Print how the fixed schedule ends from several base learning rates, with separate seeds."""
    for task in (digits(), text()):
        for factor in (0.1, 0.2, 0.5, 1, 2, 4):
            base_lr = factor * task.base_lr
            losses = [
                trainer.train(
                    f"{task.name}-{base_lr:g}-{seed}", task, FIXED, seed=seed, base_lr=base_lr
                ).val_losses[-1]
                for seed in SEARCHED
            ]
            print(f"{task.name:<7} {base_lr:<6g} {fmean(losses):.4f}")


@contextmanager
def trainer() -> Iterator[Trainer]:
    """Start a service, and yield a trainer that trains against it."""
    torch.set_num_threads(1)  # the networks are small, and the service wants a core too
    with (
        tempfile.TemporaryDirectory() as data,
        ServiceProcess(Path(data)) as service,
        Client(service.url, max_wait=300.0) as client,
    ):
        yield Trainer(client)


def main() -> None:
    """Train, then write down the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed of one training")
    parser.add_argument("--search", action="store_true", help="find the base learning rates")
    parser.add_argument("--rewrite", action="store_true", help="only the page, from its numbers")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the page goes")
    chosen = parser.parse_args()
    folder: Path = chosen.out / "closed_loop"
    folder.mkdir(parents=True, exist_ok=True)
    if chosen.search:
        with trainer() as started:
            search(started)
        return
    if not chosen.rewrite:
        with trainer() as started:
            experiment = Experiment(started, folder)
            results = in_short(experiment) if chosen.quick else in_full(experiment)
        picture.draw_bases(results.comparisons, folder / "bases.png")
        results.save(folder / "results.json")
    written = page.written(Results.load(folder / "results.json"))
    (chosen.out / "closed_loop.md").write_text(written)


if __name__ == "__main__":
    main()
