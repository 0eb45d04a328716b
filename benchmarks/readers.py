"""A trainer's sync while a person reads: how long the slowest tenth of the syncs takes.

A reader asks without a pause for the longest answers of a session with many decisions: its events,
its curve, and why its last step has its rate. The baselines are the same service with the turns of
threads that Python has by default, and the service without a reader.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.harness import Effort, Result, at_most, percentile, result, take_turns
from benchmarks.sealing import take
from benchmarks.servers import ROOT, Server, service

STEPS = 2_000
AT_ONCE = 100
PAUSE = 0.005
"""Seconds between two syncs: a trainer does not ask without a pause."""


@dataclass(slots=True)
class Side:
    """A service, a trainer's connection to it, and the trainer's step."""

    server: Server
    http: httpx.Client
    step: int = 0

    def sync(self) -> float:
        """Report a step and take the next one; return how many milliseconds that takes."""
        reports = [{"step": self.step - 1, "metrics": {"loss": 0.5}}] if self.step else []
        body = {"step": self.step, "reports": reports}
        begun = time.perf_counter()
        self.http.post("/v1/sessions/trained/sync", json=body).raise_for_status()
        took = time.perf_counter() - begun
        self.step += 1
        return 1e3 * took


def run(effort: Effort) -> Iterator[Result]:
    """Sync beside a reader, and without one."""
    steps = effort.size(STEPS, AT_ONCE)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        ours, others = (
            _begun(ends, service(_made(Path(folder) / module), module=module), steps)
            for module in ("pacesetter_service", "benchmarks.long_turns")
        )
        beside = take_turns(
            "sync beside a reader",
            effort.rounds,
            partial(_p90, effort, ours, steps),
            partial(_p90, effort, others, steps),
            partial(_p90, effort, ours, None),
        )
    name, unit = "sync beside a reader, p90", "ms"
    long = [(own, other) for own, other, _ in beside]
    yield result(name, long, unit=unit, against="with turns of 5 ms", goal=at_most(0.85))
    alone = [(own, other) for own, _, other in beside]
    yield result(name, alone, unit=unit, against="no reader")


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _begun(ends: ExitStack, server: Server, steps: int) -> Side:
    """Start a service, and record a training in it that has a decision for each step."""
    http = ends.enter_context(httpx.Client(base_url=ends.enter_context(server).url, timeout=60.0))
    rule = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.9999}
    steered = {"name": "read", "controllers": [rule], "max_lookahead": AT_ONCE}
    for spec in (steered, {"name": "trained"}):
        http.post("/v1/sessions", json={"base_lr": 0.1, **spec}).raise_for_status()
    for start in range(0, steps, AT_ONCE):
        take(http, "read", start, AT_ONCE)
        some = range(start, start + AT_ONCE)
        reports = [{"step": step, "metrics": {"loss": 1.0 + step}} for step in some]
        http.post("/v1/sessions/read/sync", json={"reports": reports}).raise_for_status()
    return Side(server, http)


def _p90(effort: Effort, side: Side, steps: int | None) -> float:
    """Return the milliseconds in which nine of ten syncs are answered.

    Args:
        effort: For how long.
        side: At which service.
        steps: How many steps a reader reads of meanwhile; None for no reader.
    """
    with _reading(side.server.url, steps):
        took, end = [side.sync()], time.monotonic() + 3 * effort.seconds
        while time.monotonic() < end:
            took.append(side.sync())
            time.sleep(PAUSE)
    return percentile(took, 0.9)


@contextmanager
def _reading(url: str, steps: int | None) -> Iterator[None]:
    """Run a reader in another process meanwhile; without steps to read of, run none.

    Raises:
        RuntimeError: It has read nothing, or has ended before it was told to.
    """
    if steps is None:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.readers", url, str(steps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as reader:
        try:
            assert reader.stdout is not None
            begun = reader.stdout.readline()
            yield
            if not begun or reader.poll() is not None:
                raise RuntimeError("the reader did not read all the time")
        finally:
            reader.kill()


def read(url: str, steps: int) -> None:
    """Read one long answer after another, until killed; say so after the first ones."""
    questions = ("events?limit=1000", "history", f"explain?step={steps - 1}")
    with httpx.Client(base_url=f"{url}/v1/sessions/read/", timeout=60.0) as http:
        for number in itertools.count():
            for question in questions:
                http.get(question).raise_for_status()
            if number == 0:
                print("reading", flush=True)


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]))
