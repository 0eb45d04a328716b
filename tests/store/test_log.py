"""The log of events: it is read back to the bit, in order, and searchable by step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacesetter_service.core.actions import Order, Scale
from pacesetter_service.core.attempts import AttemptRef
from pacesetter_service.core.controllers import Transition
from pacesetter_service.core.controllers.plateau import PlateauState
from pacesetter_service.core.events import (
    Acted,
    Archived,
    AttemptOpened,
    BatchResized,
    BoundaryPassed,
    Cancelled,
    Decided,
    Finished,
    Forked,
    Logged,
    Missed,
    Noticed,
    Ordered,
    RateDeviated,
    Relabelled,
    Reopened,
    TakenBack,
)
from pacesetter_service.core.notices import Notice
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.queries.events import KINDS
from pacesetter_service.runtime.queries.explain import MOST, changes_at
from pacesetter_service.store.port import Changes, Stored
from pacesetter_service.store.sqlite import SqliteStore
from written import NOW, write

GROUPS = {"body": {"base_lr": 0.1}, "head": {"base_lr": 1.0}}
RULE = {"kind": "plateau", "metric": "loss"}
SPEC = {"name": "log", "groups": GROUPS, "controllers": [RULE]}
HALVED = {"head.lr": (1.0, 0.5)}


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open a store on a new database."""
    store = SqliteStore(f"sqlite:///{tmp_path / 'log.db'}")
    yield store
    store.close()


def decided(at: int, **changes: Any) -> Decided:
    """Return a decision of the first controller."""
    state = PlateauState(best=math.inf)
    return Decided(0, "loss", at - 1, 1 / 3, at, "a reason", state, state, **changes)


EVENTS = [
    decided(3),
    decided(3, levels={"head.lr": (0.1, 1 / 3), "body.lr": (5e-324, 1.0)}, pace=1.5),
    decided(
        4,
        transition=Transition(schedule=Schedule.parse({"kind": "cosine", "total_steps": 10})),
        rewarm=(5, 0.1),
        advice="switched",
        finish=True,
    ),
    Missed(3, "loss", 1, 2, 5),
    BoundaryPassed(6, ("acc", "loss")),
    Acted(Order(1, 8, Scale(factor=1 / 7, reason='"levels": {"head.lr"}'), "an operator")),
    Ordered(
        Order(2, 9, Scale(factor=9.0), "bo", "key"), Notice(8, "large_change", "save a checkpoint")
    ),
    BatchResized(8, 64),
    BatchResized(8, 96, before=64),
    Cancelled(2, "bo"),
    AttemptOpened(2, 7, "job-7", "bo", (1, 2)),
    TakenBack(3, 7, 30, "bo", "a curious call", (2,)),
    TakenBack(3, 7, 30, "bo", "", ()),
    Forked("other", 3, 0, "bo"),
    RateDeviated(1, 5, "head.lr", 0.2, 1 / 3),
    Acted(Order(3, 20, Scale(factor=2.0), "bo"), "It is held."),
    Noticed(20, "metric_never_seen", "loss", "loss has not been measured"),
    decided(20, advice="roll_back", good_step=7),
    Finished(20, "failed", "bo", "out of memory"),
    Finished(20, "completed", "bo"),
    Reopened(20),
    Relabelled({"team": "x"}, ("old",), "bo"),
    Archived(),
]


def written(store: SqliteStore, events: Sequence[Any]) -> Stored:
    """Write a session with these events in its log."""
    session = create(SessionSpec.model_validate(SPEC))
    number = store.new_id()
    lineage = (AttemptRef(number, 1, 0),)
    created = Stored(number, session, 0, NOW, lineage)
    stored = Stored(number, session, len(events), NOW, lineage, version=2)
    write(store, Changes(created))
    write(store, Changes(stored, before=created, log=list(events)))
    return stored


def test_every_event_comes_back_as_it_was(store: SqliteStore) -> None:
    """Each kind of event is read equal to what was written, numbered from 1."""
    stored = written(store, EVENTS)
    found = store.events_after(stored, 0, limit=100)
    assert [each.event for each in found] == EVENTS
    assert [each.seq for each in found] == list(range(1, len(EVENTS) + 1))
    assert {type(each) for each in EVENTS} == set(Logged.kinds.values())
    assert {each.kind for each in EVENTS} | {"created"} == set(KINDS)
    assert {(each.attempt, each.created_at) for each in found} == {(1, NOW)}


def test_the_newest_events_are_read_from_the_end(store: SqliteStore) -> None:
    """They are read newest first, by kind, and page by page down to the first."""
    stored = written(store, EVENTS)
    numbers, before = [], stored.events + 1
    while page := store.events_before(stored, before, limit=2):
        numbers += [each.seq for each in page]
        before = numbers[-1]
    assert numbers == list(range(len(EVENTS), 0, -1))
    kind = EVENTS[0].kind
    of_kind = store.events_before(stored, stored.events + 1, limit=100, kinds=[kind])
    assert [each.event for each in of_kind] == [each for each in EVENTS if each.kind == kind][::-1]


def test_a_decision_on_nan_comes_back(store: SqliteStore) -> None:
    """A NaN that a controller saw, or keeps in its state, is read back as NaN."""
    state = PlateauState(best=math.nan)
    stored = written(store, [Decided(0, "loss", 1, math.nan, 2, "", state, state)])
    [found] = store.events_after(stored, 0, limit=1)
    assert isinstance(found.event, Decided)
    assert math.isnan(found.event.value)
    assert math.isnan(found.event.before.best)  # type: ignore[attr-defined]


def test_events_are_found_from_a_step_backwards(store: SqliteStore) -> None:
    """Events at a step or before it are read newest first, by kind and by effect."""
    stored = written(store, EVENTS)

    def numbers(step: int, *kinds: str, **more: Any) -> list[int | None]:
        found = store.events_until(stored, step, kinds=kinds, **more)
        return [each.seq for each in found]

    assert numbers(8, "decided", "acted") == [6, 3, 2, 1]
    assert numbers(4, "decided", "acted") == [3, 2, 1]
    assert numbers(9, "missed", "boundary_passed") == [5, 4]
    assert numbers(9, "decided", "acted", of_laws=True) == [6, 3]


def test_what_came_later_is_not_part_of_a_session_that_was_read_before(store: SqliteStore) -> None:
    """A session that was read keeps the log as it was, whatever is written later."""
    stored = written(store, EVENTS)
    before = replace(stored, events=2)
    found = store.events_until(before, 9, kinds=("decided", "acted"))
    assert [each.seq for each in found] == [2, 1]


def test_an_order_is_found_behind_any_number_of_decisions(store: SqliteStore) -> None:
    """The search for causes is bounded, yet finds every order and every change of the law."""
    law = Transition(schedule=Schedule.parse({"kind": "cosine", "total_steps": 10}))
    first = [Acted(Order(1, 1, Scale(factor=0.5), "an operator")), decided(2, transition=law)]
    many = [decided(3 + step, levels=HALVED) for step in range(MOST + 100)]
    stored = written(store, [*first, *many])
    changes, whole = changes_at(store, stored, MOST * 2)
    assert not whole
    assert [each.seq for each in changes[-2:]] == [2, 1]
    assert changes[0].seq == MOST + 102
    assert len(changes) == MOST + 2
    assert [each.event for each in changes_at(store, stored, 2)[0]] == first[::-1]
