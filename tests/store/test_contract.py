"""What every store guarantees, with two writers on one database.

Each writer has its own store, memory and thread, as two processes would have. Another database is
one more parameter of the fixture `open_store`.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import postgres
from pacesetter_service.catalogue.templates import Template
from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.bounds import Bounds
from pacesetter_service.core.bounds import Changes as Changed
from pacesetter_service.core.commands import Act, Archive, Await, Reading, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.draft import Draft
from pacesetter_service.core.errors import (
    AwaitingMeasurementError,
    BeyondBoundsError,
    ConflictError,
    PacesetterError,
    SessionExistsError,
    SessionHasForksError,
    SessionNotFoundError,
    SessionPurgedError,
    StaleAttemptError,
)
from pacesetter_service.core.events import Acted, Awaited, Measured, Ordered
from pacesetter_service.core.session import Attempt, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.core.tokens import NameScope, Token
from pacesetter_service.core.wait import LONGEST_GAP
from pacesetter_service.runtime.keyring import read_tokens
from pacesetter_service.runtime.operator import purge_session
from pacesetter_service.runtime.ranks import NEVER
from pacesetter_service.runtime.service import Service
from pacesetter_service.runtime.templates import publish_template
from pacesetter_service.runtime.trainer import SyncCall, sync
from pacesetter_service.runtime.work import Change, Create, Find, Fork, Open, Outcome
from pacesetter_service.runtime.writer import TRIES, Writer
from pacesetter_service.store import purging, tokens
from pacesetter_service.store.feed import Wanted
from pacesetter_service.store.listing import Listing, Place
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.schema import OF_A_SESSION
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.store import Store
from written import NOW, write

OpenStore = Callable[[], Store]


@pytest.fixture(name="open_store", params=["sqlite", "postgresql", "pgbouncer"])
def _open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Return a function that opens one more store on the same database."""
    opened: list[Store] = []
    with contextlib.ExitStack() as ends:
        if request.param != "sqlite":
            by = postgres.bouncer() if request.param == "pgbouncer" else ""
            address = ends.enter_context(postgres.database(by=by))
            opening: OpenStore = partial(PostgresStore, address)
        else:
            address = f"sqlite:///{tmp_path}/shared.db"
            opening = partial(SqliteStore, address, shared=True)

        def another() -> Store:
            opened.append(opening())
            return opened[-1]

        yield another
        for store in opened:
            store.close()


@pytest.fixture(name="store")
def _store(open_store: OpenStore) -> Store:
    """Open one store."""
    return open_store()


@pytest.fixture(name="writers")
async def _writers(open_store: OpenStore) -> AsyncIterator[tuple[Writer, Writer]]:
    """Run two writers on one database."""
    both = Writer(open_store()), Writer(open_store())
    for writer in both:
        writer.start()
    yield both
    for writer in both:
        writer.stop()


@pytest.fixture(name="anyio_backend")
def _anyio_backend() -> str:
    return "asyncio"


def spec(name: str = "run", **more: Any) -> SessionSpec:
    """Describe a session that halves its rate whenever its metric gets no better."""
    rule = {"kind": "plateau", "metric": "loss", "factor": 0.5, "patience": 0}
    body = {"name": name, "base_lr": 0.1, "controllers": [rule], **more}
    return SessionSpec.model_validate(body)


def stored(store: Store, name: str = "run") -> Stored:
    """Return a new session as a writer would store it."""
    session, number = create(spec(name)), store.new_id()
    return Stored(number, session, 0, NOW, (AttemptRef(number, 1, 0),))


def changed(before: Stored, **fields: Any) -> Stored:
    """Return a session as a writer would store it after a change."""
    session = replace(before.session, **fields)
    return replace(before, session=session, version=before.version + 1)


def test_a_store_counts_its_sessions_and_knows_its_size(store: Store) -> None:
    """Sessions are counted by status, up to a limit; the disk is known only for a file."""
    kept = [stored(store, name) for name in ("one", "two", "three")]
    write(store, *(Changes(each) for each in kept))
    write(store, Changes(changed(kept[0], status="archived"), before=kept[0]))
    assert store.statuses(100) == {"active": 2, "archived": 1}
    assert sum(store.statuses(2).values()) == 2
    extent = store.extent()
    assert extent.size > 4096
    if isinstance(store, SqliteStore):
        assert extent.free is not None
        assert extent.disk is not None
        assert 0 < extent.free <= extent.disk
    else:
        assert (extent.free, extent.disk) == (None, None)


