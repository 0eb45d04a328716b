"""Connections that die while idle: no request may fail for that."""

import logging
import socket
from collections.abc import Callable

import pytest

from little_servers import Asked, LittleServer, Proxy, answer, answering, hang_up, read_request
from pacesetter import Client, TransportError
from pacesetter._transport import Transport
from serving import PATIENCE


def test_a_server_that_closes_after_each_answer_is_no_news(caplog: pytest.LogCaptureFixture):
    """It does not announce it; each request is answered, and nothing is logged."""
    caplog.set_level(logging.INFO)

    def serve(connection) -> None:
        with connection.makefile("rb") as reader:
            assert read_request(reader) is not None
            connection.sendall(answer(200))

    with LittleServer(serve) as server:
        transport = Transport(server.url, timeout=PATIENCE)
        for _ in range(50):
            assert transport.json("GET", "/x") == {}
        transport.close()
        assert server.connections == 50
    assert caplog.records == []


@pytest.mark.parametrize("wait", [0.0, PATIENCE])
@pytest.mark.parametrize("rude", [False, True], ids=["closed", "reset"])
def test_a_request_that_meets_the_end_of_its_connection_is_sent_again_at_once(
    wait: float, rude: bool, caplog: pytest.LogCaptureFixture
):
    """The server closes as the request arrives: a new connection takes it, without any delay."""
    caplog.set_level(logging.INFO)

    def serve(connection) -> None:
        with connection.makefile("rb") as reader:
            assert read_request(reader) is not None
            connection.sendall(answer(200))
            read_request(reader)  # and no answer to this one
        if rude:
            hang_up(connection)

    with LittleServer(serve) as server:
        transport = Transport(server.url, timeout=PATIENCE)
        for _ in range(20):
            assert transport.json("POST", "/x", body={"a": "b" * 100_000}, wait=wait) == {}
        transport.close()
        assert server.connections == 20
    assert caplog.records == []


@pytest.mark.parametrize("way", ["send", "stream"])
def test_what_connects_while_the_client_closes_is_closed(way: str, monkeypatch: pytest.MonkeyPatch):
    """The pool forgets a connection being opened while it is closed; its request does not."""
    connect = socket.create_connection
    opened: list[socket.socket] = []

    def slowly(*args, **kwargs) -> socket.socket:
        opened.append(connect(*args, **kwargs))
        transport.close()
        return opened[-1]

    monkeypatch.setattr(socket, "create_connection", slowly)
    with answering(lambda _: answer(200)) as (server, _):
        transport = Transport(server.url, timeout=PATIENCE)
        if way == "send":
            assert transport.json("GET", "/x") == {}
        else:
            with transport.stream("GET", "/x", accept="*/*", silence=PATIENCE) as pieces:
                assert b"".join(pieces) == b"{}"
    assert [each.fileno() for each in opened] == [-1]


@pytest.mark.parametrize("rude", [False, True], ids=["closed", "reset"])
def test_a_body_that_is_read_once_goes_over_a_new_connection(rude: bool):
    """An import cannot be sent again, so it never uses a connection that may be closing."""
    seen: list[Asked] = []

    def serve(connection) -> None:
        with connection.makefile("rb") as reader:
            first = read_request(reader)
            assert first is not None
            seen.append(first)
            connection.sendall(answer(200))
            read_request(reader)  # and no answer to this one
        if rude:
            hang_up(connection)

    with LittleServer(serve) as server:
        transport = Transport(server.url, timeout=PATIENCE)
        for _ in range(20):
            assert transport.json("GET", "/x") == {}
            with transport.stream(
                "POST",
                "/import",
                content=iter([b"once"]),
                headers={"content-length": "4"},
                accept="application/json",
                silence=PATIENCE,
            ) as pieces:
                assert b"".join(pieces) == b"{}"
        transport.close()
    assert [asked.body for asked in seen if asked.method == "POST"] == [b"once"] * 20


def test_a_new_connection_that_dies_is_an_outage():
    """Only an idle one can have timed out: a server that crashes on a request gets it once."""
    with answering(lambda _: None) as (server, seen):
        transport = Transport(server.url, timeout=PATIENCE)
        with pytest.raises(TransportError, match="start the server"):
            transport.json("GET", "/x")
        transport.close()
    assert len(seen) == 1


def _every(number: int) -> Callable[[Asked], bool]:
    count = iter(range(10**9))
    return lambda asked: "/sync" in asked.target and next(count) % number == number - 1


def test_answers_that_are_lost_count_nothing_twice(client: Client, unique_name: str):
    """Half of the syncs are answered in vain: the training is as without losses."""
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, 0.6, 0.6, 0.6]
    plateau = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}

    def train(by: Client, name: str) -> list[float]:
        session = by.create_session(name, base_lr=0.1, controllers=[plateau])
        rates = []
        for step, loss in enumerate(losses):
            rates.append(session.lr(step))
            session.report(step, loss=loss)
        session.flush()
        return rates

    calm = train(client, f"{unique_name}-calm")
    proxy = Proxy(client.url.removeprefix("http://"), loses=_every(2))
    with LittleServer(proxy) as server, Client(server.url) as through:
        assert train(through, unique_name) == calm
    assert len(set(calm)) > 2
    assert client.history(unique_name)["metrics"]["loss"] == losses
    assert sum("/sync" in asked.target for asked in proxy.asked) > len(losses) * 1.5
