"""What must hold where a controller decides, and where sessions are forked and steps taken back.

The controller's rule is written here anew, from its documentation. It gets the measurements of the
record, along the lineage of each attempt: every decision must be there once, and the values must
follow from the decisions.
"""

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from proof.record import Closed, Decision, Record
from proof.roles import BASE
from proof.steering import FACTOR, PATIENCE, RANKS, THRESHOLD

Call = dict[str, Any]

Broken = Iterator[tuple[str, str]]
"""Promises that were broken, each with the evidence."""


def decisions_broken(record: Record, calls: list[Call]) -> Broken:
    """P1, P2, P4 and P6, of what controllers saw, what they decided, and the resulting values."""
    yield from _measurements_broken(record)
    attempts = [number for number in record.starts if number >= 1]
    due = {number: _due(record, number) for number in attempts}
    there = Counter(each for each in record.decisions if each.attempt >= 1)
    for number, found in due.items():
        for each in found:
            if each.attempt == number and there[each] == 0:
                yield "P8", f"{each} follows from what was measured, and is not in the record"
    wanted = {each for number, found in due.items() for each in found if each.attempt == number}
    for each, times in there.items():
        if times > 1:
            yield "P4", f"{each} stands {times} times in the record"
        if each not in wanted:
            yield "P2", f"{each} does not follow from what was measured"
    yield from _values_broken(record, due)
    yield from _beginnings_broken(record, due)
    yield from _late_decisions_broken(record, calls)
    yield from _unheard_broken(record, calls)


def _seen_by(record: Record, attempt: int) -> list[Closed]:
    """Return what controllers saw until an attempt was over, in order.

    It includes what was measured in an earlier attempt when that was left at its horizon.
    """
    path = record.path(attempt)
    ends = [*(start for _, start in path[1:]), math.inf]
    found: list[Closed] = []
    for (number, _), end in zip(path, ends, strict=True):
        mine = [each for each in record.closed if each.attempt == number and each.at <= end]
        found += sorted(mine, key=lambda each: (each.at, each.step))
    return found


def _due(record: Record, attempt: int) -> list[Decision]:
    """Return the decisions that follow from what was seen along the lineage of an attempt."""
    best, bad, level, found = math.inf, 0, BASE, list[Decision]()
    for seen in _seen_by(record, attempt):
        if seen.value is None:
            continue
        if seen.value < best * (1.0 - THRESHOLD):
            best, bad = seen.value, 0
            continue
        bad += 1
        if bad > PATIENCE:
            bad = 0
            found.append(Decision(seen.attempt, seen.at, seen.step, level, level * FACTOR))
            level *= FACTOR
    return found


def _measurements_broken(record: Record) -> Broken:
    """P4: each step is seen once in a lineage, in order, and agrees with its readings."""
    for attempt in (number for number in record.starts if number >= 1):
        steps = [each.step for each in _seen_by(record, attempt)]
        if steps != sorted(set(steps)):
            yield "P4", f"controllers have seen steps twice, or not in their order: {steps}"
    for seen in record.closed:
        if seen.step >= seen.at:
            yield "P2", f"{seen} was seen before its step was sealed"
        # An attempt may have begun with what was measured before it, where another began as well.
        owner = record.owner(seen.attempt, seen.step)
        there = [
            value
            for rank in range(RANKS)
            for value in record.readings.get((owner, rank, seen.step, "loss"), ())[:1]
        ]
        if seen.value is None:
            if seen.ranks == RANKS:
                yield "P4", f"{seen} was missed, though all ranks had reported it"
        elif seen.ranks != RANKS or len(there) != RANKS or sum(there) / RANKS != seen.value:
            yield "P4", f"{seen} is not what ranks have reported: {there}"


def _values_broken(record: Record, due: dict[int, list[Decision]]) -> Broken:
    """P2 and P6: a value is the level that was decided for its step."""
    for (attempt, step), value in record.sealed.items():
        if attempt < 1:
            continue
        made = [each for each in due[attempt] if each.at <= step]
        level = made[-1].after if made else BASE
        if value != level:
            own = any(each.attempt == attempt for each in made)
            first = attempt == 1 and record.forked is None
            yield "P2" if own or first else "P6", f"{attempt, step} is {value!r}, not {level!r}"


def _beginnings_broken(record: Record, due: dict[int, list[Decision]]) -> Broken:
    """P6: an attempt's first decision starts from the rate at which its parent was left.

    An attempt may decide before its first value, so that its values do not show this.
    """
    for number, found in due.items():
        own = [each for each in found if each.attempt == number]
        if not own or (number == 1 and record.forked is None):
            continue
        first = own[0]
        there = [
            each.before
            for each in record.decisions
            if (each.attempt, each.at, each.step) == (number, first.at, first.step)
        ]
        if there and first.before not in there:
            yield "P6", f"attempt {number} begins at {there[0]!r}, not at {first.before!r}"


def _late_decisions_broken(record: Record, calls: list[Call]) -> Broken:
    """P2: no trainer had a step of a decision before the readings behind it were reported."""
    reported = _first_said(calls)
    given = [(call, call["got"]) for call in _answered(calls, "sync", "ahead") if _has_values(call)]
    for each in record.decisions:
        moments = [
            begin
            for (attempt, _, step), begin in reported.items()
            if step == each.step
            and record.owner(record.carried(attempt)[-1], step) == record.owner(each.attempt, step)
        ]
        if not moments:
            continue
        for call, got in given:
            end = got["start"] + len(got["series"]["lr"])
            named = call["sent"].get("attempt", got["attempt"])
            mine = each.attempt in record.carried(named) and got["attempt"] == each.attempt
            if mine and call["end"] < max(moments) and end > each.at:
                yield "P2", f"{each} was made after step {end - 1} had been given"
                break


