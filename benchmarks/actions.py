"""Acting on one session among many with long histories, against acting on the only one."""

import itertools
import shutil
import sqlite3
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from benchmarks import servers
from benchmarks.harness import Effort, Goal, Result, at_least, at_most, result, take_turns
from benchmarks.load import Load, conditions, drive, post
from benchmarks.sealing import take
from benchmarks.servers import Server
from pacesetter_service.store.blocks import Block, Columns, unpack_all

ACTED_ON, BYSTANDER, LR = "acted-on", "bystander", 0.1
TABLES = {
    "sessions": "id",
    "attempts": "session_id",
    "snapshots": "session_id",
    "sealed": "session_id",
    "reading_blocks": "session_id",
    "measurement_blocks": "session_id",
}
"""Tables with rows of a session of this benchmark, and the column of its id."""

STEPS = {
    "sessions": "horizon",
    "snapshots": "horizon",
    "sealed": "start",
}
"""The column of these tables that counts steps."""

BESIDE = {"reading_blocks": 1, "measurement_blocks": 2}
"""How many numbers are stored beside a value in these tables of blocks."""

AT_ONCE = 1_000
"""Steps that are sealed and reported in one call while a history is made."""

BACK, TIMES = 500, 5
"""Steps between two openings of an attempt, and how many of these are timed in a round."""

PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large the histories are.

    Attributes:
        sessions: In the crowd,
        rows: and the measurements of each, and as many readings.
        measured: The measurements of the one session that is acted on,
        lived: of which so many, the newest, were trained through the service; at most half, for
            these are moved behind the others. The only one that it is compared with has no others.
    """

    sessions: int
    rows: int
    measured: int
    lived: int

    @property
    def crowd(self) -> str:
        """The crowd in words: what was built, which is not a million measurements for each."""
        return f"{self.sessions:,} sessions of {self.rows} measurements each"


# A million measurements of each of 10,000 sessions are 10^10 rows, which no disk here holds.
FULL = Size(sessions=10_000, rows=100, measured=1_000_000, lived=20_000)
SMALL = Size(sessions=1_000, rows=100, measured=100_000, lived=10_000)
TINY = Size(sessions=10, rows=100, measured=14_000, lived=6_000)
FULL_SECONDS = 0.8


def run(effort: Effort) -> Iterator[Result]:
    """Open attempts, then act and take the next step; in a crowd, and alone."""
    size = effort.size(FULL if effort.seconds >= FULL_SECONDS else SMALL, TINY)
    with tempfile.TemporaryDirectory() as folder:
        many, one = Path(folder) / "many", Path(folder) / "one"
        many.mkdir()
        _live(many, {ACTED_ON: size.lived, BYSTANDER: size.rows})
        shutil.copytree(many, one)
        with _database(one) as connection:
            _remove(connection, BYSTANDER)
        with _database(many) as connection:
            _lengthen(connection, size.measured - size.lived)
            _multiply(connection, size.sessions)
        with servers.service(many) as crowd, servers.service(one) as alone:
            yield from _attempts(effort, size, crowd, alone)
            yield from _actions(effort, size, crowd, alone)


def _live(folder: Path, sessions: dict[str, int]) -> None:
    """Measure sessions that many times, through the service itself."""
    with (
        servers.service(folder) as service,
        httpx.Client(base_url=service.url, timeout=PATIENCE) as http,
    ):
        for name, measured in sessions.items():
            http.post("/v1/sessions", json=_spec(name)).raise_for_status()
            for start in range(0, measured, AT_ONCE):
                count = min(AT_ONCE, measured - start)
                # The readings are consumed with the next sealing, that of the next window.
                take(http, name, start, count)
                reports = {"reports": _reports(start, count)}
                http.post(f"/v1/sessions/{name}/sync", json=reports).raise_for_status()
            take(http, name, measured, 1)


def _spec(name: str) -> dict[str, object]:
    # Improving all the time, so that no cut makes the rate vanish within a million steps.
    rule = {"kind": "plateau", "metric": "loss", "patience": 100_000}
    return {"name": name, "base_lr": LR, "controllers": [rule], "max_lookahead": AT_ONCE}


def _reports(start: int, count: int) -> list[dict[str, object]]:
    steps = range(start, start + count)
    return [{"step": step, "metrics": {"loss": _loss(step)}} for step in steps]


def _loss(step: int) -> float:
    return 2 - step * 1e-6


@contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Return a database, which no service has open, in a transaction."""
    path = folder / "pacesetter.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")


