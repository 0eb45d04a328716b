"""A PostgreSQL server for the tests: the one that runs here, or a private one."""

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
from psycopg import sql

from pacesetter_service.store.schema import metadata
from serving import PATIENCE

SOCKETS = (Path("/var/run/postgresql"), Path("/tmp"))
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)

_numbers = itertools.count()


@functools.cache
def server() -> str:
    """Return how to connect to a server that lets the tests create databases, without its name."""
    given = os.environ.get("PACESETTER_TEST_POSTGRES_URL")
    if given:
        return given
    for folder in SOCKETS:
        conninfo = f"host={folder} user={_user()}"
        with contextlib.suppress(psycopg.Error), psycopg.connect(f"{conninfo} dbname=postgres"):
            return conninfo
    if not PROGRAMS:
        _missing("no PostgreSQL: name one by PACESETTER_TEST_POSTGRES_URL, or install its server")
    return _private(PROGRAMS[0])


def _user() -> str:
    return "postgres" if os.getuid() == 0 else os.environ.get("USER", "postgres")


class PrivateServer:
    """A server of the tests' own, which can be killed and started again; it starts when made.

    Attributes:
        conninfo: how to connect to it, without the database's name.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        self._owner = _owner()
        if self._owner:
            shutil.chown(self._folder, "postgres")
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "--no-sync")
        self.conninfo = f"host={self._folder} user=postgres"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        # What a killed server has written is there without fsync: the machine goes on.
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        self._control("-o", options, "-l", self._folder / "log", "start")

    def kill(self) -> None:
        """End it as a crash would: at once, with all its connections."""
        self._control("-m", "immediate", "stop")

    def remove(self) -> None:
        """End it, and remove what it has written."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it is down already
            self.kill()
        shutil.rmtree(self._folder)

    def create(self, name: str) -> str:
        """Create a database; returns its URL."""
        with psycopg.connect(f"{self.conninfo} dbname=postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return url_of(name, self.conninfo)

    def _control(self, *command: str | Path) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", str(int(PATIENCE)), *command)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._owner, self._programs / program, *arguments]
        said = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=said, stderr=said, cwd=self._folder)


@contextlib.contextmanager
def private_server() -> Iterator[PrivateServer]:
    """Lend a server that the test may kill."""
    if not PROGRAMS:
        _missing("no PostgreSQL to start: install its server")
    server = PrivateServer(PROGRAMS[0])
    try:
        yield server
    finally:
        server.remove()


def _private(programs: Path) -> str:
    """Start a server of the tests' own, which is removed when this process ends."""
    server = PrivateServer(programs)
    atexit.register(server.remove)
    return server.conninfo


_free: list[str] = []
"""Databases of this process that no test uses now: to empty one is quicker than to make one."""


def _made() -> str:
    """Create a database, which is dropped when this process ends."""
    name = f"pacesetter_test_{os.getpid()}_{next(_numbers)}"
    _execute("postgres", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    atexit.register(_execute, "postgres", drop)
    return name


def bare() -> str:
    """Create a database without any table, which is dropped when this process ends."""
    return url_of(_made(), server())


def _emptied(name: str) -> str:
    tables = sql.SQL(", ").join(map(sql.Identifier, metadata.tables))
    _execute(name, sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
    _execute(name, sql.SQL("INSERT INTO ids VALUES ('sessions', 1), ('feed', 1)"))
    return name


def _execute(database: str, statement: sql.Composable) -> None:
    with psycopg.connect(f"{server()} dbname={database}", autocommit=True) as connection:
        connection.execute(statement)


def url_of(name: str, server: str) -> str:
    """Return the URL of a database at a server, or at what stands before it."""
    parts = dict(part.split("=", 1) for part in server.split())
    port = f"&port={parts['port']}" if "port" in parts else ""
    return f"postgresql+psycopg://{parts['user']}@/{name}?host={parts['host']}{port}"


@functools.cache
def bouncer() -> str:
    """Return how to connect to PgBouncer, in its transaction mode, before the server."""
    before_it = pgbouncer(server(), connections=2)
    conninfo = before_it.__enter__()
    atexit.register(before_it.__exit__, None, None, None)
    return conninfo


@contextlib.contextmanager
def pgbouncer(server: str, connections: int) -> Iterator[str]:
    """Run PgBouncer in its transaction mode before a server; yields how to connect to it.

    Args:
        server: How to connect to the server.
        connections: How many connections to each database it shares among all.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        _missing("no PgBouncer: install the package pgbouncer")
    parts = dict(part.split("=", 1) for part in server.split())
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    (folder / "ini").write_text(
        f"[databases]\n* = host={parts['host']} user={parts['user']}\n[pgbouncer]\n"
        f"unix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {connections}\nserver_login_retry = 1\n"
    )
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    process = subprocess.Popen([*_owner(), program, "-q", folder / "ini"])
    try:
        while not (folder / ".s.PGSQL.6432").exists():
            assert process.poll() is None, "PgBouncer did not start"
            time.sleep(0.02)
        yield f"host={folder} port=6432 user={parts['user']}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _owner() -> list[str]:
    """Return what a command begins with that root is refused."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


def _missing(what: str) -> NoReturn:
    """Leave a test out, but on CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextlib.contextmanager
def database(*, by: str = "") -> Iterator[str]:
    """Lend a database without sessions; yields its URL.

    Args:
        by: How to connect to what stands before the server, if something does.
    """
    name = _free.pop() if _free else _made()
    try:
        yield url_of(name, by or server())
    finally:
        _free.append(_emptied(name))
