"""The hot call and the reading of values, over HTTP against a real service."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from pacesetter_service.core.schedules import Schedule
from serving import open_http, quick

COSINE = {"kind": "cosine", "total_steps": 100}
WINDOW = "application/vnd.pacesetter.window"

Sync = Callable[..., dict[str, Any]]


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="create")
def _create(http: httpx.Client, unique_name: str) -> Callable[..., str]:
    """Return a function that creates the test's session and returns its path."""

    def create(**spec: Any) -> str:
        base = {} if "groups" in spec else {"base_lr": 0.1}
        answer = http.post("/v1/sessions", json={"name": unique_name, **base, **spec})
        assert answer.status_code == 201, answer.text
        return f"/v1/sessions/{unique_name}"

    return create


def expected(spec: dict[str, Any], start: int, count: int) -> list[float]:
    """Evaluate a schedule without the service."""
    return Schedule.parse(spec).values(np.arange(start, start + count, dtype=float), 0.1).tolist()


def test_one_step_is_asked_for_with_one_number(
    http: httpx.Client, create: Callable[..., str]
) -> None:
    """The short form answers the value of the step, and seals everything up to it."""
    path = create(schedule=COSINE)
    assert http.post(f"{path}/sync", json={"step": 5}).json() == {
        "epoch": http.get(path).json()["epoch"],
        "step": 5,
        "lr": expected(COSINE, 5, 1)[0],
        "attempt": 1,
        "horizon": 6,
        "revision": 0,
        "notices": [],
        "max_lookahead": None,
    }


def test_a_window_is_asked_for_with_start_and_count(
    http: httpx.Client, create: Callable[..., str]
) -> None:
    """A window is one list for each series, its values to the bit."""
    path = create(schedule={"kind": "one_cycle", "total_steps": 50, "cycle_momentum": True})
    answer = http.post(f"{path}/sync", json={"want": {"start": 5, "count": 20}}).json()
    assert (answer["start"], answer["horizon"]) == (5, 25)
    assert list(answer["series"]) == ["lr", "momentum"]
    spec = {"kind": "one_cycle", "total_steps": 50}
    assert answer["series"]["lr"] == expected(spec, 5, 20)


def test_the_binary_form_has_the_same_bits(http: httpx.Client, create: Callable[..., str]) -> None:
    """The client's form is a line of JSON and the float64 values, series after series."""
    path = create(groups={"a": {"base_lr": 0.1}, "b": {"base_lr": 0.3}}, schedule=COSINE)
    want = {"want": {"start": 0, "count": 30}}
    plain = http.post(f"{path}/sync", json=want).json()
    answer = http.post(f"{path}/sync", json=want, headers={"accept": WINDOW})
    assert answer.headers["content-type"] == WINDOW
    line, _, values = answer.content.partition(b"\n")
    head = json.loads(line)
    assert (head["series"], head["count"]) == (["a.lr", "b.lr"], 30)
    numbers = struct.unpack("<60d", values)
    assert list(numbers[:30]) == plain["series"]["a.lr"]
    assert list(numbers[30:]) == plain["series"]["b.lr"]


def test_asking_again_gives_the_same_bits(http: httpx.Client, create: Callable[..., str]) -> None:
    """Overlapping windows, in any order, agree on every step."""
    path = create(schedule={"kind": "exponential", "gamma": 0.97})
    seen: dict[int, float] = {}
    for start, count in [(0, 10), (40, 5), (5, 30), (3, 3), (30, 40), (0, 70)]:
        window = http.post(f"{path}/sync", json=quick(start, count)).json()["series"]["lr"]
        assert len(window) == count
        for step, value in enumerate(window, start):
            assert seen.setdefault(step, value) == value
    assert [seen[step] for step in range(70)] == expected(
        {"kind": "exponential", "gamma": 0.97}, 0, 70
    )


def test_metrics_may_be_no_numbers(http: httpx.Client, create: Callable[..., str]) -> None:
    """NaN and the infinities are reported as words, and counted as no improvement."""
    path = create(controllers=[{"kind": "plateau", "metric": "loss", "patience": 1}])
    for step, loss in enumerate([0.5, "nan", "inf"]):
        http.post(f"{path}/sync", json={"step": step})
        answer = http.post(
            f"{path}/sync", json={"reports": [{"step": step, "metrics": {"loss": loss}}]}
        )
        assert answer.status_code == 200, answer.text
    assert http.post(f"{path}/sync", json={"step": 3}).json()["lr"] == 0.1 * 0.1


