"""Spans of calls, sent to a collector that speaks OpenTelemetry's protocol."""

import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette

from little_servers import Asked, answer, answering
from pacesetter_service.api.tracing import TracingMissingError, traced
from serving import RunningService, open_http

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(name="collected")
def _collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Asked]]:
    """Run a collector, and configure services to use it."""
    with answering(lambda _: answer(200, b"", content_type="application/x-protobuf")) as (it, seen):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", it.url)
        yield seen


def spans(collected: Sequence[Asked]) -> dict[str, Any]:
    """Return the spans that a collector got, by name."""
    found = {}
    for asked in collected:
        assert asked.target == "/v1/traces"
        packed = asked.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(asked.body) if packed else asked.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert named["service.name"] == "pacesetter"
            found |= {each.name: each for scope in resource.scope_spans for each in scope.spans}
    return found


def test_each_call_has_a_span_in_its_callers_trace(tmp_path: Path, collected: list[Asked]) -> None:
    """Spans are named by route; pending ones are sent when the service stops."""
    with (
        RunningService(tmp_path / "pacesetter.db", tracing=True) as service,
        open_http(service.url) as http,
    ):
        http.post("/v1/sessions", json={"name": "run", "base_lr": 0.1}).raise_for_status()
        sync = http.post("/v1/sessions/run/sync", json={"step": 0}, headers=TRACEPARENT)
        sync.raise_for_status()
        http.get("/nowhere/at-all")
    found = spans(collected)
    assert set(found) == {"POST /v1/sessions", "POST /v1/sessions/{name}/sync", "other"}
    span = found["POST /v1/sessions/{name}/sync"]
    assert span.trace_id.hex() == TRACE
    told = {each.key: each.value.string_value for each in span.attributes}
    assert told["pacesetter.session"] == "run"
    assert found["other"].trace_id.hex() != TRACE


def test_a_collector_that_is_away_holds_up_no_call_and_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service answers, and ends as it does without one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with RunningService(tmp_path / "pacesetter.db", tracing=True) as service:
        with open_http(service.url) as http:
            http.get("/readyz").raise_for_status()
        assert service.stop() == 0
    assert "stopped_unfinished" not in "".join(service.log)


def test_tracing_without_opentelemetry_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asgi", None)
    with pytest.raises(TracingMissingError, match=r"service,otel"), traced(Starlette()):
        pass
