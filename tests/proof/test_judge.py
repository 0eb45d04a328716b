"""The judge of histories finds nothing where nothing is, and each promise that is broken."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from little_servers import answering
from proof.history import Load
from proof.judge import judge
from proof.liar import Liar
from serving import RunningService

PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")


@pytest.fixture(name="calls", scope="module")
def _calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """Return the history of an honest service."""
    database = tmp_path_factory.mktemp("honest") / "pacesetter.db"
    with RunningService(database) as service:
        with Load([service.url]) as load:
            load.await_answers(200)
        yield load.audit(service.url).calls


def test_an_honest_history_keeps_every_promise(calls: list[dict[str, Any]]) -> None:
    """Trainers, zombies of them, an operator and a reader at once: nothing is found."""
    assert judge(calls) == []
    kinds = {each["kind"] for each in calls if each["status"] in (200, 201)}
    assert kinds >= {"sync", "act", "open", "look", "values", "explain", "record"}


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_that_is_broken_is_found(promise: str, tmp_path: Path) -> None:
    """Behind a proxy that lies, the judge names the promise that it has broken."""
    with RunningService(tmp_path / "pacesetter.db") as service:
        liar = Liar(service.url, promise)
        with answering(liar) as (server, _), Load([server.url], sessions=1) as load:
            while not liar.told:
                load.await_answers(10)
            load.await_answers(10)
            load.stop.set()
        found = {each.promise for each in judge(load.audit(service.url).calls)}
    assert promise in found


def _first(calls: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(each for each in calls if each["kind"] == kind and each["status"] in (200, 201))


def test_a_late_reader_that_is_shown_an_old_revision_is_found(calls: list[dict[str, Any]]) -> None:
    """What was true before a call began, and no longer when it did, is no answer to it."""
    forged = copy.deepcopy(calls)
    looks = [each for each in forged if each["kind"] == "look" and each["status"] == 200]
    looks[-1]["got"]["revision"] = 0
    assert {each.promise for each in judge(forged)} == {"P2"}


def test_a_call_that_takes_too_long_is_found(calls: list[dict[str, Any]]) -> None:
    """A call that hangs breaks its promise, whatever it is answered in the end."""
    forged = copy.deepcopy(calls)
    _first(forged, "sync")["end"] += 1000.0
    assert "P5" in {each.promise for each in judge(forged)}


def test_a_reading_that_stands_twice_in_a_record_is_found(calls: list[dict[str, Any]]) -> None:
    """Of each reading there is one, however often it was reported."""
    forged = copy.deepcopy(calls)
    record = _first(forged, "record")
    [line, *_] = [each for each in record["got"].splitlines() if '"line":"readings"' in each]
    record["got"] += line + "\n"
    assert {each.promise for each in judge(forged)} == {"P4"}
