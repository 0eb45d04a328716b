"""The writer: one thread decides everything, in batches, and answers once a batch is on the disk.

Everything that is queued when the writer is free becomes one batch. Each job is decided on the
state that the jobs before it leave, and all changes are written in one transaction. Only after its
commit do the new states become visible and the callers get their answers. So one disk flush serves
all waiting callers, no caller sees anything that could be lost, and forgetting the new states is
enough to undo a failed commit.

No job may keep the others waiting for long. The cost of one sealing is bounded, and a batch is
committed once it has taken long enough. Costly jobs are done alone: one between two batches of the
others, with sessions taking turns.

Sealed values never change, so callers answer windows below the horizon from memory. Where other
processes write too, every other read compares the version first.
"""

import asyncio
import queue
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

import structlog

from pacesetter_service import failpoints
from pacesetter_service.complaints import Complaints
from pacesetter_service.core.cost import LIGHT
from pacesetter_service.core.decide import cost_of
from pacesetter_service.core.errors import (
    ConflictError,
    Kept,
    OverloadedError,
    PacesetterError,
    StalledError,
    StorageUnavailableError,
)
from pacesetter_service.runtime.batch import Batch
from pacesetter_service.runtime.lanes import Lanes
from pacesetter_service.runtime.tails import SealedTail
from pacesetter_service.runtime.tally import Tally
from pacesetter_service.runtime.versions import VersionReader
from pacesetter_service.runtime.watchdog import Progress
from pacesetter_service.runtime.work import (
    Alone,
    Change,
    Create,
    Entry,
    Find,
    Fork,
    Open,
    Outcome,
    TakeBack,
    Work,
)
from pacesetter_service.store.port import Changes, Store, Stored

MAX_BATCH = 256
"""The most jobs in one transaction: enough to amortise its flush, few enough to answer soon.

Each job holds the state that it leaves, with the readings that wait in it, until all are answered.
"""

BATCH_SECONDS = 0.1
"""Seconds after which a batch takes no further job: the decided ones must not wait for it."""

SHARE = 4
"""The costly jobs of one session may take at most one in this many places in the queue."""

TRIES = 5
"""How often a batch is decided if other writers come first."""

PAUSE = 0.005
"""The longest pause before the second try, in seconds; it doubles for each further try."""

LOST = (
    "an older copy of the database was put in its place, or a standby has taken over that had not"
    " received all; trainings that go on ask to be restarted from a checkpoint"
)

NOT_RUNNING = "the writer is not running: restart the service"
"""Why nothing is written any more."""

log = structlog.get_logger("pacesetter.writer")


commit_failures = Complaints(lambda **details: log.error("commit_failed", **details))
"""Complaints about failed commits: while a disk is full, every call of every trainer fails."""


@dataclass(frozen=True, slots=True)
class Call:
    """Run a function on the writer's thread, between two batches: for rare work."""

    function: Callable[[], object]


T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    work: Work | Call
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    result: object = None


