"""The campaign: one fault after another, many times each, under load; then the history is judged.

`python tests/proof/faults.py --times 100` is `make faults`. Each fault that is done is written to a
state file, so that an interrupted campaign resumes there. Each fault has a separate service,
trainers, an operator and a reader that write down every call, and the judge, which knows nothing of
the service's code.
"""

import argparse
import json
import random
import resource
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psycopg

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

import postgres  # noqa: E402 - found by the lines above
from little_servers import LittleServer  # noqa: E402
from proof.judge import judge  # noqa: E402
from proof.load import Load  # noqa: E402
from proof.shim import Shim  # noqa: E402
from proof.wire import Wire  # noqa: E402
from serving import PATIENCE, RunningService  # noqa: E402

HOUR = 3600
REPLICAS = 3
TIMEOUT = 2.0
"""Seconds after which a caller gives up on an answer that does not come."""


@dataclass
class World:
    """The services and the load that a fault affects."""

    folder: Path
    dice: random.Random
    services: list[RunningService]
    load: Load | None = None
    shim: Shim | None = None
    wire: Wire | None = None
    server: postgres.PrivateServer | None = None
    bouncer: postgres.Bouncer | None = None
    happened: int = 0
    more: dict[str, object] = field(default_factory=dict)

    @property
    def some(self) -> RunningService:
        """One of the services."""
        return self.dice.choice(self.services)

    def await_answers(self, more: int) -> None:
        """Wait until more calls of the load are answered."""
        assert self.load is not None
        self.load.await_answers(more, PATIENCE)


