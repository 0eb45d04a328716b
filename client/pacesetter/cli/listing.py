"""`ls` and `show`: which trainings exist, how far they are, and at which rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pacesetter.cli.arguments import labels, since
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.curves import pictured
from pacesetter.cli.options import Interval, Labels, Name
from pacesetter.cli.screen import WIDE, Cell, facts, joined, state, styled, table
from pacesetter.cli.text import ago, count, number, plural, share, span
from pacesetter.cli.text import since as since_then
from pacesetter.cli.watching import repeated

LOOK = "Look"

Glob = Annotated[
    str | None, typer.Argument(help="Only names that fit, such as 'vit-*'.", show_default=False)
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--state",
        help="running, silent, finished, failed, archived; repeatable.",
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        help="Only what was heard of or changed since: 10m, 2h, 3d, or a moment.",
        show_default=False,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        help="name, changed_at or created_at; - before it: the last one first.",
        show_default=False,
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="At most so many.", min=1)]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Look again and again.")]
Lines = Annotated[bool, typer.Option("-q", "--names", help="The names alone, one a line.")]

Row: TypeAlias = Mapping[str, Any]


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(app, LOOK, {"ls": ls, "show": show})


def ls(
    context: Context,
    *,
    glob: Glob = None,
    label: Labels = None,
    state: States = None,
    since_: Since = None,
    sort: Sort = None,
    limit: Limit = 100,
    watch: Watch = False,
    interval: Interval = 2.0,
    names: Lines = False,
) -> None:
    """List trainings: state, step, learning rate, metrics, ranks."""
    asked: dict[str, Any] = {
        "name": glob,
        "labels": labels(label or ()),
        "states": tuple(state or ()),
        "since": since(since_),
        "sort": sort,
    }

    def look() -> tuple[list[Row], bool]:
        found: list[Row] = list(islice(context.server.status(**asked), limit + 1))
        return found[:limit], len(found) > limit

    if watch:
        _watched(context, look, interval)
    else:
        rows, more = look()
        if context.answers({"sessions": rows, "more": more}):
            return
        if names:
            for row in rows:
                context.screen.line(row["name"])
        else:
            context.screen.show(listed(rows, more=more))


def _watched(context: Context, look: Callable[[], tuple[list[Row], bool]], interval: float) -> None:
    """Show the list again and again; a program, or a file, gets a copy for each look."""

    def shown() -> RenderableType:
        rows, more = look()
        return listed(rows, more=more)

    if context.screen.is_terminal and not context.as_json:
        repeated(context.screen, shown, interval)
    while True:
        if context.as_json:
            context.screen.json_line({"sessions": look()[0]})
        else:
            context.screen.show(shown())
        time.sleep(interval)


def listed(rows: Sequence[Row], *, more: bool) -> RenderableType:
    """Return sessions as a table, each in a row."""
    if not rows:
        return Text("no sessions; `pacesetter create` makes one, and so does a trainer", "dim")
    listed = _Listed(rows)
    if not more:
        return listed
    said = (
        f"{plural(len(rows), 'session')} shown; there are more: --limit, or a name such as 'vit-*'"
    )
    return Group(listed, Text(said, "dim"))


_FIRST = ("name", "state", "step", "done", "lr")
_LAST = ("heard", "ranks", "")


class _Listed:
    """A table of sessions, without the columns that a narrow terminal has no room for.

    Names stay whole as long as another column can be dropped: a person types them next.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._metrics = _metrics(rows)
        self._columns = [*_FIRST, *self._metrics, *_LAST]
        self._rows = [_cells(row, self._metrics) for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        kept = list(range(len(self._columns)))
        made = self._of(kept)
        free = options.update(max_width=WIDE)
        for each in self._least_wanted():
            if Measurement.get(console, free, made).maximum <= options.max_width:
                break
            kept.remove(each)
            made = self._of(kept)
        yield made

    def _least_wanted(self) -> list[int]:
        """Return the places of columns to drop, in that order; metrics may have the same names."""
        after = len(_FIRST) + len(self._metrics)
        heard, ranks, remarks = range(after, after + len(_LAST))
        metrics = reversed(range(len(_FIRST), after))
        step, done, lr, state = map(_FIRST.index, ("step", "done", "lr", "state"))
        return [ranks, done, heard, *metrics, step, remarks, lr, state]

    def _of(self, kept: Sequence[int]) -> Table:
        return table(
            [self._columns[each] for each in kept],
            ([row[each] for each in kept] for row in self._rows),
            right=("step", "done", "lr", *self._metrics, "heard"),
            fold=("name",),
            short=self._metrics,
        )


def _metrics(rows: Sequence[Row], most: int = 2) -> list[str]:
    """Return the names of the metrics that most rows have."""
    seen: dict[str, int] = {}
    for row in rows:
        for name in row.get("metrics") or {}:
            seen[name] = seen.get(name, 0) + 1
    return sorted(seen, key=lambda name: (-seen[name], name))[:most]


def _cells(row: Row, metrics: Sequence[str]) -> list[Cell]:
    values = row.get("metrics") or {}
    return [
        row["name"],
        state(row["state"]),
        count(row.get("step")),
        share(row.get("step"), row.get("total_steps")),
        _rates(row.get("lr") or {}, short=True),
        *(number((values.get(name) or {}).get("value")) for name in metrics),
        ago(row.get("last_heard")),
        _ranks(row),
        _remarks(row),
    ]


def _rates(rates: Mapping[str, Any], *, short: bool) -> Text:
    """Return the learning rates: for several groups the range, where there is little room."""
    learning = {name: v for name, v in rates.items() if name == "lr" or name.endswith(".lr")}
    known = [v for v in learning.values() if isinstance(v, int | float)]
    if not known:
        return styled("-", "")
    if not short and len(learning) > 1:
        return joined(
            [", ".join(f"{name.removesuffix('.lr')} {number(v)}" for name, v in learning.items())]
        )
    low, high = min(known), max(known)
    return styled(number(high) if low == high else f"{number(low)}…{number(high)}", "bold")


def _ranks(row: Row) -> str:
    ranks = row.get("ranks") or {}
    return f"{ranks.get('seen', 0)}/{ranks.get('expected', 0)}"


def _remarks(row: Row) -> Text:
    """Return what deserves attention: ranks that deviate or are silent, orders that wait."""
    ranks = row.get("ranks") or {}
    found: list[object] = []
    goes_on = row["state"] in {"running", "silent"}  # otherwise silent ranks are no surprise
    for key, style in (("deviating", "bold red"), ("stale", "yellow")):
        if ranks.get(key) and goes_on:
            found.append(styled(f"{ranks[key]} {key} ", style))
    if row.get("orders"):
        found.append(styled(plural(row["orders"], "order"), "magenta"))
    return joined(found)


def show(context: Context, *, name: Name) -> None:
    """Show one training: where it stands, and what happened last."""
    row = context.server.status_of(name)
    info = context.server.get(name)
    orders = context.server.orders(name) if row.get("orders") else []
    if context.answers({"status": row, "session": plain(info), "orders": orders}):
        return
    screen = context.screen
    screen.line(styled(name, "bold"), "  ", state(row["state"]))
    screen.show(facts(_described(row, info.spec)))
    screen.line()
    screen.show(pictured(context, info, row, height=8))
    for order in orders:
        screen.line(
            styled("waits ", "magenta"),
            f"order {order['id']} at step {count(order['at'])}: {order['text']}",
            styled(f"  ({order['actor']})", "dim"),
        )
    for event in list(context.server.events(name))[-3:]:
        screen.line(styled(f"{since_then(event.get('created_at')):>10}  ", "dim"), event["text"])


def _described(row: Row, spec: Mapping[str, Any]) -> list[tuple[str, object]]:
    step, total = row.get("step"), row.get("total_steps")
    done = f" of {count(total)}" if total else ""
    left = row.get("seconds_left")
    ends = f", about {span(left)} to go" if left is not None else ""
    part = share(step, total)
    pairs: list[tuple[str, object]] = [
        ("step", f"{count(step)}{done}{f' ({part})' if part else ''}{ends}"),
        ("lr", _rates(row.get("lr") or {}, short=False)),
    ]
    metrics = row.get("metrics") or {}
    if metrics:
        said = (
            f"{each} {number(v['value'])} (step {count(v['step'])})" for each, v in metrics.items()
        )
        pairs.append(("metrics", ", ".join(said)))
    pairs += [("plan", _plan(spec)), ("ranks", _ranks_in_words(row))]
    if row.get("labels"):
        pairs.append(("labels", ", ".join(f"{k}={v}" for k, v in row["labels"].items())))
    attempt = (
        f"attempt {row['attempt']}, revision {row['revision']}, sealed to {count(row['horizon'])}"
    )
    pairs += [("record", attempt), ("heard", since_then(row.get("last_heard")))]
    return pairs


def _ranks_in_words(row: Row) -> str:
    ranks = row.get("ranks") or {}
    said = f"{ranks.get('seen', 0)} of {ranks.get('expected', 0)} seen"
    for key in ("stale", "deviating"):
        if ranks.get(key):
            said += f", {ranks[key]} {key}: `pacesetter ranks {row['name']}`"
    return said


def _plan(spec: Mapping[str, Any]) -> str:
    schedule = spec.get("schedule")
    kind = schedule.get("kind") if isinstance(schedule, Mapping) else schedule
    controllers = [str(each.get("kind")) for each in spec.get("controllers") or ()]
    base = spec.get("base_lr")
    said = f"{kind or 'by group'}" + (f" from base rate {number(base)}" if base is not None else "")
    return said + (f", with {', '.join(controllers)}" if controllers else "")