class Writer:
    """Decides, commits and answers; `start` and `stop` begin and end it."""

    def __init__(
        self,
        store: Store,
        *,
        max_queued: int = 10_000,
        max_cached: int = 10_000,
        stall_after: float = 10.0,
    ) -> None:
        """Set up without starting.

        Args:
            store: Where everything is written; its writing half is the writer's from now on.
            max_queued: The most jobs that may wait before further ones are refused.
            max_cached: The most sessions in memory; the least recently used are dropped.
            stall_after: For how many seconds the writer may work without finishing anything before
                `check` refuses.
        """
        self._store = store
        self._max_queued = max_queued
        self._max_cached = max_cached
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._costly: Lanes[_Job] = Lanes()
        self._cache: OrderedDict[str, Entry] = OrderedDict()
        self._forgotten: dict[str, Stored] = {}  # sessions to be read again, as they were
        self._stall_after = stall_after
        self._progress = Progress()
        self._has_failed = False
        self.tally = Tally()
        self._recorders: list[Callable[[Sequence[Changes]], None]] = []
        self._versions = VersionReader(store.versions)
        self._listeners: list[Callable[[Sequence[str]], None]] = []
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the queued jobs that callers still wait for, then stop the writer."""
        self._queue.put(None)
        self._thread.join()

    def check(self) -> None:
        """Refuse if the writer does not accept work, or makes no progress.

        Raises:
            StorageUnavailableError: It has ended.
            StalledError: It has worked for too long without finishing anything.
        """
        if self._has_failed or not self._thread.is_alive():
            raise StorageUnavailableError(NOT_RUNNING)
        seconds = self._progress.seconds_without
        if seconds > self._stall_after:
            log.error("writer_stalled", seconds=round(seconds, 1), queued=self.queued)
            raise StalledError(seconds)

    @property
    def queued(self) -> int:
        """How many jobs wait for the writer."""
        return self._queue.qsize() + len(self._costly)

    @property
    def cached(self) -> int:
        """How many sessions are in memory."""
        return len(self._cache)

    @property
    def seconds_without_result(self) -> float:
        """For how many seconds the writer has worked without finishing anything; 0 at rest."""
        return self._progress.seconds_without

    def horizon(self, name: str) -> int | None:
        """Return the horizon of a session as it is in memory; None if it is not there."""
        entry = self._cache.get(name)
        return None if entry is None else entry.stored.session.horizon

    def on_logged(self, listener: Callable[[Sequence[str]], None]) -> None:
        """Call a function on the writer's thread with the sessions whose logs have grown.

        It is called after the commit, must be quick, and must not raise.
        """
        self._listeners.append(listener)

    def on_committed(self, listener: Callable[[Sequence[Changes]], None]) -> None:
        """Call a function on the writer's thread with committed changes.

        It must be quick, and must not raise.
        """
        self._recorders.append(listener)

    def peek(self, name: str) -> Entry | None:
        """Return a session if memory holds its newest state; never waits.

        Returns None where other processes may have changed it: memory cannot be trusted then.
        """
        return None if self._store.shared else self.remembered(name)

    def remembered(self, name: str) -> Entry | None:
        """Return a session as this process saw it last, if it did; never waits.

        Where other processes write too, it may have gone on since.
        """
        try:
            self._cache.move_to_end(name)
            return self._cache[name]
        except KeyError:  # the writer may also drop it at this moment
            return None

    async def find(self, name: str) -> Entry:
        """Return a session as it is; memory is enough if its version is current.

        Raises:
            SessionNotFoundError: There is none of that name.
        """
        entry = self.remembered(name)
        if entry is not None and (
            not self._store.shared or await self._versions.version(name) == entry.stored.version
        ):
            return entry
        return (await self.submit(Find(name))).entry

    async def submit(self, work: Work) -> Outcome:
        """Queue work, and return its outcome after the commit.

        Raises:
            PacesetterError: The work was refused, and nothing of it was kept.
        """
        outcome: Outcome = await self._queued(work)
        return outcome

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function on the writer's thread, while nothing else is written.

        It is called again if its transaction, of which it may have only one, met a conflict.

        Raises:
            PacesetterError: What the function raised.
        """
        result: T = await self._queued(Call(function))
        return result

    async def _queued(self, work: Work | Call) -> Any:  # noqa: ANN401 - what the work gives
        if self.queued >= self._max_queued:
            self.tally.refused += 1
            raise OverloadedError
        if self._has_failed:
            raise StorageUnavailableError(NOT_RUNNING)
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._queue.put(job)
        try:
            return await job.future
        finally:
            del job  # otherwise a refusal would hold this frame, and this frame the refusal

    def forget(self, name: str) -> None:
        """Drop a purged session from memory; only a function that `call` runs may do so."""
        self._cache.pop(name, None)
        self._forgotten.pop(name, None)  # its absence is no loss

    # The writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        try:
            while not ended or self._costly:
                ended = self._take_turn() or ended
        except Exception:
            self._fail()

    def _fail(self) -> None:
        """Refuse all jobs from now on: a fault of the writer itself must keep no caller waiting."""
        log.exception("writer_failed", advice="restart the service, and report this")
        self._has_failed = True
        while self._costly:
            _refuse(self._costly.take(lambda _: True))
        ended = False
        while not ended:
            jobs, ended = self._arrived(wait=True)
            _refuse(jobs)

    def _take_turn(self) -> bool:
        """Do what is queued, and return whether the writer ends; keep no reference to the jobs."""
        if not self._costly:
            self._progress.rests()
        jobs, ending = self._arrived(wait=not self._costly)
        self._progress.made()
        try:
            self._process_light([job for job in jobs if not self._put_aside(job)])
        except Exception:
            _refuse(jobs, kept="perhaps")
            raise
        for job in self._costly.take(self._is_light):
            self._process_light([job])
        return ending

    def _arrived(self, *, wait: bool) -> tuple[list[_Job], bool]:
        """Return the queued jobs, and whether the writer ends; with `wait`, wait for the first."""
        jobs: list[_Job] = []
        with suppress(queue.Empty):
            while len(jobs) < MAX_BATCH:
                job = self._queue.get() if wait and not jobs else self._queue.get_nowait()
                if job is None:
                    return jobs, True
                if not job.future.cancelled():  # otherwise its caller has gone
                    jobs.append(job)
        return jobs, False

    def _put_aside(self, job: _Job) -> bool:
        """Put a job that may be costly into the lanes; return whether it is such a job."""
        if isinstance(job.work, Call | Create | Find) or self._is_light(job):
            return False
        name = job.work.source if isinstance(job.work, Fork) else job.work.name
        if self._costly.waiting(name) >= max(self._max_queued // SHARE, 1):
            job.result = OverloadedError()
            _answer([job])
        else:
            self._costly.put(name, job)
        return True

    def _is_light(self, job: _Job) -> bool:
        """Return whether a job is cheap, as far as memory can tell.

        So is one whose cost cannot be told: it fails as it is done, and no other job does.
        """
        try:
            return self._costs_little(job)
        except Exception:
            return True

    def _costs_little(self, job: _Job) -> bool:
        match job.work:
            case Change(name, commands):
                entry = self._cache.get(name)
                return entry is None or cost_of(entry.stored.session, commands) <= LIGHT
            case Open(name, key=key):
                entry = self._cache.get(name)
                return entry is not None and entry.stored.session.attempt.key == key
            case Fork() | TakeBack():
                return False
            case Create() | Find() | Call():
                return True

    def _process_light(self, jobs: list[_Job]) -> None:
        """Do jobs together, and answer them once they are on the disk."""
        together = [job for job in jobs if not isinstance(job.work, Call | Alone)]
        for job in jobs:
            if isinstance(job.work, Call):
                job.result = _called(job.work)
                self._answer([job])
        while together:
            done = self._process(together)
            self._answer(together[:done])
            together = together[done:]
        for job in jobs:
            if isinstance(job.work, Alone):
                self._process([job])
                self._answer([job])

    def _answer(self, jobs: Sequence[_Job]) -> None:
        failpoints.reach("answer.before")
        _answer(jobs)
        self._progress.made()

    def _process(self, jobs: Sequence[_Job]) -> int:
        """Do jobs in one transaction, and return how many of the first ones there was time for."""
        try:
            return self._settled(jobs)
        except StorageUnavailableError as error:
            self.tally.failures += 1
            commit_failures.tell(type(error).__name__, jobs=len(jobs), exc_info=error)
            told = _told(error)
            for job in jobs:
                job.result = told
        except Exception as failure:
            if not isinstance(failure, ConflictError):
                log.exception("batch_failed", jobs=len(jobs))
            self._commit_one_by_one(jobs)
        return len(jobs)

    def _commit_one_by_one(self, jobs: Sequence[_Job]) -> None:
        """Commit jobs one by one, so that an unforeseen failure of one does not fail the others."""
        for job in jobs:
            try:
                self._settled([job])
            except PacesetterError as error:
                job.result = _told(error)
            except Exception as failure:
                job.result = failure

    def _settled(self, jobs: Sequence[_Job]) -> int:
        """Commit jobs; if another writer came first, decide them again, a few times.

        Raises:
            ConflictError: Another writer came first every time.
        """
        return _persistently(partial(self._tried, jobs), self._read_again)

    def _tried(self, jobs: Sequence[_Job]) -> int:
        try:
            return self._commit(jobs)
        except ConflictError:
            self.tally.conflicts += 1
            raise

    def _read_again(self, names: Iterable[str]) -> None:
        self.tally.retries += 1
        self._forget(names)

    def _commit(self, jobs: Sequence[_Job]) -> int:
        batch, begun, done = Batch(self._read, self._store), monotonic(), 0
        for job in jobs:
            assert not isinstance(job.work, Call)  # noqa: S101 - those are done already
            try:
                job.result = batch.do(job.work)
            except ConflictError:
                raise
            except PacesetterError as refusal:
                job.result = _told(refusal)
            done += 1
            if monotonic() - begun > BATCH_SECONDS:
                break
        changes = batch.changes()
        self.tally.batch_jobs.observe(done)
        if changes:
            self._write(batch, changes)
        elif self._store.shared and (stale := self._store.stale(batch.unchanged())):
            raise ConflictError(tuple(stale))
        try:
            self._show(batch, changes)
        except Exception:  # what is committed must not be decided again
            log.exception("not_shown")
            self._forget(_names(batch))
        return done

    def _write(self, batch: Batch, changes: Sequence[Changes]) -> None:
        """Commit changes; if that may have failed, the sessions are read again.

        Raises:
            StorageUnavailableError: They are not there, or only perhaps.
            ConflictError: Another writer came first.
        """
        begun = monotonic()
        try:
            with self._store.begin() as transaction:
                transaction.append(changes, batch.now)
                if self._store.shared:
                    transaction.refuse_stale(batch.unchanged())
                failpoints.reach("commit.before")
        except StorageUnavailableError as error:
            if error.kept == "perhaps":
                self._forget(_names(batch))
            raise
        failpoints.reach("commit.after")
        self.tally.commit_seconds.observe(monotonic() - begun)

    def _show(self, batch: Batch, changes: Sequence[Changes]) -> None:
        """Make what is committed visible: to listeners, and in memory."""
        if changes:
            self.tally.log(changes)
        for record in self._recorders if changes else ():
            _tell(record, changes)
        for entry in batch.entries():
            self._publish(entry)
        logged = [each.stored.session.spec.name for each in changes if each.log]
        for listener in self._listeners if logged else ():
            _tell(listener, logged)

    def _read(self, name: str) -> Entry | None:
        """Return the committed state of a session, from memory or from the database."""
        entry = self._cache.get(name)
        if entry is None and (stored := self._loaded(name)) is not None:
            empty = SealedTail.empty(stored.session.horizon, len(stored.session.timelines))
            entry = Entry(stored, empty)
        return entry

    def _loaded(self, name: str) -> Stored | None:
        """Read a session from the database, and begin a new epoch if it has lost commits.

        Raises:
            StorageUnavailableError: It has lost something: callers that were given it must hear of
                the new epoch before anything is sealed in its place.
        """
        stored, known = self._store.load(name), self._forgotten.get(name)
        lost = known is not None and self._is_lost(known, stored)
        if lost:
            log.error("history_lost", session=name, epoch=self._store.begin_epoch(), advice=LOST)
        self._forgotten.pop(name, None)  # and not before the epoch has begun
        if lost:
            raise StorageUnavailableError("it has lost what was committed to it")
        return stored

    def _is_lost(self, known: Stored, found: Stored | None) -> bool:
        """Return whether the database has lost part of a session that was not purged."""
        if found is not None and found.id == known.id:
            return found.version < known.version
        session = known.session
        return self._store.purged_attempt(session.spec.name) < session.attempt.number

    def _forget(self, names: Iterable[str]) -> None:
        """Drop sessions from memory: they are read again when they are asked for."""
        for name in names:
            entry = self._cache.pop(name, None)
            if entry is not None:
                self._forgotten[name] = entry.stored

    def _publish(self, entry: Entry) -> None:
        name = entry.stored.session.spec.name
        self._cache[name] = entry
        self._cache.move_to_end(name)
        while len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)


