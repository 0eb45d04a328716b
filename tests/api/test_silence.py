"""Over HTTP: silent metrics and ranks, the end of the plan, refused texts, creation."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http

PLATEAU = {"kind": "plateau", "metric": "val_loss"}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def create(http: httpx.Client, name: str, **spec: Any) -> dict[str, Any]:
    """Create a session, and return the answer."""
    body = {"name": name, "base_lr": 0.1, **spec}
    answer: dict[str, Any] = http.post("/v1/sessions", json=body).raise_for_status().json()
    return answer


def sync(http: httpx.Client, name: str, **body: Any) -> dict[str, Any]:
    """Sync once, and return the answer."""
    answer = http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status().json()
    return dict(answer)


def test_a_misspelt_metric_is_in_the_window_and_in_the_log(
    http: httpx.Client, unique_name: str
) -> None:
    """The notice comes in the step after the silence, and the event is in the record."""
    create(http, unique_name, controllers=[PLATEAU], silent_after=5)
    told = []
    for step in range(10):
        told += sync(http, unique_name, step=step)["notices"]
        sync(http, unique_name, reports=[{"step": step, "metrics": {"val_los": 1.0}}])
    assert [(each["step"], each["code"]) for each in told] == [(5, "metric_never_seen")]
    assert "Did you mean 'val_los'?" in told[0]["message"]
    events = http.get(f"/v1/sessions/{unique_name}/events").json()["events"]
    [event] = [each for each in events if each["kind"] == "noticed"]
    assert (event["code"], event["about"], event["at"]) == ("metric_never_seen", "val_loss", 5)
    assert event["message"] == told[0]["message"]


def test_a_restart_is_told_of_silence_again(http: httpx.Client, unique_name: str) -> None:
    """A new attempt is another process: it is told at one of its own steps."""
    create(http, unique_name, controllers=[PLATEAU], silent_after=5)
    for step in range(8):
        sync(http, unique_name, rank=0, step=step)
    http.post(f"/v1/sessions/{unique_name}/attempts", json={"step": 2, "key": "again"})
    told = [
        each
        for step in range(2, 12)
        for each in sync(http, unique_name, rank=0, step=step)["notices"]
    ]
    assert [(each["step"], each["code"]) for each in told] == [(7, "metric_never_seen")]


def test_a_large_change_is_told_again_after_a_restart(http: httpx.Client, unique_name: str) -> None:
    """The order is pending again, and the process that was told of it is gone."""
    create(http, unique_name)
    sync(http, unique_name, want={"start": 0, "count": 10})
    http.post(f"/v1/sessions/{unique_name}/actions", json={"kind": "scale", "factor": 4, "at": 20})
    first = sync(http, unique_name, want={"start": 10, "count": 5})["notices"]
    assert [(each["step"], each["code"]) for each in first] == [(10, "large_change")]
    http.post(f"/v1/sessions/{unique_name}/attempts", json={"step": 5, "key": "again"})
    again = sync(http, unique_name, want={"start": 5, "count": 5})["notices"]
    assert [(each["step"], each["code"]) for each in again] == [(5, "large_change")]


def test_the_summary_names_ranks_that_never_reported(http: httpx.Client, unique_name: str) -> None:
    """It lists ranks that never called, and ranks that only ask for values."""
    create(http, unique_name, ranks=4)
    for rank in (0, 1):
        sync(http, unique_name, rank=rank, step=0)
    sync(http, unique_name, rank=0, reports=[{"step": 0, "metrics": {"loss": 1.0}}])
    summary = http.get(f"/v1/sessions/{unique_name}/ranks").json()["summary"]
    assert summary["missing"] == {"count": 2, "ranks": [2, 3]}
    assert summary["never_reported"] == {"count": 3, "ranks": [1, 2, 3]}


def test_values_past_the_plan_agree_wherever_they_are_read(
    http: httpx.Client, unique_name: str
) -> None:
    """Sealed, forecast, explained, restarted and forked values agree."""
    schedule = {"kind": "hf.cosine_with_min_lr", "num_warmup_steps": 0, "num_training_steps": 20}
    create(http, unique_name, schedule={**schedule, "min_lr": 0.01})
    path = f"/v1/sessions/{unique_name}"
    forecast = http.get(f"{path}/lr", params={"step": 0, "count": 60}).json()["series"]["lr"]
    planned = sync(http, unique_name, want={"start": 0, "count": 60})
    beyond = sync(http, unique_name, attempt=1, want={"start": 21, "count": 39})
    assert planned["series"]["lr"] + beyond["series"]["lr"] == forecast
    assert forecast[20:] == [0.01] * 40
    assert planned["notices"] == []
    assert [(each["step"], each["code"]) for each in beyond["notices"]] == [(21, "plan_over")]
    why = http.get(f"{path}/explain", params={"step": 70}).json()
    assert "The plan is over since step 20" in str(why)
    http.post(f"{path}/attempts", json={"step": 40, "key": "again"}).raise_for_status()
    again = sync(http, unique_name, want={"start": 40, "count": 20})
    assert again["series"]["lr"] == forecast[40:]
    assert [(each["step"], each["code"]) for each in again["notices"]] == [(40, "plan_over")]
    fork = {"name": f"{unique_name}-fork", "step": 10}
    http.post(f"{path}/fork", json=fork).raise_for_status()
    forked = sync(http, f"{unique_name}-fork", want={"start": 10, "count": 50})["series"]["lr"]
    assert forked == forecast[10:21]


def test_a_roll_back_names_the_good_step(http: httpx.Client, unique_name: str) -> None:
    """It is the last measured step before the fault, as a number."""
    create(http, unique_name, controllers=[{"kind": "bold_driver", "metric": "loss"}])
    told = []
    for step, loss in enumerate([1.0, 0.9, 2.0, 0.8]):
        told += sync(http, unique_name, step=step)["notices"]
        sync(http, unique_name, reports=[{"step": step, "metrics": {"loss": loss}}])
    assert [(each["code"], each["step"], each["good_step"]) for each in told] == [
        ("roll_back", 3, 1)
    ]


def test_creation_names_bounds_that_do_not_hold_the_base(
    http: httpx.Client, unique_name: str
) -> None:
    """The answer has the place, and says what to do."""
    kl = {"kind": "kl_adaptive", "metric": "kl"}
    warnings = create(http, unique_name, controllers=[kl])["warnings"]
    assert [(each["code"], each["pointer"]) for each in warnings] == [
        ("ceiling_below_base", "/controllers/0/max_lr")
    ]


@pytest.mark.parametrize(
    "character", ["\n", "\x1b", "\x85", "\u202e", "\u2066", "\u200f", "\u2028"]
)
def test_what_controls_how_text_is_shown_is_refused(
    http: httpx.Client, unique_name: str, character: str
) -> None:
    """They are refused in reasons and in labels, with the place and the code point."""
    text = f"ok{character}not"
    body = {"name": unique_name, "base_lr": 0.1, "labels": {"team": text}}
    labels = http.post("/v1/sessions", json=body)
    create(http, unique_name)
    action = {"kind": "scale", "factor": 0.5, "reason": text}
    reason = http.post(f"/v1/sessions/{unique_name}/actions", json=action)
    for answer, pointer in ((labels, "/labels/team"), (reason, "/reason")):
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["pointer"] == pointer
        assert f"U+{ord(character):04X} at place 2" in error["detail"]


def test_text_of_any_language_is_taken(http: httpx.Client, unique_name: str) -> None:
    """Joined emoji and right-to-left scripts are plain text."""
    text = "négatif 负 שלום \U0001f469\u200d\U0001f52c"
    answer = create(http, unique_name, labels={"team": text})
    assert answer["spec"]["labels"] == {"team": text}


@pytest.mark.parametrize("sign", ["+", "-", "@"])
def test_no_spreadsheet_takes_a_name_for_a_formula(
    http: httpx.Client, unique_name: str, sign: str
) -> None:
    """In the table such a metric's name is prefixed by an apostrophe; numbers stay numbers."""
    create(http, unique_name)
    sync(http, unique_name, step=0)
    metrics = {f"{sign}SUM": -1.5}
    sync(http, unique_name, reports=[{"step": 0, "metrics": metrics}])
    path = f"/v1/sessions/{unique_name}/history"
    table = http.get(path, headers={"accept": "text/csv"}).text.splitlines()
    assert table == [f"step,trained,lr,'{sign}SUM", "0,1,0.1,-1.5"]
    assert f"{sign}SUM" in http.get(path).json()["metrics"]
