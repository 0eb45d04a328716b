"""TLS on the service's own port: with a self-made certificate, and the real client."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pacesetter import Client, InvalidAnswerError, ServerUnavailableError
from pacesetter_service.__main__ import _settings_or_exit, main
from serving import PATIENCE, RunningService


def _openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for this machine and its key, and one for a client."""
    folder = tmp_path_factory.mktemp("certificates")
    kinds = {"server": "subjectAltName=IP:127.0.0.1", "client": "extendedKeyUsage=clientAuth"}
    for name, extension in kinds.items():
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", extension),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
            folder=folder,
        )
    return folder


@pytest.fixture(name="encrypted", scope="module")
def _encrypted(files: Path) -> Iterator[RunningService]:
    """Return a service of this module that speaks TLS."""
    settings = {"tls_cert": files / "server.pem", "tls_key": files / "server.key"}
    with RunningService(files / "pacesetter.db", **settings) as service:
        yield service


def test_a_training_goes_through_tls(
    encrypted: RunningService, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client trusts the certificate that SSL_CERT_FILE names, and no other one."""
    assert encrypted.url.startswith("https://127.0.0.1:")
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "server.pem"))
    with Client(encrypted.url, retry_for=PATIENCE) as client:
        session = client.session("run", base_lr=0.1)
        assert session.lr(0) == 0.1
        session.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "client.pem"))
    with (
        Client(encrypted.url) as client,
        pytest.raises(InvalidAnswerError, match="install the server's certificate"),
    ):
        client.version()


def _shaken(url: str, trusted: Path, newest: ssl.TLSVersion) -> str | None:
    host, port = url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=trusted)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server that refuses
    with (
        socket.create_connection((host, int(port)), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        return encrypted.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_nothing_older_than_tls_1_2_is_spoken(encrypted: RunningService, files: Path) -> None:
    """1.3 and 1.2 are."""
    trusted = files / "server.pem"
    assert _shaken(encrypted.url, trusted, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert _shaken(encrypted.url, trusted, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _shaken(encrypted.url, trusted, ssl.TLSVersion.TLSv1_1)


def test_who_speaks_no_tls_gets_no_answer(encrypted: RunningService) -> None:
    """For a client with an http:// address, the server is unavailable."""
    with (
        Client(encrypted.url.replace("https", "http"), retry_for=0.3) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.version()


def test_clients_may_have_to_show_a_certificate(files: Path) -> None:
    """A client with one of the named authority gets an answer, and others no connection."""
    settings = {
        "tls_cert": files / "server.pem",
        "tls_key": files / "server.key",
        "tls_client_ca": files / "client.pem",
    }
    with RunningService(files / "mutual.db", **settings) as service:
        known = ssl.create_default_context(cafile=files / "server.pem")
        known.load_cert_chain(files / "client.pem", files / "client.key")
        stranger = ssl.create_default_context(cafile=files / "server.pem")
        with httpx.Client(verify=known, trust_env=False, timeout=PATIENCE) as http:
            assert http.get(f"{service.url}/livez").status_code == 200
        with (
            httpx.Client(verify=stranger, trust_env=False, timeout=PATIENCE) as http,
            pytest.raises(httpx.TransportError),
        ):
            http.get(f"{service.url}/livez")


@pytest.mark.parametrize(
    ("given", "option", "said"),
    [
        ({"cert": "server.pem"}, "tls-key", "give both"),
        ({"key": "server.key"}, "tls-cert", "give both"),
        ({"client-ca": "client.pem"}, "tls-client-ca", "takes TLS"),
    ],
)
def test_half_of_it_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], given: dict[str, str], option: str, said: str
) -> None:
    """The service does not start without TLS, and names what is missing."""
    options = [f"--tls-{name}={files / file}" for name, file in given.items()]
    with pytest.raises(SystemExit, match="2"):
        _settings_or_exit(options)
    told = capsys.readouterr().err
    assert told.startswith(f"pacesetter serve: --{option}: ")
    assert said in told


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "said"),
    [
        ("none.pem", "server.key", None, "no such file"),
        ("server.pem", "client.key", None, "mismatch"),
        ("server.key", "server.key", None, "--tls-cert"),
        ("server.pem", "server.key", "server.key", "--tls-client-ca"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    files: Path, cert: str, key: str, client_ca: str | None, said: str
) -> None:
    """The service does not start, and names the file and the reason."""
    options = [f"--tls-cert={files / cert}", f"--tls-key={files / key}"]
    options += [] if client_ca is None else [f"--tls-client-ca={files / client_ca}"]
    with pytest.raises(SystemExit) as ended:
        main([*options, f"--database-url=sqlite:///{files / 'never.db'}"])
    assert said in str(ended.value).lower()
    assert str(files / cert) in str(ended.value) or str(files / str(client_ca)) in str(ended.value)
    assert not (files / "never.db").exists()
