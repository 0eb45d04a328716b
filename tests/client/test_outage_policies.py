"""Trainings that go on without the server for a while, and waits that end when they should."""

import itertools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from pacesetter import (
    AwaitingMeasurementError,
    Client,
    InvalidAnswerError,
    NotFoundError,
    Outage,
    OutagePolicy,
    ResumeError,
    ServerUnavailableError,
    Session,
    StaleAttemptError,
)
from pacesetter.torch import RemoteLR
from proxy import Proxy
from serving import PATIENCE, RunningService, open_http

COSINE = {"kind": "cosine", "total_steps": 20_000}
LONG = OutagePolicy("hold", patience=0.1, max_steps=10_000)
HOLD = OutagePolicy("hold", patience=0.1, max_steps=200)
FORECAST = OutagePolicy("forecast", patience=0.1, max_steps=200)


def _until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def _walk(session: Session, steps: range) -> list[float]:
    return [session.lr(step) for step in steps]


def _curve(client: Client, name: str) -> list[float]:
    curve: list[float] = client.forecast(name, count=10_000, points=10_000)["series"]["lr"]
    return curve


def _idle(session: Session) -> bool:
    """Return whether the thread has done all that it was sent to do."""
    with session._core.sync.lock:
        return not session._prefetcher._errands and not session._prefetcher.busy


def _away(_: httpx.Request) -> httpx.Response:
    return httpx.Response(503)


# -- what is used meanwhile --


def test_the_last_value_is_held(service: RunningService):
    """Past the window the training goes on at once with its last value, and later with the plan."""
    with Client(service.url, on_outage=LONG) as client:
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        curve = _curve(client, "run")
        seen = _held(service, session, curve)
        first = next(step for step, value in enumerate(seen) if value != curve[step])
        assert seen == curve[:first] + [curve[first - 1]] * (len(seen) - first)
        after = range(len(seen), len(seen) + 100)
        assert _walk(session, after) == curve[after.start : after.stop]


def _held(service: RunningService, session: Session, curve: list[float]) -> list[float]:
    """Kill the server under a training and start it again; return the values used until then."""
    seen = _walk(session, range(50))
    service.kill()
    while len(seen) < 200 or session.lr(len(seen)) != curve[len(seen)]:
        if len(seen) == 180:
            service.start()
        seen.append(session.lr(len(seen)))
        time.sleep(0.005)
    return seen


def test_the_forecast_is_followed(service: RunningService):
    """If nothing happens meanwhile, the training has the very bits that it would have had."""
    with Client(service.url, on_outage=FORECAST) as client:
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        curve = _curve(client, "run")
        _walk(session, range(50))
        _until(lambda: _idle(session))
        service.kill()
        assert _walk(session, range(50, 200)) == curve[50:200]
        service.start()
        assert _walk(session, range(200, 210)) == curve[200:210]


def test_the_forecast_knows_of_actions(service: RunningService):
    """After a change of the session the forecast is fetched anew."""
    with Client(service.url, on_outage=FORECAST) as client:
        session = client.create_session("run", base_lr=0.1)
        session.lr(0)
        with open_http(service.url) as http:
            answer = http.post("/v1/sessions/run/actions", json={"kind": "set", "lr": 0.7})
            assert answer.is_success, answer.text
        step = next(step for step in range(1, 10_000) if session.lr(step) == 0.7)
        _until(lambda: _idle(session))
        service.kill()
        assert _walk(session, range(step, step + 150)) == [0.7] * 150


def test_a_session_is_held_for_a_number_of_steps(fake_client: Client, fake: Any):
    """Then the training stops with the usual error, and can go on when the server is back."""
    with _client(fake, HOLD) as client:
        session = client.session("fake")
        session.lr(0)
        fake.fail = _away
        _walk(session, range(1, 201))
        for _ in range(2):
            with pytest.raises(ServerUnavailableError):
                session.lr(201)
        fake.fail = None
        assert session.lr(201) == 0.5


