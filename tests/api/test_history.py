"""The realised curve beside the metrics, over HTTP against a real service, and its thinning."""

import csv
import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service.core.commands import Reading
from pacesetter_service.core.spec import SessionSpec
from pacesetter_service.insight.history import (
    PIECE,
    at_steps,
    measured,
    merged,
    pieces,
    shown,
    track,
)
from serving import open_http, quick

SVG = "{http://www.w3.org/2000/svg}"

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def create(http: httpx.Client, name: str, **spec: Any) -> str:
    """Create a session, and return the address of its history."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()
    return f"/v1/sessions/{name}/history"


def seal(http: httpx.Client, name: str, start: int, count: int) -> list[float]:
    """Seal steps, and return their values."""
    answer = (
        http.post(f"/v1/sessions/{name}/sync", json=quick(start, count)).raise_for_status().json()
    )
    values: list[float] = answer["series"]["lr"]
    return values


def report(
    http: httpx.Client, name: str, losses: dict[int, Any], rank: int = 0, metric: str = "loss"
) -> None:
    """Report a metric at some steps."""
    reports = [{"step": step, "metrics": {metric: value}} for step, value in losses.items()]
    body = {"rank": rank, "reports": reports}
    http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status()


def test_values_stand_beside_metrics(http: httpx.Client, unique_name: str) -> None:
    """Each step has its sealed value and the metric that was measured there, or null."""
    path = create(http, unique_name, schedule={"kind": "exponential", "gamma": 0.9})
    values = seal(http, unique_name, 0, 5)
    report(http, unique_name, {0: 1.0, 2: "nan", 4: "-inf"})
    report(http, unique_name, {3: 0.5}, metric="acc")
    assert http.get(path).json() == {
        "attempt": 1,
        "start": 0,
        "end": 5,
        "trained_until": 5,
        "steps": [0, 1, 2, 3, 4],
        "series": {"lr": values},
        "metrics": {
            "acc": [None, None, None, 0.5, None],
            "loss": [1.0, None, "nan", None, "-inf"],
        },
        "readings": None,
    }


def test_the_table_is_the_same_as_csv(http: httpx.Client, unique_name: str) -> None:
    """CSV has a column for each series, metric and rank; floats come back to the bit."""
    path = create(http, unique_name, schedule={"kind": "exponential", "gamma": 0.9}, ranks=2)
    values = seal(http, unique_name, 0, 3)
    report(http, unique_name, {0: 1 / 3, 1: "inf"}, rank=1)
    answer = http.get(path, params={"readings": True}, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [float(row["lr"]) for row in rows] == values
    assert [row["loss"] for row in rows] == [repr(1 / 3), "inf", ""]
    assert [row["loss[1]"] for row in rows] == [repr(1 / 3), "inf", ""]
    assert list(rows[0]) == ["step", "trained", "lr", "loss", "loss[1]"]
    assert [row["trained"] for row in rows] == ["1", "1", "0"]
    assert answer.headers["content-disposition"] == f'attachment; filename="{unique_name}.csv"'
    assert http.get(path, params={"readings": True, "format": "csv"}).text == answer.text


def test_no_spreadsheet_takes_a_metric_for_a_formula(http: httpx.Client, unique_name: str) -> None:
    """A metric named like the start of a formula gets an apostrophe before its column's name."""
    path = create(http, unique_name)
    seal(http, unique_name, 0, 1)
    for metric in ("@loss", "+1", "-1"):
        report(http, unique_name, {0: 0.5}, metric=metric)
    header = http.get(path, params={"format": "csv"}).text.splitlines()[0]
    assert header.split(",")[3:] == ["'+1", "'-1", "'@loss"]


def test_a_table_has_every_step_of_a_long_record(http: httpx.Client, unique_name: str) -> None:
    """No step is thinned out without `points`; the answer says how far the training has come."""
    path = create(http, unique_name, schedule={"kind": "exponential", "gamma": 0.9999})
    values = seal(http, unique_name, 0, 3000)
    report(http, unique_name, {2000: 0.5})
    rows = list(csv.DictReader(io.StringIO(http.get(path, params={"format": "csv"}).text)))
    assert [float(row["lr"]) for row in rows] == values
    assert sum(row["trained"] == "1" for row in rows) == 2001
    assert [row["loss"] for row in rows if row["loss"]] == ["0.5"]
    few = http.get(path, params={"format": "csv", "points": 100}).text
    assert len(few.splitlines()) < 200
    assert http.get(path).json()["trained_until"] == 2001


