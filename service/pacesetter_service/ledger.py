"""The ledger: one thread decides everything, in batches, and answers once a batch is on the disk.

Whatever is queued when the writer is free becomes one batch: each job is decided on the state that
the jobs before it leave, all changes are written in one transaction, and only after its commit do
the new states become visible and the callers get their answers. So one disk flush serves everyone
who waits, nothing is seen that could be lost, and a failed commit is undone by forgetting.

What is sealed never changes, so windows below the horizon are answered from memory, by the caller.
"""

import asyncio
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import structlog

from pacesetter_service.core.attempts import (
    forked,
    refuse_another_start,
    refuse_beyond_horizon,
    refuse_opening,
    restore,
    resumed,
)
from pacesetter_service.core.commands import Command
from pacesetter_service.core.decide import decide
from pacesetter_service.core.errors import (
    OverloadedError,
    PacesetterError,
    SessionExistsError,
    SessionNotFoundError,
    StorageUnavailableError,
)
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    BatchResized,
    BoundaryPassed,
    Cancelled,
    Decided,
    Event,
    Forked,
    Measured,
    Missed,
    Ordered,
    RateDeviated,
    Reported,
    Sealed,
)
from pacesetter_service.core.evolve import evolve
from pacesetter_service.core.lineage import Life, Lineage, branch
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.sealed import SealedTail
from pacesetter_service.storage.store import Changes, Store, Stored

MAX_BATCH = 256
"""The most jobs in one transaction: enough to amortise its flush, few enough to answer soon.

Each holds the state that it leaves until all are answered, with what waits in it.
"""

SNAPSHOT_EVERY = 1000
"""How many measurements lie between two snapshots, and so the most that a restart replays."""

log = structlog.get_logger("pacesetter.ledger")


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as memory holds it: committed, and never changed."""

    stored: Stored
    tail: SealedTail
    replayed: int = SNAPSHOT_EVERY
    """Measurements since the newest snapshot, for all that is known of it."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create the session that a spec describes, or find it again."""

    spec: SessionSpec


@dataclass(frozen=True, slots=True)
class Change:
    """Apply commands to a session, all of them or none."""

    name: str
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Find:
    """Bring a session into memory."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """Run a function on the writer's thread, between two batches: for what is rare."""

    function: Callable[[Store], object]


@dataclass(frozen=True, slots=True)
class Open:
    """Open or join an attempt of a session at a step.

    Attributes:
        name: The session's name.
        step: The first step of the attempt: that of the checkpoint.
        key: What all ranks of the restart share: the same key gives the same attempt.
        actor: Who opens it.
        drop_actions: Whether operators' orders for the step and later ones are forgotten.
        batch_size: Samples in one step from now on, if the trainer says so.
    """

    name: str
    step: int
    key: str
    actor: str = "somebody"
    drop_actions: bool = False
    batch_size: int | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """Create a session that shares the past of another one up to a step."""

    source: str
    spec: SessionSpec
    step: int
    actor: str = "somebody"


Alone = Open | Fork
"""Work that reads the record of what was committed, so that nothing may be on its way."""

