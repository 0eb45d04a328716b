"""A server that dies and comes back, under a client that goes on."""

import logging
import threading
import time

import pytest

from pacesetter import Client, ServerUnavailableError
from serving import PATIENCE, RunningService

COSINE = {"kind": "cosine", "total_steps": 1000}


def test_a_restart_goes_unnoticed_within_a_window(
    service: RunningService, caplog: pytest.LogCaptureFixture
):
    """Sealed steps are served from memory, and the values after the restart are the plan's."""
    with Client(service.url) as client:
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        expected = client.forecast("run", count=1000, points=1000)["series"]["lr"]
        for step in range(40):
            assert session.lr(step) == expected[step]
        stop = session._core.window(40).stop
        service.kill()
        assert [session.lr(step) for step in range(40, stop)] == expected[40:stop]
        assert caplog.text == ""
        service.start()
        assert [session.lr(step) for step in range(stop, 1000)] == expected[stop:]


def test_past_the_window_the_trainer_waits_and_goes_on(
    service: RunningService, caplog: pytest.LogCaptureFixture
):
    """The step that needs the server returns when it is back, with its value and two log lines."""
    caplog.set_level(logging.INFO, logger="pacesetter")
    with Client(service.url, max_wait=60) as client:
        session = client.create_session("run", schedule=COSINE, base_lr=0.1)
        expected = client.forecast("run", count=1000, points=1000)["series"]["lr"]
        session.lr(0)
        service.kill()
        restart = threading.Timer(1.0, service.start)
        restart.start()
        began = time.monotonic()
        assert session.lr(1) == expected[1]
        assert time.monotonic() - began > 0.9
        restart.join()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "trying again for up to 60 s" in messages[0]
    assert "answers again" in messages[1]


def test_the_wait_is_bounded_and_reports_are_kept(service: RunningService):
    """After `max_wait` the error says so; when the server returns, nothing measured is missing."""
    with Client(service.url, max_wait=PATIENCE) as client:
        session = client.create_session("run", base_lr=0.1)
        session.lr(0)
        service.kill()
        session._prefetcher.max_wait = 0.5
        session.report(0, loss=0.5)
        with pytest.raises(ServerUnavailableError, match="pacesetter serve"):
            session.lr(1)
        with pytest.raises(ServerUnavailableError):
            session.flush()
        service.start()
        session._prefetcher.max_wait = PATIENCE
        assert session.lr(1) == 0.1
        session.flush()
        assert len(session._core.sync.reports) == 0


def test_plateau_decides_alike_through_crashes(service: RunningService):
    """Killing the server between any two steps changes no learning rate."""
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.5, 0.6, 0.6, 0.6, 0.6]
    plateau = {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}

    def run(name: str, *, crash: bool) -> list[float]:
        with Client(service.url, max_wait=60) as client:
            session = client.create_session(name, base_lr=0.1, controllers=[plateau])
            rates = []
            for step, loss in enumerate(losses):
                rates.append(session.lr(step))
                session.report(step, loss=loss)
                if crash and step % 4 == 2:
                    service.kill()
                    service.start()
            return rates

    calm = run("calm", crash=False)
    assert len(set(calm)) > 2
    assert run("stormy", crash=True) == calm


def test_creating_waits_for_a_server_that_is_starting(service: RunningService):
    """Trainer and server may be started at the same moment."""
    service.kill()
    restart = threading.Timer(0.5, service.start)
    restart.start()
    with Client(service.url, retry_for=PATIENCE) as client:
        assert client.create_session("early", base_lr=0.1).lr(0) == 0.1
    restart.join()


def test_a_server_that_was_never_there_is_reported_with_advice():
    """The first error of a new user says how to start a server."""
    client = Client("http://127.0.0.1:9", retry_for=0.2)
    with pytest.raises(ServerUnavailableError, match="start the server with `pacesetter serve`"):
        client.session("x", base_lr=0.1)
