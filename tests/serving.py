"""Real services for tests: separate processes, on free ports, that can be killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from forked import ForkedService

# Machines that run tests stall for seconds at a time, so tests wait long.
PATIENCE = 120.0


def open_http(url: str) -> httpx.Client:
    """Open a patient connection to a service."""
    # Services here speak no TLS, and loading certificate authorities takes longer than most tests.
    return httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=False)


Process = ForkedService | subprocess.Popen[str]


def spawned(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the service as a user does."""
    command = [sys.executable, "-m", "pacesetter_service"]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


class RunningService:
    """The service on a database; it can be killed and started again.

    Args:
        database: the file, or the URL of a database.
        start: starts a process with this environment; forks one, unless told otherwise.
        settings: as environment variables, without their prefix.
    """

    def __init__(
        self,
        database: Path | str,
        start: Callable[[dict[str, str]], Process] = ForkedService,
        **settings: object,
    ) -> None:
        self.database = database
        self._settings = settings
        self._start = start
        self._process: Process | None = None
        self._port = 0
        self._serves = False
        self._told = threading.Event()
        self._reader = threading.Thread()
        self.url = ""
        self.log: list[str] = []
        """The lines that it has logged, in all its lives; complete once it has ended."""

    def start(self) -> Self:
        """Start, and wait until it listens; a restart takes the same port."""
        database = self.database
        address = database if isinstance(database, str) else f"sqlite:///{database}"
        options = {"port": self._port, "database_url": address}
        environment = {
            f"PACESETTER_{name.upper()}": str(value)
            for name, value in {**options, "log_format": "json", **self._settings}.items()
        }
        self._process = self._start({**os.environ, **environment})
        self._serves = False
        self._told.clear()
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stderr,), daemon=True
        )
        self._reader.start()
        self._told.wait()
        if not self._serves:
            self._reap()
            raise RuntimeError(f"the service did not start:\n{''.join(self.log)}")
        self._port = int(self.url.rpartition(":")[2])
        return self

    def _read(self, stderr: IO[str]) -> None:
        """Read its log for as long as it lives: a full pipe would block it."""
        for line in stderr:
            self.log.append(line)
            if '"serving"' in line:
                self.url = str(json.loads(line)["url"])
                self._serves = True
                self._told.set()
        self._told.set()

    def events(self) -> list[dict[str, Any]]:
        """Return the events that it has logged, without the lines of libraries."""
        return [json.loads(line) for line in self.log if line.startswith("{")]

    @property
    def process(self) -> Process:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    def set(self, **settings: object) -> None:
        """Change its settings, from its next start on."""
        self._settings |= settings

    def bury(self) -> None:
        """Forget a process that has ended by itself."""
        self._reader.join()
        self.process.stderr.close()
        self._process = None

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """Stop it by SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(timeout=PATIENCE)
        self._reader.join()
        self.process.stderr.close()
        self._process = None
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()


def quick(start: int, count: int) -> dict[str, Any]:
    """Return the `want` of a trainer at `start` that makes ten thousand steps a second."""
    return {
        "want": {"start": start, "count": count},
        "progress": {"step": start, "seconds_per_step": 1e-4},
    }
