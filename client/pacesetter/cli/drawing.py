"""Curves as lines of text: two by four dots in a character, in Braille."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a Braille character, by row and column."""

_BRAILLE = 0x2800
AXIS = 9
"""Characters to the left of a curve, for the numbers of its axis."""

_NOW = "▲ now"
_TALL = 4
_WIDE = 2
_EVERY = 3
"""The stride of a dotted curve: every third column of dots is drawn."""


@dataclass(frozen=True)
class Curve:
    """A curve to draw: values over steps.

    Attributes:
        steps: The steps, in rising order.
        values: One per step; None, NaN and infinities leave a gap.
        style: The colour that it is drawn in.
        dotted: Whether it is distinguished by gaps, as where there are no colours.
        stairs: Whether a value holds until the next step, as a rate does; otherwise a straight line
            leads there.
    """

    steps: Sequence[int]
    values: Sequence[float | None]
    style: str = ""
    dotted: bool = False
    stairs: bool = False


@dataclass(frozen=True)
class Piece:
    """Some characters in one style."""

    text: str
    style: str = ""


def chart(
    curves: Sequence[Curve],
    *,
    width: int,
    height: int,
    log: bool = False,
    ascii_only: bool = False,
    now: int | None = None,
) -> list[list[Piece]]:
    """Draw curves over common axes; later ones lie over earlier ones.

    Args:
        curves: The curves to draw.
        width: Characters in a line, including the axis.
        height: Lines of the curves; the axis of steps is one more.
        log: Whether the axis of values is logarithmic; values that are not positive leave a gap.
        ascii_only: Whether the terminal has no Braille.
        now: A step to mark below the axis, where a training stands.

    Returns:
        The lines, each in pieces of one style.
    """
    frame = _frame(curves, max(width - AXIS, 8), max(height, 3), log=log)
    if frame is None:
        return [[Piece("(no values to draw)", "dim")]]
    cells, styles = _painted(curves, frame)
    lines = []
    labels = frame.labels()
    for row in range(frame.height):
        axis = f"{labels.get(row, ''):>{AXIS - 2}} ┤" if row in labels else " " * (AXIS - 2) + " │"
        axis = axis.translate({ord("┤"): "+", ord("│"): "|"}) if ascii_only else axis
        lines.append([Piece(axis, "dim"), *_row(cells[row], styles[row], ascii_only=ascii_only)])
    lines.append([Piece(" " * AXIS + frame.places(), "dim")])
    if now is not None and frame.first <= now <= frame.last:
        at = AXIS + min(frame.column(now) // _WIDE, frame.width - len(_NOW))
        lines.append([Piece(" " * at + ("^ now" if ascii_only else _NOW), "bold")])
    return lines


def _row(cells: list[int], styles: list[str], *, ascii_only: bool) -> list[Piece]:
    pieces: list[Piece] = []
    for dots, style in zip(cells, styles, strict=True):
        drawn = "*" if ascii_only else chr(_BRAILLE + dots)
        character = drawn if dots else " "
        if pieces and pieces[-1].style == style:
            pieces[-1] = Piece(pieces[-1].text + character, style)
        else:
            pieces.append(Piece(character, style))
    return pieces


@dataclass(frozen=True)
class _Frame:
    """The ranges of steps and values, and their size in dots."""

    first: int
    last: int
    low: float
    high: float
    width: int
    height: int
    log: bool

    def column(self, step: float) -> int:
        span = max(self.last - self.first, 1)
        return round((step - self.first) / span * (self.width * _WIDE - 1))

    def row(self, value: float) -> int:
        part = (self._scaled(value) - self._scaled(self.low)) / self._span
        return round((1 - part) * (self.height * _TALL - 1))

    @property
    def _span(self) -> float:
        return (self._scaled(self.high) - self._scaled(self.low)) or 1.0

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def labels(self) -> dict[int, str]:
        """Return the labels beside some lines: the values at their middle."""
        about = 2 if self.height < 6 else min(5, 1 + self.height // 3)
        rows = sorted({round(i * (self.height - 1) / (about - 1)) for i in range(about)})
        return {row: self._label(row) for row in rows}

    def _label(self, row: int) -> str:
        part = 1 - row / (self.height - 1)
        scaled = self._scaled(self.low) + part * self._span
        value = 10**scaled if self.log else scaled
        if not self.log and abs(value) < 1e-9 * max(abs(self.low), abs(self.high)):
            value = 0.0
        texts = (f"{value:.{digits}g}" for digits in (3, 2))
        return next((each for each in texts if len(each) <= AXIS - 2), f"{value:.1g}")

    def places(self) -> str:
        """Return the axis of steps: the first, the last, and what fits in between."""
        texts = [f"{self.first:,}", f"{self.last:,}"]
        middle = f"{(self.first + self.last) // 2:,}"
        line = texts[0].ljust(self.width - len(texts[1])) + texts[1]
        at = self.width // 2 - len(middle) // 2
        if at > len(texts[0]) + 2 and at + len(middle) < self.width - len(texts[1]) - 2:
            line = line[:at] + middle + line[at + len(middle) :]
        return line


LARGEST = 1e100
"""Values beyond this cannot be drawn."""


def _usable(value: float | None, *, log: bool) -> bool:
    return value is not None and abs(value) < LARGEST and (not log or value > 0)


def _frame(curves: Sequence[Curve], width: int, height: int, *, log: bool) -> _Frame | None:
    values = [v for each in curves for v in each.values if v is not None and _usable(v, log=log)]
    steps = [each.steps[i] for each in curves for i in (0, -1) if each.steps]
    if not values:
        return None
    low, high = min(values), max(values)
    if not log and 0 <= low < 0.4 * high:
        low = 0.0  # a rate is read against zero, unless it hardly moves
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a flat line needs some room
        low, high = (low / 2, high * 2) if low > 0 else (low - 1, high + 1)
    return _Frame(min(steps), max(steps), low, high, width, height, log)


def _painted(curves: Sequence[Curve], frame: _Frame) -> tuple[list[list[int]], list[list[str]]]:
    cells = [[0] * frame.width for _ in range(frame.height)]
    styles = [[""] * frame.width for _ in range(frame.height)]
    for curve in curves:
        for x, y in _dots(curve, frame):
            if curve.dotted and x % _EVERY:
                continue
            row, column = y // _TALL, x // _WIDE
            cells[row][column] |= _DOTS[y % _TALL][x % _WIDE]
            styles[row][column] = curve.style
    return cells, styles


def _dots(curve: Curve, frame: _Frame) -> list[tuple[int, int]]:
    """Return the dots of a curve, at least one in each column."""
    found: list[tuple[int, int]] = []
    last: tuple[int, int] | None = None
    for step, value in zip(curve.steps, curve.values, strict=True):
        if value is None or not _usable(value, log=frame.log):
            last = None
            continue
        here = (frame.column(step), frame.row(value))
        if last is None:
            found.append(here)
        elif curve.stairs and here[0] > last[0] + 1:
            found += _line(last, (here[0] - 1, last[1]))
            found += _line((here[0] - 1, last[1]), here)
        else:
            found += _line(last, here)
        last = here
    return found


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots from one to another, both included."""
    (x0, y0), (x1, y1) = start, end
    count = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [
        (x0 + round(i * (x1 - x0) / count), y0 + round(i * (y1 - y0) / count))
        for i in range(count + 1)
    ]


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int, *, ascii_only: bool = False) -> str:
    """Draw values as bars in one line, the newest on the right."""
    shown = list(values)[-width:]
    real = [v for v in shown if v is not None and math.isfinite(v)]
    if not real:
        return ""
    low, high = min(real), max(real)
    bars = "._-=*#%@" if ascii_only else _BARS
    span = (high - low) or 1.0
    return "".join(
        " " if v is None or not math.isfinite(v) else bars[int((v - low) / span * (len(bars) - 1))]
        for v in shown
    )
