"""How many sessions there are, and how large their database is: measured now and then.

A look may read a whole table. So a separate thread takes it, rarely enough that looks take at most
a twentieth of the time. Callers in between get the last result.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.runtime.threads import started
from pacesetter_service.store.store import Extent, Store

MOST_COUNTED = 100_000
"""Sessions beyond this number are not counted."""

EVERY = 10.0
"""Seconds from one look to the next, at least."""

SHARE = 20
"""After a look that takes a second, at least this many seconds pass without one."""

PATIENCE = 1.0
"""Seconds that a caller waits for a look that is due; then it gets the previous result."""

log = structlog.get_logger("pacesetter.census")


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one look.

    Attributes:
        sessions: How many sessions there are, by their status; `MOST_COUNTED` in all at most.
        extent: How large the database is, and how much room it has; None if unknown.
    """

    sessions: Mapping[str, int] = field(default_factory=dict)
    extent: Extent | None = None


class Census:
    """The result of the newest look at a database; callable from any thread."""

    def __init__(
        self, look: Callable[[], Found], *, every: float = EVERY, patience: float = PATIENCE
    ) -> None:
        """Set up without looking.

        Args:
            look: Looks at the database.
            every: Seconds from one look to the next, at least.
            patience: Seconds that a caller waits for a look that is due.
        """
        self._look = look
        self._every = every
        self._patience = patience
        self._found = Found()
        self._due = 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()

    def newest(self) -> Found:
        """Return the last result, after a new look if one is due and does not take long."""
        with self._lock:
            due = self._due
            if monotonic() >= due:
                self._due = float("inf")  # until this look has ended
                if not self._begin():
                    self._due = due
            done = self._done
        done.wait(self._patience)
        return self._found

    def _begin(self) -> bool:
        """Begin a look; return whether the system started a thread for it."""
        done = threading.Event()
        thread = threading.Thread(target=self._run, args=(done,), name="census", daemon=True)
        if not started(thread):
            return False
        self._done = done
        return True

    def _run(self, done: threading.Event) -> None:
        began = monotonic()
        try:
            self._found = self._look()
        except StorageUnavailableError:
            pass  # whether the database answers is reported elsewhere
        except Exception:  # failing to count is no reason to stop
            log.exception("census_failed")
        finally:
            ended = monotonic()
            self._due = ended + max(self._every, SHARE * (ended - began))
            done.set()


def census_of(store: Store) -> Census:
    """Return the census of a database."""
    return Census(lambda: Found(store.statuses(MOST_COUNTED), store.extent()))