def _id_of(connection: sqlite3.Connection, name: str) -> int:
    found = connection.execute("SELECT id FROM sessions WHERE name = ?", [name]).fetchone()
    return int(found[0])


def _remove(connection: sqlite3.Connection, name: str) -> None:
    """Remove a session with all its rows."""
    number = _id_of(connection, name)
    for table, key in TABLES.items():
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", [number])


def _lengthen(connection: sqlite3.Connection, by: int) -> None:
    """Insert that many steps before those of a session, as if it had trained these too."""
    number = _id_of(connection, ACTED_ON)
    later = "json_replace(control, '$.consumed.loss', json_extract(control, '$.consumed.loss') + ?)"
    for table, column in STEPS.items():
        own = f"WHERE {TABLES[table]} = ?"
        if column == "horizon":  # a state: of controllers too
            own += " AND horizon > 0"
            connection.execute(f"UPDATE {table} SET control = {later} {own}", [by, number])
        connection.execute(f"UPDATE {table} SET {column} = {column} + ? {own}", [by, number])
    starts, block = range(0, by, AT_ONCE), struct.pack("<d", LR) * AT_ONCE
    connection.executemany(
        "INSERT INTO sealed VALUES (?, 1, ?, ?, ?, NULL)",
        ((number, start, AT_ONCE, block) for start in starts),
    )
    for table in BESIDE:
        _lengthen_blocks(connection, table, number, by)
    snapshot = "SELECT plan, control FROM snapshots WHERE session_id = ? ORDER BY horizon DESC"
    plan, control = connection.execute(snapshot, [number]).fetchone()
    connection.executemany(
        "INSERT INTO snapshots VALUES (?, 1, ?, ?, json_replace(?, '$.consumed.loss', ?))",
        ((number, start, plan, control, start - AT_ONCE - 1) for start in starts[2:]),
    )


def _lengthen_blocks(connection: sqlite3.Connection, table: str, number: int, by: int) -> None:
    """Insert that many values before those of a session, one for each step."""
    [metric] = connection.execute("SELECT id FROM metrics WHERE name = 'loss'").fetchone()
    own = f"FROM {table} WHERE session_id = ? AND metric_id = ?"
    mine = [number, metric]
    blocks = connection.execute(f"SELECT start, until, size, data {own} ORDER BY start", mine)
    lived = unpack_all((Block(*row) for row in blocks.fetchall()), BESIDE[table])
    connection.execute(f"DELETE {own}", mine)
    steps = np.arange(by)
    horizons = steps // AT_ONCE * AT_ONCE + AT_ONCE
    beside = {1: [0 * steps], 2: [0 * steps + 1, horizons]}[BESIDE[table]]
    losses = np.array([_loss(step) for step in range(by)])
    later = np.array([[0], [by]][: BESIDE[table]])
    whole = Columns.joined(
        [
            Columns(steps, np.array(beside), losses),
            Columns(lived.steps + by, lived.beside + later, lived.values),
        ]
    )
    connection.executemany(
        f"INSERT INTO {table} VALUES (?, ?, 1, ?, 0, ?, ?, ?)",
        ((*mine, each.until, each.start, each.size, each.data) for each in whole.blocks()),
    )


def _multiply(connection: sqlite3.Connection, sessions: int) -> None:
    """Copy the bystander, with all its measurements, until there are as many sessions as wanted."""
    original = _id_of(connection, BYSTANDER)
    connection.execute("CREATE TEMP TABLE copies (id INTEGER PRIMARY KEY)")
    copies = ((original + number,) for number in range(1, sessions - 1))
    connection.executemany("INSERT INTO copies VALUES (?)", copies)
    for table in TABLES:
        _copy(connection, table, original)


