"""The front door, over raw sockets: what a client can take of the process before its request."""

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from pacesetter_service import front_door
from serving import PATIENCE, RunningService, open_http

HEADS, ADDRESSES, CONNECTIONS = 2_048, 300, 12
MUCH = 64 * 1_048_576


class Wire:
    """A connection to a service, byte by byte."""

    def __init__(self, url: str, *, receive_buffer: int | None = None) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((host, int(port)))

    def send(self, *texts: str) -> Self:
        """Send some bytes at once."""
        self.socket.sendall("".join(texts).encode())
        return self

    def pour(self, text: str, most: int = MUCH) -> int:
        """Send the same bytes repeatedly until the other side closes; return how many it took."""
        sent, data = 0, text.encode() * (65_536 // len(text))
        try:
            while sent < most and not self._closed():
                sent += self.socket.send(data)
        except OSError:
            pass
        return sent

    def _closed(self) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    def wait_until_closed(self) -> None:
        """Wait for the other side to close, without reading what it sent."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        assert poll.poll(PATIENCE * 1000)

    def everything(self) -> bytes:
        """Read everything until the other side closes."""
        found = b""
        try:
            while piece := self.socket.recv(65_536):
                found += piece
        except ConnectionResetError:  # after the answer: the server had more of our bytes to read
            pass
        return found

    def answer(self) -> tuple[int, Any]:
        """Read one answer, and leave the connection open."""
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._piece()
        head, _, body = found.partition(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        while len(body) < length:
            body += self._piece()
        return int(head.split()[1]), json.loads(body)

    def _piece(self) -> bytes:
        piece = self.socket.recv(65_536)
        if not piece:
            raise ConnectionError("closed in the middle of an answer")
        return piece

    def refusal(self) -> tuple[int, str]:
        """Read a refusal, after which the connection must be closed; return its status and code."""
        return _refusal_in(self.everything())

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal_in(answer: bytes) -> tuple[int, str]:
    status, document = _parsed(answer)
    assert document["status"] == status
    assert document["detail"].endswith("on the server") or status == 400
    return status, document["code"]


def _parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"connection: close" in lines
    assert b"content-type: application/problem+json" in lines
    return int(head.split()[1]), json.loads(body)


@pytest.fixture(name="narrow", scope="module")
def _narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service with small limits and long deadlines."""
    database = tmp_path_factory.mktemp("narrow") / "pacesetter.db"
    limits = {
        "max_header_size": HEADS,
        "max_url_length": ADDRESSES,
        "max_connections": CONNECTIONS,
    }
    with RunningService(database, header_timeout=600, body_timeout=600, **limits) as service:
        yield service.url


@pytest.fixture(name="hurried", scope="module")
def _hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service with short deadlines."""
    database = tmp_path_factory.mktemp("hurried") / "pacesetter.db"
    with RunningService(database, header_timeout=0.3, body_timeout=0.3) as service:
        yield service.url


def get(path: str = "/livez", *headers: str) -> str:
    """Build a request."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "host: localhost", *headers, "", ""))


def post(path: str, body: str, length: int | None = None) -> str:
    """Build a request with a body, which may claim another length than it has."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body) if length is None else length}\r\n\r\n{body}"
    )


def met(url: str, *, receive_buffer: int | None = None) -> Wire:
    """Open a connection on which a request was answered, however slow this machine is."""
    while True:
        wire = Wire(url, receive_buffer=receive_buffer)
        try:
            assert wire.send(get()).answer()[0] == 200
        except OSError:  # too late for a service in a hurry
            wire.close()
        else:
            return wire


def refused(url: str, begin: str, more: Callable[[Wire], None] = lambda _: None) -> tuple[int, str]:
    """Begin a connection in a way that is refused, early enough that an answer comes at all."""
    while True:
        with Wire(url) as wire, suppress(OSError):
            wire.send(begin)
            more(wire)
            if answer := wire.everything():
                return _refusal_in(answer)


CHUNKED = (
    "POST /v1/sessions/{}/actions HTTP/1.1\r\nhost: localhost\r\n"
    "content-type: application/json\r\ntransfer-encoding: chunked\r\n"
)


# Sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    ["GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ", "GET /", "GET /livez HTTP/1.1\r\nx"],
    ids=["a header", "an address", "a header's name"],
)
def test_a_huge_head_is_refused_before_it_has_come(narrow: str, begin: str) -> None:
    """Of 64 MB that would be assembled piece by piece, hardly anything is read."""
    with Wire(narrow) as wire:
        taken = wire.send(begin).pour("a")
        assert wire.refusal() == (431, "headers_too_large")
    assert taken < MUCH / 4  # as much as the buffers of two sockets may hold
    met(narrow).close()


def test_many_small_headers_are_a_huge_head(narrow: str) -> None:
    """The whole head is bounded, not each header."""
    with Wire(narrow) as wire:
        wire.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n").pour("x: y\r\n")
        assert wire.refusal() == (431, "headers_too_large")


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_limit_of_a_head_is_exact(narrow: str, pieces: int, beyond: int) -> None:
    """A head of exactly the limit is accepted, and one byte more is refused."""
    padding = HEADS - len(get("/livez", "x: ")) + beyond
    text = get("/livez", "x: " + "a" * padding)
    assert len(text) == HEADS + beyond
    size = len(text) // pieces + 1
    with Wire(narrow) as wire:
        for start in range(0, len(text), size):
            wire.send(text[start : start + size])
        status = 431 if beyond else 200
        assert (wire.refusal()[0] if beyond else wire.answer()[0]) == status


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_limit_of_an_address_is_exact(narrow: str, beyond: int) -> None:
    """An address of exactly the limit is looked up, and one byte more is refused."""
    path = "/livez?" + "a" * (ADDRESSES - len("/livez?") + beyond)
    with Wire(narrow) as wire:
        wire.send(get(path))
        if beyond:
            assert wire.refusal() == (414, "url_too_long")
        else:
            assert wire.answer()[0] == 422  # it has no such parameter


def test_requests_may_follow_each_other_at_once(narrow: str) -> None:
    """Pipelined requests may exceed the limit of a head together: each is counted alone."""
    one = get("/livez", "x: " + "a" * (HEADS // 2))
    with Wire(narrow) as wire:
        wire.send(one * 20 + get("/livez", "connection: close"))
        assert wire.everything().count(b"200 OK") == 21


def test_a_trailer_adds_nothing_to_the_headers(narrow: str) -> None:
    """The guard has not seen a trailer, so one cannot name the author of an order."""
    with open_http(narrow) as http:
        http.post("/v1/sessions", json={"name": "trailed", "base_lr": 0.1}).raise_for_status()
    body = '{"kind": "scale", "factor": 0.5}'
    with Wire(narrow) as wire:
        wire.send(CHUNKED.format("trailed"), "trailer: pacesetter-actor\r\n\r\n")
        wire.send(f"{len(body):x}\r\n{body}\r\n0\r\npacesetter-actor: mallory\r\n\r\n")
        assert wire.answer()[0] == 201
    with open_http(narrow) as http:
        orders = http.get("/v1/sessions/trailed/actions").text
    assert "anonymous" in orders
    assert "mallory" not in orders


@pytest.mark.parametrize(
    ("begin", "more"),
    [("0\r\nx: ", "a"), ("0\r\n", "x: y\r\n"), ("1;x=", "a")],
    ids=["one trailer", "many trailers", "a chunk's extension"],
)
def test_what_surrounds_a_body_is_bounded(narrow: str, begin: str, more: str) -> None:
    """Trailers and chunk extensions are outside the body, and so outside the body's limit."""
    with Wire(narrow) as wire:
        taken = wire.send(CHUNKED.format("none"), "\r\n", begin).pour(more)
        assert wire.refusal() == (431, "headers_too_large")
    assert taken < MUCH / 4


def test_trailers_that_come_all_at_once_are_bounded(narrow: str) -> None:
    """Trailers above the limit are refused also in a message that comes whole, or in two pieces."""
    head, rest = CHUNKED.format("none") + "\r\n", "0\r\n" + "x: y\r\n" * HEADS + "\r\n"
    for pieces in ([head + rest], [head, rest]):
        with Wire(narrow) as wire:
            for piece in pieces:
                wire.send(piece)
            assert wire.refusal() == (431, "headers_too_large")


def test_trailers_within_the_limit_are_taken(narrow: str) -> None:
    """A message with small trailers is answered, and so is the next one on its connection."""
    rest = "2\r\n{}\r\n0\r\n" + "x: y\r\n" * 9 + "\r\n"
    with Wire(narrow) as wire:
        for _ in range(2):
            wire.send(CHUNKED.format("none"), "\r\n", rest)
            assert wire.answer()[0] == 422


def test_a_body_in_small_chunks_is_a_body(narrow: str) -> None:
    """Its framing may have more bytes than a head may, as long as body bytes come in between."""
    body = '{"base_lr": 0.1, "name": "crumbs"' + " " * 2 * HEADS + "}"
    chunks = "".join(f"1\r\n{each}\r\n" for each in body)
    with Wire(narrow) as wire:
        wire.send(CHUNKED.replace("/{}/actions", ""), "\r\n", chunks, "0\r\n\r\n")
        assert wire.answer()[0] == 201


def test_a_body_that_nobody_wants_is_not_taken_for_ever(narrow: str) -> None:
    """A client that sends on gets some time to find the answer; then the service stops reading."""
    with Wire(narrow) as wire:
        wire.send(post("/v1/sessions", "", 10**10))
        taken = wire.pour(" ")
        assert wire.everything().startswith(b"HTTP/1.1 413")
    assert taken < MUCH / 2


# Connections ------------------------------------------------------------------------------------


def test_connections_are_bounded(narrow: str) -> None:
    """A connection beyond the limit is refused at once, and accepted once another has closed."""
    wires = [Wire(narrow) for _ in range(CONNECTIONS)]
    for wire in wires:
        assert wire.send(get()).answer()[0] == 200
    with Wire(narrow) as one_too_many:
        answer = one_too_many.everything()
        assert b"\r\nretry-after: 1\r\n" in answer
        status, document = _parsed(answer)
    assert (status, document["code"]) == (503, "too_many_connections")
    assert "PACESETTER_MAX_CONNECTIONS" in document["detail"]
    assert wires[0].send(get()).answer()[0] == 200
    for wire in wires:
        wire.close()
    # The service notices this only when the close arrives.
    while True:
        with Wire(narrow) as wire:
            try:
                answer = wire.send(get("/livez", "connection: close")).everything()
            except OSError:  # refused before this was sent
                continue
        if answer.startswith(b"HTTP/1.1 200"):
            break


def test_more_connections_than_files_are_not_promised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The soft limit for open files is raised as far as needed; the hard one stays."""
    asked: list[tuple[int, int]] = []
    limits = {"now": (256, 1_024)}
    monkeypatch.setattr(front_door.resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(front_door.resource, "setrlimit", lambda _, both: asked.append(both))
    reach = front_door.connections_within_reach
    spare = front_door.SPARE_FILES
    assert reach(256 - spare) == 256 - spare
    assert asked == []
    assert reach(500) == 500
    assert reach(10_000) == 1_024 - spare
    assert asked == [(500 + spare, 1_024), (1_024, 1_024)]
    assert "fewer_connections" in caplog.text
    infinity = front_door.resource.RLIM_INFINITY
    limits["now"] = (256, infinity)
    assert reach(10_000) == 10_000


# Deadlines --------------------------------------------------------------------------------------


def test_who_says_nothing_is_not_kept(hurried: str) -> None:
    """It is closed without an answer, as no request came."""
    with Wire(hurried) as wire:
        assert wire.everything() == b""


@pytest.mark.parametrize("begin", ["G", "GET /livez HTTP/1.1\r\nhost: local", "\r\n"])
def test_half_a_head_is_not_awaited_for_ever(hurried: str, begin: str) -> None:
    """Whatever part of a head has come, the rest must come in time."""
    assert refused(hurried, begin) == (408, "head_too_late")


def test_a_head_that_trickles_is_late(hurried: str) -> None:
    """The deadline is for the whole head: sending a byte now and then does not extend it."""

    def trickle(wire: Wire) -> None:
        poll = select.poll()
        poll.register(wire.socket, select.POLLIN)
        with suppress(OSError):
            while not poll.poll(20):
                wire.send("a")

    begin = "GET /livez HTTP/1.1\r\nx: "
    assert refused(hurried, begin, trickle) == (408, "head_too_late")


@pytest.mark.parametrize("begun", [True, False])
def test_half_a_body_is_not_awaited_for_ever(hurried: str, begun: bool, unique_name: str) -> None:
    """What the whole body asks for is not done."""
    body = json.dumps({"name": unique_name, "base_lr": 0.1})
    request = post("/v1/sessions", body if begun else "", len(body) + 1)
    with met(hurried) as wire:
        assert wire.send(request).refusal() == (408, "body_too_late")
    with met(hurried) as wire:
        assert wire.send(get(f"/v1/sessions/{unique_name}")).answer()[0] == 404


def test_half_a_body_of_the_hot_call_changes_nothing(hurried: str, unique_name: str) -> None:
    """Even if the bytes so far are a complete request, it is not carried out."""
    body, wish = json.dumps({"name": unique_name, "base_lr": 0.1}), '{"step": 7}'
    with met(hurried) as wire:
        assert wire.send(post("/v1/sessions", body)).answer()[0] == 201
        wire.send(post(f"/v1/sessions/{unique_name}/sync", wish, len(wish) + 1))
        assert wire.refusal() == (408, "body_too_late")
    with met(hurried) as wire:
        status, session = wire.send(get(f"/v1/sessions/{unique_name}")).answer()
    assert (status, session["horizon"]) == (200, 0)


def test_deadlines_hold_on_connections_that_were_kept(hurried: str) -> None:
    """Between requests a connection may rest longer than a head may take; within one it may not."""
    with met(hurried) as kept, met(hurried) as late:
        assert late.send("GET /").refusal() == (408, "head_too_late")
        with Wire(hurried) as another:
            another.wait_until_closed()
        assert kept.send(get()).answer()[0] == 200


def test_hundreds_of_half_requests_go(hurried: str) -> None:
    """None of them is left, and other clients are served meanwhile."""
    wires = [Wire(hurried) for _ in range(300)]
    for wire in wires:
        with suppress(OSError):
            wire.send("GET /livez HTTP/1.1\r\nhost: ")
    met(hurried).close()
    for wire in wires:
        with wire:
            wire.wait_until_closed()


def test_an_answer_waits_for_no_reader_for_ever(hurried: str, unique_name: str) -> None:
    """A client that asks for megabytes and reads none of them is cut off."""
    groups = {f"g{number}": {"base_lr": 0.1 + number / 7} for number in range(16)}
    body = json.dumps({"name": unique_name, "groups": groups})
    with met(hurried) as wire:
        assert wire.send(post("/v1/sessions", body)).answer()[0] == 201
    with met(hurried, receive_buffer=4_096) as wire:
        wire.send(get(f"/v1/sessions/{unique_name}/lr?step=0&count=60000"))
        wire.wait_until_closed()
        taken = wire.everything()
    head = taken.partition(b"\r\n\r\n")[0].lower()
    length = int(head.partition(b"content-length: ")[2].split()[0])
    assert len(taken) < length
    met(hurried).close()


# What is not HTTP -------------------------------------------------------------------------------


def test_what_is_no_http_is_a_problem(narrow: str) -> None:
    """The refusal has the same form as every other problem."""
    with Wire(narrow) as wire:
        assert wire.send("HELO there\r\n\r\n").refusal() == (400, "malformed_request")


@pytest.mark.parametrize("path", ["/v1/sessions/a%00b", "/v1/sessions?label=a:%00", "/?q=%00"])
def test_an_address_with_a_nul_in_it_is_refused(narrow: str, path: str) -> None:
    """Nothing is called by it, and one of the databases could not be asked.

    A percent sign that is written out is no part of one.
    """
    with Wire(narrow) as wire:
        assert wire.send(get(path)).refusal() == (400, "malformed_request")
    with Wire(narrow) as wire:
        wire.send(get(path.replace("%", "%25"), "connection: close"))
        assert wire.everything().split()[1] in (b"200", b"404")


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(narrow: str, protocol: str) -> None:
    """A request to upgrade to another protocol is ignored."""
    upgrade = ("connection: upgrade", f"upgrade: {protocol}")
    with Wire(narrow) as wire:
        assert wire.send(get("/livez", *upgrade)).answer() == (200, {"status": "alive"})


def test_bad_requests_do_not_fill_the_log(tmp_path: Path) -> None:
    """The first few of each kind are logged at once, and the others as a count."""
    wanted = {"malformed_request": 25, "host_refused": 15, "not_found": 0}
    with RunningService(tmp_path / "pacesetter.db") as service:
        for _ in range(wanted["malformed_request"]):
            with Wire(service.url) as wire:
                wire.send("HELO there\r\n\r\n").everything()
        with Wire(service.url) as wire:
            for _ in range(wanted["host_refused"]):
                wire.send("GET /livez HTTP/1.1\r\nhost: evil.example\r\n\r\n").answer()
            wire.send(get("/nowhere")).answer()
    bad = [each for each in service.events() if each["event"] == "bad_request"]
    for kind, number in wanted.items():
        told = [line for line in bad if line["kind"] == kind]
        assert len(told) <= 11
        assert sum(line.get("suppressed", 1) for line in told) == number
    assert {line.get("peer") for line in bad if line["kind"] == "malformed_request"} == {
        "127.0.0.1",
        None,
    }
