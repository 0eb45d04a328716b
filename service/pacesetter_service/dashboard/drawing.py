"""Charts as SVG inside a page: all styling comes from the page's styles."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

from pacesetter_service.dashboard.axes import STEPS, TINY, Axis, ticks
from pacesetter_service.dashboard.wording import rate

WIDTH, HEIGHT = 960, 260
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 14, 30
SPARK_WIDTH, SPARK_HEIGHT = 160, 32

LEAST = 2
"""The fewest points that make a curve."""

LARGEST = 1e300
"""Values as far from 0 as this leave a gap: a scale with room above would exceed the floats."""

SPARK_STYLE = (
    "path{fill:none;stroke-width:1.6;stroke-linejoin:round}.lr{stroke:#2f62d9}.loss{stroke:#c2410c}"
    "@media(prefers-color-scheme:dark){.lr{stroke:#7ba4ff}.loss{stroke:#ff9a6b}}"
)
CHARACTER = 8
"""About the width of a character."""

COLOURS = 6
"""How many colours there are; then they repeat."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        name: What it shows.
        steps: Where it is known, ascending.
        values: Its values there; None, NaN, infinities and values close to these leave a gap.
        colour: The number of its colour.
        look: Further classes, such as `dashed`.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float | None]
    colour: int = 0
    look: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """A band in which a curve lies with some certainty.

    Attributes:
        steps: Where it is known, ascending.
        low: Its lower end at each step.
        high: Its upper end at each step.
        colour: The number of its colour.
        look: Further classes.
    """

    steps: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 0
    look: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a step; `step` is its place in a chart."""

    step: float
    kind: str
    text: str


def small_picture(
    steps: Sequence[int], rates: Sequence[float | None], losses: Sequence[float | None]
) -> str:
    """Draw a learning rate and a loss over common steps, each on its own scale, as a file."""
    curves = [
        f'<path class="{look}" d="{path}"/>'
        for look, path in (("loss", _small(steps, losses)), ("lr", _small(steps, rates)))
        if path
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}">'
        f"<style>{SPARK_STYLE}</style>{''.join(curves)}</svg>"
    )


def _small(steps: Sequence[int], values: Sequence[float | None]) -> str:
    pairs = zip(steps, values, strict=False)
    known = [(step, each) for step, each in pairs if each is not None and abs(each) < LARGEST]
    if len(known) < LEAST:
        return ""
    low, high = _room(min(each for _, each in known), max(each for _, each in known))
    first, last = steps[0], max(steps[-1], steps[0] + 1)
    return "M" + "L".join(
        f"{(step - first) / (last - first) * (SPARK_WIDTH - 4) + 2:.1f} "
        f"{SPARK_HEIGHT - 3 - (each - low) / (high - low) * (SPARK_HEIGHT - 6):.1f}"
        for step, each in known
    )


def chart(
    lines: Sequence[Line],
    *,
    label: str,
    shade: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    bands: Sequence[Band] = (),
    from_zero: bool = False,
    logarithmic: bool = False,
    axis: tuple[float, float] | None = None,
    height: int = HEIGHT,
    width: int = WIDTH,
    across: Axis = STEPS,
) -> Markup:
    """Draw curves over common steps.

    Args:
        lines: The curves.
        label: The description for readers who cannot see it.
        shade: The steps between which the background is shaded.
        bands: Bands behind the curves.
        marks: What happened at some steps.
        from_zero: Whether the scale includes 0.
        logarithmic: Whether the scale is logarithmic; values without a logarithm are left out.
        axis: The first and the last step that it spans; None for those of the curves.
        height: The height of the picture, in its own units.
        width: The width of the picture, likewise.
        across: The axis below it; the steps of all curves and marks are places on it.
    """
    edges = [Line("", each.steps, edge) for each in bands for edge in (each.low, each.high)]
    shown = [*lines, *edges]
    frame = _frame(shown, axis, (width, height), from_zero=from_zero, logarithmic=logarithmic)
    if frame is None:
        return Markup('<p class="empty">{}</p>').format("There is nothing to draw yet.")
    parts = [_shade(frame, *shade)] if shade is not None and shade[0] < shade[1] else []
    parts += [_level(frame, tick) for tick in frame.levels()]
    below = across.ticks(frame.first, frame.last, frame.width // 110)
    parts += [_place(frame, tick, across.text(tick, frame.first, frame.last)) for tick in below]
    parts += [_mark(frame, each) for each in marks if frame.first <= each.step <= frame.last]
    parts += [_band(frame, each) for each in bands]
    parts += [_curve(frame, each) for each in lines]
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, label, Markup("").join(parts))


@dataclass(frozen=True, slots=True)
class _Frame:
    first: float
    last: float
    low: float
    high: float
    width: int
    height: int
    logarithmic: bool

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = log10(value), log10(low), log10(high)
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def shows(self, value: float | None) -> bool:
        return has_place(value, logarithmic=self.logarithmic)

    def levels(self) -> list[float]:
        if not self.logarithmic:
            return ticks(self.low, self.high, 5)
        powers = range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)
        return [10.0**power for power in powers[:: max(ceil(len(powers) / 6), 1)]]


def _frame(
    lines: Sequence[Line],
    axis: tuple[float, float] | None,
    size: tuple[int, int],
    *,
    from_zero: bool,
    logarithmic: bool,
) -> _Frame | None:
    steps = [step for line in lines for step in (*line.steps[:1], *line.steps[-1:])]
    values = [
        each
        for line in lines
        for each in line.values
        if each is not None and has_place(each, logarithmic=logarithmic)
    ]
    if not steps or not values:
        return None
    left, right = (min(steps), max(steps)) if axis is None else axis
    low, high = min(values), max(values)
    if logarithmic:
        low, high = 10 ** floor(log10(max(low, TINY))), 10 ** ceil(log10(max(high, TINY)))
        high = high if high > low else low * 10
    else:
        low, high = _room(min(low, 0.0) if from_zero else low, high)
    return _Frame(left, max(right, left + 1), low, high, *size, logarithmic)


def has_place(value: float | None, *, logarithmic: bool = False) -> bool:
    """Return whether a chart can show a value; others leave a gap."""
    return value is not None and abs(value) < LARGEST and (value > 0 or not logarithmic)


def _room(low: float, high: float) -> tuple[float, float]:
    """Return bounds that differ: a flat line needs some room, whatever its value."""
    if high - low > 1e-9 * max(abs(low), abs(high), TINY):
        return low, high + 0.04 * (high - low)
    return (low - abs(low), high + abs(high)) if high else (-1.0, 1.0)


def _shade(frame: _Frame, start: float, end: float) -> Markup:
    left, right = frame.x(max(start, frame.first)), frame.x(min(end, frame.last))
    return Markup('<rect class="ahead" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        left, TOP, max(right - left, 0), frame.height - TOP - BOTTOM
    )


def _level(frame: _Frame, value: float) -> Markup:
    y = frame.y(value)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(
        LEFT,
        frame.width - RIGHT,
        y,
        y,
        LEFT - 8,
        y + 4,
        rate(round(value, 12) or 0.0 if not frame.logarithmic and abs(value) < 1e-11 else value),
    )


def _place(frame: _Frame, step: float, text: str) -> Markup:
    x, y = frame.x(step), frame.height - 8
    if x + CHARACTER * len(text) / 2 > frame.width:  # there is no room to its right
        return Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            frame.width - 1, y, text
        )
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, y, text)


def _mark(frame: _Frame, mark: Mark) -> Markup:
    x = frame.x(mark.step)
    return Markup(
        '<g class="mark {}"><title>{}</title><line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/></g>'
    ).format(mark.kind, mark.text, x, x, TOP, frame.height - BOTTOM)


def _band(frame: _Frame, band: Band) -> Markup:
    edge = [
        *zip(band.steps, band.high, strict=True),
        *reversed(list(zip(band.steps, band.low, strict=True))),
    ]
    around = [(at, value) for at, value in edge if frame.shows(value)]
    path = "L".join(f"{frame.x(at):.1f} {frame.y(value):.1f}" for at, value in around)
    return Markup('<path class="band c{} {}" d="M{}Z"/>').format(
        band.colour % COLOURS, band.look, path
    )


def _curve(frame: _Frame, line: Line) -> Markup:
    """Draw a curve as a path that is interrupted at gaps."""
    parts, down = [], False
    for step, value in zip(line.steps, line.values, strict=True):
        if value is None or not frame.shows(value):
            # Metrics may be measured at few steps: the line goes on to the next value.
            down = down and value is None
            continue
        parts.append(f"{'L' if down else 'M'}{frame.x(step):.1f} {frame.y(value):.1f}")
        down = True
    return Markup('<path class="curve c{} {}" d="{}"/>').format(
        line.colour % COLOURS, line.look, "".join(parts)
    )
