"""Backing up a database that others may be writing to, and restoring it.

An operator who restores a copy loses what was written after it. So a restored database begins a
new epoch, by which trainers learn of the loss, and skips the numbers that sessions and attempts may
have been given after the copy.
"""

import itertools
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import structlog
from sqlalchemy import Connection, create_engine, delete, insert, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from pacesetter_service.store import engine, migrate
from pacesetter_service.store.continuity import Count, Mark, new_epoch
from pacesetter_service.store.opening import is_postgres
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.schema import continuity, ids, metadata
from pacesetter_service.store.served import MODE, ServedFile, UnusableDatabaseError, file_of

SESSIONS_SKIPPED = 1_000_000
ATTEMPTS_SKIPPED = 1_000
"""How many numbers are skipped: far more than are ever given out after a copy is made."""

POSITIONS_SKIPPED = 1_000_000_000
"""Positions of events that are skipped: a reader of lost events goes on with the new ones."""

log = structlog.get_logger("pacesetter.backup")


class BackupError(Exception):
    """A copy cannot be made or restored; nothing was changed."""


def backup(database_url: str, target: Path) -> None:
    """Copy a database, which may be served meanwhile, to a file that appears once it is complete.

    Raises:
        UnusableDatabaseError: The URL names no database.
        BackupError: It cannot be copied.
    """
    with _appearing(target) as fresh:
        if is_postgres(database_url):
            _run("pg_dump", database_url, "--format=custom", "--no-owner", f"--file={fresh}")
            _run("pg_restore", None, "--list", str(fresh))
        else:
            path = file_of(database_url)
            if target.resolve() == path:
                raise BackupError(f"{target} is the database itself: name another file")
            _copy(path, fresh)


def restore(database_url: str, source: Path, *, replace: bool) -> Path | None:
    """Replace a database with a copy; no service may be running on it.

    Args:
        database_url: The database.
        source: A file that `backup` wrote.
        replace: Whether an existing database may be set aside (SQLite) or dropped
            (PostgreSQL).

    Returns:
        The name under which the previous database is kept; None if it is not kept.

    Raises:
        UnusableDatabaseError: The URL names no database, it is served, or its mark cannot be used.
        BackupError: The copy is damaged or not a copy, or there is a database already.
    """
    if not source.is_file():
        raise BackupError(f"there is no file {source}")
    if is_postgres(database_url):
        _restore_postgres(database_url, source, replace=replace)
        return None
    return _restore_sqlite(database_url, source, replace=replace)


def begin_anew(connection: Connection, above: tuple[int, int] = (0, 0)) -> str:
    """Begin a new epoch in a restored database, and skip numbers; return the epoch.

    Args:
        connection: Writes to it.
        above: The next id and attempt of the previous database, if known.
    """
    sessions, attempts = _next_numbers(connection)
    numbers = {
        "sessions": max(sessions, above[0]) + SESSIONS_SKIPPED,
        "attempts": max(attempts, above[1]) + ATTEMPTS_SKIPPED,
        "feed": connection.execute(_NEXT_POSITION).scalar_one() + POSITIONS_SKIPPED,
    }
    connection.execute(delete(ids))
    connection.execute(
        insert(ids), [{"kind": kind, "next": number} for kind, number in numbers.items()]
    )
    epoch = new_epoch()
    connection.execute(delete(continuity))
    connection.execute(insert(continuity), {"epoch": epoch, "commits": 0})
    return epoch


def _next_numbers(connection: Connection) -> tuple[int, int]:
    """Return the least id and attempt that a database may give out next."""
    sessions, attempts, *more = connection.execute(_NUMBERS).one()
    return sessions, max(attempts + 1, *more)


_NEXT_POSITION = text("SELECT coalesce(max(position), 0) + 1 FROM feed")

_NUMBERS = text(
    "SELECT coalesce((SELECT next FROM ids WHERE kind = 'sessions'), 1),"
    " coalesce((SELECT max(attempt) FROM sessions), 0),"
    " coalesce((SELECT max(attempt) + 1 FROM purged), 1),"
    " coalesce((SELECT next FROM ids WHERE kind = 'attempts'), 1)"
)


