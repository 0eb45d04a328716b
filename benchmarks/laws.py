"""The laws: windows evaluated by the core, against torch's schedulers and against plain NumPy.

A power in torch has the bits of the C library's `pow`, which NumPy's `float_power` calls; NumPy's
`**` gives others. So for laws with powers the baseline is NumPy with `float_power`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import lr_scheduler

from benchmarks.harness import (
    OUR_CORE,
    Effort,
    Goal,
    Result,
    at_least,
    at_most,
    pinned,
    result,
    seconds_of,
    take_turns,
)
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import MAX_WINDOW, SessionSpec
from pacesetter_service.core.timeline import Timeline

STEPS = 1_000_000
WARMUP = 10_000
BASE = 0.1
FAR = 10**9
SAME_BITS = "NumPy, float_power"
WINDOW = 1_000

Values = Callable[[int, int], NDArray[np.float64]]
Torch = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
Plain = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Law:
    """A schedule in our words, as a torch scheduler, and as one would write it in NumPy.

    `baseline` names the NumPy function.
    """

    schedule: dict[str, Any]
    torch: Torch
    plain: Plain
    over_torch: Goal | None = None
    over_plain: Goal | None = None
    baseline: str = "plain NumPy"

    @property
    def kind(self) -> str:
        """Our name of its kind."""
        return str(self.schedule["kind"])


def _falling(t: NDArray[np.float64], steps: float) -> NDArray[np.float64]:
    return (1 + np.cos(np.pi * t / steps)) / 2


def _plain_warmup_cosine(t: NDArray[np.float64]) -> NDArray[np.float64]:
    decay = BASE * _falling(t - WARMUP, STEPS - WARMUP)
    return np.where(t < WARMUP, BASE * (t + 1) / WARMUP, decay)


def _plain_one_cycle(t: NDArray[np.float64]) -> NDArray[np.float64]:
    peak, last = 0.3 * STEPS - 1, STEPS - 1
    first, final = BASE / 25, BASE / 25 / 1e4
    rise = BASE + (first - BASE) * _falling(t, peak)
    return np.where(t <= peak, rise, final + (BASE - final) * _falling(t - peak, last - peak))


def _plain_cyclic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = np.abs(t / 2000 - 2 * np.floor(1 + t / 4000) + 1)
    height: NDArray[np.float64] = np.maximum(0, 1 - distance)
    return 0.001 + (BASE - 0.001) * height


def _torch_warmup_cosine(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    rise = lr_scheduler.LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS - WARMUP)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], [WARMUP])


LAWS = (
    Law(
        {"kind": "warmup_cosine", "warmup_steps": WARMUP, "total_steps": STEPS},
        _torch_warmup_cosine,
        _plain_warmup_cosine,
        at_least(150),
        at_least(0.2),
    ),
    Law(
        {"kind": "cosine", "total_steps": STEPS},
        partial(lr_scheduler.CosineAnnealingLR, T_max=STEPS),
        lambda t: BASE * _falling(t, STEPS),
    ),
    Law(
        {"kind": "one_cycle", "total_steps": STEPS},
        partial(lr_scheduler.OneCycleLR, max_lr=BASE, total_steps=10 * STEPS, cycle_momentum=False),
        _plain_one_cycle,
    ),
    Law(
        {"kind": "cyclic", "base_lr": 0.001},
        partial(lr_scheduler.CyclicLR, base_lr=0.001, max_lr=BASE, cycle_momentum=False),
        _plain_cyclic,
    ),
    Law(
        {"kind": "exponential", "gamma": 0.99999},
        partial(lr_scheduler.ExponentialLR, gamma=0.99999),
        lambda t: BASE * np.float_power(0.99999, t),
        over_plain=at_least(0.2),
        baseline=SAME_BITS,
    ),
    Law(
        {"kind": "polynomial", "total_steps": STEPS, "power": 2.0},
        partial(lr_scheduler.PolynomialLR, total_iters=STEPS, power=2.0),
        lambda t: BASE * np.float_power(1 - t / STEPS, 2.0),
        over_plain=at_least(0.2),
        baseline=SAME_BITS,
    ),
)

ENDLESS: tuple[dict[str, Any], ...] = (
    {"kind": "warmup_cosine", "warmup_steps": WARMUP, "total_steps": 2 * FAR},
    {"kind": "one_cycle", "total_steps": 4 * FAR},
    {"kind": "cyclic", "base_lr": 0.001},
    {"kind": "exponential", "gamma": 1 - 1e-10},
)


def run(effort: Effort) -> Iterator[Result]:
    """Evaluate a million steps of each law, in the largest windows, and windows near and far."""
    with pinned(OUR_CORE):
        for law in LAWS:
            yield from _compare(effort, law)
        yield _squared(effort)
        for schedule in ENDLESS:
            yield _far(effort, schedule)


def _compare(effort: Effort, law: Law) -> Iterator[Result]:
    timeline = _timeline(law.schedule)
    scheduler = law.torch(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASE))
    rounds = take_turns(
        law.kind,
        effort.rounds,
        partial(_rate, timeline.values),
        partial(_torch_rate, scheduler, effort.seconds / 8),
        partial(_plain_rate, law.plain),
    )
    yield result(
        f"law, {law.kind}",
        ((ours, theirs) for ours, theirs, _ in rounds),
        unit="steps/ms",
        against=f"torch {type(scheduler).__name__}",
        goal=law.over_torch,
    )
    yield result(
        f"law, {law.kind}",
        ((ours, plain) for ours, _, plain in rounds),
        unit="steps/ms",
        against=law.baseline,
        goal=law.over_plain,
    )


def _squared(effort: Effort) -> Result:
    """Compare the square with a multiplication, which is faster and gives other bits."""
    timeline = _timeline({"kind": "polynomial", "total_steps": STEPS, "power": 2.0})
    rounds = take_turns(
        "squared",
        effort.rounds,
        partial(_rate, timeline.values),
        partial(_plain_rate, lambda t: BASE * (1 - t / STEPS) ** 2),
    )
    return result(
        "law, polynomial, squared",
        ((ours, plain) for ours, plain in rounds),
        unit="steps/ms",
        against="NumPy, x * x",
        note="x * x has not torch's bits",
    )


def _timeline(schedule: dict[str, Any]) -> Timeline:
    spec = SessionSpec.model_validate({"name": "law", "base_lr": BASE, "schedule": schedule})
    return create(spec).timelines["lr"]


def _rate(values: Values) -> float:
    """Return steps a millisecond."""

    def all_windows() -> None:
        for start in range(0, STEPS, MAX_WINDOW):
            values(start, min(MAX_WINDOW, STEPS - start))

    return STEPS / seconds_of(all_windows) / 1e3


def _plain_rate(plain: Plain) -> float:
    return _rate(lambda start, count: plain(np.arange(start, start + count, dtype=float)))


def _torch_rate(scheduler: lr_scheduler.LRScheduler, seconds: float) -> float:
    scheduler.optimizer.step()  # torch warns when a scheduler is stepped before its optimizer

    def walk() -> None:
        for _ in range(500):
            scheduler.step()

    blocks, elapsed = 0, 0.0
    while elapsed < seconds:
        elapsed += seconds_of(walk)
        blocks += 1
    return 500 * blocks / elapsed / 1e3


def _far(effort: Effort, schedule: dict[str, Any]) -> Result:
    timeline = _timeline(schedule)

    def microseconds(start: int) -> float:
        def windows() -> None:
            for _ in range(200):
                timeline.values(start, WINDOW)

        return min(seconds_of(windows) for _ in range(5)) / 200 * 1e6

    name = f"window at 10^9, {schedule['kind']}"
    rounds = take_turns(name, effort.rounds, partial(microseconds, FAR), partial(microseconds, 0))
    return result(
        name,
        ((far, near) for far, near in rounds),
        unit="us",
        against="window at 0",
        goal=at_most(1.2),
    )
