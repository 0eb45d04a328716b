"""Services that are forked from a process which has imported the service: quick to start.

Nine tenths of what a start costs are imports. What is forked is a process of its own all the same,
with its own memory, signals and exit code, which runs the service's `main` from its first line on.

As a program this is the nursery: it forks a service for each order on its standard input.
"""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ORDER_BYTES = 2**17
ANSWER_BYTES = 100


class ForkedService:
    """A service with this environment; it has what the tests need of a `subprocess.Popen`.

    Attributes:
        pid: its process.
        stderr: what it writes there.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        order = json.dumps({"environment": environment, "folder": str(Path.cwd())}).encode()
        stderr, written = os.pipe()
        self._minder, minding = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with minding:
            socket.send_fds(_nursery(), [order], [minding.fileno(), written])
        os.close(written)
        self.stderr = os.fdopen(stderr)
        self.pid = int(self._minder.recv(ANSWER_BYTES))

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Return the exit code once it has ended: -N if signal N has ended it."""
        self._minder.settimeout(timeout)
        code = int(self._minder.recv(ANSWER_BYTES))
        self._minder.close()
        return code


@functools.cache
def _nursery() -> socket.socket:
    """Start this process's nursery; returns where it takes orders. It ends when that is closed."""
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen([sys.executable, __file__], stdin=there, process_group=0)
    atexit.register(process.wait)
    atexit.register(here.close)  # called before the other
    return here


def _became_a_service(orders: socket.socket) -> bool:
    """Fork a service for each order; returns whether this is one now."""
    children: list[int] = []
    while True:
        order, ends, _, _ = socket.recv_fds(orders, ORDER_BYTES, 2)
        children = [each for each in children if os.waitpid(each, os.WNOHANG)[0] == 0]
        if not order:
            os.killpg(0, signal.SIGKILL)  # no service outlives the tests that wanted it
        child = os.fork()
        if not child:
            orders.close()
            return _was_born(json.loads(order), *ends)
        children.append(child)
        for end in ends:
            os.close(end)


def _was_born(order: dict[str, Any], answers: int, stderr: int) -> bool:
    """Fork a service; returns whether this is it. If not, this has told how the service ended."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    service = os.fork()
    if service:
        os.close(stderr)
        os.write(answers, str(service).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(service, 0)[1])
        os.write(answers, str(code).encode())
        return False
    os.close(answers)
    os.dup2(stderr, 2)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    return True


if __name__ == "__main__":
    from pacesetter_service.__main__ import main

    if _became_a_service(socket.socket(fileno=0)):
        main([])
