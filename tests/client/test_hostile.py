"""A misbehaving server: the client gets exact bits, or raises an error of its own."""

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from little_servers import LittleServer, answer, read_request
from pacesetter import APIError, Client, InvalidAnswerError, PacesetterError, TransportError
from pacesetter._errors import LONGEST_TEXT, api_error
from pacesetter._retry import retry_after
from pacesetter._transport import Transport
from pacesetter._window import Expected, decode
from serving import PATIENCE, open_http

BLOCK = struct.pack("<8d", 0.1, 0.2, 0.3, 0.4, 0.9, 0.8, 0.7, 0.6)
EXPECTED = Expected(attempt=1, series=("lr", "momentum"), start=5, count=4, lr_bounds=(0.0, 1.0))
NOTICE = {"step": 6, "code": "large_change", "message": "Twice as much."}
HEADER = json.dumps(
    {
        "attempt": 1,
        "start": 5,
        "count": 4,
        "series": ["lr", "momentum"],
        "horizon": 9,
        "revision": 2,
        "notices": [NOTICE],
        "max_lookahead": None,
    }
).encode()
ANSWER = HEADER + b"\n" + BLOCK


def _bits(content: bytes) -> bytes:
    """Return the decoded values of an answer, as bytes."""
    window = decode(content, EXPECTED).window
    assert window is not None
    return b"".join(struct.pack(f"<{len(window)}d", *each) for each in window.columns.values())


@st.composite
def _mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Change a few bytes, cut pieces out, or insert others."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 6))
        content[at : at + length] = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from(
                    [b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"NaN", b"1e999", b"-"]
                ),
                st.just(bytes(whole[at : at + 2 * length])),
            )
        )
    return bytes(content)


@given(_mutated(ANSWER))
def test_a_mutated_window_gives_its_bits_or_is_refused(content: bytes):
    """However an answer is altered, only bits that are in it come out, and within the bounds."""
    try:
        bits = _bits(content)
    except InvalidAnswerError:
        return
    assert bits == content.partition(b"\n")[2]
    assert all(0.0 <= each <= 1.0 for each in struct.unpack("<8d", bits))


@given(_mutated(HEADER))
def test_a_mutated_header_changes_no_value(header: bytes):
    """No altered byte of a window's description yields values other than those that were sent."""
    try:
        bits = _bits(header + b"\n" + BLOCK)
    except InvalidAnswerError:
        return
    assert bits == BLOCK


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(HEADER[:-1] + b', "start": 5, "start": 6}', id="the last start is another"),
        pytest.param(b'{"attempt": 2, ' + HEADER[1:-1] + b', "attempt": 2}', id="two attempts"),
        pytest.param(HEADER[:-1] + b', "count": 3}', id="a count that does not fit"),
        pytest.param(HEADER[:-1] + b', "series": ["momentum", "lr"]}', id="series turned round"),
        pytest.param(HEADER[:-1] + b', "x": ' + b"[" * 90_000 + b"}", id="deep"),
        pytest.param(HEADER[:-1] + b', "horizon": ' + b"9" * 5000 + b"}", id="a huge number"),
        pytest.param(HEADER[:-1] + b', "horizon": NaN}', id="NaN"),
        pytest.param(HEADER[:-1] + b', "horizon": 1e3}', id="a float"),
    ],
)
def test_a_header_that_says_two_things_is_believed_in_none(header: bytes):
    """Of a repeated key the last value counts, and is checked as the first would be."""
    with pytest.raises(InvalidAnswerError):
        _bits(header + b"\n" + BLOCK)


# -- whole answers, over a real socket --


@pytest.fixture(name="said", scope="module")
def _said() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Return the address of a server, and a setter of its fixed answer."""
    holder = {"answer": b""}

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            assert read_request(reader) is not None
            connection.sendall(holder["answer"])

    with LittleServer(serve) as server:
        yield server.url, holder


@given(_mutated(answer(200, ANSWER, content_type="application/vnd.pacesetter.window")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_http_answer_gives_its_bits_or_an_error(
    said: tuple[str, dict[str, bytes]], content: bytes
):
    """However broken status, headers or lengths are, only the client's own errors are raised."""
    url, holder = said
    holder["answer"] = content
    transport = Transport(url, timeout=PATIENCE)
    try:
        body = transport.send("GET", "/x", max_bytes=EXPECTED.max_bytes)
        bits = _bits(body)
    except PacesetterError:
        return
    finally:
        transport.close()
    assert bits in content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 503 Away\r\nretry-after: \xb2\xb2\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"a" * 200_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\xff\xfe: y\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(bytes(10**7)),
        b"HTTP/1.1 500 Oh\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(bytes(10**7)),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01" + bytes(500),
    ],
)
def test_what_is_no_answer_is_an_error_of_ours(said: tuple[str, dict[str, bytes]], content: bytes):
    """Another protocol, a torn header and lying lengths each raise an error that can be caught."""
    url, holder = said
    holder["answer"] = content
    transport = Transport(url, timeout=PATIENCE)
    with pytest.raises((TransportError, InvalidAnswerError, APIError)) as caught:
        transport.json("GET", "/x")
    transport.close()
    assert len(str(caught.value)) < 2 * LONGEST_TEXT
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"])
def test_an_answer_that_trickles_ends_with_the_time_limit(head: bytes):
    """Bytes that come one at a time, in headers or body, do not hold up a trainer."""
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        while not done.wait(0.02):
            connection.sendall(b"H" if not head else b" ")

    with LittleServer(serve) as server:
        transport = Transport(server.url, timeout=0.1)
        began = time.monotonic()
        with pytest.raises(TransportError):
            transport.json("GET", "/x")
        assert time.monotonic() - began < PATIENCE / 4
        done.set()
        transport.close()


