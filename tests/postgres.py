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
    """A private server, which can be killed and started again; it starts when made.

    Attributes:
        conninfo: how to connect to it, without the database's name.
    """

    def __init__(self, programs: Path, follows: str = "") -> None:
        """Make one, and start it.

        Args:
            programs: Where its programs are.
            follows: How to connect to the server of which it is a standby, if it is one.
        """
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        self._owner = _owner()
        if self._owner:
            shutil.chown(self._folder, "postgres")
        self._data = self._folder / "data"
        if follows:
            self._run("pg_basebackup", "-d", follows, "-D", self._data, "-R", "-c", "fast", "-N")
        else:
            self._run(
                *("initdb", "-D", self._data, "-A", "trust", "-U", "postgres"),
                *("-E", "UTF8", "--no-sync"),
            )
        self.conninfo = f"host={self._folder} user=postgres"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        # What a killed server has written is there without fsync: the machine goes on.
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        self._control("-o", options, "-l", self._folder / "log", "start")

    def kill(self) -> None:
        """End it as a crash would: immediately, with all its connections."""
        self._control("-m", "immediate", "stop")

    def standby(self) -> "PrivateServer":
        """Start a standby, without which nothing is acknowledged from now on."""
        standby = PrivateServer(self._programs, self.conninfo)
        with psycopg.connect(f"{self.conninfo} dbname=postgres", autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
            state, deadline = (
                "SELECT sync_state FROM pg_stat_replication",
                time.monotonic() + PATIENCE,
            )
            while admin.execute(state).fetchall() != [("sync",)]:
                assert time.monotonic() < deadline, "the standby does not follow"
                time.sleep(0.02)
        return standby

    def promote(self) -> None:
        """Promote a standby to be the server from now on."""
        self._control("promote")
        with psycopg.connect(f"{self.conninfo} dbname=postgres", autocommit=True) as admin:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")

    def remove(self) -> None:
        """End it, and remove its files."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it is down already
            self.kill()
        shutil.rmtree(self._folder)

    def create(self, name: str) -> str:
        """Create a database, and return its URL."""
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
    """Yield a server that the test may kill."""
    if not PROGRAMS:
        _missing("no PostgreSQL to start: install its server")
    server = PrivateServer(PROGRAMS[0])
    try:
        yield server
    finally:
        server.remove()


def _private(programs: Path) -> str:
    """Start a private server, which is removed when this process ends."""
    server = PrivateServer(programs)
    atexit.register(server.remove)
    return server.conninfo


_free: list[str] = []
"""Databases of this process that no test uses now: emptying one is quicker than creating one."""


def _made(encoding: str = "UTF8") -> str:
    """Create a database, which is dropped when this process ends."""
    name = f"pacesetter_test_{os.getpid()}_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0").format(
        sql.Identifier(name), sql.Literal(encoding)
    )
    if encoding != "UTF8":  # which other locales may not go with
        create += sql.SQL(" LC_COLLATE 'C' LC_CTYPE 'C'")
    _execute("postgres", create)
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    atexit.register(_execute, "postgres", drop)
    return name


def bare(encoding: str = "UTF8") -> str:
    """Create a database without any table, which is dropped when this process ends."""
    return url_of(_made(encoding), server())


def _emptied(name: str) -> str:
    tables = sql.SQL(", ").join(map(sql.Identifier, metadata.tables))
    _execute(name, sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
    _execute(name, sql.SQL("INSERT INTO ids VALUES ('sessions', 1), ('feed', 1)"))
    return name


def _execute(database: str, statement: sql.Composable) -> None:
    with psycopg.connect(f"{server()} dbname={database}", autocommit=True) as connection:
        connection.execute(statement)


def url_of(name: str, server: str) -> str:
    """Return the URL of a database at a server, or at a pooler before it."""
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


class Bouncer:
    """PgBouncer in its transaction mode before a server, which can be killed; it starts when made.

    Attributes:
        conninfo: how to connect to it, without the database's name.
    """

    def __init__(self, server: str, connections: int) -> None:
        """Start it.

        Args:
            server: How to connect to the server.
            connections: How many connections to each database it shares among all.
        """
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            _missing("no PgBouncer: install the package pgbouncer")
        self._program, self._connections = program, connections
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
        self._write(server)
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres")
        user = dict(part.split("=", 1) for part in server.split())["user"]
        self.conninfo = f"host={self._folder} port=6432 user={user}"
        self.start()

    def _write(self, server: str) -> None:
        parts = dict(part.split("=", 1) for part in server.split())
        (self._folder / "ini").write_text(
            f"[databases]\n* = host={parts['host']} user={parts['user']}\n[pgbouncer]\n"
            f"unix_socket_dir = {self._folder}\nlisten_port = 6432\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._connections}\n"
            "server_login_retry = 1\n"
        )

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        socket = self._folder / ".s.PGSQL.6432"
        socket.unlink(missing_ok=True)
        # It changes to another user by itself: a program in between would be killed in its place.
        user = ["-u", "postgres"] if os.getuid() == 0 else []
        self._process = subprocess.Popen([self._program, *user, "-q", self._folder / "ini"])
        while not socket.exists():
            assert self._process.poll() is None, "PgBouncer did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it immediately, with all its connections."""
        self._process.kill()
        self._process.wait()

    def lead_to(self, server: str) -> None:
        """Connect it to another server from now on."""
        self.kill()
        self._write(server)
        self.start()

    def remove(self) -> None:
        """End it, and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)


@contextlib.contextmanager
def pgbouncer(server: str, connections: int) -> Iterator[str]:
    """Run PgBouncer before a server; yield how to connect to it."""
    bouncer = Bouncer(server, connections)
    try:
        yield bouncer.conninfo
    finally:
        bouncer.remove()


def _owner() -> list[str]:
    """Return the prefix of a command that refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


def _missing(what: str) -> NoReturn:
    """Skip a test, except on CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextlib.contextmanager
def database(*, by: str = "") -> Iterator[str]:
    """Yield the URL of a database without sessions.

    Args:
        by: How to connect to a pooler before the server, if there is one.
    """
    name = _free.pop() if _free else _made()
    try:
        yield url_of(name, by or server())
    finally:
        _free.append(_emptied(name))
