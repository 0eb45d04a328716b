"""How a training ends, over HTTP: it finishes, fails, goes on nevertheless, or falls silent."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from pacesetter_service.core.commands import Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.status import SILENT_SECONDS, SILENT_STEPS, state_of
from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 100}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="at")
def _at(http: httpx.Client, unique_name: str) -> str:
    """Create a session of a hundred steps whose trainer holds ten, and return its address."""
    spec = {"name": unique_name, "base_lr": 0.1, "schedule": COSINE}
    http.post("/v1/sessions", json=spec).raise_for_status()
    _take(http, f"/v1/sessions/{unique_name}", 0, 10)
    return f"/v1/sessions/{unique_name}"


def _take(http: httpx.Client, at: str, start: int, count: int = 1, **body: Any) -> httpx.Response:
    want = {"start": start, "count": count}
    said = {"attempt": 1, "progress": {"step": start}, "want": want, **body}
    return http.post(f"{at}/sync", json=said)


def _kinds(http: httpx.Client, at: str) -> list[str]:
    events = http.get(f"{at}/events").raise_for_status().json()["events"]
    return [each["kind"] for each in events if each["kind"] != "created"]


def test_a_training_ends_once(http: httpx.Client, at: str) -> None:
    """Finishing is an event with its reason, and repeating it changes nothing."""
    said = {"outcome": "completed", "reason": "early stopping", "step": 8}
    first = http.post(f"{at}/finish", json=said).raise_for_status().json()
    assert (first["status"], first["state"], first["ended"]) == ("finished", "finished", said)
    assert http.post(f"{at}/finish", json=said).json() == first
    assert _kinds(http, at) == ["finished"]
    assert "early stopping" in http.get(f"{at}/events").json()["events"][-1]["text"]


def test_a_finished_session_takes_reports_and_no_orders(http: httpx.Client, at: str) -> None:
    """Trained steps are still reported; steps that will not be trained are not changed."""
    http.post(f"{at}/finish", json={}).raise_for_status()
    reports = [{"step": 9, "metrics": {"loss": 0.5}}]
    assert http.post(f"{at}/sync", json={"attempt": 1, "reports": reports}).status_code == 200
    refused = http.post(f"{at}/actions", json={"kind": "scale", "factor": 0.5})
    assert (refused.status_code, refused.json()["code"]) == (409, "session_finished")


def test_a_failed_training_is_told_from_a_finished_one(http: httpx.Client, at: str) -> None:
    """Its status is finished, and its state says that it failed."""
    said = {"outcome": "failed", "reason": "out of memory"}
    found = http.post(f"{at}/finish", json=said).json()
    assert (found["status"], found["state"]) == ("finished", "failed")
    refused = http.post(f"{at}/sync", json={"step": 20})
    assert (refused.status_code, refused.json()["code"]) == (409, "session_finished")
    assert "out of memory" in refused.json()["detail"]


def test_who_trains_on_makes_it_active_again(http: httpx.Client, at: str) -> None:
    """A trainer at the end or past it does so; one that only prefetches does not."""
    http.post(f"{at}/finish", json={"step": 10}).raise_for_status()
    ahead = _take(http, at, 10, progress={"step": 7})
    assert (ahead.status_code, ahead.json()["code"]) == (409, "session_finished")
    _take(http, at, 10).raise_for_status()
    found = http.get(at).json()
    assert (found["state"], found["ended"], found["horizon"]) == ("active", None, 11)
    assert _kinds(http, at) == ["finished", "reopened"]


def test_a_new_attempt_makes_it_active_again(http: httpx.Client, at: str) -> None:
    """A job that its launcher restarted simply goes on."""
    http.post(f"{at}/finish", json={"outcome": "failed"}).raise_for_status()
    opened = http.post(f"{at}/attempts", json={"step": 10, "key": "again"}).json()
    assert (opened["attempt"], opened["state"], opened["ended"]) == (2, "active", None)
    late = http.post(f"{at}/finish", json={"attempt": 1})
    assert (late.status_code, late.json()["code"]) == (409, "stale_attempt")


def test_a_plan_that_is_not_over_is_not_finished(http: httpx.Client, at: str) -> None:
    """With `when_over` the service checks the plan as it is by now."""
    found = http.post(f"{at}/finish", json={"when_over": True}).raise_for_status().json()
    assert (found["status"], found["plan_end"]) == ("active", 100)
    beyond = http.post(f"{at}/finish", json={"step": 100})
    assert (beyond.status_code, beyond.json()["code"]) == (422, "step_out_of_range")


def _begun() -> Session:
    session = create(SessionSpec(name="quiet", base_lr=0.1))
    return decide(session, Seal(0, 4)).after


def test_a_training_is_silent_by_its_own_pace() -> None:
    """Silence lasts at least some minutes, and some steps of a slow trainer."""
    session = _begun()
    assert state_of(session, SILENT_SECONDS, None) == "active"
    assert state_of(session, SILENT_SECONDS + 1, None) == "silent"
    assert state_of(session, SILENT_SECONDS + 1, 60.0) == "active"
    assert state_of(session, SILENT_STEPS * 60.0 + 1, 60.0) == "silent"
    assert state_of(replace(session, status="archived"), 1e9, None) == "archived"


def test_a_training_that_has_not_begun_is_not_silent() -> None:
    """Nothing says when it must begin."""
    assert state_of(create(SessionSpec(name="new", base_lr=0.1)), 1e9, None) == "active"
