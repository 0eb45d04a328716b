"""What the writer needs from a database, and what it can rely on.

Another database is another class with these methods; `tests/store/test_contract.py` proves that it
keeps the guarantees, with two writers on one database.
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
        version: How often its row was written, counted from `first_version`. A writer says
            which version it has read.
        changed_at: When its row was last written, likewise; the transaction sets it.
    """

    id: int
    session: Session
    events: int
    created_at: str
    lineage: Lineage
    version: int = 1
    changed_at: str = field(default="", compare=False)


def first_version(session_id: int) -> int:
    """Return the version of a new session: one that no other session has or had.

    So a writer that remembers a purged session of the same name sees that this is another one.
    """
    return (session_id << VERSION_BITS) + 1


VERSION_BITS = 32


@dataclass(slots=True)
class Changes:
    """What one transaction writes about one session.

    Attributes:
        stored: The session afterwards; its version is the one before, plus one.
        before: The session before; None if it is created.
        log: New events of its log, which `stored` counts already.
        sealed: Blocks of values.
        readings: What ranks reported, each with the attempt that it belongs to.
        measured: What controllers saw, likewise.
        opened: The attempt that begins with this transaction, if one does.
        snapshot: Whether the state is kept as a snapshot to replay from.
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
        """Whether the session's row changes; a reading that nothing waits for leaves it alone."""
        if self.before is None:
            return True
        after, before = self.stored, self.before
        return after.session is not before.session or after.events != before.events


class Transaction(Protocol):
    """One transaction; when its block ends, all of it is on the disk, or none of it."""

    def refuse_stale(self, versions: Mapping[str, int]) -> None:
        """Refuse if a session's version differs from the one that the caller has read; 0 for none.

        This is for sessions that were only read: none of them is locked.

        Raises:
            ConflictError: Another writer has changed, created or renamed some of them.
        """

    def append(self, batch: Sequence[Changes], now: str) -> None:
        """Write changes of several sessions, each of which must have the version of its `before`.

        A reading that exists already counts once. Anything else that exists already is a conflict:
        an event, an attempt, a sealed block, a measurement or a session of that name.

        Raises:
            ConflictError: Another writer came first; nothing of the transaction is kept.
        """


class Store(Protocol):
    """Sessions that outlive the process.

    **Durability.** When the block of `begin` has ended, everything that was appended in it is on
    the disk. If it raises, nothing is. **Order.** Of two transactions on one session, the second
    sees what the first has written, or is refused with a `ConflictError`; it never overwrites it.
    **Once.** A reading is identified by session, metric, attempt, step and rank; appending it again
    changes nothing. **Ids.** No two sessions ever have the same id, whichever writer creates them.
    **Threads.** These methods belong to the thread of the process's only writer.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the database too."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction.

        Raises:
            StorageUnavailableError: It could not begin, or could not be committed.
        """

    def new_id(self) -> int:
        """Return an id for a session that no other writer is ever given."""

    def first_attempt(self, name: str) -> int:
        """Return the least number that a new attempt under a name may have."""

    def purged_attempt(self, name: str) -> int:
        """Return the number of the last purged attempt under a name; 0 if there is none."""

    def purged_at(self, name: str) -> str | None:
        """Return when the last session of a name was purged; None if none was."""

    def load(self, name: str) -> Stored | None:
        """Read one whole session; None if there is none of that name."""

    def knows_attempt(self, session_id: int, key: str) -> bool:
        """Return whether an attempt was ever opened with a key."""

    def past(self, spec: SessionSpec, lineage: Lineage, step: int) -> RestorePoint:
        """Read what is needed to restore the state in which a step was sealed."""

    def versions(self, names: Iterable[str]) -> Mapping[str, int]:
        """Read the versions of those of the named sessions that exist; from any thread."""

    def stale(self, versions: Mapping[str, int]) -> Iterable[str]:
        """Return the sessions whose version differs from the given one; 0 stands for no session."""

    def begin_epoch(self) -> str:
        """Begin a new epoch, because a session is older than what this process has committed.

        Returns:
            The epoch, which another process may have begun.
        """
