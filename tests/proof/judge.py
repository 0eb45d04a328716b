"""Whether a history kept the promises; it knows the promises, and nothing of the service's code.

The last thing in a history is each session's record. Orders have ids, steps are sealed in their
order, and each value names its order: so the record shows the one order in which everything
happened, and a history is linearizable if each answer agrees with that order, and nobody was
answered from before what had been answered when the call began.
"""

import json
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from proof.history import BASE

Call = dict[str, Any]
AttemptStep = tuple[int, int]

REFUSALS = {
    "sync": {409, 422},  # an attempt that is over; a step beyond the horizon
    "open": {409, 422},
    "act": {404},
    "look": {404},
    "explain": {404, 409, 422},
    "values": {404, 409, 422},
}
"""What may be answered in place of 200, besides that it is to be tried again."""

COME_AGAIN = {503, 507}

SLACK = 5.0
"""Seconds that this machine may take for itself, beyond the bound of a call."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and how."""

    promise: str
    session: str
    what: str


@dataclass
class Order:
    """An order, as the record has it."""

    number: int
    at: int
    rate: float
    key: str
    actor: str
    attempt: int


@dataclass
class Record:
    """A session as it is in the end."""

    sealed: dict[AttemptStep, float] = field(default_factory=dict)
    readings: dict[tuple[int, int, int, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    orders: list[Order] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=lambda: {1: 0})

    def owner(self, attempt: int, step: int) -> int:
        """Return the attempt in which one has trained a step: itself, or one that it follows."""
        path = [1]
        for number in range(2, attempt + 1):
            start = self.starts.get(number, 0)
            path = [*(each for each in path if self.starts.get(each, 0) < start), number]
        return next((each for each in reversed(path) if self.starts.get(each, 0) <= step), path[0])

    def order_at(self, attempt: int, step: int) -> Order | None:
        """Return the order that a step of an attempt must have its value from; None for none."""
        known = [each for each in self.orders if each.attempt <= attempt and each.at <= step]
        return max(known, key=lambda each: (each.at, each.number), default=None)


def judge(calls: list[Call]) -> list[Violation]:
    """Return every violation of a promise that a history shows."""
    by_session: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_session[call["session"]].append(call)
    return [
        violation
        for session, mine in sorted(by_session.items())
        for violation in _Judge(session, mine).found()
    ]


class _Judge:
    def __init__(self, session: str, calls: list[Call]) -> None:
        self._session = session
        self._calls = calls
        self._good = [each for each in calls if each["status"] in (200, 201)]
        self._violations: list[Violation] = []
        texts = [each["got"] for each in self._of("record")]
        self._record = parsed(texts[-1]) if texts else Record()

    def _of(self, kind: str) -> list[Call]:
        return [each for each in self._good if each["kind"] == kind]

    def _broken(self, promise: str, what: str) -> None:
        self._violations.append(Violation(promise, self._session, what))

    def found(self) -> list[Violation]:
        """Judge everything."""
        self._bounded()
        self._values()
        self._reports()
        self._orders()
        self._attempts()
        self._looks()
        self._explanations()
        return self._violations

    def _bounded(self) -> None:
        """P5: every call ends in its time, with an answer that says what to do."""
        for call in self._calls:
            allowed = {200, 201, None, *COME_AGAIN, *REFUSALS.get(call["kind"], set())}
            if call["status"] not in allowed:
                self._broken("P5", f"{call['kind']} was answered {call['status']}: {call['got']}")
            if call["end"] - call["begin"] > call["bound"] + SLACK:
                self._broken("P5", f"{call['kind']} took {call['end'] - call['begin']:.1f} s")

    def _given(self) -> list[tuple[Call, AttemptStep, float]]:
        """Return each value that was given to who names an attempt."""
        found = []
        for call in self._good:
            if call["kind"] not in ("sync", "values") or "series" not in (call["got"] or {}):
                continue
            attempt, start = call["sent"]["attempt"], call["got"]["start"]
            until = call["got"].get("sealed_until", float("inf"))
            for step, value in enumerate(call["got"]["series"]["lr"], start):
                if step < until:
                    found.append((call, (self._record.owner(attempt, step), step), value))
        return found

    def _values(self) -> None:
        """P1, P2, P3 and P6, of each value that was given."""
        first: dict[AttemptStep, float] = {}
        for _call, where, value in self._given():
            if _bits(first.setdefault(where, value)) != _bits(value):
                self._broken("P1", f"{where} was {first[where]!r} and {value!r}")
            kept = self._record.sealed.get(where)
            if kept is None:
                self._broken("P3", f"{where} was given, and is not in the record")
                continue
            if _bits(kept) != _bits(value):
                self._broken("P1", f"{where} was given as {value!r}, and is {kept!r}")
        for (attempt, step), value in self._record.sealed.items():
            order = self._record.order_at(attempt, step)
            if value != (BASE if order is None else order.rate):
                by = "nobody" if order is None else order.key
                # A wrong law of what was ordered before the attempt: it was not resumed exactly.
                inherited = order is not None and order.attempt < attempt
                self._broken(
                    "P6" if inherited else "P2", f"{attempt, step} is {value}, not by {by}"
                )

    def _reports(self) -> None:
        """P3: what was acknowledged is there; P4: once, and as it was said first."""
        said: dict[tuple[int, int, int, str], list[tuple[Call, float]]] = defaultdict(list)
        for call in self._calls:
            if call["kind"] != "sync":
                continue
            rank, attempt = call["sent"].get("rank", 0), call["sent"]["attempt"]
            for report in call["sent"].get("reports", ()):
                for metric, value in report["metrics"].items():
                    owner = self._record.owner(attempt, report["step"])
                    said[owner, rank, report["step"], metric].append((call, value))
        for key, times in said.items():
            kept = self._record.readings.get(key, [])
            acknowledged = [(call, value) for call, value in times if call["status"] == 200]
            if acknowledged and not kept:
                self._broken("P3", f"the reading {key} was acknowledged, and is not in the record")
            for value in kept:
                of_it = [call for call, one in times if _bits(one) == _bits(value)]
                if not of_it:
                    self._broken("P4", f"the reading {key} is {value!r}, which nobody has said")
                    continue
                began = min(call["begin"] for call in of_it)
                if any(c["end"] < began and _bits(v) != _bits(value) for c, v in acknowledged):
                    self._broken("P4", f"the reading {key} was counted as it was repeated")
        for key, kept in self._record.readings.items():
            if len(kept) > 1:
                self._broken("P4", f"the reading {key} counts {len(kept)} times")
            if key not in said:
                self._broken("P4", f"the reading {key} was never said")

    def _orders(self) -> None:
        """P2: an order names the step from which it holds, which nobody was given; P4: once."""
        by_key: dict[str, list[Order]] = defaultdict(list)
        for order in self._record.orders:
            by_key[order.key].append(order)
        sent = {each["key"] for each in self._calls if each["kind"] == "act"}
        for key, orders in by_key.items():
            if len(orders) > 1 or key not in sent:
                self._broken("P4", f"the order {key} stands {len(orders)} times in the record")
        acts = self._of("act")
        first: dict[str, float] = {}
        for each in self._calls:
            first[each["key"]] = min(each["begin"], first.get(each["key"], each["begin"]))
        syncs = [(c, where) for c, where, _ in self._given() if c["kind"] == "sync"]
        for act in acts:
            if act["key"] not in by_key:
                self._broken("P3", f"the order {act['key']} was taken, and is not in the record")
                continue
            order, got = by_key[act["key"]][0], act["got"]
            if (got["id"], got["effective_step"]) != (order.number, order.at):
                self._broken(
                    "P2", f"the order {order.key} was told to hold from another step: {got}"
                )
            begun = first[order.key]
            for call, (attempt, step) in syncs:
                if attempt == order.attempt and step >= order.at and call["end"] < begun:
                    self._broken("P2", f"step {step} was given before {order.key} changed it")
        ordered = sorted(acts, key=lambda each: each["end"])
        for earlier in ordered:
            for later in ordered:
                came_later = earlier["end"] < first[later["key"]]
                if came_later and earlier["got"]["id"] >= later["got"]["id"]:
                    self._broken("P2", f"{later['key']} came later, and has an earlier number")

    def _attempts(self) -> None:
        """P6: an attempt begins where it was asked to; P7: those before it are over then."""
        for opened in self._of("open"):
            got, number = opened["got"], opened["got"]["attempt"]
            if opened["status"] == 201 and got["horizon"] != opened["sent"]["step"]:
                self._broken("P6", f"attempt {number} begins at {got['horizon']}: {opened['sent']}")
            if self._record.starts.get(number) != opened["sent"]["step"]:
                self._broken("P6", f"attempt {number} does not begin at {opened['sent']['step']}")
            wanted: dict[int, int] = defaultdict(int)
            for call in self._calls:
                if call["kind"] == "sync" and call["begin"] < opened["end"]:
                    want, old = call["sent"]["want"], call["sent"]["attempt"]
                    wanted[old] = max(wanted[old], want["start"] + want["count"])
            for call in self._of("sync"):
                old = call["sent"]["attempt"]
                if old >= number or call["begin"] < opened["end"]:
                    continue
                if call["sent"]["reports"]:
                    self._broken("P7", f"attempt {old} has reported after {number} was opened")
                elif call["got"]["start"] + len(call["got"]["series"]["lr"]) > wanted[old]:
                    self._broken("P7", f"attempt {old} has sealed after {number} was opened")

    def _looks(self) -> None:
        """P2, of who only looks: nobody is shown what is older than what somebody was told."""
        told = [c for c in self._good if c["kind"] in ("act", "open", "look")]
        looks = self._of("look")
        for name in ("revision", "attempt"):
            for look in looks:
                before = [c["got"].get(name, 0) for c in told if c["end"] < look["begin"]]
                if before and look["got"][name] < max(before):
                    self._broken("P2", f"a {name} of {look['got'][name]} after {max(before)}")

    def _explanations(self) -> None:
        """P8: an explanation names the order that a value comes from, and who gave it."""
        for call in self._of("explain"):
            got, step = call["got"], call["sent"]["step"]
            if not got["sealed"]:
                continue
            attempt = self._record.owner(got["attempt"], step)
            kept, shown = self._record.sealed.get((attempt, step)), got["series"]["lr"]
            if kept is not None and _bits(kept) != _bits(shown["value"]):
                self._broken("P8", f"step {step} is explained as {shown['value']}, and is {kept}")
            order = self._record.order_at(attempt, step)
            cause = (shown["cause"] or {}).get("order") or {}
            named = (cause.get("key"), cause.get("actor"))
            if named != ((None, None) if order is None else (order.key, order.actor)):
                self._broken("P8", f"step {step} is said to come from {named}")


def parsed(text: str) -> Record:
    """Read what an export has of a session."""
    record = Record()
    for line in map(json.loads, text.splitlines()):
        if line["line"] == "sealed":
            values = struct.unpack(f"<{line['count']}d", bytes.fromhex(line["values"]))
            for step, value in enumerate(values, line["start"]):
                record.sealed[line["attempt"], step] = value
        elif line["line"] == "readings":
            values = struct.unpack(f"<{len(line['steps'])}d", bytes.fromhex(line["values"]))
            for step, rank, value in zip(line["steps"], line["ranks"], values, strict=True):
                record.readings[line["attempt"], rank, step, line["metric"]].append(value)
        elif line["line"] == "event":
            payload = json.loads(line["payload"])
            if line["kind"] == "ordered":
                order = payload["order"]
                record.orders.append(
                    Order(
                        order["id"],
                        order["at"],
                        order["action"]["lr"],
                        order["key"],
                        order["actor"],
                        line["attempt"],
                    )
                )
            elif line["kind"] == "attempt_opened":
                record.starts[payload["attempt"]] = payload["at"]
    return record


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)
