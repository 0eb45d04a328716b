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
def _server() -> str:
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


def _private(programs: Path) -> str:
    """Start a server of the tests' own, which is stopped when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    owner = _owner()
    if owner:
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run([*owner, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    control = (programs / "pg_ctl", "-D", data, "-w", "-t", str(int(PATIENCE)))
    run(*control, "-o", options, "-l", folder / "log", "start")
    atexit.register(run, *control, "-m", "immediate", "stop")
    return f"host={folder} user=postgres"


_free: list[str] = []
"""Databases of this process that no test uses now: to empty one is quicker than to make one."""


def _made() -> str:
    """Create a database, which is dropped when this process ends."""
    name = f"pacesetter_test_{os.getpid()}_{next(_numbers)}"
    _execute("postgres", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    atexit.register(_execute, "postgres", drop)
    return name


def _emptied(name: str) -> str:
    tables = sql.SQL(", ").join(map(sql.Identifier, metadata.tables))
    _execute(name, sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
    _execute(name, sql.SQL("INSERT INTO ids VALUES ('sessions', 1)"))
    return name


def _execute(database: str, statement: sql.Composable) -> None:
    with psycopg.connect(f"{_server()} dbname={database}", autocommit=True) as connection:
        connection.execute(statement)


def url_of(name: str, server: str) -> str:
    """Return the URL of a database at a server, or at what stands before it."""
    parts = dict(part.split("=", 1) for part in server.split())
    port = f"&port={parts['port']}" if "port" in parts else ""
    return f"postgresql+psycopg://{parts['user']}@/{name}?host={parts['host']}{port}"


@functools.cache
def bouncer() -> str:
    """Return how to connect to PgBouncer, in its transaction mode, before the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        _missing("no PgBouncer: install the package pgbouncer")
    parts = dict(part.split("=", 1) for part in _server().split())
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    (folder / "ini").write_text(
        f"[databases]\n* = host={parts['host']} user={parts['user']}\n[pgbouncer]\n"
        f"unix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 2\n"
    )
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    process = subprocess.Popen([*_owner(), program, "-q", folder / "ini"])
    atexit.register(shutil.rmtree, folder)
    atexit.register(process.wait)
    atexit.register(process.kill)
    while not (folder / ".s.PGSQL.6432").exists():
        assert process.poll() is None, "PgBouncer did not start"
        time.sleep(0.02)
    return f"host={folder} port=6432 user={parts['user']}"


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
        yield url_of(name, by or _server())
    finally:
        _free.append(_emptied(name))
