"""Which store serves a database, by its URL."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.store import Store


def open_store(database_url: str, min_free: int = 0) -> Store:
    """Open the database that a URL names.

    Args:
        database_url: The URL.
        min_free: Bytes that stay free on the disk of a SQLite file.

    Raises:
        UnusableDatabaseError: It names none, or one that cannot be served.
        StorageUnavailableError: It cannot be reached.
    """
    try:
        kind = make_url(database_url).drivername
    except ArgumentError:
        kind = ""
    if kind == "postgresql+psycopg":
        return PostgresStore(database_url)
    if kind.startswith("postgres"):
        raise UnusableDatabaseError(
            "a PostgreSQL database-url begins with postgresql+psycopg://, which names the driver"
        )
    return SqliteStore(database_url, min_free=min_free)
