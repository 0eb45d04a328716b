"""The store: what it guarantees to the writer."""

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from pacesetter_service.core.actions.level import Scale
from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.commands import Act, Reading, Report, Seal
from pacesetter_service.core.decide import decide
from pacesetter_service.core.errors import StorageUnavailableError
from pacesetter_service.core.events import (
    Acted,
    Decided,
    Measured,
    Ordered,
    Reported,
    Sealed,
)
from pacesetter_service.core.evolve import evolve_all
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.schema import metadata
from pacesetter_service.store.served import UnusableDatabaseError
from pacesetter_service.store.sqlite import SqliteStore
from same import text_of
from written import NOW, write


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Return the path of the database's file."""
    return tmp_path / "pacesetter.db"


@pytest.fixture(name="store")
def _store(path: Path) -> Iterator[SqliteStore]:
    """Open a store on a new database."""
    store = SqliteStore(f"sqlite:///{path}")
    yield store
    store.close()


def lineage(number: int) -> tuple[AttemptRef, ...]:
    """Return the lineage of a session that never restarted."""
    return (AttemptRef(number, 1, 0),)


def session(name: str = "kept", **spec: Any) -> Session:
    """Create a session of two groups under a plateau controller."""
    return create(
        SessionSpec.model_validate(
            {
                "name": name,
                "groups": {"head": {"base_lr": 0.1}, "body": {"base_lr": 1 / 3}},
                "schedule": {"kind": "exponential", "gamma": 0.97},
                "controllers": [{"kind": "plateau", "metric": "loss", "patience": 0}],
                "labels": {"team": "vision"},
                **spec,
            }
        )
    )


def lived(start: Session) -> tuple[Session, list[Any]]:
    """Take a session through sealing, NaN and infinite metrics, cuts and an action."""
    state, happened = start, []
    for step, loss in enumerate([0.5, math.nan, math.inf, -math.inf, 0.4]):
        for command in (
            Seal(step, 1),
            Report((Reading(0, step, "loss", loss), Reading(0, step, "acc", 0.1))),
        ):
            events = decide(state, command).events
            happened += events
            state = evolve_all(state, events)
    events = decide(state, Act(Scale(factor=1 / 7, reason="a test"))).events
    return evolve_all(state, events), [*happened, *events]


def changes_of(stored: Stored, before: Stored | None, happened: list[Any]) -> Changes:
    """Return the changes that the writer would have written."""
    changes = Changes(stored, before=before)
    for event in happened:
        match event:
            case Sealed():
                changes.sealed.append(event)
            case Reported(readings=readings):
                changes.readings += [(1, each) for each in readings]
            case Measured():
                changes.measured.append((1, event))
            case Decided() | Ordered() | Acted():
                changes.log.append(event)
    return changes


def test_a_session_comes_back_to_the_bit(store: SqliteStore) -> None:
    """Whatever happened to a session, loading it gives the state that was written."""
    first = session()
    created = Stored(1, first, 0, NOW, lineage(1))
    write(store, Changes(created))
    last, happened = lived(first)
    stored = Stored(1, last, 4, NOW, lineage(1), version=2)
    write(store, changes_of(stored, created, happened))
    loaded = store.load("kept")
    assert loaded is not None
    assert text_of(loaded.session) == text_of(last)
    for name, line in last.timelines.items():
        assert line.values(0, 50).tolist() == loaded.session.timelines[name].values(0, 50).tolist()


def test_the_order_of_groups_is_kept(store: SqliteStore) -> None:
    """Groups come back in the order in which the session's creator named them."""
    write(store, Changes(Stored(1, session(), 0, NOW, lineage(1))))
    loaded = store.load("kept")
    assert loaded is not None
    assert list(loaded.session.timelines) == ["head.lr", "body.lr"]


def test_readings_count_once(store: SqliteStore) -> None:
    """A reading whose key exists already changes nothing; NaN and infinities are kept."""
    state = session()
    stored = Stored(1, state, 0, NOW, lineage(1))
    changes = Changes(stored)
    values = {0: 0.5, 1: math.nan, 2: math.inf, 3: -math.inf}
    changes.readings = [(1, Reading(0, step, "loss", value)) for step, value in values.items()]
    write(store, changes)
    again = Changes(stored, before=stored)
    again.readings = [(1, Reading(0, step, "loss", 9.0)) for step in range(5)]
    write(store, again)
    found = {reading.step: reading.value for reading in store.readings_of(stored.lineage)}
    assert repr(found) == repr({**values, 4: 9.0})


