"""Write the tables of docs/cli.md: every command, and every exit status; `make docs` runs this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import typer.main

from pacesetter.cli import app, exits

PAGE = Path(__file__).parent / "cli.md"
PLACE = re.compile(r"(?<=<!-- written by docs/make_cli.py -->\n).*(?=<!-- end -->)", re.DOTALL)

Typed: TypeAlias = Any
"""What typer makes of a function: its types are not the same in all versions."""

COMMON = {"--help", "--url", "--json", "--reason"}
"""Options that are told of once, for all commands."""


def written(page: str) -> str:
    """Return a page with its tables as they are now."""
    return PLACE.sub(lambda _: tables(), page)


def tables() -> str:
    """Return a table of commands for each heading of the help, and that of the exit statuses."""
    root: Typed = typer.main.get_command(app.made())
    panels: dict[str, list[str]] = {}
    for panel, name, each in commands(root):
        panels.setdefault(panel, []).append(row(name, each))
    parts = [
        f"### {panel}\n\n| command | does | options |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        for panel, rows in panels.items()
    ]
    statuses = "\n".join(f"| {each} | {said} |" for each, said in exits.MEANINGS.items())
    parts.append(f"## Exit statuses\n\n| status | says |\n|---|---|\n{statuses}\n")
    return "\n" + "\n".join(parts) + "\n"


def commands(group: Typed, path: str = "", panel: str = "") -> Iterator[tuple[str, str, Typed]]:
    """Return every command, with its heading and its name as it is typed."""
    for name, each in group.commands.items():
        heading = panel or each.rich_help_panel
        if hasattr(each, "commands"):
            yield from commands(each, f"{path}{name} ", heading)
        else:
            yield heading, path + name, each


def row(name: str, each: Typed) -> str:
    """Return a command as a row: how it is called, what it does, and its own options."""
    words = [name]
    options = []
    for param in each.params:
        if param.param_type_name == "argument":
            words.append(_word(param))
        elif not COMMON & set(param.opts):
            options.append(" ".join(f"`{opt}`" for opt in param.opts))
    called = " ".join(words).replace("|", "\\|")
    return f"| `{called}` | {each.get_short_help_str(200)} | {', '.join(options)} |"


def _word(param: Typed) -> str:
    if param.metavar:
        return str(param.metavar)
    name = param.name.upper().replace("_", "-") + ("…" if param.nargs < 0 else "")
    return name if param.required else f"[{name}]"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
