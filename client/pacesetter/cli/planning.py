"""`plan`: drawing the loss as expected under other schedules, and ordering one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pacesetter._plan import Candidate, Plan
from pacesetter.cli.arguments import length
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.curves import COLOURS, Height
from pacesetter.cli.drawing import Curve
from pacesetter.cli.exits import REFUSED, CommandError
from pacesetter.cli.options import Name, Reason
from pacesetter.cli.screen import Screen, joined, styled, table
from pacesetter.cli.text import count

if TYPE_CHECKING:
    from pacesetter.cli.server import Server

STEER = "Steer"

DRAWN = 3
"""How many of the best candidates are drawn, beside what happens without an order."""

CLOSE = 2
"""The drawn past is this many times shorter than what is to come."""

LEAST = 4
"""The fewest lines of a picture."""

SO_FAR, WITHOUT_RATES = "white", "red"
"""The colours of what was measured, and of what a law without learning rates expects."""


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
    with context.patiently() as server:
        found: Plan = server.plan(
            name,
            metric,
            goal="fewest_steps" if loss is not None else "budget" if budget is not None else None,
            total_steps=None if total is None else length(total),
            loss=loss,
            steps=None if budget is None else length(budget),
            epochs=epochs,
        )
        if apply is not None:
            _ordered(context, server, found, apply, of, reason)
            return
    if not context.answers(plain(found.answer)):
        _drawn(context, found, height)


def _ordered(
    context: Context,
    server: Server,
    found: Plan,
    number: int,
    wanted: str | None,
    reason: str | None,
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
    answer = server.apply_plan(found.session, found, number - 1, reason=context.reason(reason))
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
    drawn = _shown(found)
    if drawn:
        screen.line(styled(f"{found.metric}, so far and as expected", "bold"))
        losses = [_so_far(found, "loss"), *_beside(drawn), *_curves(drawn, "loss")]
        screen.show(screen.charted(losses, height=height))
        screen.line(styled("learning rate", "bold"))
        rates = [_so_far(found, "lr"), *_curves(drawn, "lr")]
        screen.show(screen.charted(rates, height=max(height // 2, LEAST), now=found.horizon))
        screen.line(_legend(screen, drawn))
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


def _shown(found: Plan) -> list[tuple[int, Candidate]]:
    """Return the candidates to draw: the best, and what happens without an order."""
    curves = [each for each in enumerate(found.candidates) if each[1].curve is not None]
    return [each for each in curves if each[0] < DRAWN or not each[1].orders]


def _so_far(found: Plan, name: str) -> Curve:
    """Return what was measured lately: what is to come takes most of the picture."""
    measured = found.answer.get("measured") or {"steps": []}
    last = max([found.total_steps, *(each.total_steps for each in found.candidates)])
    first = found.horizon - (last - found.horizon) // CLOSE
    pairs = [
        (step, value)
        for step, value in zip(measured["steps"], measured.get(name, []), strict=False)
        if step >= first
    ]
    return Curve([step for step, _ in pairs], [value for _, value in pairs], SO_FAR)


def _beside(drawn: Sequence[tuple[int, Candidate]]) -> list[Curve]:
    """Return the band of the best, and what a law without learning rates expects."""
    curve = drawn[0][1].curve
    if curve is None:
        return []
    blind = max((each.curve or {} for _, each in drawn), key=lambda each: each["steps"][-1])
    curves = [Curve(curve["steps"], curve[edge], "dim", dotted=True) for edge in ("low", "high")]
    if blind.get("blind"):
        curves.append(Curve(blind["steps"], blind["blind"], WITHOUT_RATES, dotted=True))
    return curves


def _curves(drawn: Sequence[tuple[int, Candidate]], name: str) -> list[Curve]:
    """Return a curve for each candidate, the best last: it lies over the others."""
    return [
        Curve(each.curve["steps"], each.curve[name], _colour(index, each), dotted=not each.orders)
        for index, each in reversed(drawn)
        if each.curve is not None
    ]


def _colour(index: int, candidate: Candidate) -> str:
    return COLOURS[index % len(COLOURS)] if candidate.orders else SO_FAR


def _legend(screen: Screen, drawn: Sequence[tuple[int, Candidate]]) -> Text:
    """Return what the lines mean, by the numbers of the list."""
    line, dots = screen.marks
    parts: list[object] = [styled(f"{line} ", SO_FAR), "so far  "]
    for index, each in drawn:
        mark = line if each.orders else dots
        parts += [styled(f"{mark} ", _colour(index, each)), f"{index + 1}  "]
    said = [f"band of {drawn[0][0] + 1}, 9 of 10  ", "a law without rates"]
    parts += [styled(f"{dots} ", "dim"), said[0], styled(f"{dots} ", WITHOUT_RATES), said[1]]
    return joined(parts)


def _rows(candidates: Sequence[Candidate]) -> list[list[Any]]:
    rows = []
    for index, each in enumerate(candidates):
        drawn = each.curve is not None and (index < DRAWN or not each.orders)
        colour = _colour(index, each) if drawn else ""
        within = "-" if each.low is None else f"{each.low:#.4g} to {each.high:#.4g}"
        what = each.label if each.refused is None else f"{each.label}: {each.refused}"
        rows.append(
            [
                styled(index + 1, colour),
                what,
                _loss(each.loss),
                within,
                "-" if each.gain is None or not each.orders else f"{each.gain:+.3g}",
                _loss(each.blind),
            ]
        )
    return rows


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:#.4g}"
