"""The service's background work: it ends in time, and does not delay removals."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

import postgres
from pacesetter_service.core.commands import Archive, Finish, Seal
from pacesetter_service.core.errors import (
    ImportRefusedError,
    StorageFullError,
    StorageUnavailableError,
)
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.operator import purge_session
from pacesetter_service.runtime.retention import keep_settings
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import record
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.schema import sealed, sessions
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE

OLD = "2020-01-01T00:00:00.000+00:00"


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open a database for one test."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    yield store
    store.close()


@pytest.fixture(name="service")
def _service(store: SqliteStore) -> Iterator[Service]:
    """Run the parts of a service, without a front door."""
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)
    yield service
    service.close()
    writer.stop()


def _old_sessions(service: Service, **ends: Finish | Archive) -> None:
    """Create sessions, each with its end, that were last written years ago."""

    async def create() -> None:
        for name, end in ends.items():
            await service.writer.submit(Create(SessionSpec(name=name, base_lr=0.1)))
            await service.writer.submit(Change(name, (end,)))

    asyncio.run(create())
    with service.store.transaction() as connection:
        connection.execute(update(sessions).values(changed_at=OLD))


def _statuses(service: Service) -> list[str]:
    with service.store.snapshot() as connection:
        return sorted(connection.scalars(select(sessions.c.status)))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_settings_are_kept_until_the_service_is_to_stop(service: Service) -> None:
    """A session that was not put away yet stays as it is: its turn comes after the next start."""
    _old_sessions(service, a=Finish(), b=Finish(), c=Finish())
    asyncio.run(keep_settings(service, 1.0, None, lambda: "archived" in _statuses(service)))
    assert _statuses(service) == ["archived", "finished", "finished"]
    asyncio.run(keep_settings(service, 1.0, None, lambda: False))
    assert _statuses(service) == ["archived"] * 3


def test_a_chore_learns_that_the_service_is_to_stop(service: Service) -> None:
    """The stop waits only for what is being done."""
    begun, told = threading.Event(), threading.Event()

    async def chore(ended: Callable[[], bool]) -> None:
        begun.set()
        while not ended():
            await asyncio.sleep(0.001)
        told.set()

    service.janitor.keep(chore, 0.0)
    assert begun.wait(PATIENCE)
    service.janitor.stop()
    assert told.is_set()


def test_a_chore_that_fails_keeps_no_removal_waiting(service: Service) -> None:
    """The rows of a purged session are removed, although the chore fails each time."""
    failed = threading.Event()

    async def chore(_ended: Callable[[], bool]) -> None:
        failed.set()
        raise StorageUnavailableError("never mind")

    service.janitor.keep(chore, 0.0)
    assert failed.wait(PATIENCE)
    _old_sessions(service, gone=Archive())
    asyncio.run(purge_session(service, "gone", "bo"))
    _until(lambda: _statuses(service) == [])


def test_on_a_full_disk_settings_purge_before_they_archive(
    service: Service, store: SqliteStore
) -> None:
    """Archiving is refused there, yet the purge has been done."""
    _old_sessions(service, gone=Archive(), stays=Finish())
    store._min_free = 1 << 62
    with pytest.raises(StorageFullError):
        asyncio.run(keep_settings(service, 1.0, 1.0, lambda: False))
    _until(lambda: _statuses(service) == ["finished"])


def test_an_import_that_was_cut_off_goes_from_a_shared_database() -> None:
    """It goes a day after it began, with all its rows; a younger one may still be running."""
    with postgres.database() as url:
        store = PostgresStore(url)
        try:
            examined = _begin_imports(store, old=998, young=999)
            writer = Writer(store)
            writer.start()
            service = Service.over(store, writer)
            try:
                _until(lambda: _statuses(service) == ["importing"])
            finally:
                service.close()
                writer.stop()
            with store.transaction() as connection:
                owners = connection.scalars(select(sealed.c.session_id).distinct()).all()
                assert owners == [999]
                with pytest.raises(ImportRefusedError, match="import it again"):
                    record.finish(connection, 998, examined.session)
                record.finish(connection, 999, examined.session)
        finally:
            store.close()


def _begin_imports(store: PostgresStore, *, old: int, young: int) -> record.Record:
    """Write what two imports of one record leave that were cut off before their end."""
    writer = Writer(store)
    writer.start()
    asyncio.run(writer.submit(Create(SessionSpec(name="run", base_lr=0.1))))
    asyncio.run(writer.submit(Change("run", (Seal(start=0, count=8),))))
    writer.stop()
    with store.snapshot() as connection:
        file = io.BytesIO(b"".join(record.export(connection, "run", "1")))
    examined = record.examine(file, None)
    with store.transaction() as connection:
        [exported] = connection.scalars(select(sessions.c.id)).all()
        connection.execute(update(sessions).values(status=record.IMPORTING))
        record.drop(connection, exported)
        for number in (old, young):
            record.begin(connection, number, examined)
            record.add(connection, number, record.rows_of(file, examined))
        connection.execute(update(sessions).where(sessions.c.id == old).values(changed_at=OLD))
    return examined