Work = Create | Change | Find | Open | Fork

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The session after the work, and whether the work created it."""

    entry: Entry
    created: bool = False


@dataclass(slots=True)
class _Job:
    work: Work | Call
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    result: object = None


class Ledger:
    """Decides, commits and answers; `start` and `stop` frame its life."""

    def __init__(self, store: Store, *, max_queued: int = 10_000, max_cached: int = 10_000) -> None:
        """Set up, without starting.

        Args:
            store: Where everything is written; its writing half is the ledger's from now on.
            max_queued: The most jobs that may wait before further ones are refused.
            max_cached: The most sessions that memory holds; the longest unused are dropped.
        """
        self._store = store
        self._max_queued = max_queued
        self._max_cached = max_cached
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._cache: OrderedDict[str, Entry] = OrderedDict()
        self._listeners: list[Callable[[Sequence[str]], None]] = []
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then stop the writer."""
        self._queue.put(None)
        self._thread.join()

    def check(self) -> None:
        """Refuse if the writer is not there to take work.

        Raises:
            StorageUnavailableError: It has ended.
        """
        if not self._thread.is_alive():
            raise StorageUnavailableError("the writer is not running")

    @property
    def queued(self) -> int:
        """How many jobs wait for the writer."""
        return self._queue.qsize()

    def on_logged(self, listener: Callable[[Sequence[str]], None]) -> None:
        """Have a function told, on the writer's thread, which sessions' logs have grown.

        It is told after the commit, must be quick, and must not raise.
        """
        self._listeners.append(listener)

    def peek(self, name: str) -> Entry | None:
        """Give a session if memory holds it; never waits."""
        try:
            self._cache.move_to_end(name)
            return self._cache[name]
        except KeyError:  # also when the writer drops it at this moment
            return None

    async def find(self, name: str) -> Entry:
        """Give a session.

        Raises:
            SessionNotFoundError: There is none of that name.
        """
        return self.peek(name) or (await self.submit(Find(name))).entry

    async def submit(self, work: Work) -> Outcome:
        """Have work done; the answer comes after its commit.

        Raises:
            PacesetterError: The work was refused, and nothing of it was kept.
        """
        outcome: Outcome = await self._queued(work)
        return outcome

    async def call(self, function: Callable[[Store], T]) -> T:
        """Have a function run on the writer's thread, with the store to itself.

        Raises:
            PacesetterError: What the function raised.
        """
        result: T = await self._queued(Call(function))
        return result

    async def _queued(self, work: Work | Call) -> Any:  # noqa: ANN401 - what the work gives
        if self._queue.qsize() >= self._max_queued:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._queue.put(job)
        return await job.future

    # The writer's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, ended = [job], False
            with suppress(queue.Empty):
                while len(jobs) < MAX_BATCH and not ended:
                    following = self._queue.get_nowait()
                    ended = following is None
                    if following is not None:
                        jobs.append(following)
            for job in jobs:
                if isinstance(job.work, Call):
                    job.result = _called(job.work, self._store)
            self._process([job for job in jobs if not isinstance(job.work, Call | Alone)])
            for job in jobs:
                if isinstance(job.work, Alone):
                    self._process([job])
            _answer(jobs)
            if ended:
                return

    def _process(self, jobs: Sequence[_Job]) -> None:
        try:
            self._commit(jobs)
        except StorageUnavailableError as error:
            log.exception("commit_failed", jobs=len(jobs), error=str(error))
            for job in jobs:
                job.result = error
        except Exception:
            log.exception("batch_failed", jobs=len(jobs))
            self._commit_one_by_one(jobs)

    def _commit_one_by_one(self, jobs: Sequence[_Job]) -> None:
        """Keep a job that fails in a way nobody foresaw from taking those beside it down."""
        for job in jobs:
            try:
                self._commit([job])
            except Exception as failure:
                job.result = failure

    def _commit(self, jobs: Sequence[_Job]) -> None:
        batch = _Batch(self._read, self._store)
        for job in jobs:
            assert not isinstance(job.work, Call)  # noqa: S101 - those are done already
            try:
                job.result = batch.do(job.work)
            except PacesetterError as refusal:
                job.result = refusal
        changes = batch.changes()
        if changes:
            self._store.write(changes, batch.now)
        for entry in batch.entries():
            self._publish(entry)
        logged = [each.stored.session.spec.name for each in changes if each.log]
        if logged:
            for listener in self._listeners:
                listener(logged)

    def _read(self, name: str) -> Entry | None:
        """Give the committed state of a session, from memory or from the database."""
        entry = self._cache.get(name)
        if entry is None and (stored := self._store.load(name)) is not None:
            empty = SealedTail.empty(stored.session.horizon, len(stored.session.timelines))
            entry = Entry(stored, empty)
        return entry

    def _publish(self, entry: Entry) -> None:
        name = entry.stored.session.spec.name
        self._cache[name] = entry
        self._cache.move_to_end(name)
        while len(self._cache) > self._max_cached:
            self._cache.popitem(last=False)


