"""Three services on one PostgreSQL behind PgBouncer, killed again and again, and the database too.

Trainers and an operator go on meanwhile, each call at any service that a balancer picks, and write
down the answers. Afterwards the database is read directly, without the service, and compared with
them: no report, no order and no sealed value may be missing or changed.

`python tests/outages.py --kills 110 --restarts 2` is the long form; `test_replicas.py` has the
short one.
"""

import argparse
import json
import random
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

import postgres
from balancer import Balancer
from little_servers import LittleServer
from pacesetter import Client
from pacesetter_service.store.blocks import Block, unpack
from serving import PATIENCE, RunningService

REPLICAS = 3
TRAINERS = 3
JOB = {
    "base_lr": 0.1,
    "schedule": {"kind": "exponential", "gamma": 0.9999},
    "controllers": [{"kind": "plateau", "metric": "loss", "patience": 3, "factor": 0.99}],
    "max_lookahead": 4,
}


class Journal:
    """The answers to trainers and operators, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w")
        self._changed = threading.Condition()
        self.lines = 0

    def note(self, kind: str, **what: object) -> None:
        """Write a line."""
        with self._changed:
            self._file.write(json.dumps({"kind": kind, **what}) + "\n")
            self._file.flush()
            self.lines += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def await_lines(self, more: int) -> None:
        """Wait until that many more lines are written."""
        with self._changed:
            wanted = self.lines + more
            assert self._changed.wait_for(lambda: self.lines >= wanted, PATIENCE), "nothing goes on"


def train(name: str, url: str, journal: Journal, stop: threading.Event) -> None:
    """Train a session, and write down each rate, and each report once it was acknowledged."""
    try:
        with Client(url) as client:
            session = client.create_session(name, **JOB)
            dice, step = random.Random(name), 0
            while not stop.is_set():
                journal.note("given", session=name, step=step, value=session.lr(step))
                loss = dice.random()
                session.report(step, loss=loss)
                session.flush()
                journal.note("told", session=name, step=step, value=loss)
                step += 1
    except Exception as error:
        journal.note("error", session=name, what=repr(error))


def operate(urls: list[str], journal: Journal, stop: threading.Event) -> None:
    """Order at random services; an order without an answer is repeated under its key."""
    dice, number = random.Random(5), 0
    while not stop.is_set():
        name, key = f"run-{dice.randrange(TRAINERS)}", f"order-{number}"
        path = f"/v1/sessions/{name}/actions"
        act = {"kind": "scale", "factor": dice.uniform(0.99, 1.01)}
        while not stop.is_set():
            with suppress(httpx.TransportError):
                answer = httpx.post(
                    dice.choice(urls) + path,
                    json=act,
                    headers={"Idempotency-Key": key},
                    timeout=PATIENCE,
                    trust_env=False,
                )
                if answer.is_success:
                    journal.note("ordered", session=name, key=key, **answer.json())
                    break
                if answer.status_code not in (404, 503):  # its session may not exist yet
                    journal.note("error", session=name, what=answer.text)
                    break
            stop.wait(0.05)
        number += 1
        stop.wait(0.1)


@dataclass(frozen=True, slots=True)
class Toll:
    """What the outages cost, counted in the database and in the journal."""

    kills: int
    restarts: int
    reports: int
    reports_lost: int
    values: int
    values_changed: int
    orders: int
    orders_lost: int
    errors: int

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was lost, changed or failed."""
        return not (self.reports_lost or self.values_changed or self.orders_lost or self.errors)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of services and {self.restarts} of the database:"
            f" {self.reports_lost} of {self.reports} reports lost,"
            f" {self.values_changed} of {self.values} sealed values changed,"
            f" {self.orders_lost} of {self.orders} orders lost, {self.errors} errors"
        )


def _readings(connection: Any) -> dict[tuple[str, int], float]:
    """Return the readings of each session at each step."""
    found: dict[tuple[str, int], float] = {}
    for name, *block in connection.execute(
        "SELECT s.name, b.start, b.until, b.size, b.data FROM reading_blocks b"
        " JOIN sessions s ON s.id = b.session_id"
    ):
        columns = unpack(Block(*block), 1)
        for step, value in zip(columns.steps.tolist(), columns.values.tolist(), strict=True):
            assert (name, step) not in found, "a reading is in two blocks"
            found[name, step] = value
    return found


