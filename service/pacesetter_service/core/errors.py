"""What the core refuses, as a tree of exceptions; the core knows nothing of HTTP.

PacesetterError
├── SessionNotFoundError       no session of that name
│   └── SessionPurgedError     it was removed for good
├── SessionExistsError         the name is taken by another spec
├── SessionArchivedError       the session takes no more commands
├── SessionFinishedError       a controller or its trainer has ended the session
├── SessionNotArchivedError    only an archived session can be purged
├── SessionHasForksError       other sessions share the steps of the one to be purged
├── AwaitingMeasurementError   a step waits for metrics that ranks have not reported
├── ActionRefusedError         the order makes no sense, or oversteps the limits
├── OrderNotFoundError         no order of that number waits
├── NothingToTakeBackError     trainers hold all that is sealed
├── PlanStaleError             the training has gone on since the plan
├── AttemptRefusedError        the attempt cannot be opened like this
├── BatchRefusedError          the session does not allow that batch size
├── SupersededAttemptError     a later attempt has taken over from that one
├── StaleAttemptError          the caller speaks for another attempt of the job
├── StepOutOfRangeError        the step cannot be sealed, read or reported on
│   ├── TooFarAheadError       the step lies too far beyond the trainers
│   └── NoTableError           the steps are too many for a table, or none
├── ScheduleNotFiniteError     the law leaves the range of learning rates
├── TooManyReportsError        metrics pile up that no sealing has consumed
├── TooManyMetricsError        a session would have more metric names than it may
├── TooCostlyError             evaluating the schedules is beyond the budget
├── UnknownKindError           no schedule or controller kind of that name
├── TemplateNotFoundError      no template of that name and version
├── ImportRefusedError         a file is no whole record of a session
├── NameTakenError             a session would be imported under a name that is taken
├── UnauthenticatedError       the caller has no valid token
├── ForbiddenError             the caller's role is not enough
├── OutOfScopeError            the caller's token is not for that name
├── NotAllowedError            the bounds of the caller's token do not allow such a call
├── BeyondBoundsError          they do not allow that large a change, or another one
├── RevisionChangedError       the order is meant for another revision of the session
├── ActorRefusedError          the caller names another actor than its token's holder
├── TokenNotFoundError         no token of that id
├── AuthenticationOffError     tokens mean nothing to a service without authentication
├── ConflictError              another writer has changed the session meanwhile
├── OverloadedError            the service has more work queued than it allows
├── AnotherEpochError          the database has lost what the caller was given, or is another one
├── HorizonRecededError        the caller was given steps that are no longer sealed
├── BusyError                  as many costly answers are in progress as are allowed
├── TooManyReadersError        as many callers follow events as are allowed
├── StalledError               the writer has not finished anything for too long
└── StorageUnavailableError    the database did not take or give the data
    ├── StorageFullError       there is no room for it
    ├── NoTemporaryFileError   a large record has no file that it can pass through
    └── StorageReplacedError   its file is gone, or is another one

Each message says what happened and ends with what to do next. Where one field of the request is
wrong, the error names it by the command's name for it; the caller of the core knows where that
field was in the request.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Self, TypeAlias, TypeVar

from pacesetter_service.core.mistakes import ended
from pacesetter_service.core.model import MAX_HINTED, did_you_mean

Field: TypeAlias = tuple[str | int, ...]
"""The place of a field: its name, and the path below it."""


class PacesetterError(Exception):
    """Root of everything that the service refuses. Raise one of its children.

    Attributes:
        field: The one field that is wrong; empty if no field is, or several together are.
    """

    field: Field = ()

    def about(self, *field: str | int) -> Self:
        """Name the field that is wrong, and return the error."""
        self.field = field
        return self


@contextmanager
def concerning(*field: str | int) -> Iterator[None]:
    """Name a field in each refusal raised meanwhile that does not name one itself."""
    try:
        yield
    except PacesetterError as error:
        if not error.field:
            error.about(*field)
        raise


Kept = Literal["nothing", "perhaps"]
"""What the database has of a call that failed: nothing, or perhaps all."""

NOTHING_KEPT = "nothing of this call was kept"
"""How errors say so: `once_reported` looks for these words."""

E = TypeVar("E", bound=PacesetterError)


def once_reported(error: E) -> E:
    """Return an error in the words for a call whose reports were committed before it failed.

    It is another object, because the writer gives one error to all callers of a batch.
    """
    told = type(error).__new__(type(error))
    told.__dict__.update(error.__dict__)
    told.args = (str(error).replace(NOTHING_KEPT, "what this call reported was kept"),)
    return told


class SessionNotFoundError(PacesetterError):
    """No session of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no session named {name!r}.")


