"""What has happened: `explain`, `events`, `ranks`, `history`, and the record as a file."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from pacesetter._files import writing
from pacesetter.cli.arguments import labels
from pacesetter.cli.commands import commands
from pacesetter.cli.completion import session_names
from pacesetter.cli.context import Context, plain
from pacesetter.cli.exits import REFUSED, USAGE, CommandError
from pacesetter.cli.options import Attempt, End, Labels, Name, Start
from pacesetter.cli.screen import joined, styled, table
from pacesetter.cli.server import PATIENCE, Server
from pacesetter.cli.text import clock, count, number, span

LOOK, MOVE = "Look", "Move"

CHANGES = ("decided", "acted", "batch_resized", "taken_back", "attempt_opened")
"""Kinds of events that change the rates of steps to come."""

Event = Mapping[str, Any]


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(
        app,
        LOOK,
        {
            "explain": explain,
            "events": events,
            "ranks": ranks,
            "history": history,
        },
    )
    commands(app, MOVE, {"export": export, "import": import_, "replay": replay})


def explain(
    context: Context,
    *,
    name: Name,
    step: Annotated[
        int | None,
        typer.Option(
            "--step", help="The step; without it the newest that was trained.", show_default=False
        ),
    ] = None,
    last_change: Annotated[
        bool, typer.Option("--last-change", help="The step at which the plan was changed last.")
    ] = False,
) -> None:
    """Say why the learning rate is what it is."""
    if last_change and step is not None:
        raise ValueError("--step and --last-change name two steps: leave one of them out")
    change = _last_change(context, name) if last_change else None
    if change is not None:
        step = int(change["at"])
    answer = context.server.explain(name, step)
    orders = context.server.orders(name) if last_change else []
    shown = {**answer, "change": change, "waiting": orders} if last_change else answer
    if context.answers(shown):
        return
    if change is not None:
        context.screen.line(styled(_jump(context, name, int(change["at"])), "bold"))
    context.screen.block(answer["text"].rstrip("\n"))
    for line in _waiting(orders):
        context.screen.line(styled(line, "yellow"))


def _last_change(context: Context, name: str) -> Event:
    """Return the last event that has changed the plan.

    Raises:
        CommandError: There is none.
    """
    found = [
        each
        for each in context.server.events(name, kinds=CHANGES)
        if isinstance(each.get("at"), int)
    ]
    if not found:
        waiting = _waiting(context.server.orders(name))
        raise CommandError(
            REFUSED,
            "; ".join([f"nothing has changed the plan of {name} yet", *waiting]),
            f"`pacesetter explain {name}` says why its rate is what it is",
        )
    return found[-1]


def _waiting(orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the orders that wait for their step and have changed nothing yet, a line each."""
    return [
        f"order {each['id']} by {each['actor']} waits for step {count(each['at'])}: {each['text']}"
        for each in orders
    ]


def _jump(context: Context, name: str, at: int) -> str:
    """Return what became of the rate at a step."""
    if at <= context.server.get(name).start_step:  # there is no step before it
        return f"step {count(at)}"
    with contextlib.suppress(KeyError, IndexError, TypeError):
        around = context.server.lr(name, at - 1, count=2)["series"]
        moved = {
            k: v for k, v in around.items() if (k == "lr" or k.endswith(".lr")) and v[0] != v[1]
        }
        if moved:
            series, (before, after) = next(iter(moved.items()))
            more = f" and {len(moved) - 1} more series" if len(moved) > 1 else ""
            return f"step {count(at)}: {series} {number(before)} -> {number(after)}{more}"
    return f"step {count(at)}"


def events(
    context: Context,
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A session, or names that fit, such as 'vit-*'; all without it.",
            show_default=False,
            autocompletion=session_names,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Only this kind; repeatable.", show_default=False),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option("--actor", help="Only what this one has ordered.", show_default=False),
    ] = None,
    label: Labels = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            help="Only those behind this number; of several sessions, behind this cursor.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what happens next.")
    ] = False,
) -> None:
    """Tell what has happened to a session, or to all.

    With -f and without a session's name, what has happened before is left out.
    """
    server = Server(context.url, retry_for=PATIENCE) if follow else context.server
    kinds = tuple(kind or ())
    one = name is not None and not {"*", "?"} & set(name)
    with contextlib.closing(server):
        if one:
            if actor is not None or label:
                raise ValueError("--actor and --label choose among sessions: leave the name out")
            number = None if after is None else _whole(after)
            told = server.events(name, kinds=kinds, after=number, follow=follow)
        else:
            told = server.events(
                kinds=kinds,
                after=after or ("now" if follow else None),
                follow=follow,
                session=name,
                actor=actor,
                labels=labels(label) if label else None,
            )
        if context.tells(told):
            return
        if follow and context.screen.is_terminal:
            context.screen.note("what happens next is told as it happens; Ctrl-C ends this")
        for each in told:
            if context.screen.is_terminal:
                context.screen.show(event_row(each, named=not one))
            else:
                context.screen.line(*event_line(each, named=not one))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--after {text!r} is no number of an event") from None


