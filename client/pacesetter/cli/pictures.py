"""Curves in files: SVG by ourselves, PNG by matplotlib where it is installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pacesetter._files import writing
from pacesetter.cli.drawing import Curve
from pacesetter.cli.exits import USAGE, CommandError
from pacesetter.cli.text import number, safe

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 72, 28, 32, 28

COLOURS = {
    "green": "#2a9d5c",
    "cyan": "#3b6fd4",
    "yellow": "#c9952b",
    "magenta": "#a05bd4",
    "blue": "#2b59b8",
    "red": "#d4553b",
}

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-weight:600}"
    ".axis{stroke:#ccc}.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.axis{stroke:#444}}"
)


@dataclass(frozen=True)
class Panel:
    """Curves over common axes, under a title; in the terminal the step `now` is marked."""

    title: str
    curves: tuple[Curve, ...]
    now: int | None = None


def write_svg(file: Path, panels: Sequence[Panel], *, title: str, log: bool) -> None:
    """Write panels one below the other, as one picture without scripts.

    Raises:
        OSError: The file cannot be written.
    """
    drawn = "".join(_panel(each, i * HEIGHT, log=log) for i, each in enumerate(panels))
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(panels)}"'
        f' role="img"><title>{escape(safe(title))}</title><style>{STYLE}</style>{drawn}</svg>\n'
    )
    with writing(file) as out:
        out.write(picture.encode())


def _panel(panel: Panel, top: int, *, log: bool) -> str:
    points = [
        [
            None if (scaled := _scaled(value, log=log)) is None else (step, scaled)
            for step, value in zip(curve.steps, curve.values, strict=True)
        ]
        for curve in panel.curves
    ]
    known = [each for line in points for each in line if each is not None]
    title = f'<text class="title" x="{LEFT}" y="{top + 20}">{escape(safe(panel.title))}</text>'
    if not known:
        return title
    first, last = min(s for s, _ in known), max(s for s, _ in known)
    low, high = min(v for _, v in known), max(v for _, v in known)
    low = 0.0 if not log and 0 <= low < high else low
    high = high if high > low else low + (abs(low) or 1.0)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)
        y = top + HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    marks = ""
    for i in range(5):
        value = low + i / 4 * (high - low)
        y = place(first, value)[1]
        marks += (
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{number(10**value if log else value)}</text>"
        )
        step = first + i * (last - first) // 4
        marks += (
            f'<text x="{place(step, low)[0]:.1f}" y="{top + HEIGHT - 8}" text-anchor="middle">'
            f"{step:,}</text>"
        )
    lines = ""
    for curve, line in zip(panel.curves, points, strict=True):
        dash = ' stroke-dasharray="5 4"' if curve.dotted else ""
        colour = COLOURS.get(curve.style, "#3b6fd4")
        for run in _runs(line):
            path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in run)
            lines += f'<polyline class="curve" stroke="{colour}"{dash} points="{path}"/>'
    return title + marks + lines


def _scaled(value: float | None, *, log: bool) -> float | None:
    """Return where a value stands on its axis; None for one that cannot be drawn."""
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log10(value) if log else value


def _runs(line: Sequence[tuple[int, float] | None]) -> list[list[tuple[int, float]]]:
    """Return the runs of a curve between its gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for point in line:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def write_png(file: Path, panels: Sequence[Panel], *, title: str, log: bool) -> None:
    """Write panels one below the other, drawn by matplotlib.

    Raises:
        CommandError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise CommandError(
            USAGE,
            "a PNG is drawn by matplotlib, which is not installed",
            "pip install matplotlib, or take --svg",
        ) from None
    figure = figures.Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    figure.suptitle(_plain(title))
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, place)
        axes.set_title(_plain(panel.title), loc="left")
        for curve in panel.curves:
            values = [float("nan") if v is None else v for v in curve.values]
            style = "--" if curve.dotted else "-"
            axes.plot(curve.steps, values, style, color=COLOURS.get(curve.style))
        axes.set_yscale("log" if log else "linear")
        axes.grid(visible=True, alpha=0.3)
    with writing(file) as out:
        figure.savefig(out, format="png", dpi=120)


def _plain(text: str) -> str:
    return safe(text).replace("$", r"\$")  # otherwise matplotlib reads formulas between two of them
