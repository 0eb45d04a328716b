"""The operator of `live_control.py`: steers a running training by REST alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from live_control_story import Given

TRAINER = Path(__file__).with_name("live_control_trainer.py")
ACTOR = "operator"
LATE = "step_out_of_range"


class Job:
    """The training as its cluster sees it: a process to start, to kill and to start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.final, self._checkpoint = folder / "final.pt", folder / "checkpoint.pt"
        self._log = folder / "trainer.log"
        self._options = (*options, f"--checkpoint={self._checkpoint}", f"--final={self.final}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            command = [sys.executable, str(TRAINER), *self._options, *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def restart(self, key: str) -> None:
        """Start it again from its checkpoint."""
        self.start(f"--restart={key}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The job's newest process."""
        assert self._process is not None, "not started"
        return self._process

    def kill(self) -> None:
        """End it as a failing machine would."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed.
        """
        if self.process.wait() != 0:
            raise RuntimeError(f"the trainer failed:\n{self._log.read_text()}")

    def refuse_ended(self) -> None:
        """Refuse to wait for a training that is over.

        Raises:
            RuntimeError: it is.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"the trainer has ended too early:\n{self._log.read_text()}")


class Operator:
    """Speaks to a single session of a service.

    Args:
        http: the connection to the service.
        name: the session's name.
    """

    def __init__(self, http: httpx.Client, name: str) -> None:
        self._http = http
        self._path = f"/v1/sessions/{name}"
        self.orders: list[Given] = []

    def create(self, spec: dict[str, Any]) -> None:
        """Create the session."""
        self._http.post("/v1/sessions", json=spec).raise_for_status()

    @property
    def horizon(self) -> int:
        """The first step that was not handed out yet."""
        return int(self.read("")["horizon"])

    def wait_for(self, step: int, job: Job) -> None:
        """Watch until a step was handed out."""
        while self.horizon <= step:
            job.refuse_ended()
            time.sleep(0.01)

    def order(self, *, at: int, while_dead: bool = False, **action: Any) -> None:  # noqa: ANN401
        """Send an order for a step; if that was handed out already, for the next that was not.

        An operator is a person: on a machine that stalls for a while some orders come late.
        """
        during, late = self.horizon, False
        answer = self._post({**action, "at": at})
        if answer.status_code == 422 and answer.json()["code"] == LATE:
            late, answer = True, self._post(action)
        effective = answer.raise_for_status().json()["effective_step"]
        body = action if late else {**action, "at": at}
        self.orders.append(Given(during, body, effective, while_dead, late))

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        headers = {"pacesetter-actor": ACTOR}
        return self._http.post(f"{self._path}/actions", json=body, headers=headers)

    def read(self, what: str, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """Read something about the session."""
        answer = self._http.get(f"{self._path}{what}", params=parameters)
        return answer.raise_for_status().json()
