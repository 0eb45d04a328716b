"""Thousands of ranks that each call directly: against a bare ASGI app, and against one client.

All ranks of a training come to the edge of a window at the same moment, because they wait for each
other in every step. So a load is a *wave*: each rank sends one call that reports the step just done
and wants the next window; the next wave begins when all are answered.
"""

import itertools
import json
import resource
import selectors
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks import servers
from benchmarks.harness import (
    OUR_CORE,
    Effort,
    Goal,
    Result,
    at_least,
    at_most,
    percentile,
    pinned,
    result,
    take_turns,
)
from benchmarks.load import Connection, post
from benchmarks.sealing import WINDOW
from benchmarks.servers import Server

RANKS, FEW_RANKS = 4_096, 64
STEPS = 10
"""Steps in a window."""

BARE, ONE_CLIENT = "bare ASGI app", "one client, broadcast"

SPARE_FILES = 256
"""What a process has open besides its connections."""

PATIENCE = 300.0
ONCE = 100
"""Waves of a single rank that are timed together, as they are short."""


@dataclass(frozen=True, slots=True)
class Case:
    """The number of sessions, of ranks in each, and the goals for their rate and latency.

    With `exact` the rule decides at the first step of each window, and nowhere else: every call is
    held until all ranks have reported.
    """

    sessions: int
    ranks: int
    exact: bool = False
    rate: Goal | None = None
    p99: Goal | None = None

    @property
    def name(self) -> str:
        """Its name in the table."""
        if self.exact:
            return f"{self.ranks:,} ranks, exact decisions"
        if self.sessions == 1:
            return f"{self.ranks:,} ranks of one session"
        return f"{self.sessions} sessions of {self.ranks} ranks"