def test_reports_and_a_wish_travel_together(http: httpx.Client, create: Callable[..., str]) -> None:
    """The controllers see a report before the window of the same call is sealed."""
    path = create(controllers=[{"kind": "plateau", "metric": "loss", "patience": 0}])
    rates = [http.post(f"{path}/sync", json={"step": 0}).json()["lr"]]
    for step in range(3):
        body = {"reports": [{"step": step, "metrics": {"loss": 1.0}}], "step": step + 1}
        rates.append(http.post(f"{path}/sync", json=body).json()["lr"])
    assert rates == [0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1 * 0.1]


def test_a_call_is_kept_whole_or_not_at_all(http: httpx.Client, create: Callable[..., str]) -> None:
    """If the window is refused, the reports of the same call are not kept either."""
    path = create(controllers=[{"kind": "plateau", "metric": "loss", "patience": 0}])
    http.post(f"{path}/sync", json={"step": 0})
    body = {
        "reports": [{"step": 0, "metrics": {"loss": 1.0}}],
        "want": {"start": 10**9, "count": 1},
    }
    assert http.post(f"{path}/sync", json=body).json()["code"] == "step_out_of_range"
    body["reports"][0]["metrics"]["loss"] = 2.0  # type: ignore[index]
    del body["want"]
    assert http.post(f"{path}/sync", json=body).status_code == 200


def test_reading_changes_nothing(http: httpx.Client, create: Callable[..., str]) -> None:
    """Values past the horizon are forecasts, marked so, and leave the session as it was."""
    path = create(schedule=COSINE, total_steps=100)
    http.post(f"{path}/sync", json={"step": 4})
    assert http.get(f"{path}/lr", params={"step": 4}).json()["sealed"] is True
    ahead = http.get(f"{path}/lr", params={"step": 50}).json()
    assert ahead == {"step": 50, "lr": expected(COSINE, 50, 1)[0], "sealed": False}
    several = http.get(f"{path}/lr", params={"step": 3, "count": 5}).json()
    assert several == {
        "start": 3,
        "series": {"lr": expected(COSINE, 3, 5)},
        "sealed_until": 5,
    }
    assert http.get(path).json()["horizon"] == 5


def test_a_forecast_knows_what_waits(http: httpx.Client, create: Callable[..., str]) -> None:
    """A forecast includes measurements that the next sealing will act on."""
    path = create(controllers=[{"kind": "plateau", "metric": "loss", "patience": 0}])
    for step in range(2):
        http.post(f"{path}/sync", json={"step": step})
        http.post(f"{path}/sync", json={"reports": [{"step": step, "metrics": {"loss": 1.0}}]})
    assert http.get(f"{path}/lr", params={"step": 2}).json()["lr"] == 0.1 * 0.1
    assert http.post(f"{path}/sync", json={"step": 2}).json()["lr"] == 0.1 * 0.1


def test_a_curve_keeps_its_extremes(http: httpx.Client, create: Callable[..., str]) -> None:
    """A long curve is thinned out, but keeps its peaks and its end."""
    wave = {"kind": "cyclic", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 1777}
    path = create(schedule=wave)
    curve = http.get(
        f"{path}/forecast", params={"start": 0, "count": 100_000, "points": 200}
    ).json()
    assert len(curve["steps"]) <= 200
    assert (curve["steps"][0], curve["steps"][-1]) == (0, 99_999)
    values = expected(wave, 0, 100_000)
    assert max(curve["series"]["lr"]) == max(values)
    assert curve["series"]["lr"] == [values[step] for step in curve["steps"]]


def test_a_schedule_is_previewed_without_a_session(http: httpx.Client) -> None:
    """The preview gives the curves of a spec, and refuses a spec whose values overflow."""
    body = {"base_lr": 0.1, "schedule": COSINE, "count": 100, "points": 100}
    curve = http.post("/v1/schedules/preview", json=body).json()
    assert curve["series"]["lr"] == expected(COSINE, 0, 100)
    body["schedule"] = {"kind": "exponential", "gamma": 1000.0}
    refused = http.post("/v1/schedules/preview", json={**body, "count": 1000}).json()
    assert refused["code"] == "schedule_not_finite"


