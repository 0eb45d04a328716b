"""A load generator: keep-alive connections, each always with one request under way."""

import math
import re
import selectors
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.harness import OUR_CORE, percentile, pinned

LENGTH = re.compile(rb"content-length: (\d+)")


class Measured(Protocol):
    """A server on this machine."""

    port: int

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used; NaN where that is not known."""


@dataclass(frozen=True, slots=True)
class Load:
    """The results of a server, or of a stand-in, under load.

    Attributes:
        rate: Answers per second.
        p99: The time that 99 of 100 answers took at most, in seconds.
        server_busy: The share of a core that the server used.
        generator_busy: The share of a core that this generator used.
    """

    rate: float
    p99: float
    server_busy: float
    generator_busy: float

    @property
    def capacity(self) -> float:
        """Answers for each second of the server's processor time.

        It is what a saturated core gives, even if other programs have taken the core, or the
        generator's, for a while. Where the system has no processor times it is the rate.
        """
        return self.rate if math.isnan(self.server_busy) else self.rate / self.server_busy


def post(path: str, body: bytes, accept: str = "application/json") -> bytes:
    """Return the bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A keep-alive connection, and the requests that will be sent over it."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0
        self._requests = requests
        self._missing = 0

    def ask(self) -> None:
        """Send the next request."""
        request = next(self._requests)
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what has come; return True when that completes an answer."""
        data = self.socket.recv(1 << 18)
        if self._missing:
            self._missing -= len(data)
        else:
            head, _, body = data.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            if length is None or not head.startswith(b"HTTP/1.1 2"):
                raise RuntimeError(f"a server under load answered {data[:500]!r}")
            self._missing = int(length[1]) - len(body)
        return self._missing == 0


def conditions(ours: Sequence[Load], baseline: Sequence[Load]) -> str:
    """Return what the clock alone would have given, and which side was at a limit."""
    clock = statistics.median(
        mine.rate / other.rate for mine, other in zip(ours, baseline, strict=True)
    )
    servers = [statistics.median(load.server_busy for load in side) for side in (ours, baseline)]
    generator = max(load.generator_busy for load in baseline)
    limit = "; the generator was the limit" if generator > 0.95 else ""
    return f"by the clock {clock:.2f}; cores used {servers[0]:.2f}, {servers[1]:.2f}{limit}"


def drive(server: Measured, requests: Sequence[Iterator[bytes]], seconds: float) -> Load:
    """Load a server over one connection for each stream of requests."""
    with pinned(OUR_CORE), selectors.DefaultSelector() as selector:
        connections = [Connection(server.port, stream) for stream in requests]
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        server_cpu, our_cpu = server.cpu_seconds(), time.process_time()
        began = time.perf_counter()
        latencies = _exchange(selector, connections, began + seconds)
        elapsed = time.perf_counter() - began
        server_cpu, our_cpu = server.cpu_seconds() - server_cpu, time.process_time() - our_cpu
        for connection in connections:
            connection.socket.close()
    return Load(
        rate=len(latencies) / elapsed,
        p99=percentile(latencies, 0.99),
        server_busy=server_cpu / elapsed,
        generator_busy=our_cpu / elapsed,
    )


def _exchange(
    selector: selectors.BaseSelector, connections: Sequence[Connection], deadline: float
) -> list[float]:
    """Send on all connections until the deadline, and wait for the last answers."""
    latencies = []
    for connection in connections:
        connection.ask()
    waiting = len(connections)
    while waiting:
        for key, _ in selector.select():
            connection = key.data
            if connection.answered():
                now = time.perf_counter()
                latencies.append(now - connection.sent)
                if now < deadline:
                    connection.ask()
                else:
                    waiting -= 1
    return latencies