class SessionPurgedError(SessionNotFoundError):
    """The session of that name was removed for good."""

    def __init__(self, name: str, at: str) -> None:
        PacesetterError.__init__(
            self,
            f"Session {name!r} was purged at {at}: its values and its record are gone. Stop a"
            " training that still follows it; a new session of that name begins anew.",
        )


class SessionNotArchivedError(PacesetterError):
    """The session was to be purged, and is not archived."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Session {name!r} is not archived, and only archived sessions are purged. Archive it"
            " first, when no training follows it any more."
        )


class SessionHasForksError(PacesetterError):
    """The session was to be purged, and other sessions share its steps."""

    def __init__(self, name: str, forks: Sequence[str]) -> None:
        listed = ", ".join(map(repr, forks))
        super().__init__(
            f"The first steps of {listed} were trained in session {name!r}, and stand in its record"
            " alone. Purge those first; or export them, purge them and import them again, which"
            " makes them whole by themselves."
        )


class SessionExistsError(PacesetterError):
    """The name is taken by a session with another spec."""

    field = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A session named {name!r} exists already, with another spec. Another training takes"
            " another name; to go on from a checkpoint by another description, fork it."
        )
        self.name = name


class SessionArchivedError(PacesetterError):
    """The session is archived: readable, but it takes no more commands."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Session {name!r} is archived and takes no more commands. "
            "Its values can still be read; create a session under a new name to go on."
        )


class SessionFinishedError(PacesetterError):
    """A controller or its trainer has ended the session: no further step is sealed."""

    def __init__(self, name: str, horizon: int, reason: str) -> None:
        super().__init__(
            f"Session {name!r} is finished, the first step that is not sealed is {horizon}:"
            f" {ended(reason or 'its end')} Stop the training here; what was sealed and measured"
            " can be read."
        )


class AwaitingMeasurementError(PacesetterError):
    """A step is not sealed yet, because a decision needs metrics that have not been reported."""

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
            " given. Give another order to undo one that was carried out."
        )


class PlanStaleError(PacesetterError):
    """A plan rests on a record that has grown since, or is no longer remembered."""

    field = ("plan",)

    def __init__(self, plan_id: str) -> None:
        super().__init__(
            f"Plan {plan_id} is not known here any more: the training has gone on, or others have"
            " planned since. Nothing was ordered. Plan again and look at the answer, or give the"
            " orders of the candidate yourself: they say for which step they are."
        )


class NothingToTakeBackError(PacesetterError):
    """Every sealed step is held by a trainer, or was trained."""

    def __init__(self, horizon: int) -> None:
        super().__init__(
            "Trainers hold or have trained every step that is sealed, so none can be taken back. An"
            f" action holds from step {horizon} on, the first that is not sealed; to change earlier"
            " ones, restart the job from a checkpoint."
        )


class AttemptRefusedError(PacesetterError):
    """An attempt cannot be opened this way."""


class BatchRefusedError(PacesetterError):
    """The batch size has changed, and the session or its limits do not allow that."""

    field = ("batch_size",)


class SupersededAttemptError(PacesetterError):
    """The attempt of that key is over: a later one has taken over."""

    field = ("key",)

    def __init__(self, key: str, current: int) -> None:
        super().__init__(
            f"The attempt with the key {key!r} is over; attempt {current} is the running one. "
            "Stop this job, or restart it under a new key."
        )


class StaleAttemptError(PacesetterError):
    """The caller speaks for an attempt that is not the running one."""

    field = ("attempt",)

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(
            f"This call speaks for attempt {asked}, but attempt {current} is the running one. "
            "Stop this process if the job was restarted elsewhere; it can still read."
        )


