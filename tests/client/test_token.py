"""The access token: which server gets it, and where it never shows."""

import copy
import io
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from little_servers import Asked, answer, answering
from pacesetter import (
    APIError,
    AuthenticationError,
    Client,
    InvalidAnswerError,
    PermissionDeniedError,
    ServerUnavailableError,
)
from pacesetter._token import Token
from pacesetter.torch import RemoteLR
from serving import PATIENCE, RunningService, open_http

SECRET = "ps_1_" + "s3cr3t-" * 5


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the token from the environment of each test."""
    monkeypatch.delenv("PACESETTER_TOKEN", raising=False)
    monkeypatch.delenv("PACESETTER_TOKEN_FILE", raising=False)


def _header(make: Callable[[str], Client]) -> str | None:
    """Return the header that a server gets from a client made with its address."""
    with answering(lambda _: answer(200)) as (server, seen), make(server.url) as client:
        client.version()
    return seen[0].headers.get("authorization")


def test_the_token_is_the_argument_else_the_environments(monkeypatch: pytest.MonkeyPatch):
    """It is sent as a bearer token; without one, or with an empty one, there is no header."""
    assert _header(Client) is None
    assert _header(lambda url: Client(url, token=SECRET)) == f"Bearer {SECRET}"
    monkeypatch.setenv("PACESETTER_TOKEN", "")
    assert _header(Client) is None
    monkeypatch.setenv("PACESETTER_TOKEN", "of-the-environment")
    assert _header(Client) == "Bearer of-the-environment"
    assert _header(lambda url: Client(url, token=SECRET)) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "bad", ["", "s3cr3t two", "s3cr3t\n", "s3cr3t\r\nx: y", "s3crét", "s3cr\0t"]
)
def test_what_is_no_token_is_refused_and_not_shown(bad: str, monkeypatch: pytest.MonkeyPatch):
    """A copying mistake shows when the client is made; the message says where it was given."""
    with pytest.raises(ValueError, match=r"^token is no access token") as caught:
        Client("http://server", token=bad)
    assert "s3cr" not in str(caught.value)
    if bad and "\0" not in bad:
        monkeypatch.setenv("PACESETTER_TOKEN", bad)
        with pytest.raises(ValueError, match=r"^PACESETTER_TOKEN is no access token") as caught:
            Client("http://server")
        assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://me:s3cr3t@server:7070", "http://s3cr3t@server", "http://me:s3cr3t@server:port"]
)
def test_a_password_in_the_url_is_refused_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch):
    """Addresses are logged, so they must not contain a secret."""
    monkeypatch.setenv("PACESETTER_URL", url)
    for made_with in (url, None):
        with pytest.raises(ValueError, match="write http://host:port") as caught:
            Client(made_with)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


CALLS: list[Callable[[Client], Any]] = [
    lambda client: client.version(),
    lambda client: client.create_session("any", base_lr=0.1),
    lambda client: next(client.events("any", follow=True)),
    lambda client: client.export("any", "nowhere"),
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_gets_neither_the_token_nor_a_request(status: int):
    """Neither the redirecting server nor the target learns any more."""
    with answering(lambda _: answer(200)) as (elsewhere, followed):
        redirect = answer(status, location=f"{elsewhere.url}/v1/sessions")
        with (
            answering(lambda _: redirect) as (server, seen),
            Client(server.url, token=SECRET) as client,
        ):
            for call in CALLS:
                with pytest.raises(InvalidAnswerError, match="redirects are not followed"):
                    call(client)
    assert [asked.headers["authorization"] for asked in seen] == [f"Bearer {SECRET}"] * len(CALLS)
    assert followed == []


@pytest.mark.parametrize(
    ("status", "code", "kind", "advice"),
    [
        (401, "unauthenticated", AuthenticationError, "expired or was revoked"),
        (403, "forbidden", PermissionDeniedError, "Say who you are"),
        (407, "", AuthenticationError, "HTTP_PROXY"),
    ],
)
def test_a_refusal_is_told_at_once(
    status: int, code: str, kind: type[APIError], advice: str, caplog: pytest.LogCaptureFixture
):
    """There is one request, and an error with its own class."""
    problem = f'{{"code": "{code}", "detail": "Say who you are."}}'.encode()
    with (
        answering(lambda _: answer(status, problem)) as (server, seen),
        Client(server.url, token=SECRET, retry_for=PATIENCE) as client,
        pytest.raises(kind, match=advice) as caught,
    ):
        client.version()
    assert type(caught.value) is kind
    assert len(seen) == 1
    assert caplog.records == []


def test_who_has_no_token_is_told_where_it_goes():
    """The first error of a new user names the variable."""
    with (
        answering(lambda _: answer(401)) as (server, _),
        Client(server.url) as client,
        pytest.raises(AuthenticationError, match="set PACESETTER_TOKEN"),
    ):
        client.version()


def test_a_revoked_token_ends_a_training_at_its_next_window(caplog: pytest.LogCaptureFixture):
    """Sealed values are used; then the error is raised where it is read, instead of a wait."""
    problem = b'{"code": "unauthenticated", "detail": "No."}'
    description = (
        b'{"name": "run", "spec": {}, "status": "active", "attempt": 1, "horizon": 0, '
        b'"revision": 0, "series": ["lr"], "max_lookahead": null, "max_window": 9}'
    )
    with (
        answering(
            lambda asked: (
                answer(401, problem) if "sync" in asked.target else answer(200, description)
            )
        ) as (server, seen),
        Client(server.url, token=SECRET, max_wait=PATIENCE) as client,
    ):
        session = client.session("run")
        with pytest.raises(AuthenticationError):
            session.lr(0)
        assert len(seen) == 2
    assert SECRET not in caplog.text


def _shown(error: BaseException) -> str:
    return repr(error) + str(error) + "".join(traceback.format_exception(error))


def test_the_token_shows_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture):
    """The most verbose logging is on, and a page of the server's repeats what it was sent."""
    caplog.set_level(logging.DEBUG)
    shown = ""

    def echo(asked: Asked) -> bytes | None:
        page = f"<html>{asked.headers['authorization']}</html>".encode()
        status = int(asked.target.rpartition("/")[2])
        return answer(status, page) if status else None

    with (
        answering(echo) as (server, _),
        Client(server.url, token=SECRET, retry_for=0.3) as client,
    ):
        for status in (0, 200, 302, 400, 401, 403, 404, 407, 409, 500, 503):
            with pytest.raises((APIError, InvalidAnswerError, ServerUnavailableError)) as caught:
                client._json("GET", f"/{status}")
            shown += _shown(caught.value) + str(vars(caught.value))
            shown += repr(client) + repr(client._transport._token)
            shown += repr(httpx.Request("GET", server.url))
    assert "[token]" in shown
    assert "s3cr3t" not in shown + caplog.text
    assert "send_request_headers" in caplog.text


