"""What a monitoring system reads, from a real service, by Prometheus' own parser."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import open_http

SPEC = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": 100}}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    with open_http(server_url) as http:
        yield http


def gauges(http: httpx.Client) -> dict[str, float]:
    """Read every sample that has no label."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {s.name: s.value for family in families for s in family.samples if not s.labels}


def test_a_rank_that_trains_with_something_else_raises_a_gauge_until_it_does_not(
    http: httpx.Client, unique_name: str
) -> None:
    """One alert rule over all sessions is enough: deviating ranks are more than none."""
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
    """What a fenced process trained with is in the log, and alarms nobody any longer."""
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
    """Its memory, its files and how many jobs wait."""
    found = gauges(http)
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_open_fds"] > 0
    assert found["pacesetter_writer_queued"] >= 0
