"""What a command is given: the server, the screen, and the form of its answers."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pacesetter.cli.exits import USAGE, CommandError
from pacesetter.cli.screen import Screen, asked, is_interactive

if TYPE_CHECKING:
    from pacesetter.cli.server import Server

REASON_WANTED = "say why, for the record: -m 'the loss blew up'"


class Context:
    """One run of a command.

    Args:
        url: The server's address; without one `PACESETTER_URL`, else `http://127.0.0.1:7070`.
        as_json: Whether a program reads the answer.
    """

    def __init__(self, url: str | None, *, as_json: bool) -> None:
        self.url = url
        self.as_json = as_json

    @cached_property
    def screen(self) -> Screen:
        """The terminal."""
        return Screen()

    def patiently(self) -> Server:
        """Return a client that waits long for the server; the caller closes it.

        While the server is away, the call is retried for as long, and the person is told.
        """
        from pacesetter.cli import server  # noqa: PLC0415 - not every command asks one

        return server.Server(self.url, retry_for=server.TIMEOUT)

    @cached_property
    def server(self) -> Server:
        """A client of the server; it connects with the first call."""
        from pacesetter.cli.server import Server  # noqa: PLC0415 - not every command asks one

        return Server(self.url)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "server" in self.__dict__:
            self.server.close()

    def answers(self, answer: object) -> bool:
        """Print an answer if a program reads it; return whether that was all."""
        if self.as_json:
            self.screen.json(answer)
        return self.as_json

    def tells(self, answers: Iterable[object]) -> bool:
        """Print a line for each answer if a program reads them; return whether that was all."""
        if self.as_json:
            for each in answers:
                self.screen.json_line(each)
        return self.as_json

    def reason(self, given: str | None, *, needed: bool = True) -> str:
        """Return the reason for a command; ask a person for it where possible.

        Raises:
            CommandError: A reason is needed, and was not given.
        """
        if given or not needed:
            return given or ""
        if is_interactive() and not self.as_json and (said := asked("why? ")):
            return said
        raise CommandError(USAGE, "an order by a person needs a reason", REASON_WANTED)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask a person to confirm what cannot be undone.

        Raises:
            CommandError: The person does not confirm, or cannot be asked.
        """
        if yes:
            return
        if not is_interactive() or self.as_json:
            raise CommandError(USAGE, f"{question} This cannot be taken back.", "say --yes")
        if asked(f"{question} [y/N] ").lower() not in {"y", "yes"}:
            raise CommandError(1, "nothing was done")


def actor() -> str | None:
    """Return who gives orders from here; None where an access token says so.

    That is `PACESETTER_ACTOR`, or the name of the logged-in user.
    """
    if os.environ.get("PACESETTER_TOKEN") or os.environ.get("PACESETTER_TOKEN_FILE"):
        return None  # the token's holder is the author, and another name would be refused
    try:
        name = os.environ.get("PACESETTER_ACTOR") or getpass.getuser()
    except (OSError, KeyError, ImportError):  # the user has no name, for instance in a container
        return None
    return "".join(each for each in name if " " <= each <= "~")[:128].strip() or None


def plain(answer: Any) -> Any:  # noqa: ANN401 - whatever a client answers
    """Return an answer, such as a `SessionInfo`, as JSON values."""
    if hasattr(answer, "__dataclass_fields__"):
        return {name: plain(getattr(answer, name)) for name in answer.__dataclass_fields__}
    return list(answer) if isinstance(answer, tuple) else answer