def test_the_token_is_in_no_pickle_and_no_checkpoint(client: Client, unique_name: str):
    """This covers pickles of a client, a session and a scheduler, and a state_dict."""
    with Client(client.url, token=SECRET) as known:
        session = known.create_session(unique_name, base_lr=0.1)
        scheduler = RemoteLR(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), session)
        checkpoint = io.BytesIO()
        torch.save(scheduler.state_dict(), checkpoint)
        kept = [pickle.dumps(known), pickle.dumps(session), checkpoint.getvalue()]
        kept.append(repr(scheduler.state_dict()).encode())
        assert not [each for each in kept if b"s3cr3t" in each]
        with pytest.raises(TypeError, match="set PACESETTER_TOKEN"):
            pickle.dumps(Token(SECRET))


def test_a_copy_takes_the_environments_token(monkeypatch: pytest.MonkeyPatch):
    """In another process it uses that environment's; within this one a deep copy is the client."""
    with Client("http://server", token=SECRET) as client:
        assert copy.deepcopy({"client": client})["client"] is client

    def copied(url: str) -> Client:
        with Client(url, token=SECRET) as original:
            made: Client = pickle.loads(pickle.dumps(original))
        return made

    assert _header(copied) is None
    monkeypatch.setenv("PACESETTER_TOKEN", "of-the-worker")
    assert _header(copied) == "Bearer of-the-worker"


def test_errors_survive_the_way_between_processes():
    """A worker's error arrives complete; otherwise its parent would wait for ever."""
    errors = [{"pointer": "/name", "detail": "is taken"}]
    error = AuthenticationError("No.", status=401, code="c", errors=errors, retry_after=2.0)
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is AuthenticationError
    assert (str(copied), vars(copied)) == (str(error), vars(error))


