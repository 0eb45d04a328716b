"""Curves as SVG: one file, no script, readable in light and dark mode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, hypot, log10

from pacesetter_service.core.cost import Check

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 28
COLOURS = ("#3b6fd4", "#d4553b", "#3ba55d", "#a05bd4", "#c9952b", "#2ba8b8")

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-weight:600}"
    ".axis{stroke:#ccc;stroke-width:1}.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.axis{stroke:#444}}"
)


def draw(
    steps: Sequence[int], series: Mapping[str, list[float]], check: Check = lambda: None
) -> str:
    """Draw each series in a panel of its own, one below the other, over common steps."""
    panels = []
    for index, (name, values) in enumerate(series.items()):
        check()
        colour = COLOURS[index % len(COLOURS)]
        panels.append(_panel(steps, values, name, colour, index * HEIGHT))
    height = HEIGHT * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<style>{STYLE}</style>{''.join(panels)}</svg>"
    )


def _panel(steps: Sequence[int], values: list[float], name: str, colour: str, top: int) -> str:
    # A learning rate is read against zero; for a momentum the swing matters most.
    low, high = min(0.0 if name.endswith("lr") else values[0], *values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-290):
        high = low + max(abs(low), 1e-290)  # a flat line needs some room, whatever its size
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return top + HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, values, strict=True))
    return (
        f'<text class="title" x="{LEFT}" y="{top + 18}">{escape(name)}</text>'
        + "".join(level(y(tick), tick) for tick in ticks(low, high, 4))
        + "".join(place(x(tick), top, tick) for tick in ticks(first, last, 6))
        + f'<polyline class="curve" stroke="{colour}" points="{points}"/>'
    )


def level(y: float, value: float) -> str:
    """Draw a line across at a height, labelled with its value."""
    return (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )


def place(x: float, top: int, step: float) -> str:
    """Write a step below a panel."""
    return f'<text x="{x:.1f}" y="{top + HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between two."""
    raw = (high - low) / about
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [n * step for n in range(ceil(low / step), floor(high / step + 1e-9) + 1)]


# Range tests ------------------------------------------------------------------------------------

SWEEP_HEIGHT = 380
ROW = 20
COLUMNS = 2
DOT = 8

LARGEST = 1e100
"""Losses beyond this and rates below its inverse cannot be drawn."""

SWEEP_STYLE = (
    ".raw{fill:none;stroke:#9aa5b1;stroke-width:1}"
    ".proposal{stroke:#3ba55d;stroke-width:2;stroke-dasharray:6 4}"
    "text.chosen{font-weight:600;fill:#3ba55d}text.number{font-size:10px;fill:#fff;font-weight:600}"
)


def draw_range_test(
    *,
    title: str,
    lr: Sequence[float],
    loss: Sequence[float],
    smoothed: Sequence[float],
    suggestions: Mapping[str, float | None],
    proposal: float | None,
) -> str:
    """Draw loss over learning rate, the rates on a logarithmic axis.

    Each suggestion is a numbered dot on the smoothed curve and a line of the legend; the proposal
    is a dashed line. Losses that blow up leave the picture at its top.

    Args:
        title: The title above it.
        lr: The rate of each step; those that are not above 0 are left out.
        loss: The loss of each step; any float.
        smoothed: The losses that the suggestions were read from.
        suggestions: A rate for each rule, or None if the rule cannot tell.
        proposal: The proposed rate, if there is one.
    """
    told = {name: rate for name, rate in suggestions.items() if rate is not None and _is_rate(rate)}
    frame = _sweep_frame([rate for rate in lr if _is_rate(rate)], loss, smoothed)
    legend = _legend(told, proposal)
    rows = ceil((len(told) + 1) / COLUMNS)
    height = SWEEP_HEIGHT + 12 + ROW * rows
    body = "" if frame is None else _sweep(frame, lr, loss, smoothed, told, proposal)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<style>{STYLE}{SWEEP_STYLE}</style>"
        f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>{body}{legend}</svg>'
    )


def _is_rate(rate: float) -> bool:
    return 1 / LARGEST < rate < LARGEST


def _drawable(loss: float) -> bool:
    return abs(loss) < LARGEST


@dataclass(frozen=True, slots=True)
class _Frame:
    """The range of rates and losses, which maps them to places in the picture."""

    first: float
    last: float
    low: float
    high: float

    def x(self, rate: float) -> float:
        span = log10(self.last) - log10(self.first)
        return LEFT + (log10(rate) - log10(self.first)) / span * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        inside = min(max(loss, self.low), self.high)
        part = (inside - self.low) / (self.high - self.low)
        return SWEEP_HEIGHT - BOTTOM - part * (SWEEP_HEIGHT - TOP - BOTTOM)

    def shows(self, rate: float) -> bool:
        return self.first <= rate <= self.last


