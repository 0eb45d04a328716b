"""What other processes have changed, for the callers that wait in this one, and what these tell.

One query a look serves all who wait. A look is a hint, as every signal is: who is told asks the
database.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.keyring import Keyring, read_tokens
from pacesetter_service.runtime.ranks import RankTracker
from pacesetter_service.runtime.shared_ranks import tell_others
from pacesetter_service.runtime.signals import ANY, Signals
from pacesetter_service.store.store import Store

log = structlog.get_logger("pacesetter.polling")

EVERY = 0.25
"""Seconds between two looks at the sessions that callers wait for."""

RANKS_EVERY = 1.0
"""Seconds after which what a rank has told this process is known to all."""

TOKENS_EVERY = 2.0
"""Seconds after which a token that another process has made or revoked is known here.

So often it is seen, too, whether the database is still the one that it was.
"""

ADVICE = "the database has lost something: restart trainings that go on from their checkpoints"


class Poller:
    """A thread that looks at a database which other processes write to as well."""

    def __init__(
        self,
        store: Store,
        keys: Keyring | None,
        signals: Sequence[Signals],
        tracker: RankTracker | None = None,
    ) -> None:
        """Set up, without starting.

        Args:
            store: The database.
            keys: The tokens to keep up to date, if any are asked for.
            signals: The callers to tell of changes.
            tracker: The ranks that call here, to tell other processes of.
        """
        self._store = store
        self._keys = keys
        self._signals = signals
        self._tracker = tracker
        self._ranks_at = monotonic() + RANKS_EVERY
        self._versions: dict[str, int] = {}
        self._position = -1
        self._rare_at = monotonic() + TOKENS_EVERY
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and tell what was not told yet."""
        self._ended.set()
        self._thread.join()
        with suppress(StorageUnavailableError):
            self._tell_of_ranks()

    def _run(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                self._look_at_sessions()
                self._look_at_what_is_rare()
                if monotonic() >= self._ranks_at:
                    self._tell_of_ranks()
            except StorageUnavailableError:
                pass  # the next call is told
            except Exception:  # callers wait for the next look, whatever has become of this one
                log.exception("polling_failed")

    def _look_at_sessions(self) -> None:
        """Tell those who wait for a session that has another version than at the last look.

        One that was not looked at before may have changed since its caller began to wait.
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
        """Tell those who wait for any session if there was an event since the last look."""
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
            self._keys.replace(read_tokens(self._store))
        found = self._store.look_at_continuity()
        if found is not None:
            log.warning("new_epoch", epoch=found.epoch, reason=found.reason, advice=ADVICE)
