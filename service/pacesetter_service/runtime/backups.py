"""Backups that an admin asks for while the database is served: one at a time, beside the file."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.threads import started
from pacesetter_service.store.backup import BackupError, backup
from pacesetter_service.store.store import Store

__all__ = ["BackupError", "Backups", "Copy", "Copying"]

ROOM = 1.2
"""How many times the size of the database must be free on its disk."""

COPIES = r"{}-[0-9]{{8}}T[0-9]{{6}}Z\.backup"
"""The name of a copy: that of its database, and the time when it was begun, in UTC."""

log = structlog.get_logger("pacesetter.backups")


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy.

    Attributes:
        path: Where it is.
        size: Its size in bytes.
        made_at: When it was finished; ISO 8601, UTC.
    """

    path: Path
    size: int
    made_at: str


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that is being made, or that failed.

    Attributes:
        name: The name that it will have.
        began_at: When it was begun; ISO 8601, UTC.
        written: How many of its bytes are written.
        expected: About how many bytes it will have.
        failed: Why it could not be made; empty while it goes on.
    """

    name: str
    began_at: str
    written: int = 0
    expected: int = 0
    failed: str = ""


class Backups:
    """The copies beside a database file; callable from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest: Copying | None = None
        self._thread: threading.Thread | None = None

    @property
    def source(self) -> Path | None:
        """The file that is copied; None if the service cannot copy its database."""
        return self._store.file

    def begin(self, actor: str) -> None:
        """Begin to copy the database; do nothing if a copy is already being made.

        Raises:
            BackupError: The database is not a file of this service, or there is no room, or the
                system starts no thread.
            StorageUnavailableError: Its folder cannot be read.
        """
        source = self.source
        if source is None:
            raise BackupError("a service cannot copy a database of PostgreSQL by itself")
        with self._lock:
            if self._running():
                return
            self._refuse_without_room(source)
            with _failures_in(source.parent):
                for left in _unfinished(source, COPIES.format(re.escape(source.name))):
                    left.unlink(missing_ok=True)  # left by a process that ended
            now = datetime.now(UTC)
            name = f"{source.name}-{now:%Y%m%dT%H%M%SZ}.backup"
            thread = threading.Thread(
                target=self._copy, args=(source, name, actor), name="backup", daemon=True
            )
            # The thread needs the lock only at its end, to tell that it has failed.
            if not started(thread):
                raise BackupError("the system starts no further thread; try again in a moment")
            self._newest = Copying(name, now.isoformat(timespec="seconds"))
            self._thread = thread

    def copying(self) -> Copying | None:
        """Return the copy that is being made, or how the last one failed; None if neither.

        Raises:
            StorageUnavailableError: The folder of the copies cannot be read.
        """
        with self._lock:
            newest, running = self._newest, self._running()
        source = self.source
        if newest is None or source is None or not (running or newest.failed):
            return None
        extent = self._store.extent()
        with _failures_in(source.parent):
            written = sum(map(_size_of, _unfinished(source, re.escape(newest.name))))
        return Copying(newest.name, newest.began_at, written, extent.size, newest.failed)

    def copies(self) -> list[Copy]:
        """Return the finished copies, newest first.

        Raises:
            StorageUnavailableError: Their folder cannot be read.
        """
        source = self.source
        if source is None:
            return []
        names = re.compile(COPIES.format(re.escape(source.name)))
        with _failures_in(source.parent):
            there = [each for each in source.parent.iterdir() if names.fullmatch(each.name)]
            found = [_described(each) for each in sorted(there, reverse=True)]
        return [each for each in found if each is not None]

    def find(self, name: str) -> Copy | None:
        """Return a copy by its name; None if there is none."""
        return next((each for each in self.copies() if each.path.name == name), None)

    def remove(self, name: str, actor: str) -> None:
        """Remove a copy; do nothing if there is none of that name."""
        found = self.find(name)
        if found is not None:
            with _failures_in(found.path.parent):
                found.path.unlink(missing_ok=True)
            log.info("backup_removed", file=str(found.path), by=actor)

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _refuse_without_room(self, source: Path) -> None:
        extent = self._store.extent()
        needed = int(ROOM * extent.size)
        if extent.free is not None and extent.free < needed:
            raise BackupError(
                f"{source.parent} has {extent.free:,} bytes free, and a copy takes up to"
                f" {needed:,}: run `pacesetter backup` with a file on another disk"
            )

    def _copy(self, source: Path, name: str, actor: str) -> None:
        target = source.with_name(name)
        try:
            backup(f"sqlite:///{source}", target)
        except BackupError as error:
            log.error("backup_failed", file=str(target), reason=str(error), by=actor)  # noqa: TRY400
            with self._lock:
                if self._newest is not None:
                    self._newest = Copying(name, self._newest.began_at, failed=str(error))
        else:
            log.info("backup_made", file=str(target), bytes=_size_of(target), by=actor)


@contextmanager
def _failures_in(folder: Path) -> Iterator[None]:
    """Turn the system's errors about files of a folder into the service's own."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(f"{folder}: {error.strerror}") from error


def _unfinished(source: Path, name: str) -> list[Path]:
    """Return the files of unfinished copies, found by their names."""
    names = re.compile(rf"\.{name}\..+")
    return [each for each in source.parent.iterdir() if names.fullmatch(each.name)]


def _described(path: Path) -> Copy | None:
    """Return a copy by its file; None if it was removed meanwhile."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    moment = datetime.fromtimestamp(found.st_mtime, UTC)
    return Copy(path, found.st_size, moment.isoformat(timespec="seconds"))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has its final name by now
        return 0
