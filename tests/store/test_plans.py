"""How the database finds what a restart needs: by keys, however much was measured before."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.listing import Listing
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.sqlite import SqliteStore
from written import NOW, write


@contextmanager
def noted(store: SqliteStore) -> Iterator[list[str]]:
    """Note what is asked of the database, values and all."""
    asked: list[str] = []
    trace = lambda connection, *_: connection.set_trace_callback(asked.append)  # noqa: E731
    event.listen(store._reader, "checkout", trace)
    try:
        yield asked
    finally:
        event.remove(store._reader, "checkout", trace)


@pytest.fixture(name="stored")
def _stored() -> Stored:
    """Return a session that waits for a metric, of which a few steps were sealed and reported."""
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
    """Neither those in trouble nor the newest ones are looked for among all sessions."""
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
    """What was measured and reported is looked up by its steps, and never read from the first."""
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
