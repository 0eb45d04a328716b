"""What the core refuses, as one tree; the core has never heard of HTTP.

PacesetterError
├── SessionNotFoundError       no session of that name
├── SessionExistsError         the name is taken by another spec
├── SessionArchivedError       the session takes no more commands
├── SessionFinishedError       a controller has ended the session
├── AwaitingMeasurementError   a step waits for metrics that ranks have not reported
├── ActionRefusedError         the order makes no sense, or oversteps the limits
├── OrderNotFoundError         no order of that number waits
├── AttemptRefusedError        the attempt can not be opened like this
├── BatchRefusedError          the session does not allow that batch size
├── SupersededAttemptError     a later attempt has taken over from that one
├── StaleAttemptError          the caller speaks for another attempt of the job
├── StepOutOfRangeError        the step can not be sealed, read or reported on
├── ScheduleNotFiniteError     the law leaves the range of learning rates
├── TooManyReportsError        metrics pile up that no sealing has consumed
├── UnknownKindError           no schedule or controller kind of that name
├── TemplateNotFoundError      no template of that name and version
├── ImportRefusedError         a file is no whole record of a session
├── NameTakenError             a session would be imported under a name that is taken
├── UnauthenticatedError       the caller has no valid token
├── ForbiddenError             the caller's role is not enough
├── ActorRefusedError          the caller speaks in somebody else's name
├── TokenNotFoundError         no token of that id
├── AuthenticationOffError     tokens mean nothing to a service without authentication
├── OverloadedError            the service has more work queued than it can take
└── StorageUnavailableError    the database did not take or give the data

Each message says what happened and ends in what to do next.
"""

from difflib import get_close_matches


class PacesetterError(Exception):
    """Root of all that the service refuses. Raise one of its children."""


class SessionNotFoundError(PacesetterError):
    """No session of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no session named {name!r}. Create it with POST /v1/sessions, "
            "or list the ones that exist with GET /v1/sessions."
        )


class SessionExistsError(PacesetterError):
    """The name is taken by a session with another spec."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A session named {name!r} exists already, with another spec. "
            f"Read it with GET /v1/sessions/{name}, or choose another name."
        )


class SessionArchivedError(PacesetterError):
    """The session is archived: readable, but it takes no more commands."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Session {name!r} is archived and takes no more commands. "
            "Its values can still be read; create a session under a new name to go on."
        )


class SessionFinishedError(PacesetterError):
    """A controller has ended the session: no further step is sealed."""

    def __init__(self, name: str, horizon: int, reason: str) -> None:
        super().__init__(
            f"Session {name!r} is finished, its last step was {horizon - 1}: {reason or 'its end'}."
            " Stop the training here; what was sealed and measured can be read."
        )


class AwaitingMeasurementError(PacesetterError):
    """A step is not sealed yet, because a decision needs metrics that are not here."""

    def __init__(self, step: int, missing: tuple[str, ...], ranks: int) -> None:
        super().__init__(
            f"Step {step} waits for a decision, and that for step {step - 1} of"
            f" {', '.join(missing)} from {ranks} ranks. Report it from every rank, then ask again;"
            " the session's `reaction.timeout` says when it goes on without."
        )


class ActionRefusedError(PacesetterError):
    """An order makes no sense at its step, or oversteps the session's limits."""


class OrderNotFoundError(PacesetterError):
    """No order of that number waits to be carried out."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"No order {number} waits in this session: it was carried out, cancelled, or never"
            " given. Read GET …/actions for those that wait; give another order to undo one that"
            " was carried out."
        )


class AttemptRefusedError(PacesetterError):
    """An attempt can not be opened like this."""


class BatchRefusedError(PacesetterError):
    """The batch size has changed, and the session or its limits do not allow that."""


class SupersededAttemptError(PacesetterError):
    """The attempt of that key is over: a later one has taken over."""

    def __init__(self, key: str, current: int) -> None:
        super().__init__(
            f"The attempt with the key {key!r} is over; attempt {current} is the running one. "
            "Stop this job, or restart it under a new key."
        )


class StaleAttemptError(PacesetterError):
    """The caller speaks for an attempt that is not the running one."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(
            f"This call speaks for attempt {asked}, but attempt {current} is the running one. "
            "Stop this process if the job was restarted elsewhere; it can still read."
        )


