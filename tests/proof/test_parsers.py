"""Whatever is sent to what reads text or JSON: it is taken or refused, and never answered 5xx."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import RunningService, open_http

ADMIN = "an-admin-token-of-these-tests"

texts = st.text(max_size=60)
header_texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
WORDS = (
    "kind schedules schedule milestones total_steps step want start count attempt reports metrics"
    " expression cosine chain sequential lr"
)
words = st.sampled_from(WORDS.split())
trees = st.recursive(
    leaves | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(name="http", scope="module")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a connection to a service with the session `parsed`."""
    with open_http(server_url) as http:
        http.post("/v1/sessions", json={"name": "parsed", "base_lr": 0.1}).raise_for_status()
        yield http


@pytest.fixture(name="guarded", scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a connection to a service that asks for tokens."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service, open_http(service.url) as http:
        yield http


def _is_told(answer: httpx.Response) -> bool:
    """Return whether an answer is a good one, or says what is wrong."""
    kind = answer.headers["content-type"]
    return answer.is_success or (
        400 <= answer.status_code < 500 and kind == "application/problem+json"
    )


def _sent(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    """Send JSON as Python writes it, with NaN and half characters."""
    headers = {"Content-Type": "application/json"}
    return http.post(path, content=json.dumps(body), headers=headers)


@given(token=texts)
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/parsed/events", "/v1/templates"])
def test_page_tokens(path: str, token: str, http: httpx.Client) -> None:
    """A token that no page ended with leads nowhere."""
    assert _is_told(http.get(path, params={"page_token": token}))


@given(last=header_texts | st.integers(-10, 2**70).map(str))
def test_ids_of_events(last: str, http: httpx.Client) -> None:
    """A stream begins after any id that an event may have, and is refused after another."""
    path = "/v1/sessions/parsed/events/stream"
    with http.stream("GET", path, headers={"Last-Event-ID": last}) as answer:
        assert answer.is_success or answer.status_code in (400, 422)


@given(secret=header_texts, scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", ""]))
def test_tokens(secret: str, scheme: str, guarded: httpx.Client) -> None:
    """Nobody is let in with a secret that was not given out."""
    answer = guarded.get("/v1/sessions", headers={"Authorization": (scheme + secret).strip()})
    assert (answer.status_code, _is_told(answer)) == (401, True)


@given(body=trees)
@pytest.mark.parametrize(
    "path",
    ["/v1/schedules/preview", "/v1/sessions/parsed/sync", "/v1/sessions/parsed/actions"],
)
def test_trees(path: str, body: Any, http: httpx.Client) -> None:
    """A tree of JSON is a schedule, a call or an action, or it is told what is wrong with it."""
    assert _is_told(_sent(http, path, body))


@given(tree=trees)
def test_schedules(tree: Any, http: httpx.Client) -> None:
    """So it is with what stands in the place of a schedule."""
    body = {"base_lr": 0.1, "schedule": tree, "count": 10}
    assert _is_told(_sent(http, "/v1/schedules/preview", body))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/prune", {"older_than": 2.2e306}),
        ("POST", "/v1/templates/none/6948766672868841881600/deprecate", {"reason": "old"}),
        ("GET", "/v1/templates/none/6948766672868841881600", None),
        ("GET", "/v1/templates/none/diff?before=1&after=6948766672868841881600", None),
    ],
)
def test_numbers_that_no_database_or_calendar_has(
    method: str, path: str, body: Any, http: httpx.Client
) -> None:
    """They are refused with the place, as what is wrong in any other way."""
    answer = http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
