"""`plan`: what the loss will be under other schedules, drawn; and an order of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pacesetter._plan import Candidate, Plan
from pacesetter.cli.arguments import length
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.curves import COLOURS, Height
from pacesetter.cli.drawing import Curve
from pacesetter.cli.exits import REFUSED, CommandError
from pacesetter.cli.options import Name, Reason
from pacesetter.cli.screen import styled, table
from pacesetter.cli.text import count

STEER = "Steer"

DRAWN = 4
"""The most candidates whose curves are drawn."""


def add_to(app: typer.Typer) -> None:
    """Make the command part of an app."""
    commands(app, STEER, {"plan": plan})


def plan(
    context: Context,
    *,
    name: Name,
    metric: Annotated[str, typer.Argument(help="Its loss.", show_default=False)],
    total: Annotated[
        str | None,
        typer.Option("--total", help="Where the training is to end.", show_default=False),
    ] = None,
    loss: Annotated[
        float | None,
        typer.Option("--loss", help="Find the fewest steps to this loss.", show_default=False),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="How many steps more there may be.", show_default=False),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", help="How often it goes over its data.", show_default=False),
    ] = None,
    apply: Annotated[
        int | None,
        typer.Option("--apply", help="Order this candidate, by its number.", show_default=False),
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            "--of", help="Only if the plan is still this one, by its id.", show_default=False
        ),
    ] = None,
    reason: Reason = None,
    height: Height = 12,
) -> None:
    """Predict the loss under other schedules, and order one of them.

    Numbers in the list are those that --apply takes.
    """
    found: Plan = context.server.plan(
        name,
        metric,
        goal="fewest_steps" if loss is not None else "budget" if budget is not None else None,
        total_steps=None if total is None else length(total),
        loss=loss,
        steps=None if budget is None else length(budget),
        epochs=epochs,
    )
    if apply is not None:
        _ordered(context, found, apply, of, reason)
    elif not context.answers(plain(found.answer)):
        _drawn(context, found, height)


def _ordered(
    context: Context, found: Plan, number: int, wanted: str | None, reason: str | None
) -> None:
    if wanted is not None and wanted != found.id:
        raise CommandError(
            REFUSED,
            f"the plan is {found.id} by now, and no longer {wanted}: the training has gone on",
            "look at it again, without --apply",
        )
    if not 1 <= number <= len(found.candidates):
        raise CommandError(
            REFUSED,
            f"the plan has no candidate {number}",
            f"its candidates are 1 to {len(found.candidates)}"
            if found.candidates
            else "look at it without --apply: it says why there are none",
        )
    answer = context.server.apply_plan(
        found.session, found, number - 1, reason=context.reason(reason)
    )
    if context.answers(answer):
        return
    steps = ", ".join(count(each) for each in answer["effective_steps"])
    context.screen.line(
        styled("ordered ", "bold green"),
        found.candidates[number - 1].label,
        f"; it holds from step {steps} on",
    )


def _drawn(context: Context, found: Plan, height: int) -> None:
    screen = context.screen
    curves = [
        Curve(each.curve["steps"], each.curve["loss"], COLOURS[index % len(COLOURS)])
        for index, each in enumerate(found.candidates[:DRAWN])
        if each.curve is not None
    ]
    if curves:
        screen.line(styled(f"{found.metric}, as expected", "bold"))
        screen.show(screen.charted(curves[::-1], height=height))
    if found.candidates:
        columns = ("", "way to go on", "ends", "9 of 10 within", "gain", "without rates")
        screen.show(table(columns, _rows(found.candidates), fold=("way to go on",)))
    for finding in found.findings:
        screen.line(styled(f"{finding['code']}: ", "yellow"), finding["message"])
    if found.probe is not None:
        screen.line(styled("  -> ", "bold"), found.probe["advice"])
    for each in found.unknown:
        screen.line(styled(each, "dim"))
    if found.predicts != "nothing" and found.candidates:
        order = f"pacesetter plan {found.session} {found.metric} --apply 1 --of {found.id}"
        screen.line(styled(f"order the best, with the same options: {order}", "dim"))


def _rows(candidates: Sequence[Candidate]) -> list[list[Any]]:
    rows = []
    for index, each in enumerate(candidates):
        colour = COLOURS[index % len(COLOURS)] if index < DRAWN and each.curve else ""
        within = "-" if each.low is None else f"{each.low:.4g} to {each.high:.4g}"
        what = each.label if each.refused is None else f"{each.label}: {each.refused}"
        rows.append(
            [
                styled(index + 1, colour),
                what,
                _loss(each.loss),
                within,
                "-" if each.gain is None else f"{each.gain:+.3g}",
                _loss(each.blind),
            ]
        )
    return rows


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