def _unheard_broken(record: Record, calls: list[Call]) -> Broken:
    """P3: what all ranks had reported when a step was sealed was seen before that step.

    A call can have sealed a step only after the call began. So a step that no earlier call had
    asked for was sealed after everything that had been acknowledged when the first call for it
    began.
    """
    acknowledged: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for call in _answered(calls, "sync"):
        for report in call["sent"].get("reports", ()):
            key = call["sent"]["attempt"], report["step"]
            rank = call["sent"].get("rank", 0)
            ends = acknowledged[key]
            ends[rank] = min(ends.get(rank, math.inf), call["end"])
    asked = [
        (call["begin"], call["sent"]["want"]["start"] + call["sent"]["want"]["count"])
        for call in calls
        if call["kind"] in ("sync", "ahead") and "want" in call["sent"]
    ]
    given = [call for call in _answered(calls, "sync") if _has_values(call)]
    for (attempt, step), ends in acknowledged.items():
        if len(ends) < RANKS:
            continue
        known = max(ends.values())
        reach = max((end for begin, end in asked if begin <= known), default=0)
        running = record.carried(attempt)
        seen = [
            each.at for number in running for each in _seen_by(record, number) if each.step == step
        ]
        for call in given:
            got = call["got"]
            last = got["start"] + len(got["series"]["lr"]) - 1
            if call["sent"]["attempt"] not in running or call["begin"] <= known or last < reach:
                continue
            first = max(got["start"], reach)
            if not any(at <= first for at in seen):
                yield "P3", f"step {step} of {attempt} was reported, and not seen by step {first}"
                break


def take_backs_broken(record: Record, calls: list[Call]) -> Broken:
    """P1 to P4, of steps that were taken back: no trainer had them, and each is opened once."""
    asked = [call for call in calls if call["kind"] == "take back"]
    for call in asked:
        if call["status"] != 200:
            continue
        got = call["got"]
        there = record.taken.get(got["attempt"])
        if there is None:
            yield "P3", f"attempt {got['attempt']} took back steps, and is not in the record"
        elif (there["at"], there["until"]) != (got["horizon"], got["until"]):
            yield "P2", f"it was told to take back {got}, and took back {there}"
    if len(record.taken) > len(asked):
        yield "P4", f"steps were taken back {len(record.taken)} times, in {len(asked)} calls"
    for number, there in record.taken.items():
        mine = [call for call in asked if (call["got"] or {}).get("attempt") == number]
        began = min((call["begin"] for call in mine), default=-math.inf)
        for call in _answered(calls, "sync"):
            if not _has_values(call) or call["end"] >= began:
                continue
            got = call["got"]
            end = got["start"] + len(got["series"]["lr"])
            running = number in record.carried(call["sent"]["attempt"])[1:]
            if running and end > there["at"]:
                yield "P2", f"step {there['at']} was taken back, and a trainer had it"


def fork_broken(record: Record, parent: Record, call: Call) -> Broken:
    """P1, P3 and P6: a fork begins where requested, and equals its parent below that."""
    if record.forked is None:
        yield "P3", f"the fork {call['sent']['name']} was made, and is not in the record"
        return
    step, source = call["sent"]["step"], record.forked["attempt"]
    if (record.forked["at"], record.starts[1]) != (step, step):
        yield "P6", f"the fork begins at {record.starts[1]}, not at {step}"
    for at in range(step):
        mine = record.sealed.get((record.owner(1, at), at))
        theirs = parent.sealed.get((parent.owner(source, at), at))
        if mine is None or theirs is None or bits(mine) != bits(theirs):
            yield "P1", f"step {at} is {mine!r} in the fork, and {theirs!r} in its parent"
            return
    for (attempt, rank, at, metric), values in record.readings.items():
        if attempt < 1 and values != parent.readings.get(
            (parent.owner(source, at), rank, at, metric)
        ):
            yield "P4", f"the fork knows of a reading of step {at} that its parent has not"


def cause_broken(record: Record, call: Call) -> Broken:
    """P8: an explanation names the decision that a value comes from."""
    got, step = call["got"], call["sent"]["step"]
    due = [each for each in _due(record, got["attempt"]) if each.at <= step]
    wanted = (due[-1].at, due[-1].step) if due else None
    cause = got["series"]["lr"]["cause"]
    decided = cause is not None and cause["kind"] == "decided"
    named = (cause["at"], cause["step"]) if cause is not None and decided else None
    if named != wanted:
        yield "P8", f"step {step} is said to come from {named}, not from {wanted}"


def bits(value: float) -> bytes:
    """Return the bits of a number."""
    return struct.pack("<d", value)


def _first_said(calls: list[Call]) -> dict[tuple[int, int, int], float]:
    """Return when the first call with each reading began, by attempt, rank and step."""
    found: dict[tuple[int, int, int], float] = {}
    for call in calls:
        if call["kind"] != "sync":
            continue
        for report in call["sent"].get("reports", ()):
            key = call["sent"]["attempt"], call["sent"].get("rank", 0), report["step"]
            found[key] = min(found.get(key, math.inf), call["begin"])
    return found


def _answered(calls: list[Call], *kinds: str) -> list[Call]:
    return [call for call in calls if call["kind"] in kinds and call["status"] == 200]


def _has_values(call: Call) -> bool:
    return "series" in call["got"]
