"""Sessions as HTML, for notebooks: everything that a server said is escaped.

Its pictures are shown as images, in which no script runs and nothing is fetched. Colours are those
of the notebook, light or dark.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_ROWS = 30
MOST_SHOWN = 6
"""How many series, metrics or labels of a session are shown."""

LONGEST = 120
"""Characters of a server's text that are shown."""


# -- a session -----------------------------------------------------------------------------------


def card(row: Mapping[str, Any], picture: bytes | None = None, trouble: str = "") -> str:
    """Return a session as HTML: its state, its step, its values, its ranks and its curve.

    Args:
        row: The session's row of the status view.
        picture: Its curve, as SVG.
        trouble: What went wrong, if anything did.
    """
    facts = [
        ("step", _step(row) + _bar(row)),
        ("sealed", cut(row.get("sealed") or "")),
        ("plan", cut(row.get("plan") or "")),
        *_values(row),
        *_metrics(row),
        ("ranks", _ranks(row)),
        ("orders", f"{_number(row['orders'])} waiting" if row.get("orders") else ""),
        ("heard", escape(_moment(row.get("last_heard")))),
        ("labels", _labels(row)),
    ]
    curve = _picture(picture, row) if picture else ""
    attempt = f"attempt {_number(row.get('attempt'))}, revision {_number(row.get('revision'))}"
    head = titled(row.get("name"), attempt, _badge(row.get("state")))
    return boxed(head + _trouble(trouble) + _facts(facts) + curve)


def _step(row: Mapping[str, Any]) -> str:
    if "step" not in row:
        return ""
    step, total = row["step"], row.get("total_steps")
    said = "none yet" if step is None else _number(step)
    if isinstance(total, int):
        said += f" of {_number(total)}"
    left = row.get("seconds_left")
    return said + (f", {_duration(left)} left" if isinstance(left, int | float) else "")


def _bar(row: Mapping[str, Any]) -> str:
    step, total = row.get("step"), row.get("total_steps")
    if not isinstance(step, int) or not isinstance(total, int) or total <= 0:
        return ""
    part = min(max((step + 1) / total, 0.0), 1.0)
    return (
        '<div style="height:4px;width:16em;max-width:100%;margin-top:4px;border-radius:2px;'
        'background:rgba(128,128,128,.25)">'
        f'<div style="height:4px;width:{100 * part:.1f}%;border-radius:2px;background:#3b6fd4">'
        "</div></div>"
    )


