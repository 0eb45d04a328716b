"""A body with very many mistakes costs no more than its first few."""

import difflib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api import bodies
from pacesetter_service.api.actions import asked_for as order_asked_for
from pacesetter_service.api.problems import InvalidBodyError
from pacesetter_service.api.sessions import asked_for
from pacesetter_service.api.sync import MAX_READINGS
from pacesetter_service.catalogue.templates import Template
from pacesetter_service.core.decide import MAX_METRICS
from pacesetter_service.core.model import MAX_HINTED, did_you_mean
from pacesetter_service.runtime.arguments import MAX_ERRORS
from serving import PATIENCE, open_http, quick


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    with open_http(server_url) as client:
        yield client


def misspelt(mark: str) -> dict[str, Any]:
    """Return a law of 4,096 kinds that do not exist, all different."""
    rows = [
        {"kind": "sum", "of": [{"kind": f"cosin{mark}{row}x{each}"} for each in range(64)]}
        for row in range(64)
    ]
    return {"kind": "sum", "of": rows}


MISTAKES = 64 * 64 + 64 + 1
"""Beside the misspelt kinds, each of the lists is too short."""

READERS = {
    "a session": (asked_for, lambda law: {"name": "x", "base_lr": 0.1, "schedule": law}),
    "an order": (order_asked_for, lambda law: {"kind": "replace", "schedule": law}),
    "a template": (
        Template.model_validate,
        lambda law: {"name": "x", "spec": {"base_lr": 0.1, "schedule": law}},
    ),
}


