"""The record of a session: its events as they happen, and files that hold all of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pacesetter._errors import (
    ForeignAnswerError,
    InvalidAnswerError,
    ServerError,
    TransportError,
    away,
)
from pacesetter._events import MAX_EVENT, Frames, an_event
from pacesetter._files import writing
from pacesetter._operation import Feed
from pacesetter._retry import delays
from pacesetter._transport import Transport

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
IMPORT = "/v1/import"

AWAY_OR_FOREIGN = (TransportError, ServerError, ForeignAnswerError)
"""What a feed goes on after: the server is away, or something else answers in its place."""

SILENCE = 60.0
"""Seconds without a byte after which a connection is given up; servers send more often."""

IMPORT_TIMEOUT = 600.0
"""Seconds that a server may take to store a record that was sent to it."""

CHUNK = 64 * 1024


def followed(transport: Transport, feed: Feed[Any], *, wait: float) -> Iterator[Any]:
    """Yield events as they happen, without an end.

    Raises:
        ServerUnavailableError: The server was away for `wait` seconds.
        APIError: The server refused.
    """
    after, lost = feed.after, Lost(transport.url, wait)
    while True:
        try:
            with transport.stream(
                "GET", feed.path, params=feed.query(after), accept=EVENTS, silence=SILENCE
            ) as pieces:
                frames = Frames()
                lost.opened()
                for event in itertools.chain.from_iterable(map(frames.take, pieces)):
                    lost.found()
                    if event is not None:
                        after = feed.place(event, after)
                        if feed.wants(event):
                            yield event
                lost.ended()
        except AWAY_OR_FOREIGN as error:
            lost.again(error)
        time.sleep(lost.pause())


class Lost:
    """How long a feed has been cut off, and how long to wait before it is resumed.

    Args:
        url: The server's address.
        wait: Seconds for which the server may be away.
    """

    def __init__(self, url: str, wait: float) -> None:
        self._url = url
        self._wait = wait
        self._pauses, self._since = delays(), 0.0
        self._heard = self._met = False

    def opened(self) -> None:
        """Note that a connection was made, which is not yet a sign of the server."""
        self._heard = False

    def found(self) -> None:
        """Note that the server is there."""
        self._pauses, self._since = delays(), 0.0
        self._heard = self._met = True

    def ended(self) -> None:
        """Note that a connection has ended by itself, as when a server restarts.

        Raises:
            TransportError: Nothing came by it.
        """
        if not self._heard:
            raise TransportError(
                f"{self._url} ended a stream of events without any: see what stands between"
            )

    def again(self, error: Exception) -> None:
        """Note that the connection is lost.

        Raises:
            ServerUnavailableError: It has been lost for too long.
            ForeignAnswerError: Something else answers, and the server never has: the URL is wrong.
        """
        if isinstance(error, ForeignAnswerError) and not self._met:
            raise error
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since >= self._wait:
            raise away(self._url, self._wait, error) from error

    def pause(self) -> float:
        """Return the seconds to wait before the next try."""
        return next(self._pauses)


def export(transport: Transport, path: str, file: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write a record into a file, which gets its name only once it is complete."""
    with (
        writing(file) as out,
        transport.stream("GET", path, accept=LINES, silence=IMPORT_TIMEOUT) as pieces,
    ):
        for piece in pieces:
            out.write(piece)


def restore(
    transport: Transport,
    file: str | os.PathLike[str] | IO[bytes],
    name: str | None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Send a record, and return what the server says about the session."""
    with (
        reading(file) as (record, described),
        transport.stream(
            "POST",
            IMPORT,
            content=iter(lambda: record.read(CHUNK), b""),
            headers={**described, **(headers or {})},
            params={"name": name},
            accept="application/json",
            silence=IMPORT_TIMEOUT,
        ) as pieces,
    ):
        return whole(pieces)


@contextlib.contextmanager
def reading(
    file: str | os.PathLike[str] | IO[bytes],
) -> Iterator[tuple[IO[bytes], dict[str, str]]]:
    """Open a record, with the headers that describe it; an open file stays open."""
    if not isinstance(file, str | os.PathLike):
        yield file, {"content-type": LINES}
        return
    source = Path(file)
    length = str(source.stat().st_size)
    with source.open("rb") as record:
        yield record, {"content-type": LINES, "content-length": length}


def whole(pieces: Iterable[bytes]) -> dict[str, Any]:
    """Return what the server says in pieces about what was sent to it.

    Raises:
        InvalidAnswerError: It is too much, or not a JSON object.
    """
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > MAX_EVENT:
            raise InvalidAnswerError(
                "the answer to an import has no end: check that the URL is Pacesetter's"
            )
    return an_event(bytes(content))
