"""Polls for changes of other processes, for the callers that wait here, and tells others of ours.

One query per look serves all waiting callers. Its result is a hint, as every signal is: a caller
that is told asks the database.
"""

import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.keyring import Keyring, read_tokens
from pacesetter_service.runtime.ranks import RankTracker
from pacesetter_service.runtime.shared_ranks import tell_others
from pacesetter_service.runtime.signals import ANY, Signals
from pacesetter_service.store import notifications
from pacesetter_service.store.port import Changes
from pacesetter_service.store.store import Store

log = structlog.get_logger("pacesetter.polling")

EVERY = 0.25
"""Seconds between two looks at the sessions that callers wait for, without a notification."""

AT_MOST_EVERY = 0.01
"""The least seconds between two looks, and between two notifications that are sent."""

RANKS_EVERY = 1.0
"""Seconds after which all processes know what a rank has told this one."""

TOKENS_EVERY = 2.0
"""Seconds after which a token that another process has created or revoked is known here.

The poller also checks at this interval whether the database is still the same one.
"""

ADVICE = "the database has lost something: restart trainings that go on from their checkpoints"


class Poller:
    """A thread that polls a database which other processes write to as well."""

    def __init__(
        self,
        store: Store,
        keys: Keyring | None,
        signals: Sequence[Signals],
        tracker: RankTracker | None = None,
    ) -> None:
        """Set up without starting.

        Args:
            store: The database.
            keys: The tokens to keep up to date; None while authentication is off.
            signals: The callers to tell of changes.
            tracker: The ranks that call here, of which other processes are told.
        """
        self._store = store
        self._keys = keys
        self._signals = signals
        self._tracker = tracker
        self._ranks_at = monotonic() + RANKS_EVERY
        self._versions: dict[str, int] = {}
        self._position = -1
        self._rare_at = monotonic() + TOKENS_EVERY
        self._committed: deque[Sequence[Changes]] = deque()
        self._woken = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling, and tell other processes about ranks that they have not heard of yet."""
        self._ended = True
        self._woken.set()
        self._thread.join()
        with _bearing_failures():
            self._tell_of_ranks()

    def committed(self, changes: Sequence[Changes]) -> None:
        """Tell listening processes what has changed here; callable from any thread."""
        self._committed.append(changes)
        self._woken.set()

    def told(self, names: Collection[str]) -> None:
        """Look immediately if callers wait for one of these sessions; callable from any thread."""
        awaited = {name for each in self._signals for name in each.awaited()}
        if notifications.ANY in names or ANY in awaited or not awaited.isdisjoint(names):
            self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.wait(EVERY)
            if self._ended:
                return
            self._woken.clear()
            with _bearing_failures():
                self._tell_of_changes()
                self._look_at_sessions()
                self._look_at_what_is_rare()
                if monotonic() >= self._ranks_at:
                    self._tell_of_ranks()
            sleep(AT_MOST_EVERY)

    def _tell_of_changes(self) -> None:
        names: set[str] = set()
        while self._committed:
            names.update(each.stored.session.spec.name for each in self._committed.popleft())
        if names:
            self._store.notify(names)

    def _look_at_sessions(self) -> None:
        """Tell callers that wait for a session whose version differs from that of the last look.

        A session that was not looked at before may have changed since its caller began to wait.
        """
        names = {name for each in self._signals for name in each.awaited()}
        if ANY in names:
            names.discard(ANY)
            self._look_at_the_feed()
        versions = self._store.versions(names) if names else {}
        changed = [name for name in names if versions.get(name) != self._versions.get(name)]
        self._versions = versions
        for each in self._signals:
            each.tell_from_thread(changed)

    def _look_at_the_feed(self) -> None:
        """Tell callers that wait for any session if there was an event since the last look."""
        newest = self._store.newest_position()
        if newest != self._position:
            self._position = newest
            for each in self._signals:
                each.tell_from_thread((ANY,))

    def _tell_of_ranks(self) -> None:
        self._ranks_at = monotonic() + RANKS_EVERY
        if self._tracker is not None and self._store.ranks is not None:
            tell_others(self._tracker, self._store.ranks)

    def _look_at_what_is_rare(self) -> None:
        if monotonic() < self._rare_at:
            return
        self._rare_at = monotonic() + TOKENS_EVERY
        if self._keys is not None:
            changes = self._keys.changes
            if not self._keys.replace(read_tokens(self._store), since=changes):
                self._rare_at = monotonic()  # a token was made or revoked here: read them again
        found = self._store.look_at_continuity()
        if found is not None:
            log.warning("new_epoch", epoch=found.epoch, reason=found.reason, advice=ADVICE)


@contextmanager
def _bearing_failures() -> Iterator[None]:
    """Bear any failure of a look: callers depend on the next one, whatever became of this one."""
    try:
        yield
    except StorageUnavailableError:
        pass  # the next call is told
    except Exception:
        log.exception("polling_failed")
