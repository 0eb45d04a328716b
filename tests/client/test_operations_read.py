"""What both clients read: records, pictures, the catalogue, templates and tokens."""

import io
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from both import KINDS, opened
from pacesetter import ConflictError, InvalidRequestError, NotFoundError, PermissionDeniedError
from serving import RunningService, open_http

SWEEP = {"kind": "range_test", "start_lr": 1e-5, "end_lr": 1.0, "steps": 50}
COSINE = {"kind": "cosine", "total_steps": 1000}
STEPS = 30


@pytest.fixture(name="either", scope="module", params=KINDS)
def _either(request: pytest.FixtureRequest, server_url: str) -> Iterator[Any]:
    """Return each of the clients."""
    with opened(request.param, server_url) as client:
        yield client


@pytest.fixture(name="trained", scope="module")
def _trained(server_url: str) -> str:
    """Return the name of a session that two ranks have trained, with NaN at one of the steps."""
    name, path = "operations-trained", "/v1/sessions/operations-trained"
    with open_http(server_url) as http:
        spec = {"name": name, "base_lr": 0.5, "schedule": COSINE, "ranks": 2, "total_steps": 1000}
        http.post("/v1/sessions", json=spec).raise_for_status()
        http.post(path + "/actions", json={"kind": "scale", "factor": 0.5, "at": 10, "reason": "r"})
        http.post(path + "/sync", json={"attempt": 1, "want": {"start": 0, "count": STEPS}})
        for rank in range(2):
            reports = [
                {"step": step, "metrics": {"loss": "nan" if step == 4 else rank + 1.0}}
                for step in range(2, STEPS)
            ]
            body = {"attempt": 1, "rank": rank, "reports": reports, "progress": {"step": STEPS - 1}}
            http.post(path + "/sync", json=body).raise_for_status()
    return name


def test_values_are_read(either: Any, trained: str) -> None:
    """They are of a step, of several, of an attempt; the forecast continues them."""
    assert either.lr(trained, 0) == {"step": 0, "lr": 0.5, "sealed": True}
    several = either.lr(trained, np.int64(0), count=3, attempt=1)
    assert several["series"]["lr"][0] == 0.5
    ahead = either.forecast(trained, start=None, count=None)
    assert (ahead["steps"][0], ahead["steps"][-1]) == (STEPS, 999)


def test_the_record_is_read(either: Any, trained: str) -> None:
    """It has what was measured, and by which rank."""
    found = either.history(trained, start=2, end=6, metrics=["loss"], readings=True)
    assert found["steps"] == [2, 3, 4, 5]
    assert found["metrics"]["loss"] == [1.5, 1.5, "nan", 1.5]
    assert found["readings"]["loss"]["1"][0] == 2.0


def test_the_record_comes_as_columns(either: Any, trained: str) -> None:
    """Arrays are equal to the bit; a measured NaN differs from a missing value."""
    found = either.columns(trained)
    assert list(found) == ["step", "lr", "loss"]
    assert (found.start, found.end, found.trained_until) == (0, STEPS, STEPS)
    assert (found.attempt, len(found), len(found.steps)) == (1, 3, STEPS)
    assert found["step"].dtype == np.int64
    assert found["step"].tolist() == list(range(STEPS))
    assert found["lr"].tolist() == either.lr(trained, 0, count=STEPS)["series"]["lr"]
    assert np.isnan(found["loss"]).nonzero()[0].tolist() == [0, 1, 4]
    assert (~found.measured("loss")).nonzero()[0].tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        found["lr"][0] = 1.0
    with pytest.raises(KeyError, match="there is no column 'acc'; there are step, lr, loss"):
        found["acc"]


def test_columns_become_frames_and_tables(either: Any, trained: str) -> None:
    """Pandas has the step as its index; Arrow has null where nothing was measured."""
    found = either.columns(trained, start=0, end=6, readings=True)
    frame = found.to_pandas()
    assert list(frame.columns) == ["lr", "loss", "loss[0]", "loss[1]"]
    assert frame.index.name == "step"
    assert frame["loss[1]"][2] == 2.0
    table = found.to_arrow()
    assert table.column_names == ["step", *frame.columns]
    loss = table["loss"].to_pylist()
    assert loss[:4] == [None, None, 1.5, 1.5]
    assert math.isnan(loss[4])
    assert table.schema.field("step").type == pa.int64()


