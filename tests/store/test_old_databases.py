"""A database made by an older service is migrated, and goes on to the bit.

`tests/golden/databases/` has one as SQL, with what that service answered about it.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import RunningService, open_http

DATABASES = Path(__file__).parents[1] / "golden" / "databases"


@pytest.fixture(name="old", params=["f9daf41"])
def _old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[httpx.Client, Any]]:
    """Serve a database of an older service; return a client, and that service's answers."""
    path = tmp_path / "old.db"
    made = sqlite3.connect(path)
    made.executescript((DATABASES / f"{request.param}.sql").read_text())
    made.close()
    path.chmod(0o600)
    answers = json.loads((DATABASES / f"{request.param}.json").read_text())
    with RunningService(path) as service, open_http(service.url) as http:
        yield http, answers


def test_what_was_sealed_and_decided_is_as_it_was(old: tuple[httpx.Client, Any]) -> None:
    """Every sealed value has its bits, and every line of the log its number, step and kind."""
    http, answers = old
    for name, values in answers["lr"].items():
        query = {"step": 0, "count": len(values)}
        found = http.get(f"/v1/sessions/{name}/lr", params=query).raise_for_status().json()
        assert found["series"]["lr"] == values
    for name, events in answers["events"].items():
        found = http.get(f"/v1/sessions/{name}/events").raise_for_status().json()["events"]
        assert [[each[key] for key in ("seq", "attempt", "kind")] for each in found] == [
            event[:3] for event in events
        ]
        assert [each.get("at") for each in found] == [event[3] for event in events]


def test_what_is_to_come_is_what_it_was(old: tuple[httpx.Client, Any]) -> None:
    """Laws whose fields were renamed give the same curve, with the pending orders in it."""
    http, answers = old
    for name, values in answers["forecast"].items():
        start = http.get(f"/v1/sessions/{name}").raise_for_status().json()["spec"]["start_step"]
        query = {"start": start, "count": len(values)}
        found = http.get(f"/v1/sessions/{name}/forecast", params=query).raise_for_status().json()
        assert found["series"]["lr"] == values


def test_it_goes_on_restarts_and_forks(old: tuple[httpx.Client, Any]) -> None:
    """Its trainers seal and report, go back to before the migration, and fork there."""
    http, answers = old
    path = "/v1/sessions/plateau"
    sealed = answers["lr"]["plateau"]
    step = {"attempt": 2, "rank": 0, "step": 16}
    assert http.post(f"{path}/sync", json=step).raise_for_status().json()["horizon"] == 17
    opened = http.post(f"{path}/attempts", json={"step": 10, "key": "again"})
    assert opened.raise_for_status().json()["attempt"] == 3
    again = [
        http.post(f"{path}/sync", json={"attempt": 3, "step": each}).raise_for_status().json()["lr"]
        for each in range(10, 16)
    ]
    assert again == sealed[10:16]
    fork = http.post(f"{path}/fork", json={"name": "newest", "step": 9}).raise_for_status().json()
    assert fork["horizon"] == 9
    made = http.post("/v1/sessions", json={"template": "house@1", "name": "made"})
    schedule = made.raise_for_status().json()["spec"]["schedule"]
    assert (schedule["kind"], schedule["out_of_range"]) == ("ramp", "extrapolate")