@pytest.mark.parametrize("end", [1, 2, 5, 8, 50])
def test_an_outage_seals_nothing_behind_the_plan(
    end: int, fake: Any, monkeypatch: pytest.MonkeyPatch
):
    """Steps asked for meanwhile end with the plan, and with the step that a scheduler sets."""
    described = fake.description
    monkeypatch.setattr(fake, "description", lambda: {**described(), "plan_end": end})
    with _client(fake, LONG) as client:
        session = client.session("fake")
        session.lr(0)
        fake.fail = _away
        _walk(session, range(1, end + 1))
        fake.fail = None
        _until(lambda: not session._prefetcher.busy)
        wants = [body["want"] for body in fake.bodies if "want" in body]
        assert max(want["start"] + want["count"] for want in wants) <= end + 1
        assert session.lr(end + 1) == 0.5  # later steps are there on demand


def test_a_session_is_held_for_a_time(fake: Any):
    """Seconds are a bound too, for steps that take long."""
    policy = OutagePolicy("hold", patience=0.1, max_seconds=0.3)
    with _client(fake, policy) as client:
        session = client.session("fake")
        session.lr(0)
        fake.fail = _away
        session.lr(1)
        time.sleep(0.5)
        with pytest.raises(ServerUnavailableError):
            _walk(session, range(2, 1000))


def test_sealed_steps_are_never_made_up(fake: Any):
    """Going back during an outage invents no value for a step that has one."""
    with _client(fake, HOLD) as client:
        session = client.session("fake")
        _walk(session, range(100))
        fake.fail = _away
        stop = session._core.window(99).stop
        session.lr(stop)
        with pytest.raises(ServerUnavailableError):
            session.lr(3)
        assert session.lr(stop + 1) == 0.5


def test_a_refusal_ends_the_holding(fake: Any):
    """A refusal by a server that is back is raised, though the policy would allow more steps."""
    policy = OutagePolicy("hold", patience=0.1, max_steps=100_000)
    stale = httpx.Response(409, json={"code": "stale_attempt", "detail": "Stop this process."})
    with _client(fake, policy) as client:
        session = client.session("fake")
        session.lr(0)
        fake.fail = _away
        session.lr(1)
        fake.fail = lambda _: stale
        step = itertools.count(2)
        with pytest.raises(StaleAttemptError, match="Stop this process"):
            _until(lambda: session.lr(next(step)) < 0)


def test_a_step_that_awaits_a_measurement_is_no_outage(fake: Any):
    """A server that waits for other ranks is reachable: nothing is held."""
    awaiting = httpx.Response(503, json={"code": "awaiting_measurement", "detail": "Ask again."})
    with _client(fake, HOLD) as client:
        session = client.session("fake")
        session.lr(0)
        fake.fail = lambda _: awaiting
        with pytest.raises(ServerUnavailableError, match="Ask again"):
            session.lr(1)


PLATEAU = {
    "kind": "plateau",
    "metric": "loss",
    "patience": 0,
    "factor": 0.5,
    "threshold": 10.0,
    "threshold_mode": "abs",
}


@pytest.mark.parametrize("patience", [0.5, 1.0, 5.0])
def test_a_healthy_server_that_awaits_a_measurement_is_not_left(
    patience: float, client: Client, unique_name: str
):
    """However short or long the patience, no step is trained past a pending decision."""
    policy = OutagePolicy("hold", patience=patience)
    with Client(client.url, max_wait=PATIENCE, on_outage=policy) as impatient:
        session = impatient.create_session(
            unique_name, base_lr=0.1, controllers=[PLATEAU], reaction={"decide_every": 4}
        )
        other = client.session(unique_name)
        _walk(session, range(4))
        other.report(0, loss=1.0)
        other.flush()
        late = threading.Timer(patience + 2.0, lambda: other.report(3, loss=1.0))
        late.start()
        assert session.lr(4) == 0.05
        late.join()


