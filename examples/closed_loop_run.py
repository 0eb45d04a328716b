"""One training of `closed_loop.py`: an ordinary loop whose learning rates come from a service."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import httpx
from closed_loop_arms import Arm, Fault
from closed_loop_tasks import Checkpoint, Learner, Task

from pacesetter import Client, Notice
from pacesetter.torch import RemoteLR

CHECKPOINT_EVERY, KEPT = 20, 3
"""How often the trainer saves, in steps, and how many it keeps; after going back it pauses."""


class MismatchError(Exception):
    """The server has other learning rates on record than those that were used."""


@dataclass
class Run:
    """The outcome of a training.

    Attributes:
        seed: the seed of the weights and the batches.
        lrs: the learning rate that each step used.
        losses: the training loss of each step.
        val_losses: the validation losses, at regular steps.
        accuracy: the share of the test data that it gets right at the end.
        decisions: how many changes controllers made.
        returns: the steps at which the trainer went back to a checkpoint.
    """

    seed: int
    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    accuracy: float = 0.0
    decisions: int = 0
    returns: list[int] = field(default_factory=list)


class Checkpoints:
    """The newest few checkpoints. A trainer goes back to the oldest of them.

    A loss that jumps may come from weights that were spoiled some steps before. So a checkpoint
    saved just before a jump cannot be trusted, nor can one saved while the guard rests after it.
    """

    def __init__(self) -> None:
        self._kept: deque[Checkpoint] = deque(maxlen=KEPT)
        self._from = 0

    def pass_by(self, step: int, learner: Learner) -> None:
        """Save before the update of a step, if a checkpoint is due."""
        if step >= self._from and step % CHECKPOINT_EVERY == 0:
            self._kept.append(learner.save(step))

    def go_back(self, step: int, learner: Learner) -> None:
        """Load the oldest before the update of a step, and forget the newer ones."""
        oldest = self._kept[0]
        learner.load(oldest)
        self._kept = deque([oldest], maxlen=KEPT)
        self._from = step + 2 * CHECKPOINT_EVERY


class Trainer:
    """Trains against one service.

    Args:
        client: the connection to it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def train(
        self,
        name: str,
        task: Task,
        arm: Arm,
        *,
        seed: int,
        base_lr: float,
        fault: Fault | None = None,
    ) -> Run:
        """Follow a session from its first step to its last.

        Raises:
            MismatchError: the service has another record of the training.
        """
        learner, run, told = Learner(task, seed, arm.clip), Run(seed), list[Notice]()
        session = self._client.create_session(name, **arm.spec(task, base_lr))
        session.on_notice(told.append)
        if fault is not None and fault.order is not None:
            self._order(name, fault)
        scheduler = RemoteLR(learner.optimizer, session)
        checkpoints = Checkpoints()
        for step in range(task.steps):
            checkpoints.pass_by(step, learner)
            batch = learner.draw()
            run.lrs.append(learner.lr)
            run.losses.append(learner.update(fault.spoil(step, batch) if fault else batch))
            session.report(step, loss=run.losses[-1])
            if (step + 1) % task.every == 0:
                run.val_losses.append(learner.validate())
                session.report(step, val_loss=run.val_losses[-1])
            if step + 1 < task.steps:
                scheduler.step()
            if arm.goes_back and any(notice.code == "roll_back" for notice in told):
                checkpoints.go_back(step + 1, learner)
                run.returns.append(step + 1)
            told.clear()
        session.close()
        self._conclude(name, task, learner, run)
        return run

    def _order(self, name: str, fault: Fault) -> None:
        """Send an order as an operator does: by one request."""
        url = f"{self._client.url}/v1/sessions/{name}/actions"
        httpx.post(url, json=fault.order, trust_env=False, timeout=60).raise_for_status()

    def _conclude(self, name: str, task: Task, learner: Learner, run: Run) -> None:
        record = self._client.lr(name, 0, count=task.steps)
        if record["series"]["lr"] != run.lrs:
            raise MismatchError(f"{name}: the server has other learning rates on record")
        run.accuracy = learner.accuracy()
        run.decisions = self._decisions(name)

    def _decisions(self, name: str) -> int:
        url = f"{self._client.url}/v1/sessions/{name}/events"
        answer = httpx.get(
            url, params={"kind": "decided", "limit": 1000}, trust_env=False, timeout=60
        )
        return len(answer.raise_for_status().json()["events"])
