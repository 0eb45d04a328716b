"""The store: what it promises to the ledger."""

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
from pacesetter_service.core.lineage import Life
from pacesetter_service.core.session import Session, create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.storage import engine
from pacesetter_service.storage.schema import metadata
from pacesetter_service.storage.store import Changes, Store, Stored

NOW = "2026-01-01T00:00:00.000+00:00"


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Name the database's file."""
    return tmp_path / "pacesetter.db"


@pytest.fixture(name="store")
def _store(path: Path) -> Iterator[Store]:
    """Open a store on a new database."""
    store = Store(f"sqlite:///{path}")
    yield store
    store.close()


def lineage(number: int) -> tuple[Life, ...]:
    """Give the lineage of a session that never restarted."""
    return (Life(number, 1, 0),)


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
    """Live through sealing, NaN and infinite metrics, cuts and an action."""
    state, happened = start, []
    for step, loss in enumerate([0.5, math.nan, math.inf, -math.inf, 0.4]):
        for command in (
            Seal(step, 1),
            Report((Reading(0, step, "loss", loss), Reading(0, step, "acc", 0.1))),
        ):
            events = decide(state, command)
            happened += [(state.horizon, event) for event in events]
            state = evolve_all(state, events)
    events = decide(state, Act(Scale(factor=1 / 7, reason="a test")))
    return evolve_all(state, events), happened + [(state.horizon, each) for each in events]


def changes_of(stored: Stored, before: Session | None, happened: list[Any]) -> Changes:
    """Say what the ledger would have written."""
    changes = Changes(stored, before=before)
    for horizon, event in happened:
        match event:
            case Sealed():
                changes.sealed.append(event)
            case Reported(readings=readings):
                changes.readings += [(1, each) for each in readings]
            case Measured():
                changes.measured.append((1, horizon, event))
            case Decided() | Ordered() | Acted():
                changes.log.append(event)
    return changes


def test_a_session_comes_back_to_the_bit(store: Store) -> None:
    """Whatever a session has lived through, loading it gives the state that was written."""
    first = session()
    store.write([Changes(Stored(1, first, 0, NOW, lineage(1)))], NOW)
    last, happened = lived(first)
    stored = Stored(1, last, 4, NOW, lineage(1))
    store.write([changes_of(stored, first, happened)], NOW)
    loaded = store.load("kept")
    assert loaded is not None
    assert repr(loaded.session) == repr(last)
    for name, line in last.timelines.items():
        assert line.values(0, 50).tolist() == loaded.session.timelines[name].values(0, 50).tolist()


def test_the_order_of_groups_is_kept(store: Store) -> None:
    """Groups come back in the order in which their creator named them."""
    store.write([Changes(Stored(1, session(), 0, NOW, lineage(1)))], NOW)
    loaded = store.load("kept")
    assert loaded is not None
    assert list(loaded.session.timelines) == ["head.lr", "body.lr"]


def test_readings_count_once(store: Store) -> None:
    """A reading whose key is there already changes nothing; NaN and infinities are kept."""
    state = session()
    stored = Stored(1, state, 0, NOW, lineage(1))
    changes = Changes(stored)
    values = {0: 0.5, 1: math.nan, 2: math.inf, 3: -math.inf}
    changes.readings = [(1, Reading(0, step, "loss", value)) for step, value in values.items()]
    store.write([changes], NOW)
    again = Changes(stored, before=state)
    again.readings = [(1, Reading(0, step, "loss", 9.0)) for step in range(5)]
    store.write([again], NOW)
    found = {reading.step: reading.value for reading in store.readings_of(stored.lineage)}
    assert repr(found) == repr({**values, 4: 9.0})


def test_sealed_values_are_read_across_blocks(store: Store) -> None:
    """Any range of what was sealed comes back, whatever the blocks that it was sealed in."""
    state = session(controllers=[])
    stored = Stored(1, state, 0, NOW, lineage(1))
    changes = Changes(stored)
    whole = np.random.default_rng(0).random((2, 60))
    for start, end in [(0, 7), (7, 8), (8, 40), (40, 60)]:
        values = dict(zip(state.timelines, whole[:, start:end], strict=True))
        changes.sealed.append(Sealed(start, end - start, values))
    store.write([changes], NOW)
    for start, end in [(0, 60), (0, 1), (6, 9), (7, 8), (39, 41), (59, 60)]:
        assert (
            store.sealed_between(stored.lineage, 2, start, end).tolist()
            == whole[:, start:end].tolist()
        )


def test_a_write_is_whole_or_not_at_all(store: Store, path: Path) -> None:
    """When one row of a batch can not be written, none is."""
    good, bad = session("good"), session("bad")
    broken = Changes(Stored(2, bad, 0, NOW, lineage(2)))
    broken.readings = [(1, Reading(0, 2**70, "loss", 1.0))]
    with pytest.raises((StorageUnavailableError, OverflowError)):
        store.write([Changes(Stored(1, good, 0, NOW, lineage(1))), broken], NOW)
    assert store.load("good") is None
    store.write([Changes(Stored(1, good, 0, NOW, lineage(1)))], NOW)
    assert store.load("good") is not None


def test_metric_names_survive_a_failed_write(store: Store) -> None:
    """A metric whose first write failed is numbered anew, not under a number that is not there."""
    state = session()
    stored = Stored(1, state, 0, NOW, lineage(1))
    failing = Changes(stored)
    failing.readings = [(1, Reading(0, 0, "new", 1.0)), (1, Reading(0, 2**70, "new", 1.0))]
    with pytest.raises((StorageUnavailableError, OverflowError)):
        store.write([failing], NOW)
    changes = Changes(stored)
    changes.readings = [(1, Reading(0, 0, "new", 1.0))]
    store.write([changes], NOW)
    assert [reading.metric for reading in store.readings_of(stored.lineage)] == ["new"]


def test_a_second_process_is_kept_out(path: Path, store: Store) -> None:
    """While one store has the file, opening another says who is in the way."""
    with pytest.raises(engine.UnusableDatabaseError, match="another process serves"):
        Store(f"sqlite:///{path}")


def test_only_a_sqlite_file_is_served() -> None:
    """A database in memory would lose what was promised, and is refused with advice."""
    for url in ("sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "nonsense", "nonsense"):
        with pytest.raises(engine.UnusableDatabaseError, match="must name a SQLite file"):
            engine.open_writer(url)


def test_the_migrations_give_the_schema(store: Store, path: Path) -> None:
    """A migrated database has exactly the tables that the code works with."""
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


def test_commits_are_on_the_disk(store: Store, path: Path) -> None:
    """The writer works with a write-ahead log and flushes it at each commit."""
    with store._connection.begin():
        pragmas = {
            name: store._connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_readers_can_not_write(store: Store) -> None:
    """The connections that serve reads refuse to change anything."""
    with store._reader.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM sessions")


def test_a_newer_database_is_refused(path: Path) -> None:
    """A file that a later version has migrated is not touched."""
    Store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(engine.UnusableDatabaseError, match="newer"):
        Store(f"sqlite:///{path}")
