"""`token`: who may do what on the server."""

from __future__ import annotations

from typing import Annotated

import typer

from pacesetter.cli.arguments import seconds
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context
from pacesetter.cli.screen import styled, table
from pacesetter.cli.text import ago


def made() -> typer.Typer:
    """Return the app of these commands."""
    app = typer.Typer(no_args_is_help=True, help="Access tokens; an admin's affair.")
    commands(app, None, {"create": create, "ls": ls, "revoke": revoke})
    return app


def create(
    context: Context,
    *,
    name: Annotated[
        str, typer.Argument(help="Of the holder: the author of orders.", show_default=False)
    ],
    role: Annotated[
        str,
        typer.Option("--role", help="viewer, trainer, operator or admin.", show_default=False),
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="Only names that fit, 'team-a-*'; repeatable.", show_default=False
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="90d, 12h: for how long it is good.", show_default=False),
    ] = None,
) -> None:
    """Make a token, and print its secret, which is shown this once."""
    good_for = None if expires is None else seconds(expires)
    issued = context.server.create_token(name, role, scope=tuple(scope or ()), expires_in=good_for)
    if context.answers(issued):
        return
    context.screen.line(issued["token"])
    context.screen.note(
        f"token {issued['id']} of {name}, {role}: it is shown this once; keep it in a file that"
        " PACESETTER_TOKEN_FILE names"
    )


def ls(context: Context) -> None:
    """List the tokens, without their secrets."""
    found = context.server.tokens()
    if context.answers({"tokens": found}):
        return
    rows = (
        (
            each["id"],
            each["name"],
            each["role"],
            ", ".join(each["scope"]) or "all",
            (each["expires_at"] or "-")[:16],
            ago(each["last_used_at"]),
        )
        for each in found
    )
    columns = ("id", "holder", "role", "names", "expires", "used")
    context.screen.show(table(columns, rows, fold=("id", "holder", "names"), right=("used",)))


def revoke(
    context: Context,
    *,
    token: Annotated[str, typer.Argument(help="Its id.", show_default=False)],
) -> None:
    """Revoke a token; the feeds that it has opened end."""
    context.server.revoke_token(token)
    if not context.answers({"revoked": token}):
        context.screen.line("token ", styled(token, "bold"), " is revoked")
