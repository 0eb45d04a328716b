"""A full disk: reads go on, nothing is half written, and writes resume by themselves."""

import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from errno import EIO, EMFILE, ENOSPC, EROFS
from pathlib import Path

import httpx
import pytest

from pacesetter_service.core.errors import NoTemporaryFileError, StorageFullError
from pacesetter_service.runtime.exports import temporary_file
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.writing import translated
from serving import Process, RunningService, open_http, quick
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


@pytest.mark.parametrize(
    ("number", "refusal", "advice"),
    [
        (ENOSPC, StorageFullError, "Make room"),
        (EMFILE, NoTemporaryFileError, "ulimit -n"),
        (EROFS, NoTemporaryFileError, "TMPDIR"),
        (EIO, NoTemporaryFileError, "TMPDIR"),
    ],
)
def test_a_temporary_file_that_fails_is_refused_with_advice(
    number: int, refusal: type[Exception], advice: str
) -> None:
    """A file without room is reported as a full database, and any other failure by its cause."""
    with pytest.raises(refusal, match=advice), temporary_file():
        raise OSError(number, os.strerror(number))


def test_a_time_that_is_over_is_no_failure_of_a_file() -> None:
    """Python counts it among the errors of the system."""
    with pytest.raises(TimeoutError), temporary_file():
        raise TimeoutError


WITHOUT_FOLDERS = (
    "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nowhere'];"
    " from pacesetter_service.__main__ import main; main([])"
)


def _without_folders(environment: dict[str, str]) -> Process:
    """Start a service that finds no folder for temporary files, as in a read-only container."""
    command = [sys.executable, "-c", WITHOUT_FOLDERS]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_service_without_temporary_files_says_so_for_large_records_alone(tmp_path: Path) -> None:
    """It trains, and takes small records; a large one is refused with what to do."""
    lines = {"content-type": "application/x-ndjson"}
    with (
        RunningService(tmp_path / "pacesetter.db", _without_folders) as service,
        open_http(service.url) as http,
    ):
        begun(http)
        for start in range(5, 100_000, 1_000):
            body = {"attempt": 1, **quick(start, 1_000)}
            http.post("/v1/sessions/run/sync", json=body).raise_for_status()
        large = http.post("/v1/import", content=b"x" * 1_200_000, headers=lines)
        small = http.post("/v1/import", content=b"x", headers=lines)
        refused = (large, http.get("/v1/sessions/run/export"))
    assert small.json()["code"] == "import_refused"
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert "TMPDIR" in answer.json()["detail"]
    assert not [each for each in service.events() if each["event"] == "unforeseen_error"]
