"""The servers that are measured: each a process of its own, on a core of its own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness import SERVER_CORE, pinned

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0


class Server:
    """A Python module that serves HTTP on this machine, from entering until leaving."""

    def __init__(self, module: str, *options: str) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", module, f"--port={self.port}", *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with pinned(SERVER_CORE):
            self._process = subprocess.Popen(self._command, cwd=ROOT)
        deadline = time.monotonic() + PATIENCE
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"this server did not start: {' '.join(self._command)}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def cpu_seconds(self) -> float:
        """Give the processor time that it has used; NaN where the system does not say."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/stat")
        if not status.exists():
            return float("nan")
        user, system = status.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Give the bytes that it has resident; 0 where the system does not say."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/statm")
        pages = int(status.read_text().split()[1]) if status.exists() else 0
        return pages * os.sysconf("SC_PAGE_SIZE")


def service(directory: Path) -> Server:
    """Give our service, with its data in a directory."""
    database = f"sqlite:///{directory / 'pacesetter.db'}"
    return Server("pacesetter_service", f"--database-url={database}", "--log-level=warning")


def bare(directory: Path, answer: bytes, content_type: str, *options: str) -> Server:
    """Give a bare ASGI app that answers every request with the same bytes."""
    path = directory / f"answer-{len(answer)}"
    path.write_bytes(answer)
    return Server("benchmarks.bare", f"--answer={path}", f"--content-type={content_type}", *options)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
