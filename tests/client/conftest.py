"""Fixtures of the client's tests: a client of the real service, and a server that misbehaves."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pacesetter import Client


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    """Return a client of the real service; its sessions are closed with it."""
    with Client(server_url) as client:
        yield client


class FakeServer:
    """Answers by the contract unless set up otherwise, for faults that no real server produces."""

    def __init__(self, series: tuple[str, ...] = ("lr",), max_lookahead: int | None = None) -> None:
        self.series = series
        self.max_lookahead = max_lookahead
        self.horizon = 0
        self.requests: list[httpx.Request] = []
        self.spoil: Callable[[dict[str, Any], bytes], Any] | None = None
        self.fail: Callable[[httpx.Request], httpx.Response | None] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        failure = self.fail(request) if self.fail is not None else None
        if failure is not None:
            return failure
        if not request.url.path.endswith("/sync"):
            return httpx.Response(200, json=self.description())
        return self._sync(json.loads(request.content))

    def description(self) -> dict[str, Any]:
        """Return the server's description of its session."""
        return {
            "name": "fake",
            "spec": {"base_lr": 0.5},
            "status": "active",
            "attempt": 1,
            "horizon": self.horizon,
            "revision": 0,
            "series": list(self.series),
            "max_lookahead": self.max_lookahead,
            "max_window": 100,
        }

    def _sync(self, body: dict[str, Any]) -> httpx.Response:
        if "want" in body:
            self.horizon = max(self.horizon, body["want"]["start"] + body["want"]["count"])
        header = {
            "attempt": 1,
            "horizon": self.horizon,
            "revision": 0,
            "notices": [],
            "max_lookahead": self.max_lookahead,
        }
        block = b""
        if "want" in body:
            start, count = body["want"]["start"], body["want"]["count"]
            header |= {"start": start, "count": count, "series": list(self.series)}
            block = struct.pack(f"<{count}d", *[0.5] * count) * len(self.series)
        if self.spoil is not None:
            header, block = self.spoil(header, block)
        return httpx.Response(200, content=json.dumps(header).encode() + b"\n" + block)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies that were sent to sync, in order."""
        return [json.loads(r.content) for r in self.requests if r.url.path.endswith("/sync")]


@pytest.fixture(name="fake")
def _fake() -> FakeServer:
    """Return a fake server for one test, inside the process."""
    return FakeServer()


@pytest.fixture(name="fake_client")
def _fake_client(fake: FakeServer) -> Iterator[Client]:
    """Return a client of the fake server that soon gives up."""
    transport = httpx.MockTransport(fake)
    with Client("http://fake", transport=transport, retry_for=0.5, max_wait=0.5) as client:
        yield client
