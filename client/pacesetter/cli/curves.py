"""`plot`, `diff`, `preview`: curves in the terminal, as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from pacesetter._info import SessionInfo
from pacesetter.cli import pictures
from pacesetter.cli.arguments import document, schedule
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context
from pacesetter.cli.drawing import Curve
from pacesetter.cli.options import End, File, Log, Name, Png, Start, Svg
from pacesetter.cli.screen import Screen, joined, styled, table
from pacesetter.cli.text import count, number

LOOK, MAKE = "Look", "Make"

POINTS = 2000
"""How many steps of a curve are requested: more than any terminal is wide."""

BEYOND = 1000
"""Steps that are drawn after the horizon where a plan has no end."""

COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")

Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", help="Draw this metric too; repeatable.", show_default=False),
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        "--series", help="Only this series, such as head.lr; repeatable.", show_default=False
    ),
]
Height = Annotated[int, typer.Option("--height", help="Lines of each picture.", min=3, max=100)]
BaseLr = Annotated[
    float | None, typer.Option("--base-lr", help="The base learning rate.", show_default=False)
]
Count = Annotated[
    int | None, typer.Option("--steps", help="How many steps are drawn.", show_default=False)
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="A kind and its parameters: cosine total_steps=1000.",
        metavar="[KIND [NAME=VALUE]…]",
        show_default=False,
    ),
]

Answer = Mapping[str, Any]


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(app, LOOK, {"plot": plot, "diff": diff})
    commands(app, MAKE, {"preview": preview})


def plot(
    context: Context,
    *,
    name: Name,
    metric: Metric = None,
    series: Series = None,
    start: Start = None,
    end: End = None,
    log: Log = False,
    height: Height = 12,
    svg: Svg = None,
    png: Png = None,
) -> None:
    """Draw the learning rate: what was trained, and the forecast."""
    row = context.server.status_of(name)
    curve = forecast_of(context, name, row, start, end)
    wanted = _only(curve["series"], series)
    history = (
        context.server.history(name, start=start, end=end, points=POINTS, metrics=metric)
        if metric
        else {"steps": [], "metrics": {}}
    )
    panels = [split(each, curve, row.get("step")) for each in wanted]
    panels += [pictures.Panel(each, (measured(history, each),)) for each in history["metrics"]]
    saved = save(context, panels, svg, png, title=name, log=log)
    if context.answers({"forecast": curve, "history": history}) or saved:
        return
    for panel in panels:
        context.screen.show(panelled(context.screen, panel, height=height, log=log))
    context.screen.line(legend_of_forecast(context.screen))


def save(
    context: Context,
    panels: Sequence[pictures.Panel],
    svg: str | None,
    png: str | None,
    *,
    title: str,
    log: bool,
) -> bool:
    """Write pictures where they are requested; return whether any was, and tell a person.

    Raises:
        CommandError: A PNG cannot be drawn here.
    """
    for file, write in ((svg, pictures.write_svg), (png, pictures.write_png)):
        if file is not None:
            write(Path(file), panels, title=title, log=log)
            if not context.as_json:
                context.screen.line(f"wrote {file}")
    return bool(svg or png)


def forecast_of(
    context: Context, name: str, row: Answer, start: int | None = None, end: int | None = None
) -> dict[str, Any]:
    """Return the curve of a session, from its first step to the end of its plan."""
    first = context.server.get(name).start_step if start is None else start
    last = (end_of(row) or row["horizon"] + BEYOND) if end is None else end
    if last <= first:
        raise ValueError(f"--end {last} is not behind --start {first}")
    answer: dict[str, Any] = context.server.forecast(
        name, start=first, count=last - first, points=max(min(POINTS, last - first), 10)
    )
    return answer


def end_of(row: Answer) -> int | None:
    """Return the end of a session's plan, or of what is sealed if it trains on; None without one.

    A fast training is handed out steps far past the end of its plan. They show nothing, and would
    squeeze the plan into a corner of the picture.
    """
    total, step = row.get("total_steps"), row.get("step")
    if not total:
        return None
    return int(total) if step is None or step < total else max(int(total), int(row["horizon"]))


def split(name: str, curve: Answer, now: int | None) -> pictures.Panel:
    """Return a series whose sealed part is final, and whose dotted rest may still change."""
    steps, values = curve["steps"], curve["series"][name]
    cut = next((i for i, step in enumerate(steps) if step >= curve["sealed_until"]), len(steps))
    parts = []
    if cut < len(steps):
        begin = max(cut - 1, 0)
        parts.append(Curve(steps[begin:], values[begin:], "cyan", dotted=True))
    if cut:
        parts.append(Curve(steps[:cut], values[:cut], "green"))
    return pictures.Panel(name, tuple(parts), now)


def _only(series: Mapping[str, Any], wanted: Sequence[str] | None) -> dict[str, Any]:
    for name in wanted or ():
        if name not in series:
            raise ValueError(f"there is no series {name!r}: there are {', '.join(series)}")
    return {name: values for name, values in series.items() if not wanted or name in wanted}


def measured(history: Answer, metric: str) -> Curve:
    """Return a metric as a curve over the steps at which it was measured; NaN leaves a gap."""
    pairs = [
        (step, value if isinstance(value, int | float) else None)
        for step, value in zip(history["steps"], history["metrics"][metric], strict=True)
        if value is not None
    ]
    return Curve([step for step, _ in pairs], [value for _, value in pairs], COLOURS[2])


def panelled(
    screen: Screen, panel: pictures.Panel, *, height: int, log: bool = False
) -> RenderableType:
    """Return a panel as it is drawn in the terminal."""
    drawn = screen.charted(panel.curves, height=height, log=log, now=panel.now)
    return Group(styled(panel.title, "bold"), drawn)


def legend_of_forecast(screen: Screen) -> Text:
    """Return what the two kinds of lines mean."""
    line, dots = screen.marks
    return joined([styled(f"{line} ", "green"), "final  ", styled(f"{dots} ", "cyan"), "forecast"])


MOST_SERIES = 3
"""Rates that are drawn beside other things; `plot` draws all."""


def pictured(context: Context, info: SessionInfo, row: Answer, *, height: int) -> RenderableType:
    """Return a small picture of a session's rates, which share the available lines."""
    curve = forecast_of(context, info.name, row, info.start_step)
    rates = [each for each in curve["series"] if each == "lr" or each.endswith(".lr")]
    shown = rates[:MOST_SERIES]
    lines = height if len(shown) == 1 else max(4, height // len(shown))
    panels = [
        panelled(context.screen, split(each, curve, row.get("step")), height=lines)
        for each in shown
    ]
    more = len(rates) - len(shown)
    said = [legend_of_forecast(context.screen)]
    if more:
        said.append(styled(f"  and {more} more: pacesetter plot {info.name}", "dim"))
    return Group(*panels, joined(said))


# -- diff --


def diff(
    context: Context,
    *,
    a: Name,
    b: Name,
    start: Start = None,
    end: End = None,
    log: Log = False,
    height: Height = 12,
    svg: Svg = None,
    png: Png = None,
) -> None:
    """Compare two trainings: their descriptions, their curves, and the metrics of both."""
    rows = [context.server.status_of(each) for each in (a, b)]
    compared = context.server.compare([a, b], points=POINTS)
    found = [
        (each["pointer"], each["values"][a], each["values"][b])
        for each in compared["differences"]
        if each["pointer"].split("/")[1] not in _OWN
    ]
    if end is None:
        end = max(end_of(row) or row["horizon"] for row in rows) or BEYOND
    curves = [
        forecast_of(context, each, row, start, end) for each, row in zip((a, b), rows, strict=True)
    ]
    answer = {
        "differences": [{"pointer": p, "before": x, "after": y} for p, x, y in found],
        "curves": dict(zip((a, b), curves, strict=True)),
        "metrics": {
            each["name"]: {"steps": each["steps"], "metrics": each["metrics"]}
            for each in compared["sessions"]
        },
    }
    panels = [
        _beside(name, *(Curve(each["steps"], each["series"][name]) for each in curves))
        for name in curves[0]["series"]
        if name in curves[1]["series"]
    ]
    first, second = compared["sessions"]
    panels += [
        _beside(name, measured(first, name), measured(second, name))
        for name in first["metrics"]
        if name in second["metrics"]
    ]
    saved = save(context, panels, svg, png, title=f"{a} and {b}", log=log)
    if context.answers(answer) or saved:
        return
    screen = context.screen
    if found:
        columns = ("differing", a, b)
        places = ((p, shown(x), shown(y)) for p, x, y in found)
        screen.show(table(columns, places, fold=columns))
        screen.line()
    else:
        screen.line("described alike")
    for panel in panels:
        screen.show(panelled(screen, panel, height=height, log=log))
    line, dots = screen.marks
    screen.line(styled(f"{line} ", COLOURS[0]), a, "  ", styled(f"{dots} ", COLOURS[1]), b)


def _beside(title: str, first: Curve, second: Curve) -> pictures.Panel:
    """Return two curves as one panel, distinguished by colours and by gaps."""
    other = replace(second, style=COLOURS[1], dotted=True)
    return pictures.Panel(title, (replace(first, style=COLOURS[0]), other))


MOST_ITEMS = 8
"""The most items of a list that are shown, such as a table's levels; `--json` has all."""

_OWN = {"name", "labels", "earlier"}
"""Fields in which any two sessions may differ."""


def shown(value: object) -> str:
    """Return a part of a description as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value) if isinstance(value, float) else count(value)
    if isinstance(value, Mapping):
        rest = ", ".join(
            f"{k}={shown(v)}" for k, v in value.items() if k != "kind" and v is not None
        )
        kind = str(value.get("kind", ""))
        return f"{kind}({rest})" if rest or not kind else kind
    if isinstance(value, list):
        more = f", … {count(len(value))} in all" if len(value) > MOST_ITEMS else ""
        return f"[{', '.join(map(shown, value[:MOST_ITEMS]))}{more}]"
    return str(value)


# -- preview --


def preview(
    context: Context,
    *,
    words: Words = None,
    file: File = None,
    base_lr: BaseLr = None,
    steps: Count = None,
    log: Log = False,
    height: Height = 12,
    svg: Svg = None,
    png: Png = None,
) -> None:
    """Draw a schedule, or a whole description, before it is used."""
    given = _previewed(words or [], file, base_lr)
    total = (_length(given) or BEYOND) if steps is None else steps
    answer = context.server.preview(spec=given, count=total, points=max(min(POINTS, total), 10))
    panels = [
        pictures.Panel(name, (Curve(answer["steps"], values, COLOURS[i % len(COLOURS)]),))
        for i, (name, values) in enumerate(answer["series"].items())
    ]
    saved = save(context, panels, svg, png, title="preview", log=log)
    if context.answers(answer) or saved:
        return
    for panel in panels:
        context.screen.show(panelled(context.screen, panel, height=height, log=log))


def _previewed(words: list[str], file: str | None, base_lr: float | None) -> dict[str, Any]:
    """Return what to draw, as a session's description; its base rate is 1 if none is given."""
    found = document(file) if file is not None and not words else {}
    if "kind" in found or not found:
        found = {"schedule": found or schedule(words, file)}
    if base_lr is not None:
        found["base_lr"] = base_lr
    return found if found.get("groups") else {"base_lr": 1.0, **found}


def _length(given: Mapping[str, Any]) -> int | None:
    """Return the length that a description, or its schedule, states."""
    law = given.get("schedule")
    for holder in (given, law if isinstance(law, Mapping) else {}):
        total = holder.get("total_steps")
        if isinstance(total, int) and total > 0:
            return total
    return None
