"""Export and import: the complete record of a session, to the bit, between real services."""

import hashlib
import itertools
import json
import math
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import PATIENCE, RunningService, open_http, quick

LINES = {"content-type": "application/x-ndjson"}

RUN: dict[str, Any] = {
    "groups": {"head": {"base_lr": 0.1}, "body": {"base_lr": 1 / 3}},
    "schedule": {"kind": "exponential", "gamma": 0.97},
    "controllers": [
        {"kind": "plateau", "metric": "loss", "patience": 1, "factor": 0.7},
        {"kind": "spike_guard", "metric": "norm"},
    ],
    "metrics": {"loss": {"smoothing": {"kind": "ema", "beta": 0.9}}},
    "ranks": 2,
    "labels": {"team": "vision"},
    "max_lookahead": 4,
}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="other")
def _other(service: RunningService) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of another service, with an empty database."""
    with open_http(service.url) as client:
        yield client


def loss(step: int, rank: int) -> float | str:
    """Return a loss that falls, stands still, and is sometimes NaN."""
    if step % 17 == 5:
        return ("nan", "inf")[rank]
    return round(1 / (1 + min(step, 20)) + rank / 7, 12)


def train(http: httpx.Client, name: str, steps: range) -> None:
    """Seal steps and report both ranks' metrics, except of the last ones."""
    for step in steps:
        http.post(f"/v1/sessions/{name}/sync", json={"step": step}).raise_for_status()
        for rank in (0, 1):
            metrics = {"loss": loss(step, rank), "norm": 1.0 + step % 3, "unwatched": step / 3}
            body = {"rank": rank, "reports": [{"step": step, "metrics": metrics}]}
            http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status()


def order(http: httpx.Client, name: str, **action: Any) -> None:
    """Return an order."""
    http.post(f"/v1/sessions/{name}/actions", json=action).raise_for_status()


def eventful(http: httpx.Client, name: str, **spec: Any) -> str:
    """Take a session through cuts, orders, NaN, a restart and pending orders."""
    http.post("/v1/sessions", json={"name": name, **RUN, **spec}).raise_for_status()
    train(http, name, range(12))
    order(http, name, kind="scale", factor=0.5, at=14, reason="too fast: ä€😀")
    train(http, name, range(12, 30))
    restart = {"step": 20, "key": "second life"}
    http.post(f"/v1/sessions/{name}/attempts", json=restart).raise_for_status()
    train(http, name, range(20, 40))
    order(http, name, kind="scale", factor=2.0, at=60)
    return name


def export(http: httpx.Client, name: str) -> bytes:
    """Return the complete record of a session."""
    answer = http.get(f"/v1/sessions/{name}/export").raise_for_status()
    assert answer.headers["content-type"] == "application/x-ndjson"
    return answer.content


@pytest.fixture(name="whole", scope="module")
def _whole(server_url: str) -> bytes:
    """Return the record of an eventful session."""
    with open_http(server_url) as http:
        return export(http, eventful(http, "test_transfer-whole"))


@pytest.fixture(name="varied", scope="module")
def _varied(server_url: str) -> bytes:
    """Return the record of a session with every kind of decision, order and attempt."""
    cut = {"kind": "plateau", "metric": "norm", "patience": 1, "factor": 0.9}
    stage = {"when": {"kind": "step", "at": 16}, "schedule": "constant", "value": "continue"}
    switch = {"kind": "switch", "metric": "loss", "stages": [stage, stage]}
    rules = [*RUN["controllers"], cut, switch]
    batches = {"batch_size": 64, "batch_scaling": "linear"}
    with open_http(server_url) as http:
        name = eventful(http, "test_transfer-varied", controllers=rules, **batches)
        http.post(f"/v1/sessions/{name}/sync", json={"want": {"start": 40, "count": 2}})
        http.post(f"/v1/sessions/{name}/take-back", json={}).raise_for_status()
        body = {"batch_size": 128, "step": 40}
        http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status()
        return export(http, name)


def restore(http: httpx.Client, record: bytes, **params: str) -> httpx.Response:
    """Import a record."""
    return http.post("/v1/import", content=record, headers=LINES, params=params)


