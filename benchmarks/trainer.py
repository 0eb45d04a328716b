"""A whole training step: followed remotely and reported, with torch's own scheduler, with none.

All sides train the same model on the same batch. The processor time of the whole process counts, so
that the background work of the client's thread is included, and other programs on the core are not.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks import servers
from benchmarks.harness import OUR_CORE, Effort, Goal, Result, at_most, pinned, result, take_turns
from pacesetter import Client, Session
from pacesetter.torch import RemoteLR

TORCH, NONE = "CosineAnnealingLR", "no scheduler"
TOTAL_STEPS = 10_000_000
CLASSES, LR = 10, 1e-3
WARM_UP, SHORT_WARM_UP = 600, 20
"""Steps after which the first, short windows are over."""

BLOCK = 20
"""Steps between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Model:
    """A multilayer perceptron and its batch: how long a step takes, and on which device."""

    name: str
    width: int
    batch: int
    device: str = "cpu"
    goal: Goal | None = None


MODELS = (
    Model("training step, tiny", width=64, batch=32, goal=at_most(1.05)),
    Model("training step, small", width=512, batch=128),
)
ON_GPU = Model("training step, GPU", width=4096, batch=1024, device="cuda", goal=at_most(1.02))


@dataclass(frozen=True, slots=True)
class Pace:
    """Microseconds for each step: of the process's time, all threads together, and by the clock."""

    cpu: float
    clock: float


Step = Callable[[], object]


def run(effort: Effort) -> Iterator[Result]:
    """Train beside a real server, which has its own core."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.service(Path(folder)) as service,
        Client(service.url) as client,
        pinned(OUR_CORE),
        _one_thread(),
    ):
        models = [*MODELS, ON_GPU] if torch.cuda.is_available() else MODELS
        models = effort.size(models, tiny=MODELS[:1])
        for number, model in enumerate(models):
            yield from _compare(effort, client, model, f"run-{number}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Restrict torch to the one core that is ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compare(effort: Effort, client: Client, model: Model, name: str) -> Iterator[Result]:
    schedule = {"kind": "cosine", "total_steps": TOTAL_STEPS}
    with client.create_session(name, schedule=schedule, base_lr=LR) as session:
        followed = _followed(model, session)
        others = [_with_torch(model), _with_torch(model), Training(model).step]
        for step in (followed, *others):
            for _ in range(effort.size(WARM_UP, SHORT_WARM_UP)):
                step()
        rounds = take_turns(
            model.name,
            2 * effort.rounds,  # short ones: the speed of a machine drifts within a second
            # What was reported is delivered within the time that is counted.
            partial(_train, followed, model.device, effort.seconds / 4, session.flush),
            *(partial(_train, step, model.device, effort.seconds / 4) for step in others),
        )
    yield from _results(model, rounds)


def _results(model: Model, rounds: Sequence[tuple[Pace, ...]]) -> Iterator[Result]:
    ours, torchs, again, none = zip(*rounds, strict=True)
    # The processor waits for a GPU by polling: there only the clock is meaningful.
    unit, of = ("us", "clock") if model.device == "cuda" else ("cpu us", "cpu")

    def compared(name: str, mine: Sequence[Pace], other: Sequence[Pace]) -> Result:
        pairs = [(getattr(a, of), getattr(b, of)) for a, b in zip(mine, other, strict=True)]
        goal = model.goal if name == model.name else None
        clock = statistics.median(a.clock / b.clock for a, b in zip(mine, other, strict=True))
        against = NONE if other is none else TORCH
        note = f"by the clock {clock:.2f}"
        return result(name, pairs, unit=unit, against=against, goal=goal, note=note)

    yield compared(model.name, ours, torchs)
    yield compared(f"{model.name}, noise: torch again", again, torchs)
    yield compared(f"{model.name}, against none", ours, none)


# -- trainings ------------------------------------------------------------------------------------


class Training:
    """A model that is trained on one batch again and again."""

    def __init__(self, model: Model) -> None:
        torch.manual_seed(0)
        self._model = torch.nn.Sequential(
            torch.nn.Linear(model.width, model.width),
            torch.nn.ReLU(),
            torch.nn.Linear(model.width, CLASSES),
        ).to(model.device)
        self._inputs = torch.randn(model.batch, model.width, device=model.device)
        self._classes = torch.randint(CLASSES, (model.batch,), device=model.device)
        self.optimizer = torch.optim.AdamW(self._model.parameters(), lr=LR)

    def step(self) -> torch.Tensor:
        """Train one step, and return the loss, which is still on the device."""
        loss = torch.nn.functional.cross_entropy(self._model(self._inputs), self._classes)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _with_torch(model: Model) -> Step:
    training = Training(model)
    scheduler = CosineAnnealingLR(training.optimizer, T_max=TOTAL_STEPS)

    def step() -> None:
        training.step()
        scheduler.step()

    return step


def _followed(model: Model, session: Session) -> Step:
    """Return a step that reports three metrics, one of them a tensor, and advances."""
    training = Training(model)
    scheduler = RemoteLR(training.optimizer, session)

    def step() -> None:
        loss = training.step()
        session.report(scheduler.last_epoch, loss=loss, accuracy=0.5, samples_per_second=1234.5)
        scheduler.step()

    return step


def _train(step: Step, device: str, seconds: float, finish: Step = lambda: None) -> Pace:
    steps = 0
    began, cpu = time.perf_counter(), time.process_time()
    while not steps or time.perf_counter() < began + seconds:
        for _ in range(BLOCK):
            step()
        if device == "cuda":
            torch.cuda.synchronize()  # otherwise the clock would time the queueing
        steps += BLOCK
    finish()
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
    return Pace(1e6 * cpu / steps, 1e6 * elapsed / steps)
