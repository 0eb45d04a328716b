"""Commands that need neither typer nor rich: those that run, repair and check a server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from pacesetter import _doctor, mcp
from pacesetter._client import DEFAULT_URL
from pacesetter._service import ServiceMissingError, load_service
from pacesetter.cli.exits import INTERRUPTED, OK, REFUSED, USAGE, leave_unwritten, unread

ABOUT_TOKENS = (
    "Where the server asks for an access token, set PACESETTER_TOKEN. It is no option, because "
    "everybody on a machine can see the options of a command that runs."
)

PLAIN: Mapping[str, str] = {
    "serve": "Run the server.",
    "migrate": "Bring a database to the newest schema.",
    "backup": "Copy a database, which may be served meanwhile.",
    "restore": "Put a copy in a database's place.",
    "mcp": "Run the MCP server, by which agents look and order.",
    "doctor": "Check a deployment: one line a check.",
    "version": "Print the version.",
}
"""The commands, and what each does."""

BESIDE_SERVING = ("migrate", "backup", "restore")
"""Commands that work on a database itself, where the server runs."""


class _Advised(NamedTuple):
    module: str
    advice: str


_SERVE = _Advised(
    "pacesetter_service.__main__",
    "install pacesetter[service] with a newer one; trainers on this one can use it all the same",
)
_BESIDE = _Advised("pacesetter_service.commands", "run this where the server runs")


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of the commands, and return the exit status.

    The arguments of `serve`, `migrate`, `backup` and `restore` are handed to the service, which
    parses its own options.
    """
    if command in PRINTING:
        return _printed(PRINTING[command], arguments)
    if command == "mcp":
        return mcp.main(arguments)
    beside = command in BESIDE_SERVING
    try:
        service = load_service(*(_BESIDE if beside else _SERVE))
    except ServiceMissingError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    return int(service.main([command, *arguments] if beside else list(arguments)) or OK)


def own_version() -> str:
    """Return the version of this package."""
    try:
        return version("pacesetter")
    except PackageNotFoundError:
        return "unknown (not installed)"


def overview() -> str:
    """Return what can be run without typer and rich."""
    lines = "\n".join(f"  {name:<9} {does}" for name, does in PLAIN.items())
    return f"usage: pacesetter COMMAND\n\n{lines}\n\n{ABOUT_TOKENS}\n"


def _printed(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command that prints; it ends as all others do where the reader closes the output."""
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return unread()
    except OSError as error:  # for instance, a full disk
        leave_unwritten()
        sys.stderr.write(f"pacesetter: {error}\n  -> see whether it can be written\n")
        return REFUSED


def _print_version(arguments: Sequence[str]) -> int:
    if arguments:
        sys.stderr.write("usage: pacesetter version\n")
        return USAGE
    sys.stdout.write(own_version() + "\n")
    sys.stdout.flush()
    return OK


def _doctor_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pacesetter doctor", description=PLAIN["doctor"], epilog=ABOUT_TOKENS
    )
    parser.add_argument(
        "--write", action="store_true", help="also create a session, take a value, archive it"
    )
    parser.add_argument(
        "--database-url",
        nargs="?",
        const="",
        help="check a database, where the server runs (needs pacesetter[service]); without a "
        "value PACESETTER_DATABASE_URL; the server only with --url",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--url", help=f"the server; without it PACESETTER_URL, else {DEFAULT_URL}")
    return parser


def _diagnose(arguments: Sequence[str]) -> int:
    """Print a line for each check, and return 1 if one has failed."""
    asked, found = _doctor_parser().parse_args(arguments), []
    for check in _checks(asked):
        found.append(check)
        if not asked.json:
            sys.stdout.write(check.line() + "\n")
            sys.stdout.flush()
    if asked.json:
        sys.stdout.write(_doctor.as_json(found) + "\n")
        sys.stdout.flush()
    return REFUSED if any(each.result == "FAIL" for each in found) else OK


PRINTING: Mapping[str, Callable[[Sequence[str]], int]] = {
    "doctor": _diagnose,
    "version": _print_version,
}
"""The commands whose answer is what they print."""


def _checks(asked: argparse.Namespace) -> Iterator[_doctor.Check]:
    """Check the server, unless only a database is named; then the database, if one is named."""
    if asked.database_url is None or asked.url is not None:
        url = asked.url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
        yield from _doctor.checks(url, own_version(), write=asked.write)
    if asked.database_url is None:
        return
    try:
        service = load_service("pacesetter_service.doctor", "run this where the server runs")
    except ServiceMissingError as error:
        yield _doctor.Check("database", "FAIL", str(error), "run this where the server runs")
        return
    for each in service.checks(asked.database_url or None):
        yield _doctor.Check(*each)