@pytest.mark.parametrize("policy", ["wait", OutagePolicy("hold", patience=1.0)])
def test_a_wait_for_a_measurement_says_which(
    policy: str | OutagePolicy, client: Client, unique_name: str
):
    """The final error does not advise starting a server that runs."""
    with Client(client.url, max_wait=3.0, on_outage=policy) as impatient:
        session = impatient.create_session(
            unique_name, base_lr=0.1, controllers=[PLATEAU], reaction={"decide_every": 4}
        )
        _walk(session, range(4))
        with pytest.raises(ServerUnavailableError, match="Step 4 waits for a decision") as raised:
            session.lr(4)
        assert isinstance(raised.value.__cause__, AwaitingMeasurementError)
        assert "was away" not in str(raised.value)


def test_decisions_are_made_up_for_after_an_outage(service: RunningService):
    """What was measured meanwhile decides the later steps, and nothing is waited for."""
    with Client(service.url, max_wait=PATIENCE, on_outage=LONG) as client:
        reaction = {"decide_every": 4, "timeout": 3600}
        session = client.create_session(
            "run", base_lr=0.1, controllers=[PLATEAU], reaction=reaction
        )
        steps = itertools.count()

        def train() -> float:
            step = next(steps)
            value = session.lr(step)
            session.report(step, loss=1.0)
            time.sleep(0.005)
            return value

        assert [train() for _ in range(4)] == [0.1] * 4
        service.kill()
        assert [train() for _ in range(10)] == [0.1] * 10
        service.start()
        _until(lambda: train() < 0.1)
        last = next(steps)
        session.lr(last)
        session.flush()
        sealed = client.lr("run", 0, count=13)["series"]["lr"]
        assert client.history("run")["metrics"]["loss"][:last] == [1.0] * last
    cuts = [0, 3, 7, 11]  # by each measurement but the first
    assert sealed == [0.1 * 0.5**number for number in cuts for _ in range(4)][:13]


def test_momentum_and_groups_are_held_too(fake: Any):
    """Each series goes on with its own last value."""
    fake.series = ("a.lr", "b.lr", "b.momentum")
    with _client(fake, HOLD) as client:
        session = client.session("fake")
        values = session.values(0)
        fake.fail = _away
        assert session.values(50) == values


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "guess"},
        {"patience": math.nan},
        {"patience": -1.0},
        {"max_steps": 0},
        {"max_seconds": -1.0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]):
    """It is refused before a training begins, not in its first outage."""
    with pytest.raises(ValueError, match=r"choose from|seconds of 0 or more"):
        OutagePolicy(**{"kind": "hold"} | options)


# -- listeners and logs --


def test_listeners_and_the_log_are_told(fake: Any, caplog: pytest.LogCaptureFixture):
    """They are told when it begins, when the bound is reached, and when it is over."""
    news: list[Outage] = []
    with _client(fake, OutagePolicy("hold", patience=0.1, max_steps=3)) as client:
        session = client.session("fake")
        session.on_outage(news.append)
        session.lr(0)
        fake.fail = _away
        _walk(session, range(1, 4))
        for _ in range(2):
            with pytest.raises(ServerUnavailableError):
                session.lr(4)
        fake.fail = None
        session.lr(4)
    assert [(each.state, each.first, each.step) for each in news] == [
        ("began", 1, 1),
        ("exhausted", 1, 4),
        ("over", 1, 4),
    ]
    for text in ("goes on without the server", "may not any longer", "follows the server again"):
        assert text in caplog.text


def test_there_is_nothing_to_hear_of_a_training_that_waits(fake_client: Client):
    """A listener that would never be called is refused."""
    with pytest.raises(ValueError, match="on_outage='hold'"):
        fake_client.session("fake").on_outage(print)


