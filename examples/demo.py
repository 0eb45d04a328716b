"""Six trainings whose learning rates live in a service; `make demo` runs this.

A small network learns to read digits with each of five well-known schedulers, and fetches the
learning rate of every single step over HTTP. torch's own schedulers run beside it: each rate that
is used is compared with theirs, and one mismatch ends the demo with exit code 1. On the way:

* the server is killed with SIGKILL under a running training, and started again;
* an operator halves the learning rate of a running training from outside. This one is a sixth,
  which takes the learning rates of an epoch at a time: requests can be as few as you like.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from demo_digits import EPOCH, EPOCHS, LR, STEPS, Digits, Learner
from demo_picture import draw
from demo_service import ServiceProcess
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)

from pacesetter import Client
from pacesetter.torch import RemoteLR

PICTURE = Path("out/demo.png")
# The service computes closed forms; torch mostly uses recursions, which gather rounding errors.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Plan:
    """A training: its law as data for the service, and the same law as a torch scheduler.

    Attributes:
        name: the name of the session.
        law: the law in words.
        spec: the law as data.
        torch: makes torch's scheduler.
        tolerance: the relative difference that a learning rate may have from torch's.
        lookahead: the most steps that one request may fetch.
        kill_at: the step during which the server is killed.
        halve_at: the step during which an operator halves the learning rate.
    """

    name: str
    law: str
    spec: dict[str, Any]
    torch: Callable[[Optimizer], LRScheduler]
    tolerance: float = TOLERANCE
    lookahead: int = 1
    kill_at: int | None = None
    halve_at: int | None = None


PLANS = (
    Plan(
        "step",
        "halved every 20 epochs",
        {"schedule": {"kind": "step", "step_size": 20 * EPOCH, "gamma": 0.5}},
        lambda optimizer: StepLR(optimizer, step_size=20 * EPOCH, gamma=0.5),
    ),
    Plan(
        "exponential",
        "5 % less with each epoch",
        {"schedule": {"kind": "exponential", "gamma": 0.95, "per": EPOCH}},
        lambda optimizer: ExponentialLR(optimizer, gamma=0.95 ** (1 / EPOCH)),
    ),
    Plan(
        "cosine",
        "0.1 to 0.001 in 100 epochs",
        {"schedule": {"kind": "cosine", "total_steps": STEPS, "min_lr": 0.001}},
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=0.001),
    ),
    Plan(
        "plateau",
        "halved when validation stalls",
        {"controllers": [{"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 10}]},
        lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=10),
        tolerance=0.0,
        # The worst training to kill a server under: this law depends on what the server has seen.
        kill_at=47 * EPOCH + EPOCH // 2,
    ),
    Plan(
        "cyclical",
        "triangles of 40 epochs",
        {"schedule": {"kind": "cyclic", "base_lr": 0.001, "step_size_up": 20 * EPOCH}},
        lambda optimizer: CyclicLR(
            optimizer, base_lr=0.001, max_lr=LR, step_size_up=20 * EPOCH, cycle_momentum=False
        ),
    ),
    Plan(
        "halved-by-rest",
        "5 % less with each epoch",
        {"schedule": {"kind": "exponential", "gamma": 0.95, "per": EPOCH}},
        lambda optimizer: ExponentialLR(optimizer, gamma=0.95 ** (1 / EPOCH)),
        lookahead=EPOCH,
        halve_at=15 * EPOCH + EPOCH // 2,
    ),
)


class MismatchError(Exception):
    """A learning rate is not what it must be."""


@dataclass
class Run:
    """The outcome of a plan.

    Attributes:
        plan: the plan that was carried out.
        learner: the network that was trained.
        lrs: the learning rate that each step used.
        torch_lrs: the learning rate of torch's own scheduler for it.
        requests: HTTP requests that were sent for it.
        seconds: how long it took.
        longest_wait: the most seconds that a step waited for the service.
        halved_from: the first step of the halved learning rate.
    """

    plan: Plan
    learner: Learner
    lrs: list[float] = field(default_factory=list)
    torch_lrs: list[float] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0
    longest_wait: float = 0.0
    halved_from: int | None = None

    def note(self, step: int, lr: float, torch_lr: float) -> None:
        """Record the learning rate of a step.

        Raises:
            MismatchError: it is not torch's.
        """
        if not math.isclose(lr, torch_lr, rel_tol=self.plan.tolerance):
            raise MismatchError(
                f"{self.plan.name}: step {step} uses the learning rate {lr!r}, torch {torch_lr!r}"
            )
        self.lrs.append(lr)
        self.torch_lrs.append(torch_lr)

    @property
    def requests_per_step(self) -> float:
        """1 for a training that asks at each step, less for one that takes windows."""
        return self.requests / STEPS

    @property
    def difference(self) -> float:
        """The largest relative difference to torch."""
        pairs = zip(self.lrs, self.torch_lrs, strict=True)
        return max(abs(lr - torch_lr) / torch_lr for lr, torch_lr in pairs)


class Reference:
    """torch's own scheduler, on an optimizer that trains nothing."""

    def __init__(self, plan: Plan) -> None:
        self._optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=LR)
        self._scheduler = plan.torch(self._optimizer)

    @property
    def lr(self) -> float:
        """The learning rate of the current step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, val_loss: float | None) -> None:
        """Advance by one step; the last step of an epoch comes with the validation loss."""
        self._optimizer.step()
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step()
        elif val_loss is not None:
            self._scheduler.step(val_loss)

    def halve(self) -> None:
        """Halve it by hand: torch has no other way."""
        self._optimizer.param_groups[0]["lr"] *= 0.5


class CountingTransport(httpx.HTTPTransport):
    """Counts what the client really sends, retries included."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:  # noqa: D102
        self.requests += 1
        return super().handle_request(request)