def seen(http: httpx.Client, name: str) -> list[Any]:
    """Read everything that can be read of a session."""
    base = f"/v1/sessions/{name}"
    horizon = http.get(base).json()["horizon"]
    asked = [
        base,
        f"{base}/lr?step=0&count={horizon + 50}",
        f"{base}/events?limit=1000",
        f"{base}/attempts",
        f"{base}/actions",
        f"{base}/history?readings=true",
        f"{base}/history?attempt=1",
        *(f"{base}/explain?step={step}" for step in range(0, horizon + 5, 7)),
    ]
    return [here(http.get(each).raise_for_status().json()) for each in asked]


def here(answer: Any) -> Any:
    """Leave out what belongs to the database: the epoch, and the time of the last write."""
    own = {"epoch": None, "changed_at": None}
    return {**answer, **own} if "epoch" in answer else answer


def test_a_record_comes_back_as_it_was(
    http: httpx.Client, other: httpx.Client, unique_name: str
) -> None:
    """All that can be read of a session is the same on another server, and so is its export."""
    name = eventful(http, unique_name)
    record = export(http, name)
    answer = restore(other, record)
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/sessions/{name}")
    assert here(answer.json()) == here(http.get(f"/v1/sessions/{name}").json())
    assert seen(other, name) == seen(http, name)
    assert export(other, name) == record


def test_what_is_decided_from_then_on_is_the_same(
    http: httpx.Client, other: httpx.Client, unique_name: str
) -> None:
    """The session and its copy, trained alike, stay equal: values, events and later restarts."""
    name = eventful(http, unique_name)
    restore(other, export(http, name)).raise_for_status()
    for server in (http, other):
        train(server, name, range(40, 70))
        for step, key in ((52, "third"), (9, "fourth")):
            body = {"step": step, "key": key}
            server.post(f"/v1/sessions/{name}/attempts", json=body).raise_for_status()
            train(server, name, range(step, step + 20))
    assert untimed(seen(other, name)) == untimed(seen(http, name))


def untimed(answer: Any) -> Any:
    """Leave out the times of writing, which differ between the two servers."""
    if isinstance(answer, dict):
        return {k: untimed(v) for k, v in answer.items() if k not in ("created_at", "text")}
    return [untimed(each) for each in answer] if isinstance(answer, list) else answer


def test_a_fork_takes_its_past_along(
    http: httpx.Client, other: httpx.Client, unique_name: str
) -> None:
    """A fork of a fork is complete without the sessions that it shares its past with."""
    name = eventful(http, unique_name)
    for source, branch, step in ((name, f"{name}-a", 33), (f"{name}-a", f"{name}-b", 36)):
        body = {"name": branch, "step": step}
        http.post(f"/v1/sessions/{source}/fork", json=body).raise_for_status()
        train(http, branch, range(step, step + 10))
    record = export(http, f"{name}-b")
    restore(other, record).raise_for_status()
    assert untold(seen(other, f"{name}-b")) == untold(seen(http, f"{name}-b"))
    assert export(other, f"{name}-b") == record
    for server in (http, other):  # back into what belongs to the first of the three
        body = {"step": 7, "key": "far back"}
        server.post(f"/v1/sessions/{name}-b/attempts", json=body).raise_for_status()
        train(server, f"{name}-b", range(7, 20))
    assert untimed(untold(seen(other, f"{name}-b"))) == untimed(untold(seen(http, f"{name}-b")))


def untold(answer: Any) -> Any:
    """Leave out the numbers of causes, which mean nothing in another session."""
    if isinstance(answer, dict):
        cause = answer.get("cause")
        if cause is not None:
            answer = {**answer, "cause": {**cause, "seq": 0, "attempt": 0}}
        return {k: untold(v) for k, v in answer.items()}
    return [untold(each) for each in answer] if isinstance(answer, list) else answer


def test_a_copy_may_have_another_name(http: httpx.Client, unique_name: str) -> None:
    """A record can be imported under a new name where it came from; both go on independently."""
    name = eventful(http, unique_name)
    copy = f"{name}-copy"
    assert restore(http, export(http, name), name=copy).json()["name"] == copy
    assert seen(http, copy)[1:3] == seen(http, name)[1:3]
    found = http.get("/v1/sessions", params={"label": "team:vision", "limit": 500}).json()
    assert copy in {each["name"] for each in found["sessions"]}
    before = seen(http, name)
    train(http, copy, range(40, 45))
    assert seen(http, name) == before


def test_a_name_that_is_taken_is_refused(http: httpx.Client, unique_name: str) -> None:
    """An import never changes an existing session."""
    name = eventful(http, unique_name)
    before = seen(http, name)
    answer = restore(http, export(http, name))
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert seen(http, name) == before


