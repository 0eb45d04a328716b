"""The training of `live_control.py`: a program of its own, which can be killed and started again.

It opens a session that the operator has created, and takes each step's learning rate from it. At
regular steps it saves a checkpoint, and it reports what it measures. It gets no orders.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from demo_digits import Digits
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from pacesetter import Client, Session
from pacesetter.torch import RemoteLR

BATCH = 64


class Training:
    """A network that learns to read digits; all trainings begin alike.

    Dropout draws from torch's global generator, so a checkpoint must hold its state too. All is
    float64: float32 would round away what the last bit of a learning rate does.
    """

    def __init__(self, digits: Digits) -> None:
        torch.set_num_threads(1)  # the network is small, and its sums are the same on any machine
        torch.manual_seed(0)
        self._digits = digits
        self._batches = Generator().manual_seed(1)
        self._network = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
        ).double()
        # The scheduler sets the rate. LambdaLR multiplies this one, which must cause no rounding.
        self.optimizer = SGD(self._network.parameters(), lr=1.0, momentum=0.9)

    @property
    def lr(self) -> float:
        """The learning rate that the next update will use, from the optimizer itself."""
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self) -> float:
        """Take one step of the optimizer, and return the loss before it."""
        images, labels = self._digits.train
        batch = torch.randperm(len(images), generator=self._batches)[:BATCH]
        self._network.train()
        self.optimizer.zero_grad()
        loss = cross_entropy(self._network(images[batch].double()), labels[batch])
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def validate(self) -> float:
        """Return the loss on the validation data."""
        images, labels = self._digits.validation
        self._network.eval()
        return cross_entropy(self._network(images.double()), labels).item()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on, except the learning rate."""
        return {
            "network": self._network.state_dict(),
            "momentum": self.optimizer.state_dict()["state"],
            "dropout": torch.get_rng_state(),
            "batches": self._batches.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._network.load_state_dict(state["network"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["momentum"], "param_groups": groups})
        torch.set_rng_state(state["dropout"])
        self._batches.set_state(state["batches"])

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by name, and the momentum of each."""
        momentum = self.optimizer.state_dict()["state"]
        moments = {f"momentum {key}": each["momentum_buffer"] for key, each in momentum.items()}
        return {**self._network.state_dict(), **moments}


class Trainer:
    """Follows a session from its first step, or from a checkpoint's.

    Args:
        training: the training to run.
        session: where the learning rates come from.
        steps: its length.
        every: steps between two validations; checkpoints are saved at every other one.
        pace: the extra seconds of a step, as with a larger network.
        attempt_key: the name of this start of the job, if it is not the first.
    """

    def __init__(
        self,
        training: Training,
        session: Session,
        *,
        steps: int,
        every: int,
        pace: float = 0.0,
        attempt_key: str | None = None,
    ) -> None:
        self._training = training
        self._session = session
        self._scheduler = RemoteLR(training.optimizer, session, attempt_key=attempt_key)
        self._steps, self._every, self._pace = steps, every, pace
        self.lrs: list[float] = []

    def resume(self, checkpoint: Path) -> None:
        """Go back to a checkpoint: that opens an attempt of the session."""
        state = torch.load(checkpoint, weights_only=True)
        self._training.load_state_dict(state["training"])
        self.lrs = state["lrs"]
        self._scheduler.load_state_dict(state["scheduler"])

    def train(self, checkpoint: Path | None = None) -> list[float]:
        """Train to the end, and return each step's learning rate, from the optimizer itself."""
        for step in range(self._scheduler.last_epoch, self._steps):
            if checkpoint is not None and step % (2 * self._every) == 0:
                self._save(checkpoint)
            self.lrs.append(self._training.lr)
            self._session.report(step, loss=self._training.update())
            if (step + 1) % self._every == 0:
                self._session.report(step, val_loss=self._training.validate())
            time.sleep(self._pace)
            if step + 1 < self._steps:
                self._scheduler.step()
        return self.lrs

    def _save(self, checkpoint: Path) -> None:
        state = {
            "training": self._training.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "lrs": self.lrs,
        }
        unfinished = checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(checkpoint)  # a kill leaves the old one or the new one, never half


def replay(digits: Digits, levels: list[float]) -> dict[str, Tensor]:
    """Train with written-out learning rates and without any service, and return the weights."""
    training = Training(digits)
    scheduler: LRScheduler = torch.optim.lr_scheduler.LambdaLR(
        training.optimizer, lambda step: levels[step]
    )
    for step in range(len(levels)):
        training.update()
        if step + 1 < len(levels):
            scheduler.step()
    return training.weights()


def main() -> None:
    """Train, and write the resulting weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--final", type=Path, required=True)
    parser.add_argument("--restart", help="go on from the checkpoint; the key of this restart")
    chosen = parser.parse_args()
    training = Training(Digits.load())
    with (
        Client(chosen.url, max_wait=300.0) as client,
        client.session(chosen.session) as session,
    ):
        trainer = Trainer(
            training,
            session,
            steps=chosen.steps,
            every=chosen.every,
            pace=chosen.pace,
            attempt_key=chosen.restart,
        )
        if chosen.restart is not None:
            trainer.resume(chosen.checkpoint)
        lrs = trainer.train(chosen.checkpoint)
    torch.save({"weights": training.weights(), "lrs": lrs}, chosen.final)


if __name__ == "__main__":
    main()
