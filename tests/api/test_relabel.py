"""Labels are changed while a session runs and after it, over HTTP against a real service."""

from typing import Any

import httpx
import pytest

from pacesetter import Client
from serving import open_http


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def _names(http: httpx.Client, label: str) -> list[str]:
    found = http.get("/v1/sessions", params={"label": label}).raise_for_status().json()
    return [each["name"] for each in found["sessions"]]


def test_labels_are_merged(http: httpx.Client, server_url: str, unique_name: str) -> None:
    """Labels are added and replaced, and null removes one; the list and the record follow."""
    spec = {"name": unique_name, "base_lr": 0.1, "labels": {"team": "x", "run": unique_name}}
    http.post("/v1/sessions", json=spec).raise_for_status()
    with Client(server_url) as client:
        info = client.relabel(unique_name, {"team": "y", "run": None, "kept-by": unique_name})
    assert info.spec["labels"] == {"team": "y", "kept-by": unique_name}
    assert _names(http, f"kept-by:{unique_name}") == [unique_name]
    assert _names(http, f"run:{unique_name}") == []
    event = http.get(f"/v1/sessions/{unique_name}/events").json()["events"][-1]
    assert event["kind"] == "relabelled"
    assert "team=y" in event["text"]
    again = http.patch(f"/v1/sessions/{unique_name}", json={"labels": {"team": "y", "run": None}})
    assert again.status_code == 200
    assert http.get(f"/v1/sessions/{unique_name}/events").json()["events"][-1] == event


def test_a_job_finds_its_session_under_other_labels(http: httpx.Client, unique_name: str) -> None:
    """An operator's change does not make it another training; restarts and archives keep it."""
    spec = {"name": unique_name, "base_lr": 0.1, "labels": {"team": "x"}}
    http.post("/v1/sessions", json=spec).raise_for_status()
    at = f"/v1/sessions/{unique_name}"
    http.post(f"{at}/sync", json={"step": 3}).raise_for_status()
    http.patch(at, json={"labels": {"team": "y"}}).raise_for_status()
    assert http.post("/v1/sessions", json=spec).status_code == 200
    http.post(f"{at}/attempts", json={"step": 2, "key": "again"}).raise_for_status()
    http.delete(at)
    http.patch(at, json={"labels": {"closed": "yes"}}).raise_for_status()
    assert http.get(at).json()["spec"]["labels"] == {"team": "y", "closed": "yes"}


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"": "x"}, "validation_failed"),
        ({"a": 1}, "validation_failed"),
        ({f"l{number}": "x" for number in range(33)}, "action_refused"),
    ],
)
def test_labels_that_cannot_be_are_refused(
    http: httpx.Client, unique_name: str, labels: dict[str, Any], code: str
) -> None:
    """If one label of a call is refused, nothing is changed."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    refused = http.patch(f"/v1/sessions/{unique_name}", json={"labels": labels})
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert http.get(f"/v1/sessions/{unique_name}").json()["spec"]["labels"] == {}
