"""One request takes the same number of statements, however many items it has."""

import json
from pathlib import Path

import pytest
from sqlalchemy import event

from in_process import Service
from pacesetter_service.core.commands import Reading, Report, Seal
from pacesetter_service.core.decide import MAX_METRICS
from pacesetter_service.core.schedules import Schedule
from pacesetter_service.core.session import create
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.runtime.work import Change, Create
from pacesetter_service.store import codec


def _statements(service: Service) -> list[str]:
    """Collect the statements that are executed from now on."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(service.store._writer, "before_cursor_execute", note)
    return seen


def _counts(folder: Path, many: int) -> int:
    """Create a session with labels, report `many` new metrics, and count the statements."""
    folder.mkdir()
    service = Service(folder)
    try:
        seen = _statements(service)
        labels = {f"label{each}": "x" for each in range(min(many, 32))}
        spec = {"name": "x", "base_lr": 0.1, "labels": labels, "ranks": 100}
        service.do(Create(SessionSpec.model_validate(spec)))
        service.do(Change("x", (Seal(0, 10),)))
        readings = tuple(Reading(each % 100, 0, f"metric{each}", 1.0) for each in range(many))
        service.do(Change("x", (Report(readings),)))
        return len(seen)
    finally:
        service.close()


def test_many_names_labels_and_ranks_take_no_more_statements_than_one(tmp_path: Path) -> None:
    """A thousand new metric names, from a hundred ranks, take one insert and one look-up."""
    assert _counts(tmp_path / "many", MAX_METRICS) == _counts(tmp_path / "one", 1)


def test_names_are_known_again_after_a_restart(tmp_path: Path) -> None:
    """The names that count against a session's cap are loaded with it, and no other session's."""
    service = Service(tmp_path)
    try:
        for name in ("a", "b"):
            service.do(Create(SessionSpec.model_validate({"name": name, "base_lr": 0.1})))
            service.do(Change(name, (Seal(0, 10),)))
            readings = (Reading(0, 0, "loss", 1.0), Reading(0, 0, f"of {name}", 1.0))
            service.do(Change(name, (Report(readings),)))
        service.restart()
        session = service.do(Change("a", (Seal(10, 1),))).entry.stored.session
        assert session.reported == {"loss", "of a"}
    finally:
        service.close()


def test_a_law_that_many_groups_share_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large table that a thousand groups follow is stored once."""
    groups = {f"g{each}": {"base_lr": 0.1} for each in range(1000)}
    table = {"kind": "table", "levels": [0.1, 0.2, 0.3]}
    spec = SessionSpec.model_validate({"name": "x", "groups": groups, "schedule": table})
    written = []
    jsonable = codec.jsonable

    def counted(model: Schedule) -> object:
        written.append(model)
        return jsonable(model)

    session = create(spec)
    monkeypatch.setattr(codec, "jsonable", counted)
    plan = codec.dump_plan(session)
    assert len(written) == 1
    assert len(json.loads(plan)["schedules"]) == 1
    assert codec.load_plan(plan) == session.timelines
