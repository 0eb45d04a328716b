"""An hour of mixed load with restarts: nothing grows that should not, and what does is counted.

`python tests/soak.py --minutes 60` is the long form; `test_soak.py` is the short one. A service
runs on SQLite while `mixed_load.py` uses it as trainers, operators, readers and followers of events
do together. It is stopped or killed now and then, and started again. Its memory, threads and file
descriptors are sampled, those of the clients too. Its latency is compared with that of an idle
twin, and the size of its database with what was written into it. Linux only: the samples come from
/proc.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from growth import Bound, Growth, Sample, growth_of, settled
from serving import PATIENCE, RunningService, open_http, spawned

TESTS = Path(__file__).parent

RESTARTS = (0.08, 0.16, 0.24, 0.32)
"""When the service is restarted, as shares of the time: short lives, then one long one."""

A_MINUTE = 6.0
"""The most samples in a minute."""

PROBES = 25
"""Calls of each kind that are timed for a sample, alternating with as many to a twin."""

SETTLING = 0.25
"""The share of the time at the start of each life that is not judged: caches fill then, threads
reach their number, and their use of memory levels off.
"""

FILL = 1.5
"""The pages of a database are assumed to be at least two thirds full."""

BOUNDS = {
    "resident MiB": Bound(share=0.05, least=4.0),
    "file descriptors": Bound(share=0.0, least=2.0),
    "threads": Bound(share=0.0, least=2.0),
    "event streams": Bound(share=0.0, least=1.0),
    "p50": Bound(share=0.25, least=0.0),
    "p90": Bound(share=0.5, least=0.0),
    "size against the computed": Bound(share=0.25, least=0.0),
    "write-ahead log, MiB": Bound(share=0.0, least=4.0),
}
"""How much each quantity may grow in an hour, by the end of its name."""


class Clients:
    """The process with all clients, and the progress that it reports."""

    def __init__(self, url: str, log: Path) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(TESTS / "mixed_load.py"), url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = self._process.pid
        self.said: dict[str, Any] = {"done": {}, "errors": []}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.said = json.loads(line)

    def done(self, what: str) -> int:
        """Return how often something was done."""
        return int(self.said["done"].get(what, 0))

    def await_steps(self, more: int) -> None:
        """Wait until that many more steps are trained."""
        wanted, deadline = self.done("steps") + more, time.monotonic() + PATIENCE
        while self.done("steps") < wanted:
            assert not self.said["errors"], self.said["errors"]
            assert time.monotonic() < deadline, "no trainer goes on"
            time.sleep(0.05)

    def end(self) -> None:
        """End all of them, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(4 * PATIENCE)
        self._reader.join(PATIENCE)

    def kill(self) -> None:
        """Kill the process, whatever it does."""
        self._process.kill()
        self.end()


class Probe:
    """Times calls to the service, alternating with the same calls to an idle twin."""

    def __init__(self, service: httpx.Client, twin: httpx.Client) -> None:
        self._both = {"service": service, "twin": twin}
        self._step = 0
        for http in self._both.values():
            spec = {"name": "probe", "base_lr": 0.1}
            http.post("/v1/sessions", json=spec).raise_for_status()

    def latencies(self) -> dict[str, float]:
        """Return how much longer a durable sync and a read of a session take than at the twin."""
        took: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(PROBES):
            for who, http in self._both.items():
                took["a sync", who].append(_seconds(partial(self._sync, http)))
                took["a look", who].append(_seconds(partial(self._look, http)))
            self._step += 1
        found = {}
        for what in ("a sync", "a look"):
            ours, others = took[what, "service"], took[what, "twin"]
            found[f"latency of {what}, p50"] = median(ours) / median(others)
            found[f"latency of {what}, p90"] = _p90(ours) / _p90(others)
        return found

    def _sync(self, http: httpx.Client) -> None:
        reports = [{"step": self._step - 1, "metrics": {"loss": 0.5}}] if self._step else []
        body = {"step": self._step, "reports": reports}
        http.post("/v1/sessions/probe/sync", json=body).raise_for_status()

    def _look(self, http: httpx.Client) -> None:
        http.get("/v1/sessions/probe").raise_for_status()

    @property
    def reported(self) -> int:
        """How many values it has reported."""
        return max(self._step - 1, 0)


