"""`python -m benchmarks.scale`: a database of years, against one that is new.

It fills a SQLite database with sessions and with measurements, through the writer as trainings do;
measurements beyond ten million are copies of these, in other sessions. Then it compares the costs
of a service on it with those on a database with one session. It also prints how soon the service
starts, and how much memory it takes.
"""

import argparse
import asyncio
import itertools
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks import servers
from benchmarks.harness import Effort, Result, at_least, result, take_turns
from benchmarks.load import conditions, drive, post
from benchmarks.servers import Server
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.runtime.writer import Writer
from pacesetter_service.store.sqlite import SqliteStore

TRAININGS = 32
"""How many trainings sync concurrently, each with its own session."""

AT_ONCE = 500
"""How many sessions, or reports, the writer gets in one batch."""

STEPS = 2_000
"""How many values one report has while the database is filled."""

TRAINED = 100
"""How many of the sessions were trained, or all if there are fewer; others are copies of these."""

WRITTEN = 10_000_000
"""How many measurements the writer makes; it would need hours for a thousand million."""

OLD = "old-{:06}"


@dataclass(frozen=True, slots=True)
class Size:
    """What a database has beside the trainings that are measured."""

    sessions: int
    measurements: int


def run(effort: Effort, size: Size) -> Iterator[Result]:
    """Compare calls on a full database with calls on a new one."""
    with tempfile.TemporaryDirectory() as full, tempfile.TemporaryDirectory() as new:
        asyncio.run(_fill(Path(full), size))
        asyncio.run(_fill(Path(new), Size(1, 0)))
        began = time.perf_counter()
        with servers.service(Path(full)) as large, servers.service(Path(new)) as small:
            _say_how_it_starts(large, small, time.perf_counter() - began)
            steps = [[itertools.count() for _ in range(TRAININGS)] for _ in range(2)]
            for server in (large, small):
                _open(server)
            rounds = take_turns(
                "sync",
                effort.rounds,
                partial(drive, large, _syncs(steps[0]), effort.seconds),
                partial(drive, small, _syncs(steps[1]), effort.seconds),
            )
            yield result(
                "sync with a report, 32 trainings",
                ((ours.capacity, other.capacity) for ours, other in rounds),
                unit="req/cpu s",
                against="a new database",
                goal=at_least(0.8),
                note=conditions(*zip(*rounds, strict=True)),
            )
            yield from _touched(large, size)


def _say_how_it_starts(large: Server, small: Server, seconds: float) -> None:
    held, bare = (server.memory() / 2**20 for server in (large, small))
    _say(f"both services listen after {seconds:.1f} s; {held:.0f} MiB resident, new {bare:.0f} MiB")