def _persistently(work: Callable[[], T], forget: Callable[[Iterable[str]], None]) -> T:
    """Return what work returns; try it again if another writer came first.

    The pauses in between are random, so that two writers that conflicted do not conflict again.

    Args:
        work: Must leave no trace if it raises a `ConflictError`.
        forget: Is given the sessions whose states in memory must not be used again.

    Raises:
        ConflictError: Another writer came first every time.
    """
    for number in range(TRIES - 1):
        try:
            return work()
        except ConflictError as conflict:
            forget(conflict.names)
            sleep(random.uniform(0.0, PAUSE * 2**number))  # noqa: S311 - no secret
    return work()


def _names(batch: Batch) -> list[str]:
    """Return the names of all sessions that a batch has read or changed."""
    return [entry.stored.session.spec.name for entry in batch.entries()]


def _tell(listener: Callable[[T], None], news: T) -> None:
    """Call a listener after a commit; if it fails, what is committed must not be done again."""
    try:
        listener(news)
    except Exception:
        log.exception("listener_failed")


def _told(error: PacesetterError) -> PacesetterError:
    """Return an error as callers get it, without the frames that it came through.

    These frames hold the whole batch, and so the error itself: a reference cycle that would stay
    until the garbage collector runs.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _called(call: Call) -> object:
    try:
        return _persistently(call.function, lambda _names: None)
    except PacesetterError as refusal:
        return _told(refusal)
    except Exception as failure:
        log.exception("call_failed")
        return failure


def _answer(jobs: Sequence[_Job]) -> None:
    """Hand over the results, with one wake-up for each event loop."""
    for loop in {job.loop for job in jobs}:
        mine = [job for job in jobs if job.loop is loop]
        with suppress(RuntimeError):  # the loop is closed: its callers have gone
            loop.call_soon_threadsafe(_resolve, mine)


def _refuse(jobs: Sequence[_Job], *, kept: Kept = "nothing") -> None:
    """Refuse jobs, of which some may have their answers already."""
    for job in jobs:
        job.result = StorageUnavailableError(NOT_RUNNING, kept=kept)
    _answer(jobs)


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller went away
            continue
        if isinstance(job.result, Exception):
            job.future.set_exception(job.result)
        else:
            job.future.set_result(job.result)
