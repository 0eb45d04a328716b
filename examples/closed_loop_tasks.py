"""What `closed_loop.py` trains: a convolutional network on digits, a transformer on text."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import torch
from demo_digits import Digits, Examples
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention
from torch.optim import SGD, AdamW, Optimizer

CONTEXT = 32  # characters that the transformer sees
WIDTH, HEADS = 32, 4


@dataclass(frozen=True)
class Task:
    """Something to learn, and the rate for it.

    Attributes:
        name: for sessions and files.
        what: the training in words.
        steps: updates of a training.
        every: steps between two validations.
        base_lr: the learning rate that suits the fixed schedule best.
        network: makes the network, from torch's global generator.
        optimizer: makes its optimizer.
        draw: draws a training batch.
        validation: the data whose loss the controllers see.
        test: the data that no decision depends on.
    """

    name: str
    what: str
    steps: int
    every: int
    base_lr: float
    network: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    draw: Callable[[Generator], Examples]
    validation: Examples
    test: Examples


@dataclass(frozen=True)
class Checkpoint:
    """Weights and the optimizer's moments before the update of a step."""

    step: int
    network: dict[str, Any]
    moments: dict[str, Any]


class Learner:
    """A network in training. A seed decides its first weights and all its batches.

    Args:
        task: the task to learn.
        seed: the seed of both generators.
        clip: the norm that gradients are clipped to; None leaves them as they are.

    Attributes:
        optimizer: the optimizer that a scheduler drives.
    """

    def __init__(self, task: Task, seed: int, clip: float | None = None) -> None:
        torch.manual_seed(seed)
        self._task = task
        self._clip = clip
        self._network = task.network()
        self._batches = Generator().manual_seed(seed)
        self.optimizer = task.optimizer(self._network.parameters())

    @property
    def lr(self) -> float:
        """The learning rate that the next update will use, from the optimizer itself."""
        return float(self.optimizer.param_groups[0]["lr"])

    def draw(self) -> Examples:
        """Return the next batch."""
        return self._task.draw(self._batches)

    def update(self, batch: Examples) -> float:
        """Take one step of the optimizer, and return the loss before it, which may be NaN."""
        self.optimizer.zero_grad()
        loss = self._loss(batch)
        loss.backward()
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._clip)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def validate(self) -> float:
        """Return the loss on the validation data."""
        return self._loss(self._task.validation).item()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of the test data that it gets right, 0 to 1."""
        inputs, targets = self._task.test
        return float((self._network(inputs).argmax(-1) == targets).float().mean())

    def save(self, step: int) -> Checkpoint:
        """Keep everything that the update of a step will change."""
        moments = self.optimizer.state_dict()["state"]
        return Checkpoint(step, deepcopy(self._network.state_dict()), deepcopy(moments))

    def load(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. The learning rate stays: the service owns it."""
        self._network.load_state_dict(checkpoint.network)
        present = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(
            {"state": deepcopy(checkpoint.moments), "param_groups": present}
        )

    def _loss(self, batch: Examples) -> Tensor:
        inputs, targets = batch
        return cross_entropy(self._network(inputs).flatten(0, -2), targets.flatten())


def digits() -> Task:
    """Return the task of images of 8 by 8 pixels, with two layers of convolution."""
    data = Digits.load()
    images, labels = data.train

    def draw(batches: Generator) -> Examples:
        chosen = torch.randperm(len(images), generator=batches)[:32]
        return images[chosen], labels[chosen]

    return Task(
        name="digits",
        what="a network of two convolutions reads handwritten digits; SGD, momentum 0.9",
        steps=540,
        every=9,
        base_lr=0.05,
        network=_convolutions,
        optimizer=lambda weights: SGD(weights, lr=1.0, momentum=0.9),
        draw=draw,
        validation=data.validation,
        test=data.test,
    )


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def text() -> Task:
    """Return the task of Python's own language reference, character by character."""
    whole = "\n\n".join(topics[name] for name in sorted(topics))
    alphabet = sorted(set(whole))
    code = {character: number for number, character in enumerate(alphabet)}
    numbers = torch.tensor([code[character] for character in whole])
    train, held = numbers.split([len(numbers) * 9 // 10, len(numbers) - len(numbers) * 9 // 10])
    validation, test = held.tensor_split(2)

    def draw(batches: Generator) -> Examples:
        return _passages(train, 16, batches)

    return Task(
        name="text",
        what=f"a transformer of two layers predicts the next of {len(alphabet)} characters of "
        "Python's language reference; AdamW",
        steps=400,
        every=10,
        base_lr=0.03,
        network=lambda: Transformer(len(alphabet)),
        optimizer=lambda weights: AdamW(weights, lr=1.0, betas=(0.9, 0.99)),
        draw=draw,
        validation=_passages(validation, 64, Generator().manual_seed(1)),
        test=_passages(test, 512, Generator().manual_seed(2)),
    )


def _passages(characters: Tensor, count: int, places: Generator) -> Examples:
    """Draw passages; the target of each character is the one after it."""
    starts = torch.randint(len(characters) - CONTEXT, (count, 1), generator=places)
    passages = characters[starts + torch.arange(CONTEXT + 1)]
    return passages[:, :-1], passages[:, 1:]


class Transformer(nn.Module):
    """Two layers of causal attention, normalized before each part."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self._characters = nn.Embedding(characters, WIDTH)
        self._places = nn.Embedding(CONTEXT, WIDTH)
        self._layers = nn.Sequential(Layer(), Layer(), nn.LayerNorm(WIDTH))
        self._next = nn.Linear(WIDTH, characters)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the logits of the next character at each place, (batch, place, character)."""
        places = torch.arange(characters.shape[1])
        found: Tensor = self._layers(self._characters(characters) + self._places(places))
        logits: Tensor = self._next(found)
        return logits


class Layer(nn.Module):
    """Attention, then a hidden layer four times as wide; each is added to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self._norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self._asked = nn.Linear(WIDTH, 3 * WIDTH)
        self._answered = nn.Linear(WIDTH, WIDTH)
        self._wide = nn.Linear(WIDTH, 4 * WIDTH)
        self._narrow = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, found: Tensor) -> Tensor:
        """Return (batch, place, width) for an input of the same shape."""
        heads = self._asked(self._norms[0](found)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        found = found + self._answered(seen.transpose(1, 2).flatten(-2))
        added: Tensor = self._narrow(gelu(self._wide(self._norms[1](found))))
        return found + added
