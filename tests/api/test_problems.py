"""Every error is an application/problem+json with a stable code, a place and advice."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api import problems
from pacesetter_service.core import errors
from pacesetter_service.core.schedules import Schedule
from serving import open_http


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


JSON = {"content-type": "application/json"}
NEW = "/v1/sessions"

WRONG: dict[str, tuple[str, str, dict[str, Any], int, str, str]] = {
    "an unknown address": ("GET", "/v2/nothing", {}, 404, "not_found", "/docs"),
    "an unknown method": ("PATCH", NEW, {"json": {}}, 405, "method_not_allowed", "/docs"),
    "a sync that is read": ("GET", "/v1/sessions/x/sync", {}, 405, "method_not_allowed", "/docs"),
    "an unknown session": ("GET", "/v1/sessions/none", {}, 404, "session_not_found", "Create it"),
    "a sync with nobody": (
        "POST",
        "/v1/sessions/none/sync",
        {"json": {"step": 1}},
        404,
        "session_not_found",
        "Create it",
    ),
    "an unknown kind": ("GET", "/v1/schedules/cosin", {}, 404, "unknown_kind", "'cosine'"),
    "a form": ("POST", NEW, {"data": {"name": "x"}}, 415, "unsupported_media_type", "curl: -H"),
    "a text": (
        "POST",
        NEW,
        {"content": "{}", "headers": {"content-type": "text/plain"}},
        415,
        "unsupported_media_type",
        "application/json",
    ),
    "half a document": (
        "POST",
        NEW,
        {"content": '{"name": ', "headers": JSON},
        422,
        "validation_failed",
        "JSON",
    ),
    "half a sync": (
        "POST",
        "/v1/sessions/none/sync",
        {"content": '{"step": ', "headers": JSON},
        422,
        "validation_failed",
        "JSON",
    ),
    "a bare NaN": (
        "POST",
        "/v1/sessions/none/sync",
        {
            "content": '{"reports": [{"step": 1, "metrics": {"loss": NaN}}]}',
            "headers": JSON,
        },
        422,
        "validation_failed",
        '"nan"',
    ),
    "a large body": (
        "POST",
        NEW,
        {"content": b"[" + b" " * 1_100_000 + b"]", "headers": JSON},
        413,
        "body_too_large",
        "smaller parts",
    ),
    "a deep body": (
        "POST",
        NEW,
        {"content": '{"a":' * 150 + "1" + "}" * 150, "headers": JSON},
        422,
        "validation_failed",
        "flatten",
    ),
    "a bottomless body": (
        "POST",
        NEW,
        {"content": "[" * 100_000 + "]" * 100_000, "headers": JSON},
        400,
        "malformed_body",
        "nested",
    ),
    "no base rate": (
        "POST",
        NEW,
        {"json": {"name": "x"}},
        422,
        "validation_failed",
        "`base_lr`",
    ),
    "a rate beyond the floats": (
        "POST",
        NEW,
        {"content": '{"name": "x", "base_lr": 1e400}', "headers": JSON},
        422,
        "validation_failed",
        "finite",
    ),
    "a negative rate": (
        "POST",
        NEW,
        {"json": {"name": "x", "base_lr": -0.1}},
        422,
        "validation_failed",
        "0 or more",
    ),
    "a name with a slash": (
        "POST",
        NEW,
        {"json": {"name": "../x", "base_lr": 0.1}},
        422,
        "validation_failed",
        "no slashes",
    ),
    "a crooked page token": (
        "GET",
        f"{NEW}?page_token=%ff%fe",
        {},
        422,
        "validation_failed",
        "next_page_token",
    ),
    "a page token with a NUL in it": (
        "GET",
        f"{NEW}?page_token=YQBi",
        {},
        422,
        "validation_failed",
        "next_page_token",
    ),
    "a step that is no number": (
        "GET",
        "/v1/sessions/none/lr?step=five",
        {},
        422,
        "validation_failed",
        "whole number",
    ),
    "a curve too long": (
        "POST",
        "/v1/schedules/preview",
        {"json": {"base_lr": 0.1, "count": 10**9}},
        422,
        "validation_failed",
        "1000000",
    ),
}


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "code", "hint"), WRONG.values(), ids=WRONG
)
def test_a_mistake_is_answered_with_a_problem(
    http: httpx.Client,
    method: str,
    path: str,
    request_: dict[str, Any],
    status: int,
    code: str,
    hint: str,
) -> None:
    """The answer has the media type, the status and the code, and says what to do."""
    answer = http.request(method, path, **request_)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:pacesetter:problem:{code}"
    assert hint in body["detail"]


def test_every_mistake_of_a_request_is_named_with_its_place(http: httpx.Client) -> None:
    """A validation problem has a JSON pointer to each mistake."""
    body = {
        "name": "x",
        "groups": {"head": {"base_lr": "0.1"}, "body": {"base_lr": 1, "schedul": {}}},
        "schedule": {"kind": "warmup", "steps": 3, "schedule": {"kind": "cosin"}},
        "controllers": [{"kind": "plateau", "metric": "loss", "factor": 1.5}],
    }
    found = http.post(NEW, json=body).json()["errors"]
    assert {error["pointer"] for error in found} == {
        "/groups/head/base_lr",
        "/groups/body/schedul",
        "/schedule/schedule/kind",
        "/controllers/0/factor",
    }


def test_a_chunked_body_is_limited_too(http: httpx.Client) -> None:
    """A body without a declared length is cut off where it exceeds the limit."""

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 10_000

    answer = http.post(NEW, content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def _descendants(error: type) -> Iterator[type]:
    for each in error.__subclasses__():
        yield each
        yield from _descendants(each)


def test_every_refusal_of_the_core_has_a_status() -> None:
    """Each error of the core's tree is in the table, under its own code or its parent's."""
    assert set(problems.STATUSES) == set(_descendants(errors.PacesetterError))
    codes = {error: code for error, (_, code) in problems.STATUSES.items()}
    for kind in (errors.TooFarAheadError, errors.NoTableError):
        assert codes.pop(kind) == codes[errors.StepOutOfRangeError]
    unavailable = codes[errors.StorageUnavailableError]
    assert codes.pop(errors.NoTemporaryFileError) == unavailable
    assert len(set(codes.values())) == len(codes)


def test_the_tree_of_refusals_is_drawn_in_full() -> None:
    """The module's docstring names every error."""
    for error in errors.PacesetterError.__subclasses__():
        assert f"── {error.__name__}" in (errors.__doc__ or "")


