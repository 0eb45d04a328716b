"""The writer: batches, answers after the commit, and isolated failures."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.commands import Act, Archive, Reading, Report, Seal
from pacesetter_service.core.errors import (
    OverloadedError,
    SessionNotFoundError,
    StepOutOfRangeError,
    StorageUnavailableError,
)
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create, Find, Fork, Open, TakeBack, Work
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import purging
from pacesetter_service.store.port import Changes
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.writing import SqlTransaction
from written import NOW

HALVE = Act(Scale(factor=0.5))


class WatchedStore(SqliteStore):
    """A real store that counts its transactions, and fails when it is told to.

    Attributes:
        failure: What a transaction fails with.
        doubt: What a transaction fails with after its commit.
    """

    writes = 0
    failure: Exception | None = None
    doubt: Exception | None = None

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        """Begin a transaction, or fail as told."""
        if self.failure is not None:
            raise self.failure
        with super().begin() as transaction:
            yield transaction
        self.writes += 1
        if self.doubt is not None:
            raise self.doubt


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[WatchedStore]:
    """Open a watched store."""
    store = WatchedStore(f"sqlite:///{tmp_path}/pacesetter.db")
    yield store
    store.close()


@pytest.fixture(name="writer")
def _writer(store: WatchedStore) -> Iterator[Writer]:
    """Run a writer on the store."""
    writer = Writer(store, max_cached=3)
    writer.start()
    yield writer
    writer.stop()


def spec(name: str) -> SessionSpec:
    """Describe a plain session."""
    return SessionSpec(name=name, base_lr=0.1)


def test_what_is_committed_is_not_done_again_if_a_listener_fails(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets its answer, the other listeners are told, and the log says what failed."""

    def fails(_: object) -> None:
        raise ZeroDivisionError

    told: list[str] = []

    async def scenario() -> int:
        await writer.submit(Create(spec("run")))
        writer.on_committed(fails)
        writer.on_logged(fails)
        writer.on_logged(told.extend)
        done = await writer.submit(Change("run", (HALVE,)))
        return done.entry.stored.session.revision

    assert asyncio.run(scenario()) == 1
    assert told == ["run"]
    assert caplog.text.count("listener_failed") == 2


