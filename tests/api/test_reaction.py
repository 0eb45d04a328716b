"""Ranks that race over HTTP: decisions bound to steps, held calls, and passed boundaries."""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.closed_loop import Loop, session
from pacesetter_service.api import sync
from pacesetter_service.api.app import create_app
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.signals import Signals
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE, RunningService, open_http

RANKS = 8
STEPS = 24
EVERY = 4
PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}
FOREVER = {"decide_every": EVERY, "timeout": 3600}

Create = Callable[..., str]


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="create")
def _create(http: httpx.Client, unique_name: str) -> Create:
    """Return a function that creates the test's session and returns its path."""

    def create(**spec: Any) -> str:
        body = {"name": unique_name, "base_lr": 0.1, "controllers": [PLATEAU], **spec}
        answer = http.post("/v1/sessions", json=body)
        assert answer.status_code == 201, answer.text
        return f"/v1/sessions/{unique_name}"

    return create


def loss(rank: int, step: int) -> float:
    """Return what a rank measures at a step."""
    return random.Random(rank * 1000 + step).random()


def report(step: int, rank: int = 0, value: float | str | None = None) -> dict[str, Any]:
    """Return a body that reports one loss."""
    value = loss(rank, step) if value is None else value
    return {"rank": rank, "reports": [{"step": step, "metrics": {"loss": value}}]}


