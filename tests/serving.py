"""Real services for tests: processes of their own, on free ports, that can be killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

# Machines that run tests stall for seconds at a time: whoever waits in a test waits long.
PATIENCE = 120.0


def open_http(url: str) -> httpx.Client:
    """Open a patient connection to a service."""
    return httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)


class RunningService:
    """`python -m pacesetter_service` on a database; it can be killed and started again."""

    def __init__(self, database: Path, **settings: object) -> None:
        self.database = database
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self.url = ""

    def start(self) -> Self:
        """Start, and wait until it listens; a restart takes the same port."""
        options = {"port": self._port, "database_url": f"sqlite:///{self.database}"}
        environment = {
            f"PACESETTER_{name.upper()}": str(value)
            for name, value in {**options, "log_format": "json", **self._settings}.items()
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pacesetter_service"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self._read_url()
        self._port = int(self.url.rpartition(":")[2])
        return self

    def _read_url(self) -> str:
        lines = []
        for line in self._stderr:
            lines.append(line)
            if '"serving"' in line:
                return str(json.loads(line)["url"])
        self._reap()
        raise RuntimeError(f"the service did not start:\n{''.join(lines)}")

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def _stderr(self):
        assert self.process.stderr is not None
        return self.process.stderr

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """End it politely; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(timeout=PATIENCE)
        self._stderr.close()
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
