"""What operators do to a database beside serving it: migrate it, back it up, restore it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError

from pacesetter_service import logs
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.settings import ENV_PREFIX, default_database_url, mistakes_in
from pacesetter_service.store import backup
from pacesetter_service.store.opening import open_store
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore

COMMANDS = ("migrate", "backup", "restore")


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands, and return the exit status."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    logs.configure("warning", "console")
    try:
        url = asked.database_url or _url_or_exit(asked.command)
        print(_done(asked, url))  # noqa: T201 - the output of the command
    except (
        UnusableDatabaseError,
        StorageUnavailableError,
        backup.BackupError,
        ArgumentError,
    ) as error:
        print(f"pacesetter {asked.command}: {error}", file=sys.stderr)  # noqa: T201 - likewise
        return 1
    return 0


def _url_or_exit(command: str) -> str:
    try:
        return default_database_url()
    except ValidationError as error:
        for name, mistake in mistakes_in(error):
            sys.stderr.write(f"pacesetter {command}: {ENV_PREFIX}{name.upper()}: {mistake}\n")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pacesetter")
    commands = parser.add_subparsers(dest="command", required=True)
    migrate = commands.add_parser("migrate", help="bring the database to the newest schema")
    copy = commands.add_parser("backup", help="copy the database, which may be served meanwhile")
    copy.add_argument("path", type=Path, help="the file to write; it appears when it is whole")
    back = commands.add_parser("restore", help="put a copy in the database's place")
    back.add_argument("path", type=Path, help="what `backup` wrote")
    back.add_argument(
        "--replace", action="store_true", help="put aside the database that is there already"
    )
    for each in (migrate, copy, back):
        each.add_argument("--database-url", help="the database; without it PACESETTER_DATABASE_URL")
    return parser


def _done(asked: argparse.Namespace, url: str) -> str:
    """Run the command, and return a sentence on what was done."""
    if asked.command == "backup":
        backup.backup(url, asked.path)
        return f"wrote {asked.path}"
    if asked.command == "restore":
        aside = backup.restore(url, asked.path, replace=asked.replace)
        kept = "" if aside is None else f"; what was there before is kept as {aside}"
        return (
            f"restored {asked.path}: the database begins a new epoch, and trainings that go on ask"
            f" to be restarted from a checkpoint{kept}"
        )
    store = open_store(url)
    try:
        compacted = isinstance(store, SqliteStore) and store.compact()
    finally:
        store.close()
    return "the schema is the newest" + ("; the file can shrink from now on" if compacted else "")
