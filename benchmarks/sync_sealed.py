"""Sealed values over HTTP: `sync` against a bare ASGI app that answers the same bytes."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import servers
from benchmarks.harness import Effort, Goal, Result, at_least, at_most, result, take_turns
from benchmarks.load import conditions, drive, post
from benchmarks.sealing import WINDOW, take
from benchmarks.servers import Server

PATH = "/v1/sessions/x/sync"
JSON = "application/json"
BARE = "bare ASGI app"


@dataclass(frozen=True, slots=True)
class Case:
    """A call, the number of connections for it, and the goal for its rate."""

    name: str
    body: bytes
    accept: str
    connections: int
    goal: Goal | None = None


ONE = b'{"step": 5}'
CASES = (
    Case("sync, one value, 1 connection", ONE, JSON, 1),
    Case("sync, one value, 16 connections", ONE, JSON, 16, at_least(0.45)),
    Case(
        "sync, window of 1,000, 16 connections",
        b'{"want": {"start": 5, "count": 1000}}',
        WINDOW,
        16,
        at_least(0.40),
    ),
)


def run(effort: Effort) -> Iterator[Result]:
    """Ask again and again for sealed values."""
    with tempfile.TemporaryDirectory() as folder, servers.service(Path(folder)) as service:
        _seal(service)
        for case in CASES:
            yield from _compare(effort, Path(folder), service, case)


def _seal(service: Server) -> None:
    schedule = {"kind": "warmup_cosine", "warmup_steps": 100, "total_steps": 10_000}
    with httpx.Client(base_url=service.url) as http:
        spec = {"name": "x", "base_lr": 0.1, "schedule": schedule}
        http.post("/v1/sessions", json=spec).raise_for_status()
        take(http, "x", 0, 2000)


def _compare(effort: Effort, directory: Path, service: Server, case: Case) -> Iterator[Result]:
    headers = {"accept": case.accept, "content-type": JSON}
    answer = httpx.post(service.url + PATH, content=case.body, headers=headers)
    requests = [itertools.repeat(post(PATH, case.body, case.accept))] * case.connections
    with servers.bare(directory, answer.content, answer.headers["content-type"]) as bare:
        pairs = take_turns(
            case.name,
            effort.rounds,
            partial(drive, service, requests, effort.seconds),
            partial(drive, bare, requests, effort.seconds),
        )
    yield result(
        case.name,
        ((ours.capacity, other.capacity) for ours, other in pairs),
        unit="req/cpu s",
        against=BARE,
        goal=case.goal,
        note=conditions([ours for ours, _ in pairs], [other for _, other in pairs]),
    )
    yield result(
        f"{case.name}, p99",
        ((1e3 * ours.p99, 1e3 * other.p99) for ours, other in pairs),
        unit="ms",
        against=BARE,
        goal=at_most(4) if case.goal else None,
    )