def test_health_and_version_answer(http: httpx.Client) -> None:
    """The probes answer without a body, and the version names what is running."""
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    assert set(http.get("/version").json()) == {"version", "api", "python", "sqlite"}


def test_the_openapi_document_describes_every_route(http: httpx.Client) -> None:
    """The document is OpenAPI 3.1 and has the hot call, with its schema resolved."""
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/sessions/{name}/sync"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in document["components"]["schemas"]
    assert "/v1/sessions/{name}/actions" in document["paths"]


@pytest.mark.parametrize("kind", sorted(Schedule.redirects))
def test_a_name_that_is_no_schedule_is_answered_with_advice(http: httpx.Client, kind: str) -> None:
    """For a schedule that is code in other libraries, the answer says what to use instead."""
    advice = Schedule.redirects[kind]
    read = http.get(f"/v1/schedules/{kind}")
    assert (read.status_code, advice in read.json()["detail"]) == (404, True)
    body = {"name": "x", "base_lr": 0.1, "schedule": {"kind": kind}}
    assert advice in http.post(NEW, json=body).json()["detail"]


EXCESSIVE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a preview of too many values": (
        "/v1/schedules/preview",
        {"groups": {f"g{n}": {"base_lr": 0.1} for n in range(1024)}, "count": 10**6},
        "Ask for at most",
    ),
    "half a surrogate pair": (
        NEW,
        {"name": "x", "base_lr": 0.1, "labels": {"team": "\ud800"}},
        "surrogate",
    ),
    "a hundred thousand milestones": (
        NEW,
        {
            "name": "x",
            "base_lr": 0.1,
            "schedule": {"kind": "multistep", "milestones": list(range(100_000))},
        },
        "at most 10,000",
    ),
    "more parts than any spec needs": (
        NEW,
        {"name": "x", "base_lr": 0.1, "controllers": [{}] * 30_000},
        "objects and arrays",
    ),
    "an origin of one's own": (
        NEW,
        {"name": "x", "base_lr": 0.1, "origin": {"template": "made-up@1"}},
        "Name a template",
    ),
    "a template that grows when it is filled": (
        "/v1/templates",
        {
            "name": "bomb",
            "parameters": {"g": {"default": [0.1] * 2000}},
            "spec": {
                "base_lr": 0.1,
                "groups": {f"g{n}": {"schedule": {"levels": {"$": "g"}}} for n in range(1000)},
            },
        },
        "too large",
    ),
}


@pytest.mark.parametrize(("path", "body", "hint"), EXCESSIVE.values(), ids=EXCESSIVE)
def test_excess_is_refused_before_it_costs_anything(
    http: httpx.Client, path: str, body: dict[str, Any], hint: str
) -> None:
    """Requests for gigabytes, or for what could never be stored, are refused with advice."""
    answer = http.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code == 422, answer.text[:300]
    assert hint in answer.json()["detail"]
