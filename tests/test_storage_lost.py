"""Files that are removed under a running service: nothing is acknowledged that is not kept."""

import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import PATIENCE, RunningService, open_http


def _delete(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def _rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _empty(path: Path) -> None:
    path.unlink()
    path.touch()


WRITES: dict[str, tuple[str, str, Any]] = {
    "a window": ("POST", "/v1/sessions/run/sync", {"want": {"start": 5, "count": 3}}),
    "a report": (
        "POST",
        "/v1/sessions/run/sync",
        {"reports": [{"step": 1, "metrics": {"loss": 1.0}}]},
    ),
    "an order": ("POST", "/v1/sessions/run/actions", {"kind": "scale", "factor": 0.5}),
    "a session": ("POST", "/v1/sessions", {"name": "other", "base_lr": 0.1}),
    "an attempt": ("POST", "/v1/sessions/run/attempts", {"step": 2, "key": "again"}),
    "a fork": ("POST", "/v1/sessions/run/fork", {"name": "forked", "step": 2}),
    "an end": ("DELETE", "/v1/sessions/run", None),
    "a template": (
        "POST",
        "/v1/templates",
        {"name": "t", "spec": {"base_lr": 0.1}, "parameters": {}},
    ),
}


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def begun(http: httpx.Client) -> str:
    """Create a session of which five steps are sealed, and return the epoch."""
    http.post("/v1/sessions", json={"name": "run", "base_lr": 0.1}).raise_for_status()
    answer = http.post("/v1/sessions/run/sync", json={"want": {"start": 0, "count": 5}})
    return str(answer.json()["epoch"])


def refused(answer: httpx.Response, path: Path) -> bool:
    """Return whether an answer says that nothing was kept, in which file, and what to do."""
    problem = answer.json()
    return (
        (answer.status_code, problem.get("code")) == (503, "storage_replaced")
        and str(path) in problem["detail"]
        and "nothing of this call was kept" in problem["detail"]
        and "restart the service" in problem["detail"]
    )


@pytest.mark.parametrize("harm", [_delete, _replace, _rename, _empty])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_nothing_is_acknowledged_into_nothing(
    service: RunningService, harm: Callable[[Path], None], suffix: str
) -> None:
    """Every write is refused with advice, the service is not ready, and sealed values are read."""
    path = Path(f"{service.database}{suffix}")
    with open_http(service.url) as http:
        begun(http)
        assert http.get("/readyz").status_code == 200
        harm(path)
        for what, (method, address, body) in WRITES.items():
            answer = http.request(method, address, json=body)
            assert refused(answer, path), (what, answer.text)
        assert refused(http.get("/readyz"), path)
        read = http.get("/v1/sessions/run/lr", params={"step": 0, "count": 5})
        assert read.json()["series"]["lr"] == [0.1] * 5
    service.stop()
    assert [each["event"] for each in service.events()].count("database_lost") == 1


def test_a_file_that_was_put_back_is_taken_by_the_next_start(service: RunningService) -> None:
    """What was acknowledged is there, nothing else is, and the epoch is the same."""
    away = service.database.with_name("away")
    with open_http(service.url) as http:
        epoch = begun(http)
        service.database.rename(away)
        sync = WRITES["a window"]
        assert refused(http.request(sync[0], sync[1], json=sync[2]), service.database)
        away.rename(service.database)
        assert refused(http.request(sync[0], sync[1], json=sync[2]), service.database)
    service.stop()
    service.start()
    with open_http(service.url) as http:
        found = http.get("/v1/sessions/run").json()
        assert (found["horizon"], found["epoch"]) == (5, epoch)
        assert http.request(sync[0], sync[1], json=sync[2]).json()["horizon"] == 8


def test_a_start_on_nothing_says_that_there_was_something(service: RunningService) -> None:
    """A supervisor's restart does not hide that the database was deleted: a warning is logged."""
    with open_http(service.url) as http:
        epoch = begun(http)
    service.kill()
    service.database.unlink()
    Path(f"{service.database}-wal").unlink()
    service.start()
    with open_http(service.url) as http:
        answer = http.post("/v1/sessions/run/sync", json={"epoch": epoch, "step": 7})
        assert answer.status_code == 404
        assert begun(http) != epoch
    service.stop()
    told = [each for each in service.events() if each["event"] == "new_epoch"]
    assert [(line["level"], line["reason"]) for line in told] == [("warning", "another")]
    assert "put it back" in told[0]["advice"]


def test_the_epoch_is_in_every_answer_about_a_session(service: RunningService) -> None:
    """It is in every answer of sync, and in every view of a session; a restart keeps it."""
    with open_http(service.url) as http:
        epoch = begun(http)
    service.kill()
    service.start()
    sync = "/v1/sessions/run/sync"
    with open_http(service.url) as http:
        binary = http.post(
            sync,
            json={"want": {"start": 0, "count": 2}},
            headers={"accept": "application/vnd.pacesetter.window"},
        )
        answers = [
            json.loads(binary.content.partition(b"\n")[0]),
            http.post(sync, json={}).json(),
            http.post(sync, json={"step": 1}).json(),
            http.post(sync, json={"want": {"start": 1, "count": 1}}).json(),
            http.get("/v1/sessions/run").json(),
            *http.get("/v1/sessions").json()["sessions"],
            http.post("/v1/sessions", json={"name": "run", "base_lr": 0.1}).json(),
            http.post("/v1/sessions/run/fork", json={"name": "fork", "step": 2}).json(),
            http.post("/v1/sessions/run/attempts", json={"step": 2, "key": "k"}).json(),
            http.post(
                "/v1/import",
                params={"name": "copy"},
                content=http.get("/v1/sessions/run/export").content,
                headers={"content-type": "application/x-ndjson"},
            ).json(),
        ]
    assert [answer["epoch"] for answer in answers] == [epoch] * len(answers)


def test_who_was_given_more_than_there_is_is_refused(service: RunningService) -> None:
    """It is refused before a lost step is sealed again; in a new attempt it goes on."""
    sync = "/v1/sessions/run/sync"
    with open_http(service.url) as http:
        epoch = begun(http)
        wish = {"attempt": 1, "want": {"start": 9, "count": 1}}
        other = http.post(sync, json={**wish, "epoch": "0123456789abcdef", "held": 5})
        assert (other.status_code, other.json()["code"]) == (409, "another_epoch")
        receded = http.post(sync, json={**wish, "epoch": epoch, "held": 9})
        assert (receded.status_code, receded.json()["code"]) == (409, "horizon_receded")
        for answer in (other, receded):
            assert "a checkpoint of step 5" in answer.json()["detail"]
        assert http.get("/v1/sessions/run").json()["horizon"] == 5
        http.post("/v1/sessions/run/attempts", json={"step": 2, "key": "again"})
        again = {"attempt": 2, "want": {"start": 2, "count": 1}, "epoch": epoch, "held": 0}
        assert http.post(sync, json=again).json()["horizon"] == 3


def _many(taken: list[int], life: int) -> bool:
    """Return whether enough writes were accepted in a life; each life needs more."""
    return taken.count(life) > 15 + 10 * life


def test_a_service_that_is_killed_again_and_again_raises_no_alarm(service: RunningService) -> None:
    """Whether the kill interrupts a commit or a checkpoint, the epoch goes on."""
    rooms = {f"room{number}": "x" * 250 for number in range(30)}
    taken: list[int] = []

    def writes(life: int) -> None:
        """Create sessions, some pages each, until the service is gone."""
        with open_http(service.url) as http, suppress(httpx.HTTPError):
            for number in itertools.count():
                body = {"name": f"s{life}-{number}", "base_lr": 0.1, "labels": rooms}
                http.post("/v1/sessions", json=body)
                taken.append(life)

    with open_http(service.url) as http:
        epoch, written = begun(http), service.database.stat().st_mtime_ns
    for life in range(8):
        writer = threading.Thread(target=writes, args=(life,))
        writer.start()
        until(partial(_many, taken, life))
        service.kill()
        writer.join()
        service.start()
        with open_http(service.url) as http:
            assert http.get("/v1/sessions/run").json()["epoch"] == epoch
            assert http.get("/readyz").status_code == 200
    assert service.database.stat().st_mtime_ns != written, "there were checkpoints"
    service.stop()
    told = {each["event"] for each in service.events()}
    assert not told & {"new_epoch", "database_lost", "log_set_aside"}
