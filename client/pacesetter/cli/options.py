"""Arguments and options that several commands have, each described once."""

from __future__ import annotations

from typing import Annotated

import typer

from pacesetter.cli.commands import Options
from pacesetter.cli.completion import session_names

ORDER = "The order"

Name = Annotated[
    str,
    typer.Argument(help="The session's name.", show_default=False, autocompletion=session_names),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--reason",
        help="Why, for the record; asked for if it is left out.",
        rich_help_panel=ORDER,
        show_default=False,
    ),
]
Group = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        help="Only for this parameter group; repeatable.",
        rich_help_panel=ORDER,
        show_default=False,
    ),
]
At = Annotated[
    int | None,
    typer.Option(
        "--at",
        help="The first step that it holds for; without it the first not handed out yet.",
        rich_help_panel=ORDER,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Change nothing: draw the curve before and after.", rich_help_panel=ORDER
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The same key again orders nothing more: for scripts that try again.",
        rich_help_panel=ORDER,
        show_default=False,
    ),
]
IfRevision = Annotated[
    int | None,
    typer.Option(
        "--if-revision",
        help="Refuse it if the session's revision is another one by now; a dry run names it.",
        rich_help_panel=ORDER,
        show_default=False,
    ),
]
OF_ORDERS: Options = (
    ("reason", Reason, None),
    ("group", Group, None),
    ("at", At, None),
    ("dry_run", DryRun, False),
    ("key", Key, None),
    ("if_revision", IfRevision, None),
)
"""The options of every order for some parameter groups."""

OF_ALL_GROUPS: Options = tuple(each for each in OF_ORDERS if each[0] != "group")
"""The options of every order for the whole session."""

File = Annotated[
    str | None,
    typer.Option("-f", "--file", help="A JSON or YAML file; - is stdin.", show_default=False),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "-l", "--label", help="NAME=VALUE; repeatable.", metavar="NAME=VALUE", show_default=False
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Attempt = Annotated[
    int | None,
    typer.Option(
        "--attempt", help="An earlier attempt; the newest without it.", show_default=False
    ),
]
Start = Annotated[int | None, typer.Option("--start", help="The first step.", show_default=False)]
End = Annotated[
    int | None, typer.Option("--end", help="The first step that is left out.", show_default=False)
]
Interval = Annotated[
    float, typer.Option("-n", "--interval", help="Seconds between two looks.", min=0.2)
]
Svg = Annotated[
    str | None, typer.Option("--svg", help="Write an SVG picture there.", show_default=False)
]
Png = Annotated[
    str | None,
    typer.Option("--png", help="Write a PNG picture there; needs matplotlib.", show_default=False),
]
Log = Annotated[bool, typer.Option("--log", help="A logarithmic axis of values.")]
