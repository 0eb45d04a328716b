"""Where connections come in: bounds on what uvicorn takes from a client before it is a request.

With httptools, uvicorn does not bound a request's head (`h11_max_incomplete_event_size` is for
h11). A header that comes in pieces is reassembled with every piece, so one of 64 MB stops the event
loop for many seconds. A connection that sends nothing, or half a request, stays open for ever. No
middleware sees any of this. So this is uvicorn's protocol, with

- a limit on the bytes of a head, counted before the parser gets them, and one on a URL,
- no NUL in a URL: PostgreSQL stores none in a text, and fails if it is asked for one,
- trailers dropped, and bounded: uvicorn would add them to the headers that were checked,
- deadlines for a head, for a body and for a client that reads nothing of its answer,
- a limit on the connections, beyond which new ones are answered 503 and closed.

No request reads a clock or sets a timer. Instead each connection is checked a few times in each
deadline, and a client that has made no progress is late. So a deadline is met within half of the
shortest one.
"""

import asyncio
import os
import resource
import socket
import struct
from asyncio import TimerHandle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import httptools
import structlog
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pacesetter_service.api import problems
from pacesetter_service.complaints import bad_requests

LEAST_RATE = 16_384
"""Bytes of a body that extend its deadline by one second: large imports take their time."""

DRAINED = 4 * 1_048_576
"""Bytes of a body still read after its answer was sent: many clients read only after writing."""

LOOKS = 4
"""How often a connection is checked before it is late."""

SPARE_FILES = 128
"""Files that the process needs beside connections: database, log, imports."""

log = structlog.get_logger("pacesetter")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a process clients may use.

    Attributes:
        max_header_size: Bytes of a request's line and headers together, and of its trailers. For
            pipelined requests, a little more.
        max_url_length: Bytes of an address, query included.
        header_timeout: Seconds in which a head must have arrived, from the connection or from the
            request's first byte on.
        body_timeout: Seconds in which a body must have arrived, and one more for each 16 KiB that
            did; also how long a client may read nothing of its answer.
        max_connections: Simultaneous connections of this process.
    """

    max_header_size: int = 32_768
    max_url_length: int = 8_192
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_connections: int = 8_192


class _RefusedError(Exception):
    """Stop parsing: the request is refused with a problem."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail


class FrontDoor(HttpToolsProtocol):
    """One connection."""

    limits: Limits = Limits()

    def __init__(self, *args: Any, **keywords: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **keywords)
        self._in_head = True
        """Whether the next byte belongs to a head, or to the blank lines before it."""
        self._heads = 0
        """How many heads have arrived completely."""
        self._taken = 0
        """Bytes received of the current head, or of the current body."""
        self._unused = 0
        """Bytes received since a request last got some: trailers, or a body that is not read."""
        self._trailed = 0
        """Bytes of the trailers that have arrived completely."""
        self._seen: object = None
        self._since = 0.0
        self._looks = 0
        self._timer: TimerHandle | None = None

    # What uvicorn and the parser call ----------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(_too_many(self.limits.max_connections))
            return
        self._seen, self._since = self._awaited(), self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, as far as it is within the limits."""
        self._unset_keepalive_if_required()
        if self.transport.is_closing():  # refused already
            return
        try:
            if self._in_head:
                self._feed_head(data)
            else:
                self._feed_body(data)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken here, and the request is answered as plain HTTP
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, _RefusedError) else _malformed())
        except _RefusedError as refusal:
            self._refuse(refusal)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is counted and dropped, as no endpoint reads it."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._trailed += len(name) + len(value) + len(": \r\n")
        if self._trailed > self.limits.max_header_size and not self.cycle.response_complete:
            raise _head_too_large(self.limits.max_header_size)

    def on_headers_complete(self) -> None:
        """Start a request."""
        if len(self.url) > self.limits.max_url_length:
            raise _url_too_long(self.limits.max_url_length)
        if b"%00" in self.url:
            raise _nul_in_url()
        super().on_headers_complete()
        self._heads += 1
        self._in_head = False
        self._taken = self._unused = self._trailed = 0

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self._in_head = True
        self._taken = 0
        super().on_message_complete()

    # Sizes -------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        while True:
            left = self.limits.max_header_size - self._taken
            piece, data = (data, b"") if len(data) <= left else (data[:left], data[left:])
            heads = self._heads
            self.parser.feed_data(piece)
            incomplete = self._heads == heads
            if incomplete:
                self._taken += len(piece)
            if not data:
                return
            if incomplete:
                raise _head_too_large(self.limits.max_header_size)
            if not self._in_head:
                self._feed_body(data)
                return

    def _feed_body(self, data: bytes) -> None:
        heads, cycle = self._heads, self.cycle
        before = len(cycle.body)
        self.parser.feed_data(data)
        if self._in_head or self._heads != heads:
            return
        self._taken += len(data)
        self._unused = 0 if len(cycle.body) != before else self._unused + len(data)
        if cycle.response_complete:
            if self._unused > DRAINED:
                self.transport.close()
        elif self._unused > self.limits.max_header_size:
            raise _head_too_large(self.limits.max_header_size)

    # Deadlines ---------------------------------------------------------------------------------

    def _look_later(self) -> None:
        pause = min(self.limits.header_timeout, self.limits.body_timeout) / LOOKS
        self._timer = self.loop.call_later(pause, self._look)

    def _look(self) -> None:
        """Compare what is awaited with what was awaited at the last check."""
        if self.transport.is_closing():
            return
        awaited, now = self._awaited(), self.loop.time()
        if awaited is None or awaited != self._seen:
            self._seen, self._since, self._looks = awaited, now, 0
        else:
            self._looks += 1
            # If this process stood still, what arrived meanwhile must still be read.
            if self._looks >= LOOKS and now - self._since > self._patience():
                self._give_up()
                return
        self._look_later()

    def _awaited(self) -> object:
        """Return what the client owes us, as a value that changes as it comes; None if nothing."""
        if self.flow.write_paused:
            return self.transport.get_write_buffer_size(), self._heads
        if not self._in_head:  # a body that the service does not read is not late
            return None if self.flow.read_paused else (self.cycle.response_complete, self._heads)
        # Between requests uvicorn runs its own timer, until the next byte arrives.
        idle = self.timeout_keep_alive_task is not None
        return None if self._answering() or idle else self._heads

    def _patience(self) -> float:
        if self.flow.write_paused or (not self._in_head and self.cycle.response_complete):
            return self.limits.body_timeout
        if self._in_head:
            return self.limits.header_timeout
        return self.limits.body_timeout + self._taken / LEAST_RATE

    def _give_up(self) -> None:
        if self.flow.write_paused:
            bad_requests.tell("answer_not_read", peer=self._peer())
            self._cut_off()
        elif not self._in_head:
            self._refuse(_late("body", self.limits.body_timeout))
        elif self._taken:
            self._refuse(_late("head", self.limits.header_timeout))
        else:  # an answer to nothing would be taken for one to the next request
            self.transport.close()

    # Refusals ----------------------------------------------------------------------------------

    def _refuse(self, refusal: _RefusedError) -> None:
        """Answer with a problem if the client would take it for this request's answer; close."""
        bad_requests.tell(refusal.code, peer=self._peer(), status=refusal.status)
        if self._may_answer():
            answer = problems.document(refusal.status, refusal.code, refusal.detail)
            self.transport.write(_written(answer, self.server_state.default_headers))
        if self._answering():
            self.cycle.disconnected = True  # so that it writes nothing more
            self.cycle.message_event.set()
        self.transport.close()

    def _cut_off(self) -> None:
        """Close without waiting for the client to read the rest; the kernel would, for minutes."""
        shared = self.transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(shared)) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _may_answer(self) -> bool:
        if self.pipeline:
            return False
        return not self._answering() or not (self._in_head or self.cycle.response_started)

    def _answering(self) -> bool:
        return self._heads > 0 and not self.cycle.response_complete

    def _peer(self) -> str | None:
        return None if self.client is None else self.client[0]


