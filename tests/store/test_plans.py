"""The database finds what a restart needs by keys, however much was measured before."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.events import Measured, Missed
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.listing import Listing
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.sqlite import SqliteStore
from written import NOW, write


@contextmanager
def noted(store: SqliteStore) -> Iterator[list[str]]:
    """Record the statements that the database is sent, with their values."""
    asked: list[str] = []
    trace = lambda connection, *_: connection.set_trace_callback(asked.append)  # noqa: E731
    event.listen(store._reader, "checkout", trace)
    try:
        yield asked
    finally:
        event.remove(store._reader, "checkout", trace)


@pytest.fixture(name="stored")
def _stored() -> Stored:
    """Return a session that waits for a metric, with a few steps sealed and reported."""
    rule = {"kind": "plateau", "metric": "loss"}
    spec = SessionSpec.model_validate({"name": "x", "base_lr": 0.1, "controllers": [rule]})
    session = create(spec)
    for command in (Seal(0, 1), Report((Reading(0, 0, "loss", 1.0),)), Seal(1, 1)):
        session = evolve_all(session, decide(session, command).events)
    return Stored(1, session, 0, NOW, (AttemptRef(1, 1, 0),))


@pytest.mark.parametrize(
    ("listing", "index"),
    [
        (Listing(sort="-created_at"), "ix_sessions_created_at_name"),
        (Listing(fates=["failed"], ailing=[]), "ix_sessions_troubled"),
        (Listing(fates=["active"], ailing=["a", "b"], sort="-changed_at"), "ix_sessions_troubled"),
    ],
)
def test_the_first_page_is_found_by_an_index(tmp_path: Path, listing: Listing, index: str) -> None:
    """Neither sessions in trouble nor the newest ones are found by a scan of all sessions."""
    path = tmp_path / "pacesetter.db"
    store = SqliteStore(f"sqlite:///{path}")
    with noted(store) as asked:
        assert list(store.page(listing, 50)) == []
    store.close()
    [query] = [each for each in asked if "FROM sessions" in each]
    with closing(sqlite3.connect(path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert any(index in line for line in plan), plan
    assert not any(line == "SCAN sessions" for line in plan), plan


def test_a_restart_reads_no_more_than_it_replays(tmp_path: Path, stored: Stored) -> None:
    """Measurements and reports are looked up by step, not read from the first one on."""
    path = tmp_path / "pacesetter.db"
    store = SqliteStore(f"sqlite:///{path}")
    write(store, Changes(stored))
    with noted(store) as asked:
        store.past(stored.session.spec, stored.lineage, 1)
    store.close()
    with sqlite3.connect(path) as connection:
        plans = {
            query: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
            for query in asked
            if "FROM measurement_blocks" in query or "FROM reading_blocks" in query
        }
    connection.close()
    assert len(plans) == 2, asked
    for query, plan in plans.items():
        assert any("until>?" in line for line in plan), (query, plan)


LINEAGE = tuple(AttemptRef(1, number, 10 * number) for number in range(30))
"""A training that has gone back again and again, each time a little later."""


def test_a_window_is_not_looked_for_in_attempts_that_were_over(
    tmp_path: Path, stored: Stored
) -> None:
    """However often a training has gone back, an explanation reads only two of its attempts."""
    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    run = replace(stored, lineage=LINEAGE)
    with noted(store) as asked:
        store.reported_between(LINEAGE, "loss", 285, 300)
        store.measurements_between(LINEAGE, "loss", 285, 300)
        list(store.events_until(run, 299, kinds=("missed",), since=285))
    store.close()
    for table in ("reading_blocks", "measurement_blocks", "events"):
        assert sum(table in query for query in asked) == 2, table


def test_a_window_has_all_that_the_whole_has_at_its_steps(tmp_path: Path, stored: Stored) -> None:
    """It has late reports, values seen in a later attempt, and what held where one was left."""
    store = SqliteStore(f"sqlite:///{tmp_path}/pacesetter.db")
    run = replace(stored, lineage=LINEAGE)
    write(store, Changes(run))
    for number in range(30):
        first = 10 * number
        session = replace(run.session, attempt=replace(run.session.attempt, number=number))
        after = replace(run, session=session, version=run.version + 1, events=run.events + 2)
        written = Changes(after, run)
        # A trainer of the last attempt reports step 5 late.
        steps = [each for each in range(first - 2, first + 10) if each >= 0 and each != 5]
        steps += [5] if number == 29 else []
        written.readings += [(number, Reading(0, each, "loss", each + 0.5)) for each in steps]
        steps.sort()
        seen = [Measured(each, "norm", each / 2, 1, each + 3) for each in steps]
        written.measured += [(number, each) for each in seen]
        written.log += [Missed(first - 1, "loss", 0, 1, at=at) for at in (first, first + 10)]
        write(store, written)
        run = after
    whole = store.reported_between(LINEAGE, "loss", 0, 300)
    norms = store.measurements_between(LINEAGE, "norm", 0, 300)
    events = list(store.events_until(run, 299, kinds=("missed",)))
    assert (len(whole.steps), len(norms.steps), len(events)) == (300, 300, 59)
    for start in (0, 9, 10, 11, 285, 299, 300):
        for every, metric, read in (
            (whole, "loss", store.reported_between),
            (norms, "norm", store.measurements_between),
        ):
            found = read(LINEAGE, metric, start, 300)
            assert found.steps.tolist() == [each for each in every.steps if each >= start]
        held = list(store.events_until(run, 299, kinds=("missed",), since=start))
        assert held == [each for each in events if each.event.at >= start]
    assert not len(store.reported_between(LINEAGE, "loss", 10, 10).steps)
    store.close()