def check(journal: Path, conninfo: str, kills: int, restarts: int) -> Toll:
    """Compare a journal with the database."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    of = {kind: [each for each in lines if each["kind"] == kind] for kind in ("given", "told")}
    orders = [each for each in lines if each["kind"] == "ordered"]
    with psycopg.connect(conninfo) as connection:
        sealed = _sealed(connection)
        readings = _readings(connection)
        kept = _orders(connection)
    return Toll(
        kills,
        restarts,
        reports=len(of["told"]),
        reports_lost=sum(
            not _same(readings.get((each["session"], each["step"])), each["value"])
            for each in of["told"]
        ),
        values=len(of["given"]),
        values_changed=sum(
            not _same(sealed.get((each["session"], each["step"])), each["value"])
            for each in of["given"]
        ),
        orders=len(orders),
        orders_lost=sum(kept.get((each["session"], each["key"])) != [each["id"]] for each in orders)
        + sum(len(numbers) != 1 for numbers in kept.values()),
        errors=sum(each["kind"] == "error" for each in lines),
    )


def _same(one: float | None, other: float) -> bool:
    return one is not None and struct.pack("<d", one) == struct.pack("<d", other)


def _sealed(connection: Any) -> dict[tuple[str, int], float]:
    found = {}
    query = (
        "SELECT s.name, b.start, b.count, b.values FROM sealed b JOIN sessions s"
        " ON s.id = b.session_id"
    )
    for name, start, count, block in connection.execute(query):
        for step, value in enumerate(struct.unpack(f"<{count}d", block), start):
            assert (name, step) not in found, "a step was sealed twice"
            found[name, step] = value
    return found


def _orders(connection: Any) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    query = (
        "SELECT s.name, e.payload FROM events e JOIN sessions s ON s.id = e.session_id"
        " WHERE e.kind = 'ordered'"
    )
    for name, payload in connection.execute(query):
        order = json.loads(payload)["order"]
        found.setdefault((name, order["key"]), []).append(order["id"])
    return found


@contextmanager
def _running(threads: list[threading.Thread], stop: threading.Event) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a trainer does not end"


def endure(
    folder: Path,
    kills: int,
    restarts: int,
    pause: float = 0.0,
    progress: Callable[[int], None] = lambda _: None,
) -> Toll:
    """Kill services one after the other, and the database now and then, and count the toll.

    Args:
        folder: where the journal goes.
        kills: how often a service is killed; the trainers get on between two of them.
        restarts: how often the database is killed and started again.
        pause: seconds between two kills, at least.
        progress: is called with the number of kills.
    """
    chance, stop = random.Random(11), threading.Event()
    every = kills // (restarts + 1)
    restarted = 0
    journal = Journal(folder / "journal")
    with ExitStack() as ends:
        ends.callback(journal.close)
        server = ends.enter_context(postgres.private_server())
        server.create("lr")
        url = postgres.url_of("lr", ends.enter_context(postgres.pgbouncer(server.conninfo, 8)))
        services = [RunningService(url).start() for _ in range(REPLICAS)]
        for each in services:
            ends.callback(_stop, each)
        urls = [each.url for each in services]
        ports = [int(each.rpartition(":")[2]) for each in urls]
        balancer = ends.enter_context(LittleServer(Balancer(ports, random.Random(3))))
        threads = [
            threading.Thread(target=train, args=(f"run-{each}", balancer.url, journal, stop))
            for each in range(TRAINERS)
        ]
        threads.append(threading.Thread(target=operate, args=(urls, journal, stop)))
        with _running(threads, stop):
            down = threading.Thread()
            down.start()
            for kill in range(kills):
                began = time.monotonic()
                journal.await_lines(20)
                down.join(PATIENCE)
                victim = services[chance.randrange(REPLICAS)]
                victim.kill()
                down = threading.Thread(target=_start, args=(victim,))
                down.start()
                if restarted < restarts and (kill + 1) % every == 0:
                    restarted += 1
                    server.kill()
                    time.sleep(chance.uniform(0.0, 1.0))
                    server.start()
                progress(kill + 1)
                time.sleep(max(pause - (time.monotonic() - began), 0.0))
            down.join(PATIENCE)
            journal.await_lines(60)
        return check(journal.path, f"{server.conninfo} dbname=lr", kills, restarted)


def _start(service: RunningService) -> None:
    """Start a service as a supervisor does, which retries while the database is away."""
    for _ in range(int(PATIENCE)):
        try:
            service.start()
        except RuntimeError:
            time.sleep(0.2)
        else:
            return


def _stop(service: RunningService) -> None:
    with suppress(AssertionError):  # it is down
        service.stop()


def main() -> None:
    """Run the long form and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=110)
    parser.add_argument("--restarts", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toll = endure(
            Path(folder),
            options.kills,
            options.restarts,
            pause=1.0,
            progress=lambda done: print(f"\rkill {done} of {options.kills}", end="", flush=True),
        )
    print(f"\n{toll}")
    raise SystemExit(not toll.is_nothing)


if __name__ == "__main__":
    main()
