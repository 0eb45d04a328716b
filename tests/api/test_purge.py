"""Sessions are removed for good: by whom, which, and how callers that still know them are told."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from pacesetter_service.core.commands import Archive
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.queries.events import LoggedEvent, follow
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.purging import LARGE_ROWS
from pacesetter_service.store.schema import OF_A_SESSION
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE, RunningService, open_http


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def _create(http: httpx.Client, name: str, **spec: Any) -> str:
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()
    return f"/v1/sessions/{name}"


def _train(http: httpx.Client, at: str, steps: int, metrics: int = 1) -> None:
    """Seal some steps of the first attempt, and report on them."""
    want = {"start": 0, "count": steps}
    http.post(f"{at}/sync", json={"attempt": 1, "want": want}).raise_for_status()
    names = [f"m{number}" for number in range(metrics)]
    reports = [{"step": step, "metrics": dict.fromkeys(names, 0.5 + step)} for step in range(steps)]
    http.post(f"{at}/sync", json={"attempt": 1, "reports": reports}).raise_for_status()


def _purge(http: httpx.Client, at: str) -> None:
    http.delete(at).raise_for_status()
    assert http.post(f"{at}/purge", json={}).status_code == 204


def _code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_only_what_is_archived_is_purged(http: httpx.Client, unique_name: str) -> None:
    """The refusal says what to do first, and nothing is removed."""
    at = _create(http, unique_name)
    refused = http.post(f"{at}/purge", json={})
    assert _code(refused) == (409, "session_not_archived")
    assert f"DELETE {at.replace(unique_name, '{name}')}" in refused.json()["detail"]
    assert http.get(at).status_code == 200
    http.delete(at)
    assert http.post(f"{at}/purge", json={"dry_run": True}).status_code == 204
    assert http.get(at).status_code == 200


def test_a_trainer_of_a_purged_session_is_told_so(http: httpx.Client, unique_name: str) -> None:
    """It is told when, and so is a caller that repeats the purge."""
    at = _create(http, unique_name)
    _train(http, at, 4)
    _purge(http, at)
    for answer in (http.get(at), http.post(f"{at}/sync", json={"step": 4})):
        assert _code(answer) == (404, "session_purged")
        assert "Stop a training" in answer.json()["detail"]
    assert _code(http.post(f"{at}/purge", json={})) == (404, "session_purged")
    listed = http.get("/v1/sessions", params={"limit": 500}).json()["sessions"]
    assert unique_name not in [each["name"] for each in listed]


def test_who_follows_its_events_comes_to_their_end(http: httpx.Client, unique_name: str) -> None:
    """The stream ends as a complete answer does; a reader that resumes is told why."""
    at = _create(http, unique_name)
    http.delete(at)
    kinds = []
    with http.stream("GET", f"{at}/events/stream") as feed:
        for line in feed.iter_lines():
            kinds += [line] if line.startswith("event:") else []
            if line == "event: archived":
                http.post(f"{at}/purge", json={}).raise_for_status()
    assert kinds == ["event: created", "event: archived"]
    assert _code(http.get(f"{at}/events/stream")) == (404, "session_purged")


def test_who_follows_a_session_while_its_rows_go_comes_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when it was looked at, and its events are not: that is an end, and no fault."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)

    async def followed() -> list[list[LoggedEvent]]:
        spec = SessionSpec.model_validate({"name": "run", "base_lr": 0.1})
        await writer.submit(Create(spec))
        await writer.submit(Change("run", (Archive(),)))
        monkeypatch.setattr(store, "events_after", lambda *_, **__: [])
        return [page async for page in follow(service, "run", 0, 1.0, list)]

    try:
        assert asyncio.run(followed()) == []
    finally:
        service.close()
        writer.stop()
        store.close()


def test_the_name_is_free_and_no_attempt_is_used_again(
    http: httpx.Client, unique_name: str
) -> None:
    """A trainer of the purged session is stale in the new one, even before that has trained."""
    at = _create(http, unique_name)
    _train(http, at, 4)
    http.post(f"{at}/attempts", json={"step": 2, "key": "again"}).raise_for_status()
    _purge(http, at)
    assert _create(http, unique_name, schedule={"kind": "cosine", "total_steps": 9}) == at
    assert http.get(at).json()["attempt"] == 3
    assert http.get(f"{at}/attempts").json()["attempts"][0]["attempt"] == 3
    query = {"session": unique_name, "kind": "created"}
    for path, params in ((f"{at}/events", {}), ("/v1/events", query)):
        [created] = http.get(path, params=params).json()["events"]
        assert (created["kind"], created["attempt"]) == ("created", 3)
    for attempt in (1, 2):
        stale = http.post(f"{at}/sync", json={"attempt": attempt, "step": 0})
        assert _code(stale) == (409, "stale_attempt")
    taken = http.post(f"{at}/sync", json={"attempt": 3, "want": {"start": 0, "count": 4}})
    assert taken.status_code == 200
    assert http.get(f"{at}/lr", params={"step": 3}).json()["sealed"] is True
    again = http.post(f"{at}/attempts", json={"step": 1, "key": "third"}).raise_for_status()
    assert again.json()["attempt"] == 4


def test_its_record_comes_back_from_an_export(http: httpx.Client, unique_name: str) -> None:
    """The export of a session is complete, and can be imported after a purge."""
    at = _create(http, unique_name)
    _train(http, at, 4)
    http.delete(at)
    record = http.get(f"{at}/export").content
    assert http.post(f"{at}/purge", json={}).status_code == 204
    imported = http.post(
        "/v1/import", content=record, headers={"content-type": "application/x-ndjson"}
    )
    assert (imported.status_code, imported.json()["status"]) == (201, "archived")
    assert http.get(f"{at}/export").content == record


def test_what_forks_share_is_kept(http: httpx.Client, unique_name: str) -> None:
    """A session is refused while its forks share its first steps; they go first, then it."""
    at = _create(http, unique_name)
    _train(http, at, 8)
    for number in (1, 2):
        body = {"name": f"{unique_name}-{number}", "step": 6}
        http.post(f"{at}/fork", json=body).raise_for_status()
    http.delete(at)
    refused = http.post(f"{at}/purge", json={})
    assert _code(refused) == (409, "session_has_forks")
    assert f"'{unique_name}-1', '{unique_name}-2'" in refused.json()["detail"]
    grandchild = {"name": f"{unique_name}-1-1", "step": 5}
    http.post(f"{at}-1/fork", json=grandchild).raise_for_status()
    _purge(http, f"{at}-2")
    _purge(http, f"{at}-1")
    assert _code(http.post(f"{at}/purge", json={})) == (409, "session_has_forks")
    values = http.get(f"{at}-1-1/lr", params={"step": 0, "count": 5}).json()["series"]["lr"]
    assert values == [0.1] * 5
    _purge(http, f"{at}-1-1")
    assert http.post(f"{at}/purge", json={}).status_code == 204


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Iterator[tuple[Path, RunningService]]:
    """Serve a database that this test alone uses."""
    path = tmp_path / "own.db"
    with RunningService(path) as service:
        yield path, service


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
            for table in OF_A_SESSION
        ]
        return sum(counts)


def _size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
        return int(pages * size)


def test_every_row_goes_and_the_file_shrinks(database: tuple[Path, RunningService]) -> None:
    """It takes several slices; then the file is about as large as before the session."""
    path, service = database
    with open_http(service.url) as http:
        before = _size(path)
        at = _create(http, "large", labels={"team": "x"})
        _train(http, at, 60, metrics=150)
        assert _rows(path) > LARGE_ROWS
        grown = _size(path)
        _purge(http, at)
        _until(lambda: _rows(path) == 0)
        _until(lambda: _size(path) < before + (grown - before) / 4)
        _create(http, "large")


def test_what_a_crash_has_cut_off_goes_on(tmp_path: Path) -> None:
    """Rows that were left behind are removed after the next start."""
    path = tmp_path / "own.db"
    with RunningService(path) as service, open_http(service.url) as http:
        at = _create(http, "run")
        _train(http, at, 4)
        http.delete(at)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE sessions SET status = 'purging', name = '*1'")
        connection.commit()
    with RunningService(path) as service, open_http(service.url) as http:
        assert http.get(at).status_code == 404
        _until(lambda: _rows(path) == 0)
