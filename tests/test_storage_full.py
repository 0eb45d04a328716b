"""A full disk: reads go on, nothing is half written, and writes resume by themselves."""

import resource
import sqlite3
from contextlib import closing
from errno import ENOSPC
from pathlib import Path

import httpx
import pytest

from pacesetter_service.core.errors import StorageFullError
from pacesetter_service.runtime.exports import room_for_files
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.writing import translated
from serving import RunningService, open_http
from test_storage_lost import WRITES, begun, until


def _is_refused(answer: httpx.Response) -> bool:
    """Return whether an answer says that nothing was kept, why, and when to come back."""
    problem = answer.json()
    return (
        (answer.status_code, problem.get("code")) == (507, "storage_full")
        and "nothing of this call was kept" in problem["detail"]
        and answer.headers["retry-after"] == "1"
    )


def _grow_no_more(service: RunningService, limit: int) -> None:
    """Let the kernel refuse to grow a file of the service beyond a size, as on a full disk."""
    _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def test_a_full_disk_stops_writes_alone_and_only_while_it_is_full(
    service: RunningService,
) -> None:
    """Sealed windows and lists are answered; with room again every write is accepted."""
    with open_http(service.url) as http:
        epoch = begun(http)
        _grow_no_more(service, 4096)
        for what, (method, address, body) in WRITES.items():
            answer = http.request(method, address, json=body)
            assert _is_refused(answer), (what, answer.text)
        sealed = http.post("/v1/sessions/run/sync", json={"want": {"start": 0, "count": 5}})
        assert sealed.json()["series"]["lr"] == [0.1] * 5
        assert http.get("/v1/sessions/run").json()["horizon"] == 5
        assert [each["name"] for each in http.get("/v1/sessions").json()["sessions"]] == ["run"]
        assert http.get("/readyz").status_code == 200
        _grow_no_more(service, resource.RLIM_INFINITY)
        for what, (method, address, body) in WRITES.items():
            answer = http.request(method, address, json=body)
            assert answer.is_success, (what, answer.text)
    service.kill()
    service.start()
    with open_http(service.url) as http:
        found = http.get("/v1/sessions/run").json()
        assert (found["status"], found["epoch"]) == ("archived", epoch)
        values = http.get("/v1/sessions/run/lr", params={"step": 0, "count": 2, "attempt": 1})
        assert values.json()["series"]["lr"] == [0.1] * 2


def test_the_last_of_a_disk_is_left_to_others(tmp_path: Path) -> None:
    """Below the reserve writes are refused before they begin, with the setting's name."""
    database = tmp_path / "pacesetter.db"
    with RunningService(database) as service, open_http(service.url) as http:
        begun(http)
    with (
        RunningService(database, min_free_disk=1 << 62) as service,
        open_http(service.url) as http,
    ):
        answer = http.post("/v1/sessions/run/sync", json=WRITES["a window"][2])
        assert _is_refused(answer)
        assert "PACESETTER_MIN_FREE_DISK" in answer.json()["detail"]
        assert http.get("/v1/sessions/run/lr?step=0").json()["lr"] == 0.1


def test_a_purge_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    """The reserve serves to remove an archived session, down to its last row."""
    database = tmp_path / "pacesetter.db"
    with RunningService(database) as service, open_http(service.url) as http:
        begun(http)
        http.delete("/v1/sessions/run").raise_for_status()
    with (
        RunningService(database, min_free_disk=1 << 62) as service,
        open_http(service.url) as http,
        closing(sqlite3.connect(database)) as connection,
    ):
        assert _is_refused(http.post("/v1/sessions", json={"name": "other", "base_lr": 0.1}))
        rehearsed = http.post("/v1/sessions/run/purge", json={"dry_run": True})
        assert rehearsed.status_code == 204, rehearsed.text
        purged = http.post("/v1/sessions/run/purge", json={})
        assert purged.status_code == 204, purged.text
        until(lambda: connection.execute("SELECT count(*) FROM sessions").fetchone() == (0,))


def test_a_database_that_may_have_no_more_pages_is_full(tmp_path: Path) -> None:
    """SQLite's own error is reported as such, and nothing of the transaction is kept."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    connection = store._connection
    with connection.begin():
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with (
        pytest.raises(StorageFullError, match="nothing of this call was kept"),
        translated(),
        store.transaction() as writing,
    ):
        writing.exec_driver_sql("CREATE TABLE more (x)")
    with store.snapshot() as reading:
        found = reading.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'more'")
        assert found.all() == []
    store.close()


def test_a_record_that_finds_no_room_is_refused_as_full() -> None:
    """A temporary file without room is reported as a full database; other errors are not."""
    with pytest.raises(StorageFullError, match="Make room"), room_for_files():
        raise OSError(ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), room_for_files():
        raise PermissionError
