"""A training in one picture: its learning rates above its measurements, and the decisions.

All panels show the same steps, so that a mark goes through all of them. It is one file without a
script, readable in light and dark mode.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import inf, isfinite, isnan
from typing import Literal

from pacesetter_service.core.cost import Check
from pacesetter_service.insight.pictures import COLOURS, LEFT, RIGHT, STYLE, WIDTH, ticks

HEAD = 46
"""Room for the title and the legend."""

ROW = 16
LETTER = 6.1
"""About the width of a letter of the legend."""

MARKS_ROOM = 22
RATES_HEIGHT, METRIC_HEIGHT = 200, 130
ABOVE, BELOW = 22, 12
FOOT = 26
LINE = 17
CHARACTERS = 106
"""How many characters of a mark's text fit in a line."""

TOLD = 12
"""How many marks, the newest ones, are described in words."""

OUTLIER = 4.0
"""A value farther out than this many times the height of the others leaves the picture."""

LONGEST_NAME = 32

LINE_COLOURS = (*COLOURS, "#d44f9c", "#8a8f2c", "#6b7f99", "#a06a42", "#1f8a70", "#e08fb0")
"""The colours of lines; of more lines than these, some share a colour."""

MarkKind = Literal["decision", "order", "attempt"]

GLYPHS: dict[MarkKind, str] = {"decision": "◆", "order": "▲", "attempt": "●"}