# -- transactions ---------------------------------------------------------------------------------


def test_a_session_that_was_written_is_read_by_every_store(open_store: OpenStore) -> None:
    """A session that one store commits is loaded by another one, with its version."""
    one, two = open_store(), open_store()
    before = stored(one)
    write(one, Changes(before))
    after = changed(before, revision=7)
    write(two, Changes(after, before=before))
    loaded = one.load("run")
    assert loaded is not None
    assert (loaded.version, loaded.session.revision, loaded.id) == (2, 7, before.id)


def test_who_has_read_an_older_version_is_refused_and_nothing_is_kept(
    open_store: OpenStore,
) -> None:
    """The conflict names the session; nothing else of its transaction is kept either."""
    one, two = open_store(), open_store()
    mine, neighbour = stored(one), stored(one, "neighbour")
    write(one, Changes(mine), Changes(neighbour))
    write(two, Changes(changed(mine, revision=1), before=mine))
    with pytest.raises(ConflictError, match="'run'") as conflict:
        write(
            one,
            Changes(changed(neighbour, revision=2), before=neighbour),
            Changes(changed(mine, revision=2), before=mine),
        )
    assert conflict.value.names == ("run",)
    kept = {name: two.load(name) for name in ("run", "neighbour")}
    revisions = {name: each and each.session.revision for name, each in kept.items()}
    assert revisions == {"run": 1, "neighbour": 0}


def test_a_name_is_created_once(open_store: OpenStore) -> None:
    """Of two writers that create a session under one name the second is refused."""
    one, two = open_store(), open_store()
    write(one, Changes(stored(one)))
    with pytest.raises(ConflictError, match="'run'"):
        write(two, Changes(stored(two)))


@pytest.mark.parametrize("what", ["event", "sealed", "attempt", "measurement"])
def test_what_is_there_already_is_a_conflict(store: Store, what: str) -> None:
    """No event, block, attempt or measurement is ever silently dropped for one that is there."""
    before = stored(store)
    write(store, Changes(before))
    order = Act(Scale(factor=0.5), actor="ada")
    given = _order_of(before, order)
    attempt = 2 if what == "attempt" else 1
    after = replace(changed(before, revision=1, attempt=Attempt(attempt)), events=1)
    write(store, Changes(after, before=before, log=[given], **_extras(what)))
    again = replace(changed(after, revision=2), events=1)
    log = [given] if what == "event" else []
    with pytest.raises(ConflictError):
        write(store, Changes(again, before=after, log=log, **_extras(what)))


def _order_of(before: Stored, command: Act) -> Ordered:
    from pacesetter_service.core.decide import decide

    [event] = decide(before.session, command).events
    assert isinstance(event, Ordered)
    return event


def _extras(what: str) -> dict[str, Any]:
    import numpy as np

    from pacesetter_service.core.events import AttemptOpened, Measured, Sealed

    if what == "sealed":
        return {"sealed": [Sealed(0, 2, {"lr": np.array([0.1, 0.1])})]}
    if what == "attempt":
        return {"opened": AttemptOpened(2, 0, "key", "ada", ())}
    if what == "measurement":
        return {"measured": [(1, Measured(0, "loss", 1.0, 1, 1))]}
    return {}


def test_a_reading_that_is_there_already_counts_once(open_store: OpenStore) -> None:
    """Appending it again changes nothing, and NaN is kept as NaN."""
    one, two = open_store(), open_store()
    before = stored(one)
    write(one, Changes(before))
    for store, value in ((one, math.nan), (two, 5.0), (one, 6.0)):
        write(store, Changes(before, before=before, readings=[(1, Reading(0, 3, "loss", value))]))
    [reading] = two.readings_of(before.lineage)
    assert reading.step == 3
    assert math.isnan(reading.value)


def test_no_two_sessions_have_one_id(open_store: OpenStore) -> None:
    """This holds whichever store adds it, and after a store was closed with ids left unused."""
    one, two = open_store(), open_store()
    taken = [store.new_id() for _ in range(100) for store in (one, two)]
    taken.append(open_store().new_id())
    assert len(set(taken)) == len(taken)


