"""How many sessions there are, and how large their database is: looked at now and then.

A look may read a whole table, so a thread of its own takes it, seldom enough that looking takes a
twentieth of the time at most. Who asks in between is told what was found last.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

import structlog

from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.store.store import Extent, Store

MOST_COUNTED = 100_000
"""Sessions beyond so many are not counted."""

EVERY = 10.0
"""Seconds from one look to the next, at least."""

SHARE = 20
"""A look that takes a second is followed by so many seconds without one, at least."""

PATIENCE = 1.0
"""Seconds that a caller waits for a look that is due; then it is told what was found before."""

log = structlog.get_logger("pacesetter.census")


@dataclass(frozen=True, slots=True)
class Found:
    """What one look has found.

    Attributes:
        sessions: How many sessions there are, by their status; `MOST_COUNTED` in all at most.
        extent: How large the database is, and how much room it has; None if that is not known.
    """

    sessions: Mapping[str, int] = field(default_factory=dict)
    extent: Extent | None = None


class Census:
    """The newest look at a database; callable from any thread."""

    def __init__(
        self, look: Callable[[], Found], *, every: float = EVERY, patience: float = PATIENCE
    ) -> None:
        """Set up, without looking.

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

    def newest(self) -> Found:
        """Return what was found last, after a look if one is due and does not take long."""
        with self._lock:
            if monotonic() >= self._due:
                self._due = float("inf")  # until this look has ended
                self._done = threading.Event()
                threading.Thread(target=self._run, name="census", daemon=True).start()
            done = self._done
        done.wait(self._patience)
        return self._found

    def _run(self) -> None:
        began = monotonic()
        try:
            self._found = self._look()
        except StorageUnavailableError:
            pass  # whether the database answers is told elsewhere
        except Exception:  # figures are no reason to stop
            log.exception("census_failed")
        finally:
            ended = monotonic()
            self._due = ended + max(self._every, SHARE * (ended - began))
            self._done.set()


def census_of(store: Store) -> Census:
    """Return the census of a database."""
    return Census(lambda: Found(store.statuses(MOST_COUNTED), store.extent()))