def test_what_is_committed_is_not_done_again_if_memory_fails(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets its answer, and the session is read from the database again."""
    log, seen = writer.tally.log, []

    def fails_once(changes: Sequence[Changes]) -> None:
        seen.append(1)
        if len(seen) == 1:
            raise MemoryError
        log(changes)

    async def scenario() -> tuple[int, int]:
        await writer.submit(Create(spec("run")))
        monkeypatch.setattr(writer.tally, "log", fails_once)
        done = await writer.submit(Change("run", (HALVE,)))
        found = await writer.find("run")
        return done.entry.stored.session.revision, found.stored.session.revision

    assert asyncio.run(scenario()) == (1, 1)


def test_after_a_doubtful_commit_a_session_is_read_again(
    writer: Writer, store: WatchedStore
) -> None:
    """It was committed though the database failed: readers and a repeated call find it."""

    async def scenario() -> tuple[int, int]:
        await writer.submit(Create(spec("run")))
        keyed = replace(HALVE, key="key")
        store.doubt = StorageUnavailableError("gone", kept="perhaps")
        with pytest.raises(StorageUnavailableError, match="is not known"):
            await writer.submit(Change("run", (keyed,)))
        store.doubt = None
        found = (await writer.find("run")).stored.session.revision
        again = await writer.submit(Change("run", (keyed,)))
        return found, again.entry.stored.session.revision

    assert asyncio.run(scenario()) == (1, 1)


def test_a_job_whose_cost_cannot_be_told_fails_alone(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer goes on; what cannot be judged is done as if it cost little."""

    def fails(*_: object) -> int:
        raise MemoryError

    async def scenario() -> int:
        await writer.submit(Create(spec("run")))
        monkeypatch.setattr("pacesetter_service.runtime.writer.cost_of", fails)
        await writer.submit(Change("run", (HALVE,)))
        return (await writer.submit(Change("run", (HALVE,)))).entry.stored.session.revision

    assert asyncio.run(scenario()) == 2
    writer.check()


def test_a_writer_that_fails_keeps_no_caller_waiting(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiting calls, the later ones and the check are refused, with what to do."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        await writer.submit(Create(spec("run")))
        monkeypatch.setattr(writer, "_process_light", fails)
        first = [writer.submit(Change("run", (HALVE,))) for _ in range(3)]
        for each in await asyncio.gather(*first, return_exceptions=True):
            assert isinstance(each, StorageUnavailableError)
        with pytest.raises(StorageUnavailableError, match="restart the service"):
            await writer.submit(Find("run"))

    asyncio.run(scenario())
    with pytest.raises(StorageUnavailableError, match="restart the service"):
        writer.check()


def test_a_lost_history_is_remembered_until_its_epoch_has_begun(
    store: WatchedStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the epoch cannot begin, the next look begins it: no call is answered before."""
    begin, seen = store.begin_epoch, []

    def fails_once() -> str:
        seen.append(1)
        if len(seen) == 1:
            raise StorageUnavailableError("away")
        return begin()

    async def scenario() -> None:
        entry = (await writer.submit(Create(spec("run")))).entry
        newer = replace(entry.stored, version=entry.stored.version + 5)
        monkeypatch.setattr(store, "begin_epoch", fails_once, raising=False)
        writer._cache.clear()
        writer._forgotten["run"] = newer  # as after a conflict with a database that went back
        for _ in range(2):
            with pytest.raises(StorageUnavailableError):
                await writer.submit(Find("run"))
        assert (await writer.submit(Find("run"))).entry.stored.version == entry.stored.version

    asyncio.run(scenario())
    assert len(seen) == 2


def test_who_waits_together_is_committed_together(writer: Writer, store: WatchedStore) -> None:
    """A hundred concurrent callers share a few transactions, and each gets its own answer."""

    async def crowd() -> list[int]:
        await writer.submit(Create(spec("run")))
        outcomes = await asyncio.gather(
            *(writer.submit(Change("run", (Seal(step, 1),))) for step in range(100))
        )
        return [outcome.entry.stored.session.horizon for outcome in outcomes]

    horizons = asyncio.run(crowd())
    assert horizons == list(range(1, 101))
    assert store.writes < 50


def test_a_refusal_is_the_callers_alone(writer: Writer) -> None:
    """A refused command does not affect the others of its batch."""

    async def crowd() -> list[object]:
        await writer.submit(Create(spec("run")))
        works = [
            Change("run", (Seal(0, 5),)),
            Change("none", (Seal(0, 5),)),
            Change("run", (Seal(10**9, 5),)),
            Change("run", (Seal(5, 5),)),
        ]
        return await asyncio.gather(*map(writer.submit, works), return_exceptions=True)

    first, unknown, far, last = asyncio.run(crowd())
    assert isinstance(unknown, SessionNotFoundError)
    assert isinstance(far, StepOutOfRangeError)
    assert last.entry.stored.session.horizon == 10  # type: ignore[attr-defined]
    assert first is not last


def test_what_goes_back_to_a_step_waits_for_what_costs_little(writer: Writer) -> None:
    """An attempt, a fork and a take-back are done after later calls that cost little."""
    order: list[str] = []

    async def done(what: str, work: Work) -> None:
        await writer.submit(work)
        order.append(what)

    async def crowd() -> None:
        await writer.submit(Create(spec("plain")))
        for name in ("opened", "forked", "taken"):
            await writer.submit(Create(spec(name)))
            await writer.submit(Change(name, (Seal(0, 5, trains=False),)))
        free = threading.Event()
        busy = asyncio.ensure_future(writer.call(free.wait))
        works: dict[str, Work] = {
            "open": Open("opened", 3, "key"),
            "fork": Fork("forked", spec("branch"), 3),
            "take back": TakeBack("taken"),
            "seal": Change("plain", (Seal(0, 1),)),
        }
        waiting = [asyncio.ensure_future(done(*each)) for each in works.items()]
        await asyncio.sleep(0)  # all of them are queued
        free.set()
        await asyncio.gather(busy, *waiting)

    asyncio.run(crowd())
    assert order == ["seal", "open", "fork", "take back"]


def test_a_failed_commit_leaves_no_trace(writer: Writer, store: WatchedStore) -> None:
    """When the disk refuses, callers are told, and the state is what it was before."""

    async def story() -> tuple[int, int]:
        await writer.submit(Create(spec("run")))
        await writer.submit(Change("run", (Seal(0, 5),)))
        store.failure = StorageUnavailableError("disk is full")
        with pytest.raises(StorageUnavailableError):
            await writer.submit(Change("run", (Seal(5, 5),)))
        entry = writer.peek("run")
        assert entry is not None
        assert entry.tail.end == 5
        store.failure = None
        outcome = await writer.submit(Change("run", (Seal(5, 2),)))
        return entry.stored.session.horizon, outcome.entry.stored.session.horizon

    assert asyncio.run(story()) == (5, 7)


def test_one_poisoned_job_does_not_take_its_neighbours_down(writer: Writer) -> None:
    """A job that the database cannot even express fails alone."""

    async def crowd() -> list[object]:
        await writer.submit(Create(spec("run")))
        await writer.submit(Change("run", (Seal(0, 5),)))
        poison = Report((Reading(0, 3, "\ud800", 1.0),))
        works = [Change("run", (poison,)), *(Change("run", (Seal(5, 5),)) for _ in range(5))]
        return await asyncio.gather(*map(writer.submit, works), return_exceptions=True)

    poisoned, *others = asyncio.run(crowd())
    assert isinstance(poisoned, Exception)
    assert not any(isinstance(other, Exception) for other in others)


def test_sessions_leave_memory_and_come_back(writer: Writer) -> None:
    """Memory holds a bounded number of sessions; the others are read again on demand."""

    async def story() -> tuple[list[bool], int]:
        for number in range(5):
            await writer.submit(Create(spec(f"run-{number}")))
            await writer.submit(Change(f"run-{number}", (Seal(0, number + 1),)))
        held = [writer.peek(f"run-{number}") is not None for number in range(5)]
        entry = await writer.find("run-0")
        return held, entry.stored.session.horizon

    assert asyncio.run(story()) == ([False, False, True, True, True], 1)


def test_of_what_was_purged_nothing_stays_in_memory(writer: Writer, store: WatchedStore) -> None:
    """This holds although the session is not asked for again."""

    def purge(name: str) -> None:
        with store.transaction() as connection:
            purging.hide(connection, name, "bo", NOW)
        writer.forget(name)

    async def crowd() -> weakref.ref[SessionSpec]:
        await writer.submit(Create(spec("run")))
        archived = (await writer.submit(Change("run", (Archive(),)))).entry
        await writer.call(partial(purge, "run"))
        await writer.submit(Create(spec("next")))  # so that the writer has nothing of it in memory
        return weakref.ref(archived.stored.session.spec)

    known = asyncio.run(crowd())
    gc.collect()
    assert known() is None


def test_a_full_queue_refuses(store: WatchedStore) -> None:
    """When too much waits, more is refused at once; what waits is still done."""
    writer = Writer(store, max_queued=2)

    async def crowd() -> list[object]:
        waiting = [asyncio.create_task(writer.submit(Create(spec(f"run-{n}")))) for n in range(4)]
        await asyncio.sleep(0)
        writer.start()
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(crowd())
    writer.stop()
    assert [isinstance(result, OverloadedError) for result in results] == [False, False, True, True]


def test_a_caller_that_leaves_does_not_stop_the_writer(writer: Writer) -> None:
    """A cancelled call is skipped, and the others are answered."""

    async def story() -> int:
        await writer.submit(Create(spec("run")))
        leaving = asyncio.create_task(writer.submit(Change("run", (Seal(0, 5),))))
        await asyncio.sleep(0)
        leaving.cancel()
        outcome = await writer.submit(Change("run", (Seal(5, 5),)))
        return outcome.entry.stored.session.horizon

    assert asyncio.run(story()) == 10