RUN_STYLE = (
    ".sealed{opacity:.45}.forecast{stroke-dasharray:5 4}"
    ".mark{stroke-width:1;stroke-dasharray:2 3}.dense{opacity:.35}.small{font-size:11px}"
    ".decision{stroke:#c9661a;fill:#c9661a}.order{stroke:#7a4fc9;fill:#7a4fc9}"
    ".attempt{stroke:#7d8590;fill:#7d8590}"
    ".line{fill:none}.bad{stroke:#d4553b;stroke-width:2}.ahead{fill:#8892a0;opacity:.1}"
    "text.decision,text.order,text.attempt{stroke:none;font-weight:600}.muted{fill:#777}"
    "@media(prefers-color-scheme:dark){.muted{fill:#999}.decision{stroke:#f0954a;fill:#f0954a}"
    ".order{stroke:#b190f5;fill:#b190f5}.attempt{stroke:#9aa4b0;fill:#9aa4b0}}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """Values at some places, ascending; None where there is no value, and the line bridges it."""

    name: str
    places: Sequence[float]
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share an axis; learning rates are read against zero."""

    title: str
    lines: Sequence[Line]
    rates: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a step."""

    at: float
    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """Up to where the picture shows trained and sealed steps; those beyond may still change."""

    trained: float = inf
    sealed: float = inf


def draw_run(
    title: str,
    panels: Sequence[Panel],
    *,
    marks: Sequence[Mark] = (),
    bounds: Bounds | None = None,
    fraction: bool = False,
    check: Check = lambda: None,
) -> str:
    """Draw panels below each other.

    Args:
        title: The title above them.
        panels: What is drawn; lines at the same index in two panels have the same colour.
        marks: What happened; the newest ones are described below.
        bounds: Which part of it is final; None if all of it is.
        fraction: Whether places are fractions of a training, not steps.
        check: Is called before each panel.
    """
    there = [place for panel in panels for line in panel.lines for place in line.places]
    first, last = min(there, default=0.0), max(there, default=1.0)
    frame = _Frame(first, last if last > first else first + 1, bounds or Bounds(), fraction)
    marks = sorted((each for each in marks if first <= each.at <= last), key=lambda each: each.at)
    told = marks[-TOLD:]
    top = HEAD + (ROW if _names(panels) else 0) + (MARKS_ROOM if marks else 0)
    parts, begin = list[str](), top
    for panel in panels:
        check()
        height = RATES_HEIGHT if panel.rates else METRIC_HEIGHT
        parts.append(_panel(frame, panel, top, height))
        top += height
    parts += [_step(frame.x(each), top, each, fraction) for each in ticks(first, frame.last, 6)]
    parts += _marks(frame, marks, told, begin, top)
    foot = top + FOOT
    parts += _told(told, len(marks) - len(told), foot)
    height = foot + LINE * (len(told) + (len(marks) > len(told))) + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<style>{STYLE}{RUN_STYLE}</style>"
        f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>'
        f"{_legend(frame, panels, marks, 38)}{''.join(parts)}</svg>"
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    first: float
    last: float
    bounds: Bounds
    fraction: bool

    def x(self, place: float) -> float:
        part = (place - self.first) / (self.last - self.first)
        return LEFT + part * (WIDTH - LEFT - RIGHT)


def _legend(frame: _Frame, panels: Sequence[Panel], marks: Sequence[Mark], top: int) -> str:
    """Write what the styles of lines and marks in the picture mean, in one row or two.

    Args:
        frame: Where things are.
        panels: What is drawn.
        marks: What happened.
        top: The height of the first row.
    """
    names = _names(panels)
    lines = [("curve", f'stroke="{_colour(index)}"', name) for index, name in enumerate(names)]
    looks = list[tuple[str, str, str]]()
    if frame.bounds.trained < min(frame.last, frame.bounds.sealed):
        looks.append(("curve sealed", f'stroke="{COLOURS[0]}"', "sealed, not trained yet"))
    if frame.bounds.sealed <= frame.last:
        looks.append(("curve forecast", f'stroke="{COLOURS[0]}"', "forecast"))
    parts = list(_strokes(lines, top)) if lines else []
    y, x = top + (ROW if lines else 0), float(LEFT)
    parts += _strokes(looks, y)
    x += sum(36 + LETTER * len(text) for _, _, text in looks)
    for kind in sorted({mark.kind for mark in marks}):
        parts.append(f'<text class="small {kind}" x="{x:.0f}" y="{y}">{GLYPHS[kind]} {kind}</text>')
        x += 26 + LETTER * len(kind)
    return "".join(parts)


def _names(panels: Sequence[Panel]) -> list[str]:
    """Return the names of lines that share a panel; none if each has its own."""
    longest = max((panel.lines for panel in panels), key=len, default=())
    return [_short(line.name) for line in longest] if len(longest) > 1 else []


def _strokes(entries: Sequence[tuple[str, str, str]], y: int) -> Iterator[str]:
    x = float(LEFT)
    for look, stroke, text in entries:
        if x + 23 + LETTER * len(text) > WIDTH:
            yield f'<text class="small" x="{x:.0f}" y="{y}">…</text>'
            return
        yield (
            f'<line class="{look}" {stroke} x1="{x:.0f}" x2="{x + 18:.0f}" y1="{y - 4}"'
            f' y2="{y - 4}"/><text class="small" x="{x + 23:.0f}" y="{y}">{escape(text)}</text>'
        )
        x += 36 + LETTER * len(text)


def _colour(index: int) -> str:
    return LINE_COLOURS[index % len(LINE_COLOURS)]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _panel(frame: _Frame, panel: Panel, top: int, height: int) -> str:
    low, high = _range(panel)

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return top + height - BELOW - (inside - low) / (high - low) * (height - ABOVE - BELOW)

    parts = [f'<text class="small title" x="{LEFT}" y="{top + 14}">{escape(panel.title)}</text>']
    if frame.bounds.sealed < frame.last:
        x = frame.x(max(frame.bounds.sealed, frame.first))
        parts.append(
            f'<rect class="ahead" x="{x:.1f}" y="{top + ABOVE}" width="{WIDTH - RIGHT - x:.1f}"'
            f' height="{height - ABOVE - BELOW}"/>'
        )
    parts += [_level(y(each), each) for each in ticks(low, high, 4 if panel.rates else 3)]
    for index, line in enumerate(panel.lines):
        parts += _line(frame, line, y, _colour(index))
    return "".join(parts)


def _range(panel: Panel) -> tuple[float, float]:
    """Return the range of values that a panel shows, without far outliers."""
    every = sorted(
        value
        for line in panel.lines
        for value in line.values
        if value is not None and isfinite(value) and abs(value) < 1e300
    )
    if not every:
        return 0.0, 1.0
    low, high = every[0], every[-1]
    if panel.rates:
        low = min(low, 0.0)
    else:
        usual = every[len(every) // 50], every[-1 - len(every) // 50]
        room = max(usual[1] - usual[0], 1e-300)
        if high - usual[1] > OUTLIER * room:
            high = usual[1] + 0.1 * room
        if usual[0] - low > OUTLIER * room:
            low = usual[0] - 0.1 * room
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-290):
        room = max(abs(low), 1e-290)  # a flat line needs some, whatever its size
        low, high = (low, high + room) if panel.rates else (low - room / 2, high + room / 2)
    return low, high


def _line(frame: _Frame, line: Line, y: Callable[[float], float], colour: str) -> Iterator[str]:
    """Draw a line in the style of each part; a value that is not finite leaves a gap."""
    points = [
        (place, value)
        for place, value in zip(line.places, line.values, strict=True)
        if value is not None
    ]
    for look, part in _parts(points, frame.bounds):
        run = list[str]()
        for place, value in [*part, (inf, inf)]:
            if isfinite(value):
                run.append(f"{frame.x(place):.1f},{y(value):.1f}")
                continue
            if len(run) == 1:
                at, height = run[0].split(",")
                yield f'<circle cx="{at}" cy="{height}" r="2" fill="{colour}"/>'
            elif run:
                yield (
                    f'<polyline class="curve{look}" stroke="{colour}" points="{" ".join(run)}"/>'
                )
            run = []
    for place, value in points:
        if not isfinite(value):
            x, bottom = frame.x(place), y(0.0 if isnan(value) else value)
            yield (
                f'<path class="bad" d="M{x - 3:.1f} {bottom - 3:.1f}l6 6m0 -6l-6 6"><title>'
                f"{escape(line.name)} is {value} at {place:,.0f}</title></path>"
            )


def _parts(
    points: Sequence[tuple[float, float]], bounds: Bounds
) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Cut a line where it is not trained yet, and where it is not sealed yet; the parts touch."""
    edges = (-inf, min(bounds.trained, bounds.sealed), bounds.sealed, inf)
    for look, (begin, end) in zip(("", " sealed", " forecast"), pairwise(edges), strict=True):
        part = [point for point in points if begin <= point[0] < end]
        before = [point for point in points if point[0] < begin][-1:]
        if part:
            yield look, [*before, *part]


def _level(y: float, value: float) -> str:
    return (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="small" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )


def _step(x: float, y: int, place: float, fraction: bool) -> str:  # noqa: FBT001 - of the axis
    text = f"{place:.0%}" if fraction else f"{place:,.0f}"
    return f'<text class="small" x="{x:.1f}" y="{y + 6}" text-anchor="middle">{text}</text>'


def _marks(
    frame: _Frame, marks: Sequence[Mark], told: Sequence[Mark], top: int, bottom: int
) -> Iterator[str]:
    """Draw a line through all panels for each mark; marks that are described have a number."""
    numbers = {id(mark): number for number, mark in enumerate(told, 1)}
    ends = [-inf, -inf]  # of the labels in each of two rows
    for mark in marks:
        x, number = frame.x(mark.at), numbers.get(id(mark))
        label = GLYPHS[mark.kind] + ("" if number is None else str(number))
        half = 5.0 + 3.5 * (len(label) - 1)
        row = next((row for row, end in enumerate(ends) if x - half >= end), None)
        y = top - 4 - 10 * (row or 0)
        text, look = "", " dense"
        if row is not None:  # there is room for the label
            ends[row], look = x + half + 1, ""
            text = (
                f'<text class="small {mark.kind}" x="{x:.1f}" y="{y}" text-anchor="middle">'
                f"{label}</text>"
            )
        yield (
            f'<g><title>{escape(mark.text)}</title><line class="mark {mark.kind}{look}"'
            f' x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2}" y2="{bottom - BELOW}"/>{text}</g>'
        )


def _told(told: Sequence[Mark], others: int, top: int) -> Iterator[str]:
    """Write what the numbered marks are, a line for each."""
    y = top + LINE - 4
    if others:
        yield f'<text class="small muted" x="{LEFT}" y="{y}">… and {others} before these</text>'
        y += LINE
    for number, mark in enumerate(told, 1):
        text = mark.text if "step" in mark.text else f"step {mark.at:,.0f}: {mark.text}"
        if len(text) > CHARACTERS:
            text = f"{text[: CHARACTERS - 1]}…"
        yield (
            f'<text class="small {mark.kind}" x="{LEFT - 8}" y="{y}" text-anchor="end">'
            f"{GLYPHS[mark.kind]}{number}</text>"
            f'<text class="small" x="{LEFT}" y="{y}">{escape(text)}</text>'
        )
        y += LINE
