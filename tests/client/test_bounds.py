"""Everything that a trainer holds and starts while the server is away, or worse, is bounded."""

import contextlib
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from little_servers import LittleServer, answer, read_request, say_nothing
from pacesetter import Client, Notice, OutagePolicy, Session, TransportError
from pacesetter._notices import REMEMBERED, Board
from pacesetter._reports import HELD_AT_MOST, KEPT_AT_MOST, Reports
from pacesetter._transport import MOST_LEFT, Transport
from serving import PATIENCE

MOST_BYTES = 100 * 2**20


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def _exchanges() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "pacesetter-exchange"]


# -- memory --


def _session(url: str, **options: Any) -> Session:
    """Open a session of a server that has just gone away."""
    fake = Client("http://fake", transport=httpx.MockTransport(_described))
    info = fake.session("any").info
    return Client(url, **options).follow(info)


def _leave(session: Session) -> None:
    """End the session's thread: closing would wait for a server that does not come back."""
    session._prefetcher.stop()


def _described(_: httpx.Request) -> httpx.Response:
    counts = {"attempt": 1, "horizon": 0, "revision": 0, "max_lookahead": None, "max_window": 100}
    said = {"name": "any", "spec": {}, "status": "active", "series": ["lr"]}
    return httpx.Response(200, json={**said, **counts})


