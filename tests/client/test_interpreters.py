"""The client without torch runs on every Python that it supports."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import pacesetter
from pacesetter.cli import main
from serving import PATIENCE

OLDEST, NEWEST = (3, 10), (3, 13)

PURE = ["httpx", "httpcore", "h11", "certifi", "idna"]
"""The client's dependencies: all of them are pure Python, so any interpreter can import them."""

SCRIPT = """
import sys
from pacesetter import Client, OutagePolicy, __all__
import pacesetter

assert "torch" not in sys.modules and "numpy" not in sys.modules
assert all(getattr(pacesetter, name) for name in __all__ if name != "__version__")
with Client(sys.argv[1], on_outage=OutagePolicy("forecast")) as client:
    session = client.session(sys.argv[2], schedule={"kind": "cosine", "total_steps": 100},
                             base_lr=0.1)
    rates = [session.lr(step) for step in range(90)]
    session.report(3, loss=0.5)
    session.flush()
    assert rates == client.forecast(sys.argv[2], start=0, count=90, points=90)["series"]["lr"]
    session.restart(50)
    assert session.lr(50) == rates[50]
    client.export_bootstrap(sys.argv[2], sys.argv[3])
print("attempt", session.attempt)
"""


def _found() -> dict[str, str]:
    """Return this machine's interpreters, by version; the running one is always included."""
    installed = Path.home() / ".pyenv/versions"
    candidates = [sys.executable, *map(str, sorted(installed.glob("3.1*/bin/python")))]
    found: dict[str, str] = {}
    for path in candidates:
        asked = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
            capture_output=True,
            text=True,
            check=False,
        )
        version = asked.stdout.strip()
        if asked.returncode == 0 and OLDEST <= tuple(map(int, version.split("."))) <= NEWEST:
            found.setdefault(version, path)
    return found


@pytest.fixture(name="path", scope="module")
def _path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PYTHONPATH with the client and its dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("pure")
    packages = Path(httpx.__file__).parents[1]
    for name in PURE:
        (folder / name).symlink_to(packages / name)
    return os.pathsep.join([str(Path(pacesetter.__file__).parents[1]), str(folder)])


def _run(python: str, path: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the running interpreter's environment is visible, and no bytecode is left behind.
    return subprocess.run(
        [python, "-S", "-B", "-W", "error", "-c", script, *arguments],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


INTERPRETERS = _found()


@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_client_runs(version: str, path: str, server_url: str, tmp_path: Path):
    """Without torch a training gets its values, reports, restarts, writes a file and says so."""
    file = tmp_path / "bootstrap.json"
    name = f"python-{version}"
    done = _run(INTERPRETERS[version], path, SCRIPT, server_url, name, str(file))
    line = f"pacesetter: session {name}, attempt 1, step 0, {server_url}/sessions/{name}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "attempt 2\n", line)
    assert file.exists()


def test_an_interpreter_too_old_for_the_server_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`pacesetter serve` names the Python that it needs instead of failing on an import."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("the server needs Python 3.11 or newer")


def test_the_oldest_python_is_the_one_that_is_promised():
    """What pip is told agrees with what is tested here."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'requires-python = ">={OLDEST[0]}.{OLDEST[1]}"' in project
