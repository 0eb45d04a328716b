"""The client does nothing to its process that was not asked for."""

import logging
import multiprocessing
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from little_servers import LittleServer, answer, answering, say_nothing
from pacesetter import Client, Session
from serving import PATIENCE, RunningService

COSINE = {"kind": "cosine", "total_steps": 1000}

IMPORT = """
import logging, random, signal, socket, sys, threading, warnings
import httpx, numpy, torch  # what they do at their import is theirs

opened = []
def audit(event, arguments):
    if event.startswith("socket.") or event in {"subprocess.Popen", "os.fork", "os.system"}:
        opened.append(event)
sys.addaudithook(audit)

def state():
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "handlers": [list(logging.getLogger(name).handlers) for name in (None, "pacesetter")],
        "levels": [logging.getLogger(name).level for name in (None, "pacesetter", "httpx")],
        "random": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "warnings": list(warnings.filters),
        "timeout": socket.getdefaulttimeout(),
        "hooks": (sys.excepthook, threading.excepthook),
        "signals": [signal.getsignal(each) for each in signal.valid_signals()],
    }

before = state()
import pacesetter, pacesetter.torch, pacesetter.distributed
client = pacesetter.Client("http://127.0.0.1:9", token="secret")
after = state()
assert after == before, [key for key in before if after[key] != before[key]]
assert not opened, opened
"""


def _run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_importing_does_nothing():
    """Neither the import nor a `Client` starts a thread or sets a socket, handler, seed or hook."""
    done = _run(IMPORT)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_clients_do_not_influence_each_other():
    """Each has its address, token, patience and connections; closing one leaves the other."""

    def say(number: int) -> Any:
        return answering(lambda _: answer(200, b'{"number": %d}' % number))

    with say(1) as (one, seen_by_one), say(2) as (two, seen_by_two):
        first = Client(one.url, token="first", timeout=5.0, retry_for=1.0)
        second = Client(two.url, token="second", timeout=7.0, retry_for=2.0)
        third = Client(two.url)
        for _ in range(3):
            assert first.version() == {"number": 1}
            assert second.version() == {"number": 2}
        first.close()
        assert second.version() == third.version() == {"number": 2}
        second.close()
        third.close()
        assert (one.connections, two.connections) == (1, 2)
    assert {asked.headers["authorization"] for asked in seen_by_one} == {"Bearer first"}
    assert [asked.headers.get("authorization") for asked in seen_by_two] == [
        *["Bearer second"] * 4,
        None,
    ]
    assert (first._transport.timeout, second._transport.timeout) == (5.0, 7.0)


def test_where_the_log_goes_is_the_users_affair():
    """The client logs as `pacesetter`, and sets no handler, level or propagation there."""
    logger = logging.getLogger("pacesetter")
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


# -- workers --


class _Reporting(Dataset[torch.Tensor]):
    """A dataset that reports, for example, how long its samples took."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        self.session.report(index, **{f"of_{index % 2}": float(index)})
        if index % 8 == 7:
            self.session.flush()
        return torch.tensor(index)


class _Holding(Dataset[torch.Tensor]):
    """A dataset that holds a session and does nothing with it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> torch.Tensor:
        threads = [each for each in threading.enumerate() if "pacesetter" in each.name]
        return torch.tensor(len(threads))


workers = pytest.mark.parametrize(
    "how", [each for each in ("fork", "spawn") if each in multiprocessing.get_all_start_methods()]
)
ignore_fork = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


@workers
@ignore_fork
def test_workers_may_report(how: str, client: Client, unique_name: str):
    """What they report arrives, each reading once, beside the trainer's own reports."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    expected = client.forecast(unique_name, count=40, points=40)["series"]["lr"]
    for step in range(32):
        assert session.lr(step) == expected[step]
    loader = DataLoader(
        _Reporting(session), batch_size=8, num_workers=2, multiprocessing_context=how
    )
    for step, _ in enumerate(loader):
        session.report(step, loss=float(step))
    session.flush()
    metrics = client.history(unique_name)["metrics"]
    assert metrics["loss"][:4] == [0.0, 1.0, 2.0, 3.0]
    assert metrics["of_0"][:32] == [float(n) if n % 2 == 0 else None for n in range(32)]
    assert metrics["of_1"][:32] == [float(n) if n % 2 == 1 else None for n in range(32)]
    assert session.lr(32) == expected[32]


@workers
@ignore_fork
def test_workers_may_hold_a_session(how: str, client: Client, unique_name: str):
    """A session that was passed on starts no thread there; the worker's end does not affect it."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    session.report(0, loss=1.0)
    session.lr(0)
    loader = DataLoader(_Holding(session), batch_size=8, num_workers=1, multiprocessing_context=how)
    assert torch.cat(list(loader)).tolist() == [0] * 32
    session.flush()
    assert client.history(unique_name)["metrics"]["loss"] == [1.0]


# -- the end --

MANY = """
import sys, time
from pacesetter import Client, SessionInfo

client = Client(sys.argv[1], max_wait=1000, retry_for=1000, timeout=1000)
for n in range(int(sys.argv[2])):
    info = SessionInfo(f"run-{n}", {}, "active", 1, 0, 0, ("lr",), None, 100)
    session = client.follow(info)
    session.report(0, loss=0.25)
    globals()[f"kept_{n}"] = session
"""


@pytest.mark.parametrize("closes", [False, True])
def test_many_sessions_of_a_server_that_hangs_end_soon(closes: bool):
    """Forty last deliveries are tried concurrently: the end takes seconds, not seconds for each."""
    code = "from pacesetter import _session\n_session.CLOSE_SECONDS = 4.0\n"
    code += MANY.replace("timeout=1000", "timeout=3")
    code += "print(time.time(), flush=True)\n" + "client.close()\n" * closes
    with LittleServer(say_nothing) as server:
        done = _run(code, server.url, "40")
        took = time.time() - float(done.stdout)
    assert done.returncode == 0
    assert took < 60  # two seconds for each would be eighty, four for each a hundred and sixty
    told = set(re.findall(r"1 reports of session (run-\d+) were not delivered", done.stderr))
    assert len(told) == 40


def test_a_wait_that_is_interrupted_leaves_the_background_at_work(service: RunningService):
    """After Ctrl-C while a step waits for a hung exchange, later reports are delivered."""
    code = """
import os, signal, sys, threading, time
from pacesetter import Client

session = Client(sys.argv[1], max_wait=1000).session("run", base_lr=0.1, max_lookahead=1)
session.lr(0)
sync = session._core.sync
begun, over = threading.Event(), threading.Event()
def hang():
    with sync.lock:
        begun.set()
        over.wait()

threading.Thread(target=hang).start()
begun.wait()
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    session.lr(1)
except KeyboardInterrupt:
    session.report(0, loss=0.5)
over.set()
deadline = time.monotonic() + float(sys.argv[2])
while sync.reports and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(sync.reports))
"""
    done = _run(code, service.url, str(PATIENCE / 4))
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_a_wait_that_is_interrupted_ends_the_process():
    """Ctrl-C in the middle of a wait for a server that hangs is obeyed."""
    code = (
        MANY
        + """
import os, signal, threading
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    session.lr(0)
except KeyboardInterrupt:
    print(time.time(), flush=True)
"""
    )
    with LittleServer(say_nothing) as server:
        done = _run(code, server.url, "1")
        took = time.time() - float(done.stdout)
    assert done.returncode == 0
    assert took < PATIENCE / 2
