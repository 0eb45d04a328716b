"""All commands, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from pacesetter.cli import (
    actions,
    advice,
    curves,
    demo,
    listing,
    merging,
    plain,
    planning,
    record,
    sessions,
    templates,
    tokens,
    watching,
)
from pacesetter.cli.commands import ABOUT_TOKENS

SERVER = "The server"


def made() -> typer.Typer:
    """Return the app with every command."""
    app = typer.Typer(
        name="pacesetter",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=ABOUT_TOKENS,
    )
    app.callback()(_root)
    parts = (listing, watching, actions, planning, sessions, curves, record, merging, advice)
    for each in parts:
        each.add_to(app)
    app.add_typer(templates.made(), name="template", rich_help_panel="Make")
    app.add_typer(tokens.made(), name="token", rich_help_panel=SERVER)
    demo.add_to(app)
    for name, does in plain.PLAIN.items():
        _handed_on(app, name, does)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return the exit status."""
    try:
        made()(args=list(arguments), prog_name="pacesetter")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """See and steer the learning rates of running trainings."""
    if version:
        raise typer.Exit(plain.run("version", []))


def _handed_on(app: typer.Typer, name: str, does: str) -> None:
    """Register a command that parses its own options, and hand them on to it."""

    def hand_on(context: typer.Context) -> None:
        raise typer.Exit(plain.run(name, context.args))

    app.command(
        name,
        help=does,
        rich_help_panel=SERVER,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(hand_on)