def test_a_picture_has_rates_metrics_and_marks(http: httpx.Client, unique_name: str) -> None:
    """Each has its panel; an order is marked at its step, and its reason is escaped."""
    path = create(http, unique_name, schedule={"kind": "cosine", "total_steps": 500})
    seal(http, unique_name, 0, 200)
    report(http, unique_name, {3: 1.0, 50: "nan", 60: 0.5})
    order = {"kind": "scale", "factor": 0.5, "reason": "a <b> & c"}
    session = path.removesuffix("/history")
    http.post(f"{session}/actions", json=order).raise_for_status()
    seal(http, unique_name, 200, 64)
    answer = http.get(path, headers={"accept": "image/svg+xml"})
    assert answer.headers["content-type"].startswith("image/svg+xml")
    root = ET.fromstring(answer.text)
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert {"lr", "loss"} <= set(texts)
    assert any("a <b> & c" in each for each in texts)
    looks = [each.attrib["class"] for each in root.iter(f"{SVG}polyline")]
    assert looks == ["curve", "curve sealed"]
    assert len(list(root.iter(f"{SVG}circle"))) == 2  # between them the loss was NaN
    assert [each.attrib["class"] for each in root.iter(f"{SVG}path")] == ["bad"]
    assert http.get(path, params={"format": "svg"}).text == answer.text
    ahead = http.get(f"{session}/forecast", params={"format": "svg", "start": 100, "count": 300})
    looks = [each.attrib["class"] for each in ET.fromstring(ahead.text).iter(f"{SVG}polyline")]
    assert looks[-1] == "curve forecast"


def test_ranks_are_aggregated_as_the_session_says(http: httpx.Client, unique_name: str) -> None:
    """A metric that no controller watches is aggregated as declared; ranks can be read alone."""
    path = create(http, unique_name, ranks=2, metrics={"peak": {"aggregate": "max"}})
    seal(http, unique_name, 0, 2)
    for rank in (0, 1):
        report(http, unique_name, {0: 1.0 + rank}, rank, metric="peak")
        report(http, unique_name, {0: 1.0 + rank, 1: 5.0} if rank else {0: 1.0}, rank)
    answer = http.get(path, params={"readings": True}).json()
    assert answer["metrics"] == {"loss": [1.5, 5.0], "peak": [2.0, None]}
    assert answer["readings"]["loss"] == {"0": [1.0, None], "1": [2.0, 5.0]}


def test_what_controllers_saw_is_what_counts(http: httpx.Client, unique_name: str) -> None:
    """A rank that reports after the measurement closed does not change it in the record."""
    loss = {"loss": {"ranks": 2, "quorum": 1, "deadline": 1}}
    path = create(http, unique_name, ranks=2, controllers=[PLATEAU], metrics=loss, max_lookahead=9)
    seal(http, unique_name, 0, 3)
    report(http, unique_name, {0: 1.0, 1: 1.0}, rank=0)
    seal(http, unique_name, 3, 1)
    report(http, unique_name, {0: 9.0}, rank=1)
    answer = http.get(path, params={"readings": True, "end": 1}).json()
    assert answer["metrics"]["loss"] == [1.0]
    assert answer["readings"]["loss"] == {"0": [1.0], "1": [9.0]}


