"""Opening a database so that what was committed survives, and nobody else writes to it."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError


class UnusableDatabaseError(Exception):
    """The database that the settings name can not be served from; said at the start."""


def open_writer(database_url: str) -> Engine:
    """Open the one connection that writes."""
    engine = create_engine(f"sqlite:///{_file_of(database_url)}", pool_size=1, max_overflow=0)
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def open_reader(database_url: str) -> Engine:
    """Open connections that can only read."""
    engine = create_engine(f"sqlite:///{_file_of(database_url)}", pool_size=4, max_overflow=0)
    event.listen(engine, "connect", _prepare_reader)
    return engine


def lock_for_this_process(database_url: str) -> int:
    """Make sure that no other process serves this SQLite file; the lock lasts as long as we do.

    Returns:
        The lock's file descriptor, to be kept open.

    Raises:
        UnusableDatabaseError: Another process holds it, or it can not be opened.
    """
    path = _file_of(database_url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnusableDatabaseError(f"{path} can not be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UnusableDatabaseError(
            f"another process serves {path}; stop it, or give this one its own database-url"
        ) from error
    return descriptor


def unlock(descriptor: int) -> None:
    """Let another process serve the database."""
    os.close(descriptor)


def _file_of(database_url: str) -> Path:
    """Give the file that a SQLite URL names.

    Raises:
        UnusableDatabaseError: It names none, or another database.
    """
    with suppress(ArgumentError):
        url = make_url(database_url)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            # However it is named: a lock beside a link would not keep others from the file.
            return Path(str(url.database)).resolve()
    raise UnusableDatabaseError(
        "the database-url must name a SQLite file, such as sqlite:///pacesetter.db"
    )


def _prepare_writer(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    # We open transactions ourselves: the driver's own would begin too late to be immediate.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit is on the disk before it returns, power failure or not.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=5000")


def _prepare_reader(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.execute("PRAGMA busy_timeout=5000")
    # Checkpoints belong to the writer alone: SQLite before 3.51.3 can corrupt the WAL otherwise.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA query_only=ON")


def _begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
