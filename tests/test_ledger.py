"""The ledger: batches, answers after the commit, and faults that stay where they belong."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.errors import (
    OverloadedError,
    SessionNotFoundError,
    StepOutOfRangeError,
    StorageUnavailableError,
)
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.ledger import Change, Create, Ledger
from pacesetter_service.storage.store import Changes, Store


class WatchedStore(Store):
    """A real store that counts its transactions, and fails when it is told to."""

    writes = 0
    failure: Exception | None = None

    def write(self, batch: Sequence[Changes], now: str) -> None:
        """Write, or fail as told."""
        if self.failure is not None:
            raise self.failure
        super().write(batch, now)
        self.writes += 1


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[WatchedStore]:
    """Open a watched store."""
    store = WatchedStore(f"sqlite:///{tmp_path}/pacesetter.db")
    yield store
    store.close()


@pytest.fixture(name="ledger")
def _ledger(store: WatchedStore) -> Iterator[Ledger]:
    """Run a ledger on the store."""
    ledger = Ledger(store, max_cached=3)
    ledger.start()
    yield ledger
    ledger.stop()


def spec(name: str) -> SessionSpec:
    """Describe a plain session."""
    return SessionSpec(name=name, base_lr=0.1)


def test_who_waits_together_is_committed_together(ledger: Ledger, store: WatchedStore) -> None:
    """A hundred callers at once share a few transactions, and each gets its own answer."""

    async def crowd() -> list[int]:
        await ledger.submit(Create(spec("run")))
        outcomes = await asyncio.gather(
            *(ledger.submit(Change("run", (Seal(step, 1),))) for step in range(100))
        )
        return [outcome.entry.stored.session.horizon for outcome in outcomes]

    horizons = asyncio.run(crowd())
    assert horizons == list(range(1, 101))
    assert store.writes < 50


def test_a_refusal_is_the_callers_alone(ledger: Ledger) -> None:
    """A command that is refused does not disturb the others of its batch."""

    async def crowd() -> list[object]:
        await ledger.submit(Create(spec("run")))
        works = [
            Change("run", (Seal(0, 5),)),
            Change("none", (Seal(0, 5),)),
            Change("run", (Seal(10**9, 5),)),
            Change("run", (Seal(5, 5),)),
        ]
        return await asyncio.gather(*map(ledger.submit, works), return_exceptions=True)

    first, unknown, far, last = asyncio.run(crowd())
    assert isinstance(unknown, SessionNotFoundError)
    assert isinstance(far, StepOutOfRangeError)
    assert last.entry.stored.session.horizon == 10  # type: ignore[attr-defined]
    assert first is not last


def test_a_failed_commit_leaves_no_trace(ledger: Ledger, store: WatchedStore) -> None:
    """When the disk refuses, callers are told, and the state is what it was before."""

    async def story() -> tuple[int, int]:
        await ledger.submit(Create(spec("run")))
        await ledger.submit(Change("run", (Seal(0, 5),)))
        store.failure = StorageUnavailableError("disk is full")
        with pytest.raises(StorageUnavailableError):
            await ledger.submit(Change("run", (Seal(5, 5),)))
        entry = ledger.peek("run")
        assert entry is not None
        assert entry.tail.end == 5
        store.failure = None
        outcome = await ledger.submit(Change("run", (Seal(5, 2),)))
        return entry.stored.session.horizon, outcome.entry.stored.session.horizon

    assert asyncio.run(story()) == (5, 7)


def test_one_poisoned_job_does_not_take_its_neighbours_down(ledger: Ledger) -> None:
    """A job that the database can not even express fails alone."""

    async def crowd() -> list[object]:
        await ledger.submit(Create(spec("run")))
        await ledger.submit(Change("run", (Seal(0, 5),)))
        poison = Report((Reading(0, 3, "\ud800", 1.0),))
        works = [Change("run", (poison,)), *(Change("run", (Seal(5, 5),)) for _ in range(5))]
        return await asyncio.gather(*map(ledger.submit, works), return_exceptions=True)

    poisoned, *others = asyncio.run(crowd())
    assert isinstance(poisoned, Exception)
    assert not any(isinstance(other, Exception) for other in others)


def test_sessions_leave_memory_and_come_back(ledger: Ledger) -> None:
    """Memory holds a bounded number of sessions; the others are read again when asked for."""

    async def story() -> tuple[list[bool], int]:
        for number in range(5):
            await ledger.submit(Create(spec(f"run-{number}")))
            await ledger.submit(Change(f"run-{number}", (Seal(0, number + 1),)))
        held = [ledger.peek(f"run-{number}") is not None for number in range(5)]
        entry = await ledger.find("run-0")
        return held, entry.stored.session.horizon

    assert asyncio.run(story()) == ([False, False, True, True, True], 1)


def test_a_full_queue_refuses(store: WatchedStore) -> None:
    """When too much waits, more is refused at once; what waits is still done."""
    ledger = Ledger(store, max_queued=2)

    async def crowd() -> list[object]:
        waiting = [asyncio.create_task(ledger.submit(Create(spec(f"run-{n}")))) for n in range(4)]
        await asyncio.sleep(0)
        ledger.start()
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(crowd())
    ledger.stop()
    assert [isinstance(result, OverloadedError) for result in results] == [False, False, True, True]


def test_a_caller_that_leaves_does_not_stop_the_writer(ledger: Ledger) -> None:
    """A cancelled wait is skipped, and the work of the others is answered."""

    async def story() -> int:
        await ledger.submit(Create(spec("run")))
        leaving = asyncio.create_task(ledger.submit(Change("run", (Seal(0, 5),))))
        await asyncio.sleep(0)
        leaving.cancel()
        outcome = await ledger.submit(Change("run", (Seal(5, 5),)))
        return outcome.entry.stored.session.horizon

    assert asyncio.run(story()) == 10
