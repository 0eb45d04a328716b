"""The judge finds nothing in honest histories, and each promise that is broken in others."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from little_servers import answering
from proof.history import Caller, History
from proof.judge import judge
from proof.liar import Liar
from proof.load import Load
from proof.record import parsed
from proof.roles import BASE
from proof.steering import PLATEAU, RANKS
from serving import PATIENCE, RunningService

PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")


@pytest.fixture(name="calls", scope="module")
def _calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Return the history of an honest service."""
    database = tmp_path_factory.mktemp("honest") / "pacesetter.db"
    with RunningService(database) as service:
        with Load([service.url], steered=0) as load:
            load.await_answers(200)
        yield load.audit(service.url).calls


def test_an_honest_history_keeps_every_promise(calls: list[dict[str, Any]]) -> None:
    """Trainers, their zombies, an operator and a reader call concurrently: nothing is found."""
    assert judge(calls) == []
    kinds = {each["kind"] for each in calls if each["status"] in (200, 201)}
    assert kinds >= {"sync", "act", "open", "look", "values", "explain", "record"}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_that_is_broken_is_found(promise: str, tmp_path: Path) -> None:
    """Behind a lying proxy, the judge names the promise that it has broken."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        liar = Liar(service.url, promise)
        with answering(liar) as (server, _), Load([server.url], sessions=1, steered=0) as load:
            while not liar.told:
                load.await_answers(10)
            load.await_answers(10)
            load.stop.set()
        found = {each.promise for each in judge(load.audit(service.url).calls)}
    assert promise in found


def _first(calls: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(each for each in calls if each["kind"] == kind and each["status"] in (200, 201))


def test_a_late_reader_that_is_shown_an_old_revision_is_found(calls: list[dict[str, Any]]) -> None:
    """An answer that was outdated before its call began is no valid answer."""
    forged = copy.deepcopy(calls)
    looks = [each for each in forged if each["kind"] == "look" and each["status"] == 200]
    looks[-1]["got"]["revision"] = 0
    assert {each.promise for each in judge(forged)} == {"P2"}


def test_a_call_that_takes_too_long_is_found(calls: list[dict[str, Any]]) -> None:
    """A call that hangs breaks its promise, whatever its final answer is."""
    forged = copy.deepcopy(calls)
    _first(forged, "sync")["end"] += 1000.0
    assert "P5" in {each.promise for each in judge(forged)}


def test_a_reading_that_stands_twice_in_a_record_is_found(calls: list[dict[str, Any]]) -> None:
    """Each reading is there once, however often it was reported."""
    forged = copy.deepcopy(calls)
    record = _first(forged, "record")
    [line, *_] = [each for each in record["got"].splitlines() if '"line":"readings"' in each]
    record["got"] += line + "\n"
    assert {each.promise for each in judge(forged)} == {"P4"}


def _keyless(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an order without a key, which was taken."""
    taken = [each for each in calls if each["kind"] == "act" and each["status"] == 201]
    return next(each for each in taken if not each["key"])


def test_an_order_without_a_key_that_counts_twice_is_found(calls: list[dict[str, Any]]) -> None:
    """It was sent once, so that it stands in the record once."""
    forged = copy.deepcopy(calls)
    order = _keyless(forged)
    records = [each for each in forged if each["kind"] == "record"]
    [record] = [each for each in records if each["session"] == order["session"]]
    rate = json.dumps(order["sent"]["lr"])
    lines = [each for each in record["got"].splitlines() if '"event"' in each and rate in each]
    record["got"] += "\n".join(each for each in lines if '"kind":"ordered"' in each) + "\n"
    assert {each.promise for each in judge(forged)} == {"P4"}


def test_an_order_that_is_kept_though_it_was_said_to_be_dropped_is_found(
    calls: list[dict[str, Any]],
) -> None:
    """If nothing was kept of it, it may be sent again, and would count twice."""
    forged = copy.deepcopy(calls)
    detail = "The database did not answer as it should; nothing of this call was kept."
    _keyless(forged).update(status=503, got={"detail": detail})
    assert {each.promise for each in judge(forged)} == {"P4"}


# Where a controller steers ------------------------------------------------------------------------


