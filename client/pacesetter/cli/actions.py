"""Orders to a running training, one command per kind; listing what waits, and cancelling it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from pacesetter.cli.arguments import length, schedule, value_of
from pacesetter.cli.commands import Options, commands, composed
from pacesetter.cli.context import Context
from pacesetter.cli.drawing import Curve
from pacesetter.cli.exits import REFUSED, USAGE, CommandError
from pacesetter.cli.options import OF_ALL_GROUPS, OF_ORDERS, File, Name
from pacesetter.cli.pictures import Panel
from pacesetter.cli.screen import Screen, joined, styled, table
from pacesetter.cli.text import count, number, span

STEER = "Steer"

Fields: TypeAlias = Mapping[str, Any]
"""An action's own fields; None is left out."""

Factor = Annotated[float, typer.Argument(help="0.5 halves it.", show_default=False)]
Rate = Annotated[float, typer.Argument(help="The learning rate.", show_default=False)]
Ease = Annotated[
    str | None,
    typer.Option("--ease", help="The shape: linear, cosine, … or JSON.", show_default=False),
]
Length = Annotated[
    str, typer.Argument(help="Steps, 10%, 5epochs.", metavar="LENGTH", show_default=False)
]
MaybeLength = Annotated[
    str | None,
    typer.Argument(help="Steps, 10%, 5epochs.", metavar="[LENGTH]", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(
        app,
        STEER,
        {
            "scale": _ordering("scale", scale),
            "set": _ordering("set", set_),
            "hold": _ordering("hold", hold),
            "release": _ordering("release", release),
            "cooldown": _ordering("cooldown", cooldown),
            "rewarm": _ordering("rewarm", rewarm),
            "extend": _ordering("retime", extend),
            "replace": _ordering("replace", replace),
            "revert": _ordering("revert", revert),
            "limit": _ordering("limit", limit, OF_ALL_GROUPS),
            "switch": _ordering("switch", switch, OF_ALL_GROUPS),
            "orders": orders,
            "cancel": cancel,
        },
    )


def _ordering(
    kind: str, fields_of: Callable[..., Fields], options: Options = OF_ORDERS
) -> Callable[..., None]:
    """Return the command that orders an action; it also takes the options of all orders.

    Args:
        kind: The kind of action.
        fields_of: Returns the action's own fields from a context, a session and its own options.
            None is left out.
        options: The further options that the command takes.
    """

    def command(
        context: Context,
        *,
        name: str,
        reason: str | None,
        at: int | None,
        dry_run: bool,
        key: str | None,
        if_revision: int | None,
        group: list[str] | None = None,
        **own: Any,  # noqa: ANN401 - typer's
    ) -> None:
        said = {"kind": kind, **fields_of(context, name=name, **own), "groups": group or None}
        body = {field: value for field, value in said.items() if value is not None}
        why = context.reason(reason, needed=not dry_run)
        if why:
            body["reason"] = why
        answer = context.server.order(
            name, body, at=at, dry_run=dry_run, key=key, if_revision=if_revision
        )
        if context.answers(answer):
            return
        if dry_run:
            _rehearsed(context, answer)
        else:
            _ordered(context, name, answer)

    return composed(command, fields_of, options)


def _ordered(context: Context, name: str, answer: Mapping[str, Any]) -> None:
    """Say from which step an order holds, and how to take it back."""
    context.screen.line(
        styled(f"order {answer['id']}", "bold green"),
        f" holds from step {count(answer['effective_step'])} on{_away(answer)}",
    )
    context.screen.line(
        styled(f"take it back: pacesetter cancel {name} {answer['id']} (until then)", "dim")
    )


def _away(answer: Mapping[str, Any]) -> str:
    """Return how far an order's step lies ahead, as far as trainers have said where they are."""
    steps, seconds = answer.get("steps_away"), answer.get("seconds_away")
    if steps is None:
        return "; how far away that is, no trainer has said"
    if seconds is None:
        return f": {count(steps)} steps from now"
    return f": {count(steps)} steps from now, in about {span(seconds)}"


def _rehearsed(context: Context, answer: Mapping[str, Any]) -> None:
    screen = context.screen
    screen.line(f"it would hold from step {count(answer['effective_step'])} on{_away(answer)}")
    before_and_after(screen, answer)
    screen.line(
        styled(
            f"nothing was changed; with --if-revision {answer['revision']} in place of --dry-run it"
            " is ordered, if nothing else is decided before",
            "dim",
        )
    )


def before_and_after(screen: Screen, answer: Mapping[str, Any]) -> None:
    """Draw the curves of a dry run, and print its warnings."""
    before, after = answer["before"], answer["after"]
    for series, values in after["series"].items():
        was = before["series"].get(series, [])
        if values == was and len(after["series"]) > 1:
            continue
        panel = Panel(
            series,
            (
                Curve(before["steps"], was, "yellow", dotted=True),
                Curve(after["steps"], values, "cyan"),
            ),
        )
        screen.line(styled(series, "bold"), f"  {_change(was, values)}")
        screen.show(screen.charted(panel.curves, height=10))
    line, dots = screen.marks
    screen.line(styled(f"{dots} ", "yellow"), "before  ", styled(f"{line} ", "cyan"), "after")
    for warning in answer["warnings"]:
        screen.line(styled("beware: ", "bold yellow"), warning)


def _change(before: list[float], after: list[float]) -> str:
    if not before or not after:
        return ""
    now, end = (f"{number(before[i])} -> {number(after[i])}" for i in (0, -1))
    return f"{now} at once, {end} in the end"


def scale(context: Context, *, name: Name, factor: Factor) -> Fields:
    """Multiply the learning rate: 0.5 halves it."""
    return {"factor": factor}


def set_(
    context: Context,
    *,
    name: Name,
    lr: Rate,
    over: Annotated[
        str | None,
        typer.Option("--over", help="Reached over so many steps.", show_default=False),
    ] = None,
    ease: Ease = None,
) -> Fields:
    """Set one learning rate from here on."""
    return {"lr": lr, "over": None if over is None else length(over), "ease": _ease(ease)}


def hold(context: Context, *, name: Name) -> Fields:
    """Stop the clock of the schedule, until `release`."""
    return {}


def release(context: Context, *, name: Name) -> Fields:
    """Have the schedule go on where `hold` stopped it."""
    return {}


def cooldown(
    context: Context,
    *,
    name: Name,
    steps: MaybeLength = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="The step by which it is complete.", show_default=False),
    ] = None,
    to: Annotated[
        float | None, typer.Option("--to", help="The floor, a rate.", show_default=False)
    ] = None,
    to_fraction: Annotated[
        float | None,
        typer.Option(
            "--to-fraction", help="The floor, a part of the rate; 0 by default.", show_default=False
        ),
    ] = None,
    ease: Ease = None,
) -> Fields:
    """Go down to a floor over some steps, and stay there."""
    if (steps is None) == (until is None):
        raise ValueError("say how long it takes, or by when it is complete with --until")
    return {
        "steps": None if steps is None else length(steps),
        "until": None if until is None else length(until),
        "to": to,
        "to_fraction": to_fraction,
        "ease": _ease(ease),
    }