class StepOutOfRangeError(PacesetterError):
    """A step that can not be sealed, read or reported on."""


class ScheduleNotFiniteError(PacesetterError):
    """The law gives something that is no learning rate: NaN, infinite or negative."""

    def __init__(self, series: str, step: int, value: float) -> None:
        super().__init__(
            f"The schedule gives {value} for {series!r} at step {step}, which is no value to train "
            "with, so nothing is sealed from there on. Preview the schedule over these steps and "
            "create a session with parameters that keep it finite and not negative."
        )
        self.series = series
        self.step = step


class TooManyReportsError(PacesetterError):
    """Metrics that a controller watches pile up, because no new step is asked for."""

    def __init__(self, pending: int, limit: int) -> None:
        super().__init__(
            f"{pending} watched metric values wait for the next sealing; {limit} is the limit. "
            "Ask for the next steps (`want`), or report the watched metric less often."
        )


class UnknownKindError(PacesetterError):
    """No schedule or controller kind of that name."""

    def __init__(
        self, kind: str, known: list[str], advice: str | None = None, family: str = "schedule"
    ) -> None:
        near = get_close_matches(kind, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        super().__init__(
            f"There is no {family} kind {kind!r}. "
            + (f"{advice}. " if advice else hint)
            + f"GET /v1/{family}s lists all of them."
        )


class TemplateNotFoundError(PacesetterError):
    """No template of that name, or not in that version."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"There is no template {reference}. List the ones that exist with GET /v1/templates, "
            "or publish it with POST /v1/templates."
        )


class ImportRefusedError(PacesetterError):
    """What is to be imported is no whole record of a session; nothing of it was kept."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        place = "" if line is None else f" at line {line}"
        super().__init__(
            f"This can not be imported{place}: {reason}. Nothing of it was kept. Send what"
            " GET /v1/sessions/{name}/export answered, all of it and unchanged."
        )


class NameTakenError(PacesetterError):
    """A session would be imported under a name that is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A session named {name!r} exists already, and an import changes no session. "
            "Import under another name: POST /v1/import?name=…"
        )


class UnauthenticatedError(PacesetterError):
    """The caller has no valid token; which of the possible reasons it is, is nobody's business."""

    def __init__(self) -> None:
        super().__init__(
            "This service lets in who has a token, and this call has none that is valid: it is"
            " missing, unknown, revoked or expired. Send `Authorization: Bearer <token>`; an admin"
            " makes tokens with POST /v1/tokens."
        )


class ForbiddenError(PacesetterError):
    """The role of the caller's token is not enough."""

    def __init__(self, role: str, needed: str) -> None:
        super().__init__(
            f"This call takes the role {needed!r}, and this token has the role {role!r}. "
            "Ask an admin for a token with that role."
        )


class ActorRefusedError(PacesetterError):
    """The caller speaks in the name of somebody else."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The record names the holder of the token, who is {name!r}, and the header"
            " Pacesetter-Actor names somebody else. Leave the header out, or use the other's token."
        )


class TokenNotFoundError(PacesetterError):
    """No token of that id: it was revoked, or there never was one."""

    def __init__(self, token_id: str) -> None:
        super().__init__(
            f"There is no token with the id {token_id!r}. GET /v1/tokens lists those that there"
            " are; the id is the part of a token between its first two underscores."
        )


class AuthenticationOffError(PacesetterError):
    """The service asks nobody for a token, so that none can be made."""

    def __init__(self) -> None:
        super().__init__(
            "This service asks nobody for a token, because it has none of its own. Start it with"
            " PACESETTER_ADMIN_TOKEN set; who has that token can make others."
        )


class OverloadedError(PacesetterError):
    """More commands are queued than the service lets wait."""

    def __init__(self) -> None:
        super().__init__(
            "The service has too many commands waiting. Retry after the time in Retry-After; "
            "repeating a call is harmless."
        )


class StorageUnavailableError(PacesetterError):
    """The database did not take or give the data; nothing of the call was kept."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The database did not answer as it should ({reason}); nothing of this call was kept. "
            "Retry; if it goes on, look at the disk and at the service's log."
        )
