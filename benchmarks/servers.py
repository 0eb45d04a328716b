"""The servers that are measured: each a separate process, on its own core."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from benchmarks.harness import SERVER_CORE, pinned

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0


class Process(Protocol):
    """The part of `subprocess.Popen` that is needed; other starters of servers provide it too."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""

    def wait(self, timeout: float) -> int:
        """Return the exit code once it has ended."""


def started(module: str, options: Sequence[str]) -> Process:
    """Start a Python module as a program."""
    return subprocess.Popen([sys.executable, "-m", module, *options], cwd=ROOT)


class Server:
    """A Python module that serves HTTP on this machine, from entering until leaving."""

    def __init__(self, module: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._module = module
        self._options = [f"--port={self.port}", *options]
        self._process: Process | None = None

    def __enter__(self) -> Self:
        with pinned(SERVER_CORE):
            self._process = started(self._module, self._options)
        deadline = time.monotonic() + PATIENCE
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.send_signal(signal.SIGKILL)
                raise RuntimeError(f"{self._module} did not start: {' '.join(self._options)}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used; NaN where the system does not say."""
        assert self._process is not None
        if sys.platform != "linux":
            return float("nan")
        # What clock_getcpuclockid(3) gives, which Python does not call: /proc counts in hundredths
        # of a second.
        clock = (~self._process.pid << 3) | 2
        return time.clock_gettime(clock)

    def memory(self) -> int:
        """Return the bytes that it has resident; 0 where the system does not say."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/statm")
        pages = int(status.read_text().split()[1]) if status.exists() else 0
        return pages * os.sysconf("SC_PAGE_SIZE")


def service(directory: Path, *options: str, module: str = "pacesetter_service") -> Server:
    """Return our service, with its data in a directory; `module` is the program that serves."""
    database = f"sqlite:///{directory / 'pacesetter.db'}"
    return Server(module, f"--database-url={database}", "--log-level=warning", *options)


def bare(directory: Path, answer: bytes, content_type: str, *options: str) -> Server:
    """Return a bare ASGI app that answers every request with the same bytes."""
    path = directory / f"answer-{len(answer)}"
    path.write_bytes(answer)
    return Server("benchmarks.bare", f"--answer={path}", f"--content-type={content_type}", *options)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
