"""The `pacesetter` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING

from pacesetter import mcp
from pacesetter._service import ServiceMissingError, load_service

ABOUT_TOKENS = (
    "Where the server asks for an access token, set PACESETTER_TOKEN. It is no option, because "
    "everybody on a machine can see the options of a command that runs."
)

DEFAULT_URL = "http://127.0.0.1:7070"

BESIDE_SERVING = {
    "migrate": "bring a database to the newest schema",
    "backup": "copy a database, which may be served meanwhile",
    "restore": "put a copy in a database's place",
}
"""What works on a database itself, where the server runs."""

if TYPE_CHECKING:
    from pacesetter._doctor import Check

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no other name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    `pacesetter serve` hands everything after it to the service, which knows its own options.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    if arguments[:1] and arguments[0] in BESIDE_SERVING:
        return _beside_serving(arguments)
    if arguments[:1] == ["mcp"]:
        return mcp.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="pacesetter", description="Learning rates that a server owns.", epilog=ABOUT_TOKENS
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the server (needs pacesetter[service])")
    for command, does in BESIDE_SERVING.items():
        commands.add_parser(command, help=f"{does} (needs pacesetter[service])")
    commands.add_parser("mcp", help="run the MCP server (needs pacesetter[mcp])")
    commands.add_parser("version", help="print the version")
    _add_doctor(commands)
    _add_all(commands)
    asked = parser.parse_args(arguments)
    if asked.command == "doctor":
        return _doctor(asked)
    if asked.command == "version":
        print(_version())  # noqa: T201 - the output of the command
        return 0
    return _ask(asked)


def _serve(arguments: list[str]) -> int:
    advice = (
        "install pacesetter[service] with a newer one; trainers on this one can use it all the same"
    )
    try:
        service = load_service("pacesetter_service.__main__", advice)
    except ServiceMissingError as error:
        return _failed(error)
    return int(service.main(arguments) or 0)


def _doctor(asked: argparse.Namespace) -> int:
    """Print a line for each check; returns 1 if one has failed."""
    from pacesetter import _doctor  # noqa: PLC0415 - `serve` and `version` need no HTTP

    found: list[_doctor.Check] = []
    for check in _checks(_doctor, asked):
        found.append(check)
        if not asked.json:
            print(check.line(), flush=True)  # noqa: T201 - the output of the command
    if asked.json:
        print(_doctor.as_json(found))  # noqa: T201 - likewise
    return int(any(each.result == "FAIL" for each in found))


def _checks(doctor: ModuleType, asked: argparse.Namespace) -> Iterator[Check]:
    """Look at the server, unless only a database is named; then at the database, if one is."""
    if asked.database_url is None or asked.url is not None:
        url = asked.url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
        yield from doctor.checks(url, _version(), write=asked.write)
    if asked.database_url is None:
        return
    try:
        service = load_service("pacesetter_service.doctor", "run this where the server runs")
    except ServiceMissingError as error:
        yield doctor.Check("database", "FAIL", str(error), "run this where the server runs")
        return
    for each in service.checks(asked.database_url or None):
        yield doctor.Check(*each)


def _beside_serving(arguments: list[str]) -> int:
    try:
        service = load_service("pacesetter_service.commands", "run this where the server runs")
    except ServiceMissingError as error:
        return _failed(error)
    return int(service.main(arguments))


def _failed(why: object, status: int = 2) -> int:
    print(why, file=sys.stderr)  # noqa: T201 - a message to the user of the command
    return status


def _add_doctor(commands: _Commands) -> None:
    parser = commands.add_parser("doctor", help="check a deployment: one line a check")
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
    _add_url(parser)


def _add_all(commands: _Commands) -> None:
    parser = _of_session(commands, "explain", "say why a session's values are what they are")
    parser.add_argument("--step", type=int, required=True, help="the step to explain")
    _add_url(parser)
    parser = _of_session(commands, "events", "print what has happened to a session")
    parser.add_argument("--kind", action="append", help="only events of this kind; repeatable")
    parser.add_argument("--after", type=int, help="only events that come after this number")
    parser.add_argument("--follow", action="store_true", help="go on with what happens next")
    _add_url(parser)
    parser = _of_session(commands, "export", "write the whole record of a session into a file")
    parser.add_argument("file", help="where to; lines of JSON")
    _add_url(parser)
    _add_prune(commands)
    parser = commands.add_parser("import", help="restore a session from what `export` wrote")
    parser.add_argument("file", help="what `export` wrote")
    parser.add_argument("--name", help="what it is to be called, if not as it was")
    _add_url(parser)


def _add_prune(commands: _Commands) -> None:
    parser = commands.add_parser("prune", help="archive old sessions, and purge archived ones")
    parser.add_argument(
        "--older-than",
        required=True,
        metavar="TIME",
        help="90d: not written for so long; s m h d w",
    )
    parser.add_argument(
        "--state", default="finished,failed,archived", help="only in these states, by commas"
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only with it; repeatable",
    )
    parser.add_argument(
        "--purge", action="store_true", help="remove for good what is archived already"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what it would do")
    _add_url(parser)


def _of_session(commands: _Commands, command: str, does: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(command, help=does)
    parser.add_argument("name", help="the session's name")
    return parser


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ABOUT_TOKENS
    parser.add_argument(
        "--url", help="the server; without it PACESETTER_URL, else http://127.0.0.1:7070"
    )


def _ask(asked: argparse.Namespace) -> int:
    """Print what the server answers, or why it does not, which is exit status 1."""
    from pacesetter import _remote  # noqa: PLC0415 - `serve` and `version` need no HTTP

    try:
        for line in _answer(_remote, asked):
            print(line, flush=True)  # noqa: T201 - the output of the command
    except KeyboardInterrupt:  # how following ends
        return 130
    except (_remote.PacesetterError, ValueError, OSError) as error:
        return _failed(error, 1)
    return 0


def _answer(remote: ModuleType, asked: argparse.Namespace) -> Iterator[str]:
    lines: Iterator[str]
    match asked.command:
        case "explain":
            lines = remote.explanation(asked.url, asked.name, asked.step)
        case "export":
            lines = remote.export(asked.url, asked.name, asked.file)
        case "prune":
            lines = remote.prune(
                asked.url,
                older_than=asked.older_than,
                states=asked.state.split(","),
                labels=asked.label,
                purge=asked.purge,
                dry_run=asked.dry_run,
            )
        case "import":
            lines = remote.restore(asked.url, asked.file, asked.name)
        case _:
            tell = remote.follow if asked.follow else remote.events
            lines = tell(asked.url, asked.name, kinds=asked.kind or (), after=asked.after)
    return lines


def _version() -> str:
    try:
        return version("pacesetter")
    except PackageNotFoundError:
        return "unknown (not installed)"


if __name__ == "__main__":
    sys.exit(main())
