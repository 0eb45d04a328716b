"""Whether a history kept the promises; it knows the promises, and nothing of the service's code.

The last entry of a history is each session's record. Orders have ids, steps are sealed in order,
and each value names its order: so the record shows the one order in which everything happened. A
history is linearizable if each answer agrees with that order, and no answer is older than one that
had been given when its call began.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proof.loop import (
    Broken,
    bits,
    cause_broken,
    decisions_broken,
    fork_broken,
    take_backs_broken,
)
from proof.record import AttemptStep, Record, order_name, parsed
from proof.roles import BASE

Call = dict[str, Any]

REFUSALS = {
    "sync": {409, 422},  # an attempt that is over; a step beyond the horizon
    "open": {409, 422},
    "act": {404},
    "look": {404},
    "explain": {404, 409, 422},
    "values": {404, 409, 422},
    "ahead": {404, 409, 422},
    "take back": {404, 409},  # trainers hold all that is sealed
    "fork": {404, 422},  # a step that is not sealed any more
    "attempts": {404},
    "record": {404},
}
"""Statuses that are allowed in place of 200, besides those that ask for a retry."""

COME_AGAIN = {503, 507}

SLACK = 5.0
"""Seconds that this machine may take for itself, beyond the bound of a call."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and how."""

    promise: str
    session: str
    what: str


def judge(calls: list[Call]) -> list[Violation]:
    """Return every violation of a promise that a history shows."""
    by_session: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_session[call["session"]].append(call)
    records = {session: _record(mine) for session, mine in by_session.items()}
    return [
        violation
        for session, mine in sorted(by_session.items())
        for violation in _Judge(session, mine, records).found()
    ]


def _record(calls: list[Call]) -> Record:
    """Return the final record; an empty one if there is none."""
    texts = [each["got"] for each in calls if (each["kind"], each["status"]) == ("record", 200)]
    return parsed(texts[-1]) if texts else Record()


def _name(act: Call) -> str:
    """Return what tells an order from others, as `Order.name` does."""
    return order_name(act["key"], act["sent"]["lr"])


def _is_undone(call: Call) -> bool:
    """Return whether an answer says that nothing of its call was kept."""
    return call["status"] in COME_AGAIN and "nothing of this call was kept" in call["got"]["detail"]


