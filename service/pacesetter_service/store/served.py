"""The file that is served: no other process serves it, and it is where and what it was.

SQLite writes to the file that it has opened, whatever has become of its name: when the
database is deleted or replaced by another, commits go on and succeed, into nothing. So its name is
looked up around every commit, which costs microseconds beside a flush of the disk.
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
"""A user who can read the file can read everything; SQLite makes its log with the same mode."""

log = structlog.get_logger("pacesetter.storage")


class UnusableDatabaseError(Exception):
    """The database that the settings name cannot be served from; said at the start."""


class ServedFile:
    """A database's file, locked for this process until it is released.

    On Linux the lock is on the file itself, by whatever name it was found: `flock` there knows
    nothing of the record locks that SQLite takes, and they know nothing of it. Elsewhere the two
    are one, so that it is on a file beside. Record locks are lost when a process closes *any*
    descriptor of their file: so this one is opened before SQLite's and closed after them, and a
    file that this process holds is not opened again.
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
        """Lock the file that a URL names; it is made if there is none, readable by its owner alone.

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
        """Take the files as they are now for the right ones; SQLite has opened them."""
        for path in (self.path, Path(f"{self.path}-wal")):
            identity = _identity_of(path)
            if identity is not None:
                self._served[path] = identity
        if sys.platform == "linux":  # what was locked, whatever has happened to its name since
            self._served[self.path] = self._lock_identity

    def refuse_if_lost(self) -> None:
        """Refuse if a file is no longer where it was; from then on always.

        Nothing is healed by putting it back: what was done to it meanwhile is not known here. The
        next start looks at it anew.

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
        """Refuse, now and from then on, because what stands in the file is not what was written.

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

        SQLite does so when it folds the log into it. What was written is on the disk then. Where
        the lock is on a file beside, nothing is seen.
        """
        found = os.fstat(self._descriptor)
        before, self._written = self._written, (found.st_mtime_ns, found.st_size)
        if before == self._written:
            return False
        os.fsync(self._descriptor)
        return True

    @contextmanager
    def unfolded_if_overwritten(self) -> Iterator[None]:
        """Frame the closing of the database: no log is to be laid over what it was not made for.

        SQLite does not do so where the file is gone from its place.
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
        """Keep SQLite from laying the log over a file that it was not made for."""
        aside = Path(f"{self.path}-wal-aside")
        with suppress(FileNotFoundError):
            Path(f"{self.path}-wal").replace(aside)
            log.warning(
                "log_set_aside",
                path=str(aside),
                advice="the database is another than the one that its log was written for, an older"
                " copy for instance; with the newest one, the log goes back to its place",
            )

    def release(self) -> None:
        """Let another process serve it; all that has opened it must have closed it."""
        with self._taking:
            self._taken.discard(self._lock_identity)
            # Said, and not left to the last who closes it: a child may have inherited it.
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)


def file_of(database_url: str) -> Path:
    """Return the file that a SQLite URL names.

    Raises:
        UnusableDatabaseError: It names none, or another database.
    """
    with suppress(ArgumentError, ValueError):  # the latter of a port that is no number
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
