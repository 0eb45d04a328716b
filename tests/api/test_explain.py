"""Why a value is what it is, over HTTP against a real service."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from api.test_events import command, session, train
from serving import RunningService, open_http

TEXT = {"accept": "text/plain"}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Give a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def test_a_sealed_value_is_explained(http: httpx.Client, unique_name: str) -> None:
    """The answer has the value that was sealed, its law and level, and the event behind it."""
    session(http, unique_name)
    train(http, unique_name, [1.0, 1.0, 0.5, 1.0, 0.4])
    explained = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": 3}).json()
    sealed = http.get(f"/v1/sessions/{unique_name}/lr", params={"step": 3}).json()
    lr = explained["series"]["lr"]
    assert (explained["step"], explained["sealed"], explained["horizon"]) == (3, True, 5)
    assert lr["value"] == sealed["lr"] == lr["level"] == 0.05
    assert (lr["law"], lr["since"], lr["cause"]["kind"]) == ("constant", 2, "decided")
    assert lr["cause"] == http.get(f"/v1/sessions/{unique_name}/events").json()["events"][1]
    assert lr["text"] in explained["text"]


def test_the_text_alone_is_given_on_request(http: httpx.Client, unique_name: str) -> None:
    """`Accept: text/plain` gives what stands under `text` otherwise."""
    address, params = f"/v1/sessions/{unique_name}/explain", {"step": 2}
    session(http, unique_name)
    train(http, unique_name, [1.0] * 3)
    answer = http.get(address, params=params, headers=TEXT)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == http.get(address, params=params).json()["text"]
    assert answer.text.startswith(
        "lr was 0.05 at step 2 (sealed). constant, cut to 0.5 of its level (0.1 -> 0.05) since"
        " step 2: plateau #0 saw loss 1 at step 1; it has not improved on 1.0"
    )


def test_a_forecast_is_explained_as_one(http: httpx.Client, unique_name: str) -> None:
    """A step that is not sealed has its forecast, and the decision that is on its way."""
    session(http, unique_name)
    train(http, unique_name, [1.0, 1.0])
    explained = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": 9}).json()
    assert (explained["sealed"], explained["series"]["lr"]["value"]) == (False, 0.05)
    assert explained["series"]["lr"]["cause"]["seq"] is None
    assert http.get(f"/v1/sessions/{unique_name}").json()["horizon"] == 2


def test_a_cause_is_found_behind_many_decisions_about_others(
    http: httpx.Client, unique_name: str
) -> None:
    """A group that was changed once, long ago, is told so whatever has happened since."""
    groups = {"body": {"base_lr": 1e-300}, "head": {"base_lr": 1.0}}
    rule = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.99, "eps": 0.0}
    rules = [{**rule, "min_lr": {"body": 0.5e-300, "head": 1e-300}, "factor": 0.5, "until_step": 3}]
    rules += [{**rule, "min_lr": {"body": 1.0}}]
    session(http, unique_name, base_lr=None, groups=groups, controllers=rules)
    train(http, unique_name, [1.0] * 180)
    explained = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": 179}).json()
    body, head = explained["series"]["body.lr"], explained["series"]["head.lr"]
    assert (body["since"], body["value"]) == (2, 0.5e-300)
    assert head["since"] == 179
    assert "plateau #1" in head["text"]


def test_a_restart_forgets_no_reason(tmp_path: Path, unique_name: str) -> None:
    """After the service was killed the same steps have the same explanations."""
    with RunningService(tmp_path / "why.db") as service, open_http(service.url) as http:
        address = f"/v1/sessions/{unique_name}/explain"
        session(http, unique_name)
        train(http, unique_name, ["nan", 1.0, 1.0, "inf", 0.5, 0.6])
        before = [http.get(address, params={"step": step}).json() for step in range(8)]
        service.kill()
        service.start()
        after = [http.get(address, params={"step": step}).json() for step in range(8)]
        assert before == after


@pytest.mark.parametrize("step", [-1, 2**53, "x"])
def test_a_step_that_is_none_is_refused(
    http: httpx.Client, unique_name: str, step: int | str
) -> None:
    """What is no step of any session is a problem that names the parameter."""
    session(http, unique_name)
    answer = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": step})
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "step")


def test_a_step_before_the_first_is_refused(http: httpx.Client, unique_name: str) -> None:
    """A session that starts later has nothing to say about earlier steps."""
    session(http, unique_name, start_step=5)
    answer = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": 4})
    assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")


def test_the_command_prints_the_explanation(
    http: httpx.Client, server_url: str, unique_name: str
) -> None:
    """`pacesetter explain` prints what the service says."""
    session(http, unique_name)
    train(http, unique_name, [1.0] * 3)
    address = f"/v1/sessions/{unique_name}/explain"
    done = command(server_url, "explain", unique_name, "--step", "2")
    said = http.get(address, params={"step": 2}, headers=TEXT).text
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
