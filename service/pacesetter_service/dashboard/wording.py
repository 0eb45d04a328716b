"""Numbers, durations and moments in a form for people."""

import json
from datetime import UTC, datetime
from math import isfinite

from markupsafe import Markup, escape
from pydantic import JsonValue

MINUTE, HOUR, DAY = 60, 3600, 86_400

KIBI = 1024

NOTHING = "\N{EN DASH}"
"""The text where there is no number."""


def count(value: float | None) -> str:
    """Write an integer with separated thousands."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | str | None) -> str:
    """Write a rate or a metric with four digits; NaN and infinities by name."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if not isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Write a duration in its two largest units."""
    if seconds is None or not isfinite(seconds):
        return NOTHING
    whole = max(round(seconds), 0)
    for unit, size, smaller, part in (
        ("d", DAY, "h", HOUR),
        ("h", HOUR, "min", MINUTE),
        ("min", MINUTE, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def days(many: float | None) -> str:
    """Write after how many days something is done automatically."""
    if many is None:
        return "never"
    return f"after {many:,.4g} day{'' if many == 1 else 's'}"


def age(seconds: float | None) -> str:
    """Write how long ago something was."""
    if seconds is None:
        return "never"
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def moment(text: str | None) -> Markup:
    """Write a moment, ISO 8601 in UTC, so that a script can show it in local time."""
    if not text:
        return Markup(NOTHING)  # noqa: S704 - a dash
    utc = datetime.fromisoformat(text).astimezone(UTC)
    said = utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), said, said
    )


def size(many: float) -> str:
    """Write how many bytes something takes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if many < KIBI:
            return f"{many:,.3g} {unit}" if many < 100 else f"{many:,.0f} {unit}"
        many /= KIBI
    return f"{many:,.3g} TiB"


def as_json(value: JsonValue) -> str:
    """Write a value as JSON for people: characters are not escaped."""
    return json.dumps(value, ensure_ascii=False)


def coded(text: str) -> Markup:
    """Write one of our texts, with the names in backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of the backticks is not closed
        return escape(text)
    pieces = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    ]
    return Markup("").join(pieces)


def seconds_since(text: str | None) -> float | None:
    """Return how many seconds ago a moment was; None if there is none."""
    if not text:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