def test_a_long_record_is_put_together(
    either: Any, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read piece by piece, equal for any size of piece; or thinned out."""
    whole = either.columns(trained, readings=True)
    monkeypatch.setattr("pacesetter._operations._records.ROWS", 20)
    monkeypatch.setattr("pacesetter._operations._records.MOST_POINTS", 20)
    pieces = either.columns(trained, readings=True)
    assert pieces.to_pandas().equals(whole.to_pandas())
    assert (pieces.start, pieces.end) == (0, STEPS)
    assert len(either.columns(trained, points=10).steps) < STEPS
    assert len(either.columns(trained, start=STEPS).steps) == 0


def test_a_step_is_explained(either: Any, trained: str) -> None:
    """It is the newest trained step, or the one that is named."""
    newest = either.explain(trained)
    assert newest["step"] == STEPS - 1
    assert "scaled by 0.5" in newest["text"]
    assert "nothing has changed" in either.explain(trained, 3)["text"]
    either.create(f"{trained}-not", base_lr=0.1)
    assert either.explain(f"{trained}-not")["step"] == 0


def test_events_are_listed(either: Any, trained: str) -> None:
    """They come in order, from a given one on, of the requested kinds."""
    events = list(either.events(trained))
    assert [each["seq"] for each in events] == list(range(len(events)))
    assert list(either.events(trained, after=0)) == events[1:]
    assert [each["kind"] for each in either.events(trained, kinds=["ordered"])] == ["ordered"]


def test_events_of_all_sessions_are_listed(either: Any, trained: str) -> None:
    """They come in the order of their commits, from a cursor on, of the requested sessions."""
    events = list(either.events(session=trained))
    assert [each["seq"] for each in events] == [each["seq"] for each in either.events(trained)]
    assert {each["session"] for each in events} == {trained}
    behind = events[0]["cursor"]
    assert list(either.events(session=trained, after=behind)) == events[1:]
    assert list(either.events(session=trained, kinds="ordered", labels={"no": "such"})) == []
    (ordered,) = either.events(session=trained, kinds="ordered", actor="anonymous")
    assert ordered["text"] == "anonymous ordered for step 10: scaled by 0.5: r."


def test_what_holds_for_all_sessions_is_refused_for_one(either: Any) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(ValueError, match="leave name out"):
        either.events("any", actor="ann")
    with pytest.raises(TypeError, match="give the `seq`"):
        either.events("any", after="now")
    with pytest.raises(ValueError, match="nothing has happened since"):
        either.events(after="now")


def test_a_record_moves(either: Any, trained: str, tmp_path: Path) -> None:
    """It goes through a file, by path or open handle; the copy has the same values to the bit."""
    file, held = tmp_path / "record.jsonl", io.BytesIO()
    either.export(trained, file)
    either.export(trained, held)
    assert file.read_bytes() == held.getvalue()
    held.seek(0)
    copy = f"{trained}-{type(either).__name__}"
    assert either.import_session(file, name=copy).name == copy
    assert either.import_session(held, name=f"{copy}-2").horizon == STEPS
    assert either.lr(copy, 0, count=STEPS) == either.lr(trained, 0, count=STEPS)
    with pytest.raises(ConflictError):
        either.import_session(file, name=copy)
    with pytest.raises(NotFoundError):
        either.export("nobody", tmp_path / "nothing")
    assert [each.name for each in tmp_path.iterdir()] == ["record.jsonl"]


def test_a_record_becomes_a_description(either: Any, trained: str) -> None:
    """A session that is created from it replays the values."""
    spec = either.realised(trained, start=0, end=10)
    spec["name"] += f"-again-{type(either).__name__}"
    assert either.create(**spec).series == ("lr",)
    assert either.lr(spec["name"], 0, count=10) | {"sealed_until": 0} == either.lr(
        trained, 0, count=10
    ) | {"sealed_until": 0}


def test_a_range_test_is_read(either: Any, unique_name: str) -> None:
    """It has a curve, suggestions and a picture."""
    either.create(
        unique_name,
        base_lr=0.1,
        schedule=SWEEP,
        controllers=[{"kind": "range_test", "metric": "l"}],
    )
    path = f"/v1/sessions/{unique_name}/sync"
    with open_http(either.url) as http:
        for step in range(10):
            http.post(path, json={"step": step})
            http.post(path, json={"reports": [{"step": step, "metrics": {"l": 3.0 - step / 10}}]})
    found = either.range_test(unique_name)
    assert found.metric == "l"
    assert found.picture.startswith("<svg")


def test_a_merge_is_read(either: Any, unique_name: str) -> None:
    """It has the constant phase's checkpoints with their weights, and the order it stands for."""
    schedule = {"kind": "wsd", "total_steps": 100, "warmup_steps": 20, "decay_steps": 10}
    either.create(unique_name, base_lr=0.1, schedule=schedule)
    with open_http(either.url) as http:
        for step in range(0, 80, 16):
            http.post(
                f"/v1/sessions/{unique_name}/sync", json={"want": {"start": step, "count": 16}}
            )
    found = either.merge(unique_name, [10, 20, 40, 60], shape="linear", floor=0.5, over=50)
    assert found.steps == (20, 40, 60)
    assert [each["step"] for each in found.left_out] == [10]
    assert (found.at, found.action["kind"]) == (20, "cooldown")
    assert sum(found.weights) == pytest.approx(1.0)
    with pytest.raises(InvalidRequestError, match="constant"):
        either.merge(unique_name, [5, 10, 15])


def test_trainings_are_compared(either: Any, trained: str, unique_name: str) -> None:
    """Their curves come side by side, with the places in which their descriptions differ."""
    either.create(unique_name, base_lr=0.25, schedule=COSINE, ranks=2, total_steps=1000)
    names = [trained, unique_name]
    found = either.compare(names, by="fraction", points=100, metrics=["loss"])
    assert [each["name"] for each in found["sessions"]] == names
    differing = {each["pointer"]: each["values"] for each in found["differences"]}
    assert differing["/base_lr"] == {trained: 0.5, unique_name: 0.25}
    assert "<svg" in either.compare_picture(names)
    with pytest.raises(NotFoundError):
        either.compare([trained, "nobody"])


def test_curves_are_drawn(either: Any, trained: str) -> None:
    """They are SVG: of the past, of the forecast, and of a plan."""
    assert "<svg" in either.picture(trained, metrics=["loss"])
    assert "<svg" in either.picture(trained, "forecast", start=0, end=500)
    assert "<svg" in either.preview_picture(COSINE, base_lr=0.1)
    with pytest.raises(ValueError, match="there is no picture 'past': ask for 'history' or"):
        either.picture(trained, "past")
    with pytest.raises(ValueError, match="needs start="):
        either.picture(trained, "forecast", end=10)


def test_the_catalogue_is_read(either: Any) -> None:
    """It gives all kinds of a family, or one of them."""
    for family, kind in (("schedules", "cosine"), ("controllers", "plateau"), ("actions", "scale")):
        kinds = getattr(either, family)()[family]
        assert kind in {each["kind"] for each in kinds}
        assert getattr(either, family)(kind)["kind"] == kind
        with pytest.raises(NotFoundError):
            getattr(either, family)("no-such-kind")


def test_a_plan_is_tried_out(either: Any) -> None:
    """It gives the plan's curve, its pitfalls, and what the server recommends instead."""
    curve = either.preview(COSINE, base_lr=0.1, count=3)
    assert curve["steps"] == [0, 1, 2]
    assert either.preview(spec={"base_lr": 0.1, "schedule": COSINE, "name": "x"}, count=3) == curve
    found = either.lint({"base_lr": 0.1, "schedule": COSINE, "total_steps": 5000})
    assert {"code", "severity", "pointer", "message", "advice", "source"} == set(found[0])
    proposal = either.recommend("transformer", 1000, optimizer="adamw", batch_size=8)
    assert proposal["spec"]["total_steps"] == 1000
    assert either.preview(spec=proposal["spec"])["steps"][-1] == 999
    assert either.version()["api"] == "v1"


def test_a_template_lives(either: Any, unique_name: str) -> None:
    """It is published, used, changed, compared and deprecated."""
    name = f"{unique_name}-{type(either).__name__}".lower().replace("_", "-")
    body = {
        "name": name,
        "description": "ours",
        "parameters": {"rate": {"example": 0.1}},
        "spec": {"base_lr": {"$": "rate"}, "schedule": COSINE},
    }
    first = either.publish_template(body)
    assert first["version"] == 1
    second = either.publish_template({**body, "spec": {**body["spec"], "total_steps": 1000}})
    assert [each["version"] for each in either.templates(name)] == [1, 2]
    assert either.template(name) == second
    assert either.template(name, 1) == first
    assert name in {each["name"] for each in either.templates()}
    assert [each["pointer"] for each in either.diff_templates(name, 1, 2)] == ["/spec/total_steps"]
    assert either.deprecate_template(name, 1, "too short")["deprecated"] == "too short"
    made = either.create(name, template=f"{name}@2", parameters={"rate": 0.25})
    assert made.base_lr(None) == 0.25
    with pytest.raises(NotFoundError):
        either.template(name, 3)


@pytest.fixture(name="guarded", scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Return a service that requires tokens."""
    database = tmp_path_factory.mktemp("guarded") / "pacesetter.db"
    with RunningService(database, admin_token="a" * 40) as service:
        yield service


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_made_and_revoked(kind: str, guarded: RunningService) -> None:
    """Each holds for its role, its names and its time, until it is revoked."""
    with opened(kind, guarded.url, token="a" * 40) as admin:
        until = datetime.now(UTC) + timedelta(days=1)
        made = admin.create_token(f"ann-{kind}", "viewer", expires_at=until, scope=["vit-*"])
        assert made["scope"] == ["vit-*"]
        short = admin.create_token("bob", "trainer", expires_in=60)
        assert {made["id"], short["id"]} <= {each["id"] for each in admin.tokens()}
        with opened(kind, guarded.url, token=made["token"]) as ann:
            assert list(ann.sessions()) == []
            with pytest.raises(PermissionDeniedError):
                ann.tokens()
        assert admin.revoke_token(made["id"]) is None
        assert made["id"] not in {each["id"] for each in admin.tokens()}
        with pytest.raises(NotFoundError):
            admin.revoke_token(made["id"])
        with pytest.raises(InvalidRequestError, match="expires_in"):
            admin.create_token("eve", "viewer", expires_in=1, expires_in_days=1)
