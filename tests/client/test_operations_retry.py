"""What both clients do when calls fail: what is repeated, how, and which error is raised."""

import asyncio
import gzip
import json
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from both import KINDS, opened
from little_servers import Asked, LittleServer, answer, answering, read_request, say_nothing
from pacesetter import (
    AsyncClient,
    AuthenticationError,
    Client,
    ClosedError,
    InvalidAnswerError,
    NotFoundError,
    ServerError,
    ServerUnavailableError,
    TransportError,
)
from serving import PATIENCE, RunningService, open_http

pytestmark = pytest.mark.parametrize("kind", KINDS)

ORDERED = json.dumps({"id": 1, "effective_step": 0, "revision": 1}).encode()


def failing_first(*failures: bytes | None, then: bytes = answer(200, ORDERED)) -> Any:
    """Return a handler that answers with some failures, hanging up for None, and then correctly."""
    left = list(failures)
    return lambda _: left.pop(0) if left else then


def stream(events: bytes) -> bytes:
    """Return a stream of events that ends."""
    return answer(200, events, content_type="text/event-stream")


def problem(status: int, **headers: str) -> bytes:
    """Return a refusal."""
    return answer(status, json.dumps({"code": "busy", "detail": "Busy."}).encode(), **headers)


@pytest.mark.parametrize("failure", [None, problem(503, retry_after="0"), problem(429)])
def test_an_order_is_given_once_however_often_it_is_sent(kind: str, failure: bytes | None) -> None:
    """When its answer is lost, or the server is busy, the same order is sent again by its key."""
    with (
        answering(failing_first(failure, failure)) as (server, seen),
        opened(kind, server.url) as client,
    ):
        assert client.scale("vit", 0.5, reason="why")["id"] == 1
        client.scale("vit", 0.5, reason="why")
    keys = [each.headers["idempotency-key"] for each in seen]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len({each.body for each in seen}) == 1


def test_a_wish_to_wait_is_granted(kind: str) -> None:
    """The client waits the seconds of `Retry-After` first, or as many of them as are left."""
    refusal = problem(503, retry_after="20")
    with (
        answering(lambda _: refusal) as (server, seen),
        opened(kind, server.url, retry_for=0.3) as client,
        pytest.raises(ServerUnavailableError, match=r"away for 0\.3 s"),
    ):
        client.get("vit")
    assert len(seen) == 2  # at the beginning and at the end


def test_a_token_is_made_once(kind: str) -> None:
    """If an answer is lost, the outcome is unknown; after a refusal, no token was made."""
    made = answer(201, b'{"id": "1", "token": "secret"}')
    with answering(failing_first(None)) as (server, seen), opened(kind, server.url) as client:
        with pytest.raises(TransportError):
            client.create_token("ann", "viewer")
        assert len(seen) == 1
    with (
        answering(failing_first(problem(503), problem(429), then=made)) as (server, seen),
        opened(kind, server.url) as client,
    ):
        assert client.create_token("ann", "viewer")["token"] == "secret"
        assert len(seen) == 3
    with (
        answering(failing_first(problem(500))) as (server, seen),
        opened(kind, server.url) as client,
        pytest.raises(ServerError),
    ):
        client.create_token("ann", "viewer")
    assert len(seen) == 1


def test_a_token_is_not_made_on_a_dying_connection(kind: str) -> None:
    """An idle connection may be closed while it is used, so a call that is sent once opens one."""
    made = answer(201, b'{"id": "1", "token": "secret"}')
    with answering(lambda _: made) as (server, seen), opened(kind, server.url) as client:
        client.version()
        client.version()
        client.create_token("ann", "viewer")
        assert server.connections == 2
        assert len(seen) == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (answer(200, b"nonsense"), "cannot be read"),
        (answer(200, b"[]"), "no JSON object"),
        (answer(302, location="http://elsewhere"), "redirects are not followed"),
        (answer(200, gzip.compress(b"{}", mtime=0), content_encoding="gzip"), "not asked for"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "larger than"),
    ],
)
def test_what_is_no_answer_is_refused(kind: str, said: bytes, message: str) -> None:
    """It is refused at once, with a hint at the cause."""
    with (
        answering(lambda _: said) as (server, seen),
        opened(kind, server.url) as client,
        pytest.raises(InvalidAnswerError, match=message),
    ):
        client.version()
    assert len(seen) == 1


