"""The line that says that a training follows its session: logged by default, once, or silenced."""

import logging
import os
import subprocess
import sys

import pytest

from pacesetter import Client

_TRAIN = """
import logging, sys
from pacesetter import Client
{setup}
with Client(sys.argv[1]) as client:
    session = client.session(sys.argv[2], base_lr=0.1)
    {again}
    for step in range(3):
        session.lr(step)
    session.restart(1)
    session.lr(1)
"""


def _stderr(url: str, name: str, *, setup: str = "", again: str = "", quiet: str = "") -> str:
    environment = {**os.environ, "PACESETTER_QUIET": quiet}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _TRAIN.format(setup=setup, again=again), url, name],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def _line(url: str, name: str, attempt: int = 1, step: int = 0) -> str:
    return f"pacesetter: session {name}, attempt {attempt}, step {step}, {url}/sessions/{name}"


def test_a_program_that_sets_nothing_up_sees_one_line(server_url: str, unique_name: str):
    """There is one line, however many sessions a training opens and however often it goes back."""
    again = "client.session(sys.argv[2]).lr(0)"
    told = _stderr(server_url, unique_name, again=again)
    assert told == _line(server_url, unique_name) + "\n"


_FORM = "format='%(levelname)s|%(message)s'"

SET_UP = {
    "INFO shown": (f"logging.basicConfig(level=logging.INFO, {_FORM})", 1),
    "own level": (
        f"logging.basicConfig({_FORM}); logging.getLogger('pacesetter').setLevel(logging.INFO)",
        1,
    ),
    "warnings shown": ("logging.basicConfig()", 0),
    "silenced": ("logging.getLogger('pacesetter').addHandler(logging.NullHandler())", 0),
    "errors alone": ("logging.getLogger('pacesetter').setLevel(logging.ERROR)", 0),
    "switched off": ("logging.disable()", 0),
}


@pytest.mark.parametrize(("setup", "lines"), SET_UP.values(), ids=SET_UP)
def test_what_a_program_has_set_up_decides(
    server_url: str, unique_name: str, setup: str, lines: int
):
    """Then the line goes to the logger `pacesetter` at INFO, and is not printed besides."""
    told = [
        line
        for line in _stderr(server_url, unique_name, setup=setup).splitlines()
        if "attempt 1, step 0" in line
    ]
    assert told == [f"INFO|{_line(server_url, unique_name)}"] * lines


def test_it_is_silenced_by_the_environment(server_url: str, unique_name: str):
    """`PACESETTER_QUIET` suppresses the line, and causes no warning."""
    assert _stderr(server_url, unique_name, quiet="1") == ""


@pytest.fixture(name="told")
def _told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Return the lines that were logged at INFO."""
    monkeypatch.delenv("PACESETTER_QUIET", raising=False)
    caplog.set_level(logging.INFO, logger="pacesetter")
    return lambda: [each for each in caplog.messages if each.startswith("pacesetter:")]


def test_it_names_the_attempt_and_the_step_that_go_on(
    client: Client, server_url: str, unique_name: str, told
):
    """A trainer that resumes from a checkpoint reads the attempt and the step."""
    first = client.session(unique_name, base_lr=0.1)
    assert told() == []  # nothing is trained yet
    for step in range(8):
        first.lr(step)
    client.session(unique_name, step=5).lr(5)
    assert told() == [
        _line(server_url, unique_name),
        _line(server_url, unique_name, attempt=2, step=5),
    ]


def test_one_rank_speaks_for_all(client: Client, unique_name: str, monkeypatch, told):
    """Only the first rank logs, by its argument or by its launcher's environment."""
    client.session(unique_name, rank=1, base_lr=0.1, ranks=2).lr(0)
    monkeypatch.setenv("RANK", "1")
    client.session(unique_name + "-b", base_lr=0.1).lr(0)
    assert told() == []


def test_who_only_looks_is_no_training(client: Client, unique_name: str, told):
    """Reading a value is not training with it."""
    client.create_session(unique_name, base_lr=0.1)
    client.lr(unique_name, 0)
    assert told() == []
