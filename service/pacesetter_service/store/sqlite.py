"""The store in SQLite: one file, which only this process serves; commits are on disk on return."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import structlog
from sqlalchemy import (
    Connection,
    RootTransaction,
    delete,
    insert,
    select,
)

from pacesetter_service.complaints import Complaints
from pacesetter_service.core.errors import (
    Kept,
    StorageFullError,
    StorageReplacedError,
    StorageUnavailableError,
)
from pacesetter_service.store import engine, migrate, record
from pacesetter_service.store.continuity import (
    Continuity,
    Count,
    Mark,
    alone,
    following,
    is_older,
    judged,
    new_epoch,
)
from pacesetter_service.store.schema import (
    continuity,
)
from pacesetter_service.store.served import ServedFile, UnusableDatabaseError
from pacesetter_service.store.store import Extent, Store
from pacesetter_service.store.writing import (
    translated,
)

log = structlog.get_logger("pacesetter.storage")

mark_failures = Complaints(lambda **details: log.error("mark_failed", **details))
"""Complaints about a mark that could not be written: its disk may refuse it at every commit."""


class SqliteStore(Store):
    """Sessions in one SQLite file."""

    def __init__(
        self,
        database_url: str,
        *,
        shared: bool = False,
        min_free: int = 0,
        migrates: bool = True,
    ) -> None:
        """Open a database; a missing file is created.

        Args:
            database_url: The SQLite file, such as `sqlite:///pacesetter.db`.
            shared: Whether other writers may have it open, on this machine. If not, the file is
                locked, and compared with the mark of the last process that served it.
            min_free: Bytes of its disk that stay free: with less, nothing more is written.
            migrates: Whether an older schema is migrated; otherwise it is refused.

        Raises:
            UnusableDatabaseError: It is served already, or a file of it cannot be used.
        """
        self.shared = shared
        self._min_free = min_free
        with ExitStack() as opened:
            self._file = ServedFile.share(database_url) if shared else ServedFile.take(database_url)
            opened.callback(self._file.release)
            self._mark = None if shared else Mark(self._file.path)
            by_itself = None
            if self._mark is not None:
                opened.callback(self._mark.close)
                by_itself = alone(self._file.path)
                if is_older(by_itself, self._mark.read()):
                    self._file.set_log_aside()
            self._writer = engine.open_writer(self._file.path)
            opened.callback(self._writer.dispose)
            with translated(), self._writer.connect() as connection:
                with connection.begin():
                    migrate.upgrade(connection, migrates=migrates)
                if not shared:  # otherwise another writer may be importing one
                    with connection.begin():
                        record.drop_unfinished(connection)
            self._connection = self._writer.connect()
            opened.callback(self._connection.close)
            reader = engine.open_reader(self._file.path)
            opened.callback(reader.dispose)
            super().__init__(reader)
            self.continuity = self._begin(by_itself)
            self._opened = opened.pop_all()

    def _begin(self, by_itself: Count | None) -> Continuity:
        """Find out whether this is the database that was served before, and count from there.

        Args:
            by_itself: The count in the file, without its log, before it was opened.

        Raises:
            UnusableDatabaseError: Its disk fails.
        """
        with translated(), self._connection.begin():
            row = self._connection.execute(select(continuity)).one_or_none()
        stored = None if row is None else Count(row.epoch, row.commits)
        marked = None if self._mark is None else self._mark.read()
        if self._mark is None:
            found = Continuity(stored.epoch if stored else new_epoch(), "continued")
        else:
            found = judged(stored, marked, new_epoch())
        if found.reason == "continued" and stored is not None:
            folded = None if marked is None else marked.folded
            self._count = following(replace(stored, folded=folded), by_itself)
        else:
            self._count = Count(found.epoch, 0)
            with translated(), self._connection.begin():
                self._connection.execute(delete(continuity))
                self._connection.execute(insert(continuity), {"epoch": found.epoch, "commits": 0})
        self._file.watch()
        try:
            self._file.was_written()
            if self._mark is not None:
                self._mark.write(self._count)
                self._mark.flush()
        except OSError as error:
            raise UnusableDatabaseError(
                f"the disk of {self._file.path} fails: {error.strerror}"
            ) from error
        return found

    @property
    def file(self) -> Path:
        """The database file."""
        return self._file.path

    def close(self) -> None:
        """Close every connection; the last one checkpoints the write-ahead log."""
        with suppress(StorageUnavailableError):  # no caller waits for an answer
            self._refuse_if_lost()
        with self._file.unfolded_if_overwritten():
            self._opened.close()

    @contextmanager
    def _committing(self, *, frees: bool = False) -> Iterator[Connection]:
        """Write in one counted transaction, to the served file or not at all.

        Args:
            frees: Whether it makes room: then it may use the reserve of the disk.

        Raises:
            StorageUnavailableError: Nothing may be acknowledged. Nothing was written either, unless
                `kept` says perhaps: the disk failed during the commit, or the file was taken away.
                A file that was taken away is not written to again.
        """
        if not frees:
            self._refuse_if_full()
        with translated(), self._connection.begin() as transaction:
            yield self._connection
            row = self._connection.exec_driver_sql(_COUNT).one()
            self._refuse_if_lost()
            _commit(transaction)
        self._refuse_if_lost(kept="perhaps")
        self._count = Count(row.epoch, row.commits, self._count.folded)
        self._write_mark()

    def _write_mark(self) -> None:
        """Write the count into the mark, if possible: a commit is valid without.

        A mark that counts too little is no contradiction; the next commit makes up for it.
        """
        if self._mark is None:
            return
        try:
            self._mark.write(self._count)
        except OSError as error:
            mark_failures.tell(
                "mark",
                path=str(self._mark.path),
                reason=error.strerror,
                advice="look at its disk; while the mark counts too little, a restart may not"
                " notice that the database has lost commits",
            )

    def _refuse_if_full(self) -> None:
        """Refuse before the rest of the disk is used, which the log and other programs need.

        Raises:
            StorageFullError: There is too little room.
            StorageUnavailableError: The disk does not say how much there is.
        """
        folder = self._file.path.parent
        if not self._min_free:
            return
        with _disk_failures():
            free = shutil.disk_usage(folder).free
        if free < self._min_free:
            raise StorageFullError(
                f"the disk of {folder}, of which PACESETTER_MIN_FREE_DISK keeps"
                f" {self._min_free} bytes free"
            )

    def _refuse_if_lost(self, *, kept: Kept = "nothing") -> None:
        """Refuse if the file is not in its place, or its content is not what was written.

        Args:
            kept: `perhaps` if it is too late to keep nothing of the call.

        Raises:
            StorageReplacedError: Nothing may be acknowledged any more.
            StorageUnavailableError: The disk does not say.
        """
        try:
            self._file.refuse_if_lost()
            if self._mark is not None and self._file.was_written():
                found = alone(self._file.path)
                if is_older(found, self._count):
                    self._file.refuse_overwritten()
                self._count = following(self._count, found)
        except StorageReplacedError as lost:
            raise lost.keeping(kept) from None
        except OSError as error:
            raise StorageUnavailableError(str(error.strerror), kept=kept) from error

    def compact(self) -> bool:
        """Let a file of an older service shrink from now on; return whether that was needed.

        The whole file is rewritten, and takes its size once more meanwhile.
        """
        with translated():
            driver = self._connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - it is connected
            [mode] = driver.execute("PRAGMA auto_vacuum").fetchone()
            if mode == engine.INCREMENTAL:
                return False
            driver.execute("PRAGMA auto_vacuum=INCREMENTAL")
            driver.execute("VACUUM")
        return True

    def check(self) -> None:
        """Check that the database answers a query.

        Raises:
            StorageUnavailableError: It did not answer, or its file is not in its place.
        """
        with _disk_failures():
            self._file.refuse_if_lost()
        self._read(select(1))

    def extent(self) -> Extent:
        """Return how large the file and its log are, and how much room their disk has.

        Raises:
            StorageUnavailableError: The file is not in its place.
        """
        path = self._file.path
        try:
            disk = shutil.disk_usage(path.parent)
            size = path.stat().st_size
        except OSError as error:
            raise StorageUnavailableError(f"{path}: {error.strerror}") from error
        with suppress(FileNotFoundError):
            size += Path(f"{path}-wal").stat().st_size
        return Extent(size, disk.free, disk.total)

    def reclaim(self, pages: int) -> bool:
        """Return space of removed rows to the disk, at most `pages` pages.

        A file that an older service has created keeps it for new rows, unless it was compacted.
        """
        with self._at_once() as connection:
            execute = connection.exec_driver_sql
            incremental = execute("PRAGMA auto_vacuum").scalar_one() == engine.INCREMENTAL
            left = execute("PRAGMA freelist_count").scalar_one() if incremental else 0
            for _ in range(min(left, pages)):
                execute("PRAGMA incremental_vacuum(1)")  # the driver runs only one step of it
        return bool(left > pages)

    @contextmanager
    def _at_once(self) -> Iterator[Connection]:
        with translated(), self._connection.begin():
            yield self._connection


@contextmanager
def _disk_failures() -> Iterator[None]:
    """Turn failures of the disk into the service's own error."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(str(error.strerror)) from error


def _commit(transaction: RootTransaction) -> None:
    """Commit.

    Raises:
        StorageUnavailableError: It has failed. SQLite takes it back, but leaves it in its log until
            the next commit overwrites it there: after a crash before that, SQLite finds it.
    """
    with translated(kept="perhaps"):
        try:
            transaction.commit()
        except BaseException:
            transaction.rollback()  # otherwise the connection could begin no other
            raise


_COUNT = "UPDATE continuity SET commits = commits + 1 RETURNING epoch, commits"
