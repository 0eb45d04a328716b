"""What the `pacesetter` command asks a server for, as lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from pacesetter import _record
from pacesetter._client import DEFAULT_URL, Client
from pacesetter._errors import PacesetterError, misfit
from pacesetter._opening import path_of
from pacesetter._transport import Transport

__all__ = ["PacesetterError", "events", "explanation", "export", "follow", "prune", "restore"]

PATIENCE = 300.0
"""Seconds that a server which is being followed may be away."""

TIMEOUT = 30.0
"""Seconds that one exchange may take."""


def explanation(url: str | None, name: str, step: int) -> Iterator[str]:
    """Say why the values of a session at a step are what they are.

    Raises:
        PacesetterError: The server refuses, or does not answer.
        ValueError: The URL is none.
    """
    answer = _server(url).json("GET", path_of(name) + "/explain", params={"step": step})
    yield _text(answer).rstrip("\n")


def events(
    url: str | None, name: str, *, kinds: Sequence[str] = (), after: int | None = None
) -> Iterator[str]:
    """Tell what has happened to a session: number, time and text of each event, in their order.

    Raises:
        PacesetterError: The server refuses, or does not answer.
        ValueError: The URL is none.
    """
    server = _server(url)
    params: dict[str, Any] = {"kind": list(kinds) or None, "after": after, "limit": 1000}
    token: str | None = ""
    while token is not None:
        page = server.json(
            "GET", path_of(name) + "/events", params={**params, "page_token": token or None}
        )
        yield from map(_told, page.get("events", ()))
        token = page.get("next_page_token")


def follow(
    url: str | None, name: str, *, kinds: Sequence[str] = (), after: int | None = None
) -> Iterator[str]:
    """Tell what has happened to a session, and then what happens, without an end.

    Raises:
        PacesetterError: The server refuses, or stays away.
        ValueError: The URL is none.
    """
    path, known = path_of(name) + "/events/stream", -1 if after is None else after
    for event in _record.follow(_server(url), path, known, wait=PATIENCE):
        if not kinds or event.get("kind") in kinds:
            yield _told(event)


def export(url: str | None, name: str, file: str) -> Iterator[str]:
    """Write the whole record of a session into a file.

    Raises:
        PacesetterError: The server refuses, or does not answer.
        ValueError: The URL is none.
        OSError: The file cannot be written.
    """
    _record.export(_server(url), path_of(name) + "/export", file)
    yield f"wrote {file}"


def restore(url: str | None, file: str, name: str | None) -> Iterator[str]:
    """Restore a session from what `export` wrote.

    Raises:
        PacesetterError: The server refuses, or does not answer.
        ValueError: The URL is none.
        OSError: The file cannot be read.
    """
    session = _record.restore(_server(url), file, name)
    yield f"imported {session.get('name')}, sealed up to step {session.get('horizon')}"


def prune(
    url: str | None,
    *,
    older_than: str,
    states: Sequence[str],
    labels: Sequence[str],
    purge: bool,
    dry_run: bool,
) -> Iterator[str]:
    """Put old sessions away, and tell of each what was done, and in the end how much it was.

    Raises:
        PacesetterError: The server refuses, or does not answer.
        ValueError: The URL is none, or an argument makes no sense.
    """
    wanted = dict(_label(each) for each in labels)
    count = size = kept = 0
    with Client(url, timeout=TIMEOUT) as client:
        for each in client.prune(
            older_than=_seconds(older_than),
            states=states,
            labels=wanted,
            purge=purge,
            dry_run=dry_run,
        ):
            step, about = str(each.get("step")), int(each.get("bytes", 0))
            why = f": {_printable(each.get('reason'))}" if step == "keep" else ""
            name, state = each.get("name"), each.get("state")
            yield f"{step:>7}  {_sized(about):>9}  {each.get('changed_at')}  {name} ({state}){why}"
            kept += step == "keep"
            count += step != "keep"
            size += about if step == "purge" else 0
    would = "would be " if dry_run else ""
    yield f"{count} sessions {would}put away, {kept} kept; {_sized(size)} {would}removed"


_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def _seconds(text: str) -> float:
    """Read a length of time, such as 90d.

    Raises:
        ValueError: It is none.
    """
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is no length of time: write 90d, 12h or 30m") from None


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no label: write name=value")
    return name, value


def _sized(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000 or unit == "GB":
            break
        count //= 1_000
    return f"{count} {unit}"


def _told(event: Any) -> str:  # noqa: ANN401 - whatever the server answered
    text = " ".join(_text(event).split())
    return f"{event.get('seq'):>6}  {event.get('created_at')}  {text}"


def _server(url: str | None) -> Transport:
    return Transport(url or os.environ.get("PACESETTER_URL") or DEFAULT_URL, timeout=TIMEOUT)


def _text(answer: Any) -> str:  # noqa: ANN401 - whatever the server answered
    text = answer.get("text") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise misfit("the answer has no text")
    return _printable(text)


def _printable(text: object) -> str:
    # People's reasons are in it: nothing of them is to command the terminal.
    return "".join(each if each.isprintable() or each == "\n" else " " for each in str(text))
