"""Restarts whose answer is lost, or that reach the server after they were given up."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from little_servers import Asked, LittleServer, Proxy, answer
from pacesetter import (
    AuthenticationError,
    Client,
    ServerUnavailableError,
    Session,
    StaleAttemptError,
)
from pacesetter.torch import RemoteLR
from serving import PATIENCE, open_http

EXPONENTIAL = {"kind": "exponential", "gamma": 0.9}


@pytest.fixture(name="proxy")
def _proxy(server_url: str) -> Proxy:
    """Return a proxy of the shared service."""
    return Proxy(server_url.removeprefix("http://"))


@pytest.fixture(name="client")
def _client(proxy: Proxy) -> Iterator[Client]:
    """Return a client behind the proxy."""
    with LittleServer(proxy) as between, Client(between.url) as client:
        yield client


def _opens_attempt(asked: Asked) -> bool:
    return asked.method == "POST" and asked.target.endswith("/attempts")


def _fail(session: Session, go_back: Callable[[], None]) -> None:
    """Go back while the session does not wait long for an answer that never comes."""
    max_wait = session._prefetcher.max_wait
    session._prefetcher.max_wait = 0.1
    with pytest.raises(ServerUnavailableError):
        go_back()
    session._prefetcher.max_wait = max_wait


def _walk(session: Session, steps: range) -> list[float]:
    return [session.lr(step) for step in steps]


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _restart_in_vain(proxy: Proxy, session: Session, step: int) -> None:
    """Go back in an attempt that is opened, whose answer is lost, and whose repetition fails."""
    lost = []

    def loses(asked: Asked) -> bool:
        if _opens_attempt(asked):
            lost.append(asked)
        return asked in lost

    proxy.loses = loses
    proxy.fault = lambda asked: answer(401) if lost and _opens_attempt(asked) else None
    with pytest.raises(AuthenticationError):
        session.restart(step)
    assert lost


def _let_the_thread_report(proxy: Proxy, session: Session) -> None:
    """Wait until the thread has called the server with reports, and done what its answer means."""
    _wait_until(lambda: any(b"reports" in each.body for each in proxy.asked))
    with session._core.sync.lock:  # which the thread holds until it has
        pass


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def _train(scheduler: RemoteLR, steps: int) -> None:
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()


# -- late arrivals --


@pytest.mark.parametrize("integration", ["loop", "torch"])
def test_a_restart_that_arrives_late_fences_no_training(
    proxy: Proxy, client: Client, server_url: str, unique_name: str, integration: str
):
    """A restart that is repeated keeps its key: the first call opens no second attempt."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    scheduler = RemoteLR(_sgd(), session)
    if integration == "torch":
        _train(scheduler, 7)
        state = scheduler.state_dict()
        _train(scheduler, 3)
    else:
        _walk(session, range(10))

    def go_back() -> None:
        if integration == "torch":
            scheduler.load_state_dict(state)
        else:
            session.restart(7)

    proxy.fault = lambda asked: answer(504) if _opens_attempt(asked) else None
    _fail(session, go_back)
    late = [asked for asked in proxy.asked if _opens_attempt(asked)]
    proxy.fault = lambda _: None
    go_back()
    assert session.attempt == 2
    _walk(session, range(7, 20))
    with open_http(server_url) as http:
        for asked in late:
            headers = {"content-type": "application/json"}
            http.post(asked.target, content=asked.body, headers=headers).raise_for_status()
    _walk(session, range(20, 1000))
    assert [each["attempt"] for each in client.attempts(unique_name)] == [1, 2]


def test_a_later_restart_to_the_same_step_opens_another_attempt(
    proxy: Proxy, client: Client, unique_name: str
):
    """A key is kept only until its restart is answered."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    _walk(session, range(10))
    proxy.fault = lambda asked: answer(504) if _opens_attempt(asked) else None
    _fail(session, lambda: session.restart(5))
    proxy.fault = lambda _: None
    for attempt in (2, 3):
        session.restart(5)
        _walk(session, range(5, 10))
        assert session.attempt == attempt


# -- reports --


def test_a_restart_whose_answer_is_lost_costs_no_report(
    proxy: Proxy, client: Client, unique_name: str
):
    """Reports of steps before it are refused for the old attempt, and delivered for the new one."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    _walk(session, range(10))
    with session._core.sync.lock:  # so that the thread has not delivered them before
        for step in range(10):
            session.report(step, loss=1.0)
        _restart_in_vain(proxy, session, 8)
    _let_the_thread_report(proxy, session)
    assert len(session._core.sync.reports) == 10
    calls = len(proxy.asked)
    for _ in range(3):
        session._prefetcher._work()
    assert len(proxy.asked) == calls  # it does not go on asking
    proxy.fault, proxy.loses = (lambda _: None), (lambda _: False)
    session.restart(8)
    assert session.attempt == 2
    for step in range(8, 12):
        session.lr(step)
        session.report(step, loss=2.0)
    session.flush()
    history = client.history(unique_name, points=100)
    stored = dict(zip(history["steps"], history["metrics"]["loss"], strict=True))
    assert [stored[step] for step in range(12)] == [1.0] * 8 + [2.0] * 4


def test_a_trainer_that_was_replaced_gives_its_reports_up(
    proxy: Proxy, client: Client, unique_name: str
):
    """Another job has begun since the restart whose answer was lost: nothing is kept for it."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    _walk(session, range(10))
    with session._core.sync.lock:
        for step in range(10):
            session.report(step, loss=1.0)
        _restart_in_vain(proxy, session, 8)
    proxy.fault, proxy.loses = (lambda _: None), (lambda _: False)
    client.session(unique_name, step=4, attempt_key="another")
    _let_the_thread_report(proxy, session)
    with pytest.raises(StaleAttemptError):
        session.restart(8)
    _wait_until(lambda: len(session._core.sync.reports) == 0)
    assert "loss" not in client.history(unique_name, points=100)["metrics"]
