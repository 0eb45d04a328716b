"""Services that start quickly, forked from a process that has imported the service.

Imports are nine tenths of the cost of a start. A fork is nevertheless a full process, with its own
memory, signals and exit code, which runs the service's `main` from its first line to its last, and
then waits for its threads. Only its objects are not destroyed one by one, which would copy all
shared memory and cost ten times as much as everything else.

As a program this is the nursery: it forks a service for each order on its standard input.
"""

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

ORDER_BYTES = 2**17
ANSWER_BYTES = 100


class ForkedService:
    """A service with this environment, with the part of `subprocess.Popen` that tests need.

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
    """Start this process's nursery; return where it takes orders. It ends when that is closed."""
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen([sys.executable, __file__], stdin=there, process_group=0)
    atexit.register(process.wait)
    atexit.register(here.close)  # called before the other
    return here


def _fork_services(orders: socket.socket, main: Callable[[], None]) -> NoReturn:
    """Fork a service for each order; each runs `main`."""
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all of this
    children: list[int] = []
    while True:
        order, ends, _, _ = socket.recv_fds(orders, ORDER_BYTES, 2)
        children = [each for each in children if os.waitpid(each, os.WNOHANG)[0] == 0]
        if not order:
            os.killpg(0, signal.SIGKILL)  # no service outlives the tests that started it
        child = os.fork()
        if not child:
            orders.close()
            _mind(json.loads(order), (ends[0], ends[1]), main)
        children.append(child)
        for end in ends:
            os.close(end)


def _mind(order: dict[str, Any], ends: tuple[int, int], main: Callable[[], None]) -> NoReturn:
    """Fork a service, and report how it has ended."""
    answers, stderr = ends
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    service = os.fork()
    if not service:
        os.close(answers)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        os._exit(_served(main))
    os.close(stderr)
    os.write(answers, str(service).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(service, 0)[1])
    os.write(answers, str(code).encode())
    os._exit(0)


def _served(main: Callable[[], None]) -> int:
    """Run the service, and end as Python does; return the exit code."""
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # as multiprocessing ends what it forks
    atexit._run_exitfuncs()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    from pacesetter_service.__main__ import main

    _fork_services(socket.socket(fileno=0), lambda: main([]))
