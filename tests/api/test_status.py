"""The status view over HTTP: rows, filters, orders and pages, with a real service."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import PATIENCE, RunningService, open_http

COSINE = {"kind": "cosine", "total_steps": 1000}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a client of the shared service."""
    with open_http(server_url) as client:
        yield client


Create = Callable[..., str]


@pytest.fixture(name="create")
def _create(http: httpx.Client, unique_name: str) -> Create:
    """Return a function that creates a session whose name begins with the test's."""

    def create(rest: str = "", **spec: Any) -> str:
        body = {"name": unique_name + rest, "base_lr": 0.1, "schedule": COSINE, **spec}
        http.post("/v1/sessions", json=body).raise_for_status()
        return unique_name + rest

    return create


def sync(http: httpx.Client, name: str, **body: Any) -> None:
    """Sync as a trainer."""
    http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status()


def row(http: httpx.Client, name: str) -> dict[str, Any]:
    """Return the row of a session."""
    found: dict[str, Any] = http.get(f"/v1/sessions/{name}/status").raise_for_status().json()
    return found


def listed(http: httpx.Client, name: str, **params: Any) -> list[str]:
    """Read all pages of a status view, and return the suffixes of the names."""
    found, token, params = [], "", {"name": f"{name}*", "limit": 2, **params}
    while token is not None:
        answer = http.get(
            "/v1/sessions", params={"view": "status", "page_token": token, **params}
        ).raise_for_status()
        found += [each["name"].removeprefix(name) for each in answer.json()["sessions"]]
        token = answer.json()["next_page_token"]
    return found


# Rows --------------------------------------------------------------------------------------------


def test_before_anybody_calls_nothing_is_trained(http: httpx.Client, create: Create) -> None:
    """The rate is that of the first step, and unknown fields are null."""
    name = create(labels={"team": "a"}, ranks=3)
    found = row(http, name)
    assert (found["state"], found["step"], found["lr"]) == ("running", None, {"lr": 0.1})
    assert (found["labels"], found["total_steps"]) == ({"team": "a"}, 1000)
    assert (found["last_heard"], found["seconds_left"], found["metrics"]) == (None, None, {})
    assert found["ranks"] == {"expected": 3, "seen": 0, "stale": 0, "deviating": 0}


def test_what_is_trained_is_not_what_was_fetched(http: httpx.Client, create: Create) -> None:
    """The step is the one before the step in training, with its own sealed rate."""
    name = create()
    at = {"step": 30, "seconds_per_step": 0.5}
    sync(http, name, want={"start": 0, "count": 60}, progress={"step": 0})
    assert row(http, name)["step"] is None
    sync(http, name, want={"start": 60, "count": 40}, progress=at)
    found = row(http, name)
    assert (found["step"], found["horizon"]) == (29, 94)
    sealed = http.get(f"/v1/sessions/{name}/lr", params={"step": 29}).json()
    assert found["lr"] == {"lr": sealed["lr"]}
    assert found["seconds_left"] == (1000 - 30) * 0.5
    assert found["last_heard"].endswith("Z")


def test_a_training_that_ended_was_trained_up_to_its_end(
    http: httpx.Client, create: Create
) -> None:
    """A fast trainer fetches seldom: its last call was far from the end that it reports."""
    named, unnamed = create("-named"), create("-unnamed")
    for name in (named, unnamed):
        sync(http, name, want={"start": 0, "count": 60}, progress={"step": 31})
    http.post(f"/v1/sessions/{named}/finish", json={"step": 50}).raise_for_status()
    http.post(f"/v1/sessions/{unnamed}/finish", json={}).raise_for_status()
    assert (row(http, named)["step"], row(http, unnamed)["step"]) == (49, 30)


def test_metrics_are_the_newest_that_all_ranks_have_reported(
    http: httpx.Client, create: Create
) -> None:
    """A value can still change while only one rank has reported its step."""
    name = create(ranks=2, metrics={"peak": {"aggregate": "max"}})
    sync(http, name, want={"start": 0, "count": 20}, progress={"step": 0})
    for rank in (0, 1):
        reports = [{"step": step, "metrics": {"peak": step + rank}} for step in range(5 + rank)]
        sync(http, name, rank=rank, reports=reports)
    sync(http, name, rank=1, reports=[{"step": 6, "metrics": {"odd": "nan"}}])
    found = row(http, name)
    assert found["metrics"] == {
        "peak": {"value": 5.0, "step": 4},
        "odd": {"value": "nan", "step": 6},
    }
    assert found["step"] == 6
    assert found["ranks"]["seen"] == 2


def test_orders_that_wait_are_counted(http: httpx.Client, create: Create) -> None:
    """An order for a later step is pending, and counts in the revision."""
    name = create()
    sync(http, name, want={"start": 0, "count": 20}, progress={"step": 0})
    order = {"kind": "scale", "factor": 0.5, "at": 500}
    http.post(f"/v1/sessions/{name}/actions", json=order).raise_for_status()
    found = row(http, name)
    assert (found["orders"], found["revision"]) == (1, 1)