def handed_out(first: int, horizon: int) -> str:
    """Say which steps below the horizon were handed out so far."""
    if first >= horizon:
        return "no step has been handed out yet"
    return f"the steps handed out so far are {first} to {horizon - 1}"


class StepOutOfRangeError(PacesetterError):
    """A step that cannot be sealed, read or reported on."""


class TooFarAheadError(StepOutOfRangeError):
    """A step lies too far beyond the trainers: sealing it would rule out changes before it."""

    field = ("start",)

    def __init__(self, start: int, held: int, horizon: int, attempt: int) -> None:
        super().__init__(
            f"Step {start} lies too far beyond what trainers have come to: they hold the steps"
            f" below {held}, and those below {horizon} are sealed. To seal more would keep every"
            " change away from them. To look at a step, read its value, which seals nothing. A"
            f" trainer names its attempt, which is {attempt}; one that stands far ahead says where."
        )
        self.start = start
        self.attempt = attempt


class NoTableError(StepOutOfRangeError):
    """The realised curve was requested as a table of too many steps, or of none."""

    def __init__(self, start: int, end: int, most: int) -> None:
        super().__init__(
            f"The steps from {start} to before {end} are {end - start:,}; a table has at most"
            f" {most:,} levels."
            if end > start
            else f"There is no step to make a table of from step {start} on: none is sealed there."
        )


class ScheduleNotFiniteError(PacesetterError):
    """The law gives a value that is no learning rate: NaN, infinite or negative."""

    def __init__(self, series: str, step: int, value: float) -> None:
        super().__init__(
            f"The schedule gives {value} for {series!r} at step {step}, which is no value to train "
            "with, so nothing is sealed from there on. Preview the schedule over these steps and "
            "create a session with parameters that keep it finite and not negative."
        )
        self.series = series
        self.step = step


class TooManyReportsError(PacesetterError):
    """Metrics that a controller watches pile up, because no caller asks for a new step."""

    field = ("reports",)

    def __init__(self, pending: int, limit: int) -> None:
        super().__init__(
            f"{pending} watched metric values wait for the next sealing; {limit} is the limit. "
            "Ask for the next steps, or report the watched metric less often."
        )


class TooManyMetricsError(PacesetterError):
    """A report would give the session more metric names than it may have."""

    field = ("reports",)

    def __init__(self, fresh: list[str], limit: int) -> None:
        some = ", ".join(map(repr, fresh[:3])) + (", …" if fresh[3:] else "")
        super().__init__(
            f"A session has at most {limit} names of metrics, and with {some} it would have more;"
            " nothing of this call was kept. Keep steps, epochs and counters out of the names: a"
            " metric is reported under one name at every step."
        )


class TooCostlyError(PacesetterError):
    """Evaluating the schedules is beyond the budget of one call."""


class UnknownKindError(PacesetterError):
    """No kind of schedule, controller or action of that name."""

    def __init__(
        self, kind: str, known: list[str], advice: str | None = None, family: str = "schedule"
    ) -> None:
        hint = ended(advice) if advice else did_you_mean(kind, known).strip()
        super().__init__(f"There is no {family} kind {kind[:MAX_HINTED]!r}. {hint}".rstrip())
        self.family = family


class TemplateNotFoundError(PacesetterError):
    """No template of that name, or not in that version."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"There is no template {reference}.")


class ImportRefusedError(PacesetterError):
    """The file to import is not the complete record of a session; nothing of it was kept."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        place = "" if line is None else f" at line {line}"
        super().__init__(
            f"This cannot be imported{place}: {ended(reason)} Nothing of it was kept. Send all that"
            " was exported, unchanged."
        )


class NameTakenError(PacesetterError):
    """A session would be imported under a name that is taken."""

    field = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A session named {name!r} exists already, and an import changes no session. "
            "Import it under another name."
        )


class UnauthenticatedError(PacesetterError):
    """The caller has no valid token; the error does not say which of the reasons applies."""

    def __init__(self) -> None:
        super().__init__(
            "This service lets in who has a token, and this call has none that is valid: it is"
            " missing, unknown, revoked or expired."
        )


