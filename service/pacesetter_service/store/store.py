"""A store in SQL: what the writer writes and reads; a write is one transaction."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, Executable, select, text, update

from pacesetter_service.catalogue.templates import Published
from pacesetter_service.store import codec, purging, record
from pacesetter_service.store.block_log import BlockLog
from pacesetter_service.store.block_table import MEASUREMENTS, READINGS
from pacesetter_service.store.continuity import Continuity
from pacesetter_service.store.listing import is_there
from pacesetter_service.store.port import Stored
from pacesetter_service.store.ranks import RankTable
from pacesetter_service.store.reads import Reads, stored_in
from pacesetter_service.store.replay import with_waiting
from pacesetter_service.store.schema import attempts, sessions, templates
from pacesetter_service.store.writing import (
    SqlTransaction,
    ignoring,
    stale_of,
    translated,
    versions_of,
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a database is, and how much room it has.

    Attributes:
        size: Its bytes, including its log.
        free: Free bytes of its disk; None if unknown here.
        disk: All bytes of its disk; None if unknown here.
    """

    size: int
    free: int | None = None
    disk: int | None = None


class Store(Reads):
    """Sessions in SQL, with the guarantees of `port.Store`.

    The methods here belong to the one thread that writes, unless they say otherwise; the readers'
    half is callable from any thread.

    Attributes:
        shared: Whether other processes may write to the database too.
        continuity: Whether it is the database that was served before.
        ranks: What all processes have heard of ranks; None if there is no other process.
    """

    shared: bool
    continuity: Continuity
    ranks: RankTable | None = None
    _transaction: ClassVar[type[SqlTransaction]] = SqlTransaction

    def __init__(self, reader: Engine) -> None:
        super().__init__(reader)
        self._metric_ids: dict[str, int] = {}
        self._readings = BlockLog(READINGS, shared=self.shared)
        self._measurements = BlockLog(MEASUREMENTS, shared=self.shared)
        self._ids = range(0)
        self._attempts_from: int | None = None

    @property
    def file(self) -> Path | None:
        """The database file; None if the database is not a file on this machine."""
        return None

    @property
    def epoch(self) -> str:
        """The name of the database's history; a new one begins when it may have lost something."""
        return self.continuity.epoch

    def look_at_continuity(self) -> Continuity | None:
        """Return what has happened to the database while it was served, if anything has.

        Raises:
            StorageUnavailableError: It did not answer.
        """
        return None

    def begin_epoch(self) -> str:
        """Begin a new epoch, because a session is older than what this process has committed.

        Returns:
            The epoch, which another process may have begun.

        Raises:
            StorageUnavailableError: The database did not answer.
        """
        return self.epoch

    def notify(self, names: Collection[str]) -> None:
        """Tell listening processes that sessions have changed; here there are none.

        Raises:
            StorageUnavailableError: The database did not answer.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def check(self) -> None:
        """Check that the database answers a query.

        Raises:
            StorageUnavailableError: It did not answer, or is not in its place.
        """

    @abstractmethod
    def extent(self) -> Extent:
        """Return how large the database is, and how much room it has; from any thread.

        Raises:
            StorageUnavailableError: It did not answer, or is not in its place.
        """

    @abstractmethod
    def _committing(self, *, frees: bool = False) -> AbstractContextManager[Connection]:
        """Return a connection in a transaction that is committed at the end of the block.

        Args:
            frees: Whether it makes room on the disk, so that it may use the reserve.

        Raises:
            StorageUnavailableError: Nothing may be acknowledged.
        """

    @abstractmethod
    def _at_once(self) -> AbstractContextManager[Connection]:
        """Return the writer's connection, for reading or for work that no caller is told of.

        It does not wait for readers, and its commit is not counted.
        """

    def new_id(self) -> int:
        """Return an id that no session has or had, and that no other writer is given."""
        if not self._ids:
            with self._at_once() as connection:
                end = connection.execute(_TAKE_IDS, {"some": IDS_AT_ONCE}).scalar_one()
            self._ids = range(end - IDS_AT_ONCE, end)
        first, self._ids = self._ids[0], self._ids[1:]
        return first

    def first_attempt(self, name: str) -> int:
        """Return the least number that a new attempt under a name may have.

        No number is used twice, not even after a session of that name was purged, or after a
        restore of a database that may not know the newest numbers.
        """
        if self._attempts_from is None:
            with self._at_once() as connection:
                found = connection.execute(_ATTEMPTS_FROM).scalar_one_or_none()
            self._attempts_from = found or 1
        with self._at_once() as connection:
            return max(self._attempts_from, purging.last_attempt(connection, name) + 1)

    def purged_attempt(self, name: str) -> int:
        """Return the number of the last purged attempt under a name; 0 if there is none."""
        with self._at_once() as connection:
            return purging.last_attempt(connection, name)

    def purged_at(self, name: str) -> str | None:
        """Return when the last session of a name was purged; None if none was."""
        with self._at_once() as connection:
            return purging.purged_at(connection, name)

    @abstractmethod
    def reclaim(self, pages: int) -> bool:
        """Return space of removed rows to the disk, at most `pages` pages.

        Returns:
            Whether more can be given back.
        """

    def versions(self, names: Iterable[str]) -> dict[str, int]:
        """Read the versions of sessions by name; callable from any thread."""
        with translated(), self._reader.connect() as connection:
            return versions_of(connection, names)

    def stale(self, versions: Mapping[str, int]) -> list[str]:
        """Return the sessions whose version differs from the given one; 0 stands for no session."""
        with self._at_once() as connection:
            return stale_of(versions, versions_of(connection, versions))

    def load(self, name: str) -> Stored | None:
        """Read one whole session; None if there is none of that name."""
        query = select(sessions).where(sessions.c.name == name, is_there)
        with self._at_once() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            reported = frozenset(record.metrics_of(connection, (row.id,)))
        stored = stored_in(row)
        session = replace(stored.session, reported=reported)
        return with_waiting(self._owned, replace(stored, session=session))

    def knows_attempt(self, session_id: int, key: str) -> bool:
        """Return whether an attempt was opened with a key."""
        query = (
            select(attempts.c.attempt)
            .where(attempts.c.session_id == session_id, attempts.c.key == key)
            .limit(1)
        )
        with self._at_once() as connection:
            return connection.execute(query).first() is not None

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        """Begin a transaction, which is committed at the end of the block.

        Raises:
            StorageUnavailableError: Nothing was written, or perhaps all; `kept` says which.
            ConflictError: Another writer came first; nothing was written.
        """
        try:
            with self._committing() as connection:
                yield self._transaction(
                    connection, self._metric_ids, self._readings, self._measurements
                )
        except Exception:
            # Ids given out by a failed transaction are in no table.
            self._metric_ids.clear()
            self._readings.forget()
            self._measurements.forget()
            raise

    def add_template(self, published: Published) -> bool:
        """Write a new version of a template; return False if another writer has written it first.

        Raises:
            StorageUnavailableError: Nothing was written, or perhaps all; `kept` says which.
        """
        template = published.template
        row = {
            "name": template.name,
            "version": published.version,
            "body": codec.dump_template(template),
            "deprecated": published.deprecated,
            "created_at": published.created_at,
        }
        with self._committing() as connection:
            # The row count of an insert is not reliable on every database.
            adding = ignoring(connection.dialect, templates).returning(templates.c.version)
            return connection.execute(adding, row).first() is not None

    def deprecate_template(self, name: str, version: int, reason: str) -> None:
        """Record why a version of a template should no longer be used.

        Raises:
            StorageUnavailableError: Nothing was written, or perhaps all; `kept` says which.
        """
        where = (templates.c.name == name) & (templates.c.version == version)
        with self._committing() as connection:
            connection.execute(update(templates).where(where).values(deprecated=reason))

    @contextmanager
    def transaction(self, *, frees: bool = False) -> Iterator[Connection]:
        """Return the writer's connection in a transaction, for rare and short work.

        Args:
            frees: Whether it makes room on the disk, so that it may use the reserve.
        """
        with self._committing(frees=frees) as connection:
            yield connection

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """Return the writer's connection to read committed data, on the writer's thread."""
        with self._at_once() as connection:
            yield connection

    def _owned(self, query: Executable) -> Sequence[Any]:
        with self._at_once() as connection:
            return connection.execute(query).all()


_ATTEMPTS_FROM = text("SELECT next FROM ids WHERE kind = 'attempts'")

_TAKE_IDS = text("UPDATE ids SET next = next + :some WHERE kind = 'sessions' RETURNING next")

IDS_AT_ONCE = 64
"""How many session ids a writer takes at a time; those that it leaves are never used."""