def event_line(event: Event, *, named: bool = False) -> list[object]:
    """Return an event as the parts of a line, for programs: number, the server's time, sentence."""
    whose = [styled(f"{event.get('session', '')}  ", "bold")] if named else []
    place = f"{event.get('seq', ''):>6}  {event.get('created_at')}  "
    return [styled(place, "dim"), *whose, " ".join(str(event.get("text", "")).split())]


def event_row(event: Event, *, named: bool = False) -> Table:
    """Return an event as a row, for people, in local time."""
    whose: list[object] = [styled(f"{event.get('session', '')}  ", "bold")] if named else []
    said = joined([*whose, " ".join(str(event.get("text", "")).split())])
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=5, justify="right", no_wrap=True)
    row.add_column(no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(
        styled(event.get("seq", ""), "dim"), styled(clock(event.get("created_at")), "dim"), said
    )
    return row


def ranks(
    context: Context,
    *,
    name: Name,
    stale_after: Annotated[
        float, typer.Option("--stale-after", help="Seconds of silence.", min=0)
    ] = 60.0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1)] = 64,
) -> None:
    """Show where the ranks are, and which deviate."""
    answer = context.server.ranks(name, stale_after=stale_after, limit=limit)
    if context.answers(answer):
        return
    summary, screen = answer["summary"], context.screen
    screen.line(
        f"{summary['seen']} of {summary['expected']} ranks seen, "
        f"{summary['stale']['count']} stale, ",
        styled(
            f"{summary['deviating']['count']} deviating",
            "bold red" if summary["deviating"]["count"] else "",
        ),
        f"; newest step {count(summary['newest_step'])}",
    )
    missing = summary["missing"]
    if missing["count"]:
        shown = ", ".join(map(str, missing["ranks"][:20]))
        screen.line(
            styled("not heard: ", "yellow"), shown + (", …" if missing["count"] > 20 else "")
        )
    if answer["ranks"]:
        columns = ("rank", "step", "behind", "reported", "heard", "attempt", "")
        right = ("rank", "step", "behind", "reported", "heard", "attempt")
        screen.show(table(columns, map(_rank, answer["ranks"]), right=right))


def _rank(rank: Mapping[str, Any]) -> list[object]:
    found: list[object] = []
    applied = rank.get("applied") or {}
    if rank.get("deviates"):
        values = [v for v in applied.get("values", ()) if v.get("applied") != v.get("sealed")][:1]
        said = "".join(
            f": {v['series']} {number(v['applied'])}, sealed {number(v['sealed'])}" for v in values
        )
        found.append(styled(f"deviates{said} ", "bold red"))
    if rank.get("stale"):
        found.append(styled("stale", "yellow"))
    return [
        rank["rank"],
        count(rank["step"]),
        count(rank["behind"]),
        count(rank["reported"]),
        f"{span(rank['seconds_ago'])}",
        rank["attempt"],
        joined(found),
    ]


PIECE = 50_000
"""Steps of a record in one request."""


def history(
    context: Context,
    *,
    name: Name,
    start: Start = None,
    end: End = None,
    points: Annotated[
        int | None,
        typer.Option(
            "--points",
            help="About so many steps; 20 in a table, all in a CSV.",
            min=10,
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Only this metric; repeatable.", show_default=False),
    ] = None,
    attempt: Attempt = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every step, as CSV.")] = False,
    out: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Write the CSV there.", show_default=False),
    ] = None,
) -> None:
    """Show rates beside metrics, as a table or as CSV."""
    asked: dict[str, Any] = {"start": start, "end": end, "metrics": metric, "attempt": attempt}
    if as_csv or out:
        _csv_of(context, name, asked, points, out)
        return
    answer = context.server.history(name, points=points or 20, **asked)
    if context.answers(answer):
        return
    names = [*answer["series"], *answer["metrics"]]
    columns = [*answer["series"].values(), *answer["metrics"].values()]
    rows = (
        (count(step), *("" if each[i] is None else number(each[i]) for each in columns))
        for i, step in enumerate(answer["steps"])
    )
    context.screen.show(table(("step", *names), rows, right=("step", *names)))


