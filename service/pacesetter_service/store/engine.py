"""Opening a database so that commits survive."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

INCREMENTAL = 2
"""The value of `PRAGMA auto_vacuum` for a file that can shrink."""


def open_writer(path: Path) -> Engine:
    """Open the one connection that writes."""
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)
    event.listen(engine, "connect", _prepare_writer)
    event.listen(engine, "begin", _begin_immediately)
    return engine


def open_reader(path: Path) -> Engine:
    """Open connections that can only read."""
    engine = create_engine(f"sqlite:///{path}", pool_size=4, max_overflow=0)
    event.listen(engine, "connect", _prepare_reader)
    return engine


def _prepare_writer(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    # Transactions are opened here: the driver's own would begin too late to be immediate.
    connection.isolation_level = None
    # This works on new files only: whether a file can shrink is decided with its first page.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
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
