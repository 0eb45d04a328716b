"""What the store in PostgreSQL does about that database in particular."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, make_url, text, update

import postgres
from pacesetter_service.core.commands import Archive, Reading, Report, Seal
from pacesetter_service.core.errors import SessionPurgedError, StorageUnavailableError
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.queries.sessions import read_session
from pacesetter_service.runtime.ranks import RankTracker, wall_clock
from pacesetter_service.runtime.retention import keep_settings
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.shared_ranks import tell_others
from pacesetter_service.runtime.work import Change, Create, Find, Fork, Outcome
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store import block_table, moments, newest, purging, record, schema
from pacesetter_service.store.lists import as_parameter
from pacesetter_service.store.postgres import PostgresStore
from serving import PATIENCE


@pytest.fixture(name="anyio_backend")
def _anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    """Return the URL of an empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture(name="store")
def _store(url: str) -> Iterator[PostgresStore]:
    """Open a store."""
    store = PostgresStore(url)
    yield store
    store.close()


def connected(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect to a database as another program would."""
    address = make_url(url).set(drivername="postgresql")
    return psycopg.connect(address.render_as_string(hide_password=False))


LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


@pytest.mark.parametrize("through", ["directly", "pgbouncer"])
def test_a_transaction_has_its_limits_and_leaves_none_behind(through: str) -> None:
    """Nothing waits for ever, and a commit is flushed even where the server is configured not to.

    The next user of the connection, behind PgBouncer another program, has its own settings.
    """
    names = (*LIMITS, "synchronous_commit")
    show = text(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
    with postgres.database() as direct:
        database = str(make_url(direct).database)
        set_to = sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}")
        with connected(direct) as other:
            other.execute(set_to.format(sql.Identifier(database), sql.SQL("off")))
        through_it = through == "pgbouncer"
        url = postgres.url_of(database, postgres.bouncer()) if through_it else direct
        store = PostgresStore(url)
        plain = create_engine(url, connect_args={"prepare_threshold": None})
        try:
            with store.transaction() as connection:
                assert tuple(connection.execute(show).one()) == ("30s", "2s", "10s", "on")
            with store.snapshot() as connection:
                assert tuple(connection.execute(show).one())[:3] == ("30s", "2s", "1min")
            with plain.connect() as connection:
                assert tuple(connection.execute(show).one())[:3] == ("0", "0", "0")
        finally:
            plain.dispose()
            store.close()
            with connected(direct) as other:
                other.execute(set_to.format(sql.Identifier(database), sql.SQL("on")))


@pytest.mark.anyio
async def test_a_deadlock_costs_another_try(store: PostgresStore, url: str) -> None:
    """A transaction that the server aborts to break a deadlock is decided and written again."""
    writer = Writer(store)
    writer.start()
    try:
        for name in ("one", "two"):
            await writer.submit(Create(SessionSpec.model_validate({"name": name, "base_lr": 0.1})))
        with connected(url) as other:
            other.execute("SET deadlock_timeout = '1h'")  # so that the service's is aborted
            other.execute("SELECT 1 FROM sessions WHERE name = 'two' FOR UPDATE")
            blocked = threading.Event()

            def meet() -> None:
                _wait_until_blocked(url)
                blocked.set()
                other.execute("SELECT 1 FROM sessions WHERE name = 'one' FOR UPDATE")
                other.rollback()

            meeting = threading.Thread(target=meet)
            meeting.start()

            outcomes = await asyncio.gather(
                *(writer.submit(Change(name, (Seal(0, 4),))) for name in ("one", "two"))
            )
            meeting.join(PATIENCE)
        assert blocked.is_set()
        assert [each.entry.stored.session.horizon for each in outcomes] == [4, 4]
    finally:
        writer.stop()


@pytest.mark.anyio
async def test_a_purge_and_a_fork_at_once_come_in_turn(store: PostgresStore, url: str) -> None:
    """A fork waits for a purge that has already looked for forks, and finds its source purged."""
    spec = {"name": "source", "base_lr": 0.1}
    another = PostgresStore(url)
    purging_it, forking = Writer(store), Writer(another)
    purging_it.start()
    forking.start()
    try:
        await purging_it.submit(Create(SessionSpec.model_validate(spec)))
        await purging_it.submit(Change("source", (Seal(0, 4),)))
        await forking.submit(Change("source", (Archive(),)))
        fork = Fork("source", SessionSpec.model_validate({**spec, "name": "fork"}), 2)
        loop, forked = asyncio.get_running_loop(), list[Future[Outcome]]()

        def hide() -> None:
            with store.transaction() as connection:
                purging.hide(connection, "source", "bo", wall_clock())
                made = asyncio.run_coroutine_threadsafe(forking.submit(fork), loop)
                forked.append(made)
                _wait_until_blocked(url, or_done=made.done)

        await purging_it.call(hide)
        with pytest.raises(SessionPurgedError):
            await asyncio.wrap_future(forked[0])
    finally:
        purging_it.stop()
        forking.stop()
        another.close()


def _wait_until_blocked(url: str, or_done: Callable[[], bool] = bool) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
    with connected(url) as connection:
        connection.autocommit = True
        pause = threading.Event()
        for _ in range(int(PATIENCE * 100)):
            if connection.execute(f"{waiting} AND wait_event_type = 'Lock'").fetchone():
                return
            if or_done():
                return
            pause.wait(0.01)
    raise AssertionError("nothing waits for a lock")


@pytest.mark.anyio
async def test_an_order_of_a_lock_that_is_held_too_long_is_tried_again(
    store: PostgresStore, url: str
) -> None:
    """If another client holds the row of ids past the lock timeout, a session is created later."""
    writer = Writer(store)
    writer.start()
    try:
        with connected(url) as other:
            other.execute("SELECT 1 FROM ids FOR UPDATE")

            spec = SessionSpec.model_validate({"name": "run", "base_lr": 0.1})
            creating = asyncio.ensure_future(writer.submit(Create(spec)))
            assert not (await asyncio.wait((creating,), timeout=2.2))[0]
        assert (await creating).created
    finally:
        writer.stop()


@pytest.mark.anyio
async def test_writers_whose_batches_overlap_in_any_order_do_not_deadlock(url: str) -> None:
    """New sessions, new metrics and old sessions are written in opposite orders by two writers."""
    before = _deadlocks(url)
    stores = [PostgresStore(url) for _ in range(2)]
    writers = [Writer(store) for store in stores]
    names = [f"s{number}" for number in range(12)]
    try:
        for writer in writers:
            writer.start()
        for turn in range(6):
            reading = tuple(Reading(0, turn, f"m{turn}-{number}", 1.0) for number in range(9))
            works = [
                writer.submit(work)
                for writer, order in zip(writers, (names, names[::-1]), strict=True)
                for name in order
                for work in (
                    Create(SessionSpec.model_validate({"name": f"{name}-{turn}", "base_lr": 0.1})),
                    Change(f"{name}-{turn}", (Seal(0, 8), Report(reading))),
                )
            ]
            await asyncio.gather(*works)
    finally:
        for writer, store in zip(writers, stores, strict=True):
            writer.stop()
            store.close()
    assert _deadlocks(url) == before


def _deadlocks(url: str) -> int:
    """Return how many deadlocks the server has broken, those of closed connections included."""
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with connected(url) as connection:
        [number] = connection.execute(query).fetchone() or (0,)
    return int(str(number))


def test_a_database_is_created_and_then_continued(url: str) -> None:
    """The first store creates it; every other store finds it, in the same epoch."""
    PostgresStore(url).close()
    with connected(url) as connection:
        connection.execute("DELETE FROM continuity")
    found = []
    for _ in range(3):
        store = PostgresStore(url)
        found.append(store.continuity)
        store.close()
    assert [each.reason for each in found] == ["created", "continued", "continued"]
    assert len({each.epoch for each in found}) == 1


def test_a_copy_of_a_database_begins_an_epoch(store: PostgresStore, url: str) -> None:
    """pg_restore puts the same rows into other tables; running services detect that."""
    before = store.epoch
    assert store.look_at_continuity() is None
    with connected(url) as connection:
        connection.execute("CREATE TABLE put_back (LIKE continuity INCLUDING ALL)")
        connection.execute("INSERT INTO put_back SELECT * FROM continuity")
        connection.execute("DROP TABLE continuity")
        connection.execute("ALTER TABLE put_back RENAME TO continuity")
    other = PostgresStore(url)
    try:
        assert other.continuity.reason == "restored"
        assert other.epoch != before
        found = store.look_at_continuity()
        assert found is not None
        assert store.epoch == found.epoch == other.epoch
        assert store.look_at_continuity() is None
    finally:
        other.close()


@pytest.mark.anyio
async def test_a_database_that_goes_back_while_it_is_served_is_noticed(
    store: PostgresStore, url: str
) -> None:
    """If a session is older than what was committed here, nothing is sealed in its place.

    This happens after a fail-over to a standby that had not received all commits.
    """
    writer = Writer(store)
    writer.start()
    try:
        await writer.submit(Create(SessionSpec.model_validate({"name": "run", "base_lr": 0.1})))
        await writer.submit(Change("run", (Seal(0, 8),)))
        epoch = store.epoch
        with connected(url) as connection:
            connection.execute("UPDATE sessions SET version = 1, horizon = 0, held = 0")
            connection.execute("DELETE FROM sealed")
        with pytest.raises(StorageUnavailableError, match="has lost"):
            await writer.submit(Change("run", (Seal(8, 8),)))
        assert store.epoch != epoch
        assert (await writer.find("run")).stored.session.horizon == 0
    finally:
        writer.stop()


@pytest.mark.anyio
async def test_a_session_that_is_lost_is_noticed_though_one_of_its_name_was_purged(
    store: PostgresStore,
) -> None:
    """A purge accounts only for the attempts that existed until then."""
    writer = Writer(store)
    writer.start()
    try:
        for _ in range(2):
            spec = SessionSpec.model_validate({"name": "run", "base_lr": 0.1})
            made = await writer.submit(Create(spec))
            await writer.submit(Change("run", (Archive(),)))
            if made.entry.stored.session.attempt.number == 1:
                await writer.call(lambda: _hidden(store, writer))
        await writer.call(lambda: _lost(store, made.entry.stored.id))
        epoch = store.epoch
        with pytest.raises(StorageUnavailableError, match="has lost"):
            await writer.submit(Find("run"))
        assert store.epoch != epoch
    finally:
        writer.stop()


@pytest.mark.anyio
async def test_ranks_of_a_session_that_was_purged_do_not_come_back(store: PostgresStore) -> None:
    """A replica that heard of them writes them after the purge, with those of other sessions."""
    writer, tracker = Writer(store), RankTracker(shares=True)
    writer.start()
    try:
        assert store.ranks is not None
        for name in ("run", "kept"):
            await writer.submit(Create(SessionSpec.model_validate({"name": name, "base_lr": 0.1})))
        for rank in (0, 1):
            for name in ("run", "kept"):
                tracker.record_call(name, rank, 1, 0)
            tell_others(tracker, store.ranks)
            assert set(store.ranks.read("kept")[1]) == set(range(rank + 1))
        await writer.submit(Change("run", (Archive(),)))
        for name in ("run", "kept"):
            tracker.record_call(name, 2, 1, 0)
        await writer.call(lambda: _hidden(store, writer))
        tell_others(tracker, store.ranks)
        assert set(store.ranks.read("kept")[1]) == {0, 1, 2}
        assert not store.ranks.read("run")[1]
    finally:
        writer.stop()


@pytest.mark.anyio
async def test_a_training_that_calls_at_another_replica_is_not_silent(
    store: PostgresStore, url: str
) -> None:
    """Though nothing was written for long, it is shown as active, and no setting archives it."""
    writer, elsewhere = Writer(store), RankTracker(shares=True)
    writer.start()
    service = Service.over(store, writer)
    try:
        assert store.ranks is not None
        for name in ("heard", "silent"):
            await writer.submit(Create(SessionSpec.model_validate({"name": name, "base_lr": 0.1})))
            await writer.submit(Change(name, (Seal(0, 4),)))
        elsewhere.record_call("heard", 0, 1, 0)
        tell_others(elsewhere, store.ranks)
        with connected(url) as other:
            other.execute("UPDATE sessions SET changed_at = '2020-01-01T00:00:00.000+00:00'")
            other.execute("UPDATE sessions SET version = version + 1")
        states = {"heard": "active", "silent": "silent"}
        assert {name: (await read_session(service, name)).state for name in states} == states
        await keep_settings(service, 1.0, None, lambda: False)
        states = {"heard": "active", "silent": "archived"}
        assert {name: (await read_session(service, name)).state for name in states} == states
    finally:
        service.close()
        writer.stop()


def _hidden(store: PostgresStore, writer: Writer) -> None:
    with store.transaction() as connection:
        purging.hide(connection, "run", "bo", wall_clock())
    writer.forget("run")


def _lost(store: PostgresStore, session_id: int) -> None:
    with store.transaction() as connection:
        mine = update(schema.sessions).where(schema.sessions.c.id == session_id)
        connection.execute(mine.values(status=record.IMPORTING))
        record.drop(connection, session_id)


def test_what_belongs_to_a_list_is_found_by_an_index(store: PostgresStore) -> None:
    """So are few long series: PostgreSQL cannot estimate a list's length, and may scan them all."""
    with store._writer.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO reading_blocks SELECT s, 1, 1, 10 * b, 0, 10 * b - 10, 10, '\\x00'"
                " FROM generate_series(1, 20) AS s, generate_series(1, 2000) AS b"
            )
        )
        connection.execute(
            text(
                "INSERT INTO sealed SELECT s, 1, b, 1, '\\x00', 0"
                " FROM generate_series(1, 20) AS s, generate_series(1, 2000) AS b"
            )
        )
        connection.execute(text("ANALYZE reading_blocks, sealed"))
        of_blocks = block_table._statements(schema.reading_blocks, connection.dialect)
        queries = [
            of_blocks.sizes,
            of_blocks.newest,
            of_blocks.ends,
            of_blocks.overlapping,
            newest._windows(connection.dialect),
            moments._written(connection.dialect),
        ]
        given = {"wanted": as_parameter([(1, 1, 1, 19_900, 19_990)]), "most": 256}
        for query in queries:
            asked = {name: value for name, value in given.items() if f":{name}" in query.text}
            plan = connection.execute(text(f"EXPLAIN {query.text}"), asked).scalars().all()
            assert any("Index" in line for line in plan), plan
            assert not any("Seq Scan" in line for line in plan), plan
