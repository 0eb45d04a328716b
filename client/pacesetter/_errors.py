"""Every error that the client raises, as one tree.

```
PacesetterError
├── TransportError               the server could not be reached, or did not answer in time
│   └── ServerUnavailableError   ... for longer than the stated bound
├── APIError                     the server answered with a problem
│   ├── AuthenticationError      401, and a proxy's 407: no access token, or one that does not hold
│   ├── PermissionDeniedError    403: the token's role does not reach that far
│   ├── NotFoundError            404: no such session or page
│   ├── ConflictError            409: the name is taken, or the session is archived
│   │   ├── StaleAttemptError    409: a newer attempt of the job has fenced this one
│   │   ├── HistoryLostError     409: the server's database has lost what this training was given
│   │   └── SessionFinishedError 409: a controller or its trainer has ended the session
│   ├── InvalidRequestError      400, 413, 415, 422: what was sent cannot be accepted
│   └── ServerError              5xx, 408 and 429: the server failed or is overloaded; and other 4xx
│       │                        that are no answers of Pacesetter's, as of a proxy without it
│       └── AwaitingMeasurementError   503: a step waits for what other ranks report
├── InvalidAnswerError           an answer breaks the contract; nothing of it was used
│   └── ForeignAnswerError       it is not Pacesetter's, as a login page; an outage to a training
├── ClosedError                  the client or session was closed
├── GroupError                   param groups and session groups do not fit (also a ValueError)
├── LRMismatchError              another writer changed a rate in the optimizer
├── RankMismatchError            the ranks of a training do not agree
├── RankFailedError              another rank of a training failed, and so all stop
├── ResumeError                  the session was trained before, with no word on what to do
├── StateMismatchError           a checkpoint belongs to another session (also a ValueError)
└── UnsupportedSchedulerError    a torch scheduler that is not data (also a TypeError)
```
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pacesetter._words import in_python

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

LONGEST_TEXT = 2000
"""Characters of a server's text that are repeated: the text may end up in a log."""

MOST_FIELDS = 20
"""Refused fields that a message names; `errors` has all."""


class PacesetterError(Exception):
    """Everything that this package raises on purpose."""


class TransportError(PacesetterError):
    """The server could not be reached, or did not answer in time."""


class ServerUnavailableError(TransportError):
    """The server stayed away for longer than the bound that was set."""


class InvalidAnswerError(PacesetterError):
    """The server's answer breaks the contract; nothing of it was used."""


class ForeignAnswerError(InvalidAnswerError):
    """The answer is not Pacesetter's, or not all of it: a redirect, a page, what a proxy cut off.

    A training takes it for an outage: what stands between may stand aside again.
    """


class ClosedError(PacesetterError):
    """The client or session has been closed."""


class GroupError(PacesetterError, ValueError):
    """The optimizer's param groups and the session's groups do not fit."""


class LRMismatchError(PacesetterError):
    """The optimizer does not hold the learning rate that was written to it."""


class RankMismatchError(PacesetterError):
    """The ranks of a training are at different steps, or hold different learning rates."""


class RankFailedError(PacesetterError):
    """Another rank raised an error that is not of this package; the message says which."""


class ResumeError(PacesetterError):
    """The session was trained before, and the program did not say what to do then."""


class StateMismatchError(PacesetterError, ValueError):
    """A checkpoint that cannot be loaded here."""


class UnsupportedSchedulerError(PacesetterError, TypeError):
    """A torch scheduler whose law cannot be written down as data."""


class APIError(PacesetterError):
    """The server answered with a problem (RFC 9457).

    Attributes:
        status: The HTTP status.
        code: The stable name of the problem, for instance `session_not_found`.
        detail: The server's sentence about it.
        errors: One `{"pointer", "detail"}` for each refused field, where there are any, and one
            `{"parameter", "detail"}` for each refused part of the query.
        problem: The whole answer.
        retry_after: Seconds to wait before the next try, where the server said so.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        errors: Sequence[Mapping[str, Any]] = (),
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        fields = [
            printable(": ".join(filter(None, (_place(error), str(error.get("detail"))))))
            for error in errors[:MOST_FIELDS]
            if not detail.startswith(str(error.get("detail")))  # the sentence is about that field
        ]
        unsaid = "".join(f"\n  {field}" for field in fields if field not in detail)
        super().__init__(f"{detail} [{status} {code}]{unsaid}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.problem = dict(problem or {})
        self.retry_after = retry_after

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that it was made of, except the sentence."""
        names = ("status", "code", "errors", "problem", "retry_after")
        return {name: getattr(self, name) for name in names}

    def saying(self, detail: str) -> Self:
        """Return the same refusal with another sentence, where the client knows better."""
        return type(self)(detail, status=self.status, code=self.code, problem=self.problem)

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes send errors to their parents, which hang on one that cannot be unpickled.
        return functools.partial(type(self), **self.facts), (self.detail,)


