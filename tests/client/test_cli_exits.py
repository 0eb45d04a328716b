"""Each exit status occurs, and means what the table says."""

import json
from pathlib import Path

import pytest

from little_servers import answer, answering
from pacesetter import cli
from pacesetter.cli import exits, server
from pacesetter.cli.exits import MEANINGS

PROBLEMS = {
    401: exits.NOT_ALLOWED,
    403: exits.NOT_ALLOWED,
    404: exits.NOT_FOUND,
    409: exits.CONFLICT,
    422: exits.REFUSED,
    429: exits.AWAY,
    500: exits.AWAY,
    503: exits.AWAY,
    507: exits.AWAY,
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable retries: what these servers answer once, they answer for ever."""
    monkeypatch.setattr(server, "RETRY_FOR", 0.0)


@pytest.mark.parametrize(("status", "expected"), PROBLEMS.items())
def test_what_a_server_refuses_is_told_by_its_kind(
    status: int, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the problem, one the remedy; `--json` has both, and the stable code."""
    problem = json.dumps({"code": "a_problem", "detail": "It is so."}).encode()
    with answering(lambda _: answer(status, problem)) as (refusing, _):
        assert cli.main(["show", "vit", "--url", refusing.url]) == expected
        lines = capsys.readouterr().err.splitlines()
        assert cli.main(["show", "vit", "--url", refusing.url, "--json"]) == expected
    assert lines[0].startswith("pacesetter: It is so.")
    assert lines[1].startswith("  -> ")
    assert len(lines) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["exit"], error["code"]) == (expected, "a_problem")


def test_a_name_that_no_session_has_is_told(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name with a slash matches no route, but the message does not blame the server's version."""
    for name in ("", "a/b"):
        assert cli.main(["show", name, "--url", server_url]) == exits.NOT_FOUND
        assert "no name is empty or has a slash" in capsys.readouterr().err


def test_a_server_that_is_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The message has the address, and how to start a server; there is no traceback."""
    assert cli.main(["ls", "--url", "http://127.0.0.1:9"]) == exits.AWAY
    what, advice = capsys.readouterr().err.splitlines()
    assert "no answer from http://127.0.0.1:9" in what
    assert "pacesetter serve" in advice


def test_what_answers_otherwise_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The page of another server is not taken for a list of sessions."""
    with answering(lambda _: answer(200, b"<html>")) as (other, _):
        assert cli.main(["ls", "--url", other.url]) == exits.STRANGE
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_other_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong address is a usage error; a file that cannot be read is a refusal."""
    assert cli.main(["ls", "--url", "nonsense"]) == exits.USAGE
    assert cli.main(["create", "-f", str(tmp_path)]) == exits.REFUSED
    assert cli.main(["--version"]) == exits.OK
    tried = {*PROBLEMS.values(), exits.STRANGE, exits.USAGE, exits.OK}
    assert set(MEANINGS) == tried | {exits.INTERRUPTED}
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupted_command_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while a server is silent prints no error."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server.Server, "__init__", interrupt)
    assert cli.main(["ls"]) == exits.INTERRUPTED
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")


@pytest.mark.parametrize("name", [None, 3, "no/such/file", b"no/such/file", Path("no/such/file")])
def test_a_file_that_is_missing_is_told_whatever_names_it(name: object) -> None:
    """The system may name no file, or a descriptor: it is a refusal with advice, and no bug."""
    error = FileNotFoundError(2, "No such file or directory")
    error.filename = name
    ending = exits.ending_of(error)
    assert ending is not None
    assert ending.status == exits.REFUSED
    assert ending.advice
    named = isinstance(name, (str, bytes, Path))
    assert ("there is no folder 'no/such'" in ending.what) == named
