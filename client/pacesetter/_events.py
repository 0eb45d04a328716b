"""Events as they come over the wire, read piece by piece; each has its place in the log."""

from __future__ import annotations

import json
from typing import Any

from pacesetter._errors import InvalidAnswerError

MAX_EVENT = 32 * 1024 * 1024


class Frames:
    """Reads server-sent events as their bytes come in."""

    def __init__(self) -> None:
        self._held = b""

    def take(self, piece: bytes) -> list[dict[str, Any] | None]:
        """Return the events that a piece completes; None for a sign that the server is alive.

        Raises:
            InvalidAnswerError: They are not valid events.
        """
        *blocks, self._held = (self._held + piece).split(b"\n\n")
        if len(self._held) > MAX_EVENT:
            raise InvalidAnswerError("an event without an end: check that the URL is Pacesetter's")
        return [_read(block) for block in blocks]


def _read(block: bytes) -> dict[str, Any] | None:
    data = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: ")]
    return an_event(b"\n".join(data)) if data else None


def an_event(data: bytes) -> dict[str, Any]:
    """Return what the server says as a JSON object.

    Raises:
        InvalidAnswerError: It is not a JSON object.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError(f"an event is not JSON ({error})") from error
    if not isinstance(event, dict):
        raise InvalidAnswerError("an event is no JSON object: check that the URL is Pacesetter's")
    return event


def next_number(event: Any, after: int) -> int:  # noqa: ANN401 - whatever the server answered
    """Return the number of an event, which must be the next one.

    Raises:
        InvalidAnswerError: It is another number.
    """
    seq = event.get("seq") if isinstance(event, dict) else None
    if seq != after + 1:
        raise InvalidAnswerError(
            f"event {after + 1} should have come, but {seq} did: nothing may be left out or come "
            "twice, so see whether the server's database was put back to an earlier state"
        )
    return after + 1