class Demo:
    """One service, one client, one terminal, and six trainings one after the other."""

    def __init__(self, service: ServiceProcess, console: Console) -> None:
        self._service = service
        self._wire = CountingTransport()
        self._client = Client(service.url, transport=self._wire, max_wait=60.0)
        self._digits = Digits.load()
        self._console = console
        self._progress = progress_bar(console)

    def play(self) -> list[Run]:
        """Go through all plans."""
        with self._client, self._progress:
            return [self._run(plan) for plan in PLANS]

    def _run(self, plan: Plan) -> Run:
        bar = self._progress.add_task(plan.name, total=EPOCHS, lr=LR, loss=math.nan)
        began, sent = time.perf_counter(), self._wire.requests
        run = self._train(plan, bar)
        run.seconds, run.requests = time.perf_counter() - began, self._wire.requests - sent
        self._audit(run)
        self._progress.remove_task(bar)
        self._console.print(
            f"[green]✓[/] [bold]{plan.name:<14}[/]  {STEPS:,} steps, {run.requests:>5,} requests, "
            f"{run.seconds:4.1f} s, each rate as torch's"
        )
        return run

    def _train(self, plan: Plan, bar: TaskID) -> Run:
        learner = Learner(self._digits)
        reference = Reference(plan)
        run = Run(plan, learner)
        session = self._client.session(
            plan.name, base_lr=LR, max_lookahead=plan.lookahead, total_steps=STEPS, **plan.spec
        )
        scheduler = RemoteLR(learner.optimizer, session, metric="val_loss")

        for step, batch in enumerate(learner.batches()):
            run.note(step, learner.lr, reference.lr)
            val_loss = learner.update(*batch)

            if step == plan.kill_at:
                self._kill(step)
            if step == plan.halve_at:
                run.halved_from = self._halve(plan.name, step)

            asked = time.perf_counter()
            scheduler.step(val_loss)  # the learning rate of the next step, over HTTP
            run.longest_wait = max(run.longest_wait, time.perf_counter() - asked)

            reference.step(val_loss)
            if step + 1 == run.halved_from:
                reference.halve()
            if val_loss is not None:
                self._progress.update(bar, advance=1, lr=learner.lr, loss=val_loss)
        session.close()
        return run

    def _kill(self, step: int) -> None:
        """Kill the server for a while; the training is not told."""
        pid = self._service.pid
        self._console.print(f"[red]✗[/] SIGKILL to process {pid}, the server, during step {step}")
        self._service.crash(back_after=1.0)

    def _halve(self, name: str, step: int) -> int:
        """Halve the rate by one request, as an operator, an alarm or a script may from anywhere."""
        path = f"/v1/sessions/{name}/actions"
        order = {"kind": "scale", "factor": 0.5, "reason": "the loss is noisy"}
        answer = httpx.post(self._service.url + path, json=order, trust_env=False)
        effective = int(answer.raise_for_status().json()["effective_step"])
        self._console.print(
            f"[yellow]½[/] POST {path} during step {step}\n  {json.dumps(order)}\n"
            f"  holds from step {effective}, the first that no optimizer has been told yet"
        )
        return effective

    def _audit(self, run: Run) -> None:
        """Read the whole curve back: the server's record must be what the optimizer used."""
        record = self._client.lr(run.plan.name, 0, count=STEPS)
        if record["series"]["lr"] != run.lrs or record["sealed_until"] != STEPS:
            raise MismatchError(f"{run.plan.name}: the server has other learning rates on record")