def rewarm(
    context: Context,
    *,
    name: Name,
    steps: Length,
    factor: Annotated[
        float | None,
        typer.Option(
            "--from", help="The part that it begins with; 0 by default.", show_default=False
        ),
    ] = None,
) -> Fields:
    """Warm up again in the middle of the training."""
    return {"steps": length(steps), "factor": factor}


def extend(
    context: Context,
    *,
    name: Name,
    by: Annotated[
        str,
        typer.Argument(
            help="+20% or +1000 longer, 12000 the new length; shorter: -- -10%.",
            metavar="LENGTH",
            show_default=False,
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="rescale stretches the rest; keep_then_tail keeps the rate first.",
            show_default=False,
        ),
    ] = None,
    ends_at: Annotated[
        str | None,
        typer.Option(
            "--ends-at",
            help="Where the law would end, if the plan does not say it.",
            show_default=False,
        ),
    ] = None,
) -> Fields:
    """Make the training longer or shorter."""
    return {
        "total_steps": _longer(context, name, by),
        "ends_at": None if ends_at is None else length(ends_at),
        "policy": policy,
    }


def _longer(context: Context, name: str, by: str) -> Any:  # noqa: ANN401 - a length
    """Return the new length of a training.

    Raises:
        CommandError: Its length is not known, so nothing can be added to it.
    """
    if by[:1] not in {"+", "-"}:
        return length(by)
    total = context.server.status_of(name).get("total_steps")
    if not isinstance(total, int):
        raise CommandError(
            REFUSED,
            f"the plan of {name} has no end, so nothing can be added to it",
            "give the new length itself: pacesetter extend NAME 12000 --ends-at 10000",
        )
    try:
        if by.endswith("%"):
            return round(total * (1 + float(by[:-1]) / 100))
        return total + int(by.replace("_", "").replace(",", ""))
    except (ValueError, OverflowError):  # the latter for a percentage that is infinite
        raise ValueError(f"{by!r} is no length: write +20%, +1000 or 12000") from None