def _copy(connection: sqlite3.Connection, table: str, original: int) -> None:
    """Copy the rows of a table, each with the ids and names of its copies in it."""
    key = TABLES[table]
    own = {
        key: "copies.id",
        "name": f"'{BYSTANDER}-' || copies.id",
        "spec": f"replace(spec, '\"{BYSTANDER}\"', '\"{BYSTANDER}-' || copies.id || '\"')",
        "lineage": f"replace(lineage, '[{original},', '[' || copies.id || ',')",
    }
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = [own.get(name, f'source."{name}"') for name in columns]
    connection.execute(
        f"INSERT INTO {table} SELECT {', '.join(values)} FROM copies, {table} AS source"
        f" WHERE source.{key} = ? ORDER BY copies.id",
        [original],
    )


def _attempts(effort: Effort, size: Size, crowd: Server, alone: Server) -> Iterator[Result]:
    """Open attempts, each some steps before the previous one, so that each has to replay."""
    with (
        httpx.Client(base_url=crowd.url, timeout=PATIENCE) as ours,
        httpx.Client(base_url=alone.url, timeout=PATIENCE) as other,
    ):
        rounds = take_turns("attempts", effort.rounds, _going_back(ours), _going_back(other))
    yield result(
        f"attempt, after {size.measured:,} measurements",
        ((1e3 * mine, 1e3 * its) for mine, its in rounds),
        unit="ms",
        against=f"the only one, after {size.lived:,}",
        goal=at_most(2),
        note=f"among {size.crowd}; all but the newest {size.lived:,} were filled in by SQL",
    )


def _going_back(http: httpx.Client) -> Callable[[], float]:
    """Return a function that opens attempts, and returns the median of their seconds."""
    path = f"/v1/sessions/{ACTED_ON}"
    steps = itertools.count(http.get(path).raise_for_status().json()["horizon"] - BACK, -BACK)

    def go_back() -> float:
        return statistics.median(_open_attempt(http, path, next(steps)) for _ in range(TIMES))

    return go_back


def _open_attempt(http: httpx.Client, path: str, step: int) -> float:
    began = time.perf_counter()
    answer = http.post(f"{path}/attempts", json={"step": step, "key": f"restart at {step}"})
    seconds = time.perf_counter() - began
    assert answer.status_code == 201, answer.text
    return seconds


def _actions(effort: Effort, size: Size, crowd: Server, alone: Server) -> Iterator[Result]:
    """Act and take the next step, again and again; each is a separate request."""
    only = _acting(alone, [ACTED_ON])
    copies = [f"{BYSTANDER}-{3 + number}" for number in range(size.sessions - 2)]
    for name, streams, goal in (
        (f"action, 1 of {size.sessions:,} sessions", _acting(crowd, [ACTED_ON]), at_least(0.8)),
        (f"action, {size.sessions:,} sessions in turn", _acting(crowd, copies), None),
    ):
        rounds = take_turns(
            name,
            effort.rounds,
            partial(drive, crowd, [streams], effort.seconds),
            partial(drive, alone, [only], effort.seconds),
        )
        yield from _results(name, size, rounds, goal)


def _results(
    name: str, size: Size, rounds: Sequence[tuple[Load, ...]], goal: Goal | None
) -> Iterator[Result]:
    ours, other = zip(*rounds, strict=True)
    yield result(
        name,
        ((mine.capacity, its.capacity) for mine, its in rounds),
        unit="req/cpu s",
        against="the only session",
        goal=goal,
        note=f"{size.crowd}, one of {size.measured:,}; {conditions(ours, other)}",
    )
    yield result(
        f"{name}, p99",
        ((1e3 * mine.p99, 1e3 * its.p99) for mine, its in rounds),
        unit="ms",
        against="the only session",
    )


def _acting(service: Server, names: Sequence[str]) -> Iterator[bytes]:
    """Yield for ever an order to a session, then its trainer's next call, for each session in turn.

    The factors cancel each other out, and are too small to be worth a notice.
    """
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as http:
        first = [http.get(f"/v1/sessions/{name}").raise_for_status().json() for name in names[:1]]
    steps = itertools.count(first[0]["horizon"])
    for step, factor in zip(steps, itertools.cycle((0.8, 1.25))):
        for name in names:
            order = b'{"kind":"scale","factor":%.2f,"reason":"benchmark"}' % factor
            yield post(f"/v1/sessions/{name}/actions", order)
            report = b'{"step":%d,"metrics":{"loss":%.6f}}' % (step - 1, _loss(step - 1))
            yield post(f"/v1/sessions/{name}/sync", b'{"step":%d,"reports":[%s]}' % (step, report))
