"""Selects the store for a database, by its URL."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.store import Store


def open_store(
    database_url: str,
    *,
    min_free: int = 0,
    migrates: bool = True,
    listen_url: str | None = None,
) -> Store:
    """Open the database that a URL names.

    Args:
        database_url: The URL.
        min_free: Bytes that stay free on the disk of a SQLite file.
        migrates: Whether an older schema is migrated; otherwise it is refused.
        listen_url: Where notifications of a PostgreSQL database are heard, if they are wanted.

    Raises:
        UnusableDatabaseError: It names none, or one that cannot be served.
        StorageUnavailableError: It cannot be reached.
    """
    if listen_url is not None and not (is_postgres(database_url) and is_postgres(listen_url)):
        raise UnusableDatabaseError(
            "a listen-url is for PostgreSQL: both it and the database-url begin with"
            " postgresql+psycopg://"
        )
    if is_postgres(database_url):
        return PostgresStore(database_url, migrates=migrates, listen_url=listen_url)
    return SqliteStore(database_url, min_free=min_free, migrates=migrates)


def is_postgres(database_url: str) -> bool:
    """Return whether a URL names a PostgreSQL database; SQLite judges all other URLs.

    Raises:
        UnusableDatabaseError: It names one without its driver.
    """
    try:
        kind = make_url(database_url).drivername
    except (ArgumentError, ValueError):  # the latter for a port that is not a number
        return False
    if kind.startswith("postgres") and kind != "postgresql+psycopg":
        raise UnusableDatabaseError(
            "a PostgreSQL database-url begins with postgresql+psycopg://, which names the driver"
        )
    return kind == "postgresql+psycopg"