# SQLite ---------------------------------------------------------------------------------------


def _restore_sqlite(database_url: str, source: Path, *, replace: bool) -> Path | None:
    path = file_of(database_url)
    served = ServedFile.take(database_url)
    try:
        there = path.stat().st_size > 0 or Path(f"{path}-wal").exists()
        if there and not replace:
            raise BackupError(
                f"there is a database at {path}: give --replace to put it aside, or restore to"
                " another database-url"
            )
        above = _numbers_in(path) if there else (0, 0)
        aside = _free_name_beside(path) if there else None
        mark = Mark(path)  # before anything is changed: it may be another user's
        try:
            with _appearing(path, aside) as fresh:
                _copy(source, fresh)
                epoch = _begun_anew(source, fresh, above)
            _write_mark(mark, epoch)
        finally:
            with suppress(
                OSError
            ):  # its content is flushed already, or the log says that it is not
                mark.close()
    finally:
        served.release()
    return aside


def _begun_anew(source: Path, fresh: Path, above: tuple[int, int]) -> str:
    """Bring a file to the newest schema, and begin a new epoch in it; return the epoch.

    Args:
        source: The copy that is restored, to be named.
        fresh: The file, which has its content.
        above: The next id and attempt of the previous database, if known.

    Raises:
        BackupError: It is no database of this service.
    """
    opened = engine.open_writer(fresh)
    try:
        with opened.connect() as connection:
            with connection.begin():
                migrate.upgrade(connection)
            with connection.begin():
                return begin_anew(connection, above)
    except SQLAlchemyError as error:
        raise BackupError(f"{source} is no database of this service: {error}") from error
    finally:
        opened.dispose()


def _write_mark(mark: Mark, epoch: str) -> None:
    """Write into the mark that a restored database is the newest, if possible.

    The database is in its place already, and valid without: the next start begins one more epoch.
    """
    try:
        mark.write(Count(epoch, 0))
        mark.flush()
    except OSError as error:
        log.warning(
            "mark_failed",
            path=str(mark.path),
            reason=error.strerror,
            advice="the database is restored; look at the disk before you start the service",
        )


def _free_name_beside(path: Path) -> Path:
    """Return a free name for a database to be set aside: files of earlier restores are kept."""
    names = (
        path.with_name(f"{path.name}-before-restore{end}")
        for end in itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    )
    return next(name for name in names if not any(map(os.path.lexists, _files_of(name))))


def _files_of(path: Path) -> list[Path]:
    """Return all files that SQLite may have for a database."""
    return [Path(f"{path}{end}") for end in ("", "-wal", "-shm", "-journal")]


def _numbers_in(path: Path) -> tuple[int, int]:
    """Return the next numbers of the database to be set aside, or zeros if it cannot be read."""
    opened = create_engine(f"sqlite:///{path}")
    try:
        with opened.connect() as connection:
            return _next_numbers(connection)
    except SQLAlchemyError:  # damaged, which may be why it is set aside
        return 0, 0
    finally:
        opened.dispose()


def _copy(source: Path, fresh: Path) -> None:
    """Copy a SQLite database as of one moment, and check whether the copy is sound.

    Raises:
        BackupError: There is none, or it is damaged.
    """
    if not source.is_file():
        raise BackupError(f"there is no database at {source}")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as reading:
            reading.execute("PRAGMA busy_timeout=30000")
            reading.execute("VACUUM INTO ?", (str(fresh),))
        with closing(sqlite3.connect(fresh)) as copied:
            found = [row[0] for row in copied.execute("PRAGMA integrity_check(3)")]
            copied.execute("SELECT version_num FROM alembic_version")
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied: {error}") from error
    if found != ["ok"]:
        raise BackupError(f"the copy of {source} is damaged: {'; '.join(found)}")


