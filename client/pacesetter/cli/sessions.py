"""Sessions as a whole: creating, forking, sending back, labelling, ending and archiving them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from pacesetter._info import SessionInfo
from pacesetter.cli.actions import before_and_after
from pacesetter.cli.advice import findings_shown
from pacesetter.cli.arguments import document, labels, seconds
from pacesetter.cli.commands import commands
from pacesetter.cli.context import Context, plain
from pacesetter.cli.exits import USAGE, CommandError
from pacesetter.cli.options import DryRun, Labels, Name, Reason, Yes
from pacesetter.cli.screen import styled
from pacesetter.cli.text import count, number, plural, size

MAKE, BRANCH, KEEP = "Make", "Go back, and branch off", "Put away"


def add_to(app: typer.Typer) -> None:
    """Make the commands part of an app."""
    commands(app, MAKE, {"create": create})
    commands(app, BRANCH, {"fork": fork, "rollback": rollback, "take-back": take_back})
    commands(
        app,
        KEEP,
        {
            "label": label,
            "finish": finish,
            "archive": archive,
            "rm": rm,
            "prune": prune,
        },
    )


def create(
    context: Context,
    *,
    file: Annotated[
        str,
        typer.Option("-f", "--file", help="A JSON or YAML file; - is stdin.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="In place of the file's.", show_default=False)
    ] = None,
    label: Labels = None,
) -> None:
    """Create a session; the same again changes nothing."""
    made = created(context, document(file), name, labels(label or ()))
    if context.answers(plain(made)):
        return
    context.screen.line(styled(made.name, "bold"), f" is there, sealed to step {made.horizon}")
    findings_shown(context.screen, made.warnings)


def created(
    context: Context, spec: Mapping[str, Any], name: str | None, label: Mapping[str, str]
) -> SessionInfo:
    """Create a session from a file and the options given with it.

    Raises:
        CommandError: The session has no name, or has fields that no session has.
    """
    given = dict(spec)
    called = name or given.pop("name", None)
    given.pop("name", None)
    if not isinstance(called, str):
        raise CommandError(USAGE, "the session has no name", "say it in the file, or with --name")
    if label:
        given["labels"] = {**(given.get("labels") or {}), **label}
    if "with" in given:
        given["parameters"] = given.pop("with")
    try:
        return context.server.create(called, **given)
    except TypeError as error:
        raise CommandError(USAGE, str(error), "see `pacesetter lint`") from error


def fork(
    context: Context,
    *,
    name: Name,
    step: Annotated[
        int, typer.Option("--step", help="The first step of their own.", show_default=False)
    ],
    names: Annotated[
        str, typer.Option("--as", help="The forks' names, with commas.", show_default=False)
    ],
    file: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--file",
            help="What is to differ, as JSON or YAML; - is stdin.",
            show_default=False,
        ),
    ] = None,
    label: Labels = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make nothing: draw the curve before and after.")
    ] = False,
) -> None:
    """Branch off: new sessions that share the past up to a step."""
    wanted = [each.strip() for each in names.split(",") if each.strip()]
    if not wanted:
        raise ValueError("--as names no session: write --as a,b,c")
    description = None if file is None else document(file)
    given = labels(label) if label else None
    if dry_run:
        found = [
            context.server.rehearse_fork(
                name, each, step=step, labels=given, description=description
            )
            for each in wanted
        ]
        _shown(context, name, wanted, found[0])
        return
    made = [
        context.server.fork(name, each, step=step, labels=given, description=description)
        for each in wanted
    ]
    if context.answers({"sessions": [plain(each) for each in made]}):
        return
    for each in made:
        context.screen.line(
            styled(each.name, "bold"), f" shares the steps of {name} before {count(step)}"
        )


def _shown(context: Context, name: str, forks: Sequence[str], answer: Mapping[str, Any]) -> None:
    """Say and draw what forks would do: the same for all of them."""
    if context.answers({"forks": list(forks), **answer}):
        return
    screen = context.screen
    screen.line(
        styled(", ".join(forks), "bold"),
        f" would share the steps of {name} before {count(answer['start'])}",
    )
    for series, factor in answer["kept"].items():
        screen.line(f"of what was made of {series} the factor {number(factor)} stays")
    before_and_after(screen, answer)
    screen.line(styled("nothing was made; without --dry-run it is", "dim"))


def rollback(
    context: Context,
    *,
    name: Name,
    step: Annotated[
        int,
        typer.Option("--step", help="The first step that is trained again.", show_default=False),
    ],
    drop_orders: Annotated[
        bool, typer.Option("--drop-orders", help="Forget the orders for it and later steps.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option("--key", help="What the ranks of the restart share.", show_default=False),
    ] = None,
    yes: Yes = False,
) -> None:
    """Send a training back to the step of a checkpoint.

    The running trainers can neither seal nor report from then on: stop them, and start the job
    again from its checkpoint.
    """
    context.confirm(
        f"The trainers of {name} that run now are shut out, and train on without effect. Go back"
        f" to step {step:,}?",
        yes=yes,
    )
    made = context.server.restart(name, step=step, key=key, drop_actions=drop_orders)
    if context.answers(plain(made)):
        return
    context.screen.line(
        styled(f"attempt {made.attempt}", "bold green"), f" of {name} begins at step {count(step)}"
    )
    context.screen.line("load the checkpoint of that step, and start the job again")


def take_back(
    context: Context,
    *,
    name: Name,
    reason: Reason = None,
    dry_run: DryRun = False,
) -> None:
    """Open sealed steps again that no trainer holds."""
    why = context.reason(reason, needed=not dry_run)
    answer = context.server.take_back(name, reason=why, dry_run=dry_run)
    if context.answers(answer):
        return
    would = "would be" if dry_run else "are"
    context.screen.line(
        f"steps {count(answer['horizon'])} to {count(answer['until'] - 1)} {would} open again"
    )


def label(
    context: Context,
    *,
    name: Name,
    given: Annotated[
        list[str],
        typer.Argument(
            help="NAME=VALUE sets one, NAME- takes it away.",
            metavar="NAME=VALUE|NAME-…",
            show_default=False,
        ),
    ],
) -> None:
    """Set labels of a session, or take them away."""
    away = {each[:-1]: None for each in given if each.endswith("-") and "=" not in each}
    kept = labels(each for each in given if each.removesuffix("-") not in away or "=" in each)
    made = context.server.relabel(name, {**kept, **away})
    if context.answers(plain(made)):
        return
    shown = made.spec.get("labels") or {}
    context.screen.line(", ".join(f"{k}={v}" for k, v in shown.items()) or "no labels")


def finish(
    context: Context,
    *,
    name: Name,
    failed: Annotated[bool, typer.Option("--failed", help="It has failed.")] = False,
    step: Annotated[
        int | None,
        typer.Option("--step", help="The first step not trained.", show_default=False),
    ] = None,
    reason: Reason = None,
) -> None:
    """Say that a training is over.

    A trainer that goes on makes it active again.
    """
    why = context.reason(reason)
    made = context.server.finish(
        name, outcome="failed" if failed else "completed", reason=why, step=step
    )
    if not context.answers(plain(made)):
        context.screen.line(styled(name, "bold"), " has failed" if failed else " is finished")


def archive(context: Context, *, name: Name) -> None:
    """Close a session: it stays readable, and takes nothing more."""
    context.server.archive(name)
    if not context.answers({"archived": name}):
        context.screen.line(styled(name, "bold"), " is archived")


def rm(
    context: Context,
    *,
    names: Annotated[list[str], typer.Argument(help="Archived sessions.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    yes: Yes = False,
) -> None:
    """Remove archived sessions for good; asks first."""
    for each in names:
        context.server.purge(each, dry_run=True)
    if not dry_run:
        shown = ", ".join(names)
        context.confirm(f"Remove {shown} and everything recorded of it for good?", yes=yes)
        for each in names:
            context.server.purge(each)
    if context.answers({"removed": [] if dry_run else names, "would_remove": names}):
        return
    for each in names:
        context.screen.line(styled(each, "bold"), " would be removed" if dry_run else " is removed")


def prune(
    context: Context,
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            help="90d: not written for so long; s m h d w.",
            metavar="TIME",
            show_default=False,
        ),
    ],
    state: Annotated[
        str, typer.Option("--state", help="Only in these states, with commas.")
    ] = "finished,failed,archived",
    label: Labels = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove for good what is archived already.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
) -> None:
    """Archive old sessions, and purge archived ones."""
    done = context.server.prune(
        older_than=seconds(older_than),
        states=state.split(","),
        labels=labels(label or ()),
        purge=purge,
        dry_run=dry_run,
    )
    if context.tells(done):
        return
    away = kept = removed = 0
    for each in done:
        step, about = str(each.get("step")), int(each.get("bytes", 0))
        why = f": {each.get('reason')}" if step == "keep" else ""
        context.screen.line(
            f"{step:>7}  {size(about):>9}  {each.get('changed_at')}  ",
            styled(each.get("name"), "bold"),
            f" ({each.get('state')}){why}",
        )
        kept += step == "keep"
        away += step != "keep"
        removed += about if step == "purge" else 0
    would = "would be " if dry_run else ""
    context.screen.line(
        f"{plural(away, 'session')} {would}put away, {kept} kept; {size(removed)} {would}removed"
    )
