"""Any text or JSON that is sent to the service is accepted or refused, and never answered 5xx.

Records that are imported are altered in `tests/api/test_transfer.py`.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacesetter_service.core.tokens import NameScope
from pacesetter_service.store.blocks import Columns, Lists, pack, unpack
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
    """Return a connection to a service that requires tokens."""
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
    """Send JSON as Python writes it, with NaN and lone surrogates."""
    headers = {"Content-Type": "application/json"}
    return http.post(path, content=json.dumps(body), headers=headers)


@given(token=texts)
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/parsed/events", "/v1/templates"])
def test_page_tokens(path: str, token: str, http: httpx.Client) -> None:
    """A token that no page ended with is refused."""
    assert _is_told(http.get(path, params={"page_token": token}))


@given(last=header_texts | st.integers(-10, 2**70).map(str))
def test_ids_of_events(last: str, http: httpx.Client) -> None:
    """A stream begins after any id that an event may have, and any other id is refused."""
    path = "/v1/sessions/parsed/events/stream"
    with http.stream("GET", path, headers={"Last-Event-ID": last}) as answer:
        assert answer.is_success or answer.status_code in (400, 422)


@given(last=header_texts | st.integers(-10, 2**70).map(str))
@pytest.mark.parametrize("place", ["header", "parameter"])
def test_ids_of_all_events(place: str, last: str, http: httpx.Client) -> None:
    """So it is with the feed of all sessions, wherever the id is given."""
    headers = {"Last-Event-ID": last} if place == "header" else {}
    params = {"after": last} if place == "parameter" else {}
    with http.stream("GET", "/v1/events/stream", headers=headers, params=params) as answer:
        assert answer.is_success or answer.status_code in (400, 422)


@given(secret=header_texts, scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", ""]))
def test_tokens(secret: str, scheme: str, guarded: httpx.Client) -> None:
    """A secret that was not issued gives no access."""
    answer = guarded.get("/v1/sessions", headers={"Authorization": (scheme + secret).strip()})
    assert (answer.status_code, _is_told(answer)) == (401, True)


@given(pattern=st.text("ab*?.[]()|^$\\\\/ é\\n", max_size=12) | texts)
def test_patterns_of_names(pattern: str, guarded: httpx.Client) -> None:
    """A token covers the names that its pattern matches as a shell's does, or is not made."""
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    body = {"name": "patterned", "role": "viewer", "names": [pattern]}
    made = guarded.post("/v1/tokens", json=body, headers=bearer)
    assert _is_told(made)
    if not made.is_success:
        return
    said = made.json()
    guarded.delete(f"/v1/tokens/{said['id']}", headers=bearer).raise_for_status()
    scope, name = NameScope((pattern,)), pattern.replace("*", "").replace("?", "a")
    assert scope.holds(name)
    assert scope.holds("ab") == fnmatchcase("ab", pattern.replace("[", "[[]"))


@given(
    names=st.dictionaries(texts, texts | leaves, max_size=3),
    wanted=texts | st.just("team:vision"),
)
def test_labels(names: dict[str, Any], wanted: str, http: httpx.Client) -> None:
    """Labels are accepted or refused, and so are the filters by label."""
    body = {"name": "labelled", "base_lr": 0.1, "labels": names}
    made = _sent(http, "/v1/sessions", body)
    assert _is_told(made)
    assert _is_told(http.get("/v1/sessions", params={"label": wanted}))
    if made.is_success:
        assert made.json()["spec"]["labels"] == names
        http.delete("/v1/sessions/labelled").raise_for_status()
        http.post("/v1/sessions/labelled/purge", json={}).raise_for_status()


@given(text=st.text("tTbase()+-*/.,<>=! 019eifnotlambd:^\n%", max_size=80) | texts)
@example(text="((" * 4_000)
@example(text="9**9**9**9**9")
@example(text="t" + "+t" * 1_900)
def test_expressions(text: str, http: httpx.Client) -> None:
    """An expression has a value at each step, or the error says what is wrong with it."""
    schedule = {"kind": "expression", "value": text, "total_steps": 100}
    body = {"base_lr": 0.1, "schedule": schedule, "count": 10}
    assert _is_told(_sent(http, "/v1/schedules/preview", body))


@given(
    steps=st.lists(st.integers(0, 2**62), min_size=1, max_size=12, unique=True).map(sorted),
    beside=st.integers(0, 2**62),
    stride=st.integers(0, 2**33),
    value=st.floats(),
)
def test_columns(steps: list[int], beside: int, stride: int, value: float) -> None:
    """Columns come back from their block to the bit, however far apart their numbers are."""
    ranks = [min(beside + stride * each, 2**63 - 1) for each in range(len(steps))]
    columns = Columns.of(Lists(steps, (ranks,), [value] * len(steps)))
    found = unpack(pack(columns), 1)
    assert found.steps.tolist() == steps
    assert found.beside[0].tolist() == ranks
    assert found.values.tobytes() == columns.values.tobytes()


@given(body=trees)
@pytest.mark.parametrize(
    "path",
    ["/v1/schedules/preview", "/v1/sessions/parsed/sync", "/v1/sessions/parsed/actions"],
)
def test_trees(path: str, body: Any, http: httpx.Client) -> None:
    """A tree of JSON is a schedule, a call or an action, or the error says what is wrong."""
    assert _is_told(_sent(http, path, body))


@given(tree=trees)
def test_schedules(tree: Any, http: httpx.Client) -> None:
    """So it is with any value in place of a schedule."""
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
    """They are refused with the place, as any other error is."""
    answer = http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
