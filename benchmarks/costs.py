"""The cost of single calls to the service and the trainer: each against its bound, or its like."""

import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import torch

from benchmarks import servers
from benchmarks.harness import (
    OUR_CORE,
    Effort,
    Result,
    at_most,
    pinned,
    result,
    seconds_of,
    take_turns,
)
from benchmarks.load import Load, drive, post
from benchmarks.servers import Server
from pacesetter import Client
from pacesetter.torch import RemoteLR

CONNECTIONS = 16

SESSIONS, FEW = 2_000, 40
"""How many sessions there are; memory holds a few of them where a cold touch is measured."""

SPEC = (
    b'{"name":"%s","base_lr":0.1,'
    b'"schedule":{"kind":"warmup_cosine","warmup_steps":100,"total_steps":10000}}'
)


def run(effort: Effort) -> Iterator[Result]:
    """Create sessions, list them, read them, and step through one that is prefetched."""
    with tempfile.TemporaryDirectory() as folder:
        kept = f"--max-cached-sessions={FEW}"
        with servers.service(Path(folder), kept) as service:
            yield _created(effort, service)
            names = _seal(service, effort.size(SESSIONS, tiny=2 * FEW))
            yield _listed(effort, service)
            yield _touched(effort, service, names)
            yield _opened(effort, service)
            yield _stalls(effort, service)


def _milliseconds(loads: Sequence[Load]) -> list[float]:
    return [1e3 / load.capacity for load in loads]


def _created(effort: Effort, service: Server) -> Result:
    numbers = itertools.count()

    def creations() -> Iterator[bytes]:
        for number in numbers:
            yield post("/v1/sessions", SPEC % f"new-{number}".encode())

    calls = [creations() for _ in range(CONNECTIONS)]
    rounds = take_turns("create", effort.rounds, partial(drive, service, calls, effort.seconds))
    found = _milliseconds([load for (load,) in rounds])
    return _bounded("create a session", found, 1.5)


def _bounded(name: str, found: Sequence[float], bound: float) -> Result:
    pairs = ((each, bound) for each in found)
    return result(name, pairs, unit="ms", against="its bound", goal=at_most(1))


def _seal(service: Server, number: int) -> list[str]:
    """Create sessions and seal ten steps of each."""
    names = [f"old-{each:05}" for each in range(number)]
    with httpx.Client(base_url=service.url, timeout=60) as http:
        for name in names:
            http.post("/v1/sessions", json={"name": name, "base_lr": 0.1}).raise_for_status()
            want = {"attempt": 1, "want": {"start": 0, "count": 10}}
            http.post(f"/v1/sessions/{name}/sync", json=want).raise_for_status()
    return names


def _listed(effort: Effort, service: Server) -> Result:
    page = b"GET /v1/sessions?limit=50 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    calls = [itertools.repeat(page)] * CONNECTIONS
    rounds = take_turns("list", effort.rounds, partial(drive, service, calls, effort.seconds))
    return _bounded("a page of 50 sessions", _milliseconds([load for (load,) in rounds]), 10)


def _touched(effort: Effort, service: Server, names: Sequence[str]) -> Result:
    """Ask for a sealed step of sessions in memory, and of others."""
    warm, cold = names[: FEW // 2], list(names[FEW // 2 :])
    random.Random(7).shuffle(cold)

    def touches(some: Sequence[str]) -> list[Iterator[bytes]]:
        body = b'{"attempt":1,"step":5}'
        calls = [post(f"/v1/sessions/{name}/sync", body) for name in some]
        return [itertools.cycle(calls[at::CONNECTIONS]) for at in range(CONNECTIONS)]

    rounds = take_turns(
        "touch",
        effort.rounds,
        partial(drive, service, touches(cold), effort.seconds),
        partial(drive, service, touches(warm), effort.seconds),
    )
    return result(
        "sync of a session that memory does not hold",
        ((1e3 / one.capacity, 1e3 / other.capacity) for one, other in rounds),
        unit="ms",
        against="one that it holds",
        goal=at_most(2),
    )


def _opened(effort: Effort, service: Server) -> Result:
    def opened() -> float:
        return 1e3 * seconds_of(lambda: Client(service.url).close())

    opened()
    rounds = take_turns("Client()", effort.rounds, opened)
    return _bounded("Client()", [each for (each,) in rounds], 10)


def _stalls(effort: Effort, service: Server) -> Result:
    """Step as a trainer that computes for a millisecond, and record its longest step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = {"kind": "cosine", "total_steps": 10_000_000}
    with Client(service.url) as client, pinned(OUR_CORE):
        session = client.create_session("stepped", base_lr=0.1, schedule=schedule)
        scheduler = RemoteLR(optimizer, session)
        optimizer.step()
        _longest(scheduler, effort.size(2.0, tiny=0.01))  # windows grow to their size
        rounds = take_turns("stall", effort.rounds, partial(_longest, scheduler, effort.seconds))
    return _bounded("longest step of a loop, windows fetched ahead", [x for (x,) in rounds], 2)


def _longest(scheduler: RemoteLR, seconds: float) -> float:
    longest, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(1e-3)  # the update, on another device
        began = time.perf_counter()
        scheduler.step()
        longest = max(longest, time.perf_counter() - began)
    return 1e3 * longest
