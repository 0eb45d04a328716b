"""Proxies: those of the environment, those in front of the server, and what they do to answers."""

import base64
import itertools
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from both import KINDS, opened
from little_servers import Asked, LittleServer, Proxy, answer, read_request
from pacesetter import (
    AuthenticationError,
    Client,
    InvalidAnswerError,
    ServerUnavailableError,
    Session,
)
from pacesetter._proxy import proxy_for
from serving import PATIENCE, RunningService

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
COSINE = {"kind": "cosine", "total_steps": 1000}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies from the environment of each test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def _upstream(url: str) -> str:
    return url.removeprefix("http://")


def _train(session: Session, steps: int = 60) -> list[float]:
    rates = []
    for step in range(steps):
        rates.append(session.lr(step))
        session.report(step, loss=1.0 / (step + 1))
    session.flush()
    return rates


def _check_a_training(through: Client, direct: Client, name: str) -> None:
    """Run a training, and compare what it used and reported with what is known here."""
    session = through.create_session(name, schedule=COSINE, base_lr=0.1)
    rates = _train(session)
    assert rates == direct.forecast(name, count=60, points=60)["series"]["lr"]
    assert direct.history(name)["metrics"]["loss"][:60] == [1.0 / (n + 1) for n in range(60)]


# -- which proxy --