def _command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacesetter.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_takes_the_token_from_the_environment_alone():
    """All users of a machine can see options, so none takes a token, and the help says so."""
    with answering(lambda _: answer(401)) as (server, seen):
        failed = _command(
            "explain", "any", "--step", "0", PACESETTER_URL=server.url, PACESETTER_TOKEN=SECRET
        )
    assert seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert (failed.returncode, failed.stdout) == (5, "")
    assert len(failed.stderr.splitlines()) == 2
    assert SECRET not in failed.stderr
    refused = _command("explain", "any", "--step", "0", "--token", SECRET)
    assert refused.returncode == 2
    for asked in (["--help"], ["explain", "--help"], ["events", "--help"]):
        assert "PACESETTER_TOKEN" in _command(*asked).stdout


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_token_may_stand_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A newline at its end is dropped; an argument takes precedence over it."""
    file = tmp_path / "token"
    file.write_bytes(f"of-the-file{end}".encode())
    monkeypatch.setenv("PACESETTER_TOKEN_FILE", str(file))
    assert _header(Client) == "Bearer of-the-file"
    assert _header(lambda url: Client(url, token=SECRET)) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "is no access token"), (b"s3cr3t two", "is no access token")],
)
def test_a_file_without_a_token_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    """It is refused when the client is made, by the file's name, without its content."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("PACESETTER_TOKEN_FILE", str(file))
    with pytest.raises(ValueError, match=said) as caught:
        Client("http://server")
    assert "PACESETTER_TOKEN_FILE" in str(caught.value)
    assert str(file) in str(caught.value)
    assert "s3cr" not in str(caught.value)
    monkeypatch.setenv("PACESETTER_TOKEN", SECRET)
    with pytest.raises(ValueError, match="both set"):
        Client("http://server")


def test_a_token_that_was_replaced_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server refuses the old one, it is read again once, for calls and for streams."""
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.setenv("PACESETTER_TOKEN_FILE", str(file))
    valid = "first"

    def serve(asked: Asked) -> bytes:
        right = asked.headers.get("authorization") == f"Bearer {valid}"
        return answer(200 if right else 401, content_type=asked.headers["accept"])

    with answering(serve) as (server, seen), Client(server.url) as client:
        client.version()
        valid = "second"
        file.write_text("second\n")
        client.version()
        valid = "third"
        file.write_text("third\n")
        client.export("any", tmp_path / "record")
        used = [each.headers["authorization"].removeprefix("Bearer ") for each in seen]
        assert used == ["first", "first", "second", "second", "third"]
        valid = "fourth"
        with pytest.raises(AuthenticationError, match="read from a file again"):
            client.version()
        file.unlink()
        with pytest.raises(AuthenticationError):
            client.version()
    assert len(seen) == len(used) + 2


ADMIN = "an-admins-token-of-the-tests"


def test_a_training_with_a_token_of_its_own(tmp_path: Path):
    """The service lets it train, denies an operator's calls, and forgets it once revoked."""
    with (
        RunningService(tmp_path / "pacesetter.db", admin_token=ADMIN) as service,
        open_http(service.url) as http,
    ):
        admin = {"authorization": f"Bearer {ADMIN}"}
        wanted = {"name": "job", "role": "trainer"}
        made = http.post("/v1/tokens", json=wanted, headers=admin).raise_for_status().json()
        with Client(service.url) as nobody, pytest.raises(AuthenticationError, match="set PACE"):
            nobody.session("run", base_lr=0.1)
        with Client(service.url, token=made["token"], retry_for=PATIENCE) as client:
            session = client.session("run", base_lr=0.1)
            assert session.lr(0) == 0.1
            session.report(0, loss=0.5)
            session.flush()
            assert client.history("run")["metrics"]["loss"] == [0.5]
            with pytest.raises(PermissionDeniedError, match="operator") as denied:
                client.archive("run")
            assert (denied.value.status, denied.value.code) == (403, "forbidden")
            http.delete(f"/v1/tokens/{made['id']}", headers=admin).raise_for_status()
            with pytest.raises(AuthenticationError, match="expired or was revoked") as revoked:
                session.lr(1000)
            assert (revoked.value.status, revoked.value.code) == (401, "unauthenticated")
            session.close()
        assert made["token"] not in str(revoked.value) + str(denied.value)
