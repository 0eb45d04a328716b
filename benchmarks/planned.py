"""`python -m benchmarks.planned`: the planner's choice against linear to zero, and a cosine.

Everything goes over HTTP to a separate service, as in a user's training: a session at a constant
rate, `pacesetter.torch.probe`, `Client.plan`, `Client.apply_plan`, and a fork for each other way to
go on. All ways have the same weights where they part, and other data from there on, as trainings
have. There are two tasks, both made so that a decay helps, which the way without one shows for
comparison.

- `network`: which word follows two others, by a teacher's rules (`examples/planned_task.py`).
- `regression`: noisy labels, a thousand directions of falling curvature. Its loss is no power law.

Losses are those that unseen data without end would give.
"""

# mypy: allow-untyped-calls

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, nn

from benchmarks.servers import ROOT
from pacesetter import Client, Session
from pacesetter.torch import probe

sys.path.insert(0, str(ROOT / "examples"))

from demo_service import ServiceProcess
from planned_task import Training as Network

MEASURED, PROBED = 100, 20
"""How often a training is measured on its way, and a probe."""

CHOICE = "the planner's choice"


class Trained(Protocol):
    """A training of a task."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def update(self) -> None:
        """Make one update on data that was never seen."""

    def loss(self) -> float:
        """Return the loss on unlimited unseen data."""

    def state(self) -> dict[str, Any]:
        """Return copies of all that training touches."""

    def load(self, state: dict[str, Any], seed: int) -> None:
        """Load a state, and continue with other data."""


class Regression:
    """Weights in training: the loss is 3 plus that of unseen data without noise."""

    WIDTH, BATCH, NOISE, START = 1000, 16, 2.0, 0.7

    def __init__(self, seed: int, lr: float) -> None:
        self.model = nn.Linear(self.WIDTH, 1, bias=False)
        nn.init.constant_(self.model.weight, self.START)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        self._scales = torch.arange(1, self.WIDTH + 1) ** -0.5
        self._data = Generator().manual_seed(seed)

    def update(self) -> None:
        """Make one update on a batch."""
        inputs = torch.randn(self.BATCH, self.WIDTH, generator=self._data) * self._scales
        noise = self.NOISE * torch.randn(self.BATCH, 1, generator=self._data)
        self.optimizer.zero_grad()
        ((self.model(inputs) - noise) ** 2).mean().backward()
        self.optimizer.step()

    @torch.no_grad()
    def loss(self) -> float:
        """Return the loss."""
        return float(3 + ((self.model.weight[0] * self._scales) ** 2).sum())

    def state(self) -> dict[str, Any]:
        """Return a copy of the weights."""
        return copy.deepcopy(self.model.state_dict())

    def load(self, state: dict[str, Any], seed: int) -> None:
        """Load a state, and continue with other data."""
        self.model.load_state_dict(state)
        self._data.manual_seed(seed)


@dataclass(frozen=True)
class Task:
    """A task, the length of its training, and the rate.

    Attributes:
        make: Makes it, by a seed and a rate.
        total: Where it ends.
        seen: Where it is planned.
        probe: How many steps a probe has.
        lr: The constant rate.
    """

    make: type[Network] | type[Regression]
    total: int
    seen: int
    probe: int
    lr: float

    @property
    def spec(self) -> dict[str, Any]:
        """The session: a warmup, and the constant rate."""
        law = {"kind": "warmup", "steps": self.total // 40, "schedule": {"kind": "constant"}}
        return {"base_lr": self.lr, "schedule": law, "total_steps": self.total}


TASKS: Mapping[str, Task] = {
    "network": Task(Network, 1000, 500, 80, 3e-3),
    "regression": Task(Regression, 2000, 800, 120, 0.06),
}


def ways(task: Task) -> dict[str, list[dict[str, Any]]]:
    """Return the orders of each way to go on that is compared with the planner's."""
    left, last = task.total - task.seen, task.total // 5
    linear: dict[str, Any] = {"kind": "cooldown", "ease": {"kind": "linear"}}
    law = {"kind": "cosine", "total_steps": left}
    return {
        "linear to zero from here": [{**linear, "steps": left}],
        "cosine to zero from here": [{"kind": "replace", "schedule": law}],
        "linear over the last fifth": [{**linear, "steps": last, "at": task.total - last}],
        "no decay": [],
    }


