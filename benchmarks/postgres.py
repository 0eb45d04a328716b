"""Acknowledged syncs on PostgreSQL: committed in groups, and in one transaction each."""

import asyncio
import gc
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.harness import Effort, Result, at_least, result, take_turns
from benchmarks.servers import Server
from pacesetter_service.core.commands import Command, Reading, Report, Seal
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.memory import collect_seldom
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.postgres import PostgresStore

TRAININGS = 256
"""The number of trainings that sync concurrently, and the most that share a transaction."""

VARIABLE = "PACESETTER_BENCH_POSTGRES_URL"
HERE = "postgresql+psycopg://postgres@/postgres?host=/var/run/postgresql"
NAME = "sync on PostgreSQL, 256 trainings"
CROWD = "the same at four replicas"
AWAY = "8 trainings a replica, four replicas"

REPLICAS = 4

MS_AWAY = 2.0
"""The delay to a database in another building, in milliseconds each way."""

FEW = 8
"""So few trainings a replica wait for that delay, and not for the cores."""


def run(effort: Effort) -> Iterator[Result]:
    """Seal a step and report the one before, for many trainings concurrently and in turn."""
    url = os.environ.get(VARIABLE, HERE)
    with _database(url) as database:
        if database is None:
            sys.stderr.write(f"{NAME}: left out, {VARIABLE} names no PostgreSQL ({url})\n")
            return
        yield asyncio.run(_measured(database, effort))
        yield _crowd(database, effort)
        with _away(database) as far:
            yield _few(far, effort)


@contextmanager
def _away(url: str) -> Iterator[str]:
    """Yield the URL of the same database over the delayed way."""
    near = make_url(url)
    # PostgreSQL's library takes both from the query as well: a folder of sockets is named there.
    host = near.query.get("host") or near.host or "127.0.0.1"
    port = near.query.get("port") or near.port or 5432
    with Server(
        "benchmarks.distance", f"--host={host}", f"--to={port}", f"--ms={MS_AWAY}"
    ) as relay:
        far = near.set(query={}, host="127.0.0.1", port=relay.port)
        yield far.render_as_string(hide_password=False)


@contextmanager
def _database(url: str) -> Iterator[str | None]:
    """Yield a temporary database of ours; None where the server refuses it."""
    name = f"pacesetter_bench_{os.getpid()}"
    try:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except (SQLAlchemyError, ModuleNotFoundError):
        yield None
        return
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


class _Trainings:
    """Trainings that sync through one writer."""

    def __init__(self, writer: Writer, number: int, prefix: str = "run") -> None:
        self._writer = writer
        self._steps = {f"{prefix}-{each}": itertools.count() for each in range(number)}

    async def create(self) -> None:
        """Create their sessions."""
        specs = [SessionSpec(name=name, base_lr=0.1) for name in self._steps]
        await asyncio.gather(*(self._writer.submit(Create(spec)) for spec in specs))

    async def rate(self, at_once: int, seconds: float) -> float:
        """Return how many syncs a second are acknowledged."""
        began = time.perf_counter()
        names = list(self._steps)[:at_once]
        calls = await asyncio.gather(*(self._train(name, began + seconds) for name in names))
        return sum(calls) / (time.perf_counter() - began)

    async def _train(self, name: str, until: float) -> int:
        calls = 0
        while not calls or time.perf_counter() < until:
            await self._writer.submit(Change(name, self._commands(next(self._steps[name]))))
            calls += 1
        return calls

    def _commands(self, step: int) -> Sequence[Command]:
        seal = Seal(step, 1, attempt=1, at=step, pace=1.0, trains=True)
        if not step:
            return (seal,)
        return Report((Reading(0, step - 1, "loss", 1 / step),), 1), seal


