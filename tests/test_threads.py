"""Threads that the system refuses to start: callers hear of it, and the next call is served."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import uvicorn

from pacesetter_service.__main__ import _Server
from pacesetter_service.core.commands import Archive
from pacesetter_service.core.errors import BusyError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.backups import BackupError, Backups
from pacesetter_service.runtime.census import Census, Found
from pacesetter_service.runtime.operator import purge_session
from pacesetter_service.runtime.pool import Pool, in_thread
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore
from serving import PATIENCE


@contextmanager
def refused(name: str) -> Iterator[None]:
    """Let the system start no thread of a name, as at the limit of its processes."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        real(thread)

    with patch.object(threading.Thread, "start", start):
        yield


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_pool_whose_threads_were_refused_works_once_they_are_not() -> None:
    """Calls are refused, as many as there could be threads; none of them is done later."""
    done: list[str] = []

    async def scene() -> None:
        pool = Pool("reads", workers=2, waiting=1)
        with refused("reads"):
            for _ in range(5):
                with pytest.raises(BusyError):
                    await pool.run(lambda _check: done.append("refused"))
        await asyncio.wait_for(pool.run(lambda _check: done.append("served")), PATIENCE)
        pool.close()

    asyncio.run(scene())
    assert done == ["served"]


def test_a_pool_does_with_the_threads_that_it_has() -> None:
    """If the system refuses the second thread, the first does the work of both."""
    begun, release = threading.Event(), threading.Event()

    async def scene() -> None:
        pool = Pool("reads", workers=2, waiting=1)

        def wait(_check: object) -> str:
            begun.set()
            release.wait(PATIENCE)
            return threading.current_thread().name

        first = asyncio.ensure_future(pool.run(wait))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        with refused("reads"):
            second = asyncio.ensure_future(pool.run(wait))
            await asyncio.sleep(0)
        release.set()
        assert await asyncio.gather(first, second) == ["reads-1", "reads-1"]
        pool.close()

    asyncio.run(scene())


def test_a_thread_of_the_event_loop_that_was_refused_is_no_unforeseen_error() -> None:
    """The caller is asked to come again, and is served then."""

    async def scene() -> None:
        with refused("AnyIO"), pytest.raises(BusyError):
            await in_thread(lambda: "refused")
        assert await in_thread(lambda: "served") == "served"

    asyncio.run(scene())


def test_a_look_whose_thread_was_refused_is_taken_by_the_next_caller() -> None:
    """The caller before it gets the last figures, and waits for none."""
    census = Census(lambda: Found({"active": 1}), every=1e6, patience=PATIENCE)
    with refused("census"):
        assert census.newest().sessions == {}
    assert census.newest().sessions == {"active": 1}


def test_a_purge_is_done_though_its_janitor_was_refused(tmp_path: Path) -> None:
    """The caller hears that it is done; the next purge removes the rows of both."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)

    async def scene() -> None:
        for name in ("a", "b"):
            await writer.submit(Create(SessionSpec(name=name, base_lr=0.1)))
            await writer.submit(Change(name, (Archive(),)))
        with refused("janitor"):
            await purge_session(service, "a", "bo")
        assert store.has_hidden()
        await purge_session(service, "b", "bo")

    asyncio.run(scene())
    until(lambda: not store.has_hidden())
    service.close()
    writer.stop()
    store.close()


def test_a_service_whose_janitor_was_refused_ends(tmp_path: Path) -> None:
    """A thread that never ran is not waited for."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'own.db'}")
    writer = Writer(store)
    writer.start()
    service = Service.over(store, writer)
    with refused("janitor"):
        service.janitor.wake()
    service.close()
    writer.stop()
    store.close()


def test_a_copy_whose_thread_was_refused_is_refused(tmp_path: Path) -> None:
    """The admin hears why, and the next one is made."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
    some = Backups(store)
    with refused("backup"), pytest.raises(BackupError, match="no further thread"):
        some.begin("ann")
    assert some.copying() is None
    some.begin("ann")
    until(lambda: some.copying() is None)
    assert some.copies()
    store.close()


def test_a_stop_begins_though_the_thread_that_bounds_it_was_refused() -> None:
    """The service ends as soon as its calls have ended."""
    nothing = cast("Any", None)
    server = _Server(uvicorn.Config(nothing), nothing, is_open=False, seconds=60.0)
    with refused("Thread"):
        server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
