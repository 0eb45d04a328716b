"""The store in PostgreSQL: any number of processes serve one database, also through PgBouncer.

Nothing is bound to a connection beyond a transaction, as PgBouncer's transaction mode requires: no
session locks, no prepared statements, and no settings but those of the transaction.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError

from pacesetter_service.core.errors import ConflictError, StorageUnavailableError
from pacesetter_service.store import migrate
from pacesetter_service.store.continuity import Continuity, new_epoch
from pacesetter_service.store.notifications import Listening, notify
from pacesetter_service.store.ranks import RankTable
from pacesetter_service.store.schema import continuity
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.store import Extent, Store
from pacesetter_service.store.writing import (
    PostgresTransaction,
    SqlTransaction,
    reason_of,
    translated,
)

READERS = 4
"""How many connections there are for reading."""

WRITING = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '2s';"
    " SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL jit = off;"
    " SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
"""Settings of a transaction that writes: if it hangs, it must not keep the others waiting.

They end with the transaction, so they work through PgBouncer as well. A commit is on the disk
before it is acknowledged, whatever the server's configuration says. Statements are short: compiling
one would take longer than running it.
"""

READING = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '2s';"
    " SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL jit = off"
)
"""The same for a transaction that reads: a long record may be written to a file meanwhile."""

NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""How soon a server that silently vanished is given up; the URL may override this."""

POOL_TIMEOUT = 10.0
"""Seconds that a read waits for a free connection."""

MIGRATING = 7_070_070
"""The number of the lock under which a database is migrated: only one process may do so."""

COME_AGAIN = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, and lock timeout: another transaction came first."""

NO_LONGER_THERE = ("25006", "57P01", "57P02", "57P03")
"""Read-only, as a server after a fail-over; shut down, crashed, or starting."""


class PostgresStore(Store):
    """Sessions in one PostgreSQL database, which other processes may serve as well."""

    _transaction: ClassVar[type[SqlTransaction]] = PostgresTransaction

    def __init__(
        self, database_url: str, *, migrates: bool = True, listen_url: str | None = None
    ) -> None:
        """Open a database, and migrate it to the schema of this version of the service.

        Args:
            database_url: Where it is, such as `postgresql+psycopg://user@host/name`.
            migrates: Whether an older schema is migrated; otherwise it is refused.
            listen_url: The same database, past any pooler, where notifications are heard.

        Raises:
            UnusableDatabaseError: A newer version of the service has migrated it, or it cannot
                store every text.
            StorageUnavailableError: It cannot be reached.
        """
        self.shared = True
        self.listen_url = listen_url
        with ExitStack() as opened:
            self._writer = _engine(database_url, WRITING, connections=1)
            opened.callback(self._writer.dispose)
            with translated(), self._writer.begin() as connection:
                # A migration has no time limit, and the other processes wait for it.
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATING})"))
                _refuse_encoding(connection)
                migrate.upgrade(connection, migrates=migrates)
                self.continuity = _found(connection)
            reader = _engine(database_url, READING, connections=READERS)
            opened.callback(reader.dispose)
            super().__init__(reader)
            self.ranks = RankTable(reader)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()

    def check(self) -> None:
        """Check that the database answers a query.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        self._read(select(1))

    def extent(self) -> Extent:
        """Return how large the database is; nothing more is known of its disk here.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        query = select(func.pg_database_size(func.current_database()).label("size"))
        return Extent(int(self._read(query)[0].size))

    def reclaim(self, pages: int) -> bool:  # noqa: ARG002 - of any number
        """Do nothing: autovacuum reclaims the space of removed rows."""
        return False

    def notify(self, names: Collection[str]) -> None:
        """Tell listening processes that sessions have changed; callable from any thread.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        notify(self._reader, names)

    @contextmanager
    def listening(self, url: str) -> Iterator[Listening]:
        """Listen on a separate connection, after a test that it hears notifications sent here.

        Args:
            url: The database itself.

        Raises:
            DeafConnectionError: It hears nothing.
            StorageUnavailableError: The database did not answer.
        """
        with Listening(url, NETWORK) as listening:
            listening.test(self._reader)
            yield listening

    def look_at_continuity(self) -> Continuity | None:
        """Return what has happened to the database while it was served, if anything has.

        It was restored from a backup, or another process has found that it lost something.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        with translated(), self._reader.begin() as connection:
            found = _found(connection)
        return self._adopted(found)

    def begin_epoch(self) -> str:
        """Begin a new epoch, because a session is older than what this process has committed.

        Returns:
            The epoch, which another process may have begun.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        mine = continuity.c.epoch == self.epoch
        with translated(), self._reader.begin() as connection:
            connection.execute(update(continuity).where(mine).values(epoch=new_epoch()))
            found = replace(_found(connection), reason="went_back")
        self._adopted(found)
        return found.epoch

    def _adopted(self, found: Continuity) -> Continuity | None:
        if found.epoch == self.epoch:
            return None
        self.continuity = found
        return found

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Return a connection whose reads all see one moment."""
        with self._moments, translated(), self._reader.connect() as connection:
            yield connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    @contextmanager
    def _committing(self, *, frees: bool = False) -> Iterator[Connection]:  # noqa: ARG002 - its server's affair
        """Write in one transaction.

        Raises:
            StorageUnavailableError: Nothing may be acknowledged. It may still be written if the
                connection was lost during the commit: then a repeated call finds it.
            ConflictError: Another transaction came first; nothing was written.
        """
        try:
            with translated(), self._writer.begin() as connection:
                yield connection
        except StorageUnavailableError as error:
            refused = error.__cause__
            if isinstance(refused, DBAPIError) and _state_of(refused.orig) in COME_AGAIN:
                raise ConflictError((), str(refused.orig)) from error
            if isinstance(refused, DBAPIError) and refused.connection_invalidated:
                raise StorageUnavailableError(reason_of(refused.orig), kept="perhaps") from error
            raise

    @contextmanager
    def _at_once(self) -> Iterator[Connection]:
        with self._committing() as connection:
            yield connection


def _refuse_encoding(connection: Connection) -> None:
    """Raise UnusableDatabaseError for a database that cannot store every name or reason."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise UnusableDatabaseError(
            f"the database is in {encoding}, and every text must be able to stand in it: create one"
            " by CREATE DATABASE pacesetter ENCODING 'UTF8' TEMPLATE template0, and move what is"
            " there with `pacesetter backup` and `pacesetter restore`"
        )


