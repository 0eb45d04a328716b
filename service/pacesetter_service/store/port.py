"""What the writer needs of a database, and what it can rely on.

Another database is another class with these methods; `tests/store/test_contract.py` is the proof
that it keeps the guarantees, with two writers on one database at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pacesetter_service.core.attempts import Lineage, RestorePoint
from pacesetter_service.core.commands import Reading
from pacesetter_service.core.events import AttemptOpened, Logged, Measured, Sealed, TakenBack
from pacesetter_service.core.session import Session
from pacesetter_service.core.spec import SessionSpec


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as the database has it.

    Attributes:
        id: Its number, which no other session has or had.
        session: Its state.
        events: How many events its log has.
        created_at: When it was created; ISO 8601, UTC.
        lineage: The attempts that its steps were trained in.
        version: How often its row was written, counted from `first_version`. Who writes it says
            which version it has read.
        changed_at: When its row was written last, likewise; the transaction says so.
    """

    id: int
    session: Session
    events: int
    created_at: str
    lineage: Lineage
    version: int = 1
    changed_at: str = field(default="", compare=False)


def first_version(session_id: int) -> int:
    """Return the version of a session that is new: one that no other session has or had.

    So a writer that remembers one of the same name, which was purged, sees that this is another.
    """
    return (session_id << VERSION_BITS) + 1


VERSION_BITS = 32


@dataclass(slots=True)
class Changes:
    """What one transaction writes about one session.

    Attributes:
        stored: The session afterwards; its version is the one before, plus one.
        before: The session before; None if it is created.
        log: The events of its log, the last of those that `stored` counts.
        sealed: Blocks of values.
        readings: What ranks reported, each with the attempt that it belongs to.
        measured: What controllers saw, likewise.
        opened: The attempt that begins with this, if one does.
        snapshot: Whether the state is kept, to replay from.
    """

    stored: Stored
    before: Stored | None = None
    log: list[Logged] = field(default_factory=list)
    sealed: list[Sealed] = field(default_factory=list)
    readings: list[tuple[int, Reading]] = field(default_factory=list)
    measured: list[tuple[int, Measured]] = field(default_factory=list)
    opened: AttemptOpened | TakenBack | None = None
    snapshot: bool = False

    @property
    def is_of_state(self) -> bool:
        """Whether the session's row changes; a reading that nothing waits for changes none."""
        if self.before is None:
            return True
        after, before = self.stored, self.before
        return after.session is not before.session or after.events != before.events


class Transaction(Protocol):
    """One transaction; all of it is on the disk when its block ends, or none of it."""

    def refuse_stale(self, versions: Mapping[str, int]) -> None:
        """Refuse if a session has another version by now than the caller has read; 0 for none.

        It is for sessions that were only looked at: none of them is locked.

        Raises:
            ConflictError: Another writer has changed, created or renamed some of them.
        """

    def append(self, batch: Sequence[Changes], now: str) -> None:
        """Write changes of several sessions, each of which has the version that its `before` says.

        A reading that is there already counts once. Whatever else is there already, an event, an
        attempt, a sealed block, a measurement or a session of that name, is a conflict.

        Raises:
            ConflictError: Another writer came first; nothing of the transaction is kept.
        """


class Store(Protocol):
    """Sessions that outlive the process.

    **Durability.** When the block of `begin` has ended, all that was appended in it is on the disk.
    If it raises, nothing is. **Order.** Of two transactions that touch one session, the second sees
    what the first has written, or is refused with a `ConflictError`; it never writes over it.
    **Once.** A reading is known by session, metric, attempt, step and rank; to append it again
    changes nothing. **Ids.** No two sessions ever have the same id, whichever writer creates them.
    **Threads.** These methods belong to the thread of the one writer in its process.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the database meanwhile."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction.

        Raises:
            StorageUnavailableError: It could not begin, or could not be committed.
        """

    def new_id(self) -> int:
        """Return an id for a session, which no other writer is ever given."""

    def first_attempt(self, name: str) -> int:
        """Return the least number that a new attempt of that name may have."""

    def purged_attempt(self, name: str) -> int:
        """Return the number of the last attempt of that name that was purged; 0 if none was."""

    def purged_at(self, name: str) -> str | None:
        """Return when the last session of that name was purged; None if none was."""

    def load(self, name: str) -> Stored | None:
        """Read one session in full, or None if there is none of that name."""

    def knows_attempt(self, session_id: int, key: str) -> bool:
        """Return whether an attempt was ever opened with that key."""

    def past(self, spec: SessionSpec, lineage: Lineage, step: int) -> RestorePoint:
        """Read what is needed to restore the state in which a step was sealed."""

    def versions(self, names: Iterable[str]) -> Mapping[str, int]:
        """Read the versions of the sessions of these names that there are; from any thread."""

    def stale(self, versions: Mapping[str, int]) -> Iterable[str]:
        """Return the sessions whose version differs by now; 0 stands for none of that name."""

    def begin_epoch(self) -> str:
        """Begin a new epoch, because a session is older than what this process has committed.

        Returns:
            The epoch, which another process may have begun.
        """
