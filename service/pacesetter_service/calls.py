"""Which call a log line belongs to: its request id, and the trace that its caller is part of."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from itertools import count
from secrets import token_hex

from structlog.typing import EventDict, WrappedLogger

REQUEST_ID = b"x-request-id"
"""The header with the id of a call: a caller may send one, and every answer carries it."""

_SANE = re.compile(rb"[!-~]{1,128}")
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.{0,64})?"
)


class Call:
    """A call that is being answered; its id is made when it is first needed.

    Attributes:
        headers: The headers that its caller sent.
    """

    __slots__ = ("_made", "headers")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep the headers of a call."""
        self.headers = headers
        self._made: bytes | None = None

    @property
    def given(self) -> bytes | None:
        """The id that its caller sent, of 1 to 128 printable ASCII characters; None if none."""
        found = dict(self.headers).get(REQUEST_ID)
        return found if found is not None and _SANE.fullmatch(found) else None

    @property
    def request_id(self) -> bytes:
        """Its id: the caller's, or one that is unique across processes."""
        if self._made is None:
            self._made = self.given or b"%s-%x" % (_PROCESS, next(_numbers))
        return self._made

    def trace(self) -> tuple[str, str] | None:
        """Return the ids of the trace and the span that its caller sent."""
        for name, value in self.headers:
            if name == b"traceparent" and (found := _TRACEPARENT.fullmatch(value)):
                return found[1].decode(), found[2].decode()
        return None


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that the running code works for; what it starts inherits it."""

_PROCESS = token_hex(8).encode()
_numbers = count(1)


def current_id() -> str | None:
    """Return the id of the call that the running code works for; None if it works for none."""
    call = CURRENT.get()
    return None if call is None else call.request_id.decode("ascii")


def named(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add to a log line the id of its call, and the W3C trace of that call."""
    call = CURRENT.get()
    if call is not None:
        event["request_id"] = call.request_id.decode("ascii")
        trace = call.trace()
        if trace is not None:
            event["trace_id"], event["parent_id"] = trace
    return event