def _found(connection: Connection) -> Continuity:
    """Find out whether a database is the one that was served before; if not, begin an epoch.

    A restored copy has the same rows in other tables, or in another cluster. A block-by-block copy,
    such as a standby, looks the same as the original, because a fail-over must cost nothing.
    """
    row = connection.execute(select(continuity)).one_or_none()
    identity = connection.execute(_IDENTITY).scalar_one()
    if row is None:
        fresh = {"epoch": new_epoch(), "commits": 0, "identity": identity}
        connection.execute(insert(continuity), fresh)
        return Continuity(fresh["epoch"], "created")
    if row.identity == identity:
        return Continuity(row.epoch, "continued")
    epoch = row.epoch if row.identity is None else new_epoch()
    there = (continuity.c.epoch == row.epoch) & continuity.c.identity.is_not_distinct_from(
        row.identity
    )
    changed = connection.execute(
        update(continuity).where(there).values(epoch=epoch, identity=identity)
    )
    if not changed.rowcount:  # another process was faster
        return _found(connection)
    return Continuity(epoch, "continued" if row.identity is None else "restored")


_IDENTITY = text(
    "SELECT CASE WHEN has_function_privilege('pg_control_system()', 'execute')"
    " THEN (SELECT system_identifier::text FROM pg_control_system()) ELSE '' END"
    " || '/' || CAST('continuity' AS regclass)::oid::text"
)


def _engine(database_url: str, limits: str, *, connections: int) -> Engine:
    """Return an engine with at most `connections` connections, and limits for transactions.

    Raises:
        UnusableDatabaseError: The driver is not installed.
    """
    said = make_url(database_url).query
    try:
        engine = create_engine(
            database_url,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_pre_ping=True,  # no request fails because the server was restarted
            paramstyle="format",  # rows are written as plain tuples
            connect_args={
                "prepare_threshold": None,
                "client_encoding": "utf8",
                **{name: value for name, value in NETWORK.items() if name not in said},
            },
        )
    except ModuleNotFoundError as error:
        raise UnusableDatabaseError(
            "PostgreSQL needs its driver: pip install 'pacesetter[service,postgres]'"
        ) from error
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(limits))
    event.listen(engine, "handle_error", _part_with_the_lost)
    return engine


def _part_with_the_lost(context: ExceptionContext) -> None:
    """Replace all connections to a server that no longer serves, or that cannot write."""
    if _state_of(context.original_exception) in NO_LONGER_THERE:
        context.is_disconnect = True


def _state_of(error: BaseException | None) -> Any:  # noqa: ANN401 - of the driver's own errors
    return getattr(error, "sqlstate", None)