def test_a_restarted_service_knows_the_step_from_the_record(tmp_path: Path) -> None:
    """Sources are reports, the end, the attempt's start, and else the horizon."""
    window = {"want": {"start": 0, "count": 60}, "progress": {"step": 0}}
    reports = {"reports": [{"step": 41, "metrics": {"loss": 0.5}}]}
    with RunningService(tmp_path / "pacesetter.db") as service:
        with open_http(service.url) as http:
            for name in ("said", "ended", "again", "silent"):
                body = {"name": name, "base_lr": 0.1}
                http.post("/v1/sessions", json=body).raise_for_status()
                sync(http, name, **window)
            sync(http, "said", **reports)
            http.post("/v1/sessions/ended/finish", json={"step": 50}).raise_for_status()
            sync(http, "again", **reports)
            opened = {"step": 20, "key": "again"}
            http.post("/v1/sessions/again/attempts", json=opened).raise_for_status()
        service.stop()
        service.start()
        with open_http(service.url) as http:
            steps = {name: row(http, name)["step"] for name in ("said", "ended", "again", "silent")}
            assert steps == {"said": 41, "ended": 49, "again": 19, "silent": 59}
            found = row(http, "said")
            assert found["metrics"] == {"loss": {"value": 0.5, "step": 41}}
            assert (found["ranks"]["seen"], found["state"]) == (0, "running")
            assert row(http, "ended")["state"] == "finished"


def test_a_session_that_is_not_there_has_no_status(http: httpx.Client) -> None:
    """It is a 404, as everywhere."""
    assert http.get("/v1/sessions/no-such-session/status").status_code == 404


# Filters, orders and pages -----------------------------------------------------------------------


def test_filters_combine(http: httpx.Client, create: Create) -> None:
    """Name, every label, one of the states and the time of the last change must all match."""
    for number in range(5):
        labels = {"odd": str(number % 2), "all": "yes"}
        name = create(f"-{number}", labels=labels)
        sync(http, name, want={"start": 0, "count": 20}, progress={"step": 0})
    name = name[:-2]
    http.delete(f"/v1/sessions/{name}-1").raise_for_status()
    http.post(f"/v1/sessions/{name}-2/finish", json={"outcome": "failed"}).raise_for_status()
    http.post(f"/v1/sessions/{name}-4/finish", json={}).raise_for_status()
    assert listed(http, name) == ["-0", "-2", "-3", "-4"]
    assert listed(http, name, label=["odd:0", "all:yes"]) == ["-0", "-2", "-4"]
    assert listed(http, name, label=["odd:1", "all:no"]) == []
    assert listed(http, name, state="archived") == ["-1"]
    assert listed(http, name, state=["failed", "finished"]) == ["-2", "-4"]
    assert listed(http, name, state="failed", label="odd:0") == ["-2"]
    assert listed(http, name, state="running") == ["-0", "-3"]
    assert listed(http, name, state=["running", "archived"]) == ["-0", "-1", "-3"]
    assert listed(http, name, state="silent") == []
    assert listed(http, name, since=str(PATIENCE)) == ["-0", "-2", "-3", "-4"]
    assert listed(http, name, since="0") == []
    assert listed(http, name, since="2020-01-01T00:00:00Z", state="finished") == ["-4"]
    # The plain list takes the same filters, and hides nothing by default.
    plain = http.get("/v1/sessions", params={"name": f"{name}*", "label": "all:yes"}).json()
    assert [each["name"].removeprefix(name) for each in plain["sessions"]] == [
        f"-{number}" for number in range(5)
    ]


@pytest.mark.parametrize("sort", ["name", "created_at", "changed_at"])
def test_pages_are_right_in_every_order(http: httpx.Client, create: Create, sort: str) -> None:
    """Each session is on exactly one page, in every sort order."""
    for number in range(5):
        name = create(f"-{number}")
    name, numbers = name[:-2], [f"-{number}" for number in range(5)]
    assert listed(http, name, sort=sort) == numbers
    assert listed(http, name, sort=f"-{sort}") == numbers[::-1]


def test_pages_stay_right_while_sessions_come_and_go(http: httpx.Client, create: Create) -> None:
    """What is created or archived before a page's end does not shift the next page."""
    for number in range(4):
        name = create(f"-{number}")
    name = name[:-2]
    params = {"view": "status", "name": f"{name}*", "limit": 2, "sort": "-created_at"}
    first = http.get("/v1/sessions", params=params).json()
    create("-new")
    http.delete(f"/v1/sessions/{name}-3").raise_for_status()
    params["page_token"] = first["next_page_token"]
    rest = http.get("/v1/sessions", params=params).json()
    shown = [each["name"].removeprefix(name) for each in first["sessions"] + rest["sessions"]]
    assert shown == ["-3", "-2", "-1", "-0"]


def test_a_page_of_another_order_is_refused(http: httpx.Client, create: Create) -> None:
    """Its key would be meaningless there."""
    name = create("-1")[:-2]
    create("-2")
    params = {"name": f"{name}*", "limit": 1, "sort": "created_at"}
    token = http.get("/v1/sessions", params=params).json()["next_page_token"]
    refused = http.get("/v1/sessions", params={**params, "sort": "name", "page_token": token})
    assert refused.status_code == 422
    assert "sort=created_at" in refused.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        {"since": "yesterday"},
        {"since": "-1"},
        {"since": "nan"},
        {"since": "2026-01-01T00:00:00"},
        {"sort": "step"},
        {"state": "happy"},
        {"label": "no-value"},
        {"name": "a/b"},
        {"page_token": "bmFtZSB4"},
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(http: httpx.Client, query: dict[str, str]) -> None:
    """The parameter is named, so that nothing is left out by mistake."""
    refused = http.get("/v1/sessions", params={"view": "status", **query})
    assert refused.status_code == 422
    assert next(iter(query)) in refused.json()["detail"]