class ForbiddenError(PacesetterError):
    """The role of the caller's token is not enough."""

    def __init__(self, role: str, needed: str) -> None:
        super().__init__(
            f"This call takes the role {needed!r}, and this token has the role {role!r}. "
            "Ask an admin for a token with that role."
        )


class OutOfScopeError(PacesetterError):
    """The caller's token is not for that name, whether or not anything of that name exists."""

    def __init__(self, name: str | None, patterns: Sequence[str]) -> None:
        what = "This call" if name is None else f"The name {name[:MAX_HINTED]!r}"
        some = ", ".join(patterns[:3]) + (", …" if patterns[3:] else "")
        super().__init__(
            f"{what} is outside this token's scope, which is {some}. Use a name that matches, or"
            " ask an admin for a token with another scope."
        )


class NotAllowedError(PacesetterError):
    """The caller's token has bounds, and they do not allow such an action or call."""

    def __init__(self, what: str | None, allowed: Sequence[str]) -> None:
        """Write the message.

        Args:
            what: What is asked for, as bounds name it; None for what no bounds allow.
            allowed: What the token's bounds allow.
        """
        asked = "this call" if what is None else f"{what!r}"
        super().__init__(
            f"This token has bounds, which do not allow {asked}. They allow reading and dry runs,"
            f" and to order {', '.join(allowed)}. Order one of these, or ask an operator."
        )


class BeyondBoundsError(PacesetterError):
    """An order would change more than the bounds of the caller's token allow, or too often."""


class RevisionChangedError(PacesetterError):
    """The session's future was changed since the caller read it."""

    field = ("if_revision",)

    def __init__(self, known: int, revision: int) -> None:
        super().__init__(
            f"This order was meant for revision {known}, and the session has come to revision"
            f" {revision}: an order, a decision or a restart has changed its future meanwhile. Look"
            " at it again with a dry run, and order what is right now."
        )


class ActorRefusedError(PacesetterError):
    """The caller names another actor than the holder of its token."""

    field = ("actor",)

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The record names the holder of the token, who is {name!r}, and this call names"
            " another actor. Use that one's token, or name no actor."
        )


class TokenNotFoundError(PacesetterError):
    """No token of that id: it was revoked, or never existed."""

    def __init__(self, token_id: str) -> None:
        super().__init__(
            f"There is no token with the id {token_id!r}; the id is the part of a token between its"
            " first two underscores."
        )


class AuthenticationOffError(PacesetterError):
    """Authentication is off, so that no token can be created."""

    def __init__(self) -> None:
        super().__init__(
            "Authentication is off until PACESETTER_ADMIN_TOKEN is set. Start the service with it;"
            " the holder of that token can make others."
        )


class ConflictError(PacesetterError):
    """Another writer has changed the sessions meanwhile; nothing of the transaction was kept.

    Attributes:
        names: The sessions.
    """

    def __init__(self, names: Sequence[str], reason: str = "") -> None:
        because = f" ({reason})" if reason else ""
        changed = ", ".join(map(repr, names[:3])) or "the same sessions"
        super().__init__(
            f"Another writer has changed {changed} meanwhile{because}, time and again;"
            f" {NOTHING_KEPT}. Repeat it; to repeat a call is harmless."
        )
        self.names = tuple(names)


class OverloadedError(PacesetterError):
    """More commands are queued than the service allows."""

    def __init__(self) -> None:
        super().__init__(
            "The service has too many commands waiting. Try again in a moment; repeating a call is"
            " harmless."
        )


class BusyError(PacesetterError):
    """As many costly answers are in progress as the service allows."""

    def __init__(self) -> None:
        super().__init__(
            "The service is busy with as many costly reads and checks as it takes at once; no"
            " training waits for them. Try again in a moment, or ask for fewer steps."
        )


class TooManyReadersError(PacesetterError):
    """As many callers follow events as the service allows."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The service has {most} readers of events already. Try again later, read the events"
            " page by page meanwhile, or raise PACESETTER_MAX_FEEDS on the server."
        )


class StalledError(PacesetterError):
    """The writer has had work for a long time, and has finished none of it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The writer has worked for {seconds:.0f} seconds without finishing anything: nothing"
            " new is sealed or recorded; what is sealed can be read. Look at the disk and at the"
            " log, and restart the service if it does not recover; what was acknowledged is kept."
        )


