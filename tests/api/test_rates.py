"""How often callers may call, and how many calls may wait: refusals say when to come back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from little_servers import Asked, answer, answering
from pacesetter import Client
from pacesetter_service.api import rates
from pacesetter_service.api.rates import Buckets
from serving import PATIENCE, RunningService, open_http

ADMIN = {"authorization": "Bearer an-admins-token-of-these-tests"}
SLOWLY = 0.001
"""Calls a second: so few that no call is regained while a test runs."""


@pytest.mark.parametrize(("rate", "size", "calls"), [(2.0, 3.0, 3), (0.5, 0.1, 1)])
def test_a_bucket_holds_so_many_calls_and_fills_again(rate: float, size: float, calls: int) -> None:
    """Each caller has a bucket; a refused one is told when a call is free, and finds it then."""
    buckets = Buckets(rate, size)
    assert [buckets.take("a", 5.0) for _ in range(calls)] == [0.0] * calls
    assert buckets.take("a", 5.0) == 1 / rate
    assert buckets.take("b", 5.0) == 0.0
    assert buckets.take("a", 5.0 + 0.5 / rate) == 0.5 / rate
    assert buckets.take("a", 5.0 + 1 / rate) == 0.0
    assert buckets.take("a", 5.0 + 1 / rate) > 0
    assert [buckets.take("a", 1e6) for _ in range(calls)] == [0.0] * calls


def test_buckets_are_as_many_as_memory_is_given_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets that are full again are dropped first, then the one that was silent the longest."""
    monkeypatch.setattr(rates, "MOST_CALLERS", 3)
    buckets = Buckets(1.0, 2.0)
    for number, now in enumerate((0.0, 0.1, 2.05, 2.06, 2.07)):
        buckets.take(f"caller {number}", now)
    assert set(buckets._callers) == {"caller 2", "caller 3", "caller 4"}
    buckets.take("caller 5", 2.08)
    assert set(buckets._callers) == {"caller 3", "caller 4", "caller 5"}


def _is_limited(answered: httpx.Response, who: str) -> bool:
    problem = answered.json()
    return (
        (answered.status_code, problem["code"]) == (429, "too_many_calls")
        and answered.headers["content-type"] == "application/problem+json"
        and int(answered.headers["retry-after"]) > 0
        and f"this {who}" in problem["detail"]
    )


def test_each_token_has_calls_of_its_own(tmp_path: Path) -> None:
    """The hot call counts like any other; probes are always answered."""
    settings: dict[str, Any] = {"rate_per_token": SLOWLY, "rate_burst": 3 / SLOWLY}
    secret = ADMIN["authorization"].removeprefix("Bearer ")
    with (
        RunningService(tmp_path / "pacesetter.db", admin_token=secret, **settings) as service,
        open_http(service.url) as http,
    ):
        wanted = {"name": "job", "role": "trainer"}
        made = http.post("/v1/tokens", json=wanted, headers=ADMIN).json()["token"]
        job = {"authorization": f"Bearer {made}"}
        spec = {"name": "run", "base_lr": 0.1}
        assert http.post("/v1/sessions", json=spec, headers=job).status_code == 201
        for _ in range(2):
            answered = http.post("/v1/sessions/run/sync", json={"step": 0}, headers=job)
            assert answered.status_code == 200
        answered = http.post("/v1/sessions/run/sync", json={"step": 0}, headers=job)
        assert _is_limited(answered, "token")
        assert http.get("/v1/sessions/run", headers=ADMIN).status_code == 200
        assert http.get("/readyz").status_code == 200


@pytest.fixture(name="limited", scope="module")
def _limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Return a service that allows an address nine calls, no held call, and one feed."""
    settings: dict[str, Any] = {
        "rate_per_address": SLOWLY,
        "rate_burst": 9 / SLOWLY,
        "max_feeds": 1,
        "max_held": 0,
    }
    database = tmp_path_factory.mktemp("limited") / "pacesetter.db"
    with RunningService(database, **settings) as service:
        yield service


def test_what_may_wait_at_once_is_bounded(limited: RunningService) -> None:
    """Feeds and held calls beyond the limit are refused at once, with the time to come back."""
    with open_http(limited.url) as http:
        spec = {
            "name": "run",
            "base_lr": 0.1,
            "controllers": [{"kind": "plateau", "metric": "loss"}],
            "reaction": {"decide_every": 1, "timeout": 3600},
        }
        http.post("/v1/sessions", json=spec).raise_for_status()
        http.post("/v1/sessions/run/sync", json={"attempt": 1, "step": 0}).raise_for_status()
        held = http.post("/v1/sessions/run/sync", json={"attempt": 1, "step": 1})
        assert (held.status_code, held.json()["code"]) == (503, "awaiting_measurement")
        assert held.headers["retry-after"] == "1"
        feed = "/v1/sessions/run/events/stream"
        with http.stream("GET", feed) as first:
            pieces = first.iter_text()  # kept, since a dropped generator hangs up
            assert "retry:" in next(pieces)
            second = http.get(feed)
            assert (second.status_code, second.json()["code"]) == (503, "too_many_readers")
            assert second.headers["retry-after"] == "1"
        for _ in range(20):
            answered = http.get("/v1/sessions/run")
        assert _is_limited(answered, "address")
        for header in (
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
        ):  # a claim that any caller can make
            claimed = {header: "for=192.0.2.7" if header == "Forwarded" else "192.0.2.7"}
            assert _is_limited(http.get("/v1/sessions/run", headers=claimed), "address"), header
        assert http.get("/livez").status_code == 200


def test_the_client_comes_back_when_it_is_told() -> None:
    """A call that is answered 429 is repeated after `Retry-After`."""
    refused = answer(429, b'{"code": "too_many_calls", "detail": "Later."}', **{"retry-after": "1"})
    asked: list[Asked] = []

    def serve(call: Asked) -> bytes:
        asked.append(call)
        return refused if len(asked) == 1 else answer(200)

    with answering(serve) as (server, _), Client(server.url, retry_for=PATIENCE) as client:
        slept: list[float] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("pacesetter._transport.time.sleep", slept.append)
            client.version()
    assert len(asked) == 2
    assert slept == [1.0]