def ask(http: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    """Call sync again until the answer is not to come back later."""
    deadline = time.monotonic() + PATIENCE
    while (answer := http.post(f"{path}/sync", json=body)).status_code == 503:
        assert answer.json()["code"] == "awaiting_measurement"
        assert time.monotonic() < deadline, "the step never came"
    return answer


class Rank:
    """A trainer of one rank, in a thread: it reports a step and asks for the next in one call."""

    def __init__(self, url: str, path: str, rank: int) -> None:
        self.rates: list[float] = []
        self._url, self._path, self._rank = url, path, rank

    def train(self, *, dies_at: int = STEPS, slow: bool = False) -> list[float]:
        """Train, and return the learning rate of each step."""
        dice = random.Random(self._rank)
        with open_http(self._url) as http:
            body: dict[str, Any] = {"rank": self._rank}
            for step in range(min(dies_at, STEPS)):
                if slow or dice.random() < 0.1:
                    time.sleep(dice.uniform(0, 0.05))
                answer = ask(http, self._path, {**body, "step": step})
                assert answer.status_code == 200, answer.text
                self.rates.append(answer.json()["lr"])
                body = report(step, self._rank)
        return self.rates


def race(url: str, path: str, **of_some: dict[str, Any]) -> list[list[float]]:
    """Let all ranks train concurrently; `of_some` says how a rank differs from the others."""
    with ThreadPoolExecutor(RANKS) as pool:
        futures = [
            pool.submit(Rank(url, path, rank).train, **of_some.get(f"rank_{rank}", {}))
            for rank in range(RANKS)
        ]
        return [future.result(PATIENCE) for future in futures]


def rates_of_one_after_the_other(ranks: int = RANKS) -> list[float]:
    """Return the learning rates of ranks that report in turn, without a network."""
    loop = Loop(session(PLATEAU, ranks=ranks, reaction={"decide_every": EVERY}, base_lr=0.1))
    for step in range(STEPS):
        loop.seal(step).report(step, {rank: loss(rank, step) for rank in range(ranks)})
    return [loop.sealed[step] for step in range(STEPS)]


def events(http: httpx.Client, path: str, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind."""
    answer = http.get(f"{path}/events", params={"kind": kind, "limit": 1000})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


@pytest.mark.parametrize("slow", [{}, {"rank_5": {"slow": True}}], ids=["even", "one slow"])
def test_racing_ranks_train_with_the_same_rates(
    http: httpx.Client, server_url: str, create: Create, slow: dict[str, Any]
) -> None:
    """However eight ranks interleave, each step has the value that it has without a race."""
    path = create(ranks=RANKS, reaction=FOREVER)
    expected = rates_of_one_after_the_other()
    assert len(set(expected)) > 2
    assert race(server_url, path, **slow) == [expected] * RANKS
    assert {event["at"] % EVERY for event in events(http, path, "decided")} == {0}
    assert events(http, path, "boundary_passed") == []
    assert events(http, path, "missed") == []


def test_a_dead_rank_holds_nobody_up_for_ever(
    http: httpx.Client, server_url: str, create: Create
) -> None:
    """After the timeout its boundaries are passed, which is logged, and values go on."""
    path = create(ranks=RANKS, reaction={"decide_every": EVERY, "timeout": 0.3})
    rates = race(server_url, path, rank_3={"dies_at": 11})
    whole = [rates[rank] for rank in range(RANKS) if rank != 3]
    assert whole == [whole[0]] * (RANKS - 1)
    assert rates[3] == whole[0][:11]
    assert len(set(whole[0][12:])) == 1, "nothing is decided without a quorum"
    passed = [event["at"] for event in events(http, path, "boundary_passed")]
    # A machine that stalls may pass earlier boundaries too: 0.3 s is not long.
    assert set(passed) >= {12, 16, 20}
    missed = {event["step"] for event in events(http, path, "missed")}
    assert missed >= {11, 15, 19}


def test_a_quorum_decides_without_the_dead(http: httpx.Client, create: Create) -> None:
    """With seven of eight ranks the controllers go on, and the log says which boundaries waited."""
    quorum = {"loss": {"quorum": RANKS - 1}}
    path = create(ranks=RANKS, metrics=quorum, reaction={"decide_every": EVERY, "timeout": 0})
    rates = []
    for step in range(STEPS):
        rates.append(ask(http, path, {"rank": 0, "step": step}).json()["lr"])
        for rank in range(RANKS - 1):
            http.post(f"{path}/sync", json=report(step, rank)).raise_for_status()
    assert rates == rates_of_one_after_the_other(RANKS - 1)
    passed = [event["at"] for event in events(http, path, "boundary_passed")]
    assert passed == list(range(EVERY, STEPS, EVERY))
    assert events(http, path, "missed") == []


def test_a_held_call_returns_with_the_decision(
    http: httpx.Client, server_url: str, create: Create
) -> None:
    """A rank that asks too early gets, once the last rank has reported, the resulting value."""
    path = create(ranks=2, reaction=FOREVER, controllers=[{**PLATEAU, "patience": 0}], base_lr=0.1)
    for step in range(EVERY):
        assert ask(http, path, {"step": step}).status_code == 200
        http.post(f"{path}/sync", json=report(step, rank=0, value=1.0))
    answers: list[httpx.Response] = []

    def wait() -> None:
        with open_http(server_url) as own:
            answers.append(ask(own, path, {"step": EVERY}))

    waiting_rank = threading.Thread(target=wait)
    waiting_rank.start()
    for step in range(EVERY):
        assert answers == []
        http.post(f"{path}/sync", json=report(step, rank=1, value=1.0))
    waiting_rank.join(PATIENCE)
    assert answers[0].json()["lr"] == 0.1 * 0.5**3


def test_a_call_is_held_for_some_seconds_and_then_to_come_again(
    http: httpx.Client, create: Create
) -> None:
    """The answer is then a 503 that says when to retry, what is missing and what to do."""
    path = create(ranks=2, reaction=FOREVER)
    assert http.post(f"{path}/sync", json={"want": {"start": 0, "count": 9}}).json()["horizon"] == 4
    answer = http.post(f"{path}/sync", json={**report(3, rank=1), "step": 4})
    assert (answer.status_code, answer.json()["code"]) == (503, "awaiting_measurement")
    assert int(answer.headers["retry-after"]) >= 1
    assert "for step 3 of loss from 2 ranks" in answer.json()["detail"]
    # What was reported with the call is kept; a `want` that begins below the boundary does not
    # wait.
    below = http.post(f"{path}/sync", json={"want": {"start": 2, "count": 9}}).json()
    assert len(below["series"]["lr"]) == 2
    assert http.post(f"{path}/sync", json={**report(3, rank=0), "step": 4}).status_code == 200


def test_a_jump_waits_once(http: httpx.Client, create: Create) -> None:
    """Of the boundaries in between only the first is waited for."""
    path = create(ranks=2, reaction={"decide_every": EVERY, "timeout": 1.0})
    answer = http.post(f"{path}/sync", json={"attempt": 1, "step": 6 * EVERY + 1})
    assert answer.status_code == 200, answer.text
    passed = [event["at"] for event in events(http, path, "boundary_passed")]
    assert passed == [EVERY * number for number in range(1, 7)]


def test_what_ends_a_session_at_a_passed_boundary_is_kept(
    http: httpx.Client, create: Create
) -> None:
    """The refusal that the caller gets does not undo the decision that led to it."""
    path = create(
        ranks=2,
        controllers=[{"kind": "range_test", "metric": "loss"}],
        metrics={"loss": {"quorum": 1}},
        reaction={"decide_every": EVERY, "timeout": 0},
    )
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": EVERY}})
    refused = http.post(f"{path}/sync", json={**report(3, value="nan"), "step": EVERY})
    assert (refused.status_code, refused.json()["code"]) == (409, "session_finished")
    assert [event["at"] for event in events(http, path, "boundary_passed")] == [EVERY]
    [last] = events(http, path, "decided")
    assert (last["at"], last["finish"]) == (EVERY, True)
    http.post(f"{path}/sync", json=report(3, rank=1, value=0.5)).raise_for_status()
    again = http.post(f"{path}/sync", json={"step": EVERY})
    assert (again.status_code, again.json()["code"]) == (409, "session_finished")


def test_an_archived_session_lets_go_of_who_waits(
    http: httpx.Client, server_url: str, create: Create
) -> None:
    """A held caller is told that the session takes no more calls."""
    path = create(ranks=2, reaction=FOREVER)
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": EVERY}})
    with open_http(server_url) as own, ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, own, path, {"attempt": 1, "step": EVERY})
        http.delete(path)
        assert held.result(PATIENCE).json()["code"] == "session_archived"


def test_a_server_that_stops_lets_go_of_held_calls(tmp_path: Any) -> None:
    """The call is answered although the server stops sooner than the call's time limit."""
    spec = {"name": "run", "base_lr": 0.1, "controllers": [PLATEAU], "reaction": FOREVER}
    content = json.dumps({"attempt": 1, "step": EVERY})
    service = RunningService(tmp_path / "pacesetter.db", shutdown_timeout=1)
    with service, open_http(service.url) as http:
        http.post("/v1/sessions", json=spec).raise_for_status()
        want = {"want": {"start": 0, "count": EVERY}}
        http.post("/v1/sessions/run/sync", json=want).raise_for_status()
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as held:
            held.sendall(
                f"POST /v1/sessions/run/sync HTTP/1.1\r\nhost: {host}\r\n"
                "content-type: application/json\r\n"
                f"content-length: {len(content)}\r\n\r\n{content}".encode()
            )
            for _ in range(10):  # it is answered before this is sent, so it was read
                http.get("/livez").raise_for_status()
            assert service.stop() == 0
            answer = b"".join(iter(lambda: held.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"awaiting_measurement" in answer


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 3.0),
        ("wait=0", 0.0),
        ("wait=0.25", 0.25),
        ("respond-async, wait=2", 2.0),
        ('handling=lenient; x, Wait = "1"', 1.0),
        ("wait=1000", 3.0),
        ("wait=", 3.0),
        ("wait=-1", 3.0),
        ("await=1", 3.0),
    ],
)
def test_a_call_may_ask_to_be_held_for_less(
    prefer: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Prefer: wait` of RFC 7240 shortens it; an invalid value is ignored, as the RFC requires."""
    monkeypatch.setattr(sync, "HOLD_SECONDS", 3.0)
    headers = [] if prefer is None else [(b"prefer", prefer.encode())]
    assert (
        sync._hold_seconds({"type": "http", "headers": [(b"accept", b"*/*"), *headers]}) == seconds
    )


def test_whoever_prefers_not_to_wait_is_answered_at_once(
    http: httpx.Client, create: Create
) -> None:
    """The answer is the same; only its time differs."""
    path = create(reaction=FOREVER)
    ask(http, path, {"want": {"start": 0, "count": EVERY}})
    began = time.monotonic()
    for _ in range(20):
        body = {"attempt": 1, "step": EVERY}
        answer = http.post(f"{path}/sync", json=body, headers={"prefer": "wait=0"})
        assert (answer.status_code, answer.json()["code"]) == (503, "awaiting_measurement")
    assert time.monotonic() - began < 20 * sync.HOLD_SECONDS


def test_whoever_is_held_hears_of_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks that wait for each other at each boundary go on without polling."""
    monkeypatch.setattr(sync, "HOLD_SECONDS", 3600.0)
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    writer = Writer(store)
    writer.start()
    transport = httpx.ASGITransport(create_app(Service.over(store, writer)))
    spec = {"name": "run", "base_lr": 0.1, "controllers": [PLATEAU], "ranks": 2}

    async def follow(http: httpx.AsyncClient, rank: int) -> None:
        for boundary in range(EVERY, 30 * EVERY, EVERY):
            body = {**report(boundary - 1, rank), "want": {"start": boundary, "count": EVERY}}
            answer = await http.post("/v1/sessions/run/sync", json=body)
            assert answer.status_code == 200, answer.text

    async def race() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/sessions", json={**spec, "reaction": FOREVER})
            want = {"want": {"start": 0, "count": EVERY}}
            await http.post("/v1/sessions/run/sync", json=want)
            both = asyncio.gather(follow(http, 0), follow(http, 1))
            await asyncio.wait_for(both, PATIENCE)

    asyncio.run(race())
    writer.stop()
    store.close()


# -- which callers wait, without a server ----------------------------------------------------------


def test_news_reach_everybody_who_waits() -> None:
    """A change wakes all that wait for its session; a release wakes all of them, now and later."""

    async def crowd() -> list[str]:
        signals, woken = Signals(), list[str]()

        async def wait(name: str) -> None:
            await signals.news(name, PATIENCE)
            woken.append(name)

        tasks = [asyncio.create_task(wait(name)) for name in ("a", "a", "b")]
        await asyncio.sleep(0)
        signals.tell("a")
        await asyncio.wait(tasks[:2])
        assert woken == ["a", "a"]
        signals.release()
        await asyncio.wait(tasks)
        assert signals.released
        return woken

    assert asyncio.run(crowd()) == ["a", "a", "b"]


def test_a_look_at_a_boundary_decides_nothing(http: httpx.Client, create: Create) -> None:
    """A reader's call waits for no timeout: only a trainer passes a boundary."""
    path = create(ranks=2, reaction={"decide_every": EVERY, "timeout": 0})
    ask(http, path, {"attempt": 1, "want": {"start": 0, "count": EVERY}})
    looked = http.post(f"{path}/sync", json={"step": EVERY}, headers={"prefer": "wait=0"})
    assert (looked.status_code, looked.json()["code"]) == (503, "awaiting_measurement")
    assert events(http, path, "boundary_passed") == []
    assert ask(http, path, {"attempt": 1, "step": EVERY}).status_code == 200


def test_a_jump_over_thousands_of_boundaries_is_few_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each boundary is passed and logged, without a flush of the disk for each."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    writer = Writer(store)
    begin, commits = store.begin, 0

    def counted() -> Any:
        nonlocal commits
        commits += 1
        return begin()

    monkeypatch.setattr(store, "begin", counted)
    writer.start()
    transport = httpx.ASGITransport(create_app(Service.over(store, writer)))
    reaction = {"decide_every": 1, "timeout": 0}
    spec = {"name": "run", "base_lr": 0.1, "controllers": [PLATEAU], "reaction": reaction}

    async def jump() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            (await http.post("/v1/sessions", json=spec)).raise_for_status()
            wish = {"attempt": 1, "step": 3000, "progress": {"step": 3000}}
            answer = await http.post("/v1/sessions/run/sync", json=wish)
            assert answer.json()["horizon"] == 3001

    try:
        asyncio.run(jump())
        assert store.load("run") is not None
        assert 2 <= commits < 20
    finally:
        writer.stop()
        store.close()
