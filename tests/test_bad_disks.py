"""A disk that fails: an order counts once, and no answer says more than is known."""

import threading
import time
from pathlib import Path

import httpx
import pytest

from proof.shim import Shim
from serving import open_http

PLAN = {"name": "run", "base_lr": 0.1, "schedule": {"kind": "constant"}}
HALVE = {"kind": "scale", "factor": 0.5}


def ordered(http: httpx.Client) -> list[float]:
    """Return the factors of all orders that are in the record."""
    events = http.get("/v1/sessions/run/events", params={"kind": "ordered"}).json()["events"]
    return [each["order"]["action"]["factor"] for each in events]


@pytest.mark.parametrize("failures", [1, 2, 100])
def test_an_order_counts_once_though_the_mark_cannot_be_written(
    tmp_path: Path, failures: int
) -> None:
    """It has no key; what was committed is not decided again, however often the disk fails."""
    shim = Shim(tmp_path)
    with shim.service(tmp_path / "pacesetter.db") as service, open_http(service.url) as http:
        http.post("/v1/sessions", json=PLAN).raise_for_status()
        shim.order(bad_mark=failures)
        answer = http.post("/v1/sessions/run/actions", json=HALVE)
        assert (answer.status_code, shim.fired) == (201, 1)
        assert ordered(http) == [0.5]
    shim.close()
    [told] = [each for each in service.events() if each["event"] == "mark_failed"]
    assert told["reason"] == "Input/output error"


def test_a_commit_that_could_not_be_flushed_is_not_said_to_be_undone(tmp_path: Path) -> None:
    """After a crash SQLite may find it in its log, so that the answer leaves it open."""
    shim = Shim(tmp_path)
    with shim.service(tmp_path / "pacesetter.db") as service:
        with open_http(service.url) as http:
            http.post("/v1/sessions", json=PLAN).raise_for_status()
            shim.order(bad_flush=1)
            answer = http.post("/v1/sessions/run/actions", json=HALVE)
            assert (answer.status_code, shim.fired) == (503, 1)
            assert "whether this call was kept is not known" in answer.json()["detail"]
        service.kill()
        service.start()
        with open_http(service.url) as http:
            assert ordered(http) == [0.5]
    shim.close()


def test_a_file_that_is_taken_away_during_a_commit_leaves_it_open(tmp_path: Path) -> None:
    """Put back in its place, it has the order: no answer may say that nothing was kept."""
    shim, database = Shim(tmp_path), tmp_path / "pacesetter.db"
    with shim.service(database) as service, open_http(service.url) as http:
        http.post("/v1/sessions", json=PLAN).raise_for_status()
        shim.order(slow=2_000_000)
        taking = threading.Thread(target=lambda: _takes(shim, database))
        taking.start()
        answer = http.post("/v1/sessions/run/actions", json=HALVE)
        taking.join()
        shim.order(slow=0)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_replaced")
        assert "whether this call was kept is not known" in answer.json()["detail"]
        service.kill()
        (tmp_path / "away").rename(database)
        service.start()
        assert ordered(http) == [0.5]
    shim.close()


def _takes(shim: Shim, database: Path) -> None:
    """Take a database away during the next flush."""
    before = shim.fired
    while shim.fired == before:
        time.sleep(0.01)
    database.rename(database.with_name("away"))


def test_a_purge_that_was_perhaps_done_is_read_again(tmp_path: Path) -> None:
    """The session that memory has is not handed out once it is known to be purged."""
    shim = Shim(tmp_path)
    with shim.service(tmp_path / "pacesetter.db") as service, open_http(service.url) as http:
        http.post("/v1/sessions", json=PLAN).raise_for_status()
        http.delete("/v1/sessions/run").raise_for_status()
        shim.order(bad_flush=1)
        assert http.post("/v1/sessions/run/purge", json={}).status_code == 503
        again = http.post("/v1/sessions/run/purge", json={})
        assert again.status_code in (200, 202, 204, 404), again.text
        assert http.get("/v1/sessions/run").status_code == 404
        assert http.post("/v1/sessions", json=PLAN | {"base_lr": 0.2}).status_code == 201
    shim.close()
