"""Restarts whose answer is lost, or that reach the server after they were given up."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from little_servers import Asked, LittleServer, Proxy, answer
from pacesetter import (
    AuthenticationError,
    Client,
    InvalidRequestError,
    ResumeError,
    ServerUnavailableError,
    Session,
    StaleAttemptError,
)
from pacesetter._torch.deferred import DeferredLR
from pacesetter._torch.trainer import TrainerLR
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
        if isinstance(scheduler, DeferredLR):
            scheduler.advance()


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


# -- positions --


def _refuse_values(asked: Asked) -> bytes | None:
    return answer(401) if asked.target.endswith("/sync") else None


def _stands(scheduler: RemoteLR) -> tuple[int, float]:
    """Return the step of a scheduler, and the rate that its optimizer holds."""
    return scheduler.last_epoch, scheduler.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("kind", [RemoteLR, DeferredLR, TrainerLR])
@pytest.mark.parametrize("step", [5 * 10**8, 2**63])
def test_a_step_that_is_refused_moves_no_scheduler(
    client: Client, unique_name: str, kind: type[RemoteLR], step: int
):
    """A checkpoint whose step cannot be had leaves position and rate, and the training goes on."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    scheduler = kind(_sgd(), session)
    _train(scheduler, 10)
    before = _stands(scheduler)
    with pytest.raises(InvalidRequestError):
        scheduler.load_state_dict({"last_epoch": step})
    assert (_stands(scheduler), session.attempt) == (before, 1)
    assert session._core.sync.progress[0] <= 10
    _train(scheduler, 1)
    assert _stands(scheduler) == (11, session.lr(11))


@pytest.mark.parametrize("kind", [RemoteLR, DeferredLR, TrainerLR])
def test_a_step_is_not_trained_at_the_rate_of_an_attempt_that_is_over(
    proxy: Proxy, client: Client, unique_name: str, kind: type[RemoteLR]
):
    """The attempt was opened, and its values did not come: the next step says so, until they do."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    scheduler = kind(_sgd(), session)
    _train(scheduler, 4)
    state, sealed = scheduler.state_dict(), _stands(scheduler)
    _train(scheduler, 6)
    proxy.fault = _refuse_values
    with pytest.raises(AuthenticationError):
        scheduler.load_state_dict(state)
    proxy.fault = lambda _: None
    assert session.attempt == 2
    with pytest.raises(ResumeError, match="taken back to step 4"):
        _train(scheduler, 1)
    scheduler.load_state_dict(state)
    assert _stands(scheduler) == sealed
    _train(scheduler, 1)
    assert _stands(scheduler) == (5, session.lr(5))


def test_every_scheduler_of_a_session_that_went_back_must_follow(
    proxy: Proxy, client: Client, unique_name: str
):
    """If values for one do not come, none of them trains a step before it has its own."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    schedulers = [RemoteLR(_sgd(), session) for _ in range(3)]
    for scheduler in schedulers:
        _train(scheduler, 4)
    state = schedulers[0].state_dict()
    for scheduler in schedulers:
        _train(scheduler, 6)
    proxy.fault = _refuse_values
    with pytest.raises(AuthenticationError):
        schedulers[0].load_state_dict(state)
    proxy.fault = lambda _: None
    for scheduler in schedulers:
        with pytest.raises(ResumeError, match="taken back to step 4"):
            _train(scheduler, 1)
    session.restart(4)
    for scheduler in schedulers:
        assert _stands(scheduler) == (4, session.lr(4))
        _train(scheduler, 1)
        assert _stands(scheduler) == (5, session.lr(5))


def test_a_session_that_was_sent_back_in_vain_begins_there(
    proxy: Proxy, client: Client, unique_name: str
):
    """A scheduler that could not follow a restart does not keep later ones from beginning there."""
    session = client.session(unique_name, base_lr=0.1, schedule=EXPONENTIAL)
    scheduler = RemoteLR(_sgd(), session)
    _train(scheduler, 10)
    proxy.fault = _refuse_values
    with pytest.raises(AuthenticationError):
        session.restart(4)
    proxy.fault = lambda _: None
    del scheduler
    assert _stands(RemoteLR(_sgd(), session)) == (4, session.lr(4))
