"""Exit statuses, in one table, and error messages: a line what is wrong, a line what to do."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pacesetter._errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    InvalidAnswerError,
    NotFoundError,
    PacesetterError,
    PermissionDeniedError,
    ServerError,
    TransportError,
)

OK = 0
REFUSED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
NOT_ALLOWED = 5
AWAY = 6
STRANGE = 7
INTERRUPTED = 130

MEANINGS: Mapping[int, str] = {
    OK: "it was done",
    REFUSED: "the server refuses what was asked, a check has failed, or a file cannot be used",
    USAGE: "the command line makes no sense, or a package that the command needs is missing",
    NOT_FOUND: "there is no such session, order, template or token",
    CONFLICT: "the state of the session does not allow it, or the name is taken",
    NOT_ALLOWED: "the access token is missing or wrong, or its role does not reach that far",
    AWAY: "the server does not answer, or is overloaded; what was asked may be asked again",
    STRANGE: "what answers is no Pacesetter, or one of another version",
    INTERRUPTED: "interrupted from the keyboard: how following ends",
}
"""What each exit status means. Scripts rely on it: no meaning ever changes."""


class Ending(NamedTuple):
    """How a command that failed ends.

    Attributes:
        status: The exit status.
        what: What is wrong, in a line.
        advice: What to do about it, in a line; empty if `what` says so.
        code: The stable name of the problem, as the server gave it; empty if it gave none.
    """

    status: int
    what: str
    advice: str = ""
    code: str = ""


class CommandError(Exception):
    """A command cannot go on.

    Args:
        status: The exit status.
        what: What is wrong, in a line.
        advice: What to do about it, in a line.
    """

    def __init__(self, status: int, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.ending = Ending(status, what, advice)


ADVICE: Mapping[str, str] = {
    "not_found": "no name is empty or has a slash; else see whether client and server are of the"
    " same version: `pacesetter doctor`",
    "session_not_found": "`pacesetter ls` shows the sessions that there are",
    "session_purged": "it was removed for good; `pacesetter ls` shows those that there are",
    "session_exists": "take another name, or look at it: `pacesetter show NAME`",
    "name_taken": "give another name with --name",
    "session_not_archived": "archive it first: `pacesetter archive NAME`",
    "session_has_forks": "remove the forks first, or keep it",
    "session_archived": "it can only be read; `pacesetter fork` goes on from any step of it",
    "session_finished": "it seals no further step; `pacesetter fork` goes on from any step of it",
    "order_not_found": "`pacesetter orders NAME` shows those that wait",
    "nothing_to_take_back": "trainers hold all that is sealed; order for a later step with --at",
    "template_not_found": "`pacesetter template ls` shows the templates that there are",
    "token_not_found": "`pacesetter token ls` shows the tokens that there are",
    "authentication_off": "start the service with PACESETTER_ADMIN_TOKEN to use tokens",
    "unauthenticated": "set PACESETTER_TOKEN to a token that an admin made",
    "forbidden": "ask an admin for a token of a larger role",
    "out_of_scope": "ask an admin for a token whose scope has this name",
    "actor_refused": "unset PACESETTER_ACTOR: with a token its holder is the author",
}
"""What to do with this command, by the code of the problem."""


def ending_of(error: Exception) -> Ending | None:
    """Return how a command that has met an error ends; None if the error is a bug."""
    ending: Ending | None = None
    match error:
        case CommandError():
            ending = error.ending
        case APIError():
            ending = _refusal(error)
        case TransportError():
            ending = _unreachable(error)
        case InvalidAnswerError():
            ending = Ending(STRANGE, str(error), "run `pacesetter doctor`")
        case PacesetterError():
            ending = Ending(REFUSED, str(error), "`pacesetter doctor` says what is wrong")
        case FileNotFoundError(filename=str() | bytes() | os.PathLike()):
            ending = _missing(Path(os.fsdecode(error.filename)))
        case OSError():
            ending = Ending(REFUSED, str(error), "see whether it can be read or written")
        case ValueError():
            ending = Ending(USAGE, str(error), "`pacesetter COMMAND --help` says what it takes")
    return ending


def unread() -> int:
    """End silently where the reader of the output has closed it, as `head` does."""
    leave_unwritten()
    return OK


def leave_unwritten() -> None:
    """Discard what cannot be written: Python would try again, and fail, as the process ends.

    Python would then end with its own exit status.
    """
    with suppress(OSError):
        sys.stdout.flush()
        return
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _missing(path: Path) -> Ending:
    """Return how a command ends that found no file, or no folder to write it into."""
    if path.parent.is_dir():
        return Ending(REFUSED, f"there is no file {str(path)!r}", "see its name")
    what = f"there is no folder {str(path.parent)!r}"
    return Ending(REFUSED, what, "make it first, or see its name")


def _refusal(error: APIError) -> Ending:
    what = error.detail
    if error.code in ADVICE:  # the server's advice is for callers over HTTP
        return Ending(_status(error), _first_sentence(what), ADVICE[error.code], error.code)
    fields = [
        f"{each.get('pointer') or each.get('parameter') or '/'}: {each.get('detail')}"
        for each in error.errors[:MOST_FIELDS]
    ]
    if fields:
        unsaid = len(error.errors) - len(fields)
        what = "; ".join(fields) + (f"; and {unsaid} more" if unsaid else "")
    return Ending(_status(error), what, _general(error), error.code)


def _status(error: APIError) -> int:
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return NOT_ALLOWED
        case NotFoundError():
            return NOT_FOUND
        case ConflictError():
            return CONFLICT
        case ServerError():
            return AWAY
        case _:
            return REFUSED


MOST_FIELDS = 4
"""Refused fields that are named; `--json` has the server's own sentence on all."""

_GENERAL: Mapping[int, str] = {
    NOT_ALLOWED: "see PACESETTER_TOKEN",
    NOT_FOUND: "see whether client and server are of the same version: `pacesetter doctor`",
    CONFLICT: "`pacesetter show NAME` says where it stands",
    AWAY: "try again soon; `pacesetter doctor` says what is wrong",
    REFUSED: "nothing was changed; correct it, and try again",
}


def _general(error: APIError) -> str:
    return _GENERAL[_status(error)]


_HOW = re.compile(r"\. |: sessions\(\)")
"""Where the advice of the server, or the client, to other callers begins."""


def _first_sentence(text: str) -> str:
    return _HOW.split(text, maxsplit=1)[0].rstrip(".") + "."


def _unreachable(error: TransportError) -> Ending:
    """Return how a command that got no answer ends: by what went wrong last."""
    what = str(error.__cause__ if isinstance(error.__cause__, PacesetterError) else error)
    advice = "start it with `pacesetter serve`, or say where it is: --url, PACESETTER_URL"
    return Ending(AWAY, what.partition(": start the server")[0], advice)
