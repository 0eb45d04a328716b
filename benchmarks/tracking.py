"""Acknowledged metric values, against those of MLflow's tracking server on SQLite.

MLflow is no dependency: `PACESETTER_BENCH_MLFLOW` names its program, which may be installed in a
separate environment (`pip install mlflow`, then its `bin/mlflow`). Without it this benchmark is
skipped.
"""

import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import servers
from benchmarks.harness import SERVER_CORE, Effort, Result, at_least, pinned, result, take_turns
from benchmarks.load import drive, post
from benchmarks.reports import TRAININGS, calls_of, fresh_steps, seal

VARIABLE = "PACESETTER_BENCH_MLFLOW"
LOADING = 120.0
"""Seconds within which MLflow must have started: it creates its tables first."""

AT_ONCE = 8
"""Trainings that report concurrently: with more, MLflow on SQLite hangs up on some."""

ROUTES = "/api/2.0/mlflow"


@dataclass(frozen=True, slots=True)
class Case:
    """How many values a call has, MLflow's call for that, and the goal."""

    values: int
    call: str
    goal: float


CASES = (Case(1, "log-metric", 45), Case(100, "log-batch", 50))


class Tracking:
    """A running MLflow; its processor time is not known, since it starts other processes."""

    def __init__(self, port: int) -> None:
        self.port = port

    def cpu_seconds(self) -> float:
        """Return NaN."""
        return math.nan


def run(effort: Effort) -> Iterator[Result]:
    """Report from eight concurrent trainings, to either server, by the clock."""
    program = os.environ.get(VARIABLE)
    if not program:
        sys.stderr.write(f"reports against MLflow: left out, {VARIABLE} names no program\n")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.service(Path(folder)) as service,
        _tracking(program, Path(folder)) as tracking,
    ):
        seal(service, calls=effort.size(4, tiny=1))
        runs = _runs(tracking)
        steps, theirs = fresh_steps(), fresh_steps()
        for case in CASES:
            calls = [_logged(case, *each) for each in zip(runs, theirs, strict=True)][:AT_ONCE]
            rounds = take_turns(
                case.call,
                effort.rounds,
                partial(drive, service, calls_of(steps, case.values)[:AT_ONCE], effort.seconds),
                partial(drive, tracking, calls, effort.seconds),
            )
            yield result(
                f"report, {case.values} value{'s' * (case.values > 1)} a call, by the clock",
                ((ours.rate, other.rate) for ours, other in rounds),
                unit="req/s",
                against=f"MLflow's {case.call}",
                goal=at_least(case.goal),
            )


@contextmanager
def _tracking(program: str, folder: Path) -> Iterator[Tracking]:
    port = servers.free_port()
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [program, "server", "--backend-store-uri", store, "--port", str(port)]
    with (folder / "mlflow.log").open("w") as log, pinned(SERVER_CORE):
        process = subprocess.Popen(
            [*command, "--workers", "1"], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + LOADING
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MLflow did not start:\n{(folder / 'mlflow.log').read_text()}")
            time.sleep(0.2)
        yield Tracking(port)
    finally:
        os.killpg(process.pid, 15)
        process.wait(servers.PATIENCE)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success
    except httpx.HTTPError:
        return False


def _runs(tracking: Tracking) -> list[str]:
    """Begin a run for each training."""
    url = f"http://127.0.0.1:{tracking.port}{ROUTES}/runs/create"
    with httpx.Client(timeout=60) as http:
        made = [http.post(url, json={"experiment_id": "0"}) for _ in range(TRAININGS)]
    return [each.raise_for_status().json()["run"]["info"]["run_id"] for each in made]


def _logged(case: Case, run_id: str, steps: Iterator[int]) -> Iterator[bytes]:
    """Yield calls for ever that log one metric at the next steps."""
    metric = '{"key":"loss","value":%.6f,"timestamp":1700000000000,"step":%d}'
    path = f"{ROUTES}/runs/{case.call}"
    while True:
        told = [metric % (1 / (n + 1), n) for n in itertools.islice(steps, case.values)]
        if case.values == 1:
            body = f'{{"run_id":"{run_id}",{told[0][1:]}'
        else:
            body = f'{{"run_id":"{run_id}","metrics":[{",".join(told)}]}}'
        yield post(path, body.encode())