Fault = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a fault that was repeated so often."""

    fault: str
    times: int
    calls: int
    unanswered: int
    come_again: int
    seconds: float
    violations: tuple[str, ...]

    def __str__(self) -> str:
        how = "; ".join(self.violations[:3]) if self.violations else "every promise kept"
        return f"{self.fault}: {self.times} times in {self.calls} calls, {how}"


# Faults of processes


def kill(world: World) -> None:
    """Send SIGKILL, at a random moment."""
    time.sleep(world.dice.random() * 0.05)
    service = world.some
    service.kill()
    _start(service)
    world.happened += 1


def pause(world: World) -> None:
    """Send SIGSTOP, and SIGCONT later: its memory is stale then, if there are other services."""
    service = world.some
    service.process.send_signal(signal.SIGSTOP)
    time.sleep(0.05 + world.dice.random() * 0.2)
    service.process.send_signal(signal.SIGCONT)
    world.happened += 1


def dying_at(point: str) -> Fault:
    """Return the fault of a service that dies when it passes a failpoint."""

    def die(world: World) -> None:
        service = world.some
        service.kill()
        nth = world.dice.randint(1, 20)
        service.set(failpoints=f"{point}=kill@{nth}", allow_failpoints=1)
        _start(service)
        ended = service.process.wait(timeout=PATIENCE)
        assert ended == -signal.SIGKILL, f"it has ended with {ended}"
        service.bury()
        service.set(failpoints="")
        _start(service)
        world.happened += 1

    return die


def troubled_at(point: str, what: str) -> Fault:
    """Return the fault of a service that waits, or fails, when it passes a failpoint."""

    def trouble(world: World) -> None:
        service = world.some
        service.kill()
        orders = f"{point}={what}@{world.dice.randint(1, 10)}"
        service.set(failpoints=orders, allow_failpoints=1)
        _start(service)
        world.await_answers(15)
        world.happened += 1

    return trouble


def exhausted(world: World) -> None:
    """Leave it no file descriptor for a while: no new connection, and no file that is opened."""
    service = world.some
    pid = service.process.pid
    opened = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 1, hard))
    try:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):  # the kernel's, until it is accepted
            world.await_answers(5)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    world.happened += 1


# Faults of the disk and of the clock


def disk(**orders: int) -> Fault:
    """Return a fault of the disk, which ends after a few writes, or when it is taken back."""

    def fail(world: World) -> None:
        assert world.shim is not None
        before = world.shim.fired
        world.shim.order(**orders)
        _until(lambda: world.shim is not None and world.shim.fired > before)
        world.await_answers(3)
        world.shim.order(**dict.fromkeys(orders, 0))
        world.happened += 1

    return fail


def busy(world: World) -> None:
    """Lock the database by another program: SQLITE_BUSY, once the service has waited for it."""
    with closing(sqlite3.connect(world.folder / "pacesetter.db", isolation_level=None)) as other:
        other.execute("PRAGMA busy_timeout=10000")
        other.execute("BEGIN IMMEDIATE")
        # Now and then for longer than the service waits for the lock.
        time.sleep(5.5 if world.dice.random() < 0.1 else 0.1)
        other.execute("ROLLBACK")
    world.happened += 1


# Faults of the network


def wire(way: str) -> Fault:
    """Return a fault of one request on its way."""

    def fail(world: World) -> None:
        assert world.wire is not None
        before = world.wire.happened
        world.wire.way = way
        _until(lambda: world.wire is not None and world.wire.happened > before)
        world.happened += 1

    return fail


# Faults of PostgreSQL and of the pooler before it


def restart_database(world: World) -> None:
    """Kill the database server, and start it again."""
    assert world.server is not None
    world.server.kill()
    world.server.start()
    world.happened += 1


def end_sessions(world: World) -> None:
    """Terminate every connection of the database, in the midst of transactions."""
    assert world.server is not None
    with psycopg.connect(f"{world.server.conninfo} dbname=postgres", autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lr'")
    world.happened += 1


def restart_bouncer(world: World) -> None:
    """Kill PgBouncer, and start it again."""
    assert world.bouncer is not None
    world.bouncer.kill()
    world.bouncer.start()
    world.happened += 1


def fail_over(world: World) -> None:
    """Kill the server and promote its standby, which has all that was acknowledged."""
    assert world.server is not None
    assert world.bouncer is not None
    standby = world.server.standby()
    world.await_answers(5)
    world.server.kill()
    standby.promote()
    world.bouncer.lead_to(standby.conninfo)
    world.server.remove()
    world.server = standby
    world.happened += 1


ON_SQLITE: dict[str, Fault] = {
    "SIGKILL": kill,
    "SIGSTOP": pause,
    "death before a commit": dying_at("commit.before"),
    "death after a commit": dying_at("commit.after"),
    "death before an answer": dying_at("answer.before"),
    "a slow commit": troubled_at("commit.before", "pause:0.5"),
    "a refused commit": troubled_at("commit.before", "fail"),
    "a locked database": busy,
    "no file descriptor left (EMFILE)": exhausted,
}

ON_BAD_DISKS: dict[str, Fault] = {
    "slow flushes": disk(slow=300_000),
    "a flush that fails (EIO)": disk(bad_flush=1),
    "a write that fails (EIO)": disk(bad_write=1),
    "a read that fails (EIO)": disk(bad_read=3),
    "a full disk (ENOSPC)": disk(full=3),
    "a mark that cannot be written (EIO)": disk(bad_mark=3),
    "the clock an hour ahead": disk(clock=HOUR),
    "the clock an hour behind": disk(clock=-HOUR),
}

ON_WIRES: dict[str, Fault] = {
    "a request cut in its body": wire("cut_request"),
    "an answer cut in its body": wire("cut_answer"),
    "a connection half open": wire("half_open"),
    "a request doubled": wire("duplicate"),
    "a request overtaken": wire("reorder"),
    "a request delayed": wire("delay"),
    "an event stream dropped": wire("drop"),
}

ON_POSTGRES: dict[str, Fault] = {
    "SIGKILL of a replica": kill,
    "SIGSTOP of a replica, stale then": pause,
    "death of a replica before a commit": dying_at("commit.before"),
    "death of a replica after a commit": dying_at("commit.after"),
    "death of a replica before an answer": dying_at("answer.before"),
    "the database restarted": restart_database,
    "connections ended by the database": end_sessions,
    "PgBouncer restarted": restart_bouncer,
    "a fail-over to a standby": fail_over,
}

FAULTS = ON_SQLITE | ON_BAD_DISKS | ON_WIRES | ON_POSTGRES


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.002)


def _start(service: RunningService) -> None:
    """Start a service as a supervisor does, which retries while the database is away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            service.start()
        except RuntimeError:
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.2)
        else:
            return


class Follower:
    """Follows the events of a session, and resumes after the last one when it is dropped."""

    def __init__(self, url: str, session: str) -> None:
        self._url = f"{url}/v1/sessions/{session}/events/stream"
        self.stop = threading.Event()
        self.ids: list[int] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with httpx.Client(timeout=1.0, trust_env=False, verify=False) as client:
            while not self.stop.is_set():
                headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
                with (
                    suppress(httpx.TransportError),
                    client.stream("GET", self._url, headers=headers) as lines,
                ):
                    for line in lines.iter_lines():
                        if line.startswith("id:"):
                            self.ids.append(int(line.partition(":")[2]))
                        if self.stop.is_set():
                            return
                self.stop.wait(0.05)

    def missed(self) -> list[str]:
        """End, and return what was wrong with the events."""
        self.stop.set()
        self._thread.join(PATIENCE)
        wanted = list(range(self.ids[0], self.ids[0] + len(self.ids))) if self.ids else []
        return [] if self.ids and self.ids == wanted else [f"the stream had the events {self.ids}"]


