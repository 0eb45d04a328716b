"""The store in PostgreSQL: any number of processes serve one database, directly or by PgBouncer.

Nothing is bound to a connection longer than a transaction lasts, as PgBouncer's transaction mode
asks for: no session locks, no prepared statements, no settings but those of the transaction.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.exc import OperationalError

from pacesetter_service.core.errors import ConflictError
from pacesetter_service.store import migrate
from pacesetter_service.store.continuity import Continuity, new_epoch
from pacesetter_service.store.schema import continuity
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.store import Extent, Store
from pacesetter_service.store.writing import translated

READERS = 4
"""How many connections read at once."""

LIMITS = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '5s';"
    " SET LOCAL idle_in_transaction_session_timeout = '60s'"
)
"""What a transaction may last: one that hangs is not to keep the others waiting for ever."""

MIGRATING = 7_070_070
"""The number of the lock under which a database is migrated: no two processes do it at once."""

COME_AGAIN = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, and a lock that was waited for too long: another came first."""


class PostgresStore(Store):
    """Sessions in one PostgreSQL database, which other processes may serve as well."""

    def __init__(self, database_url: str) -> None:
        """Open a database, and bring its schema to what this version of the service needs.

        Args:
            database_url: Where it is, such as `postgresql+psycopg://user@host/name`.

        Raises:
            UnusableDatabaseError: A newer version of the service has migrated it.
            StorageUnavailableError: It cannot be reached.
        """
        self.shared = True
        with ExitStack() as opened:
            self._writer = _engine(database_url, connections=1)
            opened.callback(self._writer.dispose)
            with translated(), self._writer.begin() as connection:
                # A migration takes as long as it takes, and the other processes wait for it.
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATING})"))
                migrate.upgrade(connection)
                epoch = connection.execute(select(continuity.c.epoch)).scalar_one_or_none()
                if epoch is None:
                    epoch = new_epoch()
                    connection.execute(insert(continuity), {"epoch": epoch, "commits": 0})
            reader = _engine(database_url, connections=READERS)
            opened.callback(reader.dispose)
            super().__init__(reader)
            self.continuity = Continuity(epoch, "continued")
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()

    def check(self) -> None:
        """Ask the database for something.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        self._read(select(1))

    def extent(self) -> Extent:
        """Return how large the database is; of its disk no more is known here.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        query = select(func.pg_database_size(func.current_database()).label("size"))
        return Extent(int(self._read(query)[0].size))

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Return a connection whose reads are all of one moment."""
        with self._moments, translated(), self._reader.connect() as connection:
            yield connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @contextmanager
    def _committing(self) -> Iterator[Connection]:
        try:
            with translated(), self._writer.begin() as connection:
                yield connection
        except Exception as error:
            refused = error.__cause__
            if isinstance(refused, OperationalError) and _state_of(refused) in COME_AGAIN:
                raise ConflictError((), str(refused.orig)) from error
            raise

    @contextmanager
    def _at_once(self) -> Iterator[Connection]:
        with translated(), self._writer.begin() as connection:
            yield connection


def _engine(database_url: str, *, connections: int) -> Engine:
    """Return an engine with at most so many connections.

    Raises:
        UnusableDatabaseError: The driver is not installed.
    """
    try:
        engine = create_engine(
            database_url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,  # a server that was started again costs no request
            paramstyle="format",  # rows are written as plain tuples
            connect_args={"prepare_threshold": None},
        )
    except ModuleNotFoundError as error:
        raise UnusableDatabaseError(
            "PostgreSQL needs its driver: pip install 'pacesetter[service,postgres]'"
        ) from error
    event.listen(engine, "begin", _limit)
    return engine


def _limit(connection: Connection) -> None:
    connection.exec_driver_sql(LIMITS)


def _state_of(error: OperationalError) -> Any:  # noqa: ANN401 - of the driver's own errors
    return getattr(error.orig, "sqlstate", None)