def test_stale_versions_are_named(open_store: OpenStore) -> None:
    """A store names the sessions that differ from what a caller has read, and new ones."""
    one, two = open_store(), open_store()
    before = stored(one)
    assert list(two.stale({"run": 0})) == []
    write(one, Changes(before))
    assert list(two.stale({"run": 0, "none": 0})) == ["run"]
    assert list(two.stale({"run": 1})) == []


# -- two writers ----------------------------------------------------------------------------------


async def train(writer: Writer, steps: range, *, rank: int = 0, loss: float = 1.0) -> Outcome:
    """Seal and report steps as a single rank does: ask, train, report."""
    for step in steps:
        await writer.submit(Change("run", (Seal(step, 1),)))
        outcome = await writer.submit(
            Change("run", (Report((Reading(rank, step, "loss", loss),)),))
        )
    return outcome


@pytest.mark.anyio
async def test_orders_of_two_operators_are_two_orders(writers: tuple[Writer, Writer]) -> None:
    """Two operators who order simultaneously at two writers get two numbers; both orders apply."""
    one, two = writers
    await one.submit(Create(spec()))
    acts = [Act(Scale(factor=0.5), at=4, actor=f"operator {each}") for each in range(12)]
    outcomes = await asyncio.gather(
        *(writers[each % 2].submit(Change("run", (act,))) for each, act in enumerate(acts))
    )
    numbers = sorted(outcome.entry.stored.session.orders.given for outcome in outcomes)
    assert numbers[-1] == 12
    last = (await two.submit(Find("run"))).entry.stored
    assert [order.id for order in last.session.orders.waiting] == list(range(1, 13))
    await one.submit(Change("run", (Seal(0, 5, trains=True, at=0, pace=1.0),)))
    log = one._store.events_after(last, 0, limit=100)
    assert len([each for each in log if isinstance(each.event, Ordered)]) == 12


@pytest.mark.anyio
async def test_changes_with_bounds_are_counted_over_all_writers(
    writers: tuple[Writer, Writer],
) -> None:
    """Orders that race at two writers never exceed the bounds of their author."""
    one, _ = writers
    await one.submit(Create(spec()))
    bounds = Bounds(changes=Changed(count=3, per_steps=100))
    acts = [Act(Scale(factor=0.9), at=each, actor="agent", bounds=bounds) for each in range(12)]
    outcomes = await asyncio.gather(
        *(writers[each % 2].submit(Change("run", (act,))) for each, act in enumerate(acts)),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if isinstance(each, BeyondBoundsError)]
    assert (len(outcomes), len(refused)) == (12, 9)
    for writer in writers:
        book = (await writer.submit(Find("run"))).entry.stored.session.orders
        assert (book.given, len(book.counted["agent"])) == (3, 3)


def test_every_store_reads_the_bounds_of_a_token(open_store: OpenStore) -> None:
    """Bounds come back as they were written, and a token without bounds has none."""
    one, two = open_store(), open_store()
    bounds = Bounds(factor_range=(0.5, 2.0), changes=Changed(count=3, per_steps=100))
    bound = Token("a", "agent", "operator", "d", NOW, None, bounds=bounds)
    free = Token("b", "ann", "operator", "e", NOW, None)
    with one.transaction() as connection:
        tokens.write(connection, bound)
        tokens.write(connection, free)
    assert read_tokens(two) == [bound, free]


@pytest.mark.anyio
async def test_a_stale_memory_is_refreshed(writers: tuple[Writer, Writer]) -> None:
    """A writer that holds an old state still decides on the newest, and goes on from there."""
    one, two = writers
    await one.submit(Create(spec()))
    await two.submit(Find("run"))
    await train(one, range(5))
    outcome = await train(two, range(5, 8))
    assert outcome.entry.stored.session.horizon == 8
    values = two._store.sealed_between(outcome.entry.stored.lineage, 1, 0, 8)[0].tolist()
    assert values == [0.1, 0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125, 0.0015625]


