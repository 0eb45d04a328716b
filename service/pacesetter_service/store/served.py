"""The served file: no other process serves it, and it is still in its place and unchanged.

SQLite writes to the file that it has opened, whatever has become of its name: if the database is
deleted or replaced, commits still succeed, but are lost. So its name is looked up around every
commit, which costs microseconds beside a flush to the disk.
"""

import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Literal, Self

import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from pacesetter_service.core.errors import StorageReplacedError
from pacesetter_service.store.file_systems import over_a_network

_Identity = tuple[int, int]
"""Device and inode."""

MODE = 0o600
"""A user who can read the file can read everything; SQLite creates its log with the same mode."""

log = structlog.get_logger("pacesetter.storage")


class UnusableDatabaseError(Exception):
    """The database that the settings name cannot be served; raised at the start."""


class ServedFile:
    """A database's file, locked for this process until it is released.

    On Linux the lock is on the file itself, whatever name it was opened by: `flock` is independent
    of the record locks that SQLite takes there. Elsewhere the two conflict, so the lock is on a
    separate file beside it. Record locks are lost when a process closes *any* descriptor of their
    file. So this descriptor is opened before SQLite's and closed after them, and a file that this
    process holds is not opened again.
    """

    _taken: ClassVar[set[_Identity]] = set()
    _taking: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, descriptor: int, identity: _Identity) -> None:
        self.path = path
        self._descriptor = descriptor
        self._lock_identity = identity
        self._served: dict[Path, _Identity] = {}
        self._lost: StorageReplacedError | None = None
        self._written: tuple[int, int] | None = None
        self._overwritten = False

    @classmethod
    def take(cls, database_url: str) -> Self:
        """Lock the file that a URL names; if there is none, create it, readable by its owner only.

        Raises:
            UnusableDatabaseError: It is served already, cannot be opened, or is on a network file
                system.
        """
        path = file_of(database_url)
        if (kind := over_a_network(path)) is not None:
            raise UnusableDatabaseError(
                f"{path} is on a network file system ({kind}), whose locks do not hold what SQLite"
                " relies on: put it on a local disk, or use PostgreSQL where several machines are"
                " to share it"
            )
        locked = path if sys.platform == "linux" else Path(f"{path}.lock")
        with cls._taking:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if _identity_of(locked) in cls._taken:
                    raise _served_already(path)
                descriptor = os.open(locked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
            except OSError as error:
                raise UnusableDatabaseError(f"{path} cannot be opened: {error.strerror}") from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                raise _served_already(path) from error
            found = os.fstat(descriptor)
            identity = (found.st_dev, found.st_ino)
            cls._taken.add(identity)
        if found.st_mode & 0o077:
            advice = f"chmod 600 {path}"
            log.warning("database_open_to_others", path=str(path), advice=advice)
        return cls(path, descriptor, identity)

    @classmethod
    def share(cls, database_url: str) -> Self:
        """Open the file that a URL names, which other writers may have open as well.

        Raises:
            UnusableDatabaseError: It cannot be opened.
        """
        path = file_of(database_url)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            raise UnusableDatabaseError(f"{path} cannot be opened: {error.strerror}") from error
        found = os.fstat(descriptor)
        return cls(path, descriptor, (found.st_dev, found.st_ino))

    def watch(self) -> None:
        """Remember the files that SQLite has opened, as they are now, as the right ones."""
        for path in (self.path, Path(f"{self.path}-wal")):
            identity = _identity_of(path)
            if identity is not None:
                self._served[path] = identity
        if sys.platform == "linux":  # the locked file, whatever has happened to its name since
            self._served[self.path] = self._lock_identity

    def refuse_if_lost(self) -> None:
        """Refuse if a file is no longer in its place; from then on, always refuse.

        Putting it back does not help: what was done to it meanwhile is unknown. The next start
        checks it again.

        Raises:
            StorageReplacedError: It is gone, or is another.
        """
        if self._lost is None:
            for path, identity in self._served.items():
                found = _identity_of(path)
                if found != identity:
                    what: Literal["gone", "another"] = "gone" if found is None else "another"
                    self._lose(StorageReplacedError(str(path), what))
                    break
        if self._lost is not None:
            raise self._lost

    def refuse_overwritten(self) -> None:
        """Refuse, now and from then on, because the file's content is not what was written.

        Raises:
            StorageReplacedError: Always.
        """
        self._overwritten = True
        raise self._lose(StorageReplacedError(str(self.path), "overwritten"))

    def _lose(self, lost: StorageReplacedError) -> StorageReplacedError:
        self._lost = lost
        log.critical("database_lost", path=str(self.path), advice=str(lost))
        return lost

    def was_written(self) -> bool:
        """Return whether the file was written since the last call, by SQLite or another program.

        SQLite writes to it at a checkpoint. If it was written, it is flushed to the disk. If the
        lock is on a separate file, nothing is detected.
        """
        found = os.fstat(self._descriptor)
        before, self._written = self._written, (found.st_mtime_ns, found.st_size)
        if before == self._written:
            return False
        os.fsync(self._descriptor)
        return True

    @contextmanager
    def unfolded_if_overwritten(self) -> Iterator[None]:
        """Keep SQLite from applying the log to an overwritten file while the database is closed.

        SQLite does not checkpoint if the file is gone from its place, so it is moved meanwhile.
        """
        if not self._overwritten:
            yield
            return
        away = self.path.rename(f"{self.path}-closing")
        try:
            yield
        finally:
            away.rename(self.path)

    def set_log_aside(self) -> None:
        """Keep SQLite from applying the log to a file that it does not belong to.

        Raises:
            UnusableDatabaseError: It cannot be moved.
        """
        wal, aside = Path(f"{self.path}-wal"), Path(f"{self.path}-wal-aside")
        try:
            wal.replace(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnusableDatabaseError(
                f"{wal} belongs to another database than {self.path}, and cannot be moved to"
                f" {aside}: {error.strerror}; move it elsewhere"
            ) from error
        log.warning(
            "log_set_aside",
            path=str(aside),
            advice="the database is another than the one that its log was written for, an older"
            " copy for instance; with the newest one, the log goes back to its place",
        )

    def release(self) -> None:
        """Let another process serve it; everything that has opened it must have closed it."""
        with self._taking:
            self._taken.discard(self._lock_identity)
            # Unlock explicitly: a child process may have inherited the descriptor.
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)


def file_of(database_url: str) -> Path:
    """Return the file that a SQLite URL names.

    Raises:
        UnusableDatabaseError: It names none, or another database.
    """
    with suppress(ArgumentError, ValueError):  # the latter for a port that is not a number
        url = make_url(database_url)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            return Path(str(url.database)).resolve()
    raise UnusableDatabaseError(
        "the database-url must name a SQLite file, such as sqlite:///pacesetter.db"
    )


def _served_already(path: Path) -> UnusableDatabaseError:
    return UnusableDatabaseError(
        f"another process serves {path}; stop it, or give this one its own database-url"
    )


def _identity_of(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
