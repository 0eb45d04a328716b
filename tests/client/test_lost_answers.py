"""Restarts whose answer is lost, or that reach the server after they were given up."""

from collections.abc import Callable, Iterator

import pytest
import torch

from little_servers import Asked, LittleServer, Proxy, answer
from pacesetter import Client, ServerUnavailableError, Session
from pacesetter.torch import RemoteLR
from serving import open_http

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