@contextmanager
def _world(fault: str, folder: Path) -> Iterator[World]:
    """Set up the services for a fault; the load goes on in them meanwhile."""
    dice = random.Random(fault)
    with ExitStack() as ends:
        world = World(folder, dice, [])
        if fault in ON_POSTGRES:
            _on_postgres(world, ends)
        elif fault in ON_BAD_DISKS:
            world.shim = Shim(folder)
            ends.callback(world.shim.close)
            world.services = [world.shim.service(folder / "pacesetter.db")]
        else:
            # Streams notice soon that their reader has gone.
            world.services = [RunningService(folder / "pacesetter.db", feed_heartbeat=0.5)]
        for service in world.services:
            _start(service)
            ends.callback(_stop, service)
        urls = [service.url for service in world.services]
        if fault in ON_WIRES:
            world.wire = Wire(int(urls[0].rpartition(":")[2]))
            ends.callback(world.wire.close)
            urls = [ends.enter_context(LittleServer(world.wire)).url]
        world.load = ends.enter_context(Load(urls, TIMEOUT, keyless=fault not in ON_WIRES))
        yield world


def _on_postgres(world: World, ends: ExitStack) -> None:
    world.server = postgres.PrivateServer(postgres.PROGRAMS[0])
    ends.callback(lambda: world.server is not None and world.server.remove())
    world.server.create("lr")
    world.bouncer = postgres.Bouncer(world.server.conninfo, connections=8)
    ends.callback(world.bouncer.remove)
    url = postgres.url_of("lr", world.bouncer.conninfo)
    world.services = [RunningService(url) for _ in range(REPLICAS)]


def _stop(service: RunningService) -> None:
    with suppress(AssertionError):  # it is down
        service.stop()


def endure(fault: str, times: int, seconds: float, progress: Callable[[int], None]) -> Verdict:
    """Repeat a fault under load, by number or by time, and judge all the answers."""
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder, _world(fault, Path(folder)) as world:
        assert world.load is not None
        world.await_answers(20)
        begun = time.monotonic()
        follower = None
        if fault == "an event stream dropped" and world.wire is not None:
            follower = Follower(f"{_wire_url(world)}", world.load.sessions[0])
            _until(lambda: bool(follower and follower.ids))
        while not world.happened or (world.happened < times and time.monotonic() - begun < seconds):
            FAULTS[fault](world)
            world.await_answers(world.dice.randrange(5, 15))
            progress(world.happened)
        broken += follower.missed() if follower else []
        world.load.stop.set()
        world.load.__exit__()
        calls = world.load.audit(world.services[0].url).calls
        happened = world.happened
    broken += [f"{each.promise} of {each.session}: {each.what}" for each in judge(calls)]
    answers = Counter(each["status"] for each in calls)
    return Verdict(
        fault,
        happened,
        len(calls),
        answers[None],
        answers[503] + answers[507],
        round(time.monotonic() - begun, 1),
        tuple(broken),
    )


def _wire_url(world: World) -> str:
    assert world.load is not None
    return world.load.urls[0]


def main() -> None:
    """Run the campaign, and exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how often each fault is done")
    parser.add_argument("--seconds", type=float, default=900.0, help="the longest for one fault")
    parser.add_argument("--only", default="", help="faults whose names have this in them")
    parser.add_argument("--state", type=Path, default=Path("faults.jsonl"), help="what is done")
    options = parser.parse_args()
    done: dict[str, Verdict] = {}
    if options.state.exists():
        for line in options.state.read_text().splitlines():
            known = json.loads(line)
            known["violations"] = tuple(known["violations"])
            if known["times"] >= options.times:
                done[known["fault"]] = Verdict(**known)
    for fault in FAULTS:
        if fault in done or options.only not in fault:
            continue
        show = lambda times, of=fault: print(f"\r{of}: {times}", end="", flush=True)  # noqa: E731
        verdict = endure(fault, options.times, options.seconds, show)
        with options.state.open("a") as file:
            file.write(json.dumps(asdict(verdict)) + "\n")
        print(f"\r{verdict}")
        done[fault] = verdict
    times, broken = (
        sum(v.times for v in done.values()),
        sum(bool(v.violations) for v in done.values()),
    )
    calls = sum(verdict.calls for verdict in done.values())
    print(f"{len(done)} faults, {times} times, {calls} calls: {broken} faults broke a promise")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