def progress_bar(console: Console) -> Progress:
    """Return a bar for the running training; it shows nothing where the output is a file."""
    return Progress(
        TextColumn("[cyan]…[/] [bold]{task.description}"),
        BarColumn(bar_width=18),
        TextColumn("epoch {task.completed:>3.0f}"),
        TextColumn("[cyan]lr {task.fields[lr]:.5f}"),
        TextColumn("[magenta]loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def table_of(runs: list[Run]) -> Table:
    """Return the outcome; losses are the last epoch's, the accuracy is that on the test images."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nscheduler", style="bold", no_wrap=True)
    headings = (
        "train\nloss",
        "val.\nloss",
        "test\naccuracy",
        "LR\nrange",
        "requests\nper step",
        "against\ntorch",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.plan.name,
            f"{run.learner.epoch_losses[-1]:.4f}",
            f"{run.learner.val_losses[-1]:.4f}",
            f"{run.learner.accuracy():.1%}",
            f"{min(run.lrs):.3g} to {max(run.lrs):.3g}",
            f"{run.requests_per_step:.2f}",
            f"± {run.difference:.0e}" if run.difference else "same bits",
        )
    return table


class ClientLog(logging.Handler):
    """Prints the client's log messages among the other output."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:  # noqa: D102
        text = Text(f"client: {record.getMessage()}", style="dim")
        self._console.print(Padding(text, (0, 0, 0, 2)))


def main() -> None:
    """Play the demo, show the table, draw the picture; with `--stay`, keep serving until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Six trainings that follow the service.")
    parser.add_argument("--stay", action="store_true", help="keep the service up in the end")
    stays = parser.parse_args().stay
    began = time.perf_counter()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100
    logging.getLogger("pacesetter").addHandler(ClientLog(console))
    torch.set_num_threads(1)  # the network is small, and the service wants a core too

    with tempfile.TemporaryDirectory() as folder, ServiceProcess(Path(folder)) as service:
        console.print(
            f"[bold]Pacesetter[/] serves on {service.url}, as process {service.pid}, on SQLite.\n"
            "Open that address in a browser to watch the trainings, and to steer them.\n"
        )
        try:
            runs = Demo(service, console).play()
        except MismatchError as error:
            sys.exit(f"MISMATCH  {error}")

        draw(runs, PICTURE)
        console.print()
        console.print(table_of(runs))
        console.print(
            f"\nEach of the {len(runs) * STEPS:,} learning rates used is torch's, and is what the "
            f"server has on record.\nThe curves are in [bold]{PICTURE}[/]. "
            f"[dim]It took {time.perf_counter() - began:.0f} s.[/]"
        )
        if stays:
            console.print(f"\nThe story stays on [bold]{service.url}[/] until you press Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            console.print("[dim]`make demo STAY=1` keeps the service up, to look around.[/]")


if __name__ == "__main__":
    main()