def rewritten(record: bytes, change: Callable[[list[Any]], Any]) -> bytes:
    """Change the lines of a record, and recompute its last line."""
    lines = [json.loads(line) for line in record.splitlines()[:-1]]
    change(lines)
    return written(lines)


def written(lines: list[Any]) -> bytes:
    """Write the lines of a record, with a matching last line."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = {"line": "end", "lines": len(lines), "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end).encode() + b"\n"


def of(lines: list[Any], kind: str) -> Any:
    """Return the first line of a kind."""
    return next(line for line in lines if line["line"] == kind)


def bits(value: float) -> str:
    """Return a value as records encode it."""
    return struct.pack("<d", value).hex()


def nan_sealed(lines: list[Any]) -> None:
    line = of(lines, "sealed")
    line["values"] = bits(math.nan) + line["values"][16:]


def negative_sealed(lines: list[Any]) -> None:
    line = of(lines, "sealed")
    line["values"] = bits(-1.0) + line["values"][16:]


Where = tuple[str | int, ...]


def alter(place: Any, path: Where, value: Any) -> None:
    """Replace a value by another one."""
    *way, last = path
    for key in way:
        place = place[key]
    place[last] = value


def inside(kind: str, text: str, *path: str | int, to: Any) -> Callable[[list[Any]], None]:
    """Return a change of one value in a JSON text of the first line of a kind."""

    def change(lines: list[Any]) -> None:
        line = of(lines, kind)
        held = json.loads(line[text])
        alter(held, path, to)
        line[text] = json.dumps(held)

    return change


SPOILT: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "another version": (lambda lines: lines[0].update(version=1), "version 1"),
    "another format": (lambda lines: lines[0].update(format="x"), "pacesetter.session"),
    "no session": (lambda lines: lines.pop(0), "line 1"),
    "two sessions": (lambda lines: lines.append(lines[0]), "second session"),
    "an unknown line": (lambda lines: lines.append({"line": "dance"}), "dance"),
    "an unknown field": (lambda lines: of(lines, "event").update(more=1), "more"),
    "NaN for a rate": (nan_sealed, "no value to train with"),
    "a rate below zero": (negative_sealed, "no value to train with"),
    "values that are missing": (lambda lines: lines.remove(of(lines, "sealed")), "missing"),
    "values that come twice": (lambda lines: lines.append(of(lines, "sealed")), "go on at step"),
    "half a value": (lambda lines: of(lines, "sealed").update(values="00"), "2 digits"),
    "an event that is missing": (lambda lines: lines.remove(of(lines, "event")), "event"),
    "events that are missing": (lambda lines: lines[0].update(events=999), "of 999 events"),
    "an event of a newer kind": (lambda lines: of(lines, "event").update(kind="x"), "newer"),
    "an event without sense": (lambda lines: of(lines, "event").update(payload="{}"), "line"),
    "a state without sense": (lambda lines: lines[0].update(control="{}"), "line 1"),
    "a snapshot without sense": (lambda lines: of(lines, "snapshot").update(plan="[]"), "line"),
    "a spec without sense": (lambda lines: lines[0]["spec"].update(ranks=-1), "line 1"),
    "another spec": (lambda lines: lines[0]["spec"].update(groups=None, base_lr=1.0), "line 1"),
    "columns of two lengths": (lambda lines: of(lines, "readings")["steps"].pop(), "lengths"),
    "a reading twice": (lambda lines: lines.append(of(lines, "readings")), "twice"),
    "a horizon too far": (lambda lines: lines[0].update(horizon=50), "sealed up to step 40"),
    "a horizon too near": (lambda lines: lines[0].update(horizon=39), "sealed up to step 40"),
    "another one's attempt": (lambda lines: lines[0].update(lineage=[[7, 0]]), "line"),
    "a clock that is a text": (
        inside("session", "plan", "series", "head.lr", 0, 2, to="soon"),
        "clock: Write a number",
    ),
    "a clock that stands at no step": (
        inside("snapshot", "plan", "series", "head.lr", 0, 2, to=math.inf),
        "nothing can be computed with",
    ),
    "a clock that goes backwards": (
        inside("session", "plan", "series", "head.lr", 0, 7, to=-1.0),
        "nothing can be computed with",
    ),
    "a law of the future": (
        inside("session", "plan", "series", "head.lr", 0, 0, to=41),
        "not in the order of their steps",
    ),
    "a wait without an end": (
        inside("session", "control", "wait", to=[40, math.inf, 0.0]),
        "nothing can be waited for so long",
    ),
    "an order for the past": (
        inside("session", "control", "orders", 0, "at", to=-1),
        "line 1",
    ),
    "an order's step that is none": (
        inside("event", "payload", "order", "at", to=[]),
        "order.at: Write a whole number",
    ),
    "an order's author that is none": (
        inside("event", "payload", "order", "actor", to=None),
        "order.actor: Write a text",
    ),
    "an order for a group of nobody": (
        inside("event", "payload", "order", "action", "groups", to=["tail"]),
        "There is no group tail",
    ),
    "half a pair": (lambda lines: lines[0].update(plan='{"a":"\\ud800"}'), "line 1"),
    "half a pair in a key": (
        inside("session", "control", "attempt_key", to="\ud800"),
        "surrogates not allowed",
    ),
    "a template without a version": (
        lambda lines: lines[0]["spec"].update(origin={"template": "house\0"}),
        "with its version",
    ),
    "a creation at no time": (lambda lines: lines[0].update(created_at="x"), "created_at"),
    "a creation in another zone": (
        lambda lines: lines[0].update(created_at="2026-01-31T12:00:00.000+01:00"),
        "in UTC",
    ),
    "an event without a fraction": (
        lambda lines: of(lines, "event").update(created_at="2026-01-31T12:00:00+00:00"),
        "to the millisecond",
    ),
    "an attempt on no day": (
        lambda lines: of(lines, "attempt").update(created_at="2026-02-31T12:00:00.000+00:00"),
        "created_at",
    ),
    "an attempt's key with a NUL": (lambda lines: of(lines, "attempt").update(key="a\0"), "key"),
    "an attempt's author of two lines": (
        lambda lines: of(lines, "attempt").update(actor="a\nb"),
        "actor",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_record_that_makes_no_sense_is_refused(
    http: httpx.Client, whole: bytes, unique_name: str, what: str
) -> None:
    """The refusal names the line, and nothing of the record is kept."""
    change, said = SPOILT[what]
    record = rewritten(whole, change)
    answer = restore(http, record, name=f"{unique_name}-new")
    assert (answer.status_code, answer.json()["code"]) == (422, "import_refused")
    assert said in answer.json()["detail"]
    assert http.get(f"/v1/sessions/{unique_name}-new").status_code == 404


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda record: record[: len(record) // 2], "line"),
        (lambda record: record[: record.rindex(b'{"line":"end"')], "the last line is missing"),
        (lambda record: record + record[:1], "something follows the last line"),
        (lambda record: record.replace(b"second life", b"second lifE", 1), "checksum"),
        (lambda record: b"", "the last line is missing"),
        (lambda record: b"\xff\n" + record, "line 1"),
        (lambda record: record.replace(b"\n", b"\n\n", 1), "line 2"),
    ],
    ids=["half", "no end", "more", "one letter", "nothing", "no text", "an empty line"],
)
def test_a_record_that_is_not_whole_is_refused(
    http: httpx.Client,
    whole: bytes,
    unique_name: str,
    spoil: Callable[[bytes], bytes],
    said: str,
) -> None:
    """A truncated or altered record is noticed."""
    answer = restore(http, spoil(whole), name=f"{unique_name}-new")
    assert (answer.status_code, answer.json()["code"]) == (422, "import_refused")
    assert said in answer.json()["detail"]


TEXTS = ("plan", "control", "payload")
"""The fields of lines that hold JSON as text."""

ODD = [0, -1, 1, 7, 2**53 - 1, 2**63, "", "x", "nan", None, True, [], {}, -0.0, 1.5, 1e308]
ODD += [math.nan, math.inf]


def places(value: Any, *path: str | int) -> Iterator[Where]:
    """Return the paths to all values in a value, at any depth."""
    if path:
        yield path
    keys = (
        list(value)
        if isinstance(value, dict)
        else range(len(value) if isinstance(value, list) else 0)
    )
    for key in keys:
        yield from places(value[key], *path, key)


def opened(record: bytes) -> list[Any]:
    """Return the parsed lines of a record, with their JSON texts parsed, without the last line."""
    lines = [json.loads(line) for line in record.splitlines()[:-1]]
    return [
        {key: json.loads(each) if key in TEXTS else each for key, each in line.items()}
        for line in lines
    ]


def closed(lines: list[Any]) -> bytes:
    """Write parsed lines as a record again."""
    return written(
        [
            {key: json.dumps(each) if key in TEXTS else each for key, each in line.items()}
            for line in lines
        ]
    )


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_record_with_one_odd_value_is_refused_or_is_one_to_go_on_with(
    http: httpx.Client, varied: bytes, data: st.DataObject
) -> None:
    """Whatever one value of a record is changed to, no call about the imported session fails."""
    lines = opened(varied)
    line = data.draw(st.sampled_from(lines))
    alter(line, data.draw(st.sampled_from(list(places(line)))), data.draw(st.sampled_from(ODD)))
    name = f"odd-{next(NUMBERS)}"
    imported = restore(http, closed(lines), name=name)
    assert imported.status_code < 500
    for answer in used(http, name) if imported.status_code == 201 else ():
        assert answer.status_code < 500, (answer.request.url, answer.text)


NUMBERS = itertools.count()


def used(http: httpx.Client, name: str) -> Iterator[httpx.Response]:
    """Read a session in every way, and use it in every way."""
    base = f"/v1/sessions/{name}"
    for path in (
        "",
        "/lr?step=0&count=50",
        "/lr?step=3&attempt=1",
        "/forecast",
        "/history?readings=true",
        "/history?attempt=1",
        "/events?limit=1000",
        "/attempts",
        "/actions",
        "/ranks",
        "/export",
        *(f"/explain?step={step}" for step in (0, 15, 25, 39, 60)),
    ):
        yield http.get(f"{base}{path}")
    report = {"rank": 1, "reports": [{"step": 39, "metrics": {"loss": 1.0, "norm": 9.0}}]}
    for path, body in (
        ("sync", {**report, **quick(40, 2)}),
        ("actions", {"kind": "scale", "factor": 0.5}),
        ("sync", {"attempt": 2, "want": {"start": 40, "count": 30}, "progress": {"step": 61}}),
        ("take-back", {}),
        ("fork", {"name": f"{name}-fork", "step": 22}),
        ("attempts", {"step": 25, "key": "third", "batch_size": 64}),
        ("attempts", {"step": 9, "key": "fourth"}),
        ("sync", {"step": 9}),
    ):
        yield http.post(f"{base}/{path}", json=body)


def dear(depth: int = 20) -> dict[str, Any]:
    """Return a law that costs twice as much with each level."""
    law: dict[str, Any] = {"kind": "expression", "value": "base * exp(-t / 100)"}
    for _ in range(depth):
        law = {"kind": "splice", "first": law, "steps": 5, "second": "constant"}
    return law


def dear_plan(line: dict[str, Any]) -> None:
    plan = json.loads(line["plan"])
    plan["schedules"] = [dear() for _ in plan["schedules"]]
    line["plan"] = json.dumps(plan)


def replacing(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "action": {"kind": "replace", "schedule": dear()}}


def dear_order(lines: list[Any]) -> None:
    control = json.loads(lines[0]["control"])
    control["orders"] = [replacing(each) for each in control["orders"]]
    lines[0]["control"] = json.dumps(control)


def dear_event(lines: list[Any]) -> None:
    line = next(each for each in lines if each.get("kind") == "acted")
    payload = json.loads(line["payload"])
    line["payload"] = json.dumps({**payload, "order": replacing(payload["order"])})


DEAR: dict[str, Callable[[list[Any]], Any]] = {
    "its spec": lambda lines: lines[0]["spec"].update(schedule=dear()),
    "its plan": lambda lines: dear_plan(lines[0]),
    "a snapshot's plan": lambda lines: dear_plan(of(lines, "snapshot")),
    "an order that waits": dear_order,
    "an order that was carried out": dear_event,
}


@pytest.mark.parametrize("where", DEAR)
def test_a_record_with_a_law_beyond_the_budget_is_refused(
    http: httpx.Client, whole: bytes, unique_name: str, where: str
) -> None:
    """A law that would block all other callers is refused anywhere in a record."""
    answer = restore(http, rewritten(whole, DEAR[where]), name=unique_name)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_costly")
    assert http.get(f"/v1/sessions/{unique_name}").status_code == 404


def test_a_refused_record_leaves_nothing_behind(
    other: httpx.Client, service: RunningService, whole: bytes
) -> None:
    """A record that is found wrong only while it is written leaves no row in any table."""
    before = rows(service)
    spoilt = rewritten(whole, lambda lines: lines.append(of(lines, "readings")))
    assert restore(other, spoilt, name="new").status_code == 422
    assert rows(service) == before


def rows(service: RunningService) -> dict[str, int]:
    """Return the number of rows of each table."""
    with sqlite3.connect(f"file:{service.database}?mode=ro", uri=True) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            if name != "metrics"  # the words of all sessions
        ]
        count = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
        }
    connection.close()
    return count


def test_an_import_that_was_cut_off_is_removed(service: RunningService, unique_name: str) -> None:
    """What a crash left of an import is invisible, and removed after the next start."""
    with open_http(service.url) as http:
        eventful(http, unique_name)
    service.stop()
    with sqlite3.connect(service.database) as connection:  # as if it had just begun
        columns = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
        named = {"id": "id + 100", "name": "'*101'", "status": "'importing'"}
        values = ", ".join(named.get(column, column) for column in columns)
        connection.execute(f"INSERT INTO sessions SELECT {values} FROM sessions")
        connection.execute(
            'INSERT INTO sealed SELECT 101, attempt, start, count, "values", NULL FROM sealed'
        )
        connection.execute(
            "INSERT INTO reading_blocks"
            " SELECT 101, metric_id, attempt, until, number, start, size, data FROM reading_blocks"
        )
    connection.close()
    service.start()
    with open_http(service.url) as http:
        assert [each["name"] for each in http.get("/v1/sessions").json()["sessions"]] == [
            unique_name
        ]
    count = rows(service)
    assert count["sessions"] == 1
    service.stop()
    with sqlite3.connect(service.database) as connection:
        for table in ("sealed", "reading_blocks"):
            query = f"SELECT count(*) FROM {table} WHERE session_id = 101"
            assert connection.execute(query).fetchone() == (0,)
    connection.close()
    service.start()


def test_a_crash_in_the_middle_leaves_all_or_nothing(
    http: httpx.Client, service: RunningService, unique_name: str
) -> None:
    """After a service is killed while it writes a record, the session is complete or absent."""
    name = long(http, unique_name)
    record = export(http, name)
    importing = threading.Thread(target=try_to_restore, args=(service.url, record))
    importing.start()
    deadline = time.monotonic() + PATIENCE
    while rows(service)["reading_blocks"] == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    service.kill()
    importing.join()
    service.start()
    with open_http(service.url) as other:
        if other.get(f"/v1/sessions/{name}").status_code == 404:
            assert not any(
                rows(service)[table] for table in ("sessions", "reading_blocks", "sealed")
            )
            restore(other, record).raise_for_status()
        assert export(other, name) == record


def try_to_restore(url: str, record: bytes) -> None:
    """Import a record into a service that may be killed meanwhile."""
    with open_http(url) as http, suppress(httpx.TransportError):
        restore(http, record)


def test_an_import_must_be_lines_and_not_too_large(tmp_path: Any) -> None:
    """Another media type is a 415 that names the right one; more than the limit is a 413."""
    with (
        RunningService(tmp_path / "small.db", max_import_size=2000) as service,
        open_http(service.url) as http,
    ):
        answer = http.post("/v1/import", json={})
        assert answer.status_code == 415
        assert "application/x-ndjson" in answer.json()["detail"]
        assert restore(http, b"x" * 2001).status_code == 413
        streamed = http.post("/v1/import", content=iter([b"x" * 1500] * 2), headers=LINES)
        assert streamed.status_code == 413


def test_the_realised_curve_replays_to_the_bit(http: httpx.Client, unique_name: str) -> None:
    """A session made of another one's table seals the same values at the same steps."""
    name = eventful(http, unique_name)
    body = http.get(f"/v1/sessions/{name}/export", params={"as": "table"}).json()
    assert body["name"] == f"{name}-replay"
    assert body["groups"]["head"]["schedule"]["kind"] == "table"
    assert http.post("/v1/sessions", json=body).status_code == 201
    assert values(http, body["name"]) == values(http, name)


