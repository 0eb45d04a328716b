"""Creating, listing, reading and archiving sessions, over HTTP against a real service."""

from typing import Any

import httpx
import pytest

from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 100}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def test_creating_answers_the_session(http: httpx.Client, unique_name: str) -> None:
    """The answer has the completed spec, and the session is at its first step."""
    answer = http.post(
        "/v1/sessions", json={"name": unique_name, "base_lr": 0.1, "schedule": COSINE}
    )
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/sessions/{unique_name}"
    body = answer.json()
    assert body["spec"]["schedule"].items() >= {**COSINE, "min_lr": 0.0}.items()
    assert (body["status"], body["attempt"], body["horizon"], body["revision"]) == (
        "active",
        1,
        0,
        0,
    )
    assert body["series"] == ["lr"]
    assert body.pop("warnings") == []
    assert http.get(f"/v1/sessions/{unique_name}").json() == body


def test_creating_twice_is_the_same_session(http: httpx.Client, unique_name: str) -> None:
    """The same spec again, written another way, answers 200 with the same session."""
    first = {"name": unique_name, "base_lr": 0.1, "schedule": COSINE}
    again = {"schedule": {"min_lr": 0, **COSINE}, "base_lr": 0.1, "name": unique_name, "ranks": 1}
    assert http.post("/v1/sessions", json=first).status_code == 201
    http.post(f"/v1/sessions/{unique_name}/sync", json={"step": 7})
    answer = http.post("/v1/sessions", json=again)
    assert (answer.status_code, answer.json()["horizon"]) == (200, 8)


def test_a_taken_name_is_refused(http: httpx.Client, unique_name: str) -> None:
    """Another spec under the same name is a conflict, and changes nothing."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1})
    answer = http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.2})
    assert (answer.status_code, answer.json()["code"]) == (409, "session_exists")
    assert http.get(f"/v1/sessions/{unique_name}").json()["spec"]["base_lr"] == 0.1


def test_sessions_are_listed_in_pages(http: httpx.Client, unique_name: str) -> None:
    """Pages are in order of names, without gap or repetition, and can be filtered by label."""
    names = sorted(f"{unique_name}-{number:02d}" for number in range(7))
    labels = {"suite": unique_name}
    for name in names:
        http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, "labels": labels})
    found: list[str] = []
    token = ""
    while token is not None:
        page = http.get(
            "/v1/sessions",
            params={"limit": 3, "page_token": token, "label": f"suite:{unique_name}"},
        ).json()
        assert len(page["sessions"]) <= 3
        found += [session["name"] for session in page["sessions"]]
        token = page["next_page_token"]
    assert found == names


def test_archiving_keeps_what_was_sealed(http: httpx.Client, unique_name: str) -> None:
    """An archived session is read as before, refuses commands, and is listed as archived."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1, "schedule": COSINE})
    sealed = http.post(f"/v1/sessions/{unique_name}/sync", json={"step": 7}).json()
    assert http.delete(f"/v1/sessions/{unique_name}").status_code == 204
    assert http.delete(f"/v1/sessions/{unique_name}").status_code == 204
    again = http.post(f"/v1/sessions/{unique_name}/sync", json={"step": 7})
    assert again.json() == sealed
    refused = http.post(f"/v1/sessions/{unique_name}/sync", json={"step": 8})
    assert (refused.status_code, refused.json()["code"]) == (409, "session_archived")
    listed = http.get("/v1/sessions", params={"status": "archived", "limit": 500}).json()
    assert unique_name in [session["name"] for session in listed["sessions"]]


def test_an_action_names_its_step(http: httpx.Client, unique_name: str) -> None:
    """Scaling a running session answers from which step it holds, and it does."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1})
    http.post(f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 0, "count": 10}})
    answer = http.post(
        f"/v1/sessions/{unique_name}/actions",
        json={"kind": "scale", "factor": 0.5, "reason": "loss is unstable"},
    )
    assert (answer.status_code, answer.json()) == (
        201,
        {"id": 1, "effective_step": 10, "steps_away": None, "seconds_away": None, "revision": 1},
    )
    window = http.post(
        f"/v1/sessions/{unique_name}/sync", json={"want": {"start": 9, "count": 2}}
    ).json()
    assert window["series"]["lr"] == [0.1, 0.05]
    assert window["revision"] == 1