def _csv_of(
    context: Context, name: str, asked: Mapping[str, Any], points: int | None, out: str | None
) -> None:
    lines = _csv_lines(context.server, name, asked, points)
    if out is None or out == "-":
        for line in lines:
            context.screen.raw(line)
        return
    with writing(out) as file:
        file.writelines(line.encode() for line in lines)
    if not context.answers({"file": out}):
        context.screen.line(f"wrote {out}")


def _csv_lines(
    server: Server, name: str, asked: Mapping[str, Any], points: int | None
) -> Iterator[str]:
    """Return the lines of a table with a column for each series and metric, piece by piece."""
    extent = server.history(name, points=10, **asked)
    names = [*extent["series"], *extent["metrics"]]
    yield _csv_line(["step", *map(_named, names)])
    if points is not None:
        pieces: Iterable[Mapping[str, Any]] = [server.history(name, points=points, **asked)]
    else:
        pieces = _pieces(server, name, asked, extent)
    for piece in pieces:
        columns = {**piece["series"], **piece["metrics"]}
        nothing = [None] * len(piece["steps"])
        for i, step in enumerate(piece["steps"]):
            yield _csv_line([step, *(columns.get(each, nothing)[i] for each in names)])


def _pieces(
    server: Server, name: str, asked: Mapping[str, Any], extent: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    rest = {"metrics": asked["metrics"], "attempt": extent["attempt"]}
    for first in range(extent["start"], extent["end"], PIECE):
        last = min(first + PIECE, extent["end"])
        yield server.history(name, start=first, end=last, points=PIECE, **rest)


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow("" if c is None else _exact(c) for c in cells)
    return line.getvalue()


def _exact(value: object) -> object:
    return repr(value) if isinstance(value, float) else value


def _named(column: str) -> str:
    """Return a column's name in a form that no spreadsheet takes for a formula."""
    return f"'{column}" if column.startswith(("+", "-", "@", "=")) else column


def export(
    context: Context,
    *,
    name: Name,
    file: Annotated[str, typer.Argument(help="Where to; - is stdout.", show_default=False)],
) -> None:
    """Write the whole record of a session into a file."""
    if file != "-":
        context.server.export(name, file)
        if not context.answers({"file": file}):
            context.screen.line(f"wrote {file}")
        return
    if sys.stdout.isatty():
        raise CommandError(
            USAGE, "a record is not for the eye", f"pacesetter export {name} - > {name}.jsonl"
        )
    context.server.export(name, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def import_(
    context: Context,
    *,
    file: Annotated[
        str, typer.Argument(help="What `export` wrote; - is stdin.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="What it is to be called, if not as it was.", show_default=False
        ),
    ] = None,
) -> None:
    """Restore a session from what `export` wrote."""
    made = _restored(context, file, name)
    if not context.answers(plain(made)):
        context.screen.line(f"imported {made.name}, sealed up to step {made.horizon}")


def _restored(context: Context, file: str, name: str | None) -> Any:  # noqa: ANN401 - a session
    if file != "-":
        return context.server.import_session(file, name=name)
    # Its length is sent first, so all of it must be read before any is sent.
    with tempfile.TemporaryFile() as whole:
        for piece in iter(lambda: sys.stdin.buffer.read(65_536), b""):
            whole.write(piece)
        whole.seek(0)
        return context.server.import_session(whole, name=name)


def replay(
    context: Context,
    *,
    name: Name,
    new: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Create this session; the description is printed without it.",
            show_default=False,
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    attempt: Attempt = None,
) -> None:
    """Make a session that has another one's values to the bit."""
    from pacesetter.cli.sessions import created  # noqa: PLC0415 - that imports much

    spec = context.server.realised(name, start=start, end=end, attempt=attempt)
    if new is None:
        context.screen.json(spec)
        return
    made = created(context, spec, new, {})
    if not context.answers(plain(made)):
        context.screen.line(styled(made.name, "bold"), f" replays {name}")
