"""The end of the process."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacesetter import Client
from serving import RunningService

_TRAIN = """
import sys
from pacesetter import Client
session = Client(sys.argv[1], max_wait=120).session(sys.argv[2], base_lr=0.1)
session.lr(0)
session.report(0, loss=0.25)
"""

STEPS = 50

# What a function returned from is collected: the sessions before the process ends.
_IN_FUNCTIONS = """
import multiprocessing
import sys
from pacesetter import Client

def train(url, name):
    session = Client(url).session(name, base_lr=0.1)
    for step in range(50):
        session.lr(step)
        session.report(step, loss=1.0)

def keep(url, name):
    global kept
    kept = Client(url).session(name, base_lr=0.1)
    for step in range(50):
        kept.lr(step)
        kept.report(step, loss=1.0)

def main(url, method=""):
    if not method:
        for name in "abcd":
            train(url, name)
        return
    workers = [
        multiprocessing.get_context(method).Process(target=each, args=(url, each.__name__))
        for each in (train, keep)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def _stored(client: Client, name: str) -> int:
    """Return how many losses of a training the server has."""
    losses = client.history(name, points=2 * STEPS)["metrics"].get("loss", [])
    return sum(loss is not None for loss in losses)


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run_python("-c", code, *arguments)


def _run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_script_that_just_ends_delivers_its_reports(service: RunningService):
    """Without a call of `close` the last metrics arrive, and the end is silent."""
    plateau = "controllers=[{'kind': 'plateau', 'metric': 'loss', 'patience': 0, 'factor': 0.5}], "
    code = _TRAIN.replace("base_lr", plateau + "max_lookahead=1, base_lr")
    done = _run(code, service.url, "run")
    assert (done.returncode, done.stderr) == (0, "")
    with Client(service.url) as client:
        session = client.session("run")
        assert session.lr(1) == 0.1
        session.report(1, loss=0.25)  # no better than what the script reported: it did arrive
        assert session.lr(2) == 0.05


def test_a_training_in_a_function_delivers_its_reports(service: RunningService):
    """Sessions that are collected right before the end deliver all that they were told."""
    done = _run(_IN_FUNCTIONS, service.url)
    assert (done.returncode, done.stderr) == (0, "")
    with Client(service.url) as client:
        assert [_stored(client, name) for name in "abcd"] == [STEPS] * 4


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_training_in_a_worker_delivers_its_reports(
    service: RunningService, tmp_path: Path, method: str
):
    """A worker of `multiprocessing` delivers, whether or not it runs functions of `atexit`."""
    script = tmp_path / "trains.py"
    script.write_text(_IN_FUNCTIONS)
    done = _run_python(str(script), service.url, method)
    assert (done.returncode, done.stderr) == (0, "")
    with Client(service.url) as client:
        assert [_stored(client, name) for name in ("train", "keep")] == [STEPS] * 2


def test_a_closed_client_has_delivered_for_sessions_that_were_dropped(service: RunningService):
    """`close` waits for sessions that a function has left, before it closes the connections."""

    def train(client: Client, name: str) -> None:
        session = client.session(name, base_lr=0.1)
        for step in range(STEPS):
            session.lr(step)
            session.report(step, loss=1.0)

    with Client(service.url) as client:
        for name in "abcd":
            train(client, name)
    with Client(service.url) as client:
        assert [_stored(client, name) for name in "abcd"] == [STEPS] * 4


@pytest.mark.parametrize("drops", [False, True])
def test_a_dead_server_does_not_hold_up_the_end(service: RunningService, *, drops: bool):
    """The last delivery is tried for two seconds at most, and its loss is logged."""
    code = _TRAIN + "import os, signal\nos.kill(int(sys.argv[3]), signal.SIGSTOP)\n"
    code += "del session\n" * drops
    code += "import time\nprint(time.time())"
    done = _run(code, service.url, "run", str(service.process.pid))
    took = time.time() - float(done.stdout)
    service.kill()
    assert done.returncode == 0
    assert took < 30  # and not the two minutes that a training would wait
    assert "1 reports of session run were not delivered" in done.stderr