class AuthenticationError(APIError):
    """The server, or a proxy on the way, does not know who asks: a token is missing or wrong."""


class PermissionDeniedError(APIError):
    """The token is known, and may not do that."""


class NotFoundError(APIError):
    """There is no such session or page."""


class ConflictError(APIError):
    """The request does not fit the state of the session."""


class StaleAttemptError(ConflictError):
    """A newer attempt of this training has fenced the one that asked."""


class HistoryLostError(ConflictError):
    """The server's database is older than the one that this training followed, or another one.

    Going on would contradict steps that were trained already. `Session.restart(step)`, or loading a
    checkpoint, takes the training back to a step that the server still has.
    """


class SessionFinishedError(ConflictError):
    """The session is finished, by a controller mostly: there is no further step to train."""


class InvalidRequestError(APIError):
    """What was sent cannot be accepted; sending it again would not help."""


class ServerError(APIError):
    """The server failed or is overloaded; everything it stored is still there."""

    @property
    def did_nothing(self) -> bool:
        """Whether the server said that it has not begun what was asked."""
        return self.status in {429, 503}


class AwaitingMeasurementError(ServerError):
    """A step waits for a decision, which waits for measurements; ask again, as in an outage."""


_BY_CODE: dict[str, type[APIError]] = {
    "another_epoch": HistoryLostError,
    "awaiting_measurement": AwaitingMeasurementError,
    "forbidden": PermissionDeniedError,
    "horizon_receded": HistoryLostError,
    "session_finished": SessionFinishedError,
    "stale_attempt": StaleAttemptError,
    "superseded_attempt": StaleAttemptError,
    "unauthenticated": AuthenticationError,
}
_BY_STATUS: dict[int, type[APIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    407: AuthenticationError,
    408: ServerError,  # what some proxies say when they close a connection that was idle
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: ServerError,
}
_WHOEVER_SAYS_SO = frozenset({401, 403, 407, 413})
"""Statuses that mean the same from a proxy, which also judges who asks and how much is sent."""


def api_error(
    status: int, content: bytes, retry_after: float | None = None, *, advice: str = ""
) -> APIError:
    """Return the error that a status and a problem document stand for.

    A body that is no problem document (a proxy's HTML page, say) still makes a readable error.

    Args:
        status: The HTTP status.
        content: The body.
        retry_after: Seconds to wait before the next try, where the server said so.
        advice: What to do, where the client knows better than the server.
    """
    problem = _problem(content)
    code = _text(problem.get("code")) or "unknown"
    said = in_python(_text(problem.get("detail")), problem, advised=bool(advice))
    detail = said or _text(problem.get("title")) or _plain(status, content)
    errors = problem.get("errors")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (ServerError if status >= 500 else None)
    if code == "unknown" and status not in _WHOEVER_SAYS_SO:
        kind = ServerError  # a proxy, or another program, says so while the server is away
    return (kind or APIError)(
        f"{detail} ({advice})" if advice else detail,
        status=status,
        code=code,
        errors=[e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else (),
        problem=problem,
        retry_after=retry_after,
    )


def away(url: str, seconds: float, last: Exception) -> ServerUnavailableError:
    """Return the error for a server that did not answer within the allowed time."""
    return ServerUnavailableError(
        f"{url} was away for {seconds:.3g} s, the longest wait allowed; last: {last}"
    )


def misfit(found: str) -> InvalidAnswerError:
    """Return the error for an answer that this version of the client cannot read."""
    return InvalidAnswerError(f"{found}: check that client and server are of versions that fit")


def printable(text: str) -> str:
    """Return a server's text in a form that is safe to show: one line, bounded, all printable."""
    shown = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    return "".join(each if each.isprintable() else " " for each in shown)


def _place(error: Mapping[str, Any]) -> str:
    """Return where a mistake is; empty where it is about all of the body."""
    return str(error.get("pointer") or error.get("parameter") or "")


def _problem(content: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""


def _plain(status: int, content: bytes) -> str:
    start = content[:200].decode("utf-8", "replace").strip()
    return (
        f"the server answered {status} without a problem document ({start!r}): "
        "check that the URL is Pacesetter's and that no proxy is in between"
    )
