"""Old sessions are archived, then purged: by a command and by settings."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from pacesetter import cli
from pacesetter_service.__main__ import _keep
from pacesetter_service.core.commands import Archive
from pacesetter_service.core.errors import SessionPurgedError, StorageUnavailableError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime import retention
from pacesetter_service.runtime.operator import purge_session
from pacesetter_service.runtime.retention import Policy, prune
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import purging
from pacesetter_service.store.schema import sessions
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE, RunningService, open_http

OLD = "2020-01-01T00:00:00.000+00:00"


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="run")
def _run(http: httpx.Client, unique_name: str) -> str:
    """Create a finished session, its fork that goes on, and an archived one; return their label."""
    for name in (unique_name, f"{unique_name}-kept"):
        spec = {"name": name, "base_lr": 0.1, "labels": {"run": unique_name}}
        http.post("/v1/sessions", json=spec).raise_for_status()
        http.post(f"/v1/sessions/{name}/sync", json={"step": 3}).raise_for_status()
    http.post(f"/v1/sessions/{unique_name}/finish", json={}).raise_for_status()
    http.delete(f"/v1/sessions/{unique_name}-kept")
    fork = {"name": f"{unique_name}-fork", "step": 2}
    http.post(f"/v1/sessions/{unique_name}-kept/fork", json=fork).raise_for_status()
    return unique_name


def _prune(http: httpx.Client, run: str, **body: Any) -> dict[str, tuple[str, str]]:
    given = {"older_than": 0, "labels": {"run": run}, **body}
    page = http.post("/v1/prune", json=given).raise_for_status().json()
    assert page["next_page_token"] is None
    assert all(each["bytes"] > 100 for each in page["sessions"])
    return {each["name"]: (each["state"], each["step"]) for each in page["sessions"]}


def test_each_session_goes_one_step(http: httpx.Client, run: str) -> None:
    """A dry run changes nothing; what has ended is archived, and what forks share is kept."""
    expected = {run: ("finished", "archive"), f"{run}-kept": ("archived", "keep")}
    assert _prune(http, run, dry_run=True, purge=True) == expected
    assert http.get(f"/v1/sessions/{run}").json()["status"] == "finished"
    assert _prune(http, run) == {run: ("finished", "archive")}
    assert http.get(f"/v1/sessions/{run}").json()["status"] == "archived"
    http.delete(f"/v1/sessions/{run}-fork")
    done = _prune(http, run, purge=True)
    assert list(done.values()) == [("archived", "purge")] * 3
    assert next(iter(done)) == f"{run}-fork"
    assert _prune(http, run, purge=True) == {}


def test_what_is_young_or_active_is_left_alone(http: httpx.Client, run: str) -> None:
    """Age and state decide; an active session is left out unless `states` names it."""
    assert _prune(http, run, older_than=3_600, purge=True) == {}
    assert _prune(http, run, states=["failed"]) == {}
    named = _prune(http, run, states=["active"], dry_run=True)
    assert named == {f"{run}-fork": ("active", "archive")}


def test_what_is_put_away_already_takes_no_place_on_a_page(http: httpx.Client, run: str) -> None:
    """So the first page has sessions that are to be put away, however many were before."""
    body = {"older_than": 0, "labels": {"run": run}, "dry_run": True, "limit": 1}
    page = http.post("/v1/prune", json=body).raise_for_status().json()
    assert [each["name"] for each in page["sessions"]] == [run]


def test_a_prune_that_fails_on_the_way_tells_what_it_has_done(tmp_path: Path) -> None:
    """The page ends with the session that was not put away; the next one begins after it."""
    failing = {"failpoints": "commit.before=fail@8", "allow_failpoints": 1}
    with RunningService(tmp_path / "own.db", **failing) as service, open_http(service.url) as http:
        for name in "abc":  # six commits
            http.post("/v1/sessions", json={"name": name, "base_lr": 0.1}).raise_for_status()
            http.post(f"/v1/sessions/{name}/finish", json={}).raise_for_status()

        def prune(token: str | None = "") -> tuple[list[tuple[str, str]], str, str | None]:
            body = {"older_than": 0, "page_token": token}
            page = http.post("/v1/prune", json=body).raise_for_status().json()
            steps = [(each["name"], each["step"]) for each in page["sessions"]]
            return steps, page["sessions"][-1]["reason"], page["next_page_token"]

        steps, reason, token = prune()
        assert steps == [("c", "archive"), ("b", "keep")]
        assert "this session is as it was" in reason
        assert [http.get(f"/v1/sessions/{each}").json()["status"] for each in "abc"] == [
            "finished",
            "finished",
            "archived",
        ]
        assert prune(token) == ([("a", "archive")], "", None)
        assert prune() == ([("b", "archive")], "", None)


def test_a_prune_that_fails_at_once_is_an_error(tmp_path: Path) -> None:
    """Nothing was put away, which the answer says."""
    failing = {"failpoints": "commit.before=fail@3", "allow_failpoints": 1}
    with RunningService(tmp_path / "own.db", **failing) as service, open_http(service.url) as http:
        http.post("/v1/sessions", json={"name": "a", "base_lr": 0.1}).raise_for_status()
        http.post("/v1/sessions/a/finish", json={}).raise_for_status()
        answer = http.post("/v1/prune", json={"older_than": 0})
        assert answer.status_code == 503
        assert "nothing of this call was kept" in answer.json()["detail"]


def test_the_command_tells_what_it_would_do(
    server_url: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lists each session with its bytes, and a sum; mistakes give an exit status."""
    asked = ["prune", "--older-than", "0s", "--label", f"run={run}", "--url", server_url]
    assert cli.main([*asked, "--purge", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"{run} (finished)" in told
    assert "1 session would be put away, 1 kept" in told
    for wrong, status in (("--older-than=soon", 2), ("--label=team", 2), ("--state=old", 1)):
        assert cli.main([*asked, wrong]) == status


def _aged(path: Path, **changes: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for column, value in {"changed_at": OLD, **changes}.items():
            connection.execute(f"UPDATE sessions SET {column} = ?", (value,))
        connection.commit()


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Create a database with a session that was last written years ago."""
    path = tmp_path / "own.db"
    with RunningService(path) as service, open_http(service.url) as http:
        http.post("/v1/sessions", json={"name": "old", "base_lr": 0.1}).raise_for_status()
        http.post("/v1/sessions/old/sync", json={"step": 3}).raise_for_status()
    _aged(path)
    return path


@contextlib.contextmanager
def _service_over(path: Path) -> Iterator[Service]:
    """Run the parts of a service in this process, without a front door."""
    store = SqliteStore(f"sqlite:///{path}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)
    try:
        yield service
    finally:
        service.close()
        writer.stop()
        store.close()


def _until(service: Service, statuses: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := _statuses(service)) != statuses:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def _statuses(service: Service) -> list[str]:
    with service.store.snapshot() as connection:
        return list(connection.scalars(select(sessions.c.status)))


def test_settings_put_away_by_themselves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is silent for long is archived, and one archived for long is purged."""
    monkeypatch.setattr(retention, "EVERY", 0.01)
    with RunningService(path) as service, open_http(service.url) as http:
        assert http.get("/v1/sessions/old").json()["state"] == "silent"
    with _service_over(path) as parts:
        _keep(parts, archive_after=90, purge_after=365)
        _until(parts, ["archived"])
    _aged(path)
    with _service_over(path) as parts:
        _keep(parts, archive_after=90, purge_after=365)
        _until(parts, [])


def test_nothing_is_put_away_before_trainers_can_call(path: Path) -> None:
    """After a start the settings wait for their time, although other work wakes the janitor."""

    async def purge(parts: Service) -> None:
        await parts.writer.submit(Create(SessionSpec(name="gone", base_lr=0.1)))
        await parts.writer.submit(Change("gone", (Archive(),)))
        await purge_session(parts, "gone", "bo")

    with _service_over(path) as parts:
        _keep(parts, archive_after=90, purge_after=365)
        asyncio.run(purge(parts))
        _until(parts, ["active"])


def test_a_purge_whose_caller_leaves_is_finished(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are removed, and readers of its events are told, though the call was cancelled."""
    hiding, go_on, hide = threading.Event(), threading.Event(), purging.hide

    def slowly(*args: Any) -> None:
        hiding.set()
        assert go_on.wait(PATIENCE)
        hide(*args)

    async def leave(parts: Service) -> float:
        await parts.writer.submit(Change("old", (Archive(),)))
        monkeypatch.setattr(purging, "hide", slowly)
        waiting = asyncio.ensure_future(parts.logged.news("old", PATIENCE))
        policy = Policy(0.0, ("archived",), {}, purges=True)
        pruning = asyncio.ensure_future(
            prune(parts, policy, "bo", dry_run=False, below=None, limit=9)
        )
        assert await asyncio.to_thread(hiding.wait, PATIENCE)
        pruning.cancel()
        await asyncio.wait([pruning])
        begun = time.monotonic()
        go_on.set()
        await waiting
        return time.monotonic() - begun

    with _service_over(path) as parts:
        assert asyncio.run(leave(parts)) < PATIENCE / 2
        _until(parts, [])


def test_a_session_that_is_perhaps_purged_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its commit stands though the answer is an error, memory does not show it any longer."""
    hide = purging.hide

    async def purge(parts: Service) -> None:
        await parts.writer.submit(Change("old", (Archive(),)))
        with pytest.raises(StorageUnavailableError):
            await purge_session(parts, "old", "bo")
        with pytest.raises(SessionPurgedError):
            await parts.writer.find("old")

    with _service_over(path) as parts:

        def committed(*args: Any) -> None:
            hide(*args)
            args[0].commit()
            raise StorageUnavailableError("no disk", kept="perhaps")

        monkeypatch.setattr(purging, "hide", committed)
        asyncio.run(purge(parts))
        _until(parts, [])
