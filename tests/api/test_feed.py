"""The events of a session as they happen, over HTTP against a real service that is also killed."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import PATIENCE, RunningService, open_http, quick

CUTS = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.999, "eps": 0.0}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def create(http: httpx.Client, name: str, **spec: Any) -> str:
    """Create a session that decides at every step, and return the address of its feed."""
    body = {"name": name, "base_lr": 1.0, "controllers": [CUTS], "max_lookahead": 500, **spec}
    http.post("/v1/sessions", json=body).raise_for_status()
    return f"/v1/sessions/{name}/events/stream"


def happen(http: httpx.Client, name: str, count: int) -> None:
    """Cause that many events in one commit."""
    horizon = http.get(f"/v1/sessions/{name}").json()["horizon"]
    path = f"/v1/sessions/{name}/sync"
    http.post(path, json=quick(horizon, count)).raise_for_status()
    reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(horizon, horizon + count)]
    http.post(path, json={"reports": reports}).raise_for_status()
    http.post(path, json={"step": horizon + count}).raise_for_status()


@dataclass(frozen=True)
class Message:
    """A server-sent event."""

    id: str
    event: str
    data: Any


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """Read server-sent events as a browser does: an empty line ends each."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "id" in fields:
            yield Message(fields["id"], fields["event"], json.loads(fields["data"]))
        fields = {}


def take(http: httpx.Client, path: str, count: int, **headers: str) -> list[Message]:
    """Follow a feed until that many events have come."""
    found: list[Message] = []
    with http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for message in messages(answer.iter_lines()):
            found.append(message)
            if len(found) == count:
                break
    return found


def test_events_come_with_their_numbers(http: httpx.Client, unique_name: str) -> None:
    """The feed begins with the creation and gives each event as the log does."""
    path = create(http, unique_name)
    happen(http, unique_name, 4)
    log = http.get(path.removesuffix("/stream")).json()["events"]
    found = take(http, path, len(log))
    assert [each.data for each in found] == log
    assert [each.id for each in found] == [str(each["seq"]) for each in log]
    assert [each.event for each in found][:2] == ["created", "decided"]


def test_what_happens_later_comes_too(http: httpx.Client, unique_name: str) -> None:
    """A reader that waits gets each event when it is committed."""
    path = create(http, unique_name)
    with http.stream("GET", path) as answer:
        found = messages(answer.iter_lines())
        assert next(found).event == "created"
        with open_http(str(http.base_url)) as other:
            for factor in (0.5, 0.25):
                order = {"kind": "scale", "factor": factor}
                other.post(f"/v1/sessions/{unique_name}/actions", json=order).raise_for_status()
                assert next(found).data["order"]["action"]["factor"] == factor


def test_who_comes_back_goes_on_behind_the_last_event(http: httpx.Client, unique_name: str) -> None:
    """The feed begins after the event in `Last-Event-ID`, or `after`."""
    path = create(http, unique_name)
    happen(http, unique_name, 6)
    every = take(http, path, 6)
    assert take(http, path, 3, **{"Last-Event-ID": "2"}) == every[3:6]
    assert take(http, f"{path}?after=2", 3) == every[3:6]
    assert take(http, f"{path}?after=0", 3, **{"Last-Event-ID": "2"}) == every[3:6]


@pytest.mark.parametrize("number", ["99", "dance", "-1", "1e3", "²", "9" * 30])
def test_an_id_that_no_event_has_is_refused(
    http: httpx.Client, unique_name: str, number: str
) -> None:
    """It is refused at once: continuing elsewhere would leave events out."""
    path = create(http, unique_name)
    answer = http.get(path, headers={"Last-Event-ID": number.encode()})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_feed_of_no_session_is_not_found(http: httpx.Client) -> None:
    """An unknown name is a 404, and no stream."""
    answer = http.get("/v1/sessions/nobody-has-this/events/stream")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


def test_a_quiet_feed_shows_that_it_lives(tmp_path: Path) -> None:
    """Without events, a comment comes now and then."""
    with (
        RunningService(tmp_path / "quiet.db", feed_heartbeat=0.05) as service,
        open_http(service.url) as http,
        http.stream("GET", create(http, "quiet")) as answer,
    ):
        beats = (line for line in answer.iter_lines() if line == ": heartbeat")
        assert [next(beats), next(beats)] == [": heartbeat"] * 2


def test_readers_do_not_hold_up_the_stop(service: RunningService) -> None:
    """A server that is told to stop says so to its readers, and exits with code 0."""
    with open_http(service.url) as http, http.stream("GET", create(http, "stopped")) as answer:
        lines = answer.iter_lines()
        assert next(messages(lines)).event == "created"
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(service.stop()))
        stopping.start()
        assert [line for line in lines if line] == [
            ": the server stops, come back with the last id"
        ]
        stopping.join()
    assert codes == [0]
    service.start()