def _sweep_frame(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> _Frame | None:
    """Return the frame, or None if there is nothing to see."""
    finite = [loss for loss in smoothed if _drawable(loss)]
    if not rates or not finite:
        return None
    falling = finite[: finite.index(min(finite)) + 1]
    low = min(loss for loss in (*losses, *finite) if _drawable(loss))
    # As much room above the highest loss of the descent as below it: losses above have blown up.
    room = max(max(falling) - low, 0.05 * abs(low), 1e-290)
    high = min(max(finite), max(falling) + room)
    margin = 0.05 * max(high - low, room)
    first, last = min(rates), max(rates)
    if first == last:
        first, last = first / 2, last * 2
    return _Frame(first, last, low - margin, high + margin)


def _sweep(
    frame: _Frame,
    lr: Sequence[float],
    loss: Sequence[float],
    smoothed: Sequence[float],
    told: Mapping[str, float],
    proposal: float | None,
) -> str:
    parts = [level(frame.y(tick), tick) for tick in ticks(frame.low, frame.high, 5)]
    parts += [_decade(frame.x(10.0**power), power) for power in _powers(frame)]
    parts.append(_line(frame, lr, loss, 'class="raw"'))
    parts.append(_line(frame, lr, smoothed, f'class="curve" stroke="{COLOURS[0]}"'))
    if proposal is not None and frame.shows(proposal):
        x = frame.x(proposal)
        parts.append(
            f'<line class="proposal" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}"'
            f' y2="{SWEEP_HEIGHT - BOTTOM}"/>'
        )
    placed: list[tuple[float, float]] = []
    for number, rate in enumerate(told.values(), 1):
        if frame.shows(rate):
            x = frame.x(rate)
            y = _free(x, frame.y(_loss_at(rate, lr, smoothed)), placed)
            placed.append((x, y))
            parts.append(_dot(x, y, number))
    return "".join(parts)


def _free(x: float, y: float, placed: Sequence[tuple[float, float]]) -> float:
    """Return the height nearest above the curve at which no dot overlaps another."""
    while any(hypot(x - other, y - height) < 2 * DOT for other, height in placed):
        y -= 1
    return y


def _powers(frame: _Frame) -> range:
    """Return the powers of ten to write below the axis: about ten of them at most."""
    low, high = ceil(log10(frame.first) - 1e-9), floor(log10(frame.last) + 1e-9)
    return range(low, high + 1, max(ceil((high - low) / 10), 1))


def _line(frame: _Frame, lr: Sequence[float], losses: Sequence[float], look: str) -> str:
    """Draw the finite part of a curve; a loss outside the frame goes along its edge."""
    points = " ".join(
        f"{frame.x(rate):.1f},{frame.y(loss):.1f}"
        for rate, loss in zip(lr, losses, strict=True)
        if _is_rate(rate) and _drawable(loss)
    )
    return f'<polyline {look} points="{points}"/>'


def _loss_at(rate: float, lr: Sequence[float], smoothed: Sequence[float]) -> float:
    """Return the smoothed loss of the step whose rate is nearest; 0 if none can be drawn."""
    finite = [(r, s) for r, s in zip(lr, smoothed, strict=True) if _is_rate(r) and _drawable(s)]
    nearest = min(finite, key=lambda point: abs(log10(point[0]) - log10(rate)), default=(rate, 0.0))
    return nearest[1]


def _dot(x: float, y: float, number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" fill="{colour}"/>'
        f'<text class="number" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">'
        f"{number}</text>"
    )


def _decade(x: float, power: int) -> str:
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{SWEEP_HEIGHT - BOTTOM}"/>'
        f'<text x="{x:.1f}" y="{SWEEP_HEIGHT - 8}" text-anchor="middle">1e{power}</text>'
    )


def _legend(told: Mapping[str, float], proposal: float | None) -> str:
    """Write the rates below the picture, in two columns; the proposal comes first."""
    chosen = "nothing to propose" if proposal is None else f"proposal {proposal:.3g}"
    parts = [f'<text class="chosen" x="{LEFT}" y="{SWEEP_HEIGHT + ROW}">{chosen}</text>']
    for number, (name, rate) in enumerate(told.items(), 1):
        column, row = number % COLUMNS, number // COLUMNS
        x = LEFT + 8 + column * (WIDTH - LEFT - RIGHT) / COLUMNS
        y = SWEEP_HEIGHT + ROW * (row + 1)
        parts.append(_dot(x, y - 4, number))
        parts.append(f'<text x="{x + 16:.1f}" y="{y}">{escape(name)} {rate:.3g}</text>')
    return "".join(parts)
