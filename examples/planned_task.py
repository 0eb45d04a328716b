"""The task of the notebook and the benchmark of plans: predicting which word follows two others.

A teacher defines how likely each of 64 words is after each pair of words. Its rules have falling
weights, and so have the words, as in a language: the loss falls by a power law, and never to zero.
Every batch is drawn anew, so that nothing is seen twice. The loss is computed exactly, over all
pairs: it adds no noise to that of the training.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

WORDS, RULES, WIDTH, HIDDEN, BATCH = 64, 256, 64, 256, 64


class Teacher(NamedTuple):
    """How likely each pair is, and each word after it."""

    pairs: Tensor
    often: Tensor
    next: Tensor

    @classmethod
    def make(cls, seed: int = 7) -> Teacher:
        """Draw a teacher's rules."""
        random = Generator().manual_seed(seed)
        first, second = (torch.randn(WORDS, RULES, generator=random) for _ in range(2))
        behind = torch.randn(RULES, WORDS, generator=random)
        weights = torch.arange(1, RULES + 1) ** -0.8
        weights *= 2 / weights.norm()
        scores = torch.einsum("ar,br,rc->abc", first, second * weights, behind)
        zipf = 1 / torch.arange(1, WORDS + 1)
        often = torch.outer(zipf, zipf).flatten()
        words = torch.arange(WORDS)
        return cls(
            torch.cartesian_prod(words, words),
            often / often.sum(),
            scores.reshape(-1, WORDS).softmax(-1),
        )

    @property
    def entropy(self) -> float:
        """The lowest loss that a model can reach."""
        each = -(self.next * self.next.log()).sum(-1)
        return float((self.often * each).sum())


TEACHER = Teacher.make()


class Model(nn.Module):
    """Two words in, the scores of the next one out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.ModuleList(nn.Embedding(WORDS, WIDTH) for _ in range(2))
        self.layers = nn.Sequential(
            nn.Linear(2 * WIDTH, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, WORDS),
        )

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the scores after pairs, which have shape (n, 2)."""
        seen = [words(pairs[:, place]) for place, words in enumerate(self.words)]
        scores: Tensor = self.layers(torch.cat(seen, -1))
        return scores


class Training:
    """A model in training. A seed decides its first weights; `data` decides what it sees.

    Attributes:
        model: The model in training.
        optimizer: The model's optimizer.
        data: The generator that batches are drawn with.
    """

    def __init__(self, seed: int, lr: float) -> None:
        torch.manual_seed(seed)
        self.model = Model()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.data = Generator().manual_seed(seed + 1)

    def update(self) -> None:
        """Make one step on a batch that was never seen."""
        pairs = torch.multinomial(TEACHER.often, BATCH, replacement=True, generator=self.data)
        words = torch.multinomial(TEACHER.next[pairs], 1, generator=self.data)[:, 0]
        self.optimizer.zero_grad()
        cross_entropy(self.model(TEACHER.pairs[pairs]), words).backward()
        self.optimizer.step()

    @torch.no_grad()
    def loss(self) -> float:
        """Return the loss over all pairs, each weighted by its frequency."""
        scores = self.model(TEACHER.pairs).log_softmax(-1)
        return float(-(TEACHER.often * (TEACHER.next * scores).sum(-1)).sum())

    def state(self) -> dict[str, Any]:
        """Return copies of the weights and of the optimizer's moments."""
        held = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return copy.deepcopy(held)

    def load(self, state: dict[str, Any], seed: int) -> None:
        """Go back to a state, and draw other data from there on."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.data.manual_seed(seed)