def test_sealed_values_are_read_across_blocks(store: SqliteStore) -> None:
    """Any range of sealed values comes back, whatever the blocks that they were sealed in."""
    state = session(controllers=[])
    stored = Stored(1, state, 0, NOW, lineage(1))
    changes = Changes(stored)
    whole = np.random.default_rng(0).random((2, 60))
    for start, end in [(0, 7), (7, 8), (8, 40), (40, 60)]:
        values = dict(zip(state.timelines, whole[:, start:end], strict=True))
        changes.sealed.append(Sealed(start, end - start, values))
    write(store, changes)
    for start, end in [(0, 60), (0, 1), (6, 9), (7, 8), (39, 41), (59, 60)]:
        assert (
            store.sealed_between(stored.lineage, 2, start, end).tolist()
            == whole[:, start:end].tolist()
        )


def test_a_write_is_whole_or_not_at_all(store: SqliteStore, path: Path) -> None:
    """If one row of a batch cannot be written, none is."""
    good, bad = session("good"), session("bad")
    broken = Changes(Stored(2, bad, 0, NOW, lineage(2)))
    broken.readings = [(1, Reading(0, 2**70, "loss", 1.0))]
    with pytest.raises((StorageUnavailableError, OverflowError)):
        write(store, Changes(Stored(1, good, 0, NOW, lineage(1))), broken)
    assert store.load("good") is None
    write(store, Changes(Stored(1, good, 0, NOW, lineage(1))))
    assert store.load("good") is not None


def test_metric_names_survive_a_failed_write(store: SqliteStore) -> None:
    """A metric whose first write failed gets a new number, not one that is not stored."""
    state = session()
    stored = Stored(1, state, 0, NOW, lineage(1))
    failing = Changes(stored)
    failing.readings = [(1, Reading(0, 0, "new", 1.0)), (1, Reading(0, 2**70, "new", 1.0))]
    with pytest.raises((StorageUnavailableError, OverflowError)):
        write(store, failing)
    changes = Changes(stored)
    changes.readings = [(1, Reading(0, 0, "new", 1.0))]
    write(store, changes)
    assert [reading.metric for reading in store.readings_of(stored.lineage)] == ["new"]


def test_a_second_process_is_kept_out(path: Path, store: SqliteStore) -> None:
    """While one store holds the file, opening another names the process that holds it."""
    with pytest.raises(UnusableDatabaseError, match="another process serves"):
        SqliteStore(f"sqlite:///{path}")


def test_only_a_sqlite_file_is_served() -> None:
    """A database in memory would lose what was acknowledged, and is refused with advice."""
    for url in ("sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "nonsense", "nonsense"):
        with pytest.raises(UnusableDatabaseError, match="must name a SQLite file"):
            SqliteStore(url)


def test_the_migrations_give_the_schema(store: SqliteStore, path: Path) -> None:
    """A migrated database has exactly the tables that the code uses."""
    reader = create_engine(f"sqlite:///{path}")
    with reader.connect() as connection:
        context = MigrationContext.configure(connection)
        found = [
            difference
            for difference in compare_metadata(context, metadata)
            if "alembic_version" not in str(difference)
        ]
    reader.dispose()
    assert found == []


def test_commits_are_on_the_disk(store: SqliteStore, path: Path) -> None:
    """The writer works with a write-ahead log and flushes it at each commit."""
    with store._connection.begin():
        pragmas = {
            name: store._connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_readers_can_not_write(store: SqliteStore) -> None:
    """The connections that serve reads cannot change anything."""
    with store._reader.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM sessions")


def test_a_newer_database_is_refused(path: Path) -> None:
    """A file that a later version has migrated is not changed."""
    SqliteStore(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(UnusableDatabaseError, match="newer"):
        SqliteStore(f"sqlite:///{path}")