class _Batch:
    """States on the way: what a batch's jobs have decided so far, visible to nobody else."""

    def __init__(self, read: Callable[[str], Entry | None], store: Store) -> None:
        self.now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._read = read
        self._store = store
        self._entries: dict[str, Entry] = {}
        self._changes: dict[str, Changes] = {}

    def do(self, work: Work) -> Outcome:
        """Decide one job; a refusal leaves the batch as it was."""
        match work:
            case Find(name):
                return Outcome(self._entry(name))
            case Change(name, commands):
                return Outcome(self._change(self._entry(name), commands))
            case Create(spec):
                return self._create(spec)
            case Open():
                return self._open(self._entry(work.name), work)
            case Fork():
                return self._fork(self._entry(work.source), work)

    def changes(self) -> list[Changes]:
        """Give what is to be written."""
        return list(self._changes.values())

    def entries(self) -> list[Entry]:
        """Give every session that the batch touched, in its newest state."""
        return list(self._entries.values())

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name) or self._read(name)
        if entry is None:
            raise SessionNotFoundError(name)
        self._entries[name] = entry
        return entry

    def _create(self, spec: SessionSpec) -> Outcome:
        with suppress(SessionNotFoundError):
            entry = self._entry(spec.name)
            if entry.stored.session.spec != spec:
                raise SessionExistsError(spec.name)
            return Outcome(entry)
        return self._begin(create(spec), ())

    def _begin(self, session: Session, past: Lineage) -> Outcome:
        """Begin a session, after the lives that its past was lived in."""
        session_id = self._store.new_id()
        lineage = branch(past, Life(session_id, session.attempt, session.horizon))
        stored = Stored(session_id, session, 0, self.now, lineage)
        entry = Entry(stored, SealedTail.empty(session.horizon, len(session.timelines)))
        self._entries[session.spec.name] = entry
        self._changes[session.spec.name] = Changes(stored)
        return Outcome(entry, created=True)

    def _open(self, entry: Entry, work: Open) -> Outcome:
        stored, session = entry.stored, entry.stored.session
        if work.key == session.attempt_key:
            refuse_another_start(session, work.step, work.batch_size)
            return Outcome(entry)
        known = self._store.knows_attempt(stored.id, work.key)
        refuse_opening(session, work.step, work.key, known=known)
        past = self._store.past(session.spec, stored.lineage, work.step)
        keep = () if work.drop_actions else (*past.later, *session.orders)
        opened = resumed(
            session, restore(past, work.step), keep=keep, key=work.key, batch=work.batch_size
        )
        event = AttemptOpened(
            opened.attempt,
            work.step,
            work.key,
            work.actor,
            tuple(order.id for order in opened.orders),
        )
        life = Life(stored.id, opened.attempt, work.step)
        following = replace(stored, session=opened, lineage=branch(stored.lineage, life))
        fresh = Entry(following, SealedTail.empty(work.step, len(opened.timelines)))
        self._changes[session.spec.name] = Changes(following, before=session, opened=event)
        self._record(fresh, following, [(work.step, event)])
        return Outcome(self._entries[session.spec.name], created=True)

    def _fork(self, source: Entry, work: Fork) -> Outcome:
        stored, session = source.stored, source.stored.session
        with suppress(SessionNotFoundError):
            entry = self._entry(work.spec.name)
            if entry.stored.session.spec != work.spec:
                raise SessionExistsError(work.spec.name)
            return Outcome(entry)
        refuse_beyond_horizon(session, work.step)
        restored = restore(self._store.past(session.spec, stored.lineage, work.step), work.step)
        self._begin(forked(restored, work.spec), stored.lineage)
        entry = self._entries[work.spec.name]
        event = Forked(session.spec.name, session.attempt, work.step, work.actor)
        self._record(entry, entry.stored, [(work.step, event)])
        return Outcome(self._entries[work.spec.name], created=True)

    def _change(self, entry: Entry, commands: Sequence[Command]) -> Entry:
        session = entry.stored.session
        events: list[tuple[int, Event]] = []
        for command in commands:
            for event in decide(session, command):
                events.append((session.horizon, event))
                session = evolve(session, event)
        return self._record(entry, replace(entry.stored, session=session), events)

    def _record(self, before: Entry, after: Stored, events: Sequence[tuple[int, Event]]) -> Entry:
        if not events:
            return before
        name = after.session.spec.name
        changes = self._changes.setdefault(
            name, Changes(before.stored, before=before.stored.session)
        )
        tail = before.tail
        for horizon, event in events:
            match event:
                case Reported(readings=readings):
                    changes.readings += [(after.session.attempt, each) for each in readings]
                case Measured():
                    changes.measured.append((after.session.attempt, horizon, event))
                case Sealed(values=values):
                    changes.sealed.append(event)
                    tail = tail.extended(
                        np.stack([values[name] for name in after.session.timelines])
                    )
                case (
                    Decided()
                    | Missed()
                    | BoundaryPassed()
                    | Ordered()
                    | Acted()
                    | BatchResized()
                    | Cancelled()
                    | AttemptOpened()
                    | Forked()
                    | RateDeviated()
                    | Archived()
                ):
                    changes.log.append(event)
                    after = replace(after, events=after.events + 1)
        replayed = _due_snapshot(changes, before.replayed, [event for _, event in events])
        changes.stored = after
        self._entries[name] = Entry(after, tail, replayed)
        return self._entries[name]


def _due_snapshot(changes: Changes, replayed: int, events: Sequence[Event]) -> int:
    """Have a snapshot written if it is time; give how many measurements come after the newest.

    It is of the state behind a sealing: facts of the same horizon must not stand in it, for they
    are replayed from there on.
    """
    measured = sum(isinstance(event, Measured | Missed) for event in events)
    if not measured:
        return replayed
    # One that an earlier job of the batch was due is written with the state behind this one.
    replayed = SNAPSHOT_EVERY if changes.snapshot else replayed + measured
    changes.snapshot = isinstance(events[-1], Sealed) and replayed >= SNAPSHOT_EVERY
    return 0 if changes.snapshot else replayed


def _called(call: Call, store: Store) -> object:
    try:
        return call.function(store)
    except PacesetterError as refusal:
        return refusal
    except Exception as failure:
        log.exception("call_failed")
        return failure


def _answer(jobs: Sequence[_Job]) -> None:
    """Hand the results over, with one wake-up for each event loop."""
    for loop in {job.loop for job in jobs}:
        mine = [job for job in jobs if job.loop is loop]
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller went away
            continue
        if isinstance(job.result, Exception):
            job.future.set_exception(job.result)
        else:
            job.future.set_result(job.result)