def cases(ranks: int) -> tuple[Case, ...]:
    """Return the measured cases, with that many ranks in total."""
    return (
        Case(1, ranks, rate=at_least(0.15), p99=at_most(10)),
        Case(64, ranks // 64, rate=at_least(0.15), p99=at_most(10)),
        Case(1, ranks // 4, exact=True, rate=at_least(0.15), p99=at_most(10)),
    )


@dataclass(frozen=True, slots=True)
class Surf:
    """The results of a server under waves.

    Attributes:
        rate: Answers per second of the clock.
        p50: The time of the median answer, in seconds,
        p99: and that which 99 of 100 answers took at most.
        cpu: Seconds of the server's processor time for a wave.
        capacity: Answers for each second of the server's processor time.
        memory: What the server has resident after them, in bytes.
        generator_busy: The share of a core that this generator used.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    capacity: float
    memory: int
    generator_busy: float


def run(effort: Effort) -> Iterator[Result]:
    """Let the ranks of whole trainings call simultaneously, again and again."""
    ranks = effort.size(RANKS, FEW_RANKS)
    if not _may_open(ranks + SPARE_FILES):
        sys.stderr.write(
            f"many_ranks is left out: it needs {ranks + SPARE_FILES:,} open files in a process, "
            "and the hard limit (`ulimit -Hn`) is lower\n"
        )
        return
    for case in cases(ranks):
        with tempfile.TemporaryDirectory() as folder:
            yield from _compare(effort, Path(folder), case)


def _may_open(files: int) -> bool:
    """Raise the limit of open files as far as needed; processes started here inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        return False
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return True


def _compare(effort: Effort, folder: Path, case: Case) -> Iterator[Result]:
    with ExitStack() as stack:
        service = stack.enter_context(servers.service(folder))
        answer = _create(service, case)
        bare = stack.enter_context(servers.bare(folder, answer, WINDOW, "--parse"))
        names = [f"run-{number}" for number in range(case.sessions)]
        crowd = stack.enter_context(_connected(service, names, case.ranks))
        unserved = stack.enter_context(_connected(bare, names, case.ranks))
        alone = stack.enter_context(_connected(service, ["alone"], 1))
        rounds = take_turns(
            case.name,
            effort.rounds,
            partial(_ride, service, crowd, effort.seconds),
            partial(_ride, bare, unserved, effort.seconds),
            partial(_ride, service, alone, effort.seconds / 4),
        )
    yield from _results(case, rounds)


def _results(case: Case, rounds: Sequence[tuple[Surf, ...]]) -> Iterator[Result]:
    ours, bare, alone = zip(*rounds, strict=True)
    pairs, windows = list(zip(ours, bare, strict=True)), zip(ours, alone, strict=True)
    yield result(
        case.name,
        ((mine.capacity, other.capacity) for mine, other in pairs),
        unit="req/cpu s",
        against=BARE,
        goal=case.rate,
        note=_conditions(ours, bare),
    )
    for share in ("p50", "p99"):
        yield result(
            f"{case.name}, {share}",
            ((1e3 * getattr(mine, share), 1e3 * getattr(other, share)) for mine, other in pairs),
            unit="ms",
            against=BARE,
            goal=case.p99 if share == "p99" else None,
            note="all calls of a wave are sent at once",
        )
    yield result(
        f"{case.name}, memory",
        ((mine.memory / 2**20, other.memory / 2**20) for mine, other in pairs),
        unit="MiB",
        against=BARE,
        note="resident",
    )
    yield result(
        f"{case.name}, a window",
        ((1e3 * mine.cpu, 1e3 * one.cpu * case.sessions) for mine, one in windows),
        unit="cpu ms",
        against=ONE_CLIENT,
        note="what a window of the whole job costs the server",
    )


def _conditions(ours: Sequence[Surf], bare: Sequence[Surf]) -> str:
    clock = statistics.median(
        mine.rate / other.rate for mine, other in zip(ours, bare, strict=True)
    )
    rate = statistics.median(mine.rate for mine in ours)
    busy = max(surf.generator_busy for surf in ours)
    limit = "; the generator was the limit" if busy > 0.95 else ""
    return f"{rate:,.0f} calls/s; by the clock {clock:.2f}{limit}"


# -- sessions and their ranks ----------------------------------------------------------------------


def _create(service: Server, case: Case) -> bytes:
    """Create the sessions, and one with a single rank; return the answer to a call."""
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as http:
        for number in range(case.sessions):
            _post(http, _spec(f"run-{number}", case.ranks, exact=case.exact))
        for name in ("alone", "sample"):
            _post(http, _spec(name, 1, exact=case.exact))
        answer = http.post(
            "/v1/sessions/sample/sync",
            json={"want": {"start": 0, "count": STEPS}},
            headers={"accept": WINDOW},
        )
        return answer.raise_for_status().content


def _post(http: httpx.Client, spec: dict[str, Any]) -> None:
    http.post("/v1/sessions", json=spec).raise_for_status()


def _spec(name: str, ranks: int, *, exact: bool) -> dict[str, Any]:
    # Improving all the time, so that the calls of the rule are measured and not its cuts.
    rule = {"kind": "plateau", "metric": "loss", "patience": 100_000}
    ahead = {"reaction": {"decide_every": STEPS, "timeout": PATIENCE}}
    return {
        "name": name,
        "base_lr": 0.1,
        "schedule": {"kind": "cosine", "total_steps": 10_000_000},
        "controllers": [rule],
        "ranks": ranks,
        **(ahead if exact else {"max_lookahead": STEPS}),
    }


def _calls(name: str, rank: int) -> Iterator[bytes]:
    """Yield a rank's calls for ever, each with the loss of the step before and the next window."""
    path = f"/v1/sessions/{name}/sync"
    for start in itertools.count(0, STEPS):
        body: dict[str, Any] = {
            "attempt": 1,
            "rank": rank,
            "want": {"start": start, "count": STEPS},
        }
        if start:
            loss = 2 - 1e-6 * start + 1e-9 * rank
            body["reports"] = [{"step": start - 1, "metrics": {"loss": loss}}]
        yield post(path, json.dumps(body).encode(), WINDOW)


@contextmanager
def _connected(server: Server, names: Sequence[str], ranks: int) -> Iterator[list[Connection]]:
    """Return a connection for each rank of each session, after its first window."""
    connections: list[Connection] = []
    try:
        for name, rank in itertools.product(names, range(ranks)):
            connections.append(Connection(server.port, _calls(name, rank)))
        with selectors.DefaultSelector() as selector:
            _register(selector, connections)
            _wave(selector, connections)
        yield connections
    finally:
        for connection in connections:
            connection.socket.close()


# -- waves -----------------------------------------------------------------------------------------


def _ride(server: Server, connections: Sequence[Connection], seconds: float) -> Surf:
    """Send waves for some seconds, at least two."""
    together = ONCE if len(connections) == 1 else 1
    latencies: list[float] = []
    waves = 0
    with pinned(OUR_CORE), selectors.DefaultSelector() as selector:
        _register(selector, connections)
        server_cpu, our_cpu, began = server.cpu_seconds(), time.process_time(), time.perf_counter()
        while waves < 2 or time.perf_counter() < began + seconds:
            for _ in range(together):
                latencies += _wave(selector, connections)
            waves += together
        elapsed = time.perf_counter() - began
        server_cpu, our_cpu = server.cpu_seconds() - server_cpu, time.process_time() - our_cpu
    return Surf(
        rate=len(latencies) / elapsed,
        p50=statistics.median(latencies),
        p99=percentile(latencies, 0.99),
        cpu=server_cpu / waves,
        capacity=len(latencies) / server_cpu,
        memory=server.memory(),
        generator_busy=our_cpu / elapsed,
    )


def _register(selector: selectors.BaseSelector, connections: Sequence[Connection]) -> None:
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)


def _wave(selector: selectors.BaseSelector, connections: Sequence[Connection]) -> list[float]:
    """Let every rank call once; return how long each has waited."""
    latencies = []
    for connection in connections:
        connection.ask()
    while len(latencies) < len(connections):
        for key, _ in selector.select():
            connection = key.data
            if connection.answered():
                latencies.append(time.perf_counter() - connection.sent)
    return latencies