@pytest.mark.parametrize("what", READERS)
def test_only_the_first_mistakes_are_looked_into(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4,096 misspelt kinds ten are searched for and reported, with the number of the others."""
    searched: list[str] = []
    search = difflib.get_close_matches

    def counted(word: str, *others: Any, **more: Any) -> list[str]:
        searched.append(word)
        return search(word, *others, **more)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    read, body = READERS[what]
    with pytest.raises(InvalidBodyError) as refused:
        bodies.parsed(json.dumps(body(misspelt(what[-1]))).encode(), read)
    assert len(searched) == MAX_ERRORS
    assert refused.value.count == MISTAKES
    assert len(refused.value.first) == MAX_ERRORS
    assert all("Did you mean" in each["msg"] for each in refused.value.first)


def test_a_hint_is_looked_up_once_and_never_for_a_very_long_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second caller with the same mistake gets the same hint."""
    first = did_you_mean("cozine", ["cosine", "linear"])

    def fail(*_: object, **__: object) -> list[str]:
        raise AssertionError("it was looked up again")

    monkeypatch.setattr(difflib, "get_close_matches", fail)
    assert did_you_mean("cozine", ["cosine", "linear"]) == first == " Did you mean 'cosine'?"
    assert did_you_mean("c" * (MAX_HINTED + 1), ["cosine"]) == ""


def test_others_are_answered_while_a_body_of_mistakes_is_read(
    http: httpx.Client, server_url: str
) -> None:
    """The answer has ten mistakes and the number of the others; meanwhile calls get through."""
    answers: list[httpx.Response] = []

    def ask(mark: str) -> None:
        body = {"name": "x", "base_lr": 0.1, "schedule": misspelt(mark)}
        answers.append(httpx.post(f"{server_url}/v1/sessions", json=body, timeout=PATIENCE))

    asking = [threading.Thread(target=ask, args=(mark,)) for mark in "abcdefgh"]
    for thread in asking:
        thread.start()
    while not answers:
        assert http.get("/livez").status_code == 200
    for thread in asking:
        thread.join(PATIENCE)
    for answer in answers:
        found = answer.json()
        assert (answer.status_code, found["code"]) == (422, "validation_failed")
        assert len(found["errors"]) == MAX_ERRORS
        assert found["more_errors"] == MISTAKES - MAX_ERRORS
        assert f"There are {MISTAKES} mistakes" in found["detail"]
        assert found["errors"][0]["pointer"] == "/schedule/of/0/of/0/kind"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions/none/sync",
        "/v1/sessions/none/attempts",
        "/v1/sessions/none/fork",
        "/v1/schedules/recommend",
        "/v1/templates/none/1/deprecate",
        "/v1/schedules/lint",
    ],
)
def test_fields_that_are_not_known_are_counted_and_not_listed(
    http: httpx.Client, path: str
) -> None:
    """A body with forty thousand of them is answered in a few lines, wherever it is sent."""
    answer = http.post(path, json={f"x{each}": 1 for each in range(40_000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) <= MAX_ERRORS
    assert len(answer.content) < 10_000


def test_a_large_sync_means_what_small_ones_mean(http: httpx.Client, unique_name: str) -> None:
    """Calls too large to be parsed on the event loop are accepted and refused as small ones are."""
    url = f"/v1/sessions/{unique_name}"
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    http.post(f"{url}/sync", json=quick(0, 4000)).raise_for_status()
    reports = [{"step": step, "metrics": {"loss": float(step)}} for step in range(4000)]
    body = {"reports": reports, "want": {"start": 4000, "count": 1}}
    assert len(json.dumps(body)) > bodies.SMALL
    assert http.post(f"{url}/sync", json=body).raise_for_status().json()["horizon"] == 4001
    shown = http.get(f"{url}/history", params={"start": 3999, "end": 4000}).json()
    assert shown["metrics"] == {"loss": [3999.0]}
    wrong = {"reports": [{"step": 0, "metrics": {"loss": "high"}}] * MAX_READINGS}
    answer = http.post(f"{url}/sync", json=wrong)
    assert answer.status_code == 422
    assert answer.json()["more_errors"] == MAX_READINGS - MAX_ERRORS


def test_a_session_has_so_many_names_of_metrics(http: httpx.Client, unique_name: str) -> None:
    """A call beyond the cap is refused as a whole, with the cap and a remedy; then reports go on.

    The cap is the session's, also after it was loaded again in a new attempt.
    """
    url = f"/v1/sessions/{unique_name}"
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    http.post(f"{url}/sync", json={"want": {"start": 0, "count": 10}}).raise_for_status()

    def report(step: int, names: list[str]) -> httpx.Response:
        parts = [names[at : at + 250] for at in range(0, len(names), 250)]
        reports = [{"step": step, "metrics": dict.fromkeys(part, 1.0)} for part in parts]
        return http.post(f"{url}/sync", json={"reports": reports})

    names = [f"layer{each}/norm" for each in range(MAX_METRICS)]
    beyond = report(0, [*names, "loss"])
    assert (beyond.status_code, beyond.json()["code"]) == (422, "too_many_metrics")
    assert f"at most {MAX_METRICS} names" in beyond.json()["detail"]
    assert http.get(f"{url}/history").json()["metrics"] == {}  # nothing of it was kept
    assert report(0, names).status_code == 200
    assert report(1, ["loss"]).status_code == 422
    http.post(f"{url}/attempts", json={"step": 1, "key": "again"}).raise_for_status()
    assert report(0, ["loss"]).status_code == 422
    assert report(0, names[:5]).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/sessions/{name}/actions", {"kind": "scale", "factor": 1, "reason": "\ud800"}),
        (
            "POST",
            "/v1/sessions/{name}/actions",
            {"kind": "scale", "factor": 1, "groups": ["\ud800"]},
        ),
        ("POST", "/v1/sessions/{name}/finish", {"reason": "well \udfff"}),
        ("POST", "/v1/sessions/{name}/take-back", {"reason": "\ud800"}),
        ("PATCH", "/v1/sessions/{name}", {"labels": {"team": "\ud800"}}),
        ("POST", "/v1/prune", {"older_than": 10**9, "labels": {"team": "\ud800"}}),
        ("POST", "/v1/templates/{name}/1/deprecate", {"reason": "\ud800"}),
    ],
    ids=["an order", "a group", "an end", "a taking back", "a label", "a prune", "a deprecation"],
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(
    http: httpx.Client, unique_name: str, method: str, path: str, body: dict[str, Any]
) -> None:
    """JSON can spell what no database keeps: it is the caller's mistake, and none of the service's.

    Whole pairs are texts like all others.
    """
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.1}).raise_for_status()
    address, said = path.format(name=unique_name), {"content-type": "application/json"}
    answer = http.request(method, address, content=json.dumps(body), headers=said)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert "surrogate" in answer.json()["detail"]
    whole = json.dumps({"labels": {"team": "\U0001f600"}})
    assert http.patch(f"/v1/sessions/{unique_name}", content=whole, headers=said).is_success
