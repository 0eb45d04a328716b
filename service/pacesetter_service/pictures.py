"""Curves as SVG: one file, no script, readable in the light and in the dark."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 28
COLOURS = ("#3b6fd4", "#d4553b", "#3ba55d", "#a05bd4", "#c9952b", "#2ba8b8")

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.title{font-weight:600}"
    ".axis{stroke:#ccc;stroke-width:1}.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.axis{stroke:#444}}"
)


def draw(steps: Sequence[int], series: dict[str, list[float]]) -> str:
    """Draw each series in a panel of its own, one below the other, over common steps."""
    panels = [
        _panel(steps, values, name, COLOURS[index % len(COLOURS)], index * HEIGHT)
        for index, (name, values) in enumerate(series.items())
    ]
    height = HEIGHT * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<style>{STYLE}</style>{''.join(panels)}</svg>"
    )


def _panel(steps: Sequence[int], values: list[float], name: str, colour: str, top: int) -> str:
    # A learning rate is read against zero; a momentum says most by how far it swings.
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
        + "".join(_level(y(tick), tick) for tick in _ticks(low, high, 4))
        + "".join(_place(x(tick), top, tick) for tick in _ticks(first, last, 6))
        + f'<polyline class="curve" stroke="{colour}" points="{points}"/>'
    )


def _level(y: float, value: float) -> str:
    return (
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )


def _place(x: float, top: int, step: float) -> str:
    return f'<text x="{x:.1f}" y="{top + HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Give round numbers between two."""
    raw = (high - low) / about
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return [n * step for n in range(ceil(low / step), floor(high / step + 1e-9) + 1)]
