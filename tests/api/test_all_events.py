"""The events of all sessions over HTTP: pages and resumed feeds, from real services."""

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

import postgres
from serving import PATIENCE, RunningService, open_http, spawned

ADMIN = "a-secret-for-tests-only-0123456789"


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a client of the shared service."""
    with open_http(server_url) as client:
        yield client


def create(http: httpx.Client, name: str, **spec: Any) -> None:
    """Create a session, which is its first event."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def order(http: httpx.Client, name: str, actor: str = "ann") -> None:
    """Order an action, which is one more event."""
    headers = {"pacesetter-actor": actor}
    body = {"kind": "scale", "factor": 0.5}
    http.post(f"/v1/sessions/{name}/actions", json=body, headers=headers).raise_for_status()


def pages(http: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    """Read all events that there are by now, page by page."""
    found, more = [], True
    while more:
        answer = http.get("/v1/events", params={"limit": 3, **params}).raise_for_status().json()
        found += answer["events"]
        params["after"], more = answer["cursor"], answer["more"]
    return found


def told(events: list[dict[str, Any]], name: str) -> list[tuple[str, str]]:
    """Return the suffix of the session's name and the kind of each event."""
    return [(each["session"].removeprefix(name), each["kind"]) for each in events]


@contextmanager
def following(url: str, *, last: str | None = None, **params: str) -> Iterator[Queue[Any]]:
    """Follow a feed, and put each event into the queue."""
    queue: Queue[Any] = Queue()
    ended = threading.Event()
    headers = {} if last is None else {"last-event-id": last}

    def read(opened: threading.Event) -> None:
        try:
            with (
                httpx.Client(trust_env=False, timeout=PATIENCE) as http,
                http.stream(
                    "GET", f"{url}/v1/events/stream", params=params, headers=headers
                ) as feed,
            ):
                for line in feed.iter_lines():
                    opened.set()
                    if line.startswith("data: "):
                        queue.put(json.loads(line.removeprefix("data: ")))
                    if ended.is_set():
                        return
        except httpx.HTTPError:
            pass  # the server was killed

    opened = threading.Event()
    thread = threading.Thread(target=read, args=(opened,), daemon=True)
    thread.start()
    assert opened.wait(PATIENCE)
    yield queue
    ended.set()


def test_events_come_in_the_order_of_their_commits(http: httpx.Client, unique_name: str) -> None:
    """Each event names its session; a caller that sends the last cursor back gets what is new."""
    create(http, f"{unique_name}-a")
    create(http, f"{unique_name}-b")
    order(http, f"{unique_name}-a")
    mine = {"session": f"{unique_name}*"}
    first = pages(http, **mine)
    assert told(first, unique_name) == [("-a", "created"), ("-b", "created"), ("-a", "ordered")]
    order(http, f"{unique_name}-b")
    assert told(pages(http, after=first[-1]["cursor"], **mine), unique_name) == [("-b", "ordered")]
    alone = http.get(f"/v1/sessions/{unique_name}-a/events").json()["events"]
    extra = {"cursor", "session"}
    assert alone == [
        {name: value for name, value in each.items() if name not in extra}
        for each in first
        if each["session"] == f"{unique_name}-a"
    ]


def test_filters_of_events_combine(http: httpx.Client, unique_name: str) -> None:
    """They filter by the session's name and labels, the event's kind and its actor."""
    create(http, f"{unique_name}-a", labels={"of": unique_name})
    create(http, f"{unique_name}-b", labels={"of": unique_name, "b": "yes"})
    order(http, f"{unique_name}-a", "ann")
    order(http, f"{unique_name}-b", 'bo"b')
    label = f"of:{unique_name}"
    assert len(pages(http, label=label)) == 4
    assert told(pages(http, label=label, kind="created"), unique_name) == [
        ("-a", "created"),
        ("-b", "created"),
    ]
    assert told(pages(http, label=label, actor='bo"b'), unique_name) == [("-b", "ordered")]
    assert pages(http, label=label, actor="bo") == pages(http, label=label, actor="ANN") == []
    assert told(pages(http, label=[label, "b:yes"], kind=["ordered", "acted"]), unique_name) == [
        ("-b", "ordered")
    ]


def test_who_is_named_in_an_event_is_not_who_brought_it_about(
    http: httpx.Client, unique_name: str
) -> None:
    """A label may be called as an author is: it makes nobody the author of its change."""
    create(http, unique_name)
    body, by = {"labels": {"actor": "eve"}}, {"pacesetter-actor": "ann"}
    http.patch(f"/v1/sessions/{unique_name}", json=body, headers=by).raise_for_status()
    assert pages(http, session=unique_name, actor="eve") == []
    assert told(pages(http, session=unique_name, actor="ann"), unique_name) == [("", "relabelled")]


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": "-1"}, {"after": "99999999999"}, {"kind": "dance"}]
)
def test_a_cursor_that_is_none_is_refused(http: httpx.Client, query: dict[str, str]) -> None:
    """Unknown kinds are refused as well, with the parameter's name."""
    refused = http.get("/v1/events", params=query)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    stream = http.get("/v1/events/stream", headers={"last-event-id": "x"})
    assert (stream.status_code, "Last-Event-ID" in stream.text) == (422, True)


