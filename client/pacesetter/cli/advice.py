"""`lint` and `recommend`: known pitfalls of a description, and one to start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from pacesetter.cli.arguments import document
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context
from pacesetter.cli.drawing import Curve
from pacesetter.cli.exits import REFUSED
from pacesetter.cli.screen import Screen, styled

MAKE = "Make"

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "hint": "cyan"}

Architecture = Annotated[
    str | None,
    typer.Option("--architecture", help="transformer, cnn, …", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(app, MAKE, {"lint": lint, "recommend": recommend})


def lint(
    context: Context,
    *,
    file: Annotated[
        str,
        typer.Option("-f", "--file", help="A JSON or YAML file; - is stdin.", show_default=False),
    ],
    planned_steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="How long the training is, if the file does not say it.",
            show_default=False,
        ),
    ] = None,
    architecture: Architecture = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
) -> None:
    """Look for known pitfalls in a description.

    The exit status is 1 if one of them is an error.
    """
    found = context.server.lint(
        document(file), planned_steps=planned_steps, architecture=architecture
    )
    if not context.answers({"findings": found}):
        findings_shown(context.screen, found)
        if not found:
            context.screen.line(styled("nothing found", "green"))
    if not without_faults(found, strict=strict):
        raise typer.Exit(REFUSED)


def without_faults(found: Iterable[Mapping[str, Any]], *, strict: bool) -> bool:
    """Return whether nothing was found that makes a check fail."""
    grave = {"error", "warning"} if strict else {"error"}
    return not any(each.get("severity") in grave for each in found)


def findings_shown(screen: Screen, found: Iterable[Mapping[str, Any]]) -> None:
    """Print known pitfalls: where, what and what to do."""
    for each in found:
        severity = str(each.get("severity"))
        screen.line(
            styled(f"{severity}: ", STYLES.get(severity, "")),
            f"{each.get('pointer') or '/'}: {each.get('message')}",
            styled(f"  [{each.get('code')}]", "dim"),
        )
        screen.line(styled("  -> ", "bold"), each.get("advice"))


def recommend(
    context: Context,
    *,
    architecture: Annotated[str, typer.Argument(help="transformer, cnn, …", show_default=False)],
    total_steps: Annotated[int, typer.Argument(help="How long it is.", show_default=False)],
    regime: Annotated[
        str | None,
        typer.Option(
            "--regime", help="scratch, pretraining, transfer, fine-tune.", show_default=False
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option("--optimizer", help="sgd, adam, adamw, other.", show_default=False),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Samples of the data.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Samples in a step.", show_default=False)
    ] = None,
    range_test_max_lr: Annotated[
        float | None,
        typer.Option(
            "--max-lr", help="Where a range test's loss fell fastest.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="What decides.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the session.", show_default=False)
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option("--parameters", help="Of the model, without embeddings.", show_default=False),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Over the whole training.", show_default=False)
    ] = None,
) -> None:
    """Propose a description for a training, with reasons."""
    answer = context.server.recommend(
        architecture,
        total_steps,
        regime=regime,
        optimizer=optimizer,
        samples=samples,
        batch_size=batch_size,
        range_test_max_lr=range_test_max_lr,
        metric=metric,
        name=name,
        parameters=parameters,
        tokens=tokens,
    )
    if context.answers(answer):
        return
    screen = context.screen
    for each in answer["reasons"]:
        screen.line(styled(each["choice"], "bold"), f": {each['because']}")
        screen.line(styled(f"  {each['source']}", "dim"))
    screen.line()
    screen.json(answer["spec"])
    curve = context.server.preview(spec=answer["spec"], count=total_steps, points=1000)
    for values in curve["series"].values():
        screen.show(screen.charted([Curve(curve["steps"], values, "cyan")], height=8))