@pytest.fixture(name="steered", scope="module")
def _steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Return an honest history with decisions, forks, roll-backs and take-backs."""
    database = tmp_path_factory.mktemp("steered") / "pacesetter.db"
    with RunningService(database) as service:
        with Load([service.url], sessions=0) as load:
            calls = load.history.calls
            while not {("fork", 201), ("take back", 200), ("open", 201)} <= {
                (each["kind"], each["status"]) for each in list(calls)
            }:
                load.await_answers(20)
            load.await_answers(150)
        yield load.audit(service.url).calls


def test_an_honest_history_of_a_controller_keeps_every_promise(
    steered: list[dict[str, Any]],
) -> None:
    """Two ranks report, and an operator looks ahead, takes back, rolls back and forks."""
    assert judge(steered) == []
    kinds = {(each["kind"], each["status"]) for each in steered}
    assert kinds >= {("ahead", 200), ("take back", 200), ("fork", 201), ("open", 201)}
    assert sum(line["kind"] == "decided" for line in _lines(steered, "event")) > 10


@pytest.mark.parametrize(
    ("lie", "promise"),
    [
        ("hearing", "P3"),
        ("reading", "P4"),
        ("holding", "P2"),
        ("forking", "P6"),
        ("inheriting", "P6"),
    ],
)
def test_a_lie_about_a_steered_training_is_found(lie: str, promise: str, tmp_path: Path) -> None:
    """Behind a lying proxy, the judge names the promise that it has broken."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        liar = Liar(service.url, lie)
        with answering(liar) as (server, _), Load([server.url], sessions=0) as load:
            found: set[str] = set()
            deadline = time.monotonic() + PATIENCE
            while promise not in found and time.monotonic() < deadline:
                load.await_answers(40)
                found = {each.promise for each in judge(_audited(load, service.url))}
            load.stop.set()
    assert liar.told
    assert promise in found


def test_a_fork_of_what_was_begun_twice_keeps_every_promise(tmp_path: Path) -> None:
    """A measurement may belong to two attempts that begin at its step, and to their forks."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        history = History()
        caller = Caller(history, "trainer", [service.url], PATIENCE)
        spec = {"name": "run", "base_lr": BASE, "ranks": RANKS, "controllers": [PLATEAU]}
        caller.call("create", "run", "POST", "", spec)

        def train(attempt: int, step: int, *said: int) -> None:
            reports = [{"step": each, "metrics": {"loss": 1.0}} for each in said]
            wish = {"start": step, "count": 1}
            for rank in (1, 0):
                body = {"attempt": attempt, "rank": rank, "reports": reports}
                body |= {} if rank else {"want": wish, "progress": {"step": step}}
                assert caller.call("sync", "run", "POST", "/run/sync", body)["status"] == 200

        train(1, 0)
        train(1, 1)
        for attempt in (2, 3):
            asked = {"step": 2, "key": f"restart-{attempt}"}
            caller.call("open", "run", "POST", "/run/attempts", asked)
            train(attempt, 2, *((0, 1) if attempt == 2 else ()))
        caller.call("fork", "run", "POST", "/run/fork", {"name": "fork", "step": 3})
        for session in ("run", "fork"):
            caller.call("record", session, "GET", f"/{session}/export")
        caller.close()
    closed = parsed(history.calls[-1]["got"]).closed
    assert {(each.step, each.at) for each in closed} == {(0, 2), (1, 2)}
    assert judge(history.calls) == []


def _audited(load: Load, url: str) -> list[dict[str, Any]]:
    """Return the history until now, with the record as it is now."""
    before = len(load.history.calls)
    calls = list(load.history.calls)[:before]
    load.audit(url)
    return calls + [each for each in list(load.history.calls) if each["kind"] == "record"]


Line = dict[str, Any]


def _lines(calls: list[dict[str, Any]], kind: str, session: str = "steered-0") -> list[Line]:
    """Return the lines of one kind of a session's record."""
    text = next(c["got"] for c in calls if (c["kind"], c["session"]) == ("record", session))
    return [line for line in map(json.loads, text.splitlines()) if line["line"] == kind]


def _forged(
    calls: list[dict[str, Any]],
    change: Callable[[list[Line]], list[Line]],
    session: str = "steered-0",
) -> set[str]:
    """Return the promises that are broken by an altered record of a session."""
    forged = copy.deepcopy(calls)
    record = next(c for c in forged if (c["kind"], c["session"]) == ("record", session))
    lines = change([json.loads(line) for line in record["got"].splitlines()])
    record["got"] = "\n".join(map(json.dumps, lines))
    return {each.promise for each in judge(forged)}


def _is_decision(line: Line) -> bool:
    return bool(line["line"] == "event" and line["kind"] == "decided")


def test_a_decision_that_stands_twice_is_found(steered: list[dict[str, Any]]) -> None:
    """Each decision is there once."""

    def twice(lines: list[Line]) -> list[Line]:
        return [*lines, next(each for each in lines if _is_decision(each))]

    assert _forged(steered, twice) == {"P4"}


