"""Fixtures of all tests: a real service, and unique names."""

import contextlib
import gc
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pacesetter_service import catalogue, logs  # noqa: F401 - kinds of every library
from serving import RunningService, spawned

# In-process tests log as the service does, and do not spell out the locals of every frame.
logs.configure("warning", "json")

# The tensors of tests are small: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests check a program's own output; tests of that line ask for it.
os.environ.setdefault("PACESETTER_QUIET", "1")


def _keep_files_in_memory() -> None:
    """Keep temporary files in memory, where there is room and no other folder is set.

    Every commit of a service is synced: tests of many small ones would mostly wait for the disk.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    may_run_programs = not os.statvfs(memory).f_flag & os.ST_NOEXEC
    if may_run_programs and shutil.disk_usage(memory).free > 4 << 30:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


_keep_files_in_memory()

# A shell that runs this in the background makes it ignore Ctrl-C, and what the tests start as well;
# some of that must be interruptible.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Laws are tested on a noisy machine: no deadlines, and the same examples each time on CI.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

ON_POSTGRES = os.environ.get("PACESETTER_TEST_SERVER") == "postgresql"
"""Whether the service that all tests share is on PostgreSQL: `make test-postgres`."""

NAME_BEHIND_PROXIES = "pacesetter.invalid"
"""The host that tests with a proxy ask for: a name that is never resolved."""


# With one more worker than there are cores something runs while a test waits.
def pytest_xdist_auto_num_workers() -> int:
    """Set the number of workers that `--numprocesses auto` means on this machine."""
    return (os.cpu_count() or 1) + 1


LONGEST = (
    "integrations/test_ray.py",
    "distributed/test_storm.py",
    "test_testing.py",
    "test_generated_clients.py",
    "test_live_control.py",
    "test_closed_loop.py",
    "integrations/test_loops.py",
)
"""Files that mostly start programs which start others: no other worker can help with them."""

FOLDERS = ("integrations", "distributed", "client", "api", "store", "core")
"""Folders in order, from slow tests to quick ones."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow tests first, so that no worker is left alone with one in the end."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[int, int]:
        file = item.path.relative_to(here)
        among = LONGEST.index(str(file)) if str(file) in LONGEST else len(LONGEST)
        folder = FOLDERS.index(file.parts[0]) if file.parts[0] in FOLDERS else 1
        return among, folder

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Freeze what lives to the end: garbage collection goes through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(name="server_url", scope="session")
def _server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service that all tests share; name sessions with `unique_name`."""
    options = {"allowed_hosts": NAME_BEHIND_PROXIES}
    with contextlib.ExitStack() as ends:
        if ON_POSTGRES:
            import postgres

            database: Path | str = ends.enter_context(postgres.database())
        else:
            database = tmp_path_factory.mktemp("service") / "pacesetter.db"
        yield ends.enter_context(RunningService(database, spawned, **options)).url


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[RunningService]:
    """Return a running service for one test, to kill and start again."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        yield service


_numbers = itertools.count()


@pytest.fixture(name="unique_name")
def _unique_name(request: pytest.FixtureRequest) -> str:
    """Return a session name that no other test uses."""
    return f"{request.node.originalname or request.node.name}-{next(_numbers)}"[:120]
