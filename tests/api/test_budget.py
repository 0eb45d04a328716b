"""One caller cannot stop the service: through real processes, sockets and signals."""

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serving import PATIENCE, RunningService, open_http, quick, spawned

SUM_OF_EXPS = "base * (" + " + ".join(f"exp(-t / {100 + each})" for each in range(16)) + ")"


def costly(depth: int) -> dict[str, Any]:
    """Return a law of a few bytes that costs twice as much with each level."""
    law: dict[str, Any] = {"kind": "expression", "value": SUM_OF_EXPS}
    for _ in range(depth):
        law = {"kind": "splice", "first": law, "steps": 5, "second": "constant"}
    return {"base_lr": 0.1, "schedule": law}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    with open_http(server_url) as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> str:
    """Return what a problem says; the answer must be this one."""
    found = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), answer.text[:500]
    return str(found["detail"])


def test_a_session_that_no_window_is_affordable_of_is_not_created(
    http: httpx.Client, unique_name: str
) -> None:
    """A law with a million evaluations is refused at creation and in a preview."""
    body = {"name": unique_name, **costly(20)}
    for path in ("/v1/sessions", "/v1/schedules/preview", "/v1/schedules/lint"):
        detail = problem(http.post(path, json=body), 422, "too_costly")
        assert "the budget is 2e+08" in detail
        assert "Reduce the number of groups" in detail
    assert http.get(f"/v1/sessions/{unique_name}").status_code == 404


def test_no_fork_and_no_template_makes_a_session_that_nothing_is_affordable_of(
    http: httpx.Client, unique_name: str
) -> None:
    """A law beyond the budget is refused also in a fork's description and in a template."""
    new, law = f"{unique_name}-new", costly(20)
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    template = {"name": "beyond-the-budget", "spec": law}
    http.post("/v1/templates", json=template).raise_for_status()
    stage = {"when": {"kind": "below", "value": 0.1}, "schedule": law["schedule"]}
    rule = {"kind": "switch", "metric": "loss", "stages": [stage]}
    for path, body in (
        (f"/v1/sessions/{unique_name}/fork", {"step": 0, "description": law}),
        (f"/v1/sessions/{unique_name}/fork", {"step": 0, "description": {"controllers": [rule]}}),
        ("/v1/sessions", {"template": "beyond-the-budget@1"}),
        ("/v1/sessions", {"base_lr": 0.1, "controllers": [rule]}),
        (f"/v1/sessions/{unique_name}/actions", {"kind": "replace", "schedule": law["schedule"]}),
    ):
        answer = http.post(path, json=body if path.endswith("actions") else {"name": new, **body})
        problem(answer, 422, "too_costly")
    assert http.get(f"/v1/sessions/{new}").status_code == 404


def test_others_are_served_while_a_costly_session_is_sealed(
    http: httpx.Client, server_url: str, unique_name: str
) -> None:
    """A trainer that keeps sealing a costly session does not keep another from sealing its own.

    The costly one's windows come shorter than asked; the plain one's are sealed in between.
    """
    dear, plain = f"{unique_name}-dear", f"{unique_name}-plain"
    made = http.post("/v1/sessions", json={"name": dear, **costly(7)})
    assert made.status_code == 201, made.text[:500]
    assert made.json()["max_window"] < 5000
    http.post("/v1/sessions", json={"name": plain, "base_lr": 0.1}).raise_for_status()
    horizons: list[int] = []
    over = threading.Event()

    def seal_all_the_time() -> None:
        with open_http(server_url) as client:
            horizon = 0
            while not over.is_set():
                wish = quick(horizon, 60_000)
                answer = client.post(f"/v1/sessions/{dear}/sync", json=wish)
                horizon = int(answer.raise_for_status().json()["horizon"])
                horizons.append(horizon)

    greedy = [threading.Thread(target=seal_all_the_time) for _ in range(3)]
    for thread in greedy:
        thread.start()
    try:
        for step in range(10):
            answer = http.post(f"/v1/sessions/{plain}/sync", json={"attempt": 1, "step": step})
            assert answer.raise_for_status().json()["horizon"] == step + 1
            assert http.get("/readyz").status_code == 200
    finally:
        over.set()
        for thread in greedy:
            thread.join(PATIENCE)
    assert horizons
    assert max(horizons) < 10 * 60_000


def test_a_preview_beyond_the_budget_says_how_many_steps_there_may_be(http: httpx.Client) -> None:
    """The length that it advises is accepted."""
    body = {**costly(7), "count": 1_000_000, "points": 10}
    detail = problem(http.post("/v1/schedules/preview", json=body), 422, "too_costly")
    fewer = int(detail.partition("at most ")[2].partition(" steps")[0])
    assert 1 <= fewer < 1_000_000
    small = {**body, "count": min(fewer, 1000)}
    assert http.post("/v1/schedules/preview", json=small).status_code == 200


def test_a_forecast_beyond_the_budget_is_refused_and_a_dry_run_shows_less(
    http: httpx.Client, unique_name: str
) -> None:
    """Both are of the same costly session; its dry run shows only as much as it can afford."""
    spec = {"name": unique_name, **costly(7), "total_steps": 50_000}
    assert http.post("/v1/sessions", json=spec).status_code == 201
    url = f"/v1/sessions/{unique_name}"
    problem(http.get(f"{url}/forecast", params={"count": 60_000}), 422, "too_costly")
    act = {"kind": "scale", "factor": 0.5, "dry_run": True}
    shown = http.post(f"{url}/actions", json=act).raise_for_status().json()
    assert 0 < shown["after"]["steps"][-1] < 50_000