@pytest.mark.anyio
async def test_sessions_that_two_writers_create_have_ids_of_their_own(
    writers: tuple[Writer, Writer],
) -> None:
    """This holds however their creations interleave, and equal names are one session."""
    names = [f"s{each}" for each in range(40)]
    outcomes = await asyncio.gather(
        *(writer.submit(Create(spec(name))) for name in names for writer in writers)
    )
    assert len({outcome.entry.stored.id for outcome in outcomes}) == len(names)
    assert sum(outcome.created for outcome in outcomes) == len(names)
    await writers[0].submit(Create(spec("taken")))
    with pytest.raises(SessionExistsError):
        await writers[1].submit(Create(spec("taken", ranks=2)))


@pytest.mark.anyio
async def test_readings_that_are_split_over_writers_close_a_measurement(
    writers: tuple[Writer, Writer],
) -> None:
    """Rank 0 reports to one writer and rank 1 to the other: the measurement has both values."""
    one, two = writers
    await one.submit(Create(spec(ranks=2)))
    for step in range(3):
        await one.submit(Change("run", (Seal(step, 1),)))
        for rank, writer in enumerate(writers):
            report = Report((Reading(rank, step, "loss", 1.0 + rank),))
            await writer.submit(Change("run", (report,)))
    outcome = await two.submit(Change("run", (Seal(3, 1),)))
    track = one._store.measurements_between(outcome.entry.stored.lineage, "loss", 0, 3)
    assert list(track.values) == [1.5, 1.5, 1.5]


@pytest.mark.anyio
async def test_of_two_restarts_that_race_each_is_an_attempt(
    writers: tuple[Writer, Writer],
) -> None:
    """Two keys make two attempts in either order; the second fences the first."""
    one, two = writers
    await one.submit(Create(spec()))
    await train(one, range(6))
    await two.submit(Find("run"))
    outcomes = await asyncio.gather(
        one.submit(Open("run", 3, "first")), two.submit(Open("run", 3, "second"))
    )
    attempts = sorted(outcome.entry.stored.session.attempt.number for outcome in outcomes)
    assert attempts == [2, 3]
    fenced = Change("run", (Seal(3, 1, attempt=2),))
    for writer in writers:
        with pytest.raises(StaleAttemptError):
            await writer.submit(fenced)


@pytest.mark.anyio
async def test_a_healthy_trainer_is_not_fenced_by_a_writer_that_is_behind(
    writers: tuple[Writer, Writer],
) -> None:
    """A writer whose memory still has attempt 1 lets the trainer of attempt 2 go on."""
    one, two = writers
    await one.submit(Create(spec()))
    await train(one, range(4))
    await two.submit(Find("run"))
    await one.submit(Open("run", 2, "restart"))
    outcome = await two.submit(Change("run", (Seal(2, 1, attempt=2),)))
    assert outcome.entry.stored.session.horizon == 3
    assert (await two.find("run")).stored.session.attempt.number == 2


@pytest.mark.anyio
async def test_a_service_that_is_behind_answers_by_the_newest_state(
    writers: tuple[Writer, Writer],
) -> None:
    """A sync of attempt 2, at a service that last saw attempt 1, gets the current window."""
    one, two = (Service.over(writer._store, writer) for writer in writers)
    try:
        await writers[0].submit(Create(spec()))
        await train(writers[0], range(4))
        await sync(two, _call(attempt=1, start=3))
        await writers[0].submit(Open("run", 2, "restart"))
        answer = await sync(two, _call(attempt=2, start=2))
        assert answer.block is not None
        assert (answer.attempt, answer.start, answer.block.tolist()) == (2, 2, [[0.05]])
        with pytest.raises(StaleAttemptError):
            await sync(two, _call(attempt=1, start=3))
    finally:
        one.close()
        two.close()


