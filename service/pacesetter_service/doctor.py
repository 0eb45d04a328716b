"""Checks whether a database is fit to be served, without changing it.

A service may be running on it. `pacesetter doctor --database-url` prints the findings.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pacesetter_service.settings import read_settings
from pacesetter_service.store import migrate
from pacesetter_service.store.file_systems import over_a_network
from pacesetter_service.store.served import UnusableDatabaseError, file_of

Result = Literal["OK", "WARN", "FAIL"]

LEAST_SHARE = 0.1
"""The fraction of a disk that should be free."""


class Check(NamedTuple):
    """One thing that was checked.

    Attributes:
        check: What was checked.
        result: Whether it is as it should be.
        detail: What was found.
        advice: What to do about it; empty if there is nothing to do.
    """

    check: str
    result: Result
    detail: str
    advice: str = ""


def checks(database_url: str | None) -> Iterator[Check]:
    """Check a database; without a URL, the one that the service's settings name."""
    try:
        settings = read_settings(() if database_url is None else ("--database-url", database_url))
    except ValidationError as error:
        for each in error.errors():
            name = "-".join(str(part) for part in each["loc"])
            yield Check("settings", "FAIL", f"{name}: {each['msg']}", "correct this setting")
        return
    if settings.database_url.startswith("postgres"):
        yield from _postgres(settings.database_url)
        return
    try:
        path = file_of(settings.database_url)
    except UnusableDatabaseError as error:
        yield Check("database", "FAIL", str(error), "correct PACESETTER_DATABASE_URL")
        return
    if not path.exists():
        advice = "the first start makes it; if it was there, put it back with -wal and -mark"
        yield Check("database", "WARN", f"there is no {path}", advice)
    else:
        yield from _file(path)
        yield _permissions(path)
    yield _room(path, settings.min_free_disk)
    yield _file_system(path)


def _file(path: Path) -> Iterator[Check]:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            sessions = connection.execute("SELECT count(*) FROM sessions").fetchone()[0]
            yield Check("database", "OK", f"{path} opens, with {sessions} sessions")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            yield _schema(None if row is None else str(row[0]))
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            advice = "stop the service, copy all its files, and restore the newest backup"
            yield (
                Check("integrity", "OK", "SQLite finds no damage")
                if found == "ok"
                else Check("integrity", "FAIL", str(found), advice)
            )
    except sqlite3.Error as error:
        advice = "check the path and its owner; a damaged file is restored from a backup"
        yield Check("database", "FAIL", f"{path} cannot be read: {error}", advice)


def _schema(revision: str | None) -> Check:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    if revision == newest:
        return Check("schema", "OK", f"{revision}, the newest that this version knows")
    if revision in {each.revision for each in scripts.walk_revisions()}:
        advice = "the next start migrates it; make a backup before"
        return Check("schema", "WARN", f"{revision}, and this version has {newest}", advice)
    advice = "run the version of the service that has migrated it, or a newer one"
    return Check("schema", "FAIL", f"{revision} is none that this version knows", advice)


def _permissions(path: Path) -> Check:
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        advice = "run this as the user of the service, or give it the file and its folder"
        return Check("permissions", "FAIL", f"{path} or its folder cannot be written", advice)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        detail = f"others may read {path} ({mode:o})"
        return Check("permissions", "WARN", detail, f"chmod 600 {path}")
    return Check("permissions", "OK", "the file is its owner's alone")


def _room(path: Path, reserve: int) -> Check:
    there = next(each for each in path.parents if each.exists())
    disk = shutil.disk_usage(there)
    detail = f"{disk.free / 2**30:.1f} GiB of {disk.total / 2**30:.1f} are free"
    if disk.free < reserve:
        return Check("disk", "FAIL", detail, "make room: writes are answered 507 storage_full")
    if disk.free < LEAST_SHARE * disk.total:
        return Check("disk", "WARN", detail, "make room before writes are answered 507")
    return Check("disk", "OK", detail)


def _file_system(path: Path) -> Check:
    network = over_a_network(path)
    if network is None:
        return Check("file system", "OK", "no network file system, as far as is known")
    advice = "move the database to a local disk, or take PostgreSQL: locks do not hold there"
    return Check("file system", "FAIL", f"{path} is on {network}", advice)


def _postgres(url: str) -> Iterator[Check]:
    try:
        engine = create_engine(url, connect_args={"connect_timeout": 10, "client_encoding": "utf8"})
    except (ArgumentError, ModuleNotFoundError) as error:
        advice = "pip install 'pacesetter[service,postgres]', and name postgresql+psycopg://…"
        yield Check("database", "FAIL", str(error), advice)
        return
    found: dict[str, str] = {}
    try:
        with engine.connect() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            for name in ("server_version", "server_encoding", "fsync", "synchronous_commit"):
                found[name] = connection.execute(text(f"SHOW {name}")).scalar_one()
            known = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one()
            query = text("SELECT version_num FROM alembic_version")
            revision = connection.execute(query).scalar_one_or_none() if known else None
    except SQLAlchemyError as error:
        advice = "check that it runs, the address, the name and the password"
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        yield Check("database", "FAIL", reason, advice)
        return
    finally:
        engine.dispose()
    yield Check("database", "OK", f"PostgreSQL {found['server_version']} answers")
    if known:
        yield _schema(revision)
    else:
        yield Check("schema", "WARN", "there are no tables", "the first start makes them")
    yield _setting(found, "server_encoding", lambda value: value == "UTF8", "use ENCODING 'UTF8'")
    for name in ("fsync", "synchronous_commit"):
        yield _setting(
            found,
            name,
            lambda value: value != "off",
            "turn it on: what was acknowledged is lost in a power failure otherwise",
        )


def _setting(
    found: dict[str, str], name: str, is_right: Callable[[str], bool], advice: str
) -> Check:
    detail = f"{name} = {found[name]}"
    if is_right(found[name]):
        return Check(name, "OK", detail)
    return Check(name, "FAIL", detail, advice)
