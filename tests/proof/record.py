"""A session by its export, parsed without the service's code."""

import json
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

AttemptStep = tuple[int, int]

Path = tuple[tuple[int, int], ...]
"""Attempts with their first steps; each ends where the next one begins."""


@dataclass
class Order:
    """An order, as the record has it; one without a key has its rate alone."""

    number: int
    at: int
    rate: float
    key: str | None
    actor: str
    attempt: int

    @property
    def name(self) -> str:
        """What tells it from others: its key, or its rate."""
        return order_name(self.key, self.rate)


def order_name(key: str | None, rate: float) -> str:
    """Return what tells an order from others: no two have the same rate."""
    return key or f"to {rate!r}"


class Closed(NamedTuple):
    """A step whose readings controllers have seen when `at` was the horizon, in an attempt.

    Without a value they were too few: the step was missed.
    """

    attempt: int
    at: int
    step: int
    value: float | None
    ranks: int


class Decision(NamedTuple):
    """A change of the level that a controller decided on a measurement."""

    attempt: int
    at: int
    step: int
    before: float
    after: float


@dataclass
class Record:
    """A session as it is in the end.

    Attributes:
        past: The attempts of the session that it was forked from, by the numbers of the record,
            and its own first one.
        forked: What it was forked from; None if it was not.
        taken: What was taken back, by the attempt that began with it.
    """

    sealed: dict[AttemptStep, float] = field(default_factory=dict)
    readings: dict[tuple[int, int, int, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    orders: list[Order] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=lambda: {1: 0})
    past: Path = ((1, 0),)
    forked: dict[str, Any] | None = None
    taken: dict[int, dict[str, Any]] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    is_steered: bool = False

    def path(self, attempt: int) -> Path:
        """Return the lineage of an attempt, with itself."""
        path = self.past
        for number in range(2, attempt + 1):
            start = self.starts.get(number, 0)
            path = (*(each for each in path if each[1] < start), (number, start))
        return path

    def owner(self, attempt: int, step: int) -> int:
        """Return the attempt that trained a step in an attempt's lineage."""
        path = self.path(attempt)
        return next((each for each, start in reversed(path) if start <= step), path[0][0])

    def carried(self, attempt: int) -> list[int]:
        """Return an attempt, and those in which its trainers went on without noticing."""
        found = [attempt]
        while found[-1] + 1 in self.taken:
            found.append(found[-1] + 1)
        return found

    def order_at(self, attempt: int, step: int) -> Order | None:
        """Return the order that sets the value of an attempt's step; None for none."""
        known = [each for each in self.orders if each.attempt <= attempt and each.at <= step]
        return max(known, key=lambda each: (each.at, each.number), default=None)


def parsed(text: str) -> Record:
    """Parse the export of a session."""
    record = Record()
    for line in map(json.loads, text.splitlines()):
        match line["line"]:
            case "session":
                record.is_steered = bool(line["spec"]["controllers"])
            case "attempt" if line["attempt"] == 1:
                record.past = tuple((number, start) for number, start in line["lineage"])
                record.starts[1] = line["start"]
            case "sealed":
                for step, value in enumerate(_floats(line["values"]), line["start"]):
                    record.sealed[line["attempt"], step] = value
            case "readings":
                rows = zip(line["steps"], line["ranks"], _floats(line["values"]), strict=True)
                for step, rank, value in rows:
                    record.readings[line["attempt"], rank, step, line["metric"]].append(value)
            case "measurements":
                _add_measurements(record, line)
            case "event":
                _add_event(record, line["kind"], line["attempt"], json.loads(line["payload"]))
    return record


def _add_measurements(record: Record, line: dict[str, Any]) -> None:
    values = _floats(line["values"])
    rows = zip(line["horizons"], line["steps"], values, line["ranks"], strict=True)
    record.closed += [Closed(line["attempt"], *row) for row in rows]


def _add_event(record: Record, kind: str, attempt: int, said: dict[str, Any]) -> None:
    if attempt < 1 and kind not in ("decided", "missed"):
        return  # the attempts of a fork's parent are its own
    match kind:
        case "ordered":
            order = said["order"]
            who = order.get("key"), order["actor"], attempt
            record.orders.append(Order(order["id"], order["at"], order["action"]["lr"], *who))
        case "attempt_opened":
            record.starts[said["attempt"]] = said["at"]
        case "taken_back":
            record.starts[said["attempt"]] = said["at"]
            record.taken[said["attempt"]] = said
        case "forked":
            record.forked = said
        case "missed":
            row = said["at"], said["step"], None, said["ranks"]
            record.closed.append(Closed(attempt, *row))
        case "decided":
            before, after = said["levels"]["lr"]
            record.decisions.append(Decision(attempt, said["at"], said["step"], before, after))


def _floats(text: str) -> tuple[float, ...]:
    return struct.unpack(f"<{len(text) // 16}d", bytes.fromhex(text))
