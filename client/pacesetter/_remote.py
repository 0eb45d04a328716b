"""What the `pacesetter` command asks a server for, as lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from pacesetter import _record
from pacesetter._client import DEFAULT_URL
from pacesetter._errors import PacesetterError, misfit
from pacesetter._opening import path_of
from pacesetter._transport import Transport

__all__ = ["PacesetterError", "events", "explanation", "export", "follow", "restore"]

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


def _told(event: Any) -> str:  # noqa: ANN401 - whatever the server answered
    text = " ".join(_text(event).split())
    return f"{event.get('seq'):>6}  {event.get('created_at')}  {text}"


def _server(url: str | None) -> Transport:
    return Transport(url or os.environ.get("PACESETTER_URL") or DEFAULT_URL, timeout=TIMEOUT)


def _text(answer: Any) -> str:  # noqa: ANN401 - whatever the server answered
    text = answer.get("text") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise misfit("the answer has no text")
    # People's reasons are in it: nothing of them is to command the terminal.
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)
