"""The file that is served: which users can read it, and which process may serve it."""

import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Return the path of the database's file."""
    return tmp_path / "a.db"


@pytest.fixture(name="store")
def _store(path: Path) -> Iterator[SqliteStore]:
    """Open a store in a process whose umask lets other users read new files."""
    before = os.umask(0)
    try:
        store = SqliteStore(f"sqlite:///{path}")
    finally:
        os.umask(before)
    yield store
    store.close()


def served(path: Path) -> subprocess.CompletedProcess[str]:
    """Try to serve a file from another process."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pacesetter_service",
            "--port=0",
            f"--database-url=sqlite:///{path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_nobody_else_can_read_the_database(store: SqliteStore, path: Path) -> None:
    """Neither the file nor those beside it are readable by others, whatever the umask."""
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm", "a.db-mark"), 0o600)


def test_a_database_that_others_can_read_is_said_to_be(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The service warns and leaves the mode as it is: the operator may have meant it."""
    path.touch(mode=0o644)
    SqliteStore(f"sqlite:///{path}").close()
    assert "chmod 600" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("link", [os.link, os.symlink, None], ids=["hard", "symbolic", "itself"])
def test_a_file_is_served_once_by_whatever_name(store: SqliteStore, path: Path, link) -> None:
    """The lock is on the file: another name for it, or removed lock files, let no second one in."""
    other = path
    if link is not None:
        other = path.with_name("b.db")
        link(path, other)
    for beside in path.parent.glob("*.lock"):
        beside.unlink()
    done = served(other)
    assert done.returncode == 1
    assert f"another process serves {other.resolve()}" in done.stderr
    with pytest.raises(UnusableDatabaseError, match="another process serves"):
        SqliteStore(f"sqlite:///{other}")


LEAVE_WAL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
try:
    print(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0])
except sqlite3.OperationalError as error:
    print(error)
"""


def test_being_asked_for_twice_takes_no_lock_from_sqlite(store: SqliteStore, path: Path) -> None:
    """Closing a file drops all its record locks; then another process could remove its log."""
    for _ in range(2):
        with pytest.raises(UnusableDatabaseError):
            SqliteStore(f"sqlite:///{path}")
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_WAL, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in {"wal", "database is locked"}


def test_a_file_is_free_again_when_it_was_let_go(path: Path) -> None:
    """This holds after a failed start, and although a child process inherited the file."""
    path.write_bytes(b"this is no database" * 100)
    for _ in range(2):
        with pytest.raises(Exception, match="not a database"):
            SqliteStore(f"sqlite:///{path}")
    path.unlink()
    store = SqliteStore(f"sqlite:///{path}")
    reading, writing = os.pipe()
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        child = os.fork()  # JAX warns of it, where another test has imported it
    if child == 0:  # pragma: no cover - it holds what it inherited until it is let go
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    store.close()
    SqliteStore(f"sqlite:///{path}").close()
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)


def test_a_database_that_fails_after_it_was_opened_is_refused_in_a_sentence(path: Path) -> None:
    """A damaged page of tokens is read only then; the operator gets no traceback."""
    SqliteStore(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'tokens'"
        [page] = connection.execute(query).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    done = served(path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pacesetter serve: The database did not answer as it should")
    assert "malformed" in last