def replace(
    context: Context,
    *,
    name: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="A kind and its parameters: cosine total_steps=1000.",
            metavar="[KIND [NAME=VALUE]…]",
            show_default=False,
        ),
    ] = None,
    file: File = None,
    clock: Annotated[
        str | None,
        typer.Option(
            "--clock", help="local begins at 0, global is as far as by now.", show_default=False
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            "--value", help="What it scales: base, level or continue.", show_default=False
        ),
    ] = None,
) -> Fields:
    """Follow another schedule from here on."""
    return {"schedule": schedule(words or [], file), "clock": clock, "value": value}


def revert(context: Context, *, name: Name) -> Fields:
    """Go back to the plan, as far as it would be by now."""
    return {}


def limit(
    context: Context,
    *,
    name: Name,
    min_lr: Annotated[
        float | None, typer.Option("--min-lr", help="The least rate.", show_default=False)
    ] = None,
    max_lr: Annotated[
        float | None, typer.Option("--max-lr", help="The largest rate.", show_default=False)
    ] = None,
    max_change: Annotated[
        float | None,
        typer.Option("--max-change", help="The largest factor of one change.", show_default=False),
    ] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift all limits.")] = False,
) -> Fields:
    """Hold controllers and operators to other limits.

    What is left out is unbounded. Values do not change.
    """
    fields = {"min_lr": min_lr, "max_lr": max_lr, "max_change": max_change}
    if lift == any(each is not None for each in fields.values()):
        raise CommandError(
            USAGE,
            "say which limits there are to be: what is left out is unbounded",
            "give --min-lr, --max-lr or --max-change, or --lift alone to have none",
        )
    return {**fields, "lift": lift or None}


def switch(
    context: Context,
    *,
    name: Name,
    controller: Annotated[int, typer.Argument(help="Its index in the description.")] = 0,
) -> Fields:
    """Move a `switch` controller to its next stage."""
    return {"controller": controller}


def orders(context: Context, *, name: Name) -> None:
    """List the orders that wait for their step."""
    found = context.server.orders(name)
    if context.answers({"orders": found}):
        return
    if not found:
        context.screen.line(styled("no orders wait", "dim"))
        return
    rows = ((each["id"], count(each["at"]), each["actor"], each["text"]) for each in found)
    columns = ("order", "at step", "by", "what")
    context.screen.show(table(columns, rows, right=("order", "at step"), fold=("what",)))


def cancel(
    context: Context,
    *,
    name: Name,
    order: Annotated[int, typer.Argument(help="Its number.", show_default=False)],
) -> None:
    """Cancel an order whose step was not handed out yet."""
    context.server.cancel(name, order)
    if not context.answers({"cancelled": order}):
        context.screen.line(joined(["order ", styled(order, "bold"), " is cancelled"]))


def _ease(text: str | None) -> Any:  # noqa: ANN401 - a name, or an object
    return None if text is None else value_of(text)
