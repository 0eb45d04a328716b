"""Proxies between client and server may answer strangely: no report is lost by that."""

import gzip
import json
import logging
import time
from collections.abc import Callable

import pytest

from little_servers import Asked, LittleServer, Proxy, answer
from pacesetter import (
    APIError,
    AuthenticationError,
    Client,
    InvalidAnswerError,
    InvalidRequestError,
    NotFoundError,
    OutagePolicy,
    PermissionDeniedError,
    ServerError,
    ServerUnavailableError,
)
from pacesetter._bounds import bounds_of
from pacesetter._errors import api_error
from pacesetter._info import SessionInfo
from serving import PATIENCE, open_http


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PAGE = b"<html><body>nothing here</body></html>"


HTML = {"content_type": "text/html"}
STRANGE = {
    "nginx, in maintenance": answer(405, PAGE, **HTML),
    "Kong, without a route": answer(404, b'{"message":"no Route matched with those values"}'),
    "another FastAPI": answer(404, b'{"detail":"Not Found"}'),
    "400": answer(400, PAGE, **HTML),
    "409": answer(409, PAGE, **HTML),
    "421": answer(421, b"", **HTML),
    "a redirect to a login": answer(302, b"", location="https://sso/login"),
    "a login": answer(200, PAGE, **HTML),
    "compressed": answer(200, gzip.compress(PAGE), content_encoding="gzip"),
    "nothing": b"HTTP/1.1 204 None\r\n\r\n",
    "another program": answer(200, b'{"status":"ok"}'),
}


@pytest.mark.parametrize("said", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("policy", ["wait", "hold", "forecast"])
def test_what_is_no_answer_of_ours_costs_neither_reports_nor_the_training(
    server_url: str, unique_name: str, said: bytes, policy: str
):
    """The training waits or stands in as in any outage, and no report is dropped."""
    proxy = Proxy(server_url.removeprefix("http://"))
    outage = OutagePolicy(policy, patience=0.0)
    met: list[str] = []
    with LittleServer(proxy) as between, Client(between.url, on_outage=outage) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        session.lr(0)
        wait_until(lambda: not session._prefetcher._errands and not session._prefetcher.busy)

        def fault(asked: Asked) -> bytes | None:
            met.append(asked.target)
            return said if len(met) < 5 else None

        proxy.fault = fault
        session.report(0, loss=0.5)
        session._prefetcher._wake.put(None)
        wait_until(lambda: bool(met))
        assert [session.lr(step) for step in range(1, 50)] == [0.1] * 49
        session.flush()
        assert client.history(unique_name)["metrics"]["loss"][0] == 0.5


def test_a_403_of_a_proxy_still_ends_the_training_at_once(server_url: str, unique_name: str):
    """Who may pass is a proxy's affair too, and waiting seldom cures that."""
    proxy = Proxy(server_url.removeprefix("http://"))
    with LittleServer(proxy) as between, Client(between.url) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        proxy.fault = lambda _: answer(403, PAGE, **HTML)
        with pytest.raises(PermissionDeniedError):
            session.lr(0)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_reports_outlive_a_page_of_an_ingress(
    server_url: str, unique_name: str, status: int, caplog: pytest.LogCaptureFixture
):
    """The thread meets it, keeps what was measured, and delivers it once the way is free."""
    proxy = Proxy(server_url.removeprefix("http://"))
    with LittleServer(proxy) as between, Client(between.url) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        session.lr(0)
        proxy.fault = lambda _: answer(status, PAGE, **{"content-type": "text/html"})
        asked = len(proxy.asked)
        session.report(0, loss=0.5)
        session._prefetcher._wake.put(None)
        wait_until(lambda: len(proxy.asked) > asked + 1)
        assert len(session._core.sync.reports) == 1
        proxy.fault = lambda _: None
        wait_until(lambda: not session._core.sync.reports)
    with open_http(server_url) as http:
        history = http.get(f"/v1/sessions/{unique_name}/history").json()
    assert history["metrics"]["loss"][0] == 0.5
    complaints = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(complaints) == (1 if status != 404 else 0)


def test_a_refusal_that_is_no_answer_of_ours_is_an_outage():
    """A proxy answers so while its server is away; for a missing session it is no outage."""
    ours = json.dumps({"code": "session_not_found", "detail": "There is none."}).encode()
    assert isinstance(api_error(404, ours), NotFoundError)
    for page in (PAGE, b"", b"404 page not found", b'{"detail":"Not Found"}', b'{"code":404}'):
        for status in (400, 404, 405, 409, 415, 421, 422):
            assert isinstance(api_error(status, page), ServerError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (407, AuthenticationError),
        (413, InvalidRequestError),
    ],
)
def test_some_refusals_are_a_proxys_too(status: int, kind: type[APIError]):
    """To ask again would change nothing: the token or the size of what was sent is at fault."""
    assert isinstance(api_error(status, PAGE), kind)


