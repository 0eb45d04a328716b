"""Power cuts: what a disk may contain at any moment, by the log of all writes and flushes.

A service runs under load on a disk whose writes are logged. For each cut a moment is drawn; what
was flushed until then is on the disk; of what was written since, each write is there, missing, or
torn at a sector, at random. The database is then opened, and must be sound and have all that was
acknowledged before that moment. The directory is assumed to be flushed, and a flush to be honest: a
disk that lies about it loses data, which `ignore_flushes` shows.
"""

import argparse
import random
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pacesetter_service.store.blocks import Block, unpack_all

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from proof.history import History  # noqa: E402 - found by the lines above
from proof.load import Load  # noqa: E402
from proof.shim import Shim  # noqa: E402

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Write:
    """An entry of the log: a write (`w`), a truncation (`t`) or a flush (`f`) of one file."""

    what: str
    file: str
    offset: int
    data: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Losses:
    """What cuts of the power have cost."""

    cuts: int
    writes: int
    dropped: int
    damaged: int
    reports: int
    reports_lost: int
    values: int
    values_lost: int

    @property
    def is_nothing(self) -> bool:
        """Whether nothing that was acknowledged was lost."""
        return not (self.damaged or self.reports_lost or self.values_lost)

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts in {self.writes} writes, of which {self.dropped} were dropped or"
            f" torn: {self.damaged} databases damaged, {self.reports_lost} of {self.reports}"
            f" acknowledged reports and {self.values_lost} of {self.values} given values lost"
        )


def read_log(path: Path) -> Iterator[Write]:
    """Read all writes, in order."""
    with path.open("rb") as file:
        while line := file.readline():
            what, kind, offset, length, at = line.decode().split()
            yield Write(what, kind, int(offset), file.read(int(length)), float(at))


class Disk:
    """Two files, what is flushed of them, and what was written since.

    Attributes:
        dropped: How many writes were lost or torn, in all cuts.
    """

    def __init__(self) -> None:
        self._safe = {"d": bytearray(), "w": bytearray()}
        self._since: dict[str, list[Write]] = {"d": [], "w": []}
        self.dropped = 0

    def write(self, write: Write, *, ignore_flushes: bool) -> None:
        """Take a write, a truncation or a flush."""
        self._since[write.file].append(write)
        if write.what == "f" and not ignore_flushes:
            for each in self._since[write.file]:
                _apply(self._safe[write.file], each)
            self._since[write.file] = []

    def cut(self, folder: Path, dice: random.Random) -> Path:
        """Write the files as they may be after a cut; return the database's path."""
        for kind, name in (("d", "cut.db"), ("w", "cut.db-wal")):
            image = bytearray(self._safe[kind])
            for each in self._since[kind]:
                fate = dice.choice(("there", "gone", "torn"))
                self.dropped += fate != "there"
                if fate != "gone":
                    _apply(image, _torn(each, dice) if fate == "torn" else each)
            (folder / name).write_bytes(image)
        (folder / "cut.db-shm").unlink(missing_ok=True)
        return folder / "cut.db"


def _torn(write: Write, dice: random.Random) -> Write:
    """Return what is there of a write whose last sectors are missing."""
    sectors = dice.randrange(len(write.data) // SECTOR + 1)
    return replace(write, data=write.data[: sectors * SECTOR] if write.what == "w" else b"")


def _apply(image: bytearray, write: Write) -> None:
    if write.what == "w":
        if len(image) < write.offset:
            image.extend(bytes(write.offset - len(image)))
        image[write.offset : write.offset + len(write.data)] = write.data
    elif write.what == "t":
        del image[write.offset :]
        image.extend(bytes(write.offset - len(image)))


def recorded(folder: Path, answers: int) -> tuple[list[Write], History]:
    """Run a load on a disk that is logged, and kill the service in the midst of it."""
    shim = Shim(folder)
    service = shim.service(folder / "pacesetter.db", logged=True).start()
    with Load([service.url], steered=0) as load:
        load.await_answers(answers)
        load.stop.set()
    service.kill()
    shim.close()
    return list(read_log(shim.log)), load.history


def cut_often(
    writes: list[Write], history: History, cuts: int, folder: Path, *, ignore_flushes: bool = False
) -> Losses:
    """Cut the power at that many moments, and count what is missing each time."""
    dice, disk = random.Random(7), Disk()
    at = sorted(dice.randrange(len(writes) // 10, len(writes)) for _ in range(cuts))
    done = damaged = reports = reports_lost = values = values_lost = 0
    for cut in at:
        for write in writes[done:cut]:
            disk.write(write, ignore_flushes=ignore_flushes)
        done = cut
        moment = writes[cut].at
        told = _told_before(history, moment)
        found = _found(disk.cut(folder, dice))
        damaged += found is None
        there = found or (set(), set())
        reports += len(told[0])
        reports_lost += len(told[0] - there[0])
        values += len(told[1])
        values_lost += len(told[1] - there[1])
    lost = (damaged, reports, reports_lost, values, values_lost)
    return Losses(cuts, len(writes), disk.dropped, *lost)


Told = tuple[set[tuple[str, int, float]], set[tuple[str, int, int, float]]]


def _told_before(history: History, moment: float) -> Told:
    """Return the reports acknowledged, and the values handed out, by then."""
    reports, values = set(), set()
    for call in history.calls:
        if call["kind"] != "sync" or call["status"] != 200 or call["end"] > moment:
            continue
        session, attempt, got = call["session"], call["sent"]["attempt"], call["got"]
        for report in call["sent"]["reports"]:
            if report["metrics"]["loss"] >= 0:  # otherwise it repeats another, and does not count
                reports.add((session, report["step"], report["metrics"]["loss"]))
        for step, value in enumerate(got["series"]["lr"], got["start"]):
            values.add((session, attempt, step, value))
    return reports, values


def _found(database: Path) -> Told | None:
    """Return what a database contains; None if it is damaged."""
    connection = sqlite3.connect(database)
    try:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return None
        reports, values = set(), set()
        names = dict(connection.execute("SELECT id, name FROM sessions").fetchall())
        query = "SELECT session_id, start, until, size, data FROM reading_blocks"
        for number, *block in connection.execute(query):
            columns = unpack_all([Block(*block)], 1)
            for step, value in zip(columns.steps.tolist(), columns.values.tolist(), strict=True):
                reports.add((names[number], step, value))
        query = 'SELECT session_id, attempt, start, count, "values" FROM sealed'
        for number, attempt, start, count, block in connection.execute(query):
            rates = memoryview(block).cast("d")[:count]
            values |= {(names[number], attempt, start + n, rate) for n, rate in enumerate(rates)}
    except sqlite3.DatabaseError:
        return None
    finally:
        connection.close()
    return reports, values


def main() -> None:
    """Run the long form and exit with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=1000)
    cuts = parser.parse_args().cuts
    with tempfile.TemporaryDirectory() as folder:
        writes, history = recorded(Path(folder), answers=600)
        losses = cut_often(writes, history, cuts, Path(folder))
    print(losses)
    raise SystemExit(not losses.is_nothing)


if __name__ == "__main__":
    main()