def _touched(large: Server, size: Size) -> Iterator[Result]:
    """Read every session once, in random order, and check that memory stays within its bound."""
    names = [OLD.format(number) for number in range(size.sessions)]
    random.Random(7).shuffle(names)
    with httpx.Client(base_url=large.url, timeout=60) as http:
        memory, began = [], large.cpu_seconds()
        for at, name in enumerate(names):
            http.get(f"/v1/sessions/{name}/lr", params={"step": 5}).raise_for_status()
            if at % max(1, len(names) // 4) == 0 or at + 1 == len(names):
                memory.append(large.memory() / 2**20)
        each = 1e3 * (large.cpu_seconds() - began) / len(names)
    shown = ", ".join(f"{each:.0f}" for each in memory)
    _say(f"each of {len(names):,} sessions read once: {each:.2f} ms of processor time each;")
    _say(f"  resident MiB on the way: {shown}")
    yield from ()


def _open(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for number in range(TRAININGS):
            body = {"name": f"run-{number}", "base_lr": 0.1}
            http.post("/v1/sessions", json=body).raise_for_status()


def _syncs(steps: list[Iterator[int]]) -> list[Iterator[bytes]]:
    return [_calls(f"run-{number}", own) for number, own in enumerate(steps)]


def _calls(name: str, steps: Iterator[int]) -> Iterator[bytes]:
    """Return the calls of a training: each asks for a step, and reports on the one before."""
    path = f"/v1/sessions/{name}/sync"
    asks = b'"attempt":1,"progress":{"step":%d},"want":{"start":%d,"count":1}'
    told = b'"reports":[{"step":%d,"metrics":{"loss":0.5}}]'
    for step in steps:
        body = asks % (step, step)
        yield post(path, b"{%s}" % (body if step == 0 else body + b"," + told % (step - 1)))


async def _fill(folder: Path, size: Size) -> None:
    """Write the sessions, then the measurements, equally many for each of some of them."""
    store = SqliteStore(f"sqlite:///{folder / 'pacesetter.db'}")
    writer = Writer(store)
    writer.start()
    try:
        for start in range(0, size.sessions, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, size.sessions))
            specs = [SessionSpec(name=OLD.format(number), base_lr=0.1) for number in numbers]
            await asyncio.gather(*(writer.submit(Create(spec)) for spec in specs))
            _progress(f"sessions {numbers.stop:,} of {size.sessions:,}")
        await _train(writer, size)
    finally:
        writer.stop()
        store.close()
    _copy(folder / "pacesetter.db", size)
    size_of = sum(each.stat().st_size for each in folder.iterdir()) / 2**20
    if size.measurements:
        _say(
            f"{size.sessions:,} sessions and {size.measurements:,} measurements: {size_of:.0f} MiB"
        )


async def _train(writer: Writer, size: Size) -> None:
    """Write the measurements of the trained sessions, equally many for each."""
    written = min(size.measurements, WRITTEN)
    trained = max(1, min(size.sessions, TRAINED))
    for number in range(-(-written // STEPS)):
        name, start = OLD.format(number % trained), number // trained * STEPS
        steps = range(start, start + STEPS)
        seal = Seal(start, STEPS, attempt=1, at=start, pace=1e-4, trains=True)
        told = tuple(Reading(0, step, "loss", 1 / (1 + step)) for step in steps)
        await writer.submit(Change(name, (seal,)))
        await writer.submit(Change(name, (Report(told, 1),)))
        _progress(f"measurements {number * STEPS:,} of {written:,}")


def _copy(database: Path, size: Size) -> None:
    """Copy the training to other sessions, until there are enough measurements."""
    copies = max(1, size.measurements // WRITTEN)
    with closing(sqlite3.connect(database)) as connection:
        for copy in range(1, copies):
            pairs = [
                (OLD.format(number), OLD.format(copy * TRAINED + number))
                for number in range(TRAINED)
            ]
            with connection:
                connection.execute("CREATE TEMP TABLE pair (source INTEGER, target INTEGER)")
                connection.executemany(_PAIR, pairs)
                for table in ("sealed", "reading_blocks", "measurement_blocks"):
                    connection.execute(_copied(connection, table))
                connection.execute(_TRAINED_THE_SAME)
                connection.execute("DROP TABLE pair")
            _progress(f"measurements {(copy + 1) * WRITTEN:,} of {size.measurements:,}")


_PAIR = (
    "INSERT INTO pair SELECT a.id, b.id FROM sessions AS a, sessions AS b"
    " WHERE a.name = ? AND b.name = ?"
)

_TRAINED_THE_SAME = (
    "UPDATE sessions SET (horizon, held, control) = (SELECT s.horizon, s.held, s.control"
    " FROM sessions AS s JOIN pair ON s.id = source WHERE target = sessions.id)"
    " WHERE id IN (SELECT target FROM pair)"
)


def _copied(connection: sqlite3.Connection, table: str) -> str:
    """Return the statement that inserts the rows of its source for each target."""
    named = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    others = ", ".join(f'"{name}"' for name in named if name != "session_id")
    return (
        f"INSERT INTO {table} (session_id, {others}) SELECT target, {others} FROM {table}"
        " JOIN pair ON session_id = source ORDER BY target"
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Measure a database of the size that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--measurements", type=int, default=WRITTEN)
    given = parser.parse_args()
    if given.measurements > WRITTEN and given.sessions * WRITTEN < given.measurements * TRAINED:
        parser.error(
            f"so many measurements need {given.measurements * TRAINED // WRITTEN} sessions"
        )
    for each in run(Effort(rounds=7, seconds=0.8), Size(given.sessions, given.measurements)):
        low, ratio, high = each.quartiles
        _say(f"{each.name}: {ratio:.2f} ({low:.2f} - {high:.2f}) of {each.against}; {each.note}")


if __name__ == "__main__":
    main()
