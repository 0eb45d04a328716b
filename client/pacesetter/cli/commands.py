"""How a function becomes a command, with `--url` and `--json`, and exit statuses for errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from pacesetter.cli.context import Context
from pacesetter.cli.exits import INTERRUPTED, ending_of, unread

ABOUT_TOKENS = (
    "Where the server asks for an access token, set PACESETTER_TOKEN. It is no option, because "
    "everybody on a machine can see the options of a command that runs."
)

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The server; without it PACESETTER_URL, else http://127.0.0.1:7070.",
        rich_help_panel="Common",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Answer a program.", rich_help_panel="Common")]

Options: TypeAlias = tuple[tuple[str, Any, Any], ...]
"""Options that several commands take: the name of each, what it is, and its default."""

_COMMON: Options = (("url", Url, None), ("json", Json, False))

Command: TypeAlias = Callable[..., None]


def commands(app: typer.Typer, panel: str | None, functions: Mapping[str, Command]) -> None:
    """Make functions of a `Context` commands of an app, under one heading of its help."""
    for name, function in functions.items():
        app.command(name, epilog=ABOUT_TOKENS, rich_help_panel=panel)(_guarded(function))


def _guarded(function: Command) -> Callable[..., None]:
    """Return what typer calls: it makes the context, and turns errors into exit statuses."""

    def run(*, url: str | None, json: bool, **options: Any) -> None:  # noqa: ANN401 - typer's
        context = Context(url, as_json=json)
        try:
            function(context, **options)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(unread()) from None
        except Exception as error:
            ending = ending_of(error)
            if ending is None:
                raise
            context.screen.failed(ending, as_json=json)
            raise typer.Exit(ending.status) from None
        finally:
            context.close()

    return composed(run, function, _COMMON, context=False)


def composed(
    command: Command, function: Callable[..., Any], options: Options, *, context: bool = True
) -> Command:
    """Make a command take what a function takes, and further options.

    Args:
        command: The command, which takes all of them.
        function: The function, which takes a context and its own options.
        options: The further options that the command takes.
        context: Whether the command also takes a context.
    """
    # Not `get_type_hints`: with a default of None, that of Python 3.10 hides the annotation.
    first, *own = inspect.signature(function, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    shown = [each.replace(kind=keyword) for each in own]
    shown += [
        inspect.Parameter(name, keyword, default=default, annotation=kind)
        for name, kind, default in options
    ]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {each.name: each.annotation for each in shown}
    parameters = [first, *shown] if context else shown
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command
