"""A complete training: find the learning rate, run one cycle, keep the best, log the rates.

A small network learns to read digits. Before it does, a learning rate range test sweeps the rates
on it and leaves no trace. The rate that the test proposes is the peak of a one-cycle schedule. Both
are sessions of a service that this program starts for itself. It writes into `out/finder`:

* `finder.svg`: loss over learning rate, with what eight known rules suggest;
* `log.csv`: learning rate and loss of every step, and the validation loss of every epoch;
* `training.png`: the same as a picture;
* `best.pt`: model, optimizer and scheduler of the epoch with the lowest validation loss.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from demo_digits import Digits, Examples
from demo_service import ServiceProcess
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from pacesetter import Client
from pacesetter.torch import RemoteLR, lr_find

BATCH = 32


@dataclass
class Log:
    """What happened at each step.

    Attributes:
        rows: step, epoch, learning rate, training loss, and the validation loss where it is known.
    """

    rows: list[tuple[int, int, float, float, float | None]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the rows as CSV; floats in the shortest form that gives the same bits again."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("step", "epoch", "lr", "train_loss", "val_loss"))
            writer.writerows(self.rows)

    def draw(self, path: Path) -> None:
        """Draw the losses, and the learning rate below them."""
        steps, _, lrs, losses, _ = zip(*self.rows, strict=True)
        validated = [(row[0], row[4]) for row in self.rows if row[4] is not None]
        figure, (above, below) = plt.subplots(2, sharex=True, figsize=(8, 6))
        above.plot(steps, losses, color="#b8c1cb", lw=1, label="training loss")
        above.plot(*zip(*validated, strict=True), "o-", color="#c9483b", label="validation loss")
        above.set_yscale("log")
        above.legend(frameon=False)
        below.plot(steps, lrs, color="#2b6cb0", lw=2)
        below.set(ylabel="learning rate", xlabel="step", ylim=(0, None))
        figure.tight_layout()
        figure.savefig(path, dpi=120)
        plt.close(figure)


@dataclass
class Training:
    """One network, its optimizer and its data.

    Attributes:
        model: two hidden layers with batch normalization and dropout.
        optimizer: AdamW; its learning rate comes from the service.
        loader: shuffled batches.
        validation: the data by which the best epoch is chosen.
    """

    model: nn.Module
    optimizer: Optimizer
    loader: DataLoader[Any]
    validation: Examples

    @classmethod
    def build(cls, digits: Digits) -> Training:
        """Set up, always in the same way."""
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        loader = DataLoader(TensorDataset(*digits.train), batch_size=BATCH, shuffle=True)
        return cls(model, AdamW(model.parameters()), loader, digits.validation)

    def update(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Take one step, and return the loss."""
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self) -> float:
        """Return the loss on the validation data."""
        images, labels = self.validation
        self.model.eval()
        with torch.no_grad():
            loss = cross_entropy(self.model(images), labels).item()
        self.model.train()
        return loss


def find(training: Training, client: Client, out: Path) -> float:
    """Sweep the learning rates, and return the one to train with."""
    found = lr_find(
        training.model, training.optimizer, cross_entropy, training.loader, client=client
    )
    found.save(out / "finder.svg")
    for name, suggestion in found.suggestions.items():
        said = "-" if suggestion.lr is None else f"{suggestion.lr:.2e}"
        print(f"  {name:<16} {said:>9}  {suggestion.reason}")
    print(f"The sweep ended because {found.ended}.")
    if found.proposal.lr is None:
        sys.exit(f"No learning rate can be proposed: {found.proposal.reason}")
    print(f"The peak is {found.proposal.lr:.2e}: {found.proposal.reason}.")
    return found.proposal.lr


def train(training: Training, client: Client, peak: float, epochs: int, out: Path) -> Log:
    """Train one cycle up to the peak, and keep the best epoch."""
    total = epochs * len(training.loader)
    session = client.session(
        "digits", base_lr=peak, schedule={"kind": "one_cycle", "total_steps": total}
    )
    scheduler = RemoteLR(training.optimizer, session)
    log, best, step = Log(), float("inf"), 0
    for epoch in range(epochs):
        for index, batch in enumerate(training.loader):
            lr = scheduler.get_last_lr()[0]
            loss = training.update(*batch)
            last = index == len(training.loader) - 1
            val_loss = training.validate() if last else None
            log.rows.append((step, epoch, lr, loss, val_loss))
            session.report(step, train_loss=loss)
            if val_loss is not None:
                session.report(step, val_loss=val_loss)
                if val_loss < best:
                    best = val_loss
                    save(training, scheduler, epoch, val_loss, out / "best.pt")
            scheduler.step()
            step += 1
        print(f"epoch {epoch:>2}  lr {lr:.2e}  train {loss:.4f}  validation {val_loss:.4f}")
    session.close()
    return log


def save(training: Training, scheduler: RemoteLR, epoch: int, val_loss: float, path: Path) -> None:
    """Write a checkpoint from which a training can go on."""
    checkpoint = {
        "epoch": epoch,
        "val_loss": val_loss,
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(checkpoint, path)


def accuracy_of(training: Training, digits: Digits, path: Path) -> float:
    """Return the share of the test images that the best checkpoint reads right."""
    training.model.load_state_dict(torch.load(path, weights_only=True)["model"])
    training.model.eval()
    images, labels = digits.test
    with torch.no_grad():
        return float((training.model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Find, train, write everything down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/finder"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the network is small, and the service wants a core too
    digits = Digits.load()
    training = Training.build(digits)
    with (
        tempfile.TemporaryDirectory() as folder,
        ServiceProcess(Path(folder)) as service,
        Client(service.url, max_wait=60.0) as client,
    ):
        peak = find(training, client, chosen.out)
        log = train(training, client, peak, chosen.epochs, chosen.out)
    log.write(chosen.out / "log.csv")
    log.draw(chosen.out / "training.png")
    accuracy = accuracy_of(training, digits, chosen.out / "best.pt")
    print(f"The best epoch reads {accuracy:.1%} of the test images right; see {chosen.out}.")


if __name__ == "__main__":
    main()