@pytest.mark.parametrize(
    "reports", [3 * HELD_AT_MOST, pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_reports_to_nobody_are_bounded(reports: int, caplog: pytest.LogCaptureFixture):
    """Of hours of reports without a server few are kept, from first to last; the log is short."""
    caplog.set_level(logging.INFO)
    session = _session("http://127.0.0.1:9")
    entries = session._core.sync.reports.entries
    most = 0
    for step in range(reports):
        session.report(step, loss=step + 0.5)
        if step % 10 == 0:
            most = max(most, len(entries))
    assert most <= HELD_AT_MOST + 1000  # a hundred may come between two checks
    session._core.sync.reports.bound()
    _until(lambda: len(entries) <= KEPT_AT_MOST)
    steps = [step for step, _ in entries]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, reports - 1)
    assert len([each for each in caplog.records if each.name == "pacesetter"]) == 1
    _leave(session)


def test_what_reports_to_nobody_hold_is_bounded_in_bytes():
    """Their size is bounded as well as their number: some tens of megabytes at most."""
    session = _session("http://127.0.0.1:9")
    tracemalloc.start()
    try:
        for step in range(2 * HELD_AT_MOST):
            session.report(step, loss=step + 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    _leave(session)


def test_reports_are_no_reason_to_try_more_often():
    """However many come, a server that is away is called at the pace of the backoff."""
    tried = []

    def serve(connection: socket.socket) -> None:
        tried.append(time.monotonic())

    with LittleServer(serve) as server:
        session = _session(server.url)
        began = time.monotonic()
        for step in range(60_000):
            session.report(step, loss=0.5)
            if step % 200 == 0:
                time.sleep(0.005)  # the session's thread gets to work
        _until(lambda: len(tried) >= 5)
        seconds = time.monotonic() - began
        number = len(tried)
        _leave(session)
    # From 0.05 s doubling to between 1 and 2: the most tries that the least jitter allows.
    assert number <= 8 + seconds


def test_what_is_on_its_way_is_not_thinned():
    """Thinning the queue in the middle of a delivery loses no report of that delivery."""
    reports = Reports()
    reports.entries += [(step, {"loss": 1.0}) for step in range(HELD_AT_MOST + 50_000)]
    number, wire = reports.batch()
    reports.bound()
    assert len(reports) <= HELD_AT_MOST
    left = [step for step, _ in reports.entries]
    assert [report["step"] for report in wire] == left[:number] == list(range(number))
    reports.drop(number)
    assert [step for step, _ in reports.entries] == left[number:]
    reports.thin()
    assert len(reports) <= KEPT_AT_MOST


def test_a_burst_that_the_server_takes_is_delivered_whole(client: Client, unique_name: str):
    """With the server there, a burst of twice what an outage leaves is delivered completely."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(2 * KEPT_AT_MOST)
    for step in range(2 * KEPT_AT_MOST):
        session.report(step, loss=0.5)
    session.flush()
    assert session._core.sync.reports._thinned == 0
    assert client.history(unique_name)["metrics"]["loss"][-2:] == [0.5, None]


def test_an_outage_that_is_trained_through_is_bounded():
    """What was used without the server is kept for its return, as far as the policy allows."""
    allowed = 5000
    policy = OutagePolicy("hold", patience=0.0, max_steps=allowed)
    transport = httpx.MockTransport(_one_window)
    client = Client("http://fake", on_outage=policy, max_wait=0.2, transport=transport)
    session = client.session("any")
    session.lr(0)
    transport.handler = _away
    step = 1
    with contextlib.suppress(TransportError):
        while step < 2 * allowed:
            session.lr(step)
            step += 1
    fallback, prefetcher = session._core.fallback, session._prefetcher
    assert fallback is not None
    assert fallback._gap is not None
    assert sum(map(len, fallback._gap.windows)) <= allowed
    assert len(prefetcher._errands) <= 1
    assert step <= allowed + 1
    _leave(session)


def _one_window(request: httpx.Request) -> httpx.Response:
    if not request.url.path.endswith("/sync"):
        return _described(request)
    header = (
        b'{"attempt": 1, "horizon": 1, "revision": 0, "start": 0, "count": 1, "series": ["lr"]}'
    )
    return httpx.Response(200, content=header + b"\n" + b"\0\0\0\0\0\0\xe0\x3f")


def _away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("away", request=request)


def test_notices_are_remembered_only_so_far():
    """A server that sends notices without end does not fill the memory."""
    told: list[Notice] = []
    board = Board(told.append)
    for step in range(100_000):
        board.tell([Notice("any", step, "large_change", "Big.")])
    assert len(told) == 100_000
    assert len(board._known) <= REMEMBERED
    assert not board._untold


# -- threads --


class Tormentor:
    """Sends an answer so slowly that no time limit for a byte ever passes, until told to stop."""

    def __init__(self) -> None:
        self.well = threading.Event()
        self.asked = 0

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        with connection.makefile("rb") as reader:
            while read_request(reader) is not None:
                self.asked += 1
                if self.well.is_set():
                    connection.sendall(answer(200))
                    continue
                connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
                while not self.well.wait(0.02):
                    connection.sendall(b"a")


@pytest.mark.parametrize("wait", [0.0, 0.01])
def test_exchanges_that_hang_do_not_pile_up(wait: float):
    """However often a trickling server is called, few threads hang in it, and later none."""
    tormentor = Tormentor()
    most = 0
    before = len(_exchanges())
    with LittleServer(tormentor) as server:
        transport = Transport(server.url, timeout=0.05)
        for _ in range(3 * MOST_LEFT):
            with pytest.raises(TransportError):
                transport.json("GET", "/x", wait=wait)
            most = max(most, len(_exchanges()) - before)
        assert 1 < most <= MOST_LEFT + 1
        tormentor.well.set()
        transport.timeout = PATIENCE
        assert transport.json("GET", "/x", wait=PATIENCE) == {}
        _until(lambda: len(_exchanges()) == before)
        transport.close()


def test_many_callers_leave_one_each_at_most(caplog: pytest.LogCaptureFixture):
    """The bound is a few for all, and one for each calling thread."""
    callers, most = 6, 0
    tormentor = Tormentor()
    before = len(_exchanges())
    done = threading.Event()
    with LittleServer(tormentor) as server:
        transport = Transport(server.url, timeout=0.05)

        def ask() -> None:
            while not done.is_set():
                with pytest.raises(TransportError):
                    transport.json("GET", "/x")

        threads = [threading.Thread(target=ask) for _ in range(callers)]
        for thread in threads:
            thread.start()
        began = tormentor.asked
        while tormentor.asked < began + 20 * callers or most < MOST_LEFT:
            time.sleep(0.01)
            most = max(most, len(_exchanges()) - before)
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
        tormentor.well.set()
        transport.close()
    assert MOST_LEFT <= most <= MOST_LEFT + 2 * callers


def test_a_trickling_answer_does_not_hold_the_background(caplog: pytest.LogCaptureFixture):
    """The session's own thread gives it up too, and delivers when the server is well."""
    delivered = threading.Event()
    well = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as reader:
            while (asked := read_request(reader)) is not None:
                if well.is_set():
                    header = b'{"attempt": 1, "horizon": 0, "revision": 0}'
                    connection.sendall(answer(200, header))
                    if b'"reports"' in asked.body:
                        delivered.set()
                    continue
                while True:  # for ever, whatever becomes of the others
                    connection.sendall(b"H")
                    time.sleep(0.02)

    with LittleServer(serve) as server:
        session = _session(server.url, timeout=0.1)
        session.report(0, loss=0.5)
        _until(lambda: server.connections > 1)
        well.set()
        assert delivered.wait(PATIENCE)
        _leave(session)


def test_a_server_that_never_answers_holds_few_threads(caplog: pytest.LogCaptureFixture):
    """It accepts connections and never answers: each exchange ends by its own limit."""
    before = len(_exchanges())
    with LittleServer(say_nothing) as server:
        transport = Transport(server.url, timeout=0.05)
        for _ in range(20):
            with pytest.raises(TransportError):
                transport.json("GET", "/x", wait=0.01)
            assert len(_exchanges()) - before <= MOST_LEFT
        _until(lambda: len(_exchanges()) == before)
        transport.close()