def test_a_call_waits_for_an_ingress_that_has_lost_its_server(server_url: str, unique_name: str):
    """It goes on when the server is back, and otherwise says what it met."""
    proxy = Proxy(server_url.removeprefix("http://"))
    times = iter(range(3))
    proxy.fault = lambda _: answer(404, PAGE) if next(times, None) is not None else None
    with LittleServer(proxy) as between, Client(between.url, retry_for=PATIENCE) as client:
        assert client.create_session(unique_name, base_lr=0.1).lr(0) == 0.1
    proxy.fault = lambda _: answer(404, PAGE)
    with (
        LittleServer(proxy) as between,
        Client(between.url, retry_for=0.2) as client,
        pytest.raises(ServerUnavailableError, match="404 without a problem document"),
    ):
        client.create_session(unique_name, base_lr=0.1)


def test_an_answer_that_says_it_is_too_large_is_not_read(server_url: str, unique_name: str):
    """Its length is enough to refuse it, without a byte of the body."""
    proxy = Proxy(server_url.removeprefix("http://"))
    with LittleServer(proxy) as between, Client(between.url, max_wait=0.2) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"
        proxy.fault = lambda _: head
        with pytest.raises(ServerUnavailableError, match="larger than"):
            session.lr(0)


def info(**spec: object) -> SessionInfo:
    """Describe a session."""
    return SessionInfo("any", spec, "active", 1, 0, 0, ("lr",), None, 100)


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ({"base_lr": 0.1}, 1e3),
        ({"base_lr": 30.0}, 3e4),
        ({"base_lr": 0.1, "limits": {"min_lr": 0.0, "max_lr": None}}, 1e3),
        ({"base_lr": 0.1, "limits": {"max_lr": 0.5}}, 5e2),
        ({"groups": {"a": {"base_lr": 1e-3}, "b": {"base_lr": 2.0}}}, 2e3),
    ],
)
def test_bounds_follow_what_the_session_says(spec: dict[str, object], most: float):
    """They are a thousand times its base rates, and its limit; given bounds take precedence."""
    assert bounds_of(info(**spec), None) == (0.0, most)
    assert bounds_of(info(**spec), (0.0, 1e30)) == (0.0, 1e30)


def test_a_rate_of_no_training_is_refused_by_default(client: Client, unique_name: str):
    """Without bounds, an order of 1e30 stops the training at the step before."""
    session = client.create_session(unique_name, base_lr=0.1)
    assert session.lr(0) == 0.1
    with open_http(client.url) as http:
        order = {"kind": "set", "lr": 1e30}
        http.post(f"/v1/sessions/{unique_name}/actions", json=order).raise_for_status()
    with pytest.raises(InvalidAnswerError, match=r"outside \[0, 1000\]"):
        session.lr(session.horizon)


def test_reports_of_steps_that_were_sealed_meanwhile_are_sent_again(
    server_url: str, unique_name: str
):
    """The trainer goes on between the refusal and the look at its horizon: none is outside then."""
    proxy = Proxy(server_url.removeprefix("http://"))
    with LittleServer(proxy) as between, Client(between.url) as aside, Client(server_url) as trains:
        training = trains.session(unique_name, base_lr=0.1)
        training.lr(0)
        other = aside.session(unique_name)
        rest = iter(range(1, 200))

        def goes_on(asked: Asked) -> None:
            if asked.target.endswith("/sync") and asked.body == b"{}":  # a mere look
                for step in rest:
                    training.lr(step)

        proxy.fault = goes_on
        for step in (0, 60):
            other.report(step, loss=0.5)
        other.flush()
        history = trains.history(unique_name, points=1000)
    losses = dict(zip(history["steps"], history["metrics"]["loss"], strict=True))
    assert next(rest, None) is None
    assert (losses[0], losses[60]) == (0.5, 0.5)


def test_reports_that_stay_outside_are_dropped(server_url: str, unique_name: str):
    """Nobody trains those steps, so they must not hold up what is measured later."""
    with Client(server_url) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        session.lr(0)
        session.report(0, loss=0.5)
        session.report(10**6, loss=0.5)
        with pytest.raises(InvalidRequestError):
            session.flush()
        session.flush()
        assert client.history(unique_name)["metrics"]["loss"][0] == 0.5


def test_a_name_that_is_no_text_costs_no_other_report(server_url: str, unique_name: str):
    """It is refused where it is reported, before it is among the others."""
    with Client(server_url) as client:
        session = client.create_session(unique_name, base_lr=0.1)
        session.lr(0)
        session.report(0, loss=0.5)
        with pytest.raises(ValueError, match="not text that can be sent"):
            session.report(0, **{"a\udcff": 1.0})
        session.flush()
        assert client.history(unique_name)["metrics"]["loss"][0] == 0.5