def values(http: httpx.Client, name: str, start: int = 0, end: int = 40) -> Any:
    """Seal values, and return them."""
    want = {"want": {"start": start, "count": end - start}}
    http.post(f"/v1/sessions/{name}/sync", json=want)
    params = {"step": start, "count": end - start}
    return http.get(f"/v1/sessions/{name}/lr", params=params).json()["series"]


def test_a_part_with_momentum_replays_too(http: httpx.Client, unique_name: str) -> None:
    """Channels are included, and a table that begins late begins at that step."""
    laws = {"lr": {"kind": "cosine", "total_steps": 60}, "momentum": {"kind": "hold", "value": 0.9}}
    schedule = {"kind": "channels", "laws": laws}
    spec = {"name": unique_name, "base_lr": 0.3, "schedule": schedule}
    http.post("/v1/sessions", json=spec).raise_for_status()
    values(http, unique_name)
    asked = {"as": "table", "start": 10, "end": 40}
    body = http.get(f"/v1/sessions/{unique_name}/export", params=asked).json()
    assert (body["start_step"], body["total_steps"]) == (10, 40)
    http.post("/v1/sessions", json=body).raise_for_status()
    assert set(values(http, unique_name)) == {"lr", "momentum"}
    assert values(http, body["name"], 10) == values(http, unique_name, 10)


