"""Whether the database is the one that was served before, with everything that it had.

A database has an *epoch*, a random name, and counts its commits. The newest count is also kept
beside it in a small file, the *mark*. The mark is written after each commit, so that it never
claims more than is on the disk. A database with fewer commits than its mark has lost some: an older
copy was put in its place, or its log was damaged, truncated or deleted. Earlier answers may then be
contradicted, so the database goes on under a new epoch, which every answer names: callers that know
the old epoch notice.

A log belongs to the file that it lies beside. SQLite would silently apply it to an older copy, and
the count in the log would be the newest. So the mark also holds the count that the file itself had,
without its log, when it was last read. Only checkpoints write to the file, and they can only
increase that count.

One case is not detected: older copies of both files, put back together, are as consistent as ever.
Then a trainer still knows what it was given, and says so.
"""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from zlib import crc32

from pacesetter_service.store.served import MODE, UnusableDatabaseError

_EPOCH_BYTES = 8
_LENGTH = 96


@dataclass(frozen=True, slots=True)
class Count:
    """How far a database has come in its epoch.

    Attributes:
        epoch: The epoch.
        commits: How many commits there were in the epoch.
        folded: How many of them at least are in the file itself, without its log; None if unknown.
    """

    epoch: str
    commits: int
    folded: int | None = None


Reason = Literal["continued", "created", "unmarked", "went_back", "another", "restored"]


@dataclass(frozen=True, slots=True)
class Continuity:
    """The finding at the start.

    Attributes:
        epoch: The epoch of the database from now on.
        reason: `continued` if nothing is missing; otherwise why the epoch is new: the
            database is new (`created`), nothing is known of it (`unmarked`), it has fewer commits
            than it had (`went_back`), it is not the one that was here before (`another`), or it is
            a copy of that one, restored from a backup (`restored`).
        lost: How many commits are missing, if known.
    """

    epoch: str
    reason: Reason
    lost: int | None = None


def judged(stored: Count | None, marked: Count | None, fresh: str) -> Continuity:
    """Compare the count in a database with the count in its mark.

    Args:
        stored: The count in the database; None if the database is new.
        marked: The count in the mark; None if there is no readable one.
        fresh: An epoch that was never used.
    """
    if stored is None:
        return Continuity(fresh, "created" if marked is None else "another")
    if marked is None:
        return Continuity(fresh, "unmarked")
    if marked.epoch != stored.epoch:
        return Continuity(fresh, "another")
    if stored.commits < marked.commits:
        return Continuity(fresh, "went_back", marked.commits - stored.commits)
    return Continuity(stored.epoch, "continued")


def alone(database: Path) -> Count | None:
    """Return the count in a database's file without its log; None if it cannot be read.

    After an interrupted checkpoint, for instance, the file can be read only with its log.
    """
    address = f"file:{quote(str(database))}?immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            row = connection.execute("SELECT epoch, commits FROM continuity").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else Count(*row)


def is_older(found: Count | None, known: Count | None) -> bool:
    """Return whether a file is another or an older one than known, by its count without its log."""
    if found is None or known is None or known.folded is None:
        return False
    return found.epoch != known.epoch or found.commits < known.folded


def following(known: Count, found: Count | None) -> Count:
    """Return a count that is updated with what was found in the file itself."""
    if found is None or found.epoch != known.epoch:
        return known
    return replace(known, folded=found.commits)


def new_epoch() -> str:
    """Draw an epoch."""
    return secrets.token_hex(_EPOCH_BYTES)


class Mark:
    """The file beside a database that records how far the database has come.

    It is flushed to the disk when it is opened and closed, and otherwise when the system does so:
    after a power failure it may know fewer commits than there are, which is no contradiction.
    """

    def __init__(self, database: Path) -> None:
        """Open the mark of a database; a missing one is created.

        Raises:
            UnusableDatabaseError: It cannot be opened.
        """
        self.path = Path(f"{database}-mark")
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        except OSError as error:
            raise UnusableDatabaseError(
                f"{self.path}, which belongs to the database, cannot be opened: {error.strerror};"
                " let the user that the service runs as read and write it"
            ) from error

    def read(self) -> Count | None:
        """Return the count that was written last; None if there is none, or if it is damaged.

        Raises:
            UnusableDatabaseError: The disk does not return it.
        """
        try:
            line = os.pread(self._descriptor, _LENGTH, 0).rstrip()
        except OSError as error:
            raise UnusableDatabaseError(
                f"{self.path}, which belongs to the database, cannot be read: {error.strerror};"
                " look at its disk"
            ) from error
        text, _, check = line.rpartition(b" ")
        fields = text.split(b" ")
        if not 2 <= len(fields) <= 3 or check != b"%08x" % crc32(text):
            return None
        return Count(fields[0].decode(), *map(int, fields[1:]))

    def write(self, count: Count) -> None:
        """Write how far the database has come."""
        folded = "" if count.folded is None else f" {count.folded}"
        text = f"{count.epoch} {count.commits}{folded}".encode()
        line = text + b" %08x" % crc32(text)
        # The length is fixed, so the old content is overwritten completely.
        os.pwrite(self._descriptor, line.ljust(_LENGTH - 1) + b"\n", 0)

    def flush(self) -> None:
        """Flush it to the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Flush it to the disk, if possible, and close it."""
        with suppress(OSError):  # it may know fewer commits, as after a power failure
            self.flush()
        os.close(self._descriptor)
