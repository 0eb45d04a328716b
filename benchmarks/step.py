"""The step in the trainer: `RemoteLR.step()` against torch's own `CosineAnnealingLR.step()`."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks import servers
from benchmarks.harness import OUR_CORE, Effort, Goal, Result, at_most, pinned, result, take_turns
from pacesetter import Client
from pacesetter.torch import RemoteLR

TORCH = "CosineAnnealingLR.step"
TOTAL_STEPS = 10_000_000
LR = 0.1
OUR_BLOCK, TORCH_BLOCK = 200, 20
"""Steps that are timed together, about 50 us on either side. The few blocks in which a window ends
do not move the median.
"""

WARM_UP, SHORT_WARM_UP = 150_000, 1_000
"""Steps after which windows have grown to their full size."""


@dataclass(frozen=True, slots=True)
class Case:
    """An optimizer's param groups, and whether each of them has its own learning rate."""

    name: str
    groups: int
    own_rates: bool
    goal: Goal


CASES = (
    Case("step, 1 group", 1, own_rates=False, goal=at_most(0.15)),
    Case("step, 10 groups of one rate", 10, own_rates=False, goal=at_most(0.08)),
    Case("step, 10 groups with a rate each", 10, own_rates=True, goal=at_most(0.08)),
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Nanoseconds for each step.

    Attributes:
        steady: Of processor time, in the median block.
        total: By the clock, over everything.
    """

    steady: float
    total: float


def run(effort: Effort) -> Iterator[Result]:
    """Follow a real server in the tightest possible loop."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.service(Path(folder)) as service,
        Client(service.url) as client,
        pinned(OUR_CORE),
    ):
        for case in CASES:
            yield from _compare(effort, client, case)


def _compare(effort: Effort, client: Client, case: Case) -> Iterator[Result]:
    optimizer = _optimizer(case)
    session = client.create_session(f"groups-{case.groups}-{case.own_rates}", **_spec(case))
    ours = RemoteLR(optimizer, session)
    optimizer.step()  # both sides warn when a scheduler is stepped before its optimizer
    for _ in range(effort.size(WARM_UP, SHORT_WARM_UP)):
        ours.step()
    theirs = CosineAnnealingLR(_optimizer(case), T_max=TOTAL_STEPS)
    theirs.optimizer.step()
    rounds = take_turns(
        case.name,
        effort.rounds,
        partial(_walk, ours.step, OUR_BLOCK, effort.seconds / 2),
        partial(_walk, theirs.step, TORCH_BLOCK, effort.seconds / 2),
    )
    session.close()
    yield result(
        case.name,
        ((mine.steady, other.steady) for mine, other in rounds),
        unit="ns",
        against=TORCH,
        goal=case.goal,
    )
    yield result(
        f"{case.name}, in all",
        ((mine.total, other.total) for mine, other in rounds),
        unit="ns",
        against=TORCH,
        note="with the network, in a loop that only steps",
    )


def _spec(case: Case) -> dict[str, Any]:
    schedule = {"kind": "cosine", "total_steps": TOTAL_STEPS}
    if not case.own_rates:
        return {"schedule": schedule, "base_lr": LR}
    groups = {f"group{number}": {"base_lr": rate} for number, rate in enumerate(_rates(case))}
    return {"schedule": schedule, "groups": groups}


def _rates(case: Case) -> list[float]:
    return [LR / (number + 1) if case.own_rates else LR for number in range(case.groups)]


def _optimizer(case: Case) -> torch.optim.Optimizer:
    parameters = [(torch.nn.Parameter(torch.zeros(1)), rate) for rate in _rates(case)]
    return torch.optim.SGD([{"params": [each], "lr": rate} for each, rate in parameters])


def _walk(step: Callable[[], None], block: int, seconds: float) -> Pace:
    blocks: list[int] = []
    began = now = time.perf_counter_ns()
    end = began + int(1e9 * seconds)
    while now < end:
        before = time.thread_time_ns()
        for _ in range(block):
            step()
        blocks.append(time.thread_time_ns() - before)
        now = time.perf_counter_ns()
    return Pace(statistics.median(blocks) / block, (now - began) / len(blocks) / block)
