"""A proxy with a failing wire: requests are cut, delayed, doubled or overtaken, answers lost."""

import http.client
import socket
import threading
import time

from little_servers import Asked, hang_up, read_request
from serving import PATIENCE

WAYS = ("cut_request", "cut_answer", "half_open", "duplicate", "reorder", "delay")
"""The faults of a request; see the methods of `Wire`."""


class Wire:
    """Passes requests on to a service, and applies the chosen fault to the next one.

    Attributes:
        way: What happens to the next request of a trainer or an operator; one of `WAYS` or nothing.
        happened: How often something has happened.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._late: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.way = ""
        self.happened = 0

    def __call__(self, connection: socket.socket) -> None:
        """Serve a connection."""
        with connection.makefile("rb") as reader:
            while (asked := read_request(reader)) is not None:
                if "/events/stream" in asked.target:
                    self._stream(asked, connection)
                    return
                if not self._pass_on(asked, connection):
                    return

    def close(self) -> None:
        """Wait for what is still on its way."""
        for each in self._late:
            each.join(PATIENCE)

    def _taken(self, asked: Asked) -> str:
        """Return the fault of a request, which is then used up."""
        with self._lock:
            if asked.method != "POST" or not self.way:
                return ""
            way, self.way = self.way, ""
            self.happened += 1
            return way

    def _pass_on(self, asked: Asked, connection: socket.socket) -> bool:
        way = self._taken(asked)
        if way == "cut_request":  # the service gets half of the body, and then the caller is gone
            with socket.create_connection(("127.0.0.1", self._port)) as far:
                far.sendall(_head(asked) + asked.body[: len(asked.body) // 2])
            hang_up(connection)
            return False
        if way == "half_open":  # it arrives, and the answer never does: neither a byte nor a reset
            self._said(asked)
            while connection.recv(65536):
                pass
            return False
        if way == "reorder":  # it arrives after what its caller says next
            late = threading.Thread(target=self._later, args=(asked,))
            self._late.append(late)
            late.start()
            hang_up(connection)
            return False
        if way == "duplicate":
            self._said(asked)
        if way == "delay":
            time.sleep(0.3)
        said = self._said(asked)
        if said is None:
            hang_up(connection)
            return False
        if way == "cut_answer":
            connection.sendall(said[: len(said) // 2])
            hang_up(connection)
            return False
        connection.sendall(said)
        return True

    def _later(self, asked: Asked) -> None:
        time.sleep(0.2)
        self._said(asked)

    def _said(self, asked: Asked) -> bytes | None:
        """Return the service's answer; None where there is none."""
        upstream = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            upstream.request(asked.method, asked.target, asked.body, asked.headers)
            answer = upstream.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            upstream.close()
        kind = answer.headers["content-type"]
        head = f"HTTP/1.1 {answer.status} Said\r\ncontent-type: {kind}\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def _stream(self, asked: Asked, connection: socket.socket) -> None:
        """Pass a stream on until it is dropped: `way` is `drop` then."""
        with socket.create_connection(("127.0.0.1", self._port)) as far:
            far.settimeout(0.05)
            far.sendall(_head(asked))
            while self.way != "drop":
                try:
                    piece = far.recv(65536)
                except TimeoutError:
                    continue
                if not piece:
                    return
                connection.sendall(piece)
        with self._lock:
            self.way = ""
            self.happened += 1
        hang_up(connection)


def _head(asked: Asked) -> bytes:
    lines = [f"{asked.method} {asked.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