def test_an_earlier_attempt_is_read_as_it_was(http: httpx.Client, unique_name: str) -> None:
    """Values and metrics of an earlier attempt stay readable beside those of the current one."""
    path = create(http, unique_name, controllers=[PLATEAU])
    for step, loss in enumerate([1.0, 1.0, 1.0, 1.0]):
        seal(http, unique_name, step, 1)
        report(http, unique_name, {step: loss})
    first = http.get(path).json()
    body = {"step": 2, "key": "again"}
    http.post(f"/v1/sessions/{unique_name}/attempts", json=body).raise_for_status()
    for step, loss in enumerate([0.5, 0.4], start=2):
        seal(http, unique_name, step, 1)
        report(http, unique_name, {step: loss})
    assert http.get(path, params={"attempt": 1}).json() == first
    second = http.get(path).json()
    assert second == http.get(path, params={"attempt": 2}).json()
    assert (second["attempt"], second["metrics"]["loss"]) == (2, [1.0, 1.0, 0.5, 0.4])
    assert second["series"]["lr"][:2] == first["series"]["lr"][:2]
    assert second["series"]["lr"][3] > first["series"]["lr"][3]
    lr = f"/v1/sessions/{unique_name}/lr"
    past = http.get(lr, params={"step": 0, "count": 9, "attempt": 1}).json()
    assert past == {"start": 0, "series": first["series"], "sealed_until": 4}
    one = http.get(lr, params={"step": 3, "attempt": 1}).json()
    assert one == {"step": 3, "lr": first["series"]["lr"][3], "sealed": True}
    beyond = http.get(lr, params={"step": 4, "attempt": 1})
    assert (beyond.status_code, beyond.json()["code"]) == (422, "step_out_of_range")
    assert "0 to 3" in beyond.json()["detail"]


def test_a_long_record_keeps_its_extremes(http: httpx.Client, unique_name: str) -> None:
    """Of 20,000 steps some hundred are shown, among them the one spike and the one NaN."""
    cut = {"boundaries": [7777, 7778], "levels": [0.1, 0.9, 0.1]}
    schedule = {"kind": "piecewise_constant", **cut}
    path = create(http, unique_name, schedule=schedule)
    seal(http, unique_name, 0, 20_000)
    losses = {step: math.sin(step / 1000) for step in range(0, 20_000, 3)}
    spoilt: dict[int, Any] = {**losses, 1002: 77.0, 15_003: "nan", 15_006: -77.0}
    for start in range(0, 20_000, 5_000):
        part = {step: spoilt[step] for step in spoilt if start <= step < start + 5_000}
        report(http, unique_name, part)
    answer = http.get(path, params={"points": 300}).json()
    assert len(answer["steps"]) <= 300
    assert {7777, 1002, 15_003, 15_006, 19_999} <= set(answer["steps"])
    assert answer["steps"] == sorted(set(answer["steps"]))
    assert max(answer["series"]["lr"]) == 0.9
    shown_losses = dict(zip(answer["steps"], answer["metrics"]["loss"], strict=True))
    assert (shown_losses[1002], shown_losses[15_003], shown_losses[15_006]) == (77.0, "nan", -77.0)
    part = http.get(path, params={"start": 7770, "end": 7780}).json()
    assert part["steps"] == list(range(7770, 7780))
    assert part["series"]["lr"][7] == 0.9


