"""A plan as HTML, for notebooks: losses so far and as expected, with bands, and the rates below.

Everything that a server said is escaped, or is a number; the picture is shown as an image.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

from pacesetter._html import boxed, cut, titled, troubled

WIDTH, LOSSES, RATES = 720, 280, 130
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 26, 26
COLOURS = ("#2f62d9", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#0e7490")
INK, SOFT = "#1b2330", "#8a93a3"

DRAWN = 3
"""How many of the best candidates are drawn, beside what is planned."""

CLOSE = 2
"""The drawn past is this many times shorter than what is to come."""

SAYS = {
    "loss": "losses are predicted",
    "ranking": "candidates are ranked, and no loss is predicted",
    "nothing": "nothing can be said",
}

Answer = Mapping[str, Any]
Points = list[tuple[float, float]]


def shown(answer: Answer) -> str:
    """Return a plan as HTML: its picture, its candidates, and why less is said."""
    head = titled(
        f"{answer['metric']} of {answer['session']}",
        f"from step {answer['horizon']:,} on: {SAYS.get(answer['predicts'], '')}",
    )
    findings = "".join(
        troubled(f"{each['code']}: {each['message']}") for each in answer["findings"]
    )
    drawn = base64.b64encode(picture(answer).encode()).decode()
    image = (
        f'<img alt="{cut(answer["metric"])} so far and as expected" '
        f'src="data:image/svg+xml;base64,{drawn}" style="display:block;width:100%;'
        'max-width:720px;background:#fff;color-scheme:light;border-radius:4px"/>'
    )
    notes = "".join(f'<div style="opacity:.7">{cut(each, 400)}</div>' for each in answer["unknown"])
    return boxed(head + findings + image + _table(answer) + notes)


def _table(answer: Answer) -> str:
    if not answer["candidates"]:
        return ""
    heads = ["", "way to go on", "ends at"]
    if answer["predicts"] == "loss":
        heads += [answer["metric"], "9 of 10 within", "gain", "without rates"]
    rows = [
        list(_cells(index, candidate))[: len(heads)]
        for index, candidate in enumerate(answer["candidates"])
    ]
    return (
        '<table style="border-collapse:collapse;margin:6px 0"><thead>'
        f"{_row('th', map(cut, heads))}</thead><tbody>"
        f"{''.join(_row('td', row) for row in rows)}</tbody></table>"
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    look = "text-align:left;padding:2px 12px 2px 0;white-space:nowrap"
    return "<tr>" + "".join(f'<{tag} style="{look}">{cell}</{tag}>' for cell in cells) + "</tr>"


def _cells(index: int, candidate: Answer) -> Iterator[str]:
    end, gain, blind = candidate["end"], candidate["gain"], candidate["blind"]
    refused = candidate["refused"]
    colour = _colour(index, candidate) if candidate["orders"] else "inherit"
    yield f'<b style="color:{colour}">{index + 1}</b>'
    yield cut(candidate["label"] if refused is None else f"{candidate['label']}: {refused}", 400)
    yield f"{candidate['total_steps']:,}"
    yield "" if end is None else f"<b>{end['loss']:#.4g}</b>"
    yield "" if end is None else f"{end['low']:#.4g} to {end['high']:#.4g}"
    yield "" if gain is None or not candidate["orders"] else f"{gain:+.3g}"
    yield "" if blind is None else f"{blind:#.4g}"


def _colour(index: int, candidate: Answer) -> str:
    return COLOURS[index % len(COLOURS)] if candidate["orders"] else INK


class _Frame(NamedTuple):
    """The ranges of steps and values, in a panel of this height from `top` on."""

    first: float
    last: float
    low: float
    high: float
    top: int
    height: int

    def x(self, step: float) -> float:
        part = (step - self.first) / max(self.last - self.first, 1e-9)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        part = (value - self.low) / max(self.high - self.low, 1e-300)
        return self.top + self.height - BOTTOM - part * (self.height - TOP - BOTTOM)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(at):.1f} {self.y(value):.1f}" for at, value in points)


def picture(answer: Answer) -> str:
    """Return the losses of a plan, and its learning rates below, as SVG."""
    last = max([answer["total_steps"], *(each["total_steps"] for each in answer["candidates"])])
    horizon = answer["horizon"]
    first = horizon - (last - horizon) // CLOSE
    drawn = [
        (index, each)
        for index, each in enumerate(answer["candidates"])
        if each["curve"] is not None and (index < DRAWN or not each["orders"])
    ]
    losses = "".join(_losses(answer, drawn, first, last))
    rates = "".join(_rates(answer, drawn, first, last))
    size = f"0 0 {WIDTH} {LOSSES + RATES}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img">'
        "<style>text{font:12px system-ui,sans-serif;fill:#566072}.title{font-weight:600}"
        "path{fill:none;stroke-width:1.8;stroke-linejoin:round}.grid{stroke:#dde2ea}</style>"
        f"{losses}{rates}</svg>"
    )


Drawn = Sequence[tuple[int, Answer]]


def _losses(answer: Answer, drawn: Drawn, first: float, last: float) -> Iterator[str]:
    measured = _points(answer.get("measured") or {}, "loss", first)
    curves = [(index, each, each["curve"]) for index, each in drawn]
    shown_values = [value for _, value in measured]
    for _, _, curve in curves:
        for name in ("loss", "low", "high", "blind"):
            shown_values += [value for _, value in _points(curve, name, first)]
    frame = _framed(shown_values, first, last, 0, LOSSES)
    if frame is None:
        return
    expected = ", so far and as expected" if drawn else " so far"
    yield from _grid(frame, f"{answer['metric']}{expected}")
    for index, each, curve in curves:
        around = _points(curve, "high", first) + _points(curve, "low", first)[::-1]
        look = f"fill:{_colour(index, each)};fill-opacity:.13"
        yield f'<path d="{frame.path(around)}Z" style="{look}"/>'
    for index, each, curve in curves:
        yield _line(frame, _points(curve, "loss", first), _colour(index, each), each["orders"])
    longest = max(curves, key=lambda each: float(each[2]["steps"][-1]), default=None)
    if longest is not None and longest[2].get("blind"):
        yield _line(frame, _points(longest[2], "blind", first), SOFT, orders=())
    yield _line(frame, measured, INK, orders=True)


def _rates(answer: Answer, drawn: Drawn, first: float, last: float) -> Iterator[str]:
    measured = _points(answer.get("measured") or {}, "lr", first)
    lines = [(index, each, _points(each["curve"], "lr", first)) for index, each in drawn]
    values = [value for points in (measured, *(each[2] for each in lines)) for _, value in points]
    frame = _framed([0.0, *values], first, last, LOSSES, RATES) if values else None
    if frame is None:
        return
    yield from _grid(frame, "learning rate")
    for index, each, points in lines:
        yield _line(frame, points, _colour(index, each), each["orders"])
    yield _line(frame, measured, INK, orders=True)


def _line(frame: _Frame, points: Points, colour: str, orders: object) -> str:
    if not points:
        return ""
    dashes = "" if orders else ";stroke-dasharray:6 4"
    return f'<path d="{frame.path(points)}" style="stroke:{colour}{dashes}"/>'


def _points(curve: Answer, name: str, first: float) -> Points:
    """Return a curve from a step on; what is not a finite number is left out."""
    pairs = zip(curve.get("steps") or (), curve.get(name) or (), strict=False)
    return [(float(at), float(value)) for at, value in pairs if at >= first and isfinite(value)]


def _framed(
    values: Sequence[float], first: float, last: float, top: int, height: int
) -> _Frame | None:
    if not values:
        return None
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or abs(high) or 1.0
    return _Frame(first, last, low - room if low else 0.0, high + room, top, height)


def _grid(frame: _Frame, title: str) -> Iterator[str]:
    yield f'<text class="title" x="{LEFT}" y="{frame.top + 17}">{escape(title)}</text>'
    for value in _ticks(frame.low, frame.high, 5 if frame.height == LOSSES else 2):
        y = frame.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    below = frame.top + frame.height - 9
    for step in _ticks(frame.first, frame.last, 6):
        yield f'<text x="{frame.x(step):.1f}" y="{below}" text-anchor="middle">{step:,.0f}</text>'


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers between two."""
    raw = (high - low) / about
    if not raw > 0:
        return []
    power = 10.0 ** floor(log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), raw)
    return [n * step for n in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
