"""Changes by other services, heard at once through PostgreSQL's LISTEN and NOTIFY."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import postgres
from little_servers import LittleServer, say_nothing
from pacesetter_service.core.commands import Seal
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime import listening, polling
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import notifications
from pacesetter_service.store.notifications import ANY, DeafConnectionError
from pacesetter_service.store.opening import open_store
from pacesetter_service.store.postgres import NETWORK, PostgresStore
from pacesetter_service.store.served import UnusableDatabaseError
from serving import PATIENCE


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    """Return the URL of an empty PostgreSQL database."""
    with postgres.database() as url:
        yield url


def test_what_is_told_through_pgbouncer_is_heard_past_it() -> None:
    """Names arrive as sent, or as `ANY` if there are too many; the connection test is not heard."""
    with postgres.database(by=postgres.bouncer()) as pooled:
        name = pooled.partition("@/")[2].partition("?")[0]
        direct = postgres.url_of(name, postgres.server())
        store = PostgresStore(pooled)
        try:
            with store.listening(direct) as heard:
                store.notify(["run-b", "run-a"])
                assert heard.heard(PATIENCE) == {"run-a", "run-b"}
                store.notify([f"run-{number:0120}" for number in range(100)])
                assert heard.heard(PATIENCE) == {ANY}
        finally:
            store.close()


def test_a_connection_through_pgbouncer_is_found_to_hear_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PgBouncer accepts LISTEN without an error, so a notification tests the connection."""
    monkeypatch.setattr(notifications, "TEST_SECONDS", 0.2)
    with postgres.database(by=postgres.bouncer()) as pooled:
        store = PostgresStore(pooled)
        try:
            with pytest.raises(DeafConnectionError, match="heard"), store.listening(pooled):
                pass
        finally:
            store.close()


def test_a_listener_ends_though_its_database_says_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that hangs delays the end of a service by some seconds at most."""
    monkeypatch.setitem(NETWORK, "connect_timeout", 2)
    store, begun = PostgresStore(url), threading.Event()

    def mute(connection: socket.socket) -> None:
        begun.set()
        say_nothing(connection)

    try:
        with LittleServer(mute) as server:
            nowhere = f"postgresql+psycopg://nobody@127.0.0.1:{server.port}/lr"
            listener = listening.Listener(store, nowhere, lambda _names: None)
            listener.start()
            assert begun.wait(PATIENCE)
            listener.stop()  # while it waits for an answer that never comes
    finally:
        store.close()


@pytest.mark.anyio
async def test_a_service_that_listens_hears_of_a_change_without_looking(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an hour between two polls, a caller at one service learns what another has written."""
    monkeypatch.setattr(polling, "EVERY", 3600.0)
    stores = [PostgresStore(url, listen_url=url) for _ in range(2)]
    writers = [Writer(store) for store in stores]
    for writer in writers:
        writer.start()
    services = [Service.over(*each) for each in zip(stores, writers, strict=True)]
    try:
        waiting = asyncio.ensure_future(services[1].logged.news("run", 10 * PATIENCE))
        await writers[0].submit(Create(SessionSpec.model_validate({"name": "run", "base_lr": 0.1})))
        for step in range(int(PATIENCE * 10)):  # it may be a while until the service listens
            await writers[0].submit(Change("run", (Seal(step, 1),)))
            if (await asyncio.wait((waiting,), timeout=0.1))[0]:
                break
        assert waiting.done()
    finally:
        for service, writer, store in zip(services, writers, stores, strict=True):
            service.close()
            writer.stop()
            store.close()


@pytest.mark.anyio
async def test_a_service_that_hears_nothing_says_so_and_goes_on_looking(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler in front of the listening connection costs a quarter of a second, and no more."""
    monkeypatch.setattr(notifications, "TEST_SECONDS", 0.1)
    said: list[str] = []
    monkeypatch.setattr(listening.log, "warning", lambda event, **_: said.append(event))
    name = url.partition("@/")[2].partition("?")[0]
    store = PostgresStore(url, listen_url=postgres.url_of(name, postgres.bouncer()))
    elsewhere = PostgresStore(url)
    writer, other = Writer(store), Writer(elsewhere)
    for each in (writer, other):
        each.start()
    service = Service.over(store, writer)
    try:
        waiting = asyncio.ensure_future(service.logged.news("run", 10 * PATIENCE))
        spec = SessionSpec.model_validate({"name": "run", "base_lr": 0.1})
        await other.submit(Create(spec))
        await asyncio.wait_for(waiting, PATIENCE)
        for _ in range(int(PATIENCE * 20)):
            if said:
                break
            await asyncio.sleep(0.05)
        assert said[0] == "not_listening"
    finally:
        service.close()
        for each, opened in ((writer, store), (other, elsewhere)):
            each.stop()
            opened.close()


def test_a_listen_url_is_for_postgresql(tmp_path: Path) -> None:
    """With SQLite, or for another database, it is refused at the start."""
    with pytest.raises(UnusableDatabaseError, match="listen-url"):
        open_store(f"sqlite:///{tmp_path}/alone.db", listen_url="postgresql+psycopg:///lr")
    with pytest.raises(UnusableDatabaseError, match="listen-url"):
        open_store("postgresql+psycopg:///lr", listen_url=f"sqlite:///{tmp_path}/alone.db")


def test_a_listening_connection_that_is_lost_says_so() -> None:
    """The listener then opens another one."""
    with postgres.database() as url:
        store = PostgresStore(url)
        try:
            with store.listening(url) as heard:
                conninfo = url.replace("+psycopg", "")
                with psycopg.connect(conninfo, autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(%s)", (heard._connection.info.backend_pid,)
                    )
                with pytest.raises(StorageUnavailableError):
                    heard.heard(PATIENCE)
        finally:
            store.close()
