"""What `live_control.py` saw: numbers and sentences for its picture and its page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Given:
    """An order as it was given over HTTP.

    Attributes:
        during: the first step that was not handed out when it was given.
        body: the body of the request.
        effective_step: the first step that it holds for, by the answer.
        while_dead: whether no trainer ran then.
        late: whether the step that was wanted had been handed out already.
    """

    during: int
    body: dict[str, Any]
    effective_step: int
    while_dead: bool = False
    late: bool = False

    @property
    def kind(self) -> str:
        """What was ordered."""
        return str(self.body["kind"])


@dataclass(frozen=True)
class Explained:
    """What the service says about a step."""

    step: int
    text: str


@dataclass(frozen=True)
class Proof:
    """Which trainings have the same weights, to the bit.

    Attributes:
        hashes: for each training the SHA-256 of its weights and momentum.
        rates_agree: whether the optimizer held, at each step, what the service has on record.
        tensors: how many tensors were compared.
    """

    hashes: dict[str, str]
    rates_agree: bool
    tensors: int

    @property
    def same(self) -> bool:
        """Whether all trainings reached the same weights with the rates on record."""
        return self.rates_agree and len(set(self.hashes.values())) == 1


@dataclass(frozen=True)
class Dead:
    """The attempt that ended with the kill, as far as it was reported.

    Attributes:
        start: where the next attempt began: the step of the checkpoint.
        lrs: the learning rates from there on.
        losses: the losses from there on.
    """

    start: int
    lrs: list[float]
    losses: list[float]

    @property
    def last(self) -> int:
        """The last step that was reported before the kill."""
        return self.start + len(self.lrs) - 1


@dataclass(frozen=True)
class Story:
    """The whole story.

    Attributes:
        spec: what the session was created with.
        steps: how long the training was.
        planned: the learning rates that the service forecast before it began.
        lrs: those that were trained with, in the last attempt's lineage.
        losses: the training loss of each step.
        val_losses: pairs of a step and the loss on the validation data after it.
        orders: what was ordered, in the order of time.
        dead: the attempt that was killed.
        log: pairs of a step and a sentence: the service's own log.
        explained: what it says about some steps.
        proof: the proof by the replays.
    """

    spec: dict[str, Any]
    steps: int
    planned: list[float]
    lrs: list[float]
    losses: list[float | None]
    val_losses: list[tuple[int, float]]
    orders: list[Given]
    dead: Dead
    log: list[tuple[int, str]]
    explained: list[Explained]
    proof: Proof

    def save(self, path: Path) -> None:
        """Write it as JSON; floats in the shortest form that gives the same bits again."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        told: dict[str, Any] = json.loads(path.read_text())
        return cls(
            **told
            | {
                "val_losses": [(step, loss) for step, loss in told["val_losses"]],
                "orders": [Given(**each) for each in told["orders"]],
                "dead": Dead(**told["dead"]),
                "log": [(step, text) for step, text in told["log"]],
                "explained": [Explained(**each) for each in told["explained"]],
                "proof": Proof(**told["proof"]),
            }
        )
