"""The record of a session: its events as they happen, and files that hold all of it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pacesetter._errors import InvalidAnswerError, ServerError, TransportError, away, misfit
from pacesetter._retry import delays
from pacesetter._transport import Transport

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"

SILENCE = 60.0
"""Seconds without a byte after which a connection is given up; servers send more often."""

IMPORT_TIMEOUT = 600.0
"""Seconds that a server may take to write a record that was sent to it."""

CHUNK = 64 * 1024
MAX_EVENT = 32 * 1024 * 1024


def log(ask: Callable[..., dict[str, Any]], path: str, after: int) -> Iterator[dict[str, Any]]:
    """Return the events so far, page by page."""
    while True:
        page = ask("GET", path, params={"after": after, "limit": 1000})
        events = page.get("events")
        if not isinstance(events, list):
            raise misfit("the server answered no page of events")
        for event in events:
            after = _seq(event, after)
            yield event
        if not page.get("next_page_token"):
            return


def follow(transport: Transport, path: str, after: int, *, wait: float) -> Iterator[dict[str, Any]]:
    """Return the events as they happen, without an end.

    Raises:
        ServerUnavailableError: The server was away for `wait` seconds.
        APIError: It refused.
    """
    pauses, lost = delays(), 0.0
    while True:
        try:
            for event in _connected(transport, path, after):
                pauses, lost = delays(), 0.0
                if event is not None:
                    after = _seq(event, after)
                    yield event
        except (TransportError, ServerError) as error:
            lost = lost or time.monotonic()
            if time.monotonic() - lost >= wait:
                raise away(transport.url, wait, error) from error
        time.sleep(next(pauses))


def _connected(transport: Transport, path: str, after: int) -> Iterator[dict[str, Any] | None]:
    """Return the events of one connection; None for what only shows that the server is alive."""
    with transport.stream(
        "GET", path, params={"after": after}, accept=EVENTS, silence=SILENCE
    ) as pieces:
        for block in _blocks(pieces):
            data = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: ")]
            yield _event(b"\n".join(data)) if data else None


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Return what stands between empty lines."""
    held = b""
    for piece in pieces:
        held += piece
        *blocks, held = held.split(b"\n\n")
        yield from blocks
        if len(held) > MAX_EVENT:
            raise InvalidAnswerError("an event without an end: check that the URL is Pacesetter's")


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError(f"an event is not JSON ({error})") from error
    if not isinstance(event, dict):
        raise InvalidAnswerError("an event is no JSON object: check that the URL is Pacesetter's")
    return event


def _seq(event: Any, after: int) -> int:  # noqa: ANN401 - whatever the server answered
    """Return the number of an event, which must be the next one.

    Raises:
        InvalidAnswerError: It is another.
    """
    seq = event.get("seq") if isinstance(event, dict) else None
    if seq != after + 1:
        raise InvalidAnswerError(
            f"event {after + 1} should have come, but {seq} did: nothing may be left out or come "
            "twice, so see whether the server's database was put back to an earlier state"
        )
    return after + 1


def export(transport: Transport, path: str, file: str | os.PathLike[str]) -> None:
    """Write a record into a file, which takes its name once it is whole."""
    target = Path(file)
    part = target.with_name(target.name + ".part")
    try:
        with (
            transport.stream("GET", path, accept=LINES, silence=IMPORT_TIMEOUT) as pieces,
            part.open("wb") as out,
        ):
            for piece in pieces:
                out.write(piece)
        part.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def restore(transport: Transport, file: str | os.PathLike[str], name: str | None) -> dict[str, Any]:
    """Send a record; gives what the server says about the session."""
    source = Path(file)
    headers = {"content-type": LINES, "content-length": str(source.stat().st_size)}
    with (
        source.open("rb") as record,
        transport.stream(
            "POST",
            "/v1/import",
            content=iter(lambda: record.read(CHUNK), b""),
            headers=headers,
            params={"name": name},
            accept="application/json",
            silence=IMPORT_TIMEOUT,
        ) as pieces,
    ):
        return _event(_whole(pieces))


def _whole(pieces: Iterable[bytes]) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > MAX_EVENT:
            raise InvalidAnswerError(
                "the answer to an import has no end: check that the URL is Pacesetter's"
            )
    return bytes(content)