def test_a_record_that_never_ends_is_cut_off(tmp_path):
    """An import is answered in a few lines: an endless answer does not fill the memory."""
    (tmp_path / "record").write_text("{}")
    made = 0

    def endless() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(2**20)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    with (
        Client("http://fake", transport=transport) as client,
        pytest.raises(InvalidAnswerError, match="no end"),
    ):
        client.import_session(tmp_path / "record")
    assert made == 33


# -- what the server says --


@given(st.text(max_size=60))
def test_a_wish_to_wait_is_seconds_or_nothing(header: str):
    """No header makes the retry fail, or wait for longer than half a minute."""
    seconds = retry_after(header)
    assert seconds is None or 0 <= seconds <= 30


@pytest.mark.parametrize(
    "header",
    ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "٣", "1e9"],
)
def test_a_date_that_no_calendar_has_is_ignored(header: str):
    """It is foreign nonsense, and no reason for an exception."""
    assert retry_after(header) in {None, 30.0}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_problems = st.dictionaries(
    st.sampled_from(["code", "detail", "title", "errors", "status"]), _json
) | st.fixed_dictionaries(
    {"errors": st.lists(st.dictionaries(st.sampled_from(["pointer", "detail"]), _json))}
)


@given(st.integers(400, 999), _problems.map(json.dumps).map(str.encode) | st.binary())
def test_any_problem_makes_a_readable_error(status: int, content: bytes):
    """It can be printed and encoded, whatever it contains, and its class is one of the client's."""
    error = api_error(status, content)
    assert isinstance(error, APIError)
    assert str(error).encode()
    assert error.status == status


def test_a_problem_commands_no_terminal_and_fills_no_log():
    """Its text is shown as one line of plain text, up to a length."""
    for detail in ("\x1b[2J\x1b]0;owned\x07 a\r\n2026-01-01 ERROR b", "x" * 10**6):
        error = api_error(422, json.dumps({"code": detail, "detail": detail}).encode())
        assert len(str(error)) < 3 * LONGEST_TEXT
        assert all(each.isprintable() for each in str(error))


def test_a_huge_value_is_stopped_by_the_users_bounds(client: Client, unique_name: str):
    """If a thousandfold rate is ordered, the training stops instead of following."""
    session = client.create_session(unique_name, base_lr=0.1, lr_bounds=(0.0, 1.0))
    assert session.lr(0) == 0.1
    with open_http(client.url) as http:
        order = {"kind": "scale", "factor": 1000.0, "reason": "a slip of the hand"}
        http.post(f"/v1/sessions/{unique_name}/actions", json=order).raise_for_status()
    with pytest.raises(InvalidAnswerError, match=r"outside \[0, 1\]"):
        session.lr(session.horizon)


@pytest.mark.parametrize(
    "url",
    [
        "http://" + "a" * 70,
        "http://a..b",
        "https://.a",
        "http://h/?x=1",
        "http://h/#y",
        "http://h\n",
    ],
)
def test_an_address_that_cannot_be_looked_up_is_refused_at_once(url: str):
    """It would fail deep inside, with an error of another library."""
    with pytest.raises(ValueError, match="write http://host:port"):
        Client(url)


@pytest.mark.parametrize(
    "seconds",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"retry_for": -1.0},
        {"retry_for": float("nan")},
        {"max_wait": -1.0},
        {"max_wait": float("nan")},
    ],
)
def test_times_that_are_none_are_refused(seconds: dict[str, float]):
    """A limit that makes no sense is refused when the client is made."""
    with pytest.raises(ValueError, match="give seconds"):
        Client("http://server", **seconds)  # type: ignore[arg-type]
