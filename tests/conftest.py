"""What all tests share: a real service, and names that nobody else uses."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pacesetter_service import logs
from serving import RunningService

# In-process tests log as the service does, and do not spell out the locals of every frame.
logs.configure("warning", "json")

# A shell that runs this in the background has it ignore Ctrl-C, and what the tests start as well;
# some of that is to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Laws are tested on a noisy machine: no deadlines, and the same examples each time on CI.
settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(name="server_url", scope="session")
def _server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a service that all tests share; name sessions with `unique_name`."""
    with RunningService(tmp_path_factory.mktemp("service") / "pacesetter.db") as service:
        yield service.url


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[RunningService]:
    """Give a running service of the test's own, to kill and start again."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        yield service


_numbers = itertools.count()


@pytest.fixture(name="unique_name")
def _unique_name(request: pytest.FixtureRequest) -> str:
    """Give a session name that no other test uses."""
    return f"{request.node.originalname or request.node.name}-{next(_numbers)}"[:120]
