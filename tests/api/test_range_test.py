"""Range tests, over HTTP against a real service."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from serving import open_http, quick

SVG = "image/svg+xml"

TEST = {
    "base_lr": 1.0,
    "schedule": {"kind": "range_test", "steps": 60},
    "controllers": [{"kind": "range_test", "metric": "loss", "steps": 60}],
}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


Create = Callable[..., str]


@pytest.fixture(name="create")
def _create(http: httpx.Client, unique_name: str) -> Iterator[Create]:
    """Return a function that creates a session, archived after the test, and returns its path."""
    path = f"/v1/sessions/{unique_name}"

    def create(**spec: Any) -> str:
        answer = http.post("/v1/sessions", json={"name": unique_name, **spec})
        assert answer.status_code == 201, answer.text
        return path

    yield create
    http.delete(path)


def loss_at(lr: float) -> float:
    """Return a loss that falls from 2.3 around 1e-3 and blows up from 0.1 on."""
    return 2.3 - 1.8 / (1 + (1e-3 / lr) ** 1.1) + 0.4 * (lr / 0.1) ** 1.5


def train(
    http: httpx.Client, path: str, loss: Callable[[float], float | str] = loss_at, rank: int = 0
) -> httpx.Response:
    """Train until a step is refused, and return the refusal."""
    reports: list[dict[str, Any]] = []
    for step in range(1000):
        body = {"step": step, "rank": rank, "reports": reports}
        answer = http.post(f"{path}/sync", json=body)
        if answer.status_code != 200:
            return answer
        value = loss(answer.json()["lr"])
        reports = [{"step": step, "metrics": {"loss": value}}]
    raise AssertionError("it never ended")


def test_a_blown_up_loss_ends_the_session(http: httpx.Client, create: Create) -> None:
    """The next step is refused with 409 and the reason, every time; the past stays readable."""
    path = create(**TEST)
    refusal = train(http, path)
    assert (refusal.status_code, refusal.json()["code"]) == (409, "session_finished")
    assert "exceeds 4.0 x its best" in refusal.json()["detail"]
    horizon = len(http.get(f"{path}/range-test").json()["curve"]["lr"])
    assert horizon < 60
    again = http.post(f"{path}/sync", json={"step": horizon})
    assert again.json()["code"] == "session_finished"
    assert http.post(f"{path}/sync", json={"step": horizon - 1}).status_code == 200


def test_the_last_step_ends_the_session(http: httpx.Client, create: Create) -> None:
    """A loss that never blows up is swept to the end, and not one step further."""
    path = create(**TEST)
    refusal = train(http, path, lambda _lr: 1.0)
    assert refusal.json()["code"] == "session_finished"
    assert "the range test is over" in refusal.json()["detail"]
    answer = http.get(f"{path}/range-test").json()
    assert len(answer["curve"]["lr"]) == 60
    assert answer["ended"].startswith("the range test is over")


def test_a_loss_that_is_no_number_ends_the_session(http: httpx.Client, create: Create) -> None:
    """NaN ends it, appears in the curve as a word, and does not change the suggestions."""
    path = create(**TEST)
    refusal = train(http, path, lambda lr: "nan" if lr > 0.3 else loss_at(lr))
    assert "loss is nan" in refusal.json()["detail"]
    answer = http.get(f"{path}/range-test").json()
    assert answer["curve"]["loss"][-1] == answer["curve"]["smoothed"][-1] == "nan"
    assert answer["suggestions"]["valley"]["lr"] is not None


def test_the_answer_has_curve_suggestions_and_proposal(http: httpx.Client, create: Create) -> None:
    """The rates are those handed out and the losses those reported, to the bit."""
    path = create(**TEST)
    train(http, path)
    answer = http.get(f"{path}/range-test").json()
    curve = answer["curve"]
    assert curve["step"] == list(range(len(curve["lr"])))
    sealed = http.get(f"{path}/lr", params={"step": 0, "count": len(curve["lr"])}).json()
    assert curve["lr"] == sealed["series"]["lr"]
    assert curve["loss"] == [loss_at(lr) for lr in curve["lr"]]
    assert set(answer["suggestions"]) >= {"steepest", "valley", "slide", "minimum", "ignite"}
    for name, each in answer["suggestions"].items():
        if each["lr"] is not None:
            scale = 10 if name == "minimum" else 1
            assert each["lr"] * scale == pytest.approx(curve["lr"][each["step"]])
    assert 1e-4 < answer["proposal"]["lr"] < 0.1
    assert len(answer["proposal"]["agreeing"]) >= 3


def test_a_session_that_was_archived_can_still_be_read(http: httpx.Client, create: Create) -> None:
    """The outcome is the same, and says why it ended."""
    path = create(**TEST)
    train(http, path)
    before = http.get(f"{path}/range-test").json()
    http.delete(path)
    assert http.get(f"{path}/range-test").json() == before
    assert before["ended"]


def test_before_any_measurement_the_curve_is_empty(http: httpx.Client, create: Create) -> None:
    """Fields that are not known yet are null, whether steps are sealed or not."""
    path = create(**TEST)
    for _ in range(2):
        answer = http.get(f"{path}/range-test").json()
        assert answer["curve"]["lr"] == []
        assert answer["ended"] is None
        assert answer["proposal"]["lr"] is None
        assert answer["proposal"]["reason"] == "there are no measurements yet"
        http.post(f"{path}/sync", json={"step": 0})


def test_any_metric_of_any_rising_session_will_do(http: httpx.Client, create: Create) -> None:
    """Without the controller the metric is named; steps without a measurement are left out."""
    path = create(base_lr=1.0, schedule=TEST["schedule"])
    window = http.post(f"{path}/sync", json={"want": {"start": 0, "count": 60}}).json()
    reports = [
        {"step": step, "metrics": {"train": loss_at(lr)}}
        for step, lr in enumerate(window["series"]["lr"])
        if step % 3
    ]
    http.post(f"{path}/sync", json={"reports": reports}).raise_for_status()
    answer = http.get(f"{path}/range-test", params={"metric": "train"}).json()
    assert answer["curve"]["step"] == [step for step in range(60) if step % 3]
    unnamed = http.get(f"{path}/range-test")
    assert unnamed.status_code == 422
    assert "Name the metric" in unnamed.json()["detail"]


def test_ranks_are_aggregated_as_for_controllers(http: httpx.Client, create: Create) -> None:
    """The loss is the mean over the ranks, and a step that a rank has not reported is left out."""
    path = create(**{**TEST, "ranks": 2, "max_lookahead": 60})
    http.post(f"{path}/sync", json={"want": {"start": 0, "count": 3}}).raise_for_status()
    for rank, losses in enumerate([[1.0, 2.0, 3.0], [2.0, 4.0]]):
        reports = [{"step": step, "metrics": {"loss": loss}} for step, loss in enumerate(losses)]
        http.post(f"{path}/sync", json={"rank": rank, "reports": reports}).raise_for_status()
    answer = http.get(f"{path}/range-test").json()
    assert answer["curve"]["loss"] == [1.5, 3.0]


def test_groups_with_the_same_rates_are_one_curve(http: httpx.Client, create: Create) -> None:
    """The sweep does not depend on the base rate, so groups differ only where their laws do."""
    groups = {"body": {"base_lr": 1e-3}, "head": {"base_lr": 1e-2}}
    path = create(groups=groups, schedule=TEST["schedule"])
    http.post(f"{path}/sync", json={"step": 5}).raise_for_status()
    answer = http.get(f"{path}/range-test", params={"metric": "loss"})
    assert answer.json()["series"] == "body.lr"


def test_groups_with_different_rates_must_be_named(http: httpx.Client, create: Create) -> None:
    """A group is asked for, and an unknown one is refused."""
    other = {"kind": "range_test", "steps": 60, "end_lr": 1.0}
    groups = {"body": {"base_lr": 1e-3}, "head": {"base_lr": 1e-2, "schedule": other}}
    path = create(groups=groups, schedule=TEST["schedule"])
    http.post(f"{path}/sync", json={"step": 5}).raise_for_status()
    unnamed = http.get(f"{path}/range-test", params={"metric": "loss"})
    assert (unnamed.status_code, "body, head" in unnamed.json()["detail"]) == (422, True)
    named = http.get(f"{path}/range-test", params={"metric": "loss", "group": "head"})
    assert named.json()["series"] == "head.lr"
    wrong = http.get(f"{path}/range-test", params={"metric": "loss", "group": "tail"})
    assert wrong.status_code == 422


def test_a_long_training_is_no_range_test(http: httpx.Client, create: Create) -> None:
    """A session of very many steps is refused before anything is read."""
    path = create(base_lr=0.1)
    for start in range(0, 120_000, 60_000):
        http.post(f"{path}/sync", json=quick(start, 60_000))
    answer = http.get(f"{path}/range-test", params={"metric": "loss"})
    assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")


def test_a_session_that_is_not_there(http: httpx.Client) -> None:
    """It is a 404 like any other."""
    answer = http.get("/v1/sessions/nobody/range-test", params={"metric": "loss"})
    assert answer.json()["code"] == "session_not_found"


def test_the_picture_is_asked_for_by_its_type(http: httpx.Client, create: Create) -> None:
    """It shows both curves, a dot for each rule that gives a suggestion, and the proposal."""
    path = create(**TEST)
    train(http, path)
    told = [
        each["lr"]
        for each in http.get(f"{path}/range-test").json()["suggestions"].values()
        if each["lr"] is not None
    ]
    answer = http.get(f"{path}/range-test", headers={"accept": SVG})
    assert answer.headers["content-type"].startswith(SVG)
    root = ET.fromstring(answer.text)
    space = "{http://www.w3.org/2000/svg}"
    assert len(list(root.iter(f"{space}polyline"))) == 2
    in_legend_and_curve = 2 * len(told)
    assert len(list(root.iter(f"{space}circle"))) == in_legend_and_curve
    assert sum("proposal" in (text.text or "") for text in root.iter(f"{space}text")) == 1


def test_an_empty_picture_is_a_picture(http: httpx.Client, create: Create) -> None:
    """Without measurements a picture is drawn as well."""
    path = create(**TEST)
    answer = http.get(f"{path}/range-test", headers={"accept": SVG})
    assert answer.status_code == 200
    assert "nothing to propose" in ET.tostring(ET.fromstring(answer.text), encoding="unicode")


def test_recommend_takes_what_steepest_suggests(http: httpx.Client, create: Create) -> None:
    """A tenth of it becomes the base rate of the recommended session."""
    path = create(**TEST)
    train(http, path)
    steepest = http.get(f"{path}/range-test").json()["suggestions"]["steepest"]["lr"]
    situation = {"architecture": "cnn", "total_steps": 1000, "range_test_max_lr": steepest}
    spec = http.post("/v1/schedules/recommend", json=situation).json()["spec"]
    assert math.isclose(spec["base_lr"], steepest / 10, rel_tol=5e-3)  # three digits
