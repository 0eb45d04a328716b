"""What the demo trains: a small network that reads handwritten digits. All ordinary torch."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

BATCH = 288
EPOCH = 4  # steps, so that laws can be written as `20 * EPOCH`
EPOCHS = 100
STEPS = EPOCHS * EPOCH
LR = 0.1

Examples = tuple[Tensor, Tensor]

# A row is an image: 64 pixels of 0 to 16, and the digit. The test set of "Optical Recognition of
# Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0.
IMAGES = Path(__file__).with_name("digits.csv.gz")


@dataclass(frozen=True)
class Digits:
    """1,797 images of 8 by 8 pixels, in three parts."""

    train: Examples
    validation: Examples
    test: Examples

    @classmethod
    def load(cls) -> Digits:
        """Shuffle them, always in the same way."""
        rows = torch.from_numpy(np.loadtxt(IMAGES, delimiter=",", dtype=np.int64))
        images, labels = rows[:, :-1] / 16, rows[:, -1]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(4))
        train, validation, test = order.split([EPOCH * BATCH, 285, 360])
        return cls(*((images[part], labels[part]) for part in (train, validation, test)))


class Learner:
    """A network with one hidden layer of 128, and SGD with momentum; all learners begin alike.

    Attributes:
        optimizer: the optimizer that a scheduler drives.
        losses: the training loss of each step.
        val_losses: the validation loss after each epoch.
    """

    def __init__(self, digits: Digits) -> None:
        torch.manual_seed(0)
        self._digits = digits
        self._network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.optimizer = SGD(self._network.parameters(), lr=LR, momentum=0.9)
        self.losses: list[float] = []
        self.val_losses: list[float] = []

    @property
    def lr(self) -> float:
        """The learning rate that the next update will use, from the optimizer itself."""
        return float(self.optimizer.param_groups[0]["lr"])

    def batches(self) -> Iterator[Examples]:
        """Yield the batches of all epochs."""
        images, labels = self._digits.train
        order = torch.Generator().manual_seed(1)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images), generator=order).split(BATCH):
                yield images[batch], labels[batch]

    def update(self, images: Tensor, labels: Tensor) -> float | None:
        """Take one step of the optimizer; the last one of an epoch returns the validation loss."""
        self.optimizer.zero_grad()
        loss = cross_entropy(self._network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        return self._validate() if len(self.losses) % EPOCH == 0 else None

    @property
    def epoch_losses(self) -> list[float]:
        """The mean training loss of each epoch so far."""
        starts = range(0, len(self.losses) - EPOCH + 1, EPOCH)
        return [fmean(self.losses[start : start + EPOCH]) for start in starts]

    @torch.no_grad()
    def _validate(self) -> float:
        images, labels = self._digits.validation
        self.val_losses.append(cross_entropy(self._network(images), labels).item())
        return self.val_losses[-1]

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of the test images that it reads right."""
        images, labels = self._digits.test
        return float((self._network(images).argmax(1) == labels).float().mean())