def test_a_record_can_be_empty(http: httpx.Client, unique_name: str) -> None:
    """Before the first step there is nothing, which is no error."""
    path = create(http, unique_name, start_step=7)
    answer = http.get(path).json()
    assert (answer["start"], answer["end"], answer["steps"]) == (7, 7, [])
    assert http.get(path, headers={"accept": "text/csv"}).text == "step,trained,lr\n"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"start": 6}, "step_out_of_range"),
        ({"start": 30}, "step_out_of_range"),
        ({"start": 12, "end": 11}, "step_out_of_range"),
        ({"points": 9}, "validation_failed"),
        ({"metrics": "los"}, "validation_failed"),
        ({"attempt": 2}, "validation_failed"),
    ],
)
def test_what_is_not_there_is_refused(
    http: httpx.Client, unique_name: str, params: dict[str, Any], code: str
) -> None:
    """Steps, metrics and attempts that do not exist are named."""
    path = create(http, unique_name, start_step=7)
    seal(http, unique_name, 7, 10)
    report(http, unique_name, {8: 1.0})
    answer = http.get(path, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_chosen_metrics_come_in_their_order(http: httpx.Client, unique_name: str) -> None:
    """`metrics` selects what is shown; a metric that controllers watch may have no value yet."""
    path = create(http, unique_name, controllers=[PLATEAU], max_lookahead=5)
    seal(http, unique_name, 0, 2)
    report(http, unique_name, {0: 1.0}, metric="b")
    report(http, unique_name, {0: 2.0}, metric="a")
    metrics = http.get(path, params={"metrics": "b,loss"}).json()["metrics"]
    assert list(metrics.items()) == [("b", [1.0, None]), ("loss", [None, None])]
    assert http.get(path, params={"metrics": ""}).json()["metrics"] == {}


def test_a_forks_record_goes_back_to_the_beginning(http: httpx.Client, unique_name: str) -> None:
    """Steps that the parent trained before the fork are part of the record."""
    path = create(http, unique_name)
    seal(http, unique_name, 0, 4)
    report(http, unique_name, {0: 1.0, 3: 4.0})
    body = {"name": f"{unique_name}-b", "step": 2}
    http.post(f"/v1/sessions/{unique_name}/fork", json=body).raise_for_status()
    seal(http, f"{unique_name}-b", 2, 1)
    answer = http.get(path.replace(unique_name, f"{unique_name}-b")).json()
    assert (answer["steps"], answer["metrics"]["loss"]) == ([0, 1, 2], [1.0, None, None])


@given(st.integers(0, 2**40), st.integers(0, 2**24), st.integers(1, 1088), st.integers(10, 100_000))
def test_pieces_make_up_the_whole(start: int, count: int, columns: int, points: int) -> None:
    """They run from the first step to the end, each small enough for memory."""
    found = list(pieces(start, start + count, columns, points))
    steps = [start, *(piece.end for piece in found)]
    assert [piece.start for piece in found] == steps[:-1]
    assert steps[-1] == start + count
    assert sum(piece.points for piece in found) <= max(points, len(found))
    assert all(0 < (piece.end - piece.start) * columns <= PIECE for piece in found)


VALUES = st.one_of(st.floats(-9, 9), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=400),
    st.dictionaries(st.integers(0, 399), VALUES, max_size=200),
    st.integers(10, 100),
)
def test_what_is_shown_has_every_extreme(
    rates: list[float], metric: dict[int, float], points: int
) -> None:
    """The highest, lowest, first and last value, and a NaN if there is one, are among them."""
    values = {1000 + step: value for step, value in metric.items() if step < len(rates)}
    row = np.array(rates)
    metric_track = track(sorted(values), [values[step] for step in sorted(values)])
    steps = set(shown(1000, [row], [metric_track], points).tolist())
    assert {1000, 999 + len(rates)} <= steps <= set(range(1000, 1000 + len(rates)))
    assert row.max() in {rates[step - 1000] for step in steps}
    assert row.min() in {rates[step - 1000] for step in steps}
    real = [value for value in values.values() if not math.isnan(value)]
    seen = [values[step] for step in steps if step in values]
    if real and all(map(math.isfinite, real)):
        assert {max(real), min(real)} <= set(seen)
    assert any(map(math.isnan, seen)) == any(map(math.isnan, values.values()))


def test_a_metric_without_its_rank_has_no_value() -> None:
    """With the aggregate `rank0`, readings of other ranks are ignored."""
    spec = SessionSpec.model_validate(
        {"name": "x", "base_lr": 1.0, "ranks": 4, "metrics": {"loss": {"aggregate": "rank0"}}}
    )
    readings = [Reading(1, 0, "loss", 5.0), Reading(0, 1, "loss", 2.0), Reading(2, 1, "loss", 9.0)]
    found = measured(spec, "loss", readings)
    assert (found.steps.tolist(), found.values.tolist()) == ([1], [2.0])


def test_the_first_of_two_values_counts() -> None:
    """Tracks are merged by step; a step that no track has is None."""
    both = merged([track([2, 5], [1.0, None]), track([], []), track([1, 2], [7.0, 8.0])])
    assert both.steps.tolist() == [1, 2, 5]
    assert at_steps(both, np.array([0, 1, 2, 3, 6])) == [None, 7.0, 1.0, None, None]
    assert at_steps(track([], []), np.array([3])) == [None]