def _values(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = _mapping(row.get("lr"))
    return [(name, _number(value)) for name, value in _first(values)] + _more(values)


def _metrics(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    metrics = _mapping(row.get("metrics"))
    found = []
    for name, newest in _first(metrics):
        of = _mapping(newest)
        place = quiet(f"at step {_number(of.get('step'))}")
        found.append((name, f"{_number(of.get('value'))} {place}"))
    return found + _more(metrics)


def _ranks(row: Mapping[str, Any]) -> str:
    ranks = _mapping(row.get("ranks"))
    if not ranks:
        return ""
    said = f"{_number(ranks.get('seen'))} of {_number(ranks.get('expected'))}"
    for name in ("stale", "deviating"):
        if ranks.get(name):
            said += f', <span style="color:#d4553b">{_number(ranks[name])} {name}</span>'
    return said


def _labels(row: Mapping[str, Any]) -> str:
    labels = _mapping(row.get("labels"))
    chips = [
        '<span style="padding:0 6px;margin-right:4px;border-radius:8px;'
        f'background:rgba(128,128,128,.2)">{cut(name)}: {cut(value)}</span>'
        for name, value in _first(labels)
    ]
    return "".join(chips) + (quiet(f"and {len(labels) - MOST_SHOWN} more") if _more(labels) else "")


def _picture(picture: bytes, row: Mapping[str, Any]) -> str:
    # Inside an image no script runs and nothing is fetched, whatever is in it.
    data = base64.b64encode(picture).decode()
    return (
        f'<img alt="the curve of {cut(row.get("name"))}" src="data:image/svg+xml;base64,{data}"'
        ' style="display:block;width:100%;max-width:560px;margin-top:8px;background:#fff;'
        'color-scheme:light;border-radius:4px;max-height:560px;object-fit:cover;object-position:top"/>'
    )


# -- several sessions ----------------------------------------------------------------------------


def table(url: str, rows: Sequence[Mapping[str, Any]], trouble: str = "") -> str:
    """Return the sessions of a server as an HTML table, a row each.

    Args:
        url: The server's address.
        rows: The sessions' rows of the status view.
        trouble: What went wrong, if anything did.
    """
    head = titled("Pacesetter", url) + _trouble(trouble)
    if not rows:
        return boxed(head if trouble else head + quiet("no sessions yet"))
    heads = "".join(
        f'<th style="{_CELL}">{name}</th>'
        for name in ("session", "state", "step", "rate", "newest", "ranks", "heard")
    )
    shown_rows = "".join(f"<tr>{_row(row)}</tr>" for row in rows[:MOST_ROWS])
    more = quiet("and more: client.status() has all") if len(rows) > MOST_ROWS else ""
    return boxed(
        f"{head}"
        '<table style="border-collapse:collapse;margin:0"><thead><tr>'
        f"{heads}</tr></thead><tbody>{shown_rows}</tbody></table>{more}"
    )


_CELL = "text-align:left;padding:2px 10px 2px 0;white-space:nowrap"


def _row(row: Mapping[str, Any]) -> str:
    metrics = ", ".join(
        f"{cut(name)} {_number(_mapping(newest).get('value'))}"
        for name, newest in _first(_mapping(row.get("metrics")), 2)
    )
    rates = ", ".join(_number(value) for _, value in _first(_mapping(row.get("lr")), 3))
    cells = (
        f"<b>{cut(row.get('name'))}</b>",
        _badge(row.get("state")),
        _step(row),
        rates,
        metrics,
        _ranks(row),
        escape(_moment(row.get("last_heard"))[5:16]),
    )
    return "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells)


# -- parts ---------------------------------------------------------------------------------------

_COLOURS = {
    "running": "#2c7a46",
    "active": "#2c7a46",
    "silent": "#9a6b00",
    "finished": "#3b6fd4",
    "failed": "#b23a22",
    "archived": "#666",
}


def boxed(inner: str) -> str:
    """Return HTML in the frame that all output has."""
    return (
        '<div style="font:13px/1.5 system-ui,sans-serif;max-width:100%;overflow-x:auto;'
        'padding:8px 12px;border:1px solid rgba(128,128,128,.35);border-radius:6px">'
        f"{inner}</div>"
    )


def titled(name: object, aside: object = "", badge: str = "") -> str:
    """Return a title, with something beside it."""
    return (
        f'<div style="margin-bottom:4px"><b style="font-size:14px">{cut(name)}</b> '
        f"{badge} {quiet(aside)}</div>"
    )


def _badge(state: object) -> str:
    colour = _COLOURS.get(str(state), "#666")
    return (
        f'<span style="padding:1px 7px;border-radius:8px;color:#fff;background:{colour}">'
        f"{cut(state)}</span>"
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f'<div style="opacity:.7">{cut(name)}</div><div>{value}</div>'
        for name, value in facts
        if value
    )
    return (
        '<div style="display:grid;grid-template-columns:max-content 1fr;column-gap:12px">'
        f"{rows}</div>"
    )


def _trouble(why: str) -> str:
    return troubled(f"the server did not say all: {why}") if why else ""


def troubled(why: str) -> str:
    """Return a note of what went wrong."""
    return f'<div style="color:#d4553b">{cut(why, 400)}</div>'


def quiet(text: object) -> str:
    """Return a muted text."""
    return f'<span style="opacity:.7">{cut(text)}</span>' if text else ""


def _first(values: Mapping[str, Any], most: int = MOST_SHOWN) -> list[tuple[str, Any]]:
    return [(str(name), values[name]) for name in list(values)[:most]]


def _more(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    left = len(values) - MOST_SHOWN
    return [("", quiet(f"and {left} more"))] if left > 0 else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def cut(value: object, longest: int = LONGEST) -> str:
    """Return a server's text, escaped, and cut if it is too long."""
    text = str(value)
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")


def _number(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else cut("none" if value is None else value)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2_880 else f"{minutes // 1440} days"


def _moment(moment: object) -> str:
    """Return a moment without its fraction; nothing if there is none."""
    return "" if moment is None else str(moment)[:19].replace("T", " ") + " UTC"
