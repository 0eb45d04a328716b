"""The parts of a running service, assembled once; use cases are functions that take them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import SecretStr

from pacesetter_service.core.session import Session
from pacesetter_service.core.status import State, state_of
from pacesetter_service.runtime.backups import Backups
from pacesetter_service.runtime.census import Census, census_of
from pacesetter_service.runtime.families import Families
from pacesetter_service.runtime.janitor import Janitor
from pacesetter_service.runtime.keyring import Keyring, read_keyring
from pacesetter_service.runtime.listening import Listener
from pacesetter_service.runtime.lookout import Lookout
from pacesetter_service.runtime.plans import Plans
from pacesetter_service.runtime.polling import Poller
from pacesetter_service.runtime.pool import Pool
from pacesetter_service.runtime.ranks import RankTracker
from pacesetter_service.runtime.shared_ranks import last_words
from pacesetter_service.runtime.signals import ANY, Signals
from pacesetter_service.runtime.waiting import MOST_HELD, HeldCalls
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.store import Store

READERS = 2
READS_WAITING = 16
"""How many costly reads run simultaneously, and how many more may wait before any is refused."""

CHECKERS = 2
CHECKS_WAITING = 64
"""The same for checks of large requests."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """After how many days sessions are put away automatically; None for never.

    Attributes:
        archive_after: Days after which a session that is over is archived.
        purge_after: Days after which an archived session is removed for good.
    """

    archive_after: float | None = None
    purge_after: float | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that use cases work with; nothing outside this folder accesses them.

    Attributes:
        store: The database, to read from.
        writer: Decides and commits everything that changes a session.
        held: The calls that wait for a measurement.
        logged: Tells the followers of a session that its log has grown.
        tracker: The last known activity of each rank, in this process.
        reads: Threads for costly answers that only read.
        checks: Threads for costly work that a trainer may wait for.
        keys: The valid tokens; None while authentication is off.
        census: How many sessions there are, and how large the database is.
        janitor: Does background work that no caller waits for.
        poller: Looks for changes of other processes; None if there are none.
        listener: Makes the poller look immediately on a notification; None if there are none.
        plans: The newest plans of what is left of trainings.
        keeping: What the settings say about old sessions.
        backups: Copies of the database that admins have asked for.
        families: Compares sessions with the others of their template.
        lookout: Detects sessions that leave their family.
    """

    store: Store
    writer: Writer
    held: HeldCalls
    logged: Signals
    tracker: RankTracker
    reads: Pool
    checks: Pool
    keys: Keyring | None
    census: Census
    janitor: Janitor
    poller: Poller | None
    listener: Listener | None
    plans: Plans
    keeping: Keeping
    backups: Backups
    families: Families
    lookout: Lookout

    @classmethod
    def over(
        cls,
        store: Store,
        writer: Writer,
        admin_token: SecretStr | None = None,
        max_held: int = MOST_HELD,
        keeping: Keeping = Keeping(),
    ) -> "Service":
        """Return a service over a store and a running writer.

        Args:
            store: The database.
            writer: The writer of that database.
            admin_token: The service's own token; without one, authentication is off.
            max_held: How many calls may wait for a measurement simultaneously.
            keeping: What the settings say about old sessions.
        """
        logged, held = Signals(), HeldCalls(writer, max_held)
        writer.on_logged(logged.tell_from_thread)
        writer.on_committed(partial(_tell_of_creations, logged))
        keys = read_keyring(store, admin_token)
        tracker = RankTracker(shares=store.ranks is not None)
        poller = Poller(store, keys, (logged, held.signals), tracker) if store.shared else None
        listener = None
        if poller is not None:
            if isinstance(store, PostgresStore) and store.listen_url is not None:
                writer.on_committed(poller.committed)
                listener = Listener(store, store.listen_url, poller.told)
                listener.start()
            poller.start()
        families = Families(store)
        lookout = Lookout(families, writer)
        writer.on_committed(lookout.listen)
        janitor = Janitor(store, writer)
        if store.shared or store.has_hidden():  # left by a process that was cut off
            janitor.wake()
        return cls(
            store,
            writer,
            held,
            logged,
            tracker,
            reads=Pool("reads", workers=READERS, waiting=READS_WAITING),
            checks=Pool("checks", workers=CHECKERS, waiting=CHECKS_WAITING),
            keys=keys,
            census=census_of(store),
            janitor=janitor,
            poller=poller,
            listener=listener,
            plans=Plans(),
            keeping=keeping,
            backups=Backups(store),
            families=families,
            lookout=lookout,
        )

    def release(self) -> None:
        """Release all held calls and all followers of events: the service stops."""
        self.held.release()
        self.logged.release()

    def finish(self) -> None:
        """Tell other processes what only this one has heard; call it once no caller is served."""
        self.janitor.stop()
        self.lookout.stop()
        if self.listener is not None:
            self.listener.stop()
        if self.poller is not None:
            self.poller.stop()

    def close(self) -> None:
        """End the threads that work for callers; call it once no caller is served."""
        self.finish()
        self.reads.close()
        self.checks.close()


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it is now.

    Attributes:
        session: Its whole state.
        created_at: When it was created; ISO 8601, in UTC.
        epoch: The epoch of its database.
        changed_at: When its row was last written, for instance by a sealing; in the same form.
        state: What has become of it, as far as is known.
    """

    session: Session
    created_at: str
    epoch: str
    changed_at: str
    state: State


def _tell_of_creations(logged: Signals, changes: Sequence[Changes]) -> None:
    """Tell the followers of all sessions about new ones, whose logs have not grown yet."""
    if any(each.before is None for each in changes):
        logged.tell_from_thread((ANY,))


def info_of(service: Service, stored: Stored) -> SessionInfo:
    """Return the info of a stored session, by what this process has heard of it."""
    return _told(service, stored, service.tracker.last_word(stored.session.spec.name))


def infos_of(service: Service, some: Iterable[Stored]) -> list[SessionInfo]:
    """Return the infos of stored sessions, by what all processes have heard of them.

    Where processes share a database, this is not for the event loop, because it asks the database:
    sessions that are silent here may have called elsewhere.

    Raises:
        StorageUnavailableError: The database did not answer.
    """
    found = {each.session.spec.name: (each, info_of(service, each)) for each in some}
    silent = [name for name, (_, info) in found.items() if info.state == "silent"]
    if silent and service.store.ranks is not None:
        for name, heard in last_words(service.store.ranks, silent).items():
            stored, _ = found[name]
            found[name] = stored, _told(service, stored, heard)
    return [info for _, info in found.values()]


def _told(
    service: Service, stored: Stored, heard: tuple[float, float | None] | None
) -> SessionInfo:
    """Return the info by the last call of a rank: how many seconds ago, and the pace of a step."""
    epoch, state = service.store.epoch, state_by(stored, heard)
    return SessionInfo(stored.session, stored.created_at, epoch, stored.changed_at, state)


def state_by(stored: Stored, heard: tuple[float, float | None] | None) -> State:
    """Return what has become of a session.

    Args:
        stored: The session.
        heard: For how many seconds no rank has called, and the pace of a step; None if none has.
    """
    quiet, pace = _quiet(stored), None
    if heard is not None:
        quiet, pace = min(quiet, heard[0]), heard[1]
    return state_of(stored.session, quiet, pace)


def _quiet(stored: Stored) -> float:
    """Return for how many seconds a session was not written, by the wall clock."""
    if not stored.changed_at:
        return 0.0
    changed = datetime.fromisoformat(stored.changed_at)
    return (datetime.now(UTC) - changed).total_seconds()
