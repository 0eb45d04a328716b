"""The terminal: tables, charts and lines, in colour where it has any, and JSON for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pacesetter.cli.drawing import Curve, Piece, chart, sparkline
from pacesetter.cli.exits import Ending, leave_unwritten
from pacesetter.cli.text import safe

WIDE = 10_000
"""Columns where the output is not a terminal: a program reads lines, which must not be wrapped."""

NARROW = 80


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # its reader has closed it: that is not a failure


class Screen:
    """The output of a command.

    Everything passes through `safe`, and rich's markup is off: text that came from the server can
    neither colour nor command a terminal. Characters that its encoding lacks are shown as `?`: they
    must not make a command fail that has done its work.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        self.is_terminal = sys.stdout.isatty()
        self.console = _Console(
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=not self.is_terminal,
            no_color=None if self.is_terminal else True,
            width=None if self.is_terminal else WIDE,
        )
        self._errors = Console(
            stderr=True,
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=not sys.stderr.isatty(),
        )

    @property
    def width(self) -> int:
        """Columns that a picture may take."""
        return min(self.console.width, 160) if self.is_terminal else NARROW

    @property
    def height(self) -> int:
        """Lines of the terminal."""
        return self.console.height if self.is_terminal else 24

    @property
    def colours(self) -> bool:
        """Whether curves can be distinguished by their colour."""
        return self.console.color_system is not None and not self.console.no_color

    @property
    def ascii_only(self) -> bool:
        """Whether the terminal shows only ASCII."""
        return not (self.console.encoding or "").lower().startswith("utf")

    @property
    def marks(self) -> tuple[str, str]:
        """The marks for a line in a legend, and for a dotted one."""
        return ("**", "* *") if self.ascii_only else ("━━", "┅┅")

    def json(self, answer: object) -> None:
        """Print one document for a program, in ASCII alone: a terminal would only show it."""
        self._plain(json.dumps(answer, indent=2, default=str))

    def json_line(self, answer: object) -> None:
        """Print one line of a stream of documents."""
        self._plain(json.dumps(answer, default=str))

    def _plain(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def raw(self, text: str) -> None:
        """Write a text as it is: for files and programs, never for a terminal."""
        if self.is_terminal:
            text = safe(text, lines=True)
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, *parts: object, style: str = "") -> None:
        """Print a line; a part may be a text with its own style."""
        self.console.print(joined(parts, style))
        self.console.file.flush()

    def block(self, text: object) -> None:
        """Print a text of several lines."""
        self.console.print(Text(safe(text, lines=True)))

    def show(self, *what: RenderableType) -> None:
        """Print what was made by this module."""
        if self.is_terminal:
            self.console.print(Group(*what))
            return
        with self.console.capture() as captured:
            self.console.print(Group(*what))
        self._plain("\n".join(line.rstrip() for line in captured.get().splitlines()))

    def note(self, text: object) -> None:
        """Say something beside the answer: on stderr, where no program reads it."""
        self._errors.print(Text(safe(text), "dim"))

    def failed(self, ending: Ending, *, as_json: bool) -> None:
        """Say on stderr why a command has failed: what, and what to do."""
        leave_unwritten()
        if as_json:
            said = {
                "exit": ending.status,
                "code": ending.code,
                "detail": ending.what,
                "advice": ending.advice,
            }
            sys.stderr.write(json.dumps({"error": said}) + "\n")
            return
        self._errors.print(joined([styled("pacesetter: ", "bold red"), ending.what]))
        if ending.advice:
            self._errors.print(joined([styled("  -> ", "bold"), ending.advice]))

    def charted(
        self, curves: Sequence[Curve], *, height: int, log: bool = False, now: int | None = None
    ) -> Text:
        """Return a picture of curves, as wide as the terminal; `now` is a step to mark."""
        plain = self.ascii_only
        drawn = chart(curves, width=self.width, height=height, log=log, ascii_only=plain, now=now)
        return _text(drawn)

    def bars(self, values: Sequence[float | None]) -> str:
        """Return values as bars in one line, the newest on the right."""
        return sparkline(values, max(self.width - 32, 10), ascii_only=self.ascii_only)


def _text(lines: Iterable[Sequence[Piece]]) -> Text:
    made = [Text.assemble(*((piece.text, piece.style) for piece in line)) for line in lines]
    return Text("\n", no_wrap=True).join(made)


def styled(text: object, style: str) -> Text:
    """Return a text in a style, made safe."""
    return Text(safe(text), style)


def joined(parts: Iterable[object], style: str = "") -> Text:
    """Return parts as one text, each made safe."""
    made = Text(style=style)
    for part in parts:
        made.append_text(part) if isinstance(part, Text) else made.append(safe(part))
    return made


SHORT = 14
"""Columns of a metric's name that are shown in a list."""

Cell = object
"""A text in a style, or anything else, which is shown as text."""


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    fold: Sequence[str] = (),
    short: Sequence[str] = (),
) -> Table:
    """Return a table.

    Args:
        columns: The names of the columns.
        rows: The cells of each row.
        right: Columns of numbers.
        fold: Columns whose texts are wrapped rather than cut, because people copy them.
        short: Columns whose names are cut where callers choose them, such as metrics.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(
            Text(safe(name)),
            max_width=SHORT if name in short else None,
            justify="right" if name in right else "left",
            overflow="fold" if name in fold else "ellipsis",
            no_wrap=name not in fold,
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, Cell]]) -> Table:
    """Return pairs of a name and its value, one below the other."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(safe(name), value if isinstance(value, Text) else Text(safe(value)))
    return made


def is_interactive() -> bool:
    """Return whether a person can be asked something."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def asked(question: str) -> str:
    """Ask the person at the terminal for a line; the question goes to stderr."""
    sys.stderr.write(safe(question))
    sys.stderr.flush()
    return sys.stdin.readline().strip()


STATES: dict[str, str] = {
    "running": "green",
    "active": "green",
    "silent": "yellow",
    "failed": "bold red",
    "finished": "cyan",
    "archived": "dim",
}


def state(name: Any) -> Text:  # noqa: ANN401 - whatever the server says
    """Return a session's state in its colour."""
    return styled(name, STATES.get(str(name), ""))
