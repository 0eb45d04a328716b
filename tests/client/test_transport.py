"""Requests, retries and limits."""

import json
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from pacesetter import (
    APIError,
    AwaitingMeasurementError,
    ClosedError,
    InvalidAnswerError,
    ServerError,
    ServerUnavailableError,
    TransportError,
)
from pacesetter._transport import Transport
from serving import PATIENCE

Handler = Callable[[httpx.Request], httpx.Response]


def _transport(handler: Handler, timeout: float = 5.0) -> Transport:
    return Transport("http://server", timeout=timeout, transport=httpx.MockTransport(handler))


def _failing_first(times: int, failure: Handler) -> tuple[Handler, list[httpx.Request]]:
    """Return a handler that fails some times and then answers, and the requests it has seen."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return failure(request) if len(seen) <= times else httpx.Response(200, json={"n": 1})

    return handler, seen


def _raising(error: type[httpx.TransportError]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("broken", request=request)

    return handler


def _status(status: int, headers: dict[str, str] | None = None) -> Handler:
    problem = {"code": "some_code", "detail": "Some detail."}
    return lambda _: httpx.Response(status, json=problem, headers=headers)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(_raising(httpx.ConnectError), id="refused"),
        pytest.param(_raising(httpx.ConnectTimeout), id="connect timeout"),
        pytest.param(_raising(httpx.ReadTimeout), id="read timeout"),
        pytest.param(_raising(httpx.ReadError), id="reset"),
        pytest.param(_raising(httpx.RemoteProtocolError), id="closed by the server"),
        *(pytest.param(_status(n), id=str(n)) for n in (429, 500, 502, 503, 504)),
    ],
)
def test_a_fault_that_may_pass_is_tried_again(failure: Handler):
    """While the server is away the same request is sent until it is answered."""
    handler, seen = _failing_first(2, failure)
    assert _transport(handler).json("POST", "/x", body={"a": 1}, wait=5) == {"n": 1}
    assert [request.content for request in seen] == [b'{"a":1}'] * 3


def _awaiting_first(then: Handler, times: int = 1) -> Handler:
    """Return a server that awaits a measurement, and then does something else."""
    awaiting = httpx.Response(503, json={"code": "awaiting_measurement", "detail": "Ask again."})
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return awaiting if len(seen) <= times else then(request)

    return handler


def test_what_was_awaited_is_told_though_the_last_try_ran_out_of_time():
    """The little time left for the last try says nothing about the server."""
    transport = _transport(_awaiting_first(_raising(httpx.ReadTimeout)))
    with pytest.raises(ServerUnavailableError, match="Ask again") as caught:
        transport.json("GET", "/x", wait=0.3)
    assert isinstance(caught.value.__cause__, AwaitingMeasurementError)


@pytest.mark.parametrize("timeout", [0.05, 5.0])
def test_a_server_that_goes_away_while_it_awaits_is_away(timeout: float):
    """A server that refuses connections, or leaves a whole try unanswered, is away."""
    error = httpx.ReadTimeout if timeout < 0.1 else httpx.ConnectError
    transport = _transport(_awaiting_first(_raising(error)), timeout)
    with pytest.raises(ServerUnavailableError, match="was away") as caught:
        transport.json("GET", "/x", wait=0.3)
    assert not isinstance(caught.value.__cause__, AwaitingMeasurementError)


def test_a_call_says_for_how_long_it_may_be_held():
    """It may be held for half of the try's time limit, so that its answer is in time."""
    handler, seen = _failing_first(1, _status(503))
    _transport(handler, timeout=7.0).json("GET", "/x", wait=3.0)
    waits = [float(request.headers["prefer"].removeprefix("wait=")) for request in seen]
    assert 1.0 < waits[0] <= 1.5
    handler, seen = _failing_first(0, _status(503))
    _transport(handler, timeout=7.0).json("GET", "/x")
    assert seen[0].headers["prefer"] == "wait=3.50"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 415, 422])
def test_a_refusal_is_not_tried_again(status: int):
    """What the server refuses once it would refuse again."""
    handler, seen = _failing_first(1, _status(status))
    with pytest.raises(APIError) as caught:
        _transport(handler).json("GET", "/x", wait=5)
    assert caught.value.status == status
    assert len(seen) == 1


def test_without_a_wait_there_is_one_try():
    """The background thread tries once and leaves waiting to the trainer."""
    handler, seen = _failing_first(1, _raising(httpx.ConnectError))
    with pytest.raises(TransportError):
        _transport(handler).json("GET", "/x")
    handler, seen = _failing_first(1, _status(503))
    with pytest.raises(ServerError):
        _transport(handler).json("GET", "/x")
    assert len(seen) == 1


def test_the_wait_is_bounded():
    """After the bound an error says how long was waited and what went wrong last."""
    began = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=r"away for 0\.3 s.*broken") as caught:
        _transport(_raising(httpx.ConnectError)).json("GET", "/x", wait=0.3)
    assert 0.2 < time.monotonic() - began < PATIENCE / 4
    assert "pacesetter serve" in str(caught.value)


def test_the_servers_wish_to_wait_is_honoured():
    """`Retry-After` is waited for when it is longer than the backoff."""
    handler, _ = _failing_first(1, _status(503, {"retry-after": "1"}))
    began = time.monotonic()
    _transport(handler).json("GET", "/x", wait=10)
    assert time.monotonic() - began >= 0.95


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture):
    """There are two lines, however many tries there were."""
    caplog.set_level(logging.INFO, logger="pacesetter")
    handler, _ = _failing_first(4, _raising(httpx.ConnectError))
    _transport(handler).json("GET", "/x", wait=10)
    first, last = [record.getMessage() for record in caplog.records]
    assert "trying again for up to 10 s" in first
    assert "answers again after" in last


