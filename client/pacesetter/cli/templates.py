"""`template`: a team's schedules, published under a name and a version."""

from __future__ import annotations

from typing import Annotated

import typer

from pacesetter.cli.advice import findings_shown
from pacesetter.cli.arguments import document, labels, reference, values
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.curves import shown
from pacesetter.cli.options import Labels, Reason
from pacesetter.cli.screen import facts, styled, table
from pacesetter.cli.sessions import created

Reference = Annotated[
    str, typer.Argument(help="Its name and version.", metavar="NAME@VERSION", show_default=False)
]


def made() -> typer.Typer:
    """Return the app of these commands."""
    app = typer.Typer(no_args_is_help=True, help="A team's schedules, published and versioned.")
    commands(
        app,
        None,
        {
            "ls": ls,
            "show": show,
            "publish": publish,
            "use": use,
            "diff": diff,
            "deprecate": deprecate,
        },
    )
    return app


def ls(
    context: Context,
    *,
    name: Annotated[
        str | None, typer.Argument(help="All versions of it.", show_default=False)
    ] = None,
) -> None:
    """List the newest version of each template, or all versions of one."""
    found = context.server.templates(name)
    if context.answers({"templates": found}):
        return
    if not found:
        context.screen.line(styled("no templates; `pacesetter template publish` makes one", "dim"))
        return
    rows = (
        (
            each["reference"],
            ", ".join(each["template"].get("parameters") or {}) or "-",
            styled(f"deprecated: {each['deprecated']}", "yellow")
            if each["deprecated"]
            else each["template"].get("description", ""),
        )
        for each in found
    )
    context.screen.show(table(("template", "parameters", ""), rows, fold=("template", "")))


def show(context: Context, *, template: Reference) -> None:
    """Show one version of a template; the newest if none is named."""
    name, version = reference(template)
    found = context.server.template(name, version)
    if context.answers(found):
        return
    body = found["template"]
    context.screen.line(styled(found["reference"], "bold"), f"  {body.get('description', '')}")
    if found["deprecated"]:
        context.screen.line(styled(f"deprecated: {found['deprecated']}", "yellow"))
    pairs = [
        (each, f"{about.get('description', '')} (default {shown(about.get('default'))})")
        for each, about in (body.get("parameters") or {}).items()
    ]
    context.screen.show(facts(pairs))
    context.screen.json(body["spec"])


def publish(
    context: Context,
    *,
    file: Annotated[
        str,
        typer.Option("-f", "--file", help="A JSON or YAML file; - is stdin.", show_default=False),
    ],
) -> None:
    """Publish a template; it gets the next version, and never changes again."""
    found = context.server.publish_template(document(file))
    if not context.answers(found):
        context.screen.line("published ", styled(found["reference"], "bold"))


def use(
    context: Context,
    *,
    template: Reference,
    name: Annotated[str, typer.Option("--name", help="Of the session.", show_default=False)],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What fills a hole; repeatable.",
            metavar="PARAMETER=VALUE",
            show_default=False,
        ),
    ] = None,
    label: Labels = None,
) -> None:
    """Create a session from a template."""
    spec = {"template": template, "parameters": values(given or ())}
    session = created(context, spec, name, labels(label or ()))
    if context.answers(plain(session)):
        return
    context.screen.line(styled(session.name, "bold"), f" was made from {template}")
    findings_shown(context.screen, getattr(session, "warnings", ()))


def diff(
    context: Context,
    *,
    name: Annotated[str, typer.Argument(help="The template.", show_default=False)],
    before: Annotated[int, typer.Argument(help="One version.", show_default=False)],
    after: Annotated[int, typer.Argument(help="Another.", show_default=False)],
) -> None:
    """Compare two versions of a template."""
    found = context.server.diff_templates(name, before, after)
    if context.answers({"differences": found}):
        return
    if not found:
        context.screen.line("they are alike")
        return
    rows = ((d["pointer"], shown(d["before"]), shown(d["after"])) for d in found)
    columns = ("", f"@{before}", f"@{after}")
    context.screen.show(table(columns, rows, fold=columns))


def deprecate(context: Context, template: Reference, reason: Reason = None) -> None:
    """Say why a version should not be used any more."""
    name, version = reference(template)
    if version is None:
        raise ValueError(f"{template!r} names no version: write {name}@3")
    found = context.server.deprecate_template(name, version, context.reason(reason))
    if not context.answers(found):
        context.screen.line(styled(found["reference"], "bold"), " is deprecated")
