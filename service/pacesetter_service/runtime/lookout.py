"""Detects trainings that leave the family of their template, in the background.

A separate thread looks at a session whenever another hundredth of it was measured. Its findings go
through the writer, as an event and a notice of the session, so no trainer waits for a look. Where
several processes share a database, each looks at what it has committed.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic

import structlog

from pacesetter_service.core.commands import RecordDeparture
from pacesetter_service.core.errors import PacesetterError
from pacesetter_service.core.session import Session
from pacesetter_service.insight.collapse import CELLS, Departure
from pacesetter_service.runtime.families import Families, Kin, end_of, step_of, told_already
from pacesetter_service.runtime.work import Change
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.port import Changes, Stored

SHARE = 4
"""After a look that takes a second, this many seconds pass without one."""

MOST_FOLLOWED = 10_000
"""The most sessions whose last look is remembered, and the most that may wait for a look."""

LAST_SECONDS = 5.0
"""Seconds that the service, when it stops, waits for a look in progress."""

log = structlog.get_logger("pacesetter.lookout")


class _EndedError(Exception):
    """The service stops during a look."""


class Lookout:
    """A thread that starts when there is a session to look at."""

    def __init__(self, families: Families, writer: Writer) -> None:
        """Set up without looking."""
        self._families = families
        self._writer = writer
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, Stored] = OrderedDict()
        self._looked: OrderedDict[int, tuple[int, int, int]] = OrderedDict()
        self._called = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, batch: Sequence[Changes]) -> None:
        """Note committed changes; the writer calls this, and it never waits or raises."""
        try:
            for changes in batch:
                place = _measured_until(changes)
                if place is not None and self._is_news(changes.stored, place):
                    self._call(changes.stored)
        except Exception:  # the changes are committed, whether they are looked at or not
            log.exception("lookout_failed")

    def _call(self, stored: Stored) -> None:
        with self._lock:
            self._waiting[stored.session.spec.name] = stored
            while len(self._waiting) > MOST_FOLLOWED:
                self._waiting.popitem(last=False)
            if self._thread is None and not self._ended.is_set():
                thread = threading.Thread(target=self._run, name="lookout", daemon=True)
                thread.start()  # the system may refuse this; then the next call tries again
                self._thread = thread
        self._called.set()

    def stop(self) -> None:
        """End within some seconds, even during a look; the writer must still be running."""
        self._ended.set()
        self._called.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(LAST_SECONDS)

    def _is_news(self, stored: Stored, place: tuple[int, int]) -> bool:
        """Return whether a session was measured beyond the cell of its last look.

        In another attempt, or once the end of the plan has changed, every cell is news.
        """
        total, cell = place
        now = (stored.session.attempt.number, total, cell)
        with self._lock:
            known = self._looked.get(stored.id)
            if known is not None and known[:2] == now[:2] and known[2] >= cell:
                return False
            self._looked[stored.id] = now
            self._looked.move_to_end(stored.id)
            while len(self._looked) > MOST_FOLLOWED:
                self._looked.popitem(last=False)
        return True

    def _run(self) -> None:
        while not self._ended.is_set():
            self._called.wait()
            self._called.clear()
            while (stored := self._next()) is not None:
                began = monotonic()
                try:
                    self._look(stored)
                except _EndedError:
                    return
                except PacesetterError as error:  # the database is away, or the session is closed
                    log.info("put_off", session=stored.session.spec.name, reason=str(error))
                    with self._lock:
                        self._looked.pop(stored.id, None)
                except Exception:
                    log.exception("lookout_failed", session=stored.session.spec.name)
                self._ended.wait(SHARE * (monotonic() - began))

    def _check(self) -> None:
        if self._ended.is_set():
            raise _EndedError

    def _next(self) -> Stored | None:
        with self._lock:
            if self._ended.is_set() or not self._waiting:
                return None
            return self._waiting.popitem(last=False)[1]

    def _look(self, stored: Stored) -> None:
        session = stored.session
        for kin in self._families.judged(stored, self._check):
            if kin.judgement is None or kin.metric is None or not kin.judgement.departures:
                continue
            last = kin.judgement.departures[-1]
            if told_already(session, kin.metric, last):
                continue
            since, message = step_of(session, last.since), told_of(session, kin, last)
            told = RecordDeparture(kin.metric, since, message, session.attempt.number)
            asyncio.run(_submitted(self._writer, Change(session.spec.name, (told,))))
            log.warning(
                "left_family",
                session=session.spec.name,
                attempt=session.attempt.number,
                metric=kin.metric,
                since=since,
                apart=round(last.apart, 4),
            )


async def _submitted(writer: Writer, change: Change) -> None:
    await writer.submit(change)


def _measured_until(changes: Changes) -> tuple[int, int] | None:
    """Return the end of a session with a template, and the last cell that changes measured."""
    session = changes.stored.session
    if session.spec.origin is None or not changes.readings:
        return None
    first, total = session.spec.start_step, end_of(session)
    if total is None:
        return None
    last = max(reading.step for _, reading in changes.readings)
    return total, min((last - first) * CELLS // (total - first), CELLS)


def told_of(session: Session, kin: Kin, departure: Departure) -> str:
    """Return the text about a departure, and what to do."""
    count, since = len(kin.members), step_of(session, departure.since)
    side = "above" if departure.apart > 0 else "below"
    advice = (
        "If the data, the batch size or the rates that the optimizer applies are not the family's,"
        f" go back to a checkpoint from before step {since}; if they are meant to differ, give it a"
        " template of its own."
        if departure.apart > 0
        else "Lower is not better by itself: see whether data repeat or leak, and whether the"
        " optimizer applies the rates that were sealed."
    )
    return (
        f"{kin.metric} left the family of {kin.template} at about step {since}: it is"
        f" {abs(departure.apart):.1%} {side} what {count} finished sessions lead to expect."
        f" {advice}"
    )