def _p90(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=10, method="inclusive")[-1]


def _seconds(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def handles(pid: int) -> dict[str, float]:
    """Return what a process holds."""
    of = Path(f"/proc/{pid}")
    pages = int((of / "statm").read_text().split()[1])
    return {
        "resident MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "file descriptors": float(len(list((of / "fd").iterdir()))),
        "threads": float(len(list((of / "task").iterdir()))),
    }


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a database.

    Attributes:
        used: bytes of its pages that are in use.
        computed: bytes of what was written into it.
        readings: how many values were reported.
    """

    used: int
    computed: int
    readings: int

    @property
    def is_as_computed(self) -> bool:
        """Whether one explains the other."""
        return self.computed / FILL <= self.used <= self.computed * FILL


def streams(http: httpx.Client) -> float:
    """Return how many event streams a service has open; each reads the database."""
    lines = http.get("/metrics").raise_for_status().text.splitlines()
    [line] = [each for each in lines if each.startswith("pacesetter_event_streams ")]
    return float(line.split()[1])


def used(database: Path) -> int:
    """Return the bytes of the pages of a database that are in use."""
    with closing(_opened(database)) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((free,),) = connection.execute("PRAGMA freelist_count")
        ((size,),) = connection.execute("PRAGMA page_size")
    return int((pages - free) * size)


def log_of(database: Path) -> float:
    """Return the size of a database's write-ahead log in MiB; readers can keep it from ending."""
    return Path(f"{database}-wal").stat().st_size / 2**20


def size_of(database: Path, empty: int) -> Size:
    """Compute the size of a database from its rows.

    Args:
        database: the file.
        empty: bytes that its tables and indexes take without a row.
    """
    with closing(_opened(database)) as connection:
        ask = lambda query: connection.execute(query).fetchone()[0] or 0  # noqa: E731
        blocks = ("reading_blocks", "measurement_blocks")
        texts = "sum(length(spec) + length(plan) + length(control))"
        computed = (
            empty
            # A row and its entry in an index; and 8 bytes a value.
            + ask("SELECT 34 * count(*) + 8 * sum(count) FROM sealed")
            + sum(ask(f"SELECT 24 * count(*) + 8 * sum(size) FROM {each}") for each in blocks)
            # A row, its place in the feed, and three entries in indexes.
            + ask("SELECT 160 * count(*) + sum(length(payload)) FROM events")
            + ask("SELECT 20 * count(*) + sum(length(plan) + length(control)) FROM snapshots")
            + ask(f"SELECT 200 * count(*) + {texts} FROM sessions")
            + ask("SELECT 100 * count(*) FROM purged")
            + ask("SELECT 150 * count(*) FROM attempts")
        )
        readings = ask("SELECT sum(size) FROM reading_blocks")
    return Size(used(database), int(computed), int(readings))


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=PATIENCE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an hour of load has done.

    Attributes:
        done: what the clients have done, and how often.
        restarts: of the service.
        errors: unexpected answers and exceptions of the clients.
        growths: how each quantity has grown.
        unjudged: quantities with too few samples to judge.
        size: of the database in the end.
        lost: reports that are missing in the database, or are there more than once.
        left: threads and file descriptors that the clients' process has not given back.
    """

    done: dict[str, int]
    restarts: int
    errors: list[str]
    growths: list[Growth]
    unjudged: list[str]
    size: Size
    lost: int
    left: list[str]

    @property
    def faults(self) -> list[str]:
        """The failures, in words."""
        found = [f"an error: {each}" for each in self.errors]
        found += [str(each) for each in self.growths if each.is_too_much]
        found += [f"too few samples, soak longer: {each}" for each in self.unjudged]
        found += [f"{what} is left" for what in self.left]
        if self.lost:
            found.append(f"{self.lost} reports are missing, or there twice")
        if not self.size.is_as_computed:
            found.append(f"the database has {self.size.used} bytes, not {self.size.computed}")
        return found

    def __str__(self) -> str:
        counts = ", ".join(f"{number:,} {what}" for what, number in sorted(self.done.items()))
        used, computed = (each / 2**20 for each in (self.size.used, self.size.computed))
        lines = [
            f"{counts}; {self.restarts} restarts of the service, {len(self.errors)} errors",
            *map(str, self.growths),
            f"the database: {used:.2f} MiB, computed {computed:.2f} MiB",
            f"reports lost or double: {self.lost} of {self.size.readings}",
            f"left in the clients' process: {self.left}",
        ]
        return "\n".join(lines)


def soak(
    folder: Path,
    *,
    minutes: float,
    a_minute: float = A_MINUTE,
    restarts: Sequence[float] = RESTARTS,
    progress: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Use a service for that long, and judge it.

    Args:
        folder: where its data goes.
        minutes: how long.
        a_minute: the most samples in a minute.
        restarts: when the service is restarted, as shares of the time.
        progress: is called with the state so far.
    """
    database = folder / "pacesetter.db"
    series: dict[str, list[Sample]] = defaultdict(list)
    with ExitStack() as ends:
        service = ends.enter_context(RunningService(database, spawned))
        empty = used(database)
        twin = ends.enter_context(RunningService(folder / "twin.db", spawned))
        http, other = (ends.enter_context(open_http(each.url)) for each in (service, twin))
        probe = Probe(http, other)
        clients = Clients(service.url, folder / "clients.log")
        ends.callback(clients.kill)
        clients.await_steps(100)
        life, due, begun = 0, sorted(restarts), time.monotonic()
        passed = lambda: (time.monotonic() - begun) / 60.0  # noqa: E731
        while (at := passed()) < minutes or due:
            if due and at / minutes >= due[0]:
                del due[0]
                life += 1
                _restart(service, politely=life % 2 == 1)
            clients.await_steps(1)
            size = size_of(database, empty)
            found = {
                **_named("service", life, handles(service.process.pid)),
                **_named("service", life, probe.latencies()),
                **_named("service", life, {"event streams": streams(http)}),
                **_named("clients", 0, handles(clients.pid)),
                **_named("database", 0, {"size against the computed": size.used / size.computed}),
                **_named("database", life, {"write-ahead log, MiB": log_of(database)}),
            }
            seen = passed()
            for name, (lived, value) in found.items():
                series[name].append(Sample(seen, lived, value))
            progress(json.dumps({"minute": round(seen, 2), "done": clients.said["done"], **found}))
            time.sleep(max(at + 1.0 / a_minute - passed(), 0.0) * 60.0)
        clients.end()
        size = size_of(database, empty)
    said = clients.said
    growths = [each for item in series.items() for each in _judged(*item, minutes)]
    return Verdict(
        said["done"],
        life,
        said["errors"] + ([] if "left" in said else ["the clients did not end"]),
        growths,
        sorted(series.keys() - {each.name for each in growths}),
        size,
        abs(size.readings - said["done"]["values"] - probe.reported),
        said.get("left", []),
    )


def _named(whose: str, life: int, found: dict[str, float]) -> dict[str, tuple[int, float]]:
    return {f"{whose}: {what}": (life, value) for what, value in found.items()}


def _judged(name: str, samples: Sequence[Sample], minutes: float) -> list[Growth]:
    """Return how a quantity has grown; None if no life has lasted for two samples."""
    bound = next(bound for end, bound in BOUNDS.items() if name.endswith(end))
    kept = settled(samples, SETTLING * minutes)
    comparable = any(count > 1 for count in Counter(each.life for each in kept).values())
    return [growth_of(name, kept, bound)] if comparable else []


def _restart(service: RunningService, *, politely: bool) -> None:
    if politely:
        assert service.stop() == 0
    else:
        service.kill()
    service.start()


def main() -> None:
    """Run the long form, and exit with 1 if there is a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--a-minute", type=float, default=A_MINUTE, help="samples, at most")
    parser.add_argument("--samples", type=Path, help="a file for all samples, a line of JSON each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        progress: Callable[[str], None] = lambda _: None  # noqa: E731
        if options.samples is not None:
            file = ends.enter_context(options.samples.open("w", buffering=1))
            progress = lambda line: print(line, file=file)  # noqa: E731
        verdict = soak(
            Path(folder), minutes=options.minutes, a_minute=options.a_minute, progress=progress
        )
    print(verdict)
    for fault in verdict.faults:
        print(f"WRONG: {fault}")
    raise SystemExit(bool(verdict.faults))


if __name__ == "__main__":
    main()
