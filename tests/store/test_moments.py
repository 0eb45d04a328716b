"""When steps were handed out, from which an axis of time is made; on either database."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

import postgres
from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.events import Sealed
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.store.moments import HandedOut
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.postgres import PostgresStore
from pacesetter_service.store.schema import sealed
from pacesetter_service.store.sqlite import SqliteStore
from pacesetter_service.store.store import Store

TIMES = [f"2026-01-01T00:00:{second:02}.250+00:00" for second in range(0, 40, 10)]
"""When four windows of ten steps are handed out."""

REF = AttemptRef(1, 1, 0)


@pytest.fixture(name="store", params=["sqlite", "postgresql"])
def _store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Open a store in which four windows were handed out."""
    with ExitStack() as ends:
        if request.param == "sqlite":
            store: Store = SqliteStore(f"sqlite:///{tmp_path / 'pacesetter.db'}")
        else:
            store = PostgresStore(ends.enter_context(postgres.database()))
        ends.callback(store.close)
        session = create(SessionSpec.model_validate({"name": "x", "base_lr": 0.1}))
        before = Stored(1, session, 0, TIMES[0], (REF,))
        with store.begin() as transaction:
            transaction.append([Changes(before)], TIMES[0])
        for number, now in enumerate(TIMES):
            after = replace(
                before,
                session=replace(before.session, horizon=10 * number + 10),
                version=before.version + 1,
            )
            event = Sealed(10 * number, 10, {"lr": np.full(10, 0.1)})
            with store.begin() as transaction:
                transaction.append([Changes(after, before=before, sealed=[event])], now)
            before = after
        yield store


def seconds(number: int) -> float:
    """Return when a window was handed out, in seconds."""
    return datetime.fromisoformat(TIMES[number]).timestamp()


def test_the_windows_of_some_steps_are_found_with_their_moments(store: Store) -> None:
    """Each is found once, in order, to the millisecond; windows of other attempts are not."""
    found = store.handed_out(REF, [35, 0, 19, 10])
    assert found == [HandedOut(10 * each, seconds(each)) for each in (0, 1, 3)]
    assert store.handed_out(AttemptRef(1, 2, 0), [0]) == []
    assert store.handed_out(REF, []) == []


def test_a_moment_that_was_not_written_down_is_left_out(store: Store) -> None:
    """Steps that were sealed by an older service, or imported, have no moment."""
    with store.transaction() as connection:
        unknown = update(sealed).where(sealed.c.start == 10).values(handed_out=None)
        connection.execute(unknown)
    assert [each.step for each in store.handed_out(REF, range(40))] == [0, 20, 30]
