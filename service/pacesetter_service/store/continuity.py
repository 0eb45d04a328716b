"""Whether the database is the one that was served before, with all that it had.

A database has an *epoch*, a random name, and counts its commits. The newest count is kept beside it
too, in a small file, the *mark*: written after each commit, so that it never claims more than was
on the disk. A database that has fewer commits than its mark has lost some, be it that an older copy
was put in its place or that its log was damaged, cut or deleted. What was answered since may then
be contradicted, so it goes on under a new epoch, which every answer names: who knows the old
one learns of it.

A log is made for the file that it stands beside: over an older copy SQLite would lay it without a
word, and the count in it would be the newest. So the mark also knows the count that the file had by
itself, without its log, when it was looked at last. Checkpoints, the only ones to write to it, can
only make that greater.

What is not seen: an older copy of both files, put back together, is as consistent as it ever was.
Then a trainer still knows what it was given, and says so.
"""

import os
import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote
from zlib import crc32

from pacesetter_service.store.served import MODE

_EPOCH_BYTES = 8
_LENGTH = 96


@dataclass(frozen=True, slots=True)
class Count:
    """How far a database has come in its epoch.

    Attributes:
        epoch: The epoch.
        commits: How many commits there were in the epoch.
        folded: How many of them are in the file itself, at least; None if that is not known.
    """

    epoch: str
    commits: int
    folded: int | None = None


Reason = Literal["continued", "created", "unmarked", "went_back", "another", "restored"]


@dataclass(frozen=True, slots=True)
class Continuity:
    """What was found at the start.

    Attributes:
        epoch: The database's, from now on.
        reason: `continued` if all is there that was; else why the epoch is a new one: the
            database is new (`created`), nothing is known of it (`unmarked`), it has fewer commits
            than it had (`went_back`), it is not the one that was here before (`another`), or it is
            a copy of that, put back from a backup (`restored`).
        lost: How many commits are missing, where that can be said.
    """

    epoch: str
    reason: Reason
    lost: int | None = None


def judged(stored: Count | None, marked: Count | None, fresh: str) -> Continuity:
    """Compare what a database says of itself with what its mark says.

    Args:
        stored: What stands in the database; None if that is new.
        marked: What stands in the mark; None if there is none that can be read.
        fresh: An epoch that nothing had before.
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
    """Return what a database's file says without its log; None if that cannot be read.

    After a checkpoint that was interrupted, for instance, only both together can be read.
    """
    address = f"file:{quote(str(database))}?immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            row = connection.execute("SELECT epoch, commits FROM continuity").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else Count(*row)


def is_older(found: Count | None, known: Count | None) -> bool:
    """Return whether a file is not the one that is known, by what it says without its log."""
    if found is None or known is None or known.folded is None:
        return False
    return found.epoch != known.epoch or found.commits < known.folded


def following(known: Count, found: Count | None) -> Count:
    """Return a count with what is known of the file itself, after a look at it."""
    if found is None or found.epoch != known.epoch:
        return known
    return replace(known, folded=found.commits)


def new_epoch() -> str:
    """Draw an epoch."""
    return secrets.token_hex(_EPOCH_BYTES)


class Mark:
    """The file beside a database that knows how far it has come.

    It is flushed to the disk when it is opened and closed, and otherwise when the system does so:
    after a power failure it may know less than there is, which is no contradiction.
    """

    def __init__(self, database: Path) -> None:
        path = f"{database}-mark"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)

    def read(self) -> Count | None:
        """Return what was written last; None if nothing was, or if it is damaged."""
        line = os.pread(self._descriptor, _LENGTH, 0).rstrip()
        text, _, check = line.rpartition(b" ")
        fields = text.split(b" ")
        if not 2 <= len(fields) <= 3 or check != b"%08x" % crc32(text):
            return None
        return Count(fields[0].decode(), *map(int, fields[1:]))

    def write(self, count: Count) -> None:
        """Keep how far the database has come."""
        folded = "" if count.folded is None else f" {count.folded}"
        text = f"{count.epoch} {count.commits}{folded}".encode()
        line = text + b" %08x" % crc32(text)
        # Always of one length: what was there is written over whole.
        os.pwrite(self._descriptor, line.ljust(_LENGTH - 1) + b"\n", 0)

    def flush(self) -> None:
        """Flush it to the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Flush it to the disk, and close it."""
        self.flush()
        os.close(self._descriptor)
