"""What `_record` does, for tasks that share a thread with others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import IO, Any

from pacesetter._async_transport import AsyncTransport
from pacesetter._events import Frames
from pacesetter._files import writing
from pacesetter._operation import Feed
from pacesetter._record import (
    AWAY_OR_FOREIGN,
    CHUNK,
    EVENTS,
    IMPORT,
    IMPORT_TIMEOUT,
    LINES,
    SILENCE,
    Lost,
    reading,
    whole,
)


async def followed(
    transport: AsyncTransport, feed: Feed[Any], *, wait: float
) -> AsyncGenerator[Any, None]:
    """Yield events as they happen, without an end.

    Raises:
        ServerUnavailableError: The server was away for `wait` seconds.
        APIError: The server refused.
    """
    after, lost = feed.after, Lost(transport.url, wait)
    while True:
        try:
            async with contextlib.aclosing(_connected(transport, feed, after)) as events:
                lost.opened()
                async for event in events:
                    lost.found()
                    if event is not None:
                        after = feed.place(event, after)
                        if feed.wants(event):
                            yield event
                lost.ended()
        except AWAY_OR_FOREIGN as error:
            lost.again(error)
        await asyncio.sleep(lost.pause())


async def _connected(
    transport: AsyncTransport, feed: Feed[Any], after: object
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """Yield the events of one connection; None for a mere sign that the server is alive."""
    frames = Frames()
    async with transport.stream(
        "GET", feed.path, params=feed.query(after), accept=EVENTS, silence=SILENCE
    ) as pieces:
        async for piece in pieces:
            for event in frames.take(piece):
                yield event


async def export(
    transport: AsyncTransport, path: str, file: str | os.PathLike[str] | IO[bytes]
) -> None:
    """Write a record into a file, which gets its name only once it is complete."""
    with writing(file) as out:
        async with transport.stream("GET", path, accept=LINES, silence=IMPORT_TIMEOUT) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(out.write, piece)


async def restore(
    transport: AsyncTransport,
    file: str | os.PathLike[str] | IO[bytes],
    name: str | None,
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """Send a record, and return what the server says about the session."""
    with reading(file) as (record, described):

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(record.read, CHUNK):
                yield chunk

        async with transport.stream(
            "POST",
            IMPORT,
            content=chunks(),
            headers={**described, **headers},
            params={"name": name},
            accept="application/json",
            silence=IMPORT_TIMEOUT,
        ) as pieces:
            return whole([piece async for piece in pieces])
