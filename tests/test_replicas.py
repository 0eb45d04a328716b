"""Several processes of the service on one PostgreSQL database answer as one would."""

import contextlib
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

import postgres
from balancer import Balancer
from little_servers import LittleServer
from outages import endure
from pacesetter import Client
from pacesetter_service.core.tokens import Token
from pacesetter_service.runtime import polling
from pacesetter_service.runtime.keyring import Keyring, digest_of
from pacesetter_service.runtime.polling import Poller
from pacesetter_service.runtime.signals import Signals
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.store import Store
from serving import PATIENCE, RunningService, open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "factor": 0.5, "patience": 1}
SPEC: dict[str, Any] = {
    "schedule": {"kind": "cosine", "total_steps": 1000},
    "base_lr": 0.1,
    "controllers": [PLATEAU],
}
ADMIN = "an-admin-token-of-these-tests"


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    """Return the URL of an empty PostgreSQL database."""
    with postgres.database() as url:
        yield url


@pytest.fixture(name="replicas")
def _replicas(url: str) -> Iterator[tuple[RunningService, RunningService]]:
    """Start two services on one database."""
    with RunningService(url) as one, RunningService(url) as two:
        yield one, two


def losses(steps: int) -> list[float]:
    """Return a loss for each step, which gets better now and then."""
    draw = random.Random(7)
    return [1.0 / (1 + step // 20) + draw.random() for step in range(steps)]


def test_replicas_give_the_bits_that_one_process_gives(
    replicas: tuple[RunningService, RunningService], tmp_path: Path
) -> None:
    """A training whose calls go to two replicas in turn has the rates of one on SQLite."""

    def train(services: Sequence[RunningService]) -> list[float]:
        rates = []
        with contextlib.ExitStack() as opened:
            https = [opened.enter_context(open_http(service.url)) for service in services]
            https[0].post("/v1/sessions", json={"name": "run", **SPEC}).raise_for_status()
            for step, loss in enumerate(losses(80)):
                http = https[step % len(https)]
                want = {"attempt": 1, "want": {"start": step, "count": 1}}
                answer = http.post("/v1/sessions/run/sync", json=want).raise_for_status().json()
                rates += answer["series"]["lr"]
                told = {"attempt": 1, "reports": [{"step": step, "metrics": {"loss": loss}}]}
                http.post("/v1/sessions/run/sync", json=told).raise_for_status()
        return rates

    with RunningService(tmp_path / "alone.db") as alone:
        expected = train([alone])
    assert train(replicas) == expected
    with Client(replicas[0].url) as one, Client(replicas[1].url) as two:
        assert one.history("run")["metrics"]["loss"][:80] == losses(80)
        assert list(one.events("run")) == list(two.events("run"))
        assert sum(each["kind"] == "decided" for each in one.events("run")) > 5


def test_a_call_that_is_held_at_one_replica_goes_on_by_a_report_at_another(
    replicas: tuple[RunningService, RunningService],
) -> None:
    """Rank 0 waits at one for the loss of rank 1, which is reported to another."""
    reaction = {"decide_every": 4, "timeout": 3600.0}
    with open_http(replicas[0].url) as one, open_http(replicas[1].url) as two:
        body = {"name": "run", **SPEC, "reaction": reaction, "ranks": 2}
        one.post("/v1/sessions", json=body).raise_for_status()
        want = {"attempt": 1, "want": {"start": 0, "count": 4}}
        one.post("/v1/sessions/run/sync", json=want).raise_for_status()
        found: list[Any] = []

        def wait() -> None:
            held = {"attempt": 1, "rank": 0, "want": {"start": 4, "count": 1}}
            while not found or found[-1].status_code == 409:
                found.append(one.post("/v1/sessions/run/sync", json=held))

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        for rank, http in enumerate((one, two)):
            reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(4)]
            told = {"attempt": 1, "rank": rank, "reports": reports}
            http.post("/v1/sessions/run/sync", json=told).raise_for_status()
        waiting.join(PATIENCE)
        assert found[-1].status_code == 200, found[-1].text


def test_who_follows_a_session_at_one_replica_hears_what_another_was_ordered(
    replicas: tuple[RunningService, RunningService],
) -> None:
    """The feed of events goes on wherever they happen."""
    with Client(replicas[0].url) as one, Client(replicas[1].url) as two:
        one.create_session("run", **SPEC)
        events = one.events("run", follow=True)
        assert next(events)["kind"] == "created"
        found: list[dict[str, Any]] = []
        following = threading.Thread(target=lambda: found.append(next(events)), daemon=True)
        following.start()
        with open_http(two.url) as http:
            act = {"kind": "scale", "factor": 0.5}
            http.post("/v1/sessions/run/actions", json=act).raise_for_status()
        following.join(PATIENCE)
        assert [each["kind"] for each in found] == ["ordered"]
        events.close()  # type: ignore[attr-defined]


def test_the_ranks_of_all_replicas_are_shown_by_each(url: str) -> None:
    """Rank 0 calls at one, rank 1 at the other, rank 2 at both: each shows all, and counts them.

    What a replica knew stays known after it has ended.
    """
    with RunningService(url) as one, open_http(one.url) as http:
        http.post("/v1/sessions", json={"name": "run", **SPEC, "ranks": 4}).raise_for_status()
        with RunningService(url) as two, open_http(two.url) as other:

            def call(at: Any, rank: int, **more: Any) -> None:
                body = {"attempt": 1, "rank": rank, **more}
                at.post("/v1/sessions/run/sync", json=body).raise_for_status()

            call(http, 0, want={"start": 0, "count": 1})
            deviating = {"step": 0, "values": {"lr": 0.7}}
            for at in (http, other):
                call(at, 1, applied=deviating)
            call(http, 2, want={"start": 0, "count": 1}, progress={"step": 0})
            call(other, 2, reports=[{"step": 0, "metrics": {"loss": 1.0}}])
            for at in (http, other):
                until(lambda at=at: _shown(at)["summary"]["seen"] == 3)
                until(lambda at=at: _rank(at, 2)["reported"] == 0)
                until(lambda at=at: _rank(at, 2)["asked"] == 0)
                assert _shown(at)["summary"]["missing"]["ranks"] == [3]
                assert _shown(at)["summary"]["deviating"]["ranks"] == [1]
                assert _rank(at, 1)["applied"]["values"][0]["applied"] == 0.7
                until(lambda at=at: "pacesetter_deviating_ranks 1.0" in at.get("/metrics").text)
                until(lambda at=at: "pacesetter_ranks 3.0" in at.get("/metrics").text)
            stale = other.get("/v1/sessions/run/ranks", params={"stale_after": 0}).json()
            assert stale["summary"]["stale"]["ranks"] == [0, 1, 2]
            kinds = [each["kind"] for each in http.get("/v1/sessions/run/events").json()["events"]]
            assert kinds.count("rate_deviated") == 1
            call(http, 1, applied={"step": 0, "values": {"lr": 0.1}})
            until(lambda: not _shown(other)["summary"]["deviating"]["count"])
            call(other, 3, want={"start": 0, "count": 1})
        until(lambda: _shown(http)["summary"]["seen"] == 4)
    with RunningService(url) as three, open_http(three.url) as http:
        assert [each["rank"] for each in _shown(http)["ranks"]] == [0, 1, 2, 3]


def _shown(http: Any) -> Any:
    return http.get("/v1/sessions/run/ranks").raise_for_status().json()


def _rank(http: Any, number: int) -> Any:
    [found] = [each for each in _shown(http)["ranks"] if each["rank"] == number]
    return found


def test_what_a_newer_version_adds_to_a_rank_stops_no_older_one(
    url: str, replicas: tuple[RunningService, RunningService]
) -> None:
    """In a rolling upgrade orders and figures are answered, and ranks are still told to others."""
    more = "UPDATE ranks SET state = '{\"added\":1,' || replace(substr(state, 2), %s, %s)"
    with open_http(replicas[0].url) as one, open_http(replicas[1].url) as two:
        one.post("/v1/sessions", json={"name": "run", **SPEC}).raise_for_status()

        def call(step: int) -> None:
            body = {"attempt": 1, "progress": {"step": 0, "seconds_per_step": 1.0}}
            applied = {"step": step, "values": {"lr": 0.7}}
            want = {"start": step + 1, "count": 1}
            one.post("/v1/sessions/run/sync", json={**body, "want": want}).raise_for_status()
            told = {**body, "applied": applied}
            one.post("/v1/sessions/run/sync", json=told).raise_for_status()

        one.post("/v1/sessions/run/sync", json={"attempt": 1, "step": 0}).raise_for_status()
        call(0)
        until(lambda: _applied_at(two) == 0)
        with psycopg.connect(url.replace("+psycopg", "")) as database:
            changed = database.execute(more, ('"precision"', '"added":2,"precision"'))
            assert changed.rowcount == 1
        for http in (two, one):
            answer = http.post("/v1/sessions/run/actions", json={"kind": "scale", "factor": 0.5})
            assert (answer.status_code, answer.json()["steps_away"] is None) == (201, False)
            assert http.get("/metrics").status_code == 200
        call(1)
        until(lambda: _applied_at(two) == 1)


def _applied_at(http: Any) -> Any:
    """Return the step at which rank 0 last said what it applied; None if it has not said."""
    ranks = _shown(http)["ranks"]
    return ranks[0]["applied"]["step"] if ranks and ranks[0]["applied"] else None


def test_a_token_of_one_replica_is_one_of_all(url: str) -> None:
    """A token from one replica is soon accepted at another, and a revoked one soon refused."""
    with (
        RunningService(url, admin_token=ADMIN) as first,
        RunningService(url, admin_token=ADMIN) as second,
        open_http(first.url) as http,
    ):
        http.headers["authorization"] = f"Bearer {ADMIN}"
        made = http.post("/v1/tokens", json={"name": "ann", "role": "viewer"}).json()
        with open_http(second.url) as other:
            other.headers["authorization"] = f"Bearer {made['token']}"
            until(lambda: other.get("/v1/sessions").status_code == 200)
            http.delete(f"/v1/tokens/{made['id']}").raise_for_status()
            until(lambda: other.get("/v1/sessions").status_code == 401)


def until(condition: Any) -> None:
    """Wait for a condition."""
    patience = threading.Event()
    for _ in range(int(PATIENCE * 10)):
        if condition():
            return
        patience.wait(0.1)
    raise AssertionError("it did not come about")


def test_replicas_that_are_killed_lose_nothing(url: str) -> None:
    """A training behind a balancer sees no error, uses sealed values, and all is recorded."""
    steps, rates = 60, []
    services = [RunningService(url).start() for _ in range(2)]
    ports = [int(each.url.rpartition(":")[2]) for each in services]
    down = threading.Thread()
    down.start()
    try:
        with LittleServer(Balancer(ports)) as balancer, Client(balancer.url) as client:
            session = client.create_session("run", **SPEC)
            for step, loss in enumerate(losses(steps)):
                rates.append(session.lr(step))
                session.report(step, loss=loss)
                session.flush()
                if step % 10 == 0:
                    down.join(PATIENCE)
                    services[step // 10 % 2].kill()
                    down = threading.Thread(target=services[step // 10 % 2].start)
                    down.start()
            down.join(PATIENCE)
            assert rates == client.lr("run", 0, count=steps)["series"]["lr"]
            assert client.history("run")["metrics"]["loss"][:steps] == losses(steps)
    finally:
        down.join(PATIENCE)
        for service in services:
            service.stop()
    assert sum('"serving"' in line for service in services for line in service.log) == 2 + 6


def test_a_database_that_is_killed_costs_retries_alone() -> None:
    """Acknowledged reports are kept, values stay as they were, and no trainer sees an error.

    Meanwhile a call is told that the database is away, and so is a readiness probe.
    """
    with (
        postgres.private_server() as server,
        RunningService(server.create("lr")) as service,
        Client(service.url) as client,
        open_http(service.url) as http,
    ):
        trainers = [_Trainer(client, f"run-{number}") for number in range(2)]
        for each in trainers:
            each.start()
        for _ in range(2):
            for each in trainers:
                each.await_steps(8)
            server.kill()
            answers = [
                http.get("/readyz"),
                http.post("/v1/sessions/run-0/sync", json={}),
                http.post("/v1/sessions", json={"name": "new", "base_lr": 0.1}),
                http.get("/v1/templates"),
            ]
            server.start()
            for answer in answers:
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "storage_unavailable"
                assert "PostgreSQL cannot be reached" in answer.json()["detail"]
            assert http.get("/readyz").status_code == 200
        for each in trainers:
            each.finish()
            assert each.failure is None
            steps = len(each.rates)
            assert client.history(each.name)["metrics"]["loss"][:steps] == losses(steps)
            assert client.lr(each.name, 0, count=steps)["series"]["lr"] == each.rates


def test_outages_of_services_and_of_the_database_lose_nothing(tmp_path: Path) -> None:
    """Behind PgBouncer, trainers and an operator use any of three; `make soak` has more."""
    toll = endure(tmp_path, kills=3, restarts=1)
    assert toll.is_nothing, str(toll)
    assert toll.orders
    assert min(toll.reports, toll.values) > 50


class _Trainer:
    """Trains a session step by step on a separate thread, until it is told to finish."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.rates: list[float] = []
        self.failure: BaseException | None = None
        self._session = client.create_session(name, **SPEC)
        self._finishing = False
        self._stepped = threading.Condition()
        self._thread = threading.Thread(target=self._train, daemon=True)
        self.start = self._thread.start

    def _train(self) -> None:
        try:
            for step, loss in enumerate(losses(1000)):
                if self._finishing:
                    break
                rate = self._session.lr(step)
                self._session.report(step, loss=loss)
                with self._stepped:
                    self.rates.append(rate)
                    self._stepped.notify_all()
            self._session.flush()
        except BaseException as failure:
            self.failure = failure
            raise

    def await_steps(self, more: int) -> None:
        """Wait until it has made that many more steps."""
        wanted = len(self.rates) + more
        with self._stepped:
            assert self._stepped.wait_for(lambda: len(self.rates) >= wanted, PATIENCE)

    def finish(self) -> None:
        """Let it deliver its remaining reports, and end."""
        self._finishing = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_a_look_that_fails_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any failure of one query of the database, the next one still runs."""
    store = SqliteStore(f"sqlite:///{tmp_path}/shared.db", shared=True)
    looked, versions = threading.Event(), store.versions

    def failing_once(names: Iterable[str]) -> dict[str, int]:
        monkeypatch.setattr(store, "versions", lambda names: looked.set() or versions(names))
        raise RuntimeError("a fault in the service")

    monkeypatch.setattr(store, "versions", failing_once)
    signals = Signals()
    monkeypatch.setattr(signals, "awaited", lambda: ("run",))
    poller = Poller(store, None, (signals,))
    poller.start()
    try:
        assert looked.wait(PATIENCE)
    finally:
        poller.stop()
        store.close()


def test_a_read_of_the_tokens_undoes_no_change_that_it_was_too_early_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made or revoked here during a slow read holds, and the tokens are read again."""
    old, new = (Token(each, each, "viewer", digest_of(each.encode()), "", None) for each in "ab")
    keys, began, go_on, read_again = Keyring(ADMIN, [old]), *(threading.Event() for _ in range(3))
    valid: list[bool] = []

    def slowly(_: Store) -> list[Token]:
        if not began.is_set():
            began.set()
            assert go_on.wait(PATIENCE)
            return [old]
        valid.extend(keys.holder(secret) is not None for secret in (b"a", b"b"))
        read_again.set()
        return [new]

    monkeypatch.setattr(polling, "TOKENS_EVERY", 0.0)
    monkeypatch.setattr(polling, "read_tokens", slowly)
    store = SqliteStore(f"sqlite:///{tmp_path}/shared.db", shared=True)
    poller = Poller(store, keys, ())
    poller.start()
    try:
        assert began.wait(PATIENCE)
        keys.add(new)
        keys.remove(old.id)
        go_on.set()
        assert read_again.wait(PATIENCE)
    finally:
        poller.stop()
        store.close()
    assert valid[:2] == [False, True]
