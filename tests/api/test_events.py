"""The log of a session, over HTTP against a real service."""

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from serving import PATIENCE, open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def train(http: httpx.Client, name: str, losses: list[float | str]) -> None:
    """Ask for a step and report a loss, for each of the steps."""
    start = http.get(f"/v1/sessions/{name}").json()["horizon"]
    for step, loss in enumerate(losses, start=start):
        http.post(f"/v1/sessions/{name}/sync", json={"step": step}).raise_for_status()
        report = {"reports": [{"step": step, "metrics": {"loss": loss}}]}
        http.post(f"/v1/sessions/{name}/sync", json=report).raise_for_status()


def session(http: httpx.Client, name: str, **spec: Any) -> str:
    """Create a session under a plateau controller, and return the address of its events."""
    body = {"name": name, "base_lr": 0.1, "controllers": [PLATEAU], **spec}
    assert http.post("/v1/sessions", json=body).status_code == 201
    return f"/v1/sessions/{name}/events"


def test_the_first_event_is_the_creation(http: httpx.Client, unique_name: str) -> None:
    """An unused session has one event, number 0, at its first step."""
    events = session(http, unique_name, start_step=7)
    created_at = http.get(f"/v1/sessions/{unique_name}").json()["created_at"]
    assert http.get(events).json() == {
        "events": [
            {
                "seq": 0,
                "attempt": 1,
                "kind": "created",
                "at": 7,
                "created_at": created_at,
                "text": "The session was created: lr from step 7 on, under plateau.",
            }
        ],
        "next_page_token": None,
    }


def test_each_event_has_its_own_fields_and_its_sentence(
    http: httpx.Client, unique_name: str
) -> None:
    """A decision, an action and the archiving are listed in order, with all their fields."""
    events = session(http, unique_name)
    train(http, unique_name, ["inf", "nan", 1.0])
    http.post(f"/v1/sessions/{unique_name}/actions", json={"kind": "scale", "factor": 0.5})
    http.delete(f"/v1/sessions/{unique_name}")
    page = http.get(events).json()["events"]
    assert [each["seq"] for each in page] == list(range(len(page)))
    decided, ordered, archived = page[-3:]
    assert decided["kind"] == "decided"
    assert decided["value"] == "nan"
    assert decided["controller"] == 0
    assert decided["before"]["best"] == decided["after"]["best"] == "inf"
    assert decided["levels"] == {"lr": [0.05, 0.025]}
    assert decided["text"].startswith("From step 2 on: lr cut to 0.5 of its level (0.05 -> 0.025).")
    assert (ordered["kind"], ordered["at"]) == ("ordered", 3)
    assert ordered["order"]["action"]["factor"] == 0.5
    assert (archived["kind"], archived["at"]) == ("archived", None)


def test_pages_follow_each_other_without_gap_or_repetition(
    http: httpx.Client, unique_name: str
) -> None:
    """Pages of two, by token, give the same events as one page of all."""
    events = session(http, unique_name)
    train(http, unique_name, [1.0] * 7)
    every = http.get(events).json()["events"]
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = http.get(events, params={"limit": 2, "page_token": token}).json()
        assert len(page["events"]) <= 2
        found += page["events"]
        token = page["next_page_token"]
    assert found == every
    assert len(every) == 6
    assert http.get(events, params={"after": 3}).json()["events"] == every[4:]
    assert http.get(events, params={"after": 5}).json()["events"] == []


def test_events_are_filtered_by_kind(http: httpx.Client, unique_name: str) -> None:
    """`kind` may be repeated, and pages continue within the filter."""
    events = session(http, unique_name)
    train(http, unique_name, [1.0] * 4)
    http.post(f"/v1/sessions/{unique_name}/actions", json={"kind": "scale", "factor": 0.5})
    page = http.get(events, params={"kind": ["ordered", "created"], "limit": 1}).json()
    assert [each["kind"] for each in page["events"]] == ["created"]
    rest = http.get(
        events, params={"kind": ["ordered", "created"], "page_token": page["next_page_token"]}
    ).json()
    assert [each["kind"] for each in rest["events"]] == ["ordered"]
    only = http.get(events, params={"kind": "created"}).json()
    assert [each["seq"] for each in only["events"]] == [0]


@pytest.mark.parametrize(
    "params",
    [
        {"page_token": "dance"},
        {"page_token": "LTE="},
        {"limit": 0},
        {"after": -2},
        {"kind": "dance"},
    ],
)
def test_a_bad_parameter_is_refused_by_name(
    http: httpx.Client, unique_name: str, params: dict[str, Any]
) -> None:
    """The problem names the parameter that is wrong."""
    answer = http.get(session(http, unique_name), params=params)
    assert answer.status_code == 422
    [name] = params
    assert answer.json()["errors"][0]["parameter"].startswith(name)


def test_events_of_no_session_are_not_found(http: httpx.Client) -> None:
    """An unknown name is a 404."""
    answer = http.get("/v1/sessions/nobody-has-this/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `pacesetter` command against a service."""
    return subprocess.run(
        [sys.executable, "-m", "pacesetter.cli", *arguments, "--url", url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_prints_a_line_for_each_event(
    http: httpx.Client, server_url: str, unique_name: str
) -> None:
    """`pacesetter events` prints number, time and sentence, and filters as asked."""
    events = session(http, unique_name)
    train(http, unique_name, [1.0] * 3)
    order = {"kind": "scale", "factor": 0.5, "reason": "loss is unstable"}
    http.post(f"/v1/sessions/{unique_name}/actions", json=order)
    done = command(server_url, "events", unique_name)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(http.get(events).json()["events"])
    assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
    assert "scaled by 0.5: loss is unstable." in lines[-1]
    only = command(server_url, "events", unique_name, "--kind", "decided", "--after", "1")
    assert only.stdout.splitlines() == lines[2:-1]


def test_the_command_says_what_is_wrong(server_url: str) -> None:
    """For an unknown session it says what is wrong and what to do, with exit status 3."""
    done = command(server_url, "events", "nobody-has-this")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 2
    assert "There is no session named 'nobody-has-this'" in done.stderr


def test_events_are_plain_json(http: httpx.Client, unique_name: str) -> None:
    """No answer has a NaN or infinity, which JSON lacks."""
    events = session(http, unique_name)
    train(http, unique_name, ["inf", "-inf", "nan", "nan"])
    text = http.get(events).text
    json.loads(text, parse_constant=pytest.fail)
