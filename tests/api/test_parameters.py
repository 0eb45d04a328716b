"""Query parameters over HTTP: unknown and repeated ones, at every address of a real service."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api.access import ACCESS
from serving import open_http


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a client of the shared service."""
    with open_http(server_url) as http:
        yield http


def ask(http: httpx.Client, call: str, query: str) -> httpx.Response:
    """Send a call, as the table of access names it, with a query."""
    method, _, path = call.partition(" ")
    headers = {"content-type": "application/json"} if method in {"POST", "PATCH"} else {}
    content = "{}" if headers else None
    path = re.sub(r"{\w+}", "none", path)
    return http.request(method, f"{path}?{query}", content=content, headers=headers)


def mistakes(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the mistakes of a 422."""
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_failed"
    errors: list[dict[str, Any]] = answer.json()["errors"]
    return errors


@pytest.mark.parametrize("call", ACCESS)
def test_a_parameter_that_a_call_does_not_know_is_refused(http: httpx.Client, call: str) -> None:
    """Every call refuses it by name, before any look-up."""
    [mistake] = mistakes(ask(http, call, "frobnicate=1"))
    assert mistake["parameter"] == "frobnicate"
    assert mistake["detail"].startswith("There is no such parameter.")


def test_what_is_known_is_named_and_the_nearest_first(http: httpx.Client) -> None:
    """The answer to a misspelt parameter names the right one."""
    [mistake] = mistakes(http.get("/v1/sessions", params={"limt": 5}))
    assert "Did you mean 'limit'?" in mistake["detail"]
    assert "Known here: label, limit, name" in mistake["detail"]
    [alone] = mistakes(http.get("/livez", params={"verbose": ""}))
    assert alone["detail"].endswith("This call takes none")


def test_a_parameter_that_holds_once_is_refused_twice(http: httpx.Client) -> None:
    """Of two limits one would be lost; labels may be repeated."""
    [mistake] = mistakes(http.get("/v1/sessions?limit=5&limit=6"))
    assert (mistake["parameter"], mistake["detail"]) == (
        "limit",
        "It is given 2 times; give it once",
    )
    assert http.get("/v1/sessions?label=a:1&label=b:2&state=silent").status_code == 200


def test_all_mistakes_are_told_at_once(http: httpx.Client) -> None:
    """A caller with two mistakes is told both."""
    found = mistakes(http.get("/v1/schedules?a=1&b=2"))
    assert [each["parameter"] for each in found] == ["a", "b"]


def test_every_declared_parameter_is_known(http: httpx.Client) -> None:
    """No parameter of the API's own document is called unknown."""
    document = http.get("/openapi.json").json()
    declared = 0
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            names = [each["name"] for each in call.get("parameters", ()) if each["in"] == "query"]
            if names:
                declared += 1
                answer = ask(http, f"{method.upper()} {path}", "&".join(f"{n}=~" for n in names))
                assert "no such parameter" not in answer.text, path
    assert declared >= 10


def test_a_head_is_asked_as_its_get_is(http: httpx.Client) -> None:
    """It takes the same parameters, and refuses others."""
    assert http.head("/v1/sessions?limit=5").status_code == 200
    assert http.head("/v1/sessions?limt=5").status_code == 422
