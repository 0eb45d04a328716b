"""A call can be found in the log by the id in its answer."""

import asyncio
import json
import re

import pytest
import structlog

from pacesetter_service import calls
from pacesetter_service.api import problems
from serving import RunningService, open_http

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01".encode()


def test_an_answer_has_the_callers_id_or_a_new_one(server_url: str) -> None:
    """Every answer has one, on the hot call too; an id that is unfit for a log is replaced."""
    with open_http(server_url) as http:
        new = [http.get("/livez").headers["x-request-id"] for _ in range(2)]
        assert len(set(new)) == 2
        for ask in (
            lambda headers: http.get("/nowhere", headers=headers),
            lambda headers: http.post("/v1/sessions/none/sync", json={}, headers=headers),
            lambda headers: http.get("/livez", headers=headers | {"host": "foreign.invalid"}),
        ):
            assert ask({"x-request-id": "mine/1"}).headers.get_list("x-request-id") == ["mine/1"]
            for unfit in ("", "a b", "x" * 129, "ü".encode()):
                given = ask({"x-request-id": unfit}).headers["x-request-id"]
                assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", given), given


def test_a_window_has_the_id_that_its_caller_gave(server_url: str, unique_name: str) -> None:
    """The hot call makes no id unless the caller gave one; its refusals always have one."""
    spec = {"name": unique_name, "base_lr": 0.1, "schedule": {"kind": "constant"}}
    sync = f"/v1/sessions/{unique_name}/sync"
    with open_http(server_url) as http:
        http.post("/v1/sessions", json=spec).raise_for_status()
        named = http.post(sync, json={"step": 0}, headers={"x-request-id": "mine"})
        assert (named.status_code, named.headers["x-request-id"]) == (200, "mine")
        assert "x-request-id" not in http.post(sync, json={"step": 0}).headers
        assert http.post(sync, json={"step": -1}).headers["x-request-id"]


def test_log_lines_of_a_call_name_it(service: RunningService) -> None:
    """A line that a call causes has its id and its trace; the next call's line has its own."""
    with open_http(service.url) as http:
        trace = {"traceparent": TRACEPARENT.decode()}
        http.post("/v1/sessions", content=b"[", headers={"x-request-id": "mine"} | trace)
        http.post("/v1/sessions", content=b"[", headers={"x-request-id": "yours"})
    service.stop()
    mine, yours = (line for line in service.events() if line.get("event") == "bad_request")
    assert (mine["request_id"], mine["trace_id"], mine["parent_id"]) == ("mine", TRACE, SPAN)
    assert (yours["request_id"], yours.get("trace_id")) == ("yours", None)


@pytest.mark.parametrize(
    "unfit",
    [
        b"",
        b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01",
        TRACEPARENT.replace(b"00-", b"ff-", 1),
        TRACEPARENT.upper(),
        TRACEPARENT + b"\n",
    ],
)
def test_a_trace_that_is_none_is_not_noted(unfit: bytes) -> None:
    """A trace that violates the standard is not logged."""
    calls.CURRENT.set(calls.Call([(b"traceparent", unfit)]))
    try:
        assert set(calls.named(structlog.get_logger(), "info", {})) == {"request_id"}
    finally:
        calls.CURRENT.set(None)


def test_only_what_the_service_failed_at_names_its_call() -> None:
    """A problem with a status 5xx has the id; one that the caller can mend needs none."""

    async def answered(status: int) -> dict[str, object]:
        calls.CURRENT.set(calls.Call([(b"x-request-id", b"mine")]))
        answer: dict[str, object] = json.loads(bytes(problems.document(status, "code", "…").body))
        return answer

    assert asyncio.run(answered(500))["request_id"] == "mine"
    assert asyncio.run(answered(503))["request_id"] == "mine"
    assert "request_id" not in asyncio.run(answered(422))
    assert "request_id" not in json.loads(bytes(problems.document(503, "code", "…").body))
