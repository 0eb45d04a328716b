"""What all tests share: a real service, and names that nobody else uses."""

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

# The tensors of tests are small: more threads would only wait for each other, on others' cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a program writes of itself is what a test looks at; tests of that line ask for it.
os.environ.setdefault("PACESETTER_QUIET", "1")


def _keep_files_in_memory() -> None:
    """Have temporary files in memory, where there is room and nobody has said where they go.

    Every commit of a service is synced: tests of many small ones would mostly wait for the disk.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return
    may_run_programs = not os.statvfs(memory).f_flag & os.ST_NOEXEC
    if may_run_programs and shutil.disk_usage(memory).free > 4 << 30:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)


_keep_files_in_memory()

# A shell that runs this in the background has it ignore Ctrl-C, and what the tests start as well;
# some of that is to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Laws are tested on a noisy machine: no deadlines, and the same examples each time on CI.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") else "default")

ON_POSTGRES = os.environ.get("PACESETTER_TEST_SERVER") == "postgresql"
"""Whether the service that all tests share is on PostgreSQL: `make test-postgres`."""

NAME_BEHIND_PROXIES = "pacesetter.invalid"
"""What tests with a proxy ask for: a name that is nowhere resolved."""


# With one more worker than there are cores something runs while a test waits.
def pytest_xdist_auto_num_workers() -> int:
    """Tell `--numprocesses auto` how many workers this machine has work for."""
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
"""From those whose tests take long to those whose tests do not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes long, so that no worker is left alone with it in the end."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[int, int]:
        file = item.path.relative_to(here)
        among = LONGEST.index(str(file)) if str(file) in LONGEST else len(LONGEST)
        folder = FOLDERS.index(file.parts[0]) if file.parts[0] in FOLDERS else 1
        return among, folder

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Leave alone what lives to the end: collecting garbage goes through it again and again."""
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
    """Return a running service of the test's own, to kill and start again."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        yield service


_numbers = itertools.count()


@pytest.fixture(name="unique_name")
def _unique_name(request: pytest.FixtureRequest) -> str:
    """Return a session name that no other test uses."""
    return f"{request.node.originalname or request.node.name}-{next(_numbers)}"[:120]