def test_the_server_is_told_what_was_used(service: RunningService, caplog: Any):
    """Held steps are sealed as planned, and recorded as deviating from where they do."""
    with Client(service.url, on_outage=LONG) as client:
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        curve = _curve(client, "run")
        seen = _held(service, session, curve)
        _until(lambda: "trained without the server, from step" in caplog.text)
        first = next(step for step, value in enumerate(seen) if value != curve[step])
        with open_http(service.url) as http:
            page = http.get("/v1/sessions/run/events", params={"kind": "rate_deviated"}).json()
        (event,) = page["events"]
        assert f"{len(seen) - first} differ" in caplog.text
    said = json.dumps(event)
    assert f'"step": {first}' in said
    assert repr(seen[first]) in said
    assert repr(curve[first]) in said


def test_what_was_measured_without_the_server_is_delivered(service: RunningService):
    """Steps are sealed before their reports are sent, which would be refused otherwise."""
    with Client(service.url, on_outage=HOLD) as client:
        session = client.create_session("run", base_lr=0.1)
        session.lr(0)
        service.kill()
        for step in range(150):
            session.lr(step)
            session.report(step, loss=1.0)
        service.start()
        session.flush()
        assert client.history("run", end=150)["metrics"]["loss"] == [1.0] * 150


# -- starting without the server --


def test_a_training_starts_by_a_file(service: RunningService, tmp_path: Path):
    """The file has the session and its curve; the server takes over when it is back."""
    path = tmp_path / "run.json"
    with Client(service.url) as client:
        client.create_session("run", schedule=COSINE, base_lr=0.1)
        curve = _curve(client, "run")
        client.export_bootstrap("run", path)
    assert [each.name for each in tmp_path.iterdir() if "run" in each.name] == ["run.json"]
    service.kill()
    with Client(service.url, on_outage=FORECAST, retry_for=0.2) as client:
        session = client.session("run", bootstrap=path)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=9.0)
        scheduler = RemoteLR(optimizer, session)
        for step in range(150):
            assert optimizer.param_groups[0]["lr"] == curve[step]
            scheduler.step()
        service.start()
        for step in range(150, 199):
            assert optimizer.param_groups[0]["lr"] == curve[step]
            scheduler.step()
        _until(lambda: _idle(session))
        assert _walk(session, range(199, 400)) == curve[199:400]


@dataclass
class _Job:
    """A life of a job whose own connection is cut by a proxy, while other clients get through."""

    scheduler: RemoteLR
    proxy: Proxy
    curve: list[float]

    def train(self, steps: int) -> None:
        """Train and report; each step must have the planned rate."""
        for _ in range(steps):
            step = self.scheduler.last_epoch
            assert float(self.scheduler.optimizer.param_groups[0]["lr"]) == self.curve[step]
            self.scheduler.session.report(step, loss=1.0)
            self.scheduler.step()

    def train_until_met(self) -> None:
        """Reconnect the server, and train until it has answered."""
        self.proxy.mend()
        _until(lambda: self.train(1) or self.scheduler.session._core.met)


@pytest.fixture(name="cut_off")
def _cut_off(
    server_url: str, client: Client, unique_name: str, tmp_path: Path
) -> Iterator[Callable[[], _Job]]:
    """Train 60 steps and report; return the start file from step 0 for the next life."""
    path = tmp_path / "run.json"
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    client.export_bootstrap(unique_name, path)
    curve = _curve(client, unique_name)
    first = RemoteLR(torch.optim.SGD([torch.zeros(2)], lr=0.1), session)
    for _ in range(60):
        first.step()
    session.flush()
    with Proxy(server_url) as proxy:
        proxy.cut()
        policy = OutagePolicy("forecast", patience=0.1, max_steps=2000)
        with Client(
            proxy.url, on_outage=policy, retry_for=0.2, timeout=2.0, max_wait=PATIENCE
        ) as cut:

            def start() -> _Job:
                optimizer = torch.optim.SGD([torch.zeros(2)], lr=0.1)
                opened = cut.session(unique_name, bootstrap=path)
                return _Job(RemoteLR(optimizer, opened), proxy, curve)

            yield start
            proxy.mend()


def _attempts(url: str, name: str) -> list[tuple[int, int]]:
    with open_http(url) as http:
        found = http.get(f"/v1/sessions/{name}/attempts").json()["attempts"]
    return [(each["attempt"], each["start"]) for each in found]