@pytest.mark.parametrize(
    ("environment", "address", "proxy"),
    [
        ({}, ("http", "pace", 80), None),
        ({"HTTP_PROXY": "http://p:1"}, ("http", "pace", 80), "http://p:1"),
        ({"http_proxy": "http://p:1"}, ("http", "pace", None), "http://p:1"),
        ({"HTTP_PROXY": "p:1"}, ("http", "pace", 80), "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, ("https", "pace", 443), None),
        ({"HTTPS_PROXY": "http://p:1"}, ("https", "pace", 443), "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, ("https", "pace", 443), "http://p:1"),
        ({"ALL_PROXY": "x:1", "HTTP_PROXY": "http://p:1"}, ("http", "pace", 80), "http://p:1"),
        ({"ALL_PROXY": "socks5://p:1"}, ("http", "pace", 80), "socks5://p:1"),
        ({"HTTP_PROXY": ""}, ("http", "pace", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "*"}, ("http", "pace", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "pace"}, ("http", "pace", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a, pace:70"}, ("http", "pace", 70), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "pace:71"}, ("http", "pace", 70), "http://p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": ".lab"}, ("http", "pace.lab", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "lab"}, ("http", "pace.lab", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "lab"}, ("http", "collab", 80), "http://p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "10.0.0.0/8"}, ("http", "10.7.7.7", 80), None),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "10.0.0.0/8"}, ("http", "11.7.7.7", 80), "http://p:1"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "fd00::/8"}, ("http", "fd00::7", 80), None),
        ({"ALL_PROXY": "p:1"}, ("http", "localhost", 80), None),
        ({"ALL_PROXY": "p:1"}, ("http", "127.8.8.8", 80), None),
        ({"ALL_PROXY": "p:1"}, ("http", "::1", 80), None),
    ],
)
def test_the_environment_says_which_proxy(
    environment: dict[str, str],
    address: tuple[str, str, int | None],
    proxy: str | None,
    monkeypatch: pytest.MonkeyPatch,
):
    """It is read as other programs read it; a server on this machine is called directly."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(*address) == proxy


@pytest.mark.parametrize(
    "proxy", ["http://", "ftp://me:s3cr3t@proxy", "http://me:s3cr3t@proxy:port", "//me:s3cr3t@"]
)
def test_a_proxy_that_is_none_is_refused_and_not_shown(proxy: str, monkeypatch: pytest.MonkeyPatch):
    """The message names the variable, and nothing of its value."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ValueError, match=r"^ALL_PROXY is no URL of a proxy") as caught:
        Client("http://pace")
    assert "s3cr3t" not in str(caught.value)


def test_a_socks_proxy_needs_a_package_and_says_so(monkeypatch: pytest.MonkeyPatch):
    """The error does not come in the middle of a training."""
    monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    monkeypatch.setenv("ALL_PROXY", "socks5://me:s3cr3t@proxy:1080")
    with pytest.raises(ValueError, match=r"pip install 'httpx\[socks\]'") as caught:
        Client("http://pace")
    assert "s3cr3t" not in str(caught.value)


# -- through one of the environment --


def test_a_training_goes_through_a_forward_proxy(
    client: Client, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """Everything uses it, even the look-up of the name, which this machine cannot resolve."""
    proxy = Proxy(_upstream(client.url))
    with LittleServer(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:s3cr3t@127.0.0.1:{server.port}")
        with Client("http://pacesetter.invalid:7070", token="t0ken") as through:
            _check_a_training(through, client, unique_name)
    assert {asked.target.split("/v1")[0] for asked in proxy.asked} == {
        "http://pacesetter.invalid:7070"
    }
    password = base64.b64encode(b"me:s3cr3t").decode()
    for asked in proxy.asked:
        assert asked.headers["proxy-authorization"] == f"Basic {password}"
        assert asked.headers["authorization"] == "Bearer t0ken"


def test_a_server_of_this_machine_is_asked_without_a_proxy(
    server_url: str, monkeypatch: pytest.MonkeyPatch
):
    """A cluster's settings do not cut off a sidecar."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Client(server_url) as client:
        assert client.version()["api"] == "v1"


def test_the_password_of_a_proxy_shows_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """This holds for every error, with the most verbose logging."""
    caplog.set_level(logging.DEBUG)
    password = base64.b64encode(b"me:s3cr3t").decode()
    shown = ""
    for scheme, said in itertools.product(("http", "https"), (None, 407, 502)):

        def serve(connection: socket.socket, said: int | None = said) -> None:
            with connection.makefile("rb") as reader:
                assert read_request(reader) is not None
                connection.sendall(b"" if said is None else answer(said, b"<html>"))

        with LittleServer(serve) as server:
            proxy = f"http://me:s3cr3t@127.0.0.1:{server.port}"
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
            with (
                Client(f"{scheme}://pacesetter.invalid", retry_for=0.2) as client,
                pytest.raises((ServerUnavailableError, AuthenticationError)) as caught,
            ):
                client.version()
        shown += str(caught.value) + repr(caught.value) + repr(client)
    assert "s3cr3t" not in shown + caplog.text
    assert password not in shown + caplog.text


@pytest.mark.parametrize(("status", "kind"), [(407, AuthenticationError), (502, Exception)])
def test_a_proxy_that_refuses_a_tunnel_learns_nothing(
    status: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    """The token is for the server at the tunnel's end; a wrong password is reported at once."""
    proxy = Proxy("", fault=lambda _: answer(status, b"<html>"))
    with LittleServer(proxy) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with (
            Client("https://pacesetter.invalid", token="t0ken", retry_for=0.5) as client,
            pytest.raises(kind) as caught,
        ):
            client.version()
    assert isinstance(caught.value, AuthenticationError | ServerUnavailableError)
    assert {asked.target for asked in proxy.asked} == {"pacesetter.invalid:443"}
    assert not [asked for asked in proxy.asked if "authorization" in asked.headers]
    assert (len(proxy.asked) == 1) is (status == 407)


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for `pacesetter.invalid` with its key, in one file."""
    assert shutil.which("openssl"), "install openssl, which makes the certificate"
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pacesetter.invalid"
    command += " -addext subjectAltName=DNS:pacesetter.invalid -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    whole = folder / "both.pem"
    whole.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return whole


@pytest.fixture(name="tls")
def _tls(certificate: Path, server_url: str) -> Iterator[LittleServer]:
    """Return a server that terminates TLS and passes requests on to the service."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = Proxy(_upstream(server_url))

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            proxy(secure)

    with LittleServer(serve) as server:
        yield server


def test_a_training_goes_through_a_tunnel(
    tls: LittleServer,
    certificate: Path,
    client: Client,
    unique_name: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """With HTTPS the proxy sees the destination and nothing else."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    proxy = Proxy("", tunnel=f"127.0.0.1:{tls.port}")
    with LittleServer(proxy) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with Client("https://pacesetter.invalid", token="t0ken") as through:
            _check_a_training(through, client, unique_name)
    assert {(asked.method, asked.target) for asked in proxy.asked} == {
        ("CONNECT", "pacesetter.invalid:443")
    }
    assert not [asked for asked in proxy.asked if "authorization" in asked.headers]


@pytest.mark.parametrize("kind", KINDS)
def test_both_clients_go_by_the_environment(
    kind: str,
    tls: LittleServer,
    certificate: Path,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """Both use a forward proxy and an opaque tunnel, and refuse a server that is not certified."""
    forward, tunnel = Proxy(_upstream(server_url)), Proxy("", tunnel=f"127.0.0.1:{tls.port}")
    with LittleServer(forward) as plain, LittleServer(tunnel) as encrypted:
        monkeypatch.setenv("HTTP_PROXY", plain.url)
        monkeypatch.setenv("HTTPS_PROXY", encrypted.url)
        with opened(kind, "http://pacesetter.invalid:7070") as client:
            assert client.version()["api"] == "v1"
        with (
            opened(kind, "https://pacesetter.invalid") as client,
            pytest.raises(InvalidAnswerError, match="install the server's certificate"),
        ):
            client.version()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with opened(kind, "https://pacesetter.invalid", token="t0ken") as client:
            assert client.version()["api"] == "v1"
    assert forward.asked[0].target == "http://pacesetter.invalid:7070/version"
    assert {asked.method for asked in tunnel.asked} == {"CONNECT"}
    assert not [asked for asked in tunnel.asked if "authorization" in asked.headers]


# -- in front of the server --


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("cuts", [False, True])
def test_a_training_goes_through_a_reverse_proxy(
    slash: str, cuts: bool, client: Client, unique_name: str, tmp_path: Path
):
    """It has a path prefix, sends buffered answers, and cuts connections."""
    proxy = Proxy(_upstream(client.url), prefix="/lab/pace", cuts=cuts)
    with (
        LittleServer(proxy) as server,
        Client(f"{server.url}/lab/pace{slash}") as through,
    ):
        _check_a_training(through, client, unique_name)
        through.export(unique_name, tmp_path / "record")
        info = through.import_session(tmp_path / "record", name=f"{unique_name}-copy")
        assert info.name == f"{unique_name}-copy"
        assert list(through.events(unique_name)) == list(client.events(unique_name))
    assert {asked.target[:13] for asked in proxy.asked} == {"/lab/pace/v1/"}


def test_events_are_followed_through_a_proxy(tmp_path: Path):
    """They come as they happen, unless the proxy buffers the whole answer."""
    with (
        RunningService(tmp_path / "pacesetter.db", feed_heartbeat=0.2) as service,
        LittleServer(Proxy(_upstream(service.url), prefix="/pace", buffers=False)) as server,
        Client(service.url) as client,
        Client(f"{server.url}/pace") as through,
    ):
        session = client.create_session("followed", base_lr=0.1)
        events = through.events("followed", follow=True)
        assert next(events)["kind"] == "created"
        found: list[dict[str, Any]] = []
        following = threading.Thread(target=lambda: found.append(next(events)), daemon=True)
        following.start()
        session.restart(0)
        following.join(PATIENCE)
        assert found == list(client.events("followed", after=0))[:1]
        events.close()  # type: ignore[attr-defined]


class Faults:
    """Answers some requests as a proxy does whose server is away."""

    def __init__(self, status: int) -> None:
        self._page = answer(status, b"<html><h1>Away</h1></html>", content_type="text/html")
        self.left = 0

    def __call__(self, _: Asked) -> bytes | None:
        """Return the page, or None when the fault is over."""
        self.left -= 1
        return self._page if self.left >= 0 else None


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
def test_the_error_pages_of_a_proxy_are_waited_through(
    status: int, client: Client, unique_name: str
):
    """During a restart behind a proxy no step is lost, and no report."""
    faults = Faults(status)
    proxy = Proxy(_upstream(client.url), fault=faults)
    with LittleServer(proxy) as server, Client(server.url) as through:
        session = through.create_session(unique_name, schedule=COSINE, base_lr=0.1)
        rates = []
        for step in range(4):
            faults.left = 2
            rates.append(session.lr(step))
            session.report(step, loss=float(step))
        faults.left = 2
        session.flush()
    assert rates == client.lr(unique_name, 0, count=4)["series"]["lr"]
    assert client.history(unique_name)["metrics"]["loss"][:4] == [0.0, 1.0, 2.0, 3.0]


def test_a_proxy_whose_server_stays_away_is_named(client: Client):
    """The final error repeats the proxy's page, and says what to check."""
    faults = Faults(502)
    faults.left = 10**6
    with (
        LittleServer(Proxy(_upstream(client.url), fault=faults)) as server,
        Client(server.url, retry_for=0.5) as through,
        pytest.raises(ServerUnavailableError, match=r"Away.*no proxy is in between"),
    ):
        through.version()
