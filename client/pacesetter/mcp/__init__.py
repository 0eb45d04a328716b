"""An MCP server: a program that a language model drives reads sessions, and orders a little.

`pacesetter mcp` runs it over the standard streams, for whatever program starts it. It is a thin
layer over the service's API, and not a security boundary: the bounds of the program's token, which
the service enforces, limit what it may do. docs/mcp.md says how to set it up.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:7070"

MISSING = "the MCP server is not installed ({name} is missing): pip install 'pacesetter[mcp]'"

EXPIRES = 600.0
"""Seconds for which a proposal can be applied, by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve over the standard streams until they are closed, and return the exit status."""
    asked = _parser().parse_args(argv)
    if not 0 < asked.expires <= 86_400:
        print("--expires takes seconds, up to 86400", file=sys.stderr)  # noqa: T201 - to the user
        return 2
    try:
        tools = importlib.import_module("pacesetter.mcp._tools")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pacesetter"):
            raise
        print(MISSING.format(name=error.name), file=sys.stderr)  # noqa: T201 - likewise
        return 2
    url = asked.url or os.environ.get("PACESETTER_URL") or DEFAULT_URL
    try:
        server = tools.built(url, read_only=asked.read_only, expires=asked.expires)
    except ValueError as error:  # an unusable address or token
        print(error, file=sys.stderr)  # noqa: T201 - likewise
        return 2
    server.run("stdio")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pacesetter mcp",
        description="An MCP server over the standard streams, for the program that starts it.",
        epilog="Where the service asks for a token, set PACESETTER_TOKEN or PACESETTER_TOKEN_FILE,"
        " to one that has bounds: docs/mcp.md says how.",
    )
    parser.add_argument("--url", help=f"the service; without it PACESETTER_URL, else {DEFAULT_URL}")
    parser.add_argument(
        "--read-only", action="store_true", help="offer no tools by which orders are given"
    )
    parser.add_argument(
        "--expires",
        type=float,
        default=EXPIRES,
        metavar="SECONDS",
        help="how long a proposal can be applied (%(default)g)",
    )
    return parser