def test_the_catalogue_lists_every_kind(http: httpx.Client) -> None:
    """Each kind of the list can be read by itself, and its example can be created."""
    entries = http.get("/v1/schedules").json()["schedules"]
    assert {"constant", "one_cycle", "warmup_cosine", "sequence"} <= {e["kind"] for e in entries}
    for entry in entries:
        assert http.get(f"/v1/schedules/{entry['kind']}").json() == entry
        body = {"base_lr": 0.1, "schedule": entry["example"]}
        assert http.post("/v1/schedules/preview", json=body).status_code == 200


def test_old_windows_come_from_the_database(http: httpx.Client, create: Callable[..., str]) -> None:
    """A session longer than memory keeps gives its first values as it sealed them."""
    path = create(schedule={"kind": "exponential", "gamma": 0.9999})
    first = http.post(f"{path}/sync", json=quick(0, 100)).json()
    for start in range(100, 60_000, 10_000):
        http.post(f"{path}/sync", json=quick(start, 10_000))
    again = http.post(f"{path}/sync", json=quick(0, 100)).json()
    assert again["series"] == first["series"]
    middle = http.post(f"{path}/sync", json=quick(95, 10_010)).json()
    assert middle["series"]["lr"] == expected({"kind": "exponential", "gamma": 0.9999}, 95, 10_010)


def test_a_preview_can_be_a_picture(http: httpx.Client) -> None:
    """A caller that accepts SVG gets the curves drawn, with a panel for each series."""
    schedule = {"kind": "one_cycle", "total_steps": 100, "cycle_momentum": True}
    body = {"base_lr": 0.1, "schedule": schedule, "count": 100}
    answer = http.post("/v1/schedules/preview", json=body, headers={"accept": "image/svg+xml"})
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.text.count("<polyline") == 2


def test_lint_and_recommend_answer(http: httpx.Client) -> None:
    """A recommendation can be linted and created as it is; a pitfall is found."""
    situation = {"architecture": "transformer", "total_steps": 1000}
    proposed = http.post("/v1/schedules/recommend", json=situation).json()
    assert proposed["reasons"]
    lint = {**proposed["spec"], "architecture": "transformer"}
    assert http.post("/v1/schedules/lint", json=lint).json() == {"findings": []}
    lint["schedule"] = {"kind": "cosine", "total_steps": 100}
    found = http.post("/v1/schedules/lint", json=lint).json()["findings"]
    assert {"warmup_missing", "ends_too_early"} <= {finding["code"] for finding in found}


def test_lengths_come_in_the_units_of_the_training(
    http: httpx.Client, create: Callable[..., str]
) -> None:
    """Epochs and fractions are converted to steps by what the session declares."""
    path = create(
        steps_per_epoch=10,
        total_steps=100,
        schedule={
            "kind": "warmup",
            "steps": {"epochs": 2},
            "schedule": {"kind": "cosine", "total_steps": {"fraction": 0.8}},
        },
    )
    rates = http.post(f"{path}/sync", json=quick(0, 120)).json()["series"]["lr"]
    assert rates[:21] == [0.1 * step / 20 for step in range(21)]
    assert rates[60] == pytest.approx(0.05)
    assert set(rates[100:]) == {0.0}


def test_a_unit_that_nobody_explained_is_refused(http: httpx.Client) -> None:
    """A length in epochs requires the length of an epoch."""
    schedule = {"kind": "cosine", "total_steps": {"epochs": 5}}
    answer = http.post("/v1/sessions", json={"name": "x", "base_lr": 0.1, "schedule": schedule})
    assert answer.status_code == 422
    assert "steps_per_epoch" in answer.json()["detail"]


def test_an_answer_kept_from_before_is_never_a_stale_one(
    http: httpx.Client, create: Callable[..., str]
) -> None:
    """The same question is answered anew once the session has changed, in each form."""
    path = create()

    def ask(accept: str, **body: Any) -> httpx.Response:
        return http.post(f"{path}/sync", json=body, headers={"accept": accept})

    question: dict[str, Any] = {"want": {"start": 0, "count": 4}}
    first = [ask("application/json", **question) for _ in range(3)]
    assert first[1].content == first[2].content
    assert first[1].json()["revision"] == 0
    binary = ask(WINDOW, **question)
    assert binary.headers["content-type"] == WINDOW
    assert struct.unpack("<4d", binary.content.partition(b"\n")[2]) == (0.1,) * 4
    assert ask("application/json", step=0).json()["lr"] == 0.1
    order = {"kind": "scale", "factor": 0.5, "reason": "a change"}
    assert http.post(f"{path}/actions", json=order).status_code == 201
    assert ask("application/json", **question).json()["revision"] == 1