def _long_preview() -> bytes:
    """Return a body whose preview is within the budget and takes seconds."""
    return json.dumps({**costly(7), "count": 10_000, "points": 10}).encode()


@contextmanager
def _asking(url: str, body: bytes) -> Iterator[socket.socket]:
    """Send a preview without waiting for its answer."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 80), PATIENCE) as connection:
        head = (
            f"POST /v1/schedules/preview HTTP/1.1\r\nhost: {place.netloc}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        yield connection


def _until(happens: Any, what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


def test_previews_are_bounded_and_given_up_with_their_callers(tmp_path: Path) -> None:
    """If as many wait as may, the next is refused; once their callers leave, there is room again.

    Meanwhile sessions are created and sealed, for which previews are not waited for.
    """
    body = _long_preview()
    with RunningService(tmp_path / "p.db") as service, open_http(service.url) as http:
        small = {"base_lr": 0.1, "count": 10}
        with ExitStack() as asking:
            for _ in range(18):
                asking.enter_context(_asking(service.url, body))
            refused: list[httpx.Response] = []

            def is_busy() -> bool:
                refused[:] = [http.post("/v1/schedules/preview", json=small)]
                return refused[0].status_code == 503

            _until(is_busy, "the pool was never full")
            assert "Retry-After" in problem(refused[0], 503, "busy")
            assert int(refused[0].headers["retry-after"]) >= 1
            made = http.post("/v1/sessions", json={"name": "calm", "base_lr": 0.1})
            assert made.status_code == 201
            assert http.post("/v1/sessions/calm/sync", json={"step": 0}).status_code == 200
        _until(
            lambda: http.post("/v1/schedules/preview", json=small).status_code == 200,
            "what nobody waits for was not given up",
        )


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Keep the writer from writing, as a disk that hangs would."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_a_writer_that_gets_nowhere_makes_the_service_unready(tmp_path: Path) -> None:
    """While its job hangs, `/readyz` says so, and afterwards that all is well."""
    with (
        RunningService(tmp_path / "p.db", stall_after=0.2) as service,
        open_http(service.url) as http,
    ):
        assert http.get("/readyz").status_code == 200
        with _locked(service.database):
            body = {"name": "x", "base_lr": 0.1}
            waiting = threading.Thread(
                target=httpx.post,
                args=(f"{service.url}/v1/sessions",),
                kwargs={"json": body, "timeout": PATIENCE},
            )
            waiting.start()
            answers: list[httpx.Response] = []

            def is_unready() -> bool:
                answers.append(http.get("/readyz"))
                return answers[-1].status_code == 503

            _until(is_unready, "nobody noticed")
            detail = problem(answers[-1], 503, "stalled")
            assert "without finishing anything" in detail
            assert http.get("/livez").status_code == 200
        waiting.join(PATIENCE)
        _until(lambda: http.get("/readyz").status_code == 200, "it stayed unready")


def test_sigterm_ends_the_process_whatever_runs(tmp_path: Path) -> None:
    """It ends despite a preview, a held call and a writer that hangs.

    The disk hangs until the test has seen the end, so only the promised limit can have ended it.
    What was acknowledged is there afterwards.
    """
    with RunningService(tmp_path / "p.db", spawned, shutdown_timeout=1) as service:
        with open_http(service.url) as http:
            spec = {
                "name": "held",
                "base_lr": 0.1,
                "controllers": [{"kind": "plateau", "metric": "loss"}],
                "reaction": {"decide_every": 1, "timeout": 3600},
            }
            assert http.post("/v1/sessions", json=spec).status_code == 201
            assert (
                http.post("/v1/sessions/held/sync", json={"rank": 0, "step": 0}).status_code == 200
            )
            for each in range(20):
                body = {"name": f"late-{each}", "base_lr": 0.1}
                http.post("/v1/sessions", json=body).raise_for_status()
        held = threading.Thread(target=_ask_in_vain, args=(f"{service.url}/v1/sessions/held/sync",))
        held.start()
        with _asking(service.url, _long_preview()), _locked(service.database):
            writers = [
                threading.Thread(target=_restart_in_vain, args=(service.url, f"late-{each}"))
                for each in range(20)
            ]
            for thread in writers:
                thread.start()
            # The first of them was given up: all others stand behind it, each with its own wait.
            _until(lambda: not all(each.is_alive() for each in writers), "none was given up")
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(PATIENCE) == 1
        for thread in (held, *writers):
            thread.join(PATIENCE)
        _until(
            lambda: any('"stopped_unfinished"' in line for line in service.log),
            "it did not say that it stopped unfinished",
        )
        service.kill()
        service.start()
        with open_http(service.url) as http:
            assert http.get("/v1/sessions/held").json()["horizon"] == 1


def _ask_in_vain(url: str) -> None:
    with suppress(httpx.HTTPError):
        httpx.post(url, json={"rank": 0, "step": 1}, timeout=PATIENCE)


def _restart_in_vain(url: str, name: str) -> None:
    """Open an attempt: each is a separate batch, and waits for the disk by itself."""
    with suppress(httpx.HTTPError):
        body = {"step": 0, "key": "again"}
        httpx.post(f"{url}/v1/sessions/{name}/attempts", json=body, timeout=PATIENCE)