def test_a_feed_goes_on_where_it_was_after_the_server_was_killed(tmp_path: Path) -> None:
    """What happened meanwhile comes first; nothing is left out and nothing comes twice."""
    with RunningService(tmp_path / "pacesetter.db", spawned) as service:
        with open_http(service.url) as http:
            create(http, "before")
            with following(service.url) as feed:
                create(http, "a")
                assert feed.get(timeout=PATIENCE)["session"] == "a"
                order(http, "a")
                last = feed.get(timeout=PATIENCE)
                assert (last["session"], last["kind"]) == ("a", "ordered")
        service.kill()
        service.start()
        with open_http(service.url) as http:
            create(http, "b")
            with following(service.url, last=last["cursor"]) as feed:
                create(http, "c")
                assert [feed.get(timeout=PATIENCE)["session"] for _ in "bc"] == ["b", "c"]
            assert [each["session"] for each in pages(http)] == ["before", "a", "a", "b", "c"]


def test_feeds_of_several_servers_tell_all_events_in_one_order(tmp_path: Path) -> None:
    """Two servers on one PostgreSQL database commit concurrently: both feeds are equal and full."""
    with ExitStack() as ends:
        database = ends.enter_context(postgres.database())
        urls = [ends.enter_context(RunningService(database, spawned)).url for _ in "12"]
        feeds = [ends.enter_context(following(url)) for url in urls]

        def make(number: int) -> None:
            with open_http(urls[number % 2]) as http:
                for each in range(8):
                    create(http, f"run-{number}-{each}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make, range(4)))
        one, other = ([feed.get(timeout=PATIENCE) for _ in range(32)] for feed in feeds)
        assert len({each["session"] for each in one}) == 32
        assert [each["cursor"] for each in one] == [each["cursor"] for each in other]
        cursors = [int(each["cursor"]) for each in one]
        assert cursors == sorted(cursors)
        with open_http(urls[0]) as http, open_http(urls[1]) as another:
            body = {"want": {"start": 0, "count": 9}, "progress": {"step": 5}}
            http.post("/v1/sessions/run-0-0/sync", json=body).raise_for_status()
            until = monotonic() + PATIENCE
            while another.get("/v1/sessions/run-0-0/status").json()["step"] != 4:
                assert monotonic() < until, "the other server does not know what the rank said"
                sleep(0.05)
            row = another.get("/v1/sessions/run-0-0/status").json()
            assert (row["ranks"]["seen"], row["horizon"]) == (1, 9)
        # A reader that got some events from one server resumes at the other.
        with following(urls[1], last=one[9]["cursor"]) as rest:
            assert [rest.get(timeout=PATIENCE) for _ in range(22)] == one[10:]


def test_a_token_sees_the_events_of_its_names_alone(tmp_path: Path) -> None:
    """This holds for pages and feeds; a comparison with sessions out of scope is refused."""
    database = tmp_path / "pacesetter.db"
    with (
        RunningService(database, spawned, admin_token=ADMIN, max_feeds=1) as service,
        open_http(service.url) as http,
    ):
        http.headers["authorization"] = f"Bearer {ADMIN}"
        body = {"name": "a", "role": "viewer", "scope": ["a-*"]}
        made = http.post("/v1/tokens", json=body).raise_for_status().json()
        for name in ("a-1", "b-1", "a-2"):
            create(http, name)
        http.headers["authorization"] = f"Bearer {made['token']}"
        assert [each["session"] for each in pages(http)] == ["a-1", "a-2"]
        assert [each["session"] for each in pages(http, session="*-1")] == ["a-1"]
        rows = http.get("/v1/sessions", params={"view": "status"}).json()["sessions"]
        assert [each["name"] for each in rows] == ["a-1", "a-2"]
        both = http.get("/v1/compare", params={"session": ["a-1", "b-1"]})
        assert (both.status_code, both.json()["code"]) == (403, "out_of_scope")
        assert http.get("/v1/sessions/b-1/status").status_code == 403
        # Of any kind, one feed may be read at a time.
        with http.stream("GET", "/v1/events/stream", params={"after": "0"}) as feed:
            lines = feed.iter_lines()
            told = [json.loads(line[6:])["session"] for line in lines_of_two(lines)]
            assert told == ["a-1", "a-2"]
            refused = http.get("/v1/sessions/a-1/events/stream")
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_readers")


def lines_of_two(lines: Iterator[str]) -> Iterator[str]:
    """Return the data of the first two events of a feed."""
    return itertools.islice((line for line in lines if line.startswith("data: ")), 2)