def test_a_list_that_never_ends_is_refused(kind: str) -> None:
    """A page that names itself as the next one is refused, and so is one that is no page."""
    page = answer(200, b'{"sessions": [], "next_page_token": "a"}')
    with answering(lambda _: page) as (server, seen), opened(kind, server.url) as client:
        with pytest.raises(InvalidAnswerError, match="no page of sessions"):
            list(client.status())
        assert len(seen) == 2
    page = answer(200, b'{"sessions": [3], "next_page_token": null}')
    with answering(lambda _: page) as (server, _), opened(kind, server.url) as client:
        for pages in (client.status, client.sessions):
            with pytest.raises(InvalidAnswerError, match="no page of sessions"):
                list(pages())


def test_a_silent_server_is_given_up(kind: str) -> None:
    """After the time limit of an exchange it is tried again, until the server counts as away."""
    with (
        LittleServer(say_nothing) as server,
        opened(kind, server.url, timeout=0.2, retry_for=0.3) as client,
        pytest.raises(ServerUnavailableError, match="no answer from"),
    ):
        client.version()


def test_the_headers_are_those_of_every_call(kind: str) -> None:
    """They are the author, the client, and the token."""
    with (
        answering(lambda _: answer(200, ORDERED)) as (server, seen),
        opened(kind, server.url, actor="ann", token="abc") as client,
    ):
        client.hold("vit", key="once")
    (asked,) = seen
    assert asked.headers["pacesetter-actor"] == "ann"
    assert asked.headers["idempotency-key"] == "once"
    assert asked.headers["authorization"] == "Bearer abc"
    assert asked.headers["user-agent"] == "pacesetter-python"
    assert asked.target == "/v1/sessions/vit/actions"


def test_a_newer_token_is_read_from_its_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server refuses the token, the call is repeated with the new one."""
    file = tmp_path / "token"
    file.write_text("old")
    monkeypatch.setenv("PACESETTER_TOKEN_FILE", str(file))
    refusal = answer(401, b'{"code": "unauthenticated", "detail": "No."}')

    def guard(asked: Asked) -> bytes:
        return answer(200) if asked.headers["authorization"] == "Bearer new" else refusal

    with answering(guard) as (server, _), opened(kind, server.url) as client:
        with pytest.raises(AuthenticationError, match="read from a file"):
            client.version()
        file.write_text("new")
        client.version()


def test_a_closed_client_says_so(kind: str, server_url: str) -> None:
    """Every operation says so afterwards."""
    with opened(kind, server_url) as client:
        client.version()
        client.close()
        with pytest.raises(ClosedError):
            client.version()
        with pytest.raises(ClosedError):
            list(client.status())


def test_a_pickle_has_no_token_in_it(kind: str) -> None:
    """It makes the same client elsewhere, which takes its token from that environment."""
    made: Client | AsyncClient = {"Client": Client, "AsyncClient": AsyncClient}[kind](
        "http://pace:1", retry_for=1.5, actor="ann", token="verysecret"
    )
    stored = pickle.dumps(made)
    assert b"verysecret" not in stored
    again = pickle.loads(stored)
    assert (again.url, again.actor, again._retry_for) == ("http://pace:1", "ann", 1.5)
    assert repr(again) == f"<{kind} of http://pace:1>"


@pytest.mark.parametrize("option", ["retry_for", "timeout"])
def test_options_that_make_no_sense_are_refused(kind: str, option: str) -> None:
    """They are refused when the client is made."""
    makes = {"Client": Client, "AsyncClient": AsyncClient}[kind]
    with pytest.raises(ValueError, match=option):
        makes("http://pace:1", **{option: -1.0})
    with pytest.raises(ValueError, match="has a user or a password"):
        makes("http://ann:secret@pace:1")


@pytest.mark.parametrize("of", ["one", "all"])
def test_followed_events_survive_the_server(kind: str, of: str, tmp_path: Path) -> None:
    """A reader gets each event once and in order while the service is killed and comes back."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        found: list[int] = []

        def ordered(at: int) -> None:
            with open_http(service.url) as http:
                body = {"kind": "scale", "factor": 0.5, "at": at}
                http.post("/v1/sessions/vit/actions", json=body).raise_for_status()

        def seen(event: dict[str, Any]) -> bool:
            found.append(event["seq"])
            if event["seq"] == 2:
                service.kill()
                service.start()
                ordered(30)
            return event["seq"] == 3

        with Client(service.url) as client:
            client.create("vit", base_lr=0.5)
            ordered(10)
            ordered(20)
            name = "vit" if of == "one" else None
            if kind == "Client":
                any(seen(event) for event in client.events(name, follow=True))
        if kind == "AsyncClient":
            asyncio.run(_follow(service.url, name, seen))
        assert found == [0, 1, 2, 3]


