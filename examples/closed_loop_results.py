"""What `closed_loop.py` found, as values: written to JSON, read for the page and the tests."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from closed_loop_run import Run
from scipy.stats import t as student  # type: ignore[import-untyped]

SURVIVES = 0.9
"""A training survives a fault if it reaches this share of its accuracy without one."""


@dataclass(frozen=True)
class Ending:
    """How one training ended.

    Attributes:
        seed: the seed of its weights and batches.
        val_loss: the last validation loss; None if it is not finite.
        accuracy: the share of the test data that it gets right, 0 to 1.
        decisions: how many decisions controllers made.
        returns: how often the trainer went back to a checkpoint.
        survived: whether it survived the fault; None if there was none.
    """

    seed: int
    val_loss: float | None
    accuracy: float
    decisions: int
    returns: int
    survived: bool | None = None

    @classmethod
    def of(cls, run: Run, undisturbed: float | None = None) -> Ending:
        """Sum up a training; one with a fault is judged by the accuracy without it."""
        loss = run.val_losses[-1]
        return cls(
            seed=run.seed,
            val_loss=loss if isfinite(loss) else None,
            accuracy=run.accuracy,
            decisions=run.decisions,
            returns=len(run.returns),
            survived=None if undisturbed is None else run.accuracy >= SURVIVES * undisturbed,
        )


Endings = dict[str, list[Ending]]
"""The trainings of each arm, by its name, in the order of their seeds."""


@dataclass(frozen=True)
class Comparison:
    """The arms at one base learning rate.

    Attributes:
        task: its name.
        what: the training in words.
        factor: the multiple of the base learning rate that suits the fixed schedule.
        base_lr: the base learning rate.
        steps: updates of each training.
        every: steps between two validations.
        arms: how all trainings ended.
    """

    task: str
    what: str
    factor: float
    base_lr: float
    steps: int
    every: int
    arms: Endings


@dataclass(frozen=True)
class Trial:
    """The arms under a fault.

    Attributes:
        task: its name.
        fault: its name.
        what: the fault in words.
        at: its first step.
        steps: updates of each training.
        arms: how all trainings ended.
    """

    task: str
    fault: str
    what: str
    at: int
    steps: int
    arms: Endings


@dataclass(frozen=True)
class Results:
    """All that was found, and the versions that it was found with."""

    versions: dict[str, str]
    comparisons: list[Comparison]
    trials: list[Trial]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        given = json.loads(path.read_text())
        return cls(
            given["versions"],
            [Comparison(**{**each, "arms": _endings(each)}) for each in given["comparisons"]],
            [Trial(**{**each, "arms": _endings(each)}) for each in given["trials"]],
        )


def _endings(given: dict[str, Any]) -> Endings:
    return {name: [Ending(**each) for each in arm] for name, arm in given["arms"].items()}


def versions() -> dict[str, str]:
    """Name what the numbers depend on."""
    return {"Python": platform.python_version(), "torch": torch.__version__}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; 0 for one value)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Measure some values."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Difference:
    """By how much an arm's validation loss exceeds another one's, seed by seed.

    Attributes:
        mean: the mean of the differences.
        margin: half the width of Student's 95 % interval around it.
        same: whether all trainings ended with the same bits.
    """

    mean: float
    margin: float
    same: bool

    @property
    def verdict(self) -> str:
        """Say `same`, `lower`, `higher` or `unclear`."""
        if self.same:
            return "same"
        if abs(self.mean) <= self.margin:
            return "unclear"
        return "lower" if self.mean < 0 else "higher"


def difference(arm: Sequence[Ending], other: Sequence[Ending]) -> Difference | None:
    """Compare two arms; None if a loss is not finite, or there are too few to compare."""
    pairs = [(mine.val_loss, theirs.val_loss) for mine, theirs in zip(arm, other, strict=True)]
    apart = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    if len(apart) < len(pairs) or len(apart) < 2:
        return None
    spread = Spread.of(apart)
    quantile = float(student.ppf(0.975, len(apart) - 1))
    return Difference(spread.mean, quantile * spread.deviation / len(apart) ** 0.5, not any(apart))
