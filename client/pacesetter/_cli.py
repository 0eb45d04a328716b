"""The `pacesetter` command."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    `pacesetter serve` hands everything after it to the service, which knows its own options.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["serve"]:
        return _serve(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="pacesetter", description="Learning rates that a server owns."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the server (needs pacesetter[service])")
    commands.add_parser("version", help="print the version")
    parser.parse_args(arguments)
    print(_version())  # noqa: T201 - the output of the command
    return 0


def _serve(arguments: list[str]) -> int:
    try:
        service = importlib.import_module("pacesetter_service.__main__")
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - a message to whoever typed the command
            f"the server's part is not installed ({error.name} is missing): "
            "pip install 'pacesetter[service]'",
            file=sys.stderr,
        )
        return 2
    return int(service.main(arguments) or 0)


def _version() -> str:
    try:
        return version("pacesetter")
    except PackageNotFoundError:
        return "unknown (not installed)"


if __name__ == "__main__":
    sys.exit(main())
