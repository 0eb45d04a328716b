"""What single ranks do in the tests of Accelerate."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.data import DataLoader

from pacesetter import Client, PacesetterError
from pacesetter.accelerate import AcceleratedRemoteLR
from pacesetter.distributed import open_session
from pacesetter.torch import RemoteLR

BATCHES = 20


@contextmanager
def fresh(**options: Any) -> Iterator[Accelerator]:
    """Return an accelerator that knows nothing of earlier ones."""
    with forgotten():
        yield Accelerator(cpu=True, **options)


@contextmanager
def forgotten() -> Iterator[None]:
    """Reset at the end what Accelerate knows of this process."""
    try:
        yield
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._shared_state.clear()


class Job:
    """A small training, prepared by Accelerate."""

    def __init__(self, accelerator: Accelerator, client: Client, name: str, **options: Any) -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        # With two processes each has half of the batches.
        loader = DataLoader(torch.randn(2 * BATCHES * accelerator.num_processes, 4), batch_size=2)
        self.accelerator = accelerator
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        self.session = open_session(client, name, **options)
        self.scheduler = AcceleratedRemoteLR(self.optimizer, self.session)
        self.rates: list[float] = []

    def train(self, first: int = 0, last: int = BATCHES) -> list[float]:
        """Train some batches, and return the rate of each update."""
        self.rates = []
        hook = self.optimizer.optimizer.register_step_pre_hook(self._note)
        try:
            for at, batch in enumerate(self.loader):
                if first <= at < last:
                    self._train(batch)
        finally:
            hook.remove()
        return self.rates

    def _train(self, batch: torch.Tensor) -> None:
        with self.accelerator.accumulate(self.model):
            self.accelerator.backward(self.model(batch).square().mean())
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    @property
    def weights(self) -> list[bytes]:
        """The bits of the weights."""
        return [each.detach().numpy().tobytes() for each in self.model.parameters()]


def train(rank: int, url: str, name: str, folder: str) -> Any:
    """Train with accumulation, go back to the middle, and prepare what must not be prepared."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    where = url if rank == 0 else "http://127.0.0.1:9"
    with (
        Client(where, retry_for=20.0, max_wait=20.0) as client,
        fresh(gradient_accumulation_steps=2) as accelerator,
    ):
        job = Job(accelerator, client, name)
        assert accelerator.prepare(job.scheduler) is job.scheduler
        first = job.train(last=10)
        accelerator.save_state(folder)
        accelerator.wait_for_everyone()
        second, weights = job.train(first=10), job.weights
        accelerator.load_state(folder)
        again = job.train(first=10)
        try:
            accelerator.prepare(RemoteLR(torch.optim.SGD(job.model.parameters()), job.session))
        except PacesetterError as error:
            refused = str(error)
        return first, second, again, weights == job.weights, job.session.attempt, refused