def test_a_decision_that_is_nowhere_is_found(steered: list[dict[str, Any]]) -> None:
    """A decision that follows from the measurements must be in the record."""

    def without(lines: list[Line]) -> list[Line]:
        gone = next(each for each in lines if _is_decision(each))
        return [each for each in lines if each is not gone]

    assert _forged(steered, without) == {"P8"}


def test_a_decision_about_another_step_is_found(steered: list[dict[str, Any]]) -> None:
    """A decision that holds from before its horizon does not follow from the measurements."""

    def earlier(lines: list[Line]) -> list[Line]:
        line = next(each for each in lines if _is_decision(each))
        said = json.loads(line["payload"])
        line["payload"] = json.dumps({**said, "at": said["at"] - 1})
        return lines

    assert "P2" in _forged(steered, earlier)


def test_a_decision_behind_the_horizon_is_found(steered: list[dict[str, Any]]) -> None:
    """No trainer may have a step of it before the readings behind it were reported."""
    forged = copy.deepcopy(steered)
    decision = json.loads(next(e for e in _lines(steered, "event") if _is_decision(e))["payload"])
    for call in forged:
        reports = call["sent"].get("reports", ()) if call["kind"] == "sync" else ()
        if any(each["step"] == decision["step"] for each in reports):
            call["begin"] += 1000.0
            call["end"] += 1000.0
    assert "P2" in {each.promise for each in judge(forged)}


def test_a_step_that_controllers_see_twice_is_found(steered: list[dict[str, Any]]) -> None:
    """Each step counts once, however often it is reported."""

    def twice(lines: list[Line]) -> list[Line]:
        return [*lines, next(each for each in lines if each["line"] == "measurements")]

    assert "P4" in _forged(steered, twice)


def test_an_attempt_that_begins_afresh_is_found(steered: list[dict[str, Any]]) -> None:
    """An attempt starts from the level that its controller had reached."""
    base = "000000000000f03f"

    def afresh(lines: list[Line]) -> list[Line]:
        later = [each for each in lines if each["line"] == "sealed" and each["attempt"] > 1]
        first = next(each for each in later if each["values"][:16] != base)
        first["values"] = base + first["values"][16:]
        return lines

    assert _forged(steered, afresh) & {"P2", "P6"}


def test_a_first_decision_that_begins_at_another_rate_is_found(
    steered: list[dict[str, Any]],
) -> None:
    """A controller's first decision in a fork starts from the level of its parent."""

    def halved(lines: list[Line]) -> list[Line]:
        line = next(each for each in lines if _is_decision(each) and each["attempt"] >= 1)
        said = json.loads(line["payload"])
        levels = {name: [value / 2 for value in both] for name, both in said["levels"].items()}
        line["payload"] = json.dumps({**said, "levels": levels})
        return lines

    assert "P6" in _forged(steered, halved, "steered-0-fork-1")


def test_a_fork_with_another_past_is_found(steered: list[dict[str, Any]]) -> None:
    """Below its start a fork equals its parent, to the bit."""

    def nudged(lines: list[Line]) -> list[Line]:
        first = next(each for each in lines if each["line"] == "sealed" and each["attempt"] < 1)
        first["values"] = "01" + first["values"][2:]
        return lines

    assert _forged(steered, nudged, "steered-0-fork-1") == {"P1"}


@pytest.mark.parametrize(
    ("kind", "change", "promise"),
    [
        ("take back", {"attempt": 1_000}, "P3"),
        ("take back", {"horizon": 1}, "P2"),
        ("take back", {"revision": 10**9}, "P2"),
    ],
)
def test_a_take_back_that_was_not_so_is_found(
    kind: str, change: dict[str, int], promise: str, steered: list[dict[str, Any]]
) -> None:
    """The answer to an operator must agree with the outcome."""
    forged = copy.deepcopy(steered)
    _first(forged, kind)["got"].update(change)
    assert promise in {each.promise for each in judge(forged)}


def test_a_trainer_that_is_fenced_by_nobody_is_found(steered: list[dict[str, Any]]) -> None:
    """A take-back fences no trainer, so only another attempt is a reason to refuse one."""
    forged = copy.deepcopy(steered)
    _first(forged, "sync")["status"] = 409
    assert {each.promise for each in judge(forged)} == {"P5"}


def test_a_cause_that_is_none_is_found(steered: list[dict[str, Any]]) -> None:
    """An explanation names the very decision that a value comes from."""
    forged = copy.deepcopy(steered)
    explained = [
        each
        for each in forged
        if each["kind"] == "explain"
        and each["status"] == 200
        and each["got"]["sealed"]
        and each["got"]["series"]["lr"]["cause"]
    ]
    explained[0]["got"]["series"]["lr"]["cause"]["step"] += 1
    assert {each.promise for each in judge(forged)} == {"P8"}