@pytest.mark.anyio
async def test_what_was_sealed_is_read_while_the_writer_is_busy(
    writers: tuple[Writer, Writer],
) -> None:
    """A trainer gets its window, and a reader the session, without the writer's thread."""
    one, two = (Service.over(writer._store, writer) for writer in writers)
    busy = threading.Event()
    try:
        await writers[0].submit(Create(spec()))
        for start in range(4):
            await sync(one, _call(attempt=1, start=start))
        seen = await writers[1].find("run")
        await sync(one, _call(attempt=1, start=4))
        blocking = asyncio.ensure_future(writers[1].call(busy.wait))
        for start in range(4):
            answer = await sync(two, _call(attempt=1, start=start))
            assert answer.block is not None
            assert (answer.start, answer.block.tolist()) == (start, [[0.1]])
        assert writers[1].remembered("run") is seen  # none of this went through the writer
        blocking_one = asyncio.ensure_future(writers[0].call(busy.wait))
        found = await asyncio.gather(*(writers[0].find("run") for _ in range(9)))
        assert {each.stored.session.horizon for each in found} == {5}
        newest = asyncio.ensure_future(writers[1].find("run"))
        beyond = asyncio.ensure_future(sync(two, _call(attempt=1, start=4)))
        assert not (await asyncio.wait((newest, beyond), timeout=0.05))[0]
        busy.set()
        assert (await newest).stored.session.horizon == 5
        await asyncio.gather(beyond, blocking, blocking_one)
    finally:
        busy.set()
        one.close()
        two.close()


@pytest.mark.anyio
async def test_templates_that_two_services_publish_have_versions_of_their_own(
    writers: tuple[Writer, Writer],
) -> None:
    """Each caller is told the version under which its own template is stored."""
    services = [Service.over(writer._store, writer) for writer in writers]

    async def publish(number: int) -> tuple[int, int]:
        body = {"name": "base", "spec": {"base_lr": float(number)}}
        made = await publish_template(services[number % 2], Template.model_validate(body))
        return made.version, number

    try:
        made = dict(await asyncio.gather(*(publish(number) for number in range(1, 21))))
        assert sorted(made) == list(range(1, 21))
        there = list(services[0].store.templates("base"))
        assert {each.version: each.template.spec["base_lr"] for each in there} == made
    finally:
        for service in services:
            service.close()


@pytest.mark.anyio
async def test_a_wait_goes_on_wherever_the_next_call_lands(
    writers: tuple[Writer, Writer],
) -> None:
    """Time spent waiting for a step at one service counts at the other, up to the time-out."""
    one, two = (Service.over(writer._store, writer) for writer in writers)
    try:
        await writers[0].submit(Create(spec(reaction={"decide_every": 2, "timeout": 60.0})))
        await sync(one, _call(attempt=1, start=1))
        for service, seconds in ((one, 0.5), (two, 1.0)):
            with pytest.raises(AwaitingMeasurementError):
                await sync(service, _call(attempt=1, start=2, patience=0.6))
            for writer in writers:
                waited = (await writer.find("run")).stored.session.waited
                assert waited is not None
                assert waited.seconds >= seconds
        gone = replace(waited, seconds=59.9, looked=waited.looked - 3600.0)
        draft = Draft((await writers[0].find("run")).stored.session).record(Awaited(gone))
        assert decide(draft.after, Await(waited.looked)).after.waited == replace(
            gone, seconds=59.9 + LONGEST_GAP, looked=waited.looked
        )
    finally:
        one.close()
        two.close()


def _call(attempt: int, start: int, patience: float = 0.0) -> SyncCall:
    """Return a trainer's request for one step."""
    wish = Seal(start, 1, attempt)
    return SyncCall(
        session="run",
        rank=0,
        attempt=attempt,
        trains=True,
        readings=(),
        newest=NEVER,
        batch_size=None,
        applied=None,
        wish=wish,
        stands=NEVER,
        pace=None,
        epoch=None,
        given=0,
        patience=patience,
    )


@pytest.mark.anyio
async def test_two_writers_under_load_lose_and_double_nothing(
    writers: tuple[Writer, Writer],
) -> None:
    """Trainers, operators, restarts and forks use both; every answer is in the record once."""
    await writers[0].submit(Create(spec(controllers=[])))
    answered: list[int] = []

    async def order(number: int) -> None:
        act = Act(Scale(factor=1.0 + number / 1000), actor=str(number), key=f"key {number}")
        outcome = await writers[number % 2].submit(Change("run", (act,)))
        answered.append(outcome.entry.stored.session.orders.keys[f"key {number}"][0])

    async def seal(number: int) -> None:
        for step in range(number, 40, 4):
            await writers[(number + step) % 2].submit(
                Change("run", (Seal(step, 1, trains=True, at=step),))
            )

    async def fork(number: int) -> None:
        name = f"fork-{number}"
        await writers[number % 2].submit(Fork("run", spec(name, controllers=[]), 0))

    await asyncio.gather(*map(order, range(30)), *map(seal, range(4)), *map(fork, range(6)))
    assert sorted(answered) == list(range(1, 31))
    entry = await writers[0].find("run")
    assert entry.stored.session.horizon == 40
    log = writers[1]._store.events_after(entry.stored, 0, limit=1000)
    given = [each.event.order.id for each in log if isinstance(each.event, Ordered)]
    done = [each.event.order.id for each in log if isinstance(each.event, Acted)]
    assert sorted(given) == list(range(1, 31))
    assert len(set(done)) == len(done)
    assert [each.seq for each in log] == list(range(1, len(log) + 1))