def front_door(limits: Limits) -> type[FrontDoor]:
    """Return the protocol with these limits, for uvicorn's `http`."""
    return type("FrontDoor", (FrontDoor,), {"limits": limits})


def connections_within_reach(wanted: int) -> int:
    """Return how many of the wanted connections the process can hold.

    A connection is an open file, and a process that runs out of them cannot open the database
    either. So the soft limit on open files is raised as far as needed. If the hard limit is too low
    for that, fewer connections are accepted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    reach = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reach, hard))
    if reach < needed:
        advice = "raise the limit of open files (ulimit -n), or lower max-connections"
        log.warning("fewer_connections", wanted=wanted, files=reach, advice=advice)
    return max(1, reach - SPARE_FILES)


def _written(answer: Response, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
    headers = [*defaults, *answer.raw_headers, (b"connection", b"close")]
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", bytes(answer.body)])


_ADVICE: Final = "or raise PACESETTER_{} on the server"


def _malformed() -> _RefusedError:
    return _RefusedError(400, "malformed_request", "This is no HTTP. Send a request of HTTP/1.1.")


def _nul_in_url() -> _RefusedError:
    detail = "The address has %00 in it. No name and no text here has that character: leave it out."
    return _RefusedError(400, "malformed_request", detail)


def _head_too_large(limit: int) -> _RefusedError:
    return _RefusedError(
        431,
        "headers_too_large",
        f"The request's headers, or its trailers, have more than {limit} bytes. Send fewer, "
        + _ADVICE.format("MAX_HEADER_SIZE"),
    )


def _url_too_long(limit: int) -> _RefusedError:
    return _RefusedError(
        414,
        "url_too_long",
        f"The request's address has more than {limit} bytes. Send a shorter one, "
        + _ADVICE.format("MAX_URL_LENGTH"),
    )


def _late(part: str, seconds: float) -> _RefusedError:
    setting = "HEADER_TIMEOUT" if part == "head" else "BODY_TIMEOUT"
    return _RefusedError(
        408,
        f"{part}_too_late",
        f"The request's {part} has not come in {seconds:g} s. Send it again, faster, "
        + _ADVICE.format(setting),
    )


def _too_many(limit: int) -> _RefusedError:
    return _RefusedError(
        503,
        "too_many_connections",
        f"The server has {limit} connections already. Close some, try again, "
        + _ADVICE.format("MAX_CONNECTIONS"),
    )
