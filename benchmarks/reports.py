"""Taking reports durably: against SQLite alone, and against a server that stores nothing."""

import itertools
import math
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import servers
from benchmarks.harness import (
    SERVER_CORE,
    Effort,
    Goal,
    Result,
    at_least,
    pinned,
    result,
    take_turns,
)
from benchmarks.load import Load, conditions, drive, post
from benchmarks.sealing import take
from benchmarks.servers import Server

TRAININGS = 32
AT_ONCE = 65_536
"""Steps that are sealed in one call, before anything is measured."""


@dataclass(frozen=True, slots=True)
class Case:
    """How many metric values a call has, and the goals against either baseline."""

    values: int
    sink: Goal | None = None
    sqlite: Goal | None = None

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"report, {self.values} value{'s' * (self.values > 1)} a call"


CASES = (Case(1, sink=at_least(0.20)), Case(10), Case(100, sqlite=at_least(1)))


def run(effort: Effort) -> Iterator[Result]:
    """Report from 32 concurrent trainings, each over its own connection and always on new steps."""
    with tempfile.TemporaryDirectory() as folder, servers.service(Path(folder)) as service:
        answer = seal(service, calls=effort.size(4, tiny=1))
        sqlite = PlainDatabase(Path(folder) / "plain.db")
        steps, sunk = fresh_steps(), fresh_steps()
        with servers.bare(Path(folder), answer, "application/json", "--parse") as sink:
            for case in CASES:
                rounds = take_turns(
                    case.name,
                    effort.rounds,
                    partial(drive, service, calls_of(steps, case.values), effort.seconds),
                    partial(drive, sink, calls_of(sunk, case.values), effort.seconds),
                    partial(sqlite.drive, case.values, effort.seconds / 2),
                )
                yield from _results(case, rounds)


def _results(case: Case, rounds: Sequence[tuple[Load, ...]]) -> Iterator[Result]:
    ours, sink, sqlite = zip(*rounds, strict=True)
    yield result(
        case.name,
        ((mine.capacity, other.capacity) for mine, other in zip(ours, sink, strict=True)),
        unit="req/cpu s",
        against="app that stores nothing",
        goal=case.sink,
        note=conditions(ours, sink),
    )
    yield result(
        case.name,
        ((mine.capacity, other.capacity) for mine, other in zip(ours, sqlite, strict=True)),
        unit="req/cpu s",
        against="executemany and commit",
        goal=case.sqlite,
        note=conditions(ours, sqlite),
    )


def seal(service: Server, calls: int) -> bytes:
    """Create the trainings and seal the steps that they will report; return a report's answer."""
    with httpx.Client(base_url=service.url, timeout=60) as http:
        for number in range(TRAININGS):
            spec = {"name": f"run-{number}", "base_lr": 0.1}
            http.post("/v1/sessions", json=spec).raise_for_status()
            for call in range(calls):
                take(http, f"run-{number}", call * AT_ONCE, AT_ONCE)
        return http.post("/v1/sessions/run-0/sync", json={}).content


def fresh_steps() -> list[Iterator[int]]:
    """Return the steps of each training, from 0 on."""
    return [itertools.count() for _ in range(TRAININGS)]


def calls_of(steps: Sequence[Iterator[int]], values: int) -> list[Iterator[bytes]]:
    """Return the calls of each training."""
    return [_reports(f"run-{number}", own, values) for number, own in enumerate(steps)]


def _reports(name: str, steps: Iterator[int], values: int) -> Iterator[bytes]:
    """Yield calls for ever, each with one metric at the next steps."""
    path = f"/v1/sessions/{name}/sync"
    report = b'{"step":%d,"metrics":{"loss":%.6f}}'
    while True:
        some = itertools.islice(steps, values)
        yield post(path, b'{"reports":[%s]}' % b",".join(report % (n, 1 / (n + 1)) for n in some))


class PlainDatabase:
    """SQLite alone: the same rows, safe on the disk after each call."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(
            "CREATE TABLE readings (session_id INTEGER, metric_id INTEGER, attempt INTEGER,"
            " step INTEGER, rank INTEGER, value DOUBLE,"
            " PRIMARY KEY (session_id, metric_id, attempt, step, rank)) WITHOUT ROWID"
        )
        self._steps = fresh_steps()

    def drive(self, values: int, seconds: float) -> Load:
        """Insert the values of such calls, as often as possible."""
        calls, began, cpu = 0, time.perf_counter(), time.process_time()
        with pinned(SERVER_CORE):
            while not calls or time.perf_counter() < began + seconds:
                training = calls % TRAININGS
                some = itertools.islice(self._steps[training], values)
                self._insert([(training, 1, 1, step, 0, 1 / (step + 1)) for step in some])
                calls += 1
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
        return Load(calls / elapsed, math.nan, cpu / elapsed, 0.0)

    def _insert(self, rows: list[tuple[float, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows
        )
        self._connection.execute("COMMIT")