def test_a_checkpoint_loaded_without_the_server_opens_an_attempt(
    cut_off: Callable[[], _Job], client: Client, server_url: str, unique_name: str
):
    """When the server is back, it gets the step; what was reported meanwhile counts there."""
    old = client.session(unique_name)
    job = cut_off()
    job.scheduler.load_state_dict({"last_epoch": 30, "attempt": 1})
    job.train(20)
    assert job.scheduler.state_dict()["attempt"] == 1
    job.train_until_met()
    job.train(10)
    job.scheduler.flush()
    assert job.scheduler.state_dict()["attempt"] == 2
    assert _attempts(server_url, unique_name) == [(1, 0), (2, 30)]
    history = client.history(unique_name, start=30, end=50)
    assert history["metrics"]["loss"] == [1.0] * 20
    with pytest.raises(StaleAttemptError):
        _walk(old, range(5000, 100_000))


def test_a_rollback_without_the_server_is_of_the_same_attempt(
    cut_off: Callable[[], _Job], client: Client, server_url: str, unique_name: str
):
    """The server never heard of the undone steps, so one attempt begins where the first did."""
    job = cut_off()
    job.scheduler.load_state_dict({"last_epoch": 30, "attempt": 1})
    job.train(20)
    job.scheduler.load_state_dict(job.scheduler.state_dict() | {"last_epoch": 40})
    job.train(20)
    job.train_until_met()
    job.scheduler.flush()
    assert _attempts(server_url, unique_name) == [(1, 0), (2, 30)]
    assert client.history(unique_name, start=30, end=60)["metrics"]["loss"] == [1.0] * 30


def test_a_checkpoint_newer_than_the_file_is_believed(
    cut_off: Callable[[], _Job], client: Client, server_url: str, unique_name: str
):
    """The file is of attempt 1, the checkpoint of attempt 2: the next one is 3."""
    second = client.session(unique_name, step=20)
    _walk(second, range(20, 40))
    job = cut_off()
    job.scheduler.load_state_dict({"last_epoch": 30, "attempt": 2})
    job.train(10)
    job.train_until_met()
    assert _attempts(server_url, unique_name) == [(1, 0), (2, 20), (3, 30)]


def test_who_is_cut_off_does_not_fence_who_is_not(
    cut_off: Callable[[], _Job], client: Client, server_url: str, unique_name: str
):
    """A life that was started elsewhere meanwhile has taken over: the one cut off must stop."""
    job = cut_off()
    job.scheduler.load_state_dict({"last_epoch": 30, "attempt": 1})
    job.train(20)
    other = client.session(unique_name, step=30)
    with pytest.raises(StaleAttemptError, match=r"attempt 2 .* began at step 30 without"):
        job.train_until_met()
    assert _attempts(server_url, unique_name) == [(1, 0), (2, 30)]
    assert _walk(other, range(30, 60)) == job.curve[30:60]


def test_a_beginning_by_a_file_is_judged_like_any_other(
    cut_off: Callable[[], _Job], client: Client, unique_name: str
):
    """If another job has opened an attempt since, this one must not train with its steps."""
    client.session(unique_name, step=20)
    job = cut_off()
    job.train(20)
    with pytest.raises(ResumeError, match="attempt 2"):
        job.train_until_met()


def test_a_step_beyond_the_last_needs_no_attempt(
    cut_off: Callable[[], _Job], server_url: str, unique_name: str
):
    """A step that was never trained is not trained again."""
    job = cut_off()
    job.scheduler.load_state_dict({"last_epoch": 9000, "attempt": 1})
    job.train(20)
    job.train_until_met()
    assert _attempts(server_url, unique_name) == [(1, 0)]