async def _follow(url: str, name: str | None, seen: Any) -> None:
    async with AsyncClient(url) as client:
        events = client.events(name, follow=True)
        async for event in events:
            if seen(event):
                break
        await events.aclose()  # type: ignore[attr-defined] # it is a generator


LOGIN = answer(200, b"<html>\n\n<body>Log in</body>\n\n</html>", content_type="text/html")


@pytest.mark.parametrize("then", [LOGIN, stream(b""), answer(302, b"", location="/login")])
def test_a_feed_without_events_is_one_that_is_lost(kind: str, then: bytes) -> None:
    """A page in its place is not followed in silence: it is an outage, and ends as one."""
    first = stream(b'data: {"seq": 0}\n\n')
    with (
        answering(failing_first(first, then=then)) as (server, _),
        opened(kind, server.url, retry_for=0.5) as client,
        pytest.raises(ServerUnavailableError, match="was away"),
    ):
        list(client.events("vit", follow=True))


@pytest.mark.parametrize("said", [LOGIN, answer(302, b"", location="/login")])
def test_what_never_was_a_feed_is_not_waited_for(kind: str, said: bytes) -> None:
    """Where the first answer is not Pacesetter's, the URL is wrong, which waiting does not cure."""
    with (
        answering(lambda _: said) as (server, seen),
        opened(kind, server.url) as client,
        pytest.raises(InvalidAnswerError, match="URL"),
    ):
        list(client.events("vit", follow=True))
    assert len(seen) == 1


def test_a_feed_goes_on_behind_a_login_page(kind: str) -> None:
    """Once the page is gone, the next event is the one that was due."""
    first, second = (stream(f'data: {{"seq": {n}}}\n\n'.encode()) for n in (0, 1))
    missing = answer(404, b'{"code": "session_not_found", "detail": "There is none."}')
    with (
        answering(failing_first(first, LOGIN, second, then=missing)) as (server, seen),
        opened(kind, server.url) as client,
        pytest.raises(NotFoundError),
    ):
        list(client.events("vit", follow=True))
    places = [each.target.partition("?")[2] for each in seen]
    assert places == ["after=-1", "after=0", "after=0", "after=1"]


def test_a_login_page_is_no_record(kind: str, tmp_path: Path) -> None:
    """An export of it is refused, and no file is written."""
    with (
        answering(lambda _: LOGIN) as (server, _),
        opened(kind, server.url) as client,
        pytest.raises(InvalidAnswerError, match="in place of application/x-ndjson"),
    ):
        client.export("vit", tmp_path / "record")
    assert not list(tmp_path.iterdir())


def test_a_call_that_is_sent_once_is_bounded_too(kind: str) -> None:
    """An answer that comes byte by byte, or has no end, keeps nobody for longer than `timeout`."""

    def trickle(connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            read_request(reader)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)

    def flood(connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            read_request(reader)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(2**20))

    with (
        LittleServer(trickle) as server,
        opened(kind, server.url, timeout=0.3) as client,
        pytest.raises(TransportError, match=r"no answer from .* in 0\.3 s"),
    ):
        client.create_token("ann", "viewer")
    with (
        LittleServer(flood) as server,
        opened(kind, server.url, timeout=PATIENCE) as client,
        pytest.raises(InvalidAnswerError, match="larger than"),
    ):
        client.create_token("ann", "viewer")


def test_what_happens_from_now_on_is_followed(kind: str) -> None:
    """No cursor is sent until an event has given one; a repeated event is refused."""
    events = [f'data: {{"cursor": "{n}"}}\n\n'.encode() for n in (7, 8, 8)]
    said = stream(b"".join(events))
    with (
        answering(lambda _: said) as (server, seen),
        opened(kind, server.url) as client,
        pytest.raises(InvalidAnswerError, match="behind cursor 8 should have come, but '8' did"),
    ):
        list(client.events(after="now", follow=True, session="vit-*"))
    assert seen[0].target == "/v1/events/stream?session=vit-%2A"


def test_what_does_not_exist_is_not_followed(kind: str, server_url: str) -> None:
    """It is an error at once."""
    with opened(kind, server_url) as client, pytest.raises(NotFoundError):
        list(client.events("nobody-has-this", follow=True))