@pytest.mark.anyio
async def test_a_job_that_conflicts_takes_no_neighbour_down(
    writers: tuple[Writer, Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that loses every time is refused with a conflict; the others in its batch succeed."""
    one, _ = writers
    for name in ("run", "neighbour"):
        await one.submit(Create(spec(name)))
    append = one._store.begin

    def losing() -> Any:
        return _Losing(append(), "run")

    monkeypatch.setattr(one._store, "begin", losing)
    results = await asyncio.gather(
        *(one.submit(Change(name, (Seal(0, 1),))) for name in ("neighbour", "run")),
        return_exceptions=True,
    )
    neighbour, mine = results
    assert isinstance(neighbour, Outcome)
    assert neighbour.entry.stored.session.horizon == 1
    assert isinstance(mine, ConflictError)
    assert isinstance(mine, PacesetterError)
    counted = one.tally
    # Every try of both jobs, and then of the one alone, was lost; each series ended with its last
    # try.
    assert (counted.retries, counted.conflicts) == (2 * (TRIES - 1), 2 * TRIES)


class _Losing:
    """A transaction in which another writer always comes first for one session."""

    def __init__(self, real: Any, name: str) -> None:
        self._real = real
        self._name = name

    def __enter__(self) -> Any:
        self._transaction = self._real.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._real.__exit__(*error)

    def append(self, batch: Any, now: str) -> None:
        names = [each.stored.session.spec.name for each in batch]
        if self._name in names:
            raise ConflictError((self._name,))
        self._transaction.append(batch, now)

    def refuse_stale(self, versions: Any) -> None:
        self._transaction.refuse_stale(versions)


@pytest.mark.anyio
async def test_what_one_service_purges_is_gone_at_the_other(
    writers: tuple[Writer, Writer],
) -> None:
    """Its name is free for a new attempt, no fork of it is made, and all its rows are removed."""
    one, two = (Service.over(writer._store, writer) for writer in writers)
    try:
        await writers[0].submit(Create(spec()))
        await train(writers[0], range(4))
        await writers[1].submit(Fork("run", spec(name="fork"), 2))
        await writers[1].submit(Change("run", (Archive(),)))
        with pytest.raises(SessionHasForksError, match="'fork'"):
            await purge_session(one, "run", "bo")
        await writers[0].submit(Change("fork", (Archive(),)))
        await asyncio.gather(*(_purged(each, "fork") for each in (one, two)))
        await purge_session(two, "run", "bo")
        with pytest.raises(SessionPurgedError):
            await writers[0].find("run")
        with pytest.raises(SessionPurgedError):
            await writers[0].submit(Fork("run", spec(name="late"), 2))
        created = await writers[0].submit(Create(spec()))
        assert created.entry.stored.session.attempt.number == 2
        while one.store.has_hidden():
            await asyncio.sleep(0.01)
        with one.store.snapshot() as connection:
            left = {
                session_id
                for table in OF_A_SESSION
                for session_id in connection.scalars(select(table.c.session_id))
            }
        assert left == {created.entry.stored.id}
    finally:
        one.close()
        two.close()


@pytest.mark.anyio
async def test_who_remembers_a_purged_session_takes_no_other_for_it(
    writers: tuple[Writer, Writer],
) -> None:
    """A new session under the same name and version is recognised as another one."""
    one, two = writers

    def hide() -> None:
        with one._store.transaction() as connection:
            purging.hide(connection, "run", "bo", NOW)
        one.forget("run")

    await one.submit(Create(spec()))
    await two.submit(Find("run"))
    await one.submit(Change("run", (Archive(),)))
    await one.call(hide)
    made = await one.submit(Create(spec(base_lr=0.7)))
    assert (await two.find("run")).stored == made.entry.stored
    await train(two, range(4))
    assert (await one.find("run")).stored.session.horizon == 4


async def _purged(service: Service, name: str) -> None:
    """Purge a session, unless another service has done so just before."""
    with contextlib.suppress(SessionNotFoundError):
        await purge_session(service, name, "bo")


# What lists and feeds read ------------------------------------------------------------------------


def test_lists_are_filtered_and_sorted_by_every_store(store: Store) -> None:
    """A page holds what passes all filters, starting after the key of the previous page."""
    for number in range(6):
        labels = {"odd": str(number % 2), "all": "yes"}
        fresh = stored(store, f"run-{number}")
        session = create(spec(f"run-{number}", labels=labels))
        made = f"2026-01-0{9 - number}T00:00:00.000+00:00"
        write(store, Changes(replace(fresh, session=session, created_at=made)))

    def names(**how: Any) -> list[str]:
        return [each.session.spec.name[-1] for each in store.page(Listing(**how), 3)]

    assert names() == ["0", "1", "2"]
    assert names(sort="-name", behind=Place("run-4", "run-4")) == ["3", "2", "1"]
    assert names(sort="created_at") == ["5", "4", "3"]
    behind = Place("2026-01-07T00:00:00.000+00:00", "run-2")
    assert names(sort="-created_at", behind=behind) == ["3", "4", "5"]
    assert names(sort="changed_at", behind=Place(NOW, "run-3")) == ["4", "5"]
    assert names(labels=[("odd", "1"), ("all", "yes")]) == ["1", "3", "5"]
    assert names(labels=[("odd", "1"), ("all", "no")]) == []
    assert names(matching="*-[45]") == []
    assert names(matching="run-?", names=NameScope(("*-4", "*-5"))) == ["4", "5"]
    assert names(fates=("finished", "failed", "archived")) == []
    assert names(fates=("active",), since=NOW) == ["0", "1", "2"]
    assert names(since="2027", heard=["run-4"]) == ["4"]
    assert names(quiet_since=NOW) == []


def test_the_newest_of_each_metric_is_found(store: Store) -> None:
    """Lists show what ranks reported last and what was measured last, over the current lineage."""
    before = changed(stored(store), horizon=20)
    readings = [(1, Reading(rank, step, "loss", step / 10)) for step in range(9) for rank in (0, 1)]
    seen = [(1, Measured(step, "loss", float(step), 2, 20)) for step in range(4)]
    odd = [(1, Reading(0, 12, "odd", math.nan))]
    write(store, Changes(before, readings=[*readings, *odd], measured=seen))
    lineage = before.lineage
    found = store.newest_of({lineage: 1}, 9)[lineage]
    assert found["loss"].seen is not None
    assert found["loss"].said is not None
    assert found["loss"].seen.steps[-1] == 3
    assert found["loss"].said.steps[-2:].tolist() == [8, 8]
    assert found["odd"].seen is None
    again = (*lineage, AttemptRef(before.id, 2, 5))
    said = store.newest_of({again: 0}, 9)[again]["loss"].said
    assert said is not None
    assert said.steps[-1] == 4
    assert list(store.newest_of({lineage: 0}, 1)[lineage]) == ["loss"]


def test_positions_of_events_are_those_of_the_commits(open_store: OpenStore) -> None:
    """Each event has the next position, whichever store commits it; none is used twice."""
    one, two = open_store(), open_store()
    for number, store in enumerate((one, two, one)):
        write(store, Changes(stored(store, f"run-{number}")))
    page = two.feed_page(Wanted(), 0, 2)
    assert [(each.position, each.session) for each in page.entries] == [(1, "run-0"), (2, "run-1")]
    assert (page.behind, page.more) == (2, True)
    rest = one.feed_page(Wanted(kinds=("created",)), page.behind, 2)
    assert [each.session for each in rest.entries] == ["run-2"]
    assert (rest.behind, rest.more) == (3, False)
    assert one.newest_position() == two.newest_position() == 3
    none = one.feed_page(Wanted(matching="nothing-*"), 0, 2)
    assert (none.entries, none.behind, none.more) == ([], 3, False)