def test_a_file_of_a_session_that_is_gone_does_not_hide_that(
    service: RunningService, tmp_path: Path
):
    """The server's answer takes precedence over the file's."""
    path = tmp_path / "run.json"
    with Client(service.url, on_outage=HOLD) as client:
        client.create_session("run", base_lr=0.1)
        client.export_bootstrap("run", path)
        stored = json.loads(path.read_text())
        stored["session"]["name"] = "other"
        path.write_text(json.dumps(stored))
        with pytest.raises(NotFoundError):
            client.session("other", bootstrap=path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: stored["values"]["series"].update(lr=[0.1, math.nan]),
        lambda stored: stored["values"]["series"].update(lr=[0.1, -1.0]),
        lambda stored: stored["values"]["series"].update(lr=[]),
        lambda stored: stored["values"]["series"].clear(),
        lambda stored: stored.update(bootstrap=2),
        lambda stored: stored.pop("session"),
        lambda stored: stored["session"].update(name="other"),
        lambda stored: stored["session"].update(series=[]),
    ],
)
def test_a_file_that_is_unfit_is_refused(
    spoil: Callable[[dict[str, Any]], Any], fake: Any, tmp_path: Path
):
    """A file of another session, of another version, or with NaN in it starts no training."""
    path = tmp_path / "fake.json"
    stored = {
        "bootstrap": 1,
        "session": fake.description(),
        "values": {"start": 0, "sealed_until": 0, "series": {"lr": [0.5] * 10}},
    }
    spoil(stored)
    path.write_text(json.dumps(stored))
    with _client(fake, FORECAST) as client, pytest.raises(InvalidAnswerError, match="export_boot"):
        client.session("fake", bootstrap=path)


def test_a_file_needs_a_policy(fake_client: Client, tmp_path: Path):
    """With `wait`, a training that started by a file would stop at its first step."""
    with pytest.raises(ValueError, match="on_outage='hold' or 'forecast'"):
        fake_client.session("fake", bootstrap=tmp_path / "any")


# -- bounds --


@contextmanager
def _client(fake: Any, policy: OutagePolicy) -> Iterator[Client]:
    transport = httpx.MockTransport(fake)
    with Client(
        "http://fake", transport=transport, retry_for=0.5, max_wait=0.5, on_outage=policy
    ) as client:
        yield client


def _stop(service: RunningService, _: Proxy) -> None:
    service.process.send_signal(signal.SIGSTOP)


def _kill(service: RunningService, _: Proxy) -> None:
    service.kill()


def _cut(_: RunningService, proxy: Proxy) -> None:
    proxy.cut()


def _slow(_: RunningService, proxy: Proxy) -> None:
    proxy.pause, proxy.piece = 0.3, 1


HARD = 10.0
"""The seconds that separate a bounded wait from an unbounded one, on a machine that stalls."""


@pytest.mark.parametrize("fault", [_stop, _kill, _cut, _slow])
@pytest.mark.parametrize("policy", [OutagePolicy(), HOLD])
def test_no_step_waits_longer_than_it_may(
    fault: Callable[[RunningService, Proxy], None], policy: OutagePolicy, service: RunningService
):
    """The server may be stopped, dead, cut off, or answer byte by byte for minutes."""
    with (
        Proxy(service.url) as proxy,
        Client(proxy.url, max_wait=1.0, timeout=60.0, on_outage=policy) as client,
    ):
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        session.lr(0)
        fault(service, proxy)
        longest = 0.0
        failed = False
        for step in itertools.count(1):
            began = time.monotonic()
            try:
                session.lr(step)
            except ServerUnavailableError:
                failed = True
            longest = max(longest, time.monotonic() - began)
            if failed:
                break
        assert longest < HARD
        assert step > 200 or not policy.goes_on
        if fault is _stop:
            service.process.send_signal(signal.SIGCONT)
        proxy.pause = 0.0
        proxy.mend()
        if fault is _kill:
            service.start()
        _until(lambda: _succeeds(session, step))
        session._prefetcher.stop()


def _succeeds(session: Session, step: int) -> bool:
    try:
        session.lr(step)
    except ServerUnavailableError:
        return False
    return True