@contextmanager
def _appearing(target: Path, aside: Path | None = None) -> Iterator[Path]:
    """Return a new file, readable by its owner only, that gets its name once it is on the disk.

    Args:
        target: The name.
        aside: A free name, under which the file that has the name now is kept, with its log.
    """
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))
        yield fresh
        _flush(fresh)
        if aside is not None:
            for end in ("", "-wal"):
                with suppress(FileNotFoundError):
                    Path(f"{target}{end}").rename(f"{aside}{end}")
            Path(f"{target}-shm").unlink(missing_ok=True)
        fresh.replace(target)
        _flush(target.resolve().parent)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # the disk has failed, which is told already
            for file in _files_of(fresh):
                file.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# PostgreSQL -----------------------------------------------------------------------------------


def _restore_postgres(database_url: str, source: Path, *, replace: bool) -> None:
    _run("pg_restore", None, "--list", str(source))
    above = (0, 0)
    opened = create_engine(database_url, connect_args={"client_encoding": "utf8"})
    try:
        with opened.connect() as connection:
            if connection.scalar(_OTHERS):
                raise UnusableDatabaseError(
                    "others are connected to the database: stop all services on it first"
                )
            if migrate.revision_of(connection) is not None:
                if not replace:
                    raise BackupError(
                        "there are tables in the database: give --replace to drop them, or restore"
                        " to another database-url"
                    )
                with suppress(SQLAlchemyError):  # an older schema may lack these tables
                    above = _next_numbers(connection)
    except SQLAlchemyError as error:
        raise BackupError(f"the database cannot be reached: {error}") from error
    finally:
        opened.dispose()
    _put_in_place(database_url, source)
    store = PostgresStore(database_url)
    try:
        with store.transaction() as connection:
            begin_anew(connection, above)
    finally:
        store.close()


_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def _put_in_place(database_url: str, source: Path) -> None:
    """Drop the existing tables and write those of a copy, in one transaction.

    The tables of this version are dropped in addition to those that the copy names: a copy of an
    older schema does not name newer tables, which refer to the older ones.

    Raises:
        BackupError: It failed; nothing was changed.
    """
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
    steps = [f"--command={each}" for each in ("BEGIN", _QUIETLY, _DROP)]
    reading, plain = _command("pg_restore", None, *_SCRIPT, str(source))
    writing, environment = _command("psql", database_url, *options, *steps, "--file=-")
    with subprocess.Popen(  # noqa: S603
        writing,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        read = subprocess.run(  # noqa: S603
            reading, env=plain, stdout=writer.stdin, stderr=subprocess.PIPE, text=True, check=False
        )
        # An incomplete script ends without COMMIT, so nothing of it is kept.
        _, said = writer.communicate("" if read.returncode else "COMMIT;\n")
    # If psql has failed, pg_restore fails as well: report the cause first.
    _refuse_failed("psql", writer.returncode, said)
    _refuse_failed("pg_restore", read.returncode, read.stderr)


_SCRIPT = ("--clean", "--if-exists", "--no-owner", "--file=-")
_QUIETLY = "SET client_min_messages = warning"
_DROP = f"DROP TABLE IF EXISTS alembic_version, {', '.join(metadata.tables)} CASCADE"


def _run(program: str, database_url: str | None, *arguments: str) -> None:
    """Run one of PostgreSQL's programs.

    Raises:
        BackupError: It is not installed, or fails.
    """
    command, environment = _command(program, database_url, *arguments)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    _refuse_failed(program, done.returncode, done.stderr)


def _refuse_failed(program: str, code: int, said: str) -> None:
    if code:
        raise BackupError(f"{program} failed: {said.strip() or code}")


def _command(
    program: str, database_url: str | None, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of one of PostgreSQL's programs.

    The password is in the environment, where no other user can see it.

    Raises:
        BackupError: It is not installed.
    """
    found = shutil.which(program)
    if found is None:
        raise BackupError(
            f"{program} is not installed: install PostgreSQL's client programs, in the version of"
            " its server or a newer one"
        )
    command, environment = [found, *arguments], dict(os.environ)
    if database_url is not None:
        url = make_url(database_url)
        if url.password is not None:
            environment["PGPASSWORD"] = str(url.password)
        plain = url.set(drivername="postgresql", password=None)
        command.insert(1, f"--dbname={plain.render_as_string()}")
    return command, environment
