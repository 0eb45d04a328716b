"""`watch`, and what else is refreshed until the person has seen enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from pacesetter._errors import ServerError, TransportError
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context
from pacesetter.cli.curves import measured, pictured
from pacesetter.cli.exits import ending_of
from pacesetter.cli.options import Interval, Name
from pacesetter.cli.record import event_row
from pacesetter.cli.screen import Screen, joined, state, styled
from pacesetter.cli.text import count, number, share, since, span

EVENTS = 5
"""How many of the newest events are shown."""

ENDED = frozenset({"finished", "failed", "archived"})


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(app, "Look", {"watch": watch})


def repeated(screen: Screen, look: Callable[[], RenderableType], interval: float) -> None:
    """Show what a function returns, again and again in the same place, until Ctrl-C.

    While the server is away, the last look stays, with a note about that.

    Args:
        screen: The screen to show it on.
        look: Returns what to show.
        interval: Seconds between two looks.
    """
    shown, lost = look(), ""
    with Live(shown, console=screen.console, auto_refresh=False, screen=True) as live:
        while True:
            live.refresh()
            time.sleep(interval)
            try:
                shown, lost = look(), ""
            except (TransportError, ServerError) as error:
                lost = lost or f"{datetime.now().astimezone():%H:%M:%S}"
                live.update(Group(_away(error, lost), shown))
            else:
                live.update(shown)


def _away(error: Exception, since_when: str) -> RenderableType:
    ending = ending_of(error)
    what = error if ending is None else ending.what
    return styled(f"no answer since {since_when}; this is how it was before ({what})", "bold red")


def watch(context: Context, *, name: Name, interval: Interval = 2.0) -> None:
    """Watch one training live: rate, metrics, and what happens.

    With --json, or where the output is no terminal, each look is a line; it ends with the training.
    """
    if context.as_json or not context.screen.is_terminal:
        _told(context, name, interval)
        return
    seen = _Seen(context, name)
    repeated(context.screen, seen.look, interval)


def _told(context: Context, name: str, interval: float) -> None:
    """Print a line for each look, until the training has ended."""
    while True:
        row = context.server.status_of(name)
        if context.as_json:
            context.screen.json_line(row)
        else:
            context.screen.line(*_in_a_line(row))
        if row["state"] in ENDED:
            return
        time.sleep(interval)


def _in_a_line(row: Mapping[str, Any]) -> list[object]:
    rates = ", ".join(f"{each} {number(v)}" for each, v in (row.get("lr") or {}).items())
    metrics = ", ".join(
        f"{each} {number(v['value'])}" for each, v in (row.get("metrics") or {}).items()
    )
    return [f"step {count(row['step'])}  {rates}  {metrics}  ", state(row["state"])]


class _Seen:
    """What was seen of a training so far, so that only new events are asked for."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name
        self._info = context.server.get(name)
        self._after = -1
        self._events: deque[Mapping[str, Any]] = deque(maxlen=EVENTS)

    def look(self) -> RenderableType:
        """Return where the training stands now, in the height of the terminal."""
        context, name = self._context, self._name
        row = context.server.status_of(name)
        for event in context.server.events(name, after=self._after):
            self._after = int(event["seq"])
            self._events.append(event)
        height = max(6, min(12, context.screen.height - 14))
        return Group(
            _headline(row),
            pictured(context, self._info, row, height=height),
            *self._metrics(row),
            joined([]),
            *map(event_row, self._events),
            joined([]),
            styled("Ctrl-C ends this; the training goes on", "dim"),
        )

    def _metrics(self, row: Mapping[str, Any]) -> list[RenderableType]:
        names = list(row.get("metrics") or {})[:3]
        if not names:
            return []
        screen = self._context.screen
        history = self._context.server.history(self._name, metrics=names, points=200)
        return [
            joined(
                [
                    styled(f"{each[:16]:>16} ", "bold"),
                    styled(screen.bars(measured(history, each).values), "magenta"),
                    f" {number(row['metrics'][each]['value'])}",
                ]
            )
            for each in names
            if each in history["metrics"]
        ]


def _headline(row: Mapping[str, Any]) -> RenderableType:
    step, total = row.get("step"), row.get("total_steps")
    of = f"/{count(total)} {share(step, total)}" if total else ""
    left = row.get("seconds_left")
    rates = ", ".join(number(v) for v in (row.get("lr") or {}).values())
    parts = [
        styled(row["name"], "bold"),
        "  ",
        state(row["state"]),
        f"  step {count(step)}{of}  ",
        styled(f"lr {rates}", "bold"),
        f"  heard {since(row.get('last_heard'))}",
        f"  {span(left)} to go" if left is not None else "",
    ]
    if row.get("orders"):
        parts.append(styled(f"  {row['orders']} waiting", "magenta"))
    return joined(parts)
