"""The arms that `closed_loop.py` compares, and the faults that it provokes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closed_loop_tasks import Task
from demo_digits import Examples

Spec = dict[str, Any]

PLATEAU = {"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 3}
GREEDY = {"kind": "greedy", "metric": "val_loss", "factor": 0.8, "patience": 1}
GUARD = {
    "kind": "spike_guard",
    "metric": "loss",
    "factor": 0.1,
    "rewarm": 20,
    "cooldown": 20,
    "max_trips": 3,
}


@dataclass(frozen=True)
class Arm:
    """A way to get learning rates.

    Attributes:
        name: for tables and pictures.
        falls: whether the law is the cosine; otherwise the rate is constant after the warmup.
        controllers: how the server reacts to the reports.
        clip: the norm that gradients are clipped to.
        goes_back: whether the trainer does what the notice `roll_back` says.
    """

    name: str
    falls: bool = False
    controllers: tuple[Spec, ...] = ()
    clip: float | None = None
    goes_back: bool = False

    @property
    def guarded(self) -> bool:
        """Whether its controller decides at each step; otherwise once for each validation."""
        return any(each["kind"] == "spike_guard" for each in self.controllers)

    def spec(self, task: Task, base_lr: float) -> Spec:
        """Return the description of the session for the service."""
        warmup = task.steps // 20
        body: Spec = {"kind": "constant"}
        if self.falls:
            body = {"kind": "cosine", "total_steps": task.steps - warmup}
        spec: Spec = {
            "base_lr": base_lr,
            "total_steps": task.steps,
            "schedule": {"kind": "warmup", "steps": warmup, "schedule": body},
        }
        if self.controllers:
            rules = [{**each, "from_step": warmup} for each in self.controllers]
            spec["controllers"] = rules
            spec["max_lookahead"] = 1 if self.guarded else task.every
        return spec


FIXED = Arm("cosine", falls=True)
ARMS = (
    FIXED,
    Arm("constant"),
    Arm("plateau", controllers=(PLATEAU,)),
    Arm("greedy", controllers=(GREEDY,)),
    Arm("spike_guard", falls=True, controllers=(GUARD,), goes_back=True),
)

ONLY_TELLS = {**GUARD, "factor": 1.0, "rewarm": None}
PROVOKED = (
    FIXED,
    Arm("cosine, clipped", falls=True, clip=1.0),
    Arm("only lower", falls=True, controllers=(GUARD,)),
    Arm("only go back", falls=True, controllers=(ONLY_TELLS,), goes_back=True),
    Arm("spike_guard", falls=True, controllers=(GUARD,), goes_back=True),
)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in the middle of a training.

    Attributes:
        name: for files.
        what: the fault in words.
        at: its first step.
        steps: how many batches are spoiled, from there on.
        factor: the factor on their inputs.
        order: what an operator orders for that step.
    """

    name: str
    what: str
    at: int
    steps: int = 0
    factor: float = 1.0
    order: Spec | None = None

    def spoil(self, step: int, batch: Examples) -> Examples:
        """Return the batch of a step as the training gets it."""
        if not self.at <= step < self.at + self.steps:
            return batch
        inputs, targets = batch
        return inputs * self.factor, targets


BURST = Fault(
    "burst",
    "four batches in a row come with pixels of 0 to 100 instead of 0 to 1",
    at=250,
    steps=4,
    factor=100.0,
)
SLIP = Fault(
    "slip",
    "an operator multiplies the learning rate by 20 where 2.0 was meant, and does not notice",
    at=200,
    order={"kind": "scale", "factor": 20.0, "reason": "the loss falls slowly", "at": 200},
)
