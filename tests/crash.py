"""Kills the service under load, again and again, and counts what was lost: nothing may be.

`python tests/crash.py --kills 200` is the long form; `test_crash.py` is the short one.
"""

import argparse
import random
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pacesetter_service.store.blocks import Block, unpack_all
from serving import PATIENCE, RunningService, open_http

JOB = {
    "base_lr": 0.1,
    "schedule": {"kind": "exponential", "gamma": 0.9999},
    "controllers": [{"kind": "plateau", "metric": "loss", "patience": 3, "factor": 0.9}],
    "max_lookahead": 8,
}


@dataclass(slots=True)
class Trainer:
    """A trainer: it takes windows, reports, and remembers all answers."""

    name: str
    seed: int
    values: dict[int, float] = field(default_factory=dict)
    acknowledged: dict[int, float] = field(default_factory=dict)
    changed: int = 0

    def train(self, url: str, stop: threading.Event) -> None:
        """Train until told to stop; after a lost connection, repeat the call unchanged."""
        with open_http(url) as http:
            self._insist(lambda: self._create(http), stop)
            while not stop.is_set():
                self._insist(lambda: self._step(http), stop)

    def _insist(self, call: Callable[[], None], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                call()
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return

    def _create(self, http: httpx.Client) -> None:
        http.post("/v1/sessions", json={"name": self.name, **JOB}).raise_for_status()

    def _step(self, http: httpx.Client) -> None:
        start = len(self.values)
        losses = {step: self._loss(step) for step in range(start) if step not in self.acknowledged}
        body = {
            "want": {"start": start, "count": 8},
            "reports": [{"step": step, "metrics": {"loss": loss}} for step, loss in losses.items()],
        }
        answer = http.post(f"/v1/sessions/{self.name}/sync", json=body).raise_for_status().json()
        self.acknowledged |= losses
        self._remember(start, answer["series"]["lr"])

    def _loss(self, step: int) -> float:
        """Return the loss at a step: repeating a report repeats its value."""
        return random.Random(f"{self.seed}-{step}").random()

    def _remember(self, start: int, values: list[float]) -> None:
        for step, value in enumerate(values, start):
            if self.values.setdefault(step, value) != value:
                self.changed += 1

    def ask_everything_again(self, http: httpx.Client) -> None:
        """Compare all sealed values with what was answered before."""
        if self.values:
            body = {"want": {"start": 0, "count": len(self.values)}}
            for start in range(0, len(self.values), 8):
                body = {"want": {"start": start, "count": 8}}
                answer = http.post(f"/v1/sessions/{self.name}/sync", json=body).raise_for_status()
                self._remember(start, answer.json()["series"]["lr"])

    def count_lost(self, database: Path) -> int:
        """Return how many acknowledged reports the database lacks, to the bit."""
        query = (
            "SELECT b.start, b.until, b.size, b.data FROM reading_blocks b"
            " JOIN sessions s ON s.id = b.session_id WHERE s.name = ?"
        )
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            rows = connection.execute(query, (self.name,))
            found = unpack_all((Block(*row) for row in rows), 1)
        connection.close()
        kept = dict(zip(found.steps.tolist(), found.values.tolist(), strict=True))
        return sum(
            struct.pack("<d", kept.get(step, float("nan"))) != struct.pack("<d", loss)
            for step, loss in self.acknowledged.items()
        )


@dataclass(frozen=True, slots=True)
class Toll:
    """What the kills cost."""

    kills: int
    reports: int
    lost: int
    values: int
    changed: int

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.lost} of {self.reports} acknowledged reports lost, "
            f"{self.changed} of {self.values} sealed values changed"
        )


def _await_reports(crew: list[Trainer], more: int) -> None:
    """Wait until that many more reports are acknowledged, however slow the machine."""
    wanted = _count(crew) + more
    deadline = time.monotonic() + PATIENCE
    while _count(crew) < wanted and time.monotonic() < deadline:
        time.sleep(0.001)


def _count(crew: list[Trainer]) -> int:
    return sum(len(each.acknowledged) for each in crew)


def endure(
    folder: Path, kills: int, trainers: int = 4, progress: Callable[[int], None] = lambda _: None
) -> Toll:
    """Kill a service at random moments while trainers use it, and count."""
    chance = random.Random(20)
    crew = [Trainer(f"trainer-{number}", number) for number in range(trainers)]
    service = RunningService(folder / "pacesetter.db").start()
    stop = threading.Event()
    threads = [
        threading.Thread(target=each.train, args=(service.url, stop), daemon=True) for each in crew
    ]
    for thread in threads:
        thread.start()
    for kill in range(kills):
        _await_reports(crew, more=chance.randrange(200))
        service.kill()
        service.start()
        progress(kill + 1)
    _await_reports(crew, more=100)
    stop.set()
    for thread in threads:
        thread.join()
    with open_http(service.url) as http:
        for each in crew:
            each.ask_everything_again(http)
    service.stop()
    return Toll(
        kills=kills,
        reports=_count(crew),
        lost=sum(each.count_lost(service.database) for each in crew),
        values=sum(len(each.values) for each in crew),
        changed=sum(each.changed for each in crew),
    )


def main() -> None:
    """Run the long form and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        toll = endure(
            Path(folder), kills, progress=lambda done: print(f"\rkill {done} of {kills}", end="")
        )
    print(f"\n{toll}")
    raise SystemExit(bool(toll.lost or toll.changed))


if __name__ == "__main__":
    main()
