"""What a monitoring system reads from a real service, parsed by Prometheus' own parser."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pacesetter_service.api.access import ACCESS, route_of
from serving import RunningService, open_http

PAGE = Path(__file__).parents[2] / "docs/observability.md"

SPEC = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 100}}


@pytest.fixture(name="http", scope="module")
def _http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a service without ranks of other tests, which fall silent meanwhile."""
    database = tmp_path_factory.mktemp("metrics") / "pacesetter.db"
    with RunningService(database) as service, open_http(service.url) as http:
        yield http


def gauges(http: httpx.Client) -> dict[str, float]:
    """Return every sample that has no label."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {s.name: s.value for family in families for s in family.samples if not s.labels}


def test_a_rank_that_trains_with_something_else_raises_a_gauge_until_it_does_not(
    http: httpx.Client, unique_name: str
) -> None:
    """One alert rule covers all sessions: the number of deviating ranks is above zero."""
    http.post("/v1/sessions", json={"name": unique_name, **SPEC}).raise_for_status()
    sync = f"/v1/sessions/{unique_name}/sync"
    before = gauges(http)
    sealed = http.post(sync, json={"rank": 1, "step": 7}).json()["lr"]
    seen = []
    for applied in (sealed, 0.3, sealed):
        body = {"rank": 1, "applied": {"step": 7, "values": {"lr": applied}}}
        http.post(sync, json=body).raise_for_status()
        seen.append(gauges(http)["pacesetter_deviating_ranks"])
    known = before["pacesetter_deviating_ranks"]
    assert seen == [known, known + 1, known]
    assert gauges(http)["pacesetter_ranks"] == before["pacesetter_ranks"] + 1


def test_an_attempt_that_is_over_deviates_no_more(http: httpx.Client, unique_name: str) -> None:
    """What a fenced process trained with is in the log, and no longer raises an alarm."""
    http.post("/v1/sessions", json={"name": unique_name, **SPEC}).raise_for_status()
    path = f"/v1/sessions/{unique_name}"
    known = gauges(http)["pacesetter_deviating_ranks"]
    http.post(f"{path}/sync", json={"step": 7}).raise_for_status()
    body = {"rank": 1, "applied": {"step": 7, "values": {"lr": 0.3}}}
    http.post(f"{path}/sync", json=body).raise_for_status()
    assert gauges(http)["pacesetter_deviating_ranks"] == known + 1
    http.post(f"{path}/attempts", json={"step": 5, "key": "again"}).raise_for_status()
    http.post(f"{path}/sync", json={"rank": 0, "step": 5}).raise_for_status()
    assert gauges(http)["pacesetter_deviating_ranks"] == known


def test_the_process_and_the_writer_are_measured(http: httpx.Client) -> None:
    """The page has the process's memory and files, and how many jobs wait."""
    found = gauges(http)
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_open_fds"] > 0
    assert found["pacesetter_writer_queued"] >= 0


def families(http: httpx.Client) -> dict[str, Metric]:
    """Return the service's own families by the names that queries use."""
    found = {each.name: each for each in text_string_to_metric_families(http.get("/metrics").text)}
    return {
        name + ("_total" if each.type == "counter" else ""): each
        for name, each in found.items()
        if name.startswith("pacesetter_")
    }


def samples(http: httpx.Client, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of one metric, keyed by the labels given."""
    found = families(http)[name].samples
    return {tuple(s.labels.values()): s.value for s in found if s.name == name}


def test_the_page_has_a_row_for_each_metric(http: httpx.Client) -> None:
    """Names, types and labels of the page's table are exactly those of a real answer."""
    rows = re.findall(r"^\| `(pacesetter_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.M)
    written = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    exported = {
        name: (each.type, {label for s in each.samples for label in s.labels} - {"le"})
        for name, each in families(http).items()
    }
    assert written == exported


def test_calls_are_counted_by_their_route(http: httpx.Client, unique_name: str) -> None:
    """No label has a session's name; calls without a route, and unknown methods, share one line."""
    http.post("/v1/sessions", json={"name": unique_name, **SPEC}).raise_for_status()
    count, took = "pacesetter_http_requests_total", "pacesetter_http_request_duration_seconds"
    before = samples(http, count)
    sync = f"/v1/sessions/{unique_name}/sync"
    http.post(sync, json={"step": 1}).raise_for_status()
    http.post(sync, json={"step": "one"})
    http.get(f"/nowhere/{unique_name}")
    http.request("PROPFIND", f"/nowhere/{unique_name}")
    after = samples(http, count)
    route = "/v1/sessions/{name}/sync"
    for labels in (
        ("POST", route, "2xx"),
        ("POST", route, "4xx"),
        ("GET", "other", "4xx"),
        ("other", "other", "4xx"),
    ):
        assert after[labels] == before.get(labels, 0) + 1, labels
    assert unique_name not in http.get("/metrics").text
    synced = [
        s for s in families(http)[took].samples if s.labels["route"] == route and "le" in s.labels
    ]
    counts = [s.value for s in synced]
    assert counts == sorted(counts)
    assert (synced[-1].labels["le"], synced[-1].value) == (
        "+Inf",
        sum(value for labels, value in after.items() if labels[:2] == ("POST", route)),
    )


def test_every_call_has_its_route() -> None:
    """No call of the table of access lacks a route, and a HEAD has the route of its GET."""
    for call in ACCESS:
        method, _, path = call.partition(" ")
        assert route_of(method, re.sub(r"\{\w+\}", "x", path)) is not None, call
    assert route_of("HEAD", "/v1/sessions/x/lr") == "/v1/sessions/{name}/lr"
    assert route_of("GET", "/v1/sessions/a/b/c") is None


def test_commits_events_and_what_is_sealed_ahead_are_counted(service: RunningService) -> None:
    """An order is an event; steps past the trainer's are ahead; sessions are in the table."""
    with open_http(service.url) as http:
        http.post("/v1/sessions", json={"name": "run", **SPEC}).raise_for_status()
        http.post(
            "/v1/sessions/run/sync",
            json={"attempt": 1, "want": {"start": 0, "count": 10}, "progress": {"step": 4}},
        ).raise_for_status()
        action = {"kind": "scale", "factor": 0.5}
        http.post("/v1/sessions/run/actions", json=action).raise_for_status()
        found = gauges(http)
        assert found["pacesetter_trained_sessions"] == 1
        assert found["pacesetter_seal_ahead_steps"] == found["pacesetter_seal_ahead_max_steps"] == 6
        assert found["pacesetter_writer_commit_duration_seconds_count"] >= 3
        assert found["pacesetter_writer_batch_jobs_sum"] >= 3
        assert found["pacesetter_database_size_bytes"] > 4096
        assert found["pacesetter_database_disk_free_bytes"] > 0
        assert samples(http, "pacesetter_events_total")["ordered",] == 1
        sessions = samples(http, "pacesetter_sessions")
        assert sessions == {("active",): 1, ("finished",): 0, ("archived",): 0}
