"""The entry point of the command: what needs no extras is run directly, all else by typer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pacesetter.cli import plain
from pacesetter.cli.exits import USAGE

NEEDED = frozenset({"typer", "rich", "shellingham", "click"})
"""What `pacesetter[cli]` installs; its absence is reported, and that of anything else is a bug."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status.

    Args:
        argv: The words after `pacesetter`; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in plain.PLAIN:
        return plain.run(first, rest)
    if first in {"--version", "-V"} and not rest:
        return plain.run("version", rest)
    try:
        from pacesetter.cli import app  # noqa: PLC0415 - takes as long as all else, or is not there
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        return _without(error.name, asked=first)
    return app.run(arguments)


def _without(missing: str, *, asked: str) -> int:
    """Say what can be run where typer or rich are missing, and how the rest can."""
    if asked in {"", "--help", "-h"}:
        sys.stderr.write(plain.overview())
    sys.stderr.write(
        f"pacesetter: {asked or 'all else'} needs {missing}, which is not installed\n"
        "  -> pip install 'pacesetter[cli]'\n"
    )
    return USAGE