class _Judge:
    def __init__(self, session: str, calls: list[Call], records: dict[str, Record]) -> None:
        self._session = session
        self._calls = calls
        self._good = [each for each in calls if each["status"] in (200, 201)]
        self._violations: list[Violation] = []
        self._records = records
        self._record = records[session]

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
        self._times_of_orders()
        self._attempts()
        self._looks()
        self._explanations()
        self._forks()
        if self._record.is_steered:
            self._note(decisions_broken(self._record, self._calls))
        self._note(take_backs_broken(self._record, self._calls))
        return self._violations

    def _note(self, found: Broken) -> None:
        for promise, what in found:
            self._broken(promise, what)

    def _forks(self) -> None:
        """P1, P3 and P6: a fork goes on from where it was asked to."""
        for call in self._of("fork"):
            fork = self._records.get(call["sent"]["name"], Record())
            self._note(fork_broken(fork, self._record, call))

    def _bounded(self) -> None:
        """P5: every call ends in time, with an answer that says what to do."""
        for call in self._calls:
            allowed = {200, 201, None, *COME_AGAIN, *REFUSALS.get(call["kind"], set())}
            if call["status"] not in allowed:
                self._broken("P5", f"{call['kind']} was answered {call['status']}: {call['got']}")
            if call["kind"] == "sync" and call["status"] == 409 and not self._is_fenced(call):
                self._broken("P5", f"a trainer was refused that nobody had fenced: {call['got']}")
            if call["end"] - call["begin"] > call["bound"] + SLACK:
                self._broken("P5", f"{call['kind']} took {call['end'] - call['begin']:.1f} s")

    def _is_fenced(self, call: Call) -> bool:
        """Return whether another attempt may have been opened before a call had its answer."""
        own = self._record.carried(call["sent"]["attempt"])[-1]
        later = max(self._record.starts, default=1) > own
        return later and any(c["kind"] == "open" and c["begin"] < call["end"] for c in self._calls)

    def _given(self) -> Iterator[tuple[Call, AttemptStep, float]]:
        """Yield each value that was handed out, with the attempt that it belongs to."""
        for call in self._good:
            got = call["got"]
            if call["kind"] not in ("sync", "values", "ahead") or "series" not in (got or {}):
                continue
            until = got.get("sealed_until", float("inf"))
            for step, value in enumerate(got["series"]["lr"], got["start"]):
                if step < until:
                    owners = self._owners(call, step)
                    kept = [each for each in owners if self._is_kept(each, step, value)]
                    yield call, ([*kept, *owners][0], step), value

    def _is_kept(self, attempt: int, step: int, value: float) -> bool:
        kept = self._record.sealed.get((attempt, step))
        return kept is not None and bits(kept) == bits(value)

    def _owners(self, call: Call, step: int) -> list[int]:
        """Return the attempts that a value may belong to.

        A trainer holds what it was given, and no take-back changes it. A reader gets what holds at
        that moment: so where a call and a take-back meet, the value may be of before or after.
        """
        attempt = call["sent"].get("attempt", call["got"].get("attempt", 1))
        running = self._record.carried(attempt)
        if call["kind"] == "sync":
            return [self._record.owner(running[-1], step)]
        if call["kind"] == "ahead":
            return [self._record.owner(attempt, step)]
        over = [each for each in running[1:] if self._taken(each, "end") < call["begin"]]
        begun = [each for each in running[1:] if self._taken(each, "begin") <= call["end"]]
        first, last = max([attempt, *over]), max([attempt, *begun])
        return [self._record.owner(each, step) for each in range(first, last + 1)]

    def _taken(self, attempt: int, when: str) -> float:
        """Return when an attempt's take-back began or ended; at any time if unknown."""
        calls = [c for c in self._calls if c["kind"] == "take back"]
        mine = [c[when] for c in calls if c["status"] == 200 and c["got"]["attempt"] == attempt]
        unknown = float("inf") if when == "end" else float("-inf")
        return mine[0] if mine else unknown

    def _values(self) -> None:
        """P1, P2, P3 and P6, of each value that was handed out."""
        first: dict[AttemptStep, float] = {}
        for _call, where, value in self._given():
            if bits(first.setdefault(where, value)) != bits(value):
                self._broken("P1", f"{where} was {first[where]!r} and {value!r}")
            kept = self._record.sealed.get(where)
            if kept is None:
                self._broken("P3", f"{where} was given, and is not in the record")
                continue
            if bits(kept) != bits(value):
                self._broken("P1", f"{where} was given as {value!r}, and is {kept!r}")
        for (attempt, step), value in self._record.sealed.items():
            if self._record.is_steered:
                break
            order = self._record.order_at(attempt, step)
            if value != (BASE if order is None else order.rate):
                by = "nobody" if order is None else order.name
                # A wrong law of what was ordered before the attempt: it was not resumed exactly.
                inherited = order is not None and order.attempt < attempt
                self._broken(
                    "P6" if inherited else "P2", f"{attempt, step} is {value}, not by {by}"
                )

    def _reports(self) -> None:
        """P3: what was acknowledged is there; P4: once, with the value that was reported first."""
        said = self._said()
        for key, times in said.items():
            kept = self._record.readings.get(key, [])
            acknowledged = [(call, value) for call, value in times if call["status"] == 200]
            if acknowledged and not kept:
                self._broken("P3", f"the reading {key} was acknowledged, and is not in the record")
            for value in kept:
                of_it = [call for call, one in times if bits(one) == bits(value)]
                if not of_it:
                    self._broken("P4", f"the reading {key} is {value!r}, which nobody has said")
                    continue
                began = min(call["begin"] for call in of_it)
                if any(c["end"] < began and bits(v) != bits(value) for c, v in acknowledged):
                    self._broken("P4", f"the reading {key} was counted as it was repeated")
        for key, kept in self._record.readings.items():
            if key[0] < 1:  # its parent's, of a fork
                continue
            if len(kept) > 1:
                self._broken("P4", f"the reading {key} counts {len(kept)} times")
            if key not in said:
                self._broken("P4", f"the reading {key} was never said")

    def _said(self) -> dict[tuple[int, int, int, str], list[tuple[Call, float]]]:
        """Return what was reported, by attempt, rank, step and metric, with the calls."""
        said: dict[tuple[int, int, int, str], list[tuple[Call, float]]] = defaultdict(list)
        for call in self._calls:
            if call["kind"] != "sync":
                continue
            rank, attempt = call["sent"].get("rank", 0), call["sent"]["attempt"]
            for report in call["sent"].get("reports", ()):
                for metric, value in report["metrics"].items():
                    running = self._record.carried(attempt)[-1]
                    owner = self._record.owner(running, report["step"])
                    said[owner, rank, report["step"], metric].append((call, value))
        return said

    def _orders(self) -> None:
        """P3: an order that was taken is there; P4: once, and not if its answer says otherwise."""
        sent = [each for each in self._calls if each["kind"] == "act"]
        kept = Counter(order.name for order in self._record.orders)
        for name, times in kept.items():
            if times > 1 or name not in map(_name, sent):
                self._broken("P4", f"the order {name} stands {times} times in the record")
        for act in sent:
            if act["status"] in (200, 201) and _name(act) not in kept:
                self._broken("P3", f"the order {_name(act)} was taken, and is not in the record")
            if _is_undone(act) and not act["key"] and _name(act) in kept:
                self._broken("P4", f"the order {_name(act)} is kept: {act['got']['detail']}")

    def _times_of_orders(self) -> None:
        """P2: an order names the step from which it holds, which no trainer had."""
        acts = self._of("act")
        given = list(self._given()) if acts else []
        syncs = [(c, where) for c, where, _ in given if c["kind"] == "sync"]
        by_name = {order.name: order for order in reversed(self._record.orders)}
        first: dict[str, float] = {}
        for each in self._calls:
            if each["kind"] == "act":
                name = _name(each)
                first[name] = min(each["begin"], first.get(name, each["begin"]))
        for act in acts:
            name, got = _name(act), act["got"]
            if (order := by_name.get(name)) is None:
                continue
            if (got["id"], got["effective_step"]) != (order.number, order.at):
                self._broken("P2", f"the order {name} was told to hold from another step: {got}")
            for call, (attempt, step) in syncs:
                if attempt == order.attempt and step >= order.at and call["end"] < first[name]:
                    self._broken("P2", f"step {step} was given before {name} changed it")
        ordered = sorted(acts, key=lambda each: each["end"])
        for earlier in ordered:
            for later in ordered:
                came_later = earlier["end"] < first[_name(later)]
                if came_later and earlier["got"]["id"] >= later["got"]["id"]:
                    self._broken("P2", f"{_name(later)} came later, and has an earlier number")

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
                if call["kind"] in ("sync", "ahead") and call["begin"] < opened["end"]:
                    want = call["sent"].get("want", {"start": 0, "count": 0})
                    # A reader may have sealed steps of any attempt.
                    for old in [call["sent"].get("attempt", each) for each in range(1, number)]:
                        running = self._record.carried(old)[-1]
                        wanted[running] = max(wanted[running], want["start"] + want["count"])
            for call in self._of("sync"):
                old = self._record.carried(call["sent"]["attempt"])[-1]
                if old >= number or call["begin"] < opened["end"]:
                    continue
                if call["sent"].get("reports"):
                    self._broken("P7", f"attempt {old} has reported after {number} was opened")
                elif "series" not in call["got"]:
                    continue
                elif call["got"]["start"] + len(call["got"]["series"]["lr"]) > wanted[old]:
                    self._broken("P7", f"attempt {old} has sealed after {number} was opened")

    def _looks(self) -> None:
        """P2, of readers: no answer is older than one that any caller had before."""
        told = [c for c in self._good if c["kind"] in ("act", "open", "look", "take back")]
        looks = self._of("look")
        for name in ("revision", "attempt"):
            for look in looks:
                before = [c["got"].get(name, 0) for c in told if c["end"] < look["begin"]]
                if before and look["got"][name] < max(before):
                    self._broken("P2", f"a {name} of {look['got'][name]} after {max(before)}")

    def _explanations(self) -> None:
        """P8: an explanation names the order that a value comes from, and its author."""
        for call in self._of("explain"):
            got, step = call["got"], call["sent"]["step"]
            if not got["sealed"]:
                continue
            attempt = self._record.owner(got["attempt"], step)
            kept, shown = self._record.sealed.get((attempt, step)), got["series"]["lr"]
            if kept is not None and bits(kept) != bits(shown["value"]):
                self._broken("P8", f"step {step} is explained as {shown['value']}, and is {kept}")
            if self._record.is_steered:
                self._note(cause_broken(self._record, call))
                continue
            order = self._record.order_at(attempt, step)
            cause = (shown["cause"] or {}).get("order") or {}
            named = (cause.get("key"), cause.get("actor"))
            if named != ((None, None) if order is None else (order.key, order.actor)):
                self._broken("P8", f"step {step} is said to come from {named}")
