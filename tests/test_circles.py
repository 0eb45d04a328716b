"""An exception is freed once its call is answered, without the garbage collector.

An exception holds the frames that it came through. Where one of them holds what the exception came
with, a future or a job, all of it stays, with the body of the call, until a collection.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import pytest
from starlette.requests import Request

from pacesetter_service.api.callers import unless_gone
from pacesetter_service.core.commands import Report, Seal
from pacesetter_service.core.cost import Check
from pacesetter_service.core.errors import PacesetterError, StorageUnavailableError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.pool import Pool, in_thread
from pacesetter_service.runtime.versions import VersionReader
from pacesetter_service.runtime.work import Change, Create, Find
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.writing import SqlTransaction


class FaultError(Exception):
    """The error that is raised here."""


@pytest.fixture(autouse=True)
def _nothing_else_holds_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Disable the garbage collector, and keep errors out of the log, whose records pytest holds."""
    monkeypatch.setattr("pacesetter_service.runtime.writer.commit_failures.tell", fall_silent)
    monkeypatch.setattr(
        "pacesetter_service.runtime.writer.log.exception", fall_silent, raising=False
    )
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fall_silent(*_: object, **__: object) -> None:
    """Do nothing."""


def fail(*_: object) -> None:
    """Raise an error."""
    raise FaultError


async def raised_by(call: Callable[[], Awaitable[object]]) -> ReferenceType[Exception]:
    """Return a weak reference to what a call raises."""
    try:
        await call()
    except (FaultError, PacesetterError) as error:
        return ref(error)
    raise AssertionError("nothing was raised")


def play(scene: Callable[[], Coroutine[Any, Any, None]], writer: Writer) -> None:
    """Play a scene with a writer, started or not, and end that and its store."""
    try:
        asyncio.run(scene())
    finally:
        writer.stop()
        writer._store.close()


async def _by_thread() -> None:
    await in_thread(fail)


async def _by_pool() -> None:
    pool = Pool("reads", workers=1, waiting=1)

    def failing(_check: Check) -> None:
        fail()

    try:
        await pool.run(failing)
    finally:
        pool.close()


async def _by_versions() -> None:
    def away(_names: object) -> dict[str, int]:
        raise StorageUnavailableError("it is away")

    await VersionReader(away).version("run")


async def _by_caller() -> None:
    async def silence() -> dict[str, str]:
        await asyncio.sleep(60)
        return {}

    async def failing() -> None:
        await asyncio.sleep(0.01)
        fail()

    await unless_gone(Request({"type": "http"}, silence), failing())


@pytest.mark.parametrize("call", [_by_thread, _by_pool, _by_versions, _by_caller])
def test_what_a_function_raises_is_gone_with_its_call(call: Callable[[], Awaitable[None]]) -> None:
    """It may be raised on a thread of the loop, of a pool, by a shared query, or by a use case."""

    async def scene() -> None:
        left = await raised_by(call)
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(5):
                while left() is not None:
                    await asyncio.sleep(0.01)  # the thread that has raised it lets go of it
        assert left() is None

    asyncio.run(scene())


@pytest.mark.parametrize("alone", [True, False])
def test_what_the_writer_refuses_is_gone_with_its_call(tmp_path: Path, alone: bool) -> None:
    """It may be alone in its batch or beside others, whose changes it would hold as well."""
    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    writer = Writer(store)
    writer.start()
    stale = Change("run", (Report((), attempt=7), Seal(0, 1, attempt=7)))

    async def scene() -> None:
        await writer.submit(Create(SessionSpec(name="run", base_lr=0.1)))
        others = [] if alone else [Change("run", (Seal(step, 1),)) for step in range(3)]
        beside = [asyncio.ensure_future(writer.submit(each)) for each in others]
        left = await raised_by(lambda: writer.submit(stale))
        await asyncio.gather(*beside)
        del beside
        await writer.submit(Change("run", (Seal(0, 1),)))  # the batch of before is over
        await asyncio.sleep(0)
        assert left() is None

    play(scene, writer)


class _Away(SqliteStore):
    """A store whose database is away."""

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        """Raise that the database is away."""
        try:
            fail()
        except FaultError as cause:
            raise StorageUnavailableError("it is away") from cause
        yield


def test_what_the_database_refuses_is_gone_with_its_callers(tmp_path: Path) -> None:
    """Its cause is freed as well, which has come through the same frames; so it is for a call."""
    store = _Away(f"sqlite:///{tmp_path}/pacesetter.db")
    writer = Writer(store)
    writer.start()

    def refuse() -> None:
        with store.begin():
            pass

    async def scene() -> None:
        for number in range(2):
            new = Create(SessionSpec(name=f"run-{number}", base_lr=0.1))
            for call in (partial(writer.submit, new), partial(writer.call, refuse)):
                left = await raised_by(call)
                with suppress(PacesetterError):
                    await writer.submit(Find("none"))  # what the writer did before is over
                await asyncio.sleep(0)
                assert left() is None

    play(scene, writer)


def test_what_one_job_alone_is_refused_is_gone_with_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch has failed in an unforeseen way, and each job is tried alone."""
    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    writer = Writer(store)
    settled = writer._settled

    def tried(jobs: Sequence[Any]) -> int:
        if len(jobs) > 1:
            raise RuntimeError("unforeseen")
        settled(jobs)
        raise StorageUnavailableError("it is away")

    monkeypatch.setattr(writer, "_settled", tried)

    async def scene() -> None:
        calls = [
            raised_by(partial(writer.submit, Create(SessionSpec(name=name, base_lr=0.1))))
            for name in ("one", "other")
        ]
        waiting = asyncio.gather(*calls)
        await asyncio.sleep(0)  # both are queued before the writer takes any
        writer.start()
        left = await waiting
        with suppress(PacesetterError):
            await writer.submit(Find("none"))
        await asyncio.sleep(0)
        assert [each() for each in left] == [None, None]

    play(scene, writer)
