"""Little servers and proxies of sockets and threads, for behaviour that no proper one has."""

import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from serving import PATIENCE


@dataclass
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def read_request(reader) -> Asked | None:
    """Read one request; return None when the other side has closed."""
    line = reader.readline()
    if not line:
        return None
    method, target, _ = line.decode().split(" ", 2)
    headers = {}
    while (line := reader.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body)


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """Return the bytes of an answer, with its length."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def hang_up(connection: socket.socket) -> None:
    """Close a connection as a crash does: the other side is reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def say_nothing(connection: socket.socket) -> None:
    """Read whatever comes, and never answer."""
    while connection.recv(65536):
        pass


class LittleServer:
    """Listens on a free port; passes each connection to a function, in a separate thread."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._closing = False
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """The number of connections so far."""
        return len(self._connections)

    def _accept(self) -> None:
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(None)
                self._connections.append(connection)
                thread = threading.Thread(target=self._handle, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, http.client.HTTPException):
            self._serve(connection)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(PATIENCE)


@contextlib.contextmanager
def answering(say: Callable[[Asked], bytes | None]) -> Iterator[tuple[LittleServer, list[Asked]]]:
    """Run a server that answers requests by a function, or hangs up; yield it and its requests."""
    seen: list[Asked] = []

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while (asked := read_request(reader)) is not None:
                seen.append(asked)
                said = say(asked)
                if said is None:
                    hang_up(connection)
                    return
                connection.sendall(said)

    with LittleServer(serve) as server:
        yield server, seen


@dataclass
class Proxy:
    """Passes requests on to one server, whatever their host: as a forward or a reverse proxy.

    Attributes:
        upstream: `host:port` that requests are passed on to.
        prefix: what paths begin with here, and not there.
        buffers: whether an answer is passed on only when it is whole.
        cuts: whether a connection is closed after each answer, without notice.
        fault: returns an answer in place of the server's, or None to pass the request on.
        loses: whether the answer to a request is lost, after it was passed on.
        asked: the requests, in order.
        tunnel: `host:port` that CONNECT leads to.
    """

    upstream: str
    prefix: str = ""
    buffers: bool = True
    cuts: bool = False
    fault: Callable[[Asked], bytes | None] = lambda _: None
    loses: Callable[[Asked], bool] = lambda _: False
    asked: list[Asked] = field(default_factory=list)
    tunnel: str = ""

    def __call__(self, connection: socket.socket) -> None:
        """Serve a connection."""
        with connection.makefile("rb") as reader:
            while (asked := read_request(reader)) is not None:
                self.asked.append(asked)
                said = self.fault(asked)
                if said is not None:
                    connection.sendall(said)
                elif asked.method == "CONNECT":
                    connection.sendall(b"HTTP/1.1 200 Go\r\n\r\n")
                    self._tunnel(connection)
                    return
                elif not self._pass_on(asked, connection) or self.cuts:
                    return

    def _pass_on(self, asked: Asked, connection: socket.socket) -> bool:
        target = asked.target
        if "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        assert target.startswith(self.prefix)
        upstream = http.client.HTTPConnection(self.upstream, timeout=PATIENCE)
        try:
            headers = {k: v for k, v in asked.headers.items() if not k.startswith("proxy-")}
            upstream.request(asked.method, target[len(self.prefix) :], asked.body, headers)
            response = upstream.getresponse()
            if self.loses(asked):
                response.read()
                hang_up(connection)
                return False
            kind = response.headers["content-type"]
            if self.buffers:
                connection.sendall(answer(response.status, response.read(), content_type=kind))
                return True
            head = f"HTTP/1.1 {response.status} Said\r\ncontent-type: {kind}\r\n"
            connection.sendall(f"{head}connection: close\r\n\r\n".encode())
            while piece := response.read1(65536):
                connection.sendall(piece)
            return False
        finally:
            upstream.close()

    def _tunnel(self, connection: socket.socket) -> None:
        host, _, port = self.tunnel.partition(":")
        with socket.create_connection((host, int(port))) as far:
            other = {connection: far, far: connection}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    piece = ready.recv(65536)
                    if not piece:
                        return
                    other[ready].sendall(piece)
