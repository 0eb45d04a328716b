"""`merge`: which checkpoints to average, with which weights, in place of a decay."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pacesetter._merge import Merge
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.options import Name
from pacesetter.cli.screen import styled, table
from pacesetter.cli.text import count

LOOK = "Look"


def add_to(app: typer.Typer) -> None:
    """Make the command part of an app."""
    commands(app, LOOK, {"merge": merge})


def merge(
    context: Context,
    *,
    name: Name,
    checkpoints: Annotated[
        list[int],
        typer.Argument(
            help="Steps: each checkpoint is of the weights before that step's update.",
            metavar="STEP…",
            show_default=False,
        ),
    ],
    shape: Annotated[
        str,
        typer.Option("--shape", help="linear, cosine, 1-sqrt, square or exponential."),
    ] = "1-sqrt",
    over: Annotated[
        int | None,
        typer.Option(
            "--over", help="The steps of the decay; all that are constant.", show_default=False
        ),
    ] = None,
    floor: Annotated[
        float, typer.Option("--floor", help="What it comes down to, as a part of the rate.")
    ] = 0.0,
) -> None:
    """Say which checkpoints to average, with which weights, in place of a decay.

    The rate must have been constant over them. pacesetter.torch.merge averages them.
    """
    found: Merge = context.server.merge(name, checkpoints, shape=shape, over=over, floor=floor)
    if not context.answers(plain(found.answer)):
        _shown(context, found)


def _shown(context: Context, found: Merge) -> None:
    rows: list[list[Any]] = [
        [count(step), f"{weight:.6f}", f"{share:.6f}"]
        for step, weight, share in zip(found.steps, found.weights, found.shares, strict=True)
    ]
    columns = ("checkpoint", "weight", "share of what led to it")
    context.screen.show(table(columns, rows, right=columns))
    for each in found.left_out:
        context.screen.line(
            styled(f"left out: {count(each['step'])}", "yellow"), f": {each['reason']}"
        )
    steps = count(found.action["steps"])
    context.screen.line(
        styled(f"in place of a {found.shape} cooldown over {steps} steps", "dim"),
        styled(f" from step {count(found.at)} on", "dim"),
    )
