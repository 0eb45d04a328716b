"""`pacesetter.testing`: the server that users' own tests run against."""

import asyncio
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from pacesetter import Client, OutagePolicy, ServerUnavailableError
from pacesetter.testing import Server, serve
from serving import PATIENCE

pytest_plugins = ["pytester", "pacesetter.testing"]

PAGE = (Path(__file__).parents[1] / "docs/testing.md").read_text()
COSINE = {"kind": "cosine", "total_steps": 100}


def _pytest(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run a user's tests in a separate process, where every warning is an error."""
    return pytester.runpytest_subprocess(
        *("-W", "error", "-p", "no:cacheprovider", *options), timeout=PATIENCE
    )


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# -- under pytest ----------------------------------------------------------------------------------


def test_the_examples_of_the_page_pass(pytester: pytest.Pytester):
    """The page's tests pass under its conftest; its program runs, when it is imported."""
    conftest, *tests = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    pytester.makeconftest(conftest)
    pytester.makepyfile(**{f"test_{number}": code for number, code in enumerate(tests)})
    written = "\n".join(tests).count("\ndef test_")
    _pytest(pytester).assert_outcomes(passed=written)


USERS = """
    import os
    import pytest
    from pacesetter import Client, NotFoundError
    from pacesetter.testing import serve

    pytest_plugins = ["pacesetter.testing"]

    @pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.4])
    def test_creates(rate, pacesetter_server):
        with Client() as client:
            assert client.url == pacesetter_server.url == os.environ["PACESETTER_URL"]
            with pytest.raises(NotFoundError):
                client.session("run")
            assert client.session("run", base_lr=rate).lr(0) == rate

    def test_asks_for_no_server():
        assert "PACESETTER_URL" not in os.environ
"""


def test_each_test_has_an_empty_server_also_under_xdist(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    """Tests do not share sessions, in turn or in parallel; the environment is restored."""
    monkeypatch.delenv("PACESETTER_URL", raising=False)
    pytester.makepyfile(USERS)
    _pytest(pytester, "--numprocesses", "2").assert_outcomes(passed=5)


@pytest.mark.anyio
async def test_the_fixtures_serve_asynchronous_tests(
    pacesetter_server: Server, pacesetter_client: Client
):
    """A test on an event loop may call the server, and so may the threads that it starts."""
    session = pacesetter_client.session("run", base_lr=0.1)
    async with httpx.AsyncClient(base_url=pacesetter_server.url, timeout=PATIENCE) as http:
        there, here = await asyncio.gather(
            http.get("/v1/sessions/run/lr?step=0"), asyncio.to_thread(session.lr, 0)
        )
    assert there.json()["lr"] == here == 0.1


@pytest.fixture(name="anyio_backend")
def _anyio_backend() -> str:
    return "asyncio"


def test_a_test_may_end_while_the_server_is_away(
    pacesetter_server: Server, pacesetter_client: Client
):
    """The teardown of a session with undelivered reports passes, and does not wait."""
    session = pacesetter_client.session("run", base_lr=0.1)
    session.lr(0)
    session.report(0, loss=1.0)
    pacesetter_server.stop()


# -- the server ------------------------------------------------------------------------------------


def _answers(server: Server) -> bool:
    port = int(server.url.rpartition(":")[2])
    with socket.socket() as probe:
        probe.settimeout(PATIENCE)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_stopped_server_refuses_and_a_started_one_has_its_data(pacesetter_server: Server):
    """The address stays, the port is closed meanwhile, and sealed values are what they were."""
    url = pacesetter_server.url
    with Client(url, max_wait=PATIENCE) as client:
        session = client.session("run", base_lr=0.1, schedule=COSINE)
        rates = [session.lr(step) for step in range(5)]
    pacesetter_server.stop()
    assert not _answers(pacesetter_server)
    pacesetter_server.start()
    assert pacesetter_server.url == url
    with Client(url, max_wait=PATIENCE) as client:
        again = client.session("run", resume="continue")
        assert again.horizon >= 5
        assert [again.lr(step) for step in range(5)] == rates


def test_a_training_sees_the_outage_and_its_end(pacesetter_server: Server):
    """The client's own policies apply: it raises, goes on, and follows again."""
    with Client(retry_for=0.1) as hasty:
        pacesetter_server.stop()
        with pytest.raises(ServerUnavailableError):
            hasty.session("run", base_lr=0.1)
    pacesetter_server.start()
    policy = OutagePolicy("hold", patience=0.0, max_steps=1_000_000)
    with Client(on_outage=policy, max_wait=PATIENCE) as client:
        session = client.session("run", base_lr=0.1, schedule=COSINE)
        news = []
        session.on_outage(news.append)
        held = session.lr(0)
        pacesetter_server.stop()
        assert session.lr(1) == held
        pacesetter_server.start()
        for step in itertools.count(2):
            session.lr(step)
            if news[-1].state != "began":
                break
            time.sleep(0.01)
        assert [each.state for each in news] == ["began", "over"]


def test_starting_and_stopping_twice_changes_nothing(pacesetter_server: Server):
    """Starting a running server, or stopping a stopped one, is no error."""
    pacesetter_server.start()
    assert _answers(pacesetter_server)
    pacesetter_server.stop()
    pacesetter_server.stop()
    assert not _answers(pacesetter_server)


def test_nobody_else_gets_the_port_of_a_stopped_server(pacesetter_server: Server):
    """It is bound without a listener, so that `start` finds it free."""
    pacesetter_server.stop()
    port = int(pacesetter_server.url.rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    pacesetter_server.start()
    assert _answers(pacesetter_server)


def test_a_server_with_calls_that_wait_stops(
    pacesetter_server: Server, caplog: pytest.LogCaptureFixture
):
    """Feeds, which never end by themselves, are ended; no connection has to be cut off."""
    with Client(max_wait=PATIENCE) as client, Client(retry_for=0.1) as follower:
        client.session("run", base_lr=0.1)
        events = follower.events("run", follow=True)
        assert next(events)["kind"] == "created"
        pacesetter_server.stop()
        with pytest.raises(ServerUnavailableError):
            next(events)
    assert not [each for each in caplog.records if each.name.startswith("uvicorn")]


def test_the_database_may_be_kept(tmp_path: Path):
    """A folder that was named is not removed, and the next server goes on with it."""
    for _ in range(2):
        with serve(tmp_path) as server, Client(server.url) as client:
            assert client.session("run", base_lr=0.1, resume="continue").lr(0) == 0.1
    assert (tmp_path / "pacesetter.db").exists()


LEAVES_NOTHING = """
import gc, os, sys, threading
from pacesetter import Client
from pacesetter.testing import serve

def descriptors():
    return sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else []

with serve():
    pass  # what is opened once for the process is open now
before = descriptors()
for _ in range(3):
    with serve() as server:
        with Client(server.url) as client:
            client.session("run", base_lr=0.1).lr(0)
        server.stop()
        server.start()
gc.collect()
assert descriptors() == before, (before, descriptors())
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert os.listdir(sys.argv[1]) == [], os.listdir(sys.argv[1])
"""


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There is no thread, open file, socket or folder, and no warning about any of them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = _python(LEAVES_NOTHING, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path):
    """For a database that cannot be opened, thread, port and lock are given back."""
    (tmp_path / "pacesetter.db").mkdir()
    before = threading.active_count()
    with pytest.raises(Exception, match="cannot be opened"), serve(tmp_path):
        pass
    assert threading.active_count() == before


def test_the_port_is_nobody_elses_while_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """When the server no longer listens and its database is closed, the port is still taken."""
    from pacesetter_service.store.sqlite import SqliteStore

    close = SqliteStore.close
    refused: list[OSError] = []

    def look(store: SqliteStore) -> None:
        close(store)
        with socket.socket() as other, pytest.raises(OSError, match="in use") as error:
            other.bind(("127.0.0.1", server._port))
        refused.append(error.value)

    monkeypatch.setattr(SqliteStore, "close", look)
    server = Server(tmp_path)
    server.start()
    server.stop()
    server.start()
    server.close()
    assert len(refused) == 2


# -- what is not installed -------------------------------------------------------------------------

WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from pacesetter import Client
from pacesetter.testing import serve
try:
    with serve() as server, Client(server.url) as client:
        print(client.session("run", base_lr=0.1).lr(0))
except ImportError as error:
    print(error)
"""


def test_without_pytest_serve_works():
    done = _python(WITHOUT, "pytest")
    assert (done.stdout, done.stderr) == ("0.1\n", "")


@pytest.mark.parametrize("missing", ["pacesetter_service", "sqlalchemy"])
def test_without_the_service_it_says_what_to_install(missing: str):
    """The client alone imports the module; the error comes when a server is started."""
    done = _python(WITHOUT, missing)
    assert f"({missing}" in done.stdout
    assert done.stdout.endswith("is missing): pip install 'pacesetter[service]'\n")
    assert done.stderr == ""


def test_a_python_too_old_for_the_server_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    with pytest.raises(ImportError, match=r"needs Python 3\.11 or newer"), serve():
        pass


def test_the_environment_is_left_alone_by_serve():
    """Without pytest, a program writes `Client(server.url)`."""
    before = dict(os.environ)
    with serve():
        assert dict(os.environ) == before
