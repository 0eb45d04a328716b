"""`demo`: a server with three small trainings, to try every command on."""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from pacesetter._client import Client
from pacesetter._errors import PacesetterError
from pacesetter._service import ServiceMissingError
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context
from pacesetter.cli.exits import USAGE, CommandError
from pacesetter.cli.listing import listed
from pacesetter.cli.screen import styled
from pacesetter.cli.server import Server

STEPS_A_SECOND = 25
WEIGHTS = 16
NOISE = 0.3


@dataclass(frozen=True)
class Plan:
    """A small training.

    Attributes:
        name: The name of the session.
        spec: The description of the session.
        every: Steps between two reports of the loss.
    """

    name: str
    spec: Mapping[str, Any]
    every: int = 5


PLANS = (
    Plan(
        "vit",
        {
            "base_lr": 0.3,
            "total_steps": 2_000,
            "schedule": {
                "kind": "warmup",
                "steps": 100,
                "schedule": {"kind": "cosine", "total_steps": 1_900},
            },
            "labels": {"team": "vision"},
        },
    ),
    Plan(
        "resnet",
        {
            "base_lr": 0.2,
            "schedule": {"kind": "constant"},
            "controllers": [
                {
                    "kind": "plateau",
                    "metric": "loss",
                    "factor": 0.5,
                    "patience": 20,
                    "min_lr": 0.002,
                }
            ],
            "max_lookahead": 25,
            "labels": {"team": "vision"},
        },
        every=10,
    ),
    Plan(
        "gpt",
        {
            "base_lr": 0.25,
            "total_steps": 1_500,
            "schedule": {
                "kind": "linear",
                "start_factor": 1.0,
                "end_factor": 0.05,
                "total_iters": 1_500,
            },
            "labels": {"team": "language"},
        },
    ),
)


def add_to(app: typer.Typer) -> None:
    """Make the command part of an app."""
    commands(app, "The server", {"demo": demo})


def demo(
    context: Context,
    *,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long it lasts; Ctrl-C ends it sooner.", min=1)
    ] = 120.0,
) -> None:
    """Run a server and three small trainings here, to try this on.

    Nothing of it is kept. It needs pacesetter[service], and no torch.
    """
    with _served() as url, _trained(url):
        screen, until = context.screen, time.monotonic() + seconds
        hints = (
            "in another terminal:",
            f"  export PACESETTER_URL={url}",
            "  pacesetter watch vit",
            "  pacesetter scale vit 0.5 -m 'loss is unstable' --dry-run",
            "  pacesetter explain resnet --last-change",
        )
        if context.as_json:
            screen.json_line({"url": url})
        else:
            for each in hints:
                screen.line(each)
        server = Server(url)
        with contextlib.closing(server):
            if not screen.is_terminal:
                while time.monotonic() < until:
                    time.sleep(min(0.5, seconds))
                return

            def look() -> RenderableType:
                rows = list(server.status())
                said = (styled(each, "dim") for each in hints)
                return Group(listed(rows, more=False), "", *said)

            with Live(look(), console=screen.console, auto_refresh=False, screen=True) as live:
                while time.monotonic() < until:
                    time.sleep(0.5)
                    live.update(look(), refresh=True)


@contextlib.contextmanager
def _served() -> Iterator[str]:
    """Run a server on a free port, with a database that is removed at the end.

    Raises:
        CommandError: The server's part is not installed.
    """
    from pacesetter.testing import serve  # noqa: PLC0415 - it looks for pytest

    try:
        running = serve()
        with running as server:
            yield server.url
    except ServiceMissingError as error:
        raise CommandError(USAGE, str(error), "pip install 'pacesetter[cli,service]'") from None


@contextlib.contextmanager
def _trained(url: str) -> Iterator[None]:
    """Train each plan in its own thread, until the end."""
    over = threading.Event()
    threads = [
        threading.Thread(target=_train, args=(url, plan, over), name=plan.name, daemon=True)
        for plan in PLANS
    ]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in threads:
            each.join(5)


def _train(url: str, plan: Plan, over: threading.Event) -> None:
    """Minimise a noisy bowl with the session's rates: a training, as far as rates are concerned."""
    drawn = random.Random(plan.name)  # noqa: S311 - noise, no secret
    weights = [drawn.gauss(0, 3) for _ in range(WEIGHTS)]
    with contextlib.suppress(PacesetterError), Client(url, actor="trainer") as client:
        session = client.session(plan.name, **plan.spec)
        step, total = 0, plan.spec.get("total_steps") or math.inf
        while step < total and not over.wait(1 / STEPS_A_SECOND):
            rate = session.lr(step)
            for i, weight in enumerate(weights):
                slope = 0.05 * (i + 1) * weight + drawn.gauss(0, NOISE)
                weights[i] = weight - rate * slope
            if step % plan.every == 0:
                session.report(step, loss=sum(w * w for w in weights) / WEIGHTS)
            step += 1
        session.close()