def test_httpx_writes_nothing_to_the_trainings_log(
    server_url: str, caplog: pytest.LogCaptureFixture
):
    """With INFO on for everything, no request is logged."""
    caplog.set_level(logging.INFO)
    transport = Transport(server_url, timeout=PATIENCE)
    transport.json("GET", "/version")
    transport.close()
    assert caplog.records == []


def test_a_redirect_is_not_followed():
    """A redirect could lead reports anywhere; it is refused with advice."""
    handler, seen = _failing_first(1, _status(307, {"location": "http://elsewhere/"}))
    with pytest.raises(InvalidAnswerError, match="redirects are not followed"):
        _transport(handler).json("GET", "/x", wait=5)
    assert len(seen) == 1


def test_a_huge_answer_is_cut_off():
    """No more is read than can belong to the answer."""
    produced = []

    def endless() -> Iterator[bytes]:
        while True:
            produced.append(1)
            yield bytes(1000)

    with pytest.raises(InvalidAnswerError, match="larger than the 5,000 bytes"):
        _transport(lambda _: httpx.Response(200, content=endless())).send(
            "GET", "/x", max_bytes=5000
        )
    assert len(produced) == 6


def test_a_compressed_bomb_is_not_inflated():
    """An encoding that was not requested is refused, and the bytes are not decoded."""
    answer = httpx.Response(200, content=iter([bytes(1000)]), headers={"content-encoding": "gzip"})
    with pytest.raises(InvalidAnswerError, match="'gzip', which was not asked for"):
        _transport(lambda _: answer).json("GET", "/x")


def test_a_trickling_answer_runs_out_of_time():
    """The limit holds for the whole answer, not for each piece of it."""

    def trickle() -> Iterator[bytes]:
        while True:
            time.sleep(0.02)
            yield b" "

    began = time.monotonic()
    with pytest.raises(TransportError, match=r"too slowly|in 0\.2 s"):  # whichever is first
        _transport(lambda _: httpx.Response(200, content=trickle()), timeout=0.2).send("GET", "/x")
    assert time.monotonic() - began < PATIENCE / 4


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"3", b"[" * 100_000])
def test_an_answer_that_is_no_json_object_is_refused(content: bytes):
    """Another server on the same port is detected."""
    with pytest.raises(InvalidAnswerError, match="is a Pacesetter server"):
        _transport(lambda _: httpx.Response(200, content=content)).json("GET", "/x")


def test_a_server_that_accepts_and_never_answers_is_given_up():
    """The read timeout bounds a hanging server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = Transport(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2)
        with pytest.raises(TransportError, match=r"no answer from http://127\.0\.0\.1"):
            transport.json("GET", "/x")
        transport.close()


def test_a_bad_certificate_is_an_error_at_once():
    """Waiting does not repair a certificate."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] nope", request=request)

    with pytest.raises(InvalidAnswerError, match="install the server's certificate"):
        _transport(handler).json("GET", "/x", wait=PATIENCE)
    assert ssl  # the text is that of the ssl module


@pytest.mark.parametrize("url", ["server:7070", "ftp://server", "http://", "7070"])
def test_a_url_that_is_none_is_refused_at_once(url: str):
    """A mistake shows when the client is made, with the expected form."""
    with pytest.raises(ValueError, match="http://host:port"):
        Transport(url, timeout=1)


def test_bodies_are_strict_json():
    """JSON has no NaN; it is refused here before the server would."""
    with pytest.raises(ValueError, match="JSON"):
        _transport(_status(200)).json("POST", "/x", body={"a": float("nan")})


def test_empty_query_parameters_are_left_out():
    """None means: not given."""
    handler, seen = _failing_first(0, _status(500))
    _transport(handler).json("GET", "/x", params={"a": 1, "b": None})
    assert str(seen[0].url) == "http://server/x?a=1"


def test_a_connection_is_kept(server_url: str):
    """Successive requests go through one connection."""
    transport = Transport(server_url, timeout=PATIENCE)
    for _ in range(5):
        transport.json("GET", "/version")
    pool = transport._pool
    assert isinstance(pool, httpx.HTTPTransport)
    connections = pool._pool.connections
    assert len(connections) == 1
    assert json.dumps(transport.json("GET", "/version"))
    assert pool._pool.connections == connections
    transport.close()


def test_only_what_is_encrypted_is_checked_by_the_machines_authorities():
    """Reading them takes longer than all else at an opening; without any, no server is trusted."""
    for scheme, trusts in (("http", False), ("https", True)):
        transport = Transport(f"{scheme}://127.0.0.1:1", timeout=PATIENCE)
        assert isinstance(transport._pool, httpx.HTTPTransport)
        checking = transport._pool._pool._ssl_context
        assert checking is not None
        assert checking.verify_mode is ssl.CERT_REQUIRED
        assert bool(checking.get_ca_certs()) is trusts
        transport.close()


def test_a_closed_transport_says_so():
    """Using it again is an error with advice, not a new connection."""
    transport = _transport(_status(200))
    transport.close()
    with pytest.raises(ClosedError, match="make a new one"):
        transport.json("GET", "/x")