def train(training: Trained, session: Session, steps: range, every: int) -> None:
    """Train some steps at the session's rates, and report the loss now and then."""
    for step in steps:
        for group in training.optimizer.param_groups:
            group["lr"] = session.lr(step)
        if step % every == 0:
            session.report(step, loss=training.loss())
        training.update()
    session.flush()


@dataclass(frozen=True)
class Outcome:
    """How each way ended, and the planner's prediction of its own; None if it predicted no loss."""

    ends: dict[str, float]
    expected: tuple[float, float, float] | None

    @property
    def error(self) -> float | None:
        """By how much the predicted end was off."""
        return None if self.expected is None else self.ends[CHOICE] - self.expected[1]

    @property
    def held(self) -> bool:
        """Whether the end lay in its band."""
        if self.expected is None:
            return False
        low, _, high = self.expected
        return low <= self.ends[CHOICE] <= high


def one(client: Client, task: Task, seed: int) -> Outcome:
    """Train one seed all ways."""
    every, name = task.total // MEASURED, f"seed-{seed}"
    training: Trained = task.make(seed, task.lr)
    with client.session(name, **task.spec) as session:
        train(training, session, range(task.seen), every)
    with probe(
        training.model,
        training.optimizer,
        name,
        step=task.seen,
        steps=task.probe,
        client=client,
    ) as fork:
        for step in fork:
            if step % max(task.probe // PROBED, 1) == 0:
                fork.report(step, loss=training.loss())
            training.update()
    # A fork has no step sealed ahead: it is planned from where all ways part.
    kept, chosen = training.state(), f"{name}-planned"
    client.fork(name, chosen, step=task.seen)
    found = client.plan(chosen, "loss")
    if found.best is None:
        raise SystemExit(f"seed {seed}: {found.findings}")
    client.apply_plan(chosen, found, reason="a benchmark")
    forks = {CHOICE: chosen}
    for index, (way, orders) in enumerate(ways(task).items()):
        forks[way] = f"{name}-{index}"
        client.fork(name, forks[way], step=task.seen)
        for order in orders:
            client.order(forks[way], order)
    ends = {}
    for index, (way, each) in enumerate(forks.items()):
        training.load(kept, 1000 * seed + index)
        with client.session(each, step=task.seen) as session:
            train(training, session, range(task.seen, task.total), every)
        ends[way] = training.loss()
    best = found.best
    told = best.loss is not None and best.low is not None and best.high is not None
    return Outcome(ends, (best.low, best.loss, best.high) if told else None)  # type: ignore[arg-type]


def tell(found: Sequence[Outcome]) -> None:
    """Print how each way ends, and how well that was predicted."""
    for way in found[0].ends:
        ends = [each.ends[way] for each in found]
        best = sum(each.ends[way] == min(each.ends.values()) for each in found)
        spread = statistics.stdev(ends) if len(ends) > 1 else 0.0
        print(f"{way:<28} {statistics.mean(ends):.4f} +- {spread:.4f}  best of {best}")
    errors = [abs(each.error) for each in found if each.error is not None]
    print(f"a loss was predicted in {len(errors)} of {len(found)} cases", end="")
    if errors:
        print(f", off by {statistics.mean(errors):.4f}, at most {max(errors):.4f};", end=" ")
        print(f"{sum(each.held for each in found)} of {len(errors)} lay in their bands of 90 %")


def main() -> None:
    """Train, and print how each way ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planned", description=__doc__)
    parser.add_argument("--task", choices=TASKS, default="network")
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(Path(folder)) as server,
        Client(server.url) as client,
    ):
        for seed in range(asked.seeds):
            found.append(one(client, TASKS[asked.task], seed))
            print(f"seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
    tell(found)


if __name__ == "__main__":
    main()