async def _measured(url: str, effort: Effort) -> Result:
    store = PostgresStore(url)
    writer = Writer(store)
    writer.start()
    try:
        together = effort.size(TRAININGS, tiny=8)
        trainings = _Trainings(writer, together)
        await trainings.create()
        loop = asyncio.get_running_loop()

        def side(at_once: int) -> float:
            rating = trainings.rate(at_once, effort.seconds)
            return asyncio.run_coroutine_threadsafe(rating, loop).result()

        with _collecting_as_served():
            rounds = await asyncio.to_thread(
                take_turns, NAME, effort.rounds, partial(side, together), partial(side, 1)
            )
    finally:
        writer.stop()
        store.close()
    return result(
        NAME,
        ((ours, alone) for ours, alone in rounds),
        unit="syncs/s",
        against="one transaction each",
        goal=at_least(20),
    )


@contextmanager
def _collecting_as_served() -> Iterator[None]:
    """Collect garbage as seldom as a service does, for as long as the block lasts."""
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _crowd(url: str, effort: Effort) -> Result:
    """Let four processes with 256 trainings each sync concurrently, and then one of them alone.

    All share the cores with PostgreSQL: where there are few cores, these are the limit, and the
    note says how busy they were.
    """
    with _replicas(url, effort, TRAININGS) as rate:
        busy: list[float] = []

        def all_of_them() -> float:
            with _watched_cores(busy):
                return rate(slice(None))

        rounds = take_turns(CROWD, effort.rounds, all_of_them, partial(rate, slice(1)))
    return result(
        CROWD,
        ((together, alone) for together, alone in rounds),
        unit="syncs/s",
        against="one replica",
        note=f"{os.cpu_count()} cores, {statistics.median(busy):.0%} busy, PostgreSQL among them",
    )


def _few(url: str, effort: Effort) -> Result:
    """Let them sync with a database so distant that the delay takes the time."""
    with _replicas(url, effort, FEW) as rate:
        rounds = take_turns(
            AWAY, effort.rounds, partial(rate, slice(None)), partial(rate, slice(1))
        )
    return result(
        AWAY,
        ((together, alone) for together, alone in rounds),
        unit="syncs/s",
        against="one replica",
        goal=at_least(2.5),
        note=f"the database {MS_AWAY:g} ms away, each way",
    )


@contextmanager
def _watched_cores(busy: list[float]) -> Iterator[None]:
    """Add which share of all cores' time was used by all processes of the machine."""
    before = _times()
    yield
    used, whole = (after - earlier for after, earlier in zip(_times(), before, strict=True))
    busy.append(used / whole if whole else float("nan"))


def _times() -> tuple[int, int]:
    """Return the working time of the cores and all their time; zeros where the system has none."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0, 0
    user, nice, system, idle, waiting, *others = map(
        int, stat.read_text().split("\n")[0].split()[1:9]
    )
    used = user + nice + system + sum(others)
    return used, used + idle + waiting


@contextmanager
def _replicas(url: str, effort: Effort, trainings: int) -> Iterator[Callable[[slice], float]]:
    """Yield a function that measures some of four processes with that many trainings each."""
    context = multiprocessing.get_context("spawn")
    replicas, given_each = effort.size(REPLICAS, tiny=2), effort.size(trainings, tiny=8)
    with ExitStack() as ends:
        pipes = [context.Pipe() for _ in range(replicas)]
        for number, (_, theirs) in enumerate(pipes):
            given = url, f"{trainings}-at-{number}", given_each, theirs
            process = context.Process(target=_replica, args=given, daemon=True)
            process.start()
            ends.callback(process.join)
        ours = [mine for mine, _ in pipes]
        for pipe in ours:
            ends.callback(pipe.send, None)
            pipe.recv()  # it is ready

        def rate(some: slice) -> float:
            for pipe in ours[some]:
                pipe.send(effort.seconds)
            return float(sum(pipe.recv() for pipe in ours[some]))

        yield rate


def _replica(url: str, prefix: str, trainings: int, pipe: Connection) -> None:
    """Sync for as many seconds as the pipe says, and answer with the rate, until it says None."""
    store = PostgresStore(url)
    writer = Writer(store)
    writer.start()
    own = _Trainings(writer, trainings, prefix)

    async def serve() -> None:
        await own.create()
        collect_seldom()
        pipe.send("ready")
        while (seconds := await asyncio.to_thread(pipe.recv)) is not None:
            pipe.send(await own.rate(trainings, seconds))

    try:
        asyncio.run(serve())
    finally:
        writer.stop()
        store.close()
