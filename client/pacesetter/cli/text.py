"""Text for terminals: nothing that a server or a trainer writes may command one."""

from __future__ import annotations

import math
from datetime import datetime, timezone

INSTEAD = "\N{REPLACEMENT CHARACTER}"


def safe(text: object, *, lines: bool = False) -> str:
    """Return a text whose every character can be seen.

    Names, labels, reasons and metrics come from any caller of the server. A control character among
    them could move the cursor, rewrite what is above, or change the window's title. Marks of
    writing direction could show the letters in another order.

    Args:
        text: The text to show.
        lines: Whether it may have several lines.
    """
    kept = "\n" if lines else ""
    return "".join(
        each if each.isprintable() or each in kept else (" " if each in "\n\t" else INSTEAD)
        for each in str(text)
    )


def number(value: object) -> str:
    """Return a number in four digits; anything else is shown as it is."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return safe(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{value:.4g}"


def count(value: object) -> str:
    """Return a number of steps with thousands separators; a dash where it is not known."""
    return f"{value:,}" if isinstance(value, int) else "-"


def share(step: object, total: object) -> str:
    """Return how much of a plan is done once a step was trained, in percent; empty if unknown."""
    if isinstance(step, int) and isinstance(total, int) and total > 0:
        return f"{min(100 * (step + 1) // total, 100)}%"  # steps count from 0
    return ""


_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def span(seconds: object) -> str:
    """Return a length of time in its largest unit, or two: 7 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return "-"
    left = max(0.0, float(seconds))
    if left < 10:
        return f"{left:.2g} s" if left < 3 else f"{left:.0f} s"
    for place, (size, unit) in enumerate(_UNITS[:-1]):
        if left >= size:
            smaller, name = _UNITS[place + 1]
            rest = int(left % size // smaller) if size > 60 else 0
            return f"{int(left // size)} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{left:.0f} s"


def moment_of(text: object) -> datetime | None:
    """Return the moment that the server stated; None if it stated none."""
    if not isinstance(text, str):
        return None
    try:
        then = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return then if then.tzinfo is not None else then.replace(tzinfo=timezone.utc)


def ago(text: object, now: datetime | None = None) -> str:
    """Return how long ago a moment was, in its largest unit; a dash where it is not known."""
    then = moment_of(text)
    if then is None:
        return "-"
    seconds = ((now or datetime.now(timezone.utc)) - then).total_seconds()
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def since(text: object) -> str:
    """Return how long ago a moment was, as a part of a sentence."""
    said = ago(text)
    return {"-": "never", "now": "just now"}.get(said, f"{said} ago")


def clock(text: object, now: datetime | None = None) -> str:
    """Return a moment in local time; with its day, if that is not today."""
    then = moment_of(text)
    if then is None:
        return safe(text)
    here, today = then.astimezone(), (now or datetime.now(timezone.utc)).astimezone()
    same_day = here.date() == today.date()
    return f"{here:%H:%M:%S}" if same_day else f"{here:%Y-%m-%d %H:%M}"


def size(count: int) -> str:
    """Return a number of bytes: 12 kB."""
    for unit in ("B", "kB", "MB"):
        if count < 1_000:
            return f"{count} {unit}"
        count //= 1_000
    return f"{count} GB"


def plural(number_of: int, what: str) -> str:
    """Return a number with its noun: 1 session, 2 sessions."""
    return f"{number_of:,} {what}" if number_of == 1 else f"{number_of:,} {what}s"
