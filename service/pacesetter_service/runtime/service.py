"""The parts of a running service, put together once; use cases are functions that take them."""

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
"""How many costly reads are made at once, and how many may wait; further ones are refused."""

CHECKERS = 2
CHECKS_WAITING = 64
"""The same for large requests that are checked."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """After how many days sessions are put away by themselves; None for never.

    Attributes:
        archive_after: What is over is archived.
        purge_after: What is archived is removed for good.
    """

    archive_after: float | None = None
    purge_after: float | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What use cases work with; nothing outside this folder looks into it.

    Attributes:
        store: The database, to read from.
        writer: Decides and commits whatever changes a session.
        held: The calls that wait for a measurement.
        logged: Tells those who follow a session that its log has grown.
        tracker: What each rank was last heard to do, in this process.
        reads: Threads for costly answers that only show something.
        checks: Threads for costly work that a trainer may wait for.
        keys: The tokens that are valid; None while authentication is off.
        census: How many sessions there are, and how large the database is.
        janitor: Does in the background what no caller waits for.
        poller: Looks for what other processes have changed; None if there are none.
        listener: Has it look at once, where changes are notified; None where they are not.
        plans: The newest plans of what is left of trainings.
        keeping: What the settings say of old sessions.
        backups: Copies of the database that admins have asked for.
        families: What is known of sessions by the others of their template.
        lookout: Tells of sessions that leave their family.
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
            admin_token: The service's own token; authentication is off without one.
            max_held: How many calls may wait for a measurement at once.
            keeping: What the settings say of old sessions.
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
        if store.shared or store.has_hidden():  # what the end of a process has cut off
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
        """Release all held calls and all followers of events: the service is to stop."""
        self.held.release()
        self.logged.release()

    def finish(self) -> None:
        """Tell other processes what only this one has heard: no call is served any more."""
        self.janitor.stop()
        self.lookout.stop()
        if self.listener is not None:
            self.listener.stop()
        if self.poller is not None:
            self.poller.stop()

    def close(self) -> None:
        """End the threads that work for callers; to be called when none is served any more."""
        self.finish()
        self.reads.close()
        self.checks.close()


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it is now.

    Attributes:
        session: Its whole state.
        created_at: When it was created; ISO 8601, in UTC.
        epoch: The epoch of the database that it stands in.
        changed_at: When its row was written last, as a sealing does; in the same form.
        state: What has become of it, as far as can be said.
    """

    session: Session
    created_at: str
    epoch: str
    changed_at: str
    state: State


def _tell_of_creations(logged: Signals, changes: Sequence[Changes]) -> None:
    """Tell who follows all sessions of new ones, of which no log has grown yet."""
    if any(each.before is None for each in changes):
        logged.tell_from_thread((ANY,))


def info_of(service: Service, stored: Stored) -> SessionInfo:
    """Return what is told of a stored session, by what this process has heard of it."""
    return _told(service, stored, service.tracker.last_word(stored.session.spec.name))


def infos_of(service: Service, some: Iterable[Stored]) -> list[SessionInfo]:
    """Return what is told of stored sessions, by what all processes have heard of them.

    Where processes share a database this is not for the event loop: those that are silent here may
    have called elsewhere.

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
    """Return the same by what ranks were heard to do last: how long ago, and the pace of a step."""
    epoch, state = service.store.epoch, state_by(stored, heard)
    return SessionInfo(stored.session, stored.created_at, epoch, stored.changed_at, state)


def state_by(stored: Stored, heard: tuple[float, float | None] | None) -> State:
    """Return what has become of a session.

    Args:
        stored: The session.
        heard: For how many seconds no rank was heard of, and the pace of a step; None if none was.
    """
    quiet, pace = _quiet(stored), None
    if heard is not None:
        quiet, pace = min(quiet, heard[0]), heard[1]
    return state_of(stored.session, quiet, pace)


def _quiet(stored: Stored) -> float:
    """Return for how many seconds nothing was written of a session, by the clock."""
    if not stored.changed_at:
        return 0.0
    changed = datetime.fromisoformat(stored.changed_at)
    return (datetime.now(UTC) - changed).total_seconds()