def test_an_earlier_attempt_replays_as_it_was(http: httpx.Client, unique_name: str) -> None:
    """The table of an attempt that is over has what that attempt had sealed."""
    name = eventful(http, unique_name)
    params = {"as": "table", "attempt": 1, "start": 0, "end": 30}
    body = http.get(f"/v1/sessions/{name}/export", params=params).json()
    past = http.get(f"/v1/sessions/{name}/lr", params={"step": 0, "count": 30, "attempt": 1}).json()
    assert body["groups"]["body"]["schedule"]["levels"] == past["series"]["body.lr"]


def test_a_table_that_is_too_long_says_what_to_do(http: httpx.Client, unique_name: str) -> None:
    """More steps than a table holds are refused, with both remedies."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.3}).raise_for_status()
    for start in range(0, 110_000, 50_000):
        wish = quick(start, 50_000)
        http.post(f"/v1/sessions/{unique_name}/sync", json=wish).raise_for_status()
    answer = http.get(f"/v1/sessions/{unique_name}/export", params={"as": "table"})
    assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")
    assert answer.json()["detail"] == (
        "The steps from 0 to before 150000 are 150,000; a table has at most 100,000 levels. Ask for"
        " a part with `start` and `end`, or take the whole record (without `as=table`) to POST"
        " /v1/import, which knows no such limit."
    )


def long(http: httpx.Client, unique_name: str) -> str:
    """Create a session of many steps and readings."""
    spec = {
        "name": unique_name,
        "base_lr": 0.3,
        "schedule": {"kind": "exponential", "gamma": 1 - 1e-6},
    }
    http.post("/v1/sessions", json=spec).raise_for_status()
    for start in range(0, 150_000, 50_000):
        wish = quick(start, 50_000)
        http.post(f"/v1/sessions/{unique_name}/sync", json=wish).raise_for_status()
    for start in range(0, 30_000, 10_000):
        reports = [
            {"step": step, "metrics": {"loss": math.sin(step)}}
            for step in range(start, start + 10_000)
        ]
        body = {"reports": reports}
        http.post(f"/v1/sessions/{unique_name}/sync", json=body).raise_for_status()
    return unique_name


def test_a_long_session_comes_back(
    http: httpx.Client, other: httpx.Client, unique_name: str
) -> None:
    """Values that fill many lines and readings that fill many transactions all arrive."""
    record = export(http, long(http, unique_name))
    assert record.count(b'"line":"sealed"') == 3
    assert record.count(b'"line":"readings"') == 30
    restore(other, record).raise_for_status()
    assert export(other, unique_name) == record


def test_an_archived_session_stays_archived(
    http: httpx.Client, other: httpx.Client, unique_name: str
) -> None:
    """The status is part of the record."""
    http.post("/v1/sessions", json={"name": unique_name, "base_lr": 0.3}).raise_for_status()
    http.delete(f"/v1/sessions/{unique_name}").raise_for_status()
    assert restore(other, export(http, unique_name)).json()["status"] == "archived"


def test_a_record_of_no_session_is_not_found(http: httpx.Client) -> None:
    """An unknown name is a 404, for the record and for the table."""
    for what in ("record", "table"):
        answer = http.get("/v1/sessions/nobody-has-this/export", params={"as": what})
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