_KEPT = {
    "nothing": NOTHING_KEPT,
    "perhaps": "whether this call was kept is not known",
}


class StorageUnavailableError(PacesetterError):
    """The database did not store or return the data.

    Attributes:
        kept: `nothing` of what failed, or `perhaps` all of it.
    """

    kept: Kept = "nothing"

    def __init__(self, reason: str, *, kept: Kept = "nothing") -> None:
        """Write the message.

        Args:
            reason: Why, as the database says.
            kept: `perhaps` if the database may have committed what the call was about.
        """
        self.kept = kept
        found = {
            "nothing": f"{_KEPT[kept]}. Retry;",
            "perhaps": f"{_KEPT[kept]}. Retry, which is harmless, but for an order without an"
            " Idempotency-Key;",
        }[kept]
        super().__init__(
            f"The database did not answer as it should ({reason}); {found} if it goes on, look at"
            " the disk and at the service's log."
        )


class StorageFullError(StorageUnavailableError):
    """The disk has no room for more; what is stored can be read."""

    def __init__(self, where: str) -> None:
        PacesetterError.__init__(
            self,
            f"There is no room on {where}; {NOTHING_KEPT}. What was sealed and"
            " recorded can still be read. Make room, or raise the quota: writes are taken again by"
            " themselves then, without a restart.",
        )


class NoTemporaryFileError(StorageUnavailableError):
    """A record that is too large for memory has no temporary file that it can pass through."""

    def __init__(self, reason: str, *, limit_reached: bool) -> None:
        """Write the message.

        Args:
            reason: Why, as the system says.
            limit_reached: Whether too many files are open; otherwise their folder is to blame.
        """
        todo = (
            "Raise the service's limit of open files (ulimit -n)"
            if limit_reached
            else "Name a folder that the service's user can write to in TMPDIR, or give its"
            " container a volume at /tmp, and restart it"
        )
        PacesetterError.__init__(
            self,
            f"A large record needs a temporary file, and there is none ({reason}); nothing of this"
            f" call was kept. {todo}; no training waits for that.",
        )


class StorageReplacedError(StorageUnavailableError):
    """The database's file is gone, or is another one; the service no longer writes."""

    def __init__(
        self,
        path: str,
        found: Literal["gone", "another", "overwritten"],
        *,
        kept: Kept = "nothing",
    ) -> None:
        self._path, self._found, self.kept = path, found, kept
        what = {
            "gone": "is gone",
            "another": "has been replaced by another file",
            "overwritten": "has been overwritten by an older copy, or by another database,",
        }[found]
        PacesetterError.__init__(
            self,
            f"{path} {what} while the service was running; {_KEPT[kept]}, and nothing is written"
            " until the service is restarted. Put the database back, with its -wal and -mark, and"
            " restart the service.",
        )

    def keeping(self, kept: Kept) -> "StorageReplacedError":
        """Return the same error about another call, of which something may be kept."""
        return StorageReplacedError(self._path, self._found, kept=kept)


class AnotherEpochError(PacesetterError):
    """The caller was answered under another epoch of the database."""

    field = ("epoch",)

    def __init__(self, known: str, epoch: str, horizon: int) -> None:
        super().__init__(
            f"The database is in another epoch ({epoch}) than the one you were answered in "
            f"({known}): an older copy was restored, or it lost commits, or it is another one. "
            f"Restart from a checkpoint of step {horizon} or an earlier one, which opens an "
            "attempt there; or have the newest database put back."
        )


class HorizonRecededError(PacesetterError):
    """The caller holds values of steps that are not sealed here."""

    field = ("held",)

    def __init__(self, held: int, horizon: int) -> None:
        super().__init__(
            f"You were given the steps before {held}, and only those before {horizon} are sealed "
            "here: the database is an older copy. Restart from a checkpoint of step "
            f"{horizon} or an earlier one, which opens an attempt there; or have the newest "
            "database put back."
        )
