"""An import that ends in doubt or is cut off: what a caller can see is never taken away again."""

import asyncio
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from pacesetter_service.core.commands import Seal
from pacesetter_service.core.errors import SessionNotFoundError, StorageUnavailableError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.exports import examine_record, export_record, import_record
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import record
from pacesetter_service.store.schema import OF_A_SESSION, sessions
from pacesetter_service.store.sqlite import SqliteStore


@pytest.fixture(name="service")
def _service(tmp_path: Path) -> Iterator[Service]:
    """Run the parts of a service, without a front door, and with a session in its database."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)
    asyncio.run(writer.submit(Create(SessionSpec(name="run", base_lr=0.1))))
    asyncio.run(writer.submit(Change("run", (Seal(0, 10, 1),))))
    yield service
    service.close()
    writer.stop()
    store.close()


async def begun(service: Service) -> "asyncio.Task[Any]":
    """Begin to import a copy of the session."""
    exported, _ = await export_record(service, "run")
    with exported:
        file = io.BytesIO(exported.read())
    examined = await examine_record(service, file, "copy")
    return asyncio.ensure_future(import_record(service, file, examined))


def after_the_end(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once the last transaction of an import was written, before its commit."""
    finish = record.finish

    def finished(*args: Any) -> None:
        finish(*args)
        act()

    monkeypatch.setattr(record, "finish", finished)


def copies(service: Service) -> list[int]:
    """Return how many rows each table has of the copy, and whether it is there."""
    with service.store.snapshot() as connection:
        of = select(sessions.c.id).where(sessions.c.name != "run")
        counts = [
            connection.scalar(
                select(func.count()).select_from(each).where(each.c.session_id.in_(of))
            )
            for each in OF_A_SESSION
        ]
        there = connection.scalar(select(func.count()).select_from(of.subquery()))
    return [number or 0 for number in (*counts, there)]


async def seal_in_both(service: Service) -> None:
    """Let trainers ask for steps, and compare what they are given."""
    given = [
        (await service.writer.submit(Change(name, (Seal(10, 5, 1),)))).entry.stored.session
        for name in ("run", "copy")
    ]
    assert given[0].horizon == given[1].horizon == 15


def test_an_import_whose_last_commit_is_in_doubt_stays_if_it_was_kept(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears that it is not known; trainers go on with the session that they see."""
    refuse = SqliteStore._refuse_if_lost
    doubts: list[bool] = []

    def refused(store: SqliteStore, **options: Any) -> None:
        if doubts and options.get("kept") == "perhaps":
            doubts.clear()
            raise StorageUnavailableError("Input/output error", kept="perhaps")
        refuse(store, **options)

    monkeypatch.setattr(SqliteStore, "_refuse_if_lost", refused)
    after_the_end(monkeypatch, lambda: doubts.append(True))

    async def scene() -> None:
        importing = await begun(service)
        with pytest.raises(StorageUnavailableError, match="is not known"):
            await importing
        await seal_in_both(service)

    asyncio.run(scene())


def test_an_import_that_is_cancelled_during_its_last_commit_stays(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed all the same, so that trainers may have been given its steps already."""

    async def scene() -> None:
        importing = await begun(service)
        loop = asyncio.get_running_loop()
        after_the_end(monkeypatch, lambda: loop.call_soon_threadsafe(importing.cancel))
        with pytest.raises(asyncio.CancelledError):
            await importing
        await seal_in_both(service)

    asyncio.run(scene())


def test_an_import_that_fails_before_its_end_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are dropped, from all tables, and its name is free."""

    def fail(*_: object) -> None:
        raise StorageUnavailableError("Input/output error")

    monkeypatch.setattr(record, "finish", fail)

    async def scene() -> None:
        importing = await begun(service)
        with pytest.raises(StorageUnavailableError):
            await importing
        with suppress(SessionNotFoundError):
            await service.writer.find("copy")
            pytest.fail("it is there")

    asyncio.run(scene())
    assert not any(copies(service))
