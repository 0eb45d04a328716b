"""The service as the demo runs it: a separate process, which can be killed and started again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

START_SECONDS = 180.0


class ServiceProcess:
    """`python -m pacesetter_service` on a free port, with its data in a SQLite file.

    Args:
        folder: where the database and the service's log are written.
    """

    def __init__(self, folder: Path) -> None:
        self._database = folder / "pacesetter.db"
        self._log = folder / "service.log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._outage: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process that serves now."""
        assert self._process is not None, "the service is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready; a restart takes the same port and database."""
        command = [sys.executable, "-m", "pacesetter_service", f"--port={self._port}"]
        command.append(f"--database-url=sqlite:///{self._database}")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def crash(self, *, back_after: float) -> None:
        """SIGKILL it, and start it again some seconds later, all in the background."""
        self._outage = threading.Thread(target=self._crash, args=(back_after,), name="outage")
        self._outage.start()

    def stop(self) -> None:
        """End it, once no outage is under way."""
        if self._outage is not None:
            self._outage.join()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _crash(self, seconds: float) -> None:
        assert self._process is not None, "the service is not running"
        self._process.kill()
        self._process.wait()
        time.sleep(seconds)
        self.start()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