def test_a_reader_that_takes_nothing_is_cut_off_and_can_go_on(tmp_path: Path) -> None:
    """Its answer breaks off; after its last event, it reads all that is left."""
    count, reason = 300, "x" * 900
    with (
        RunningService(tmp_path / "slow.db", feed_patience=2.0) as service,
        open_http(service.url) as http,
    ):
        path = create(http, "slow")
        deaf = listen(service.url, path)
        for _ in range(40):
            body = {"step": http.get("/v1/sessions/slow").json()["horizon"]}
            http.post("/v1/sessions/slow/sync", json=body).raise_for_status()
            for _ in range(count // 40 + 1):
                order = {"kind": "scale", "factor": 1.0, "reason": reason}
                http.post("/v1/sessions/slow/actions", json=order).raise_for_status()
        happen(http, "slow", 500)
        for _ in range(10):
            happen(http, "slow", 500)
        every = http.get("/v1/sessions/slow").json()
        assert every["horizon"] > 5_000
        until_cut_off(service)
        text, whole = read_to_the_end(deaf)
        got = list(messages(iter(text.split("\n"))))
        assert not whole, "the answer was ended as if nothing were left out"
        assert [int(each.id) for each in got] == list(range(len(got)))
        total = newest(http, "slow")
        assert len(got) < total
        rest = take(http, path, total - len(got) + 1, **{"Last-Event-ID": got[-1].id})
        assert [int(each.id) for each in rest] == list(range(len(got), total + 1))


def until_cut_off(service: RunningService) -> None:
    """Wait until the service has logged that it gave a reader up."""
    deadline = time.monotonic() + PATIENCE
    while not any(each["event"] == "reader_cut_off" for each in service.events()):
        assert time.monotonic() < deadline, "the reader was never cut off"
        time.sleep(0.05)


def newest(http: httpx.Client, name: str) -> int:
    """Return the number of the newest event."""
    low = 0
    while page := http.get(
        f"/v1/sessions/{name}/events", params={"after": low, "limit": 1000}
    ).json()["events"]:
        low = page[-1]["seq"]
    return low


def listen(url: str, path: str) -> socket.socket:
    """Ask for a feed with the smallest receive buffer that the system allows."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect((host, int(port)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    return connection


def read_to_the_end(connection: socket.socket) -> tuple[str, bool]:
    """Read until the connection ends; return what came, and whether the answer was complete."""
    received = bytearray()
    with connection:
        try:
            while part := connection.recv(65_536):
                received += part
        except ConnectionResetError:
            pass  # cut off: the test is about what came before
    body = received.partition(b"\r\n\r\n")[2]
    text, length = bytearray(), -1
    while body and length:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        text += body[:length]
        body = body[length + 2 :]
    return text.decode(errors="ignore"), length == 0


@dataclass
class Subscriber:
    """Follows a feed, and comes back with its last id whenever the connection is lost."""

    path: str
    pause: Callable[[int], None]
    seen: list[int] = field(default_factory=list)
    returns: int = 0

    def follow(self, url: str, until: int) -> None:
        """Read until an event, and keep what was read, in order."""
        deadline = time.monotonic() + PATIENCE
        while (not self.seen or self.seen[-1] < until) and time.monotonic() < deadline:
            try:
                with open_http(url) as http:
                    self._read(http, until)
            except httpx.TransportError:
                time.sleep(0.05)
            self.returns += 1

    def _read(self, http: httpx.Client, until: int) -> None:
        headers = {"Last-Event-ID": str(self.seen[-1])} if self.seen else {}
        with http.stream("GET", self.path, headers=headers) as answer:
            for message in messages(answer.iter_lines()):
                self.seen.append(int(message.id))
                self.pause(len(self.seen))
                if self.seen[-1] >= until:
                    return


@pytest.mark.parametrize("total", [1_500, pytest.param(15_000, marks=pytest.mark.slow)])
def test_nobody_misses_an_event_or_gets_one_twice(total: int, service: RunningService) -> None:
    """Three readers, one of them slow, see all events once and in order, across two kills."""
    with open_http(service.url) as http:
        path = create(http, "followed")
    crew = [
        Subscriber(path, lambda _: None),
        Subscriber(path, lambda count: time.sleep(0.002 * (count % 7 == 0))),
        Subscriber(path, lambda count: time.sleep(0.2 * (count % (total // 12) == 0))),
    ]
    threads = [
        threading.Thread(target=each.follow, args=(service.url, total), daemon=True)
        for each in crew
    ]
    for thread in threads:
        thread.start()
    for number in range(11):
        with open_http(service.url) as http:
            happen(http, "followed", total // 10)
        if number in (3, 6):
            service.kill()
            service.start()
    for thread in threads:
        thread.join(PATIENCE)
    for each in crew:
        assert each.seen == list(range(each.seen[-1] + 1))
        assert each.seen[-1] >= total
        assert each.returns >= 2
