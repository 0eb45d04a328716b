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
    """Return a plain HTTP client of the shared service."""
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
    """`Accept: text/plain` gives what is otherwise the field `text`."""
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
    """A change of one group, long ago, is found whatever has happened since."""
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


def test_a_restart_at_the_same_step_twice_keeps_the_reasons(
    http: httpx.Client, unique_name: str
) -> None:
    """What was decided at an attempt's first step is known in the attempt that replaces it.

    So it is where steps are taken back from its first on, and in a fork from there.
    """
    session(http, unique_name, max_lookahead=4)
    address = f"/v1/sessions/{unique_name}"
    for step in range(0, 8, 4):
        wish = {"want": {"start": step, "count": 4}, "progress": {"step": step}, "attempt": 1}
        http.post(f"{address}/sync", json=wish).raise_for_status()
    losses = [{"step": step, "metrics": {"loss": 1.0}} for step in range(6)]
    http.post(f"{address}/sync", json={"reports": losses}).raise_for_status()

    def reasons(name: str) -> list[tuple[int, int]]:
        here = f"/v1/sessions/{name}"
        lr = http.get(f"{here}/explain", params={"step": 7}).raise_for_status().json()
        events = http.get(f"{here}/events", params={"kind": "decided"}).json()["events"]
        mine = [(each["at"], each["step"]) for each in events if each["attempt"] == lr["attempt"]]
        assert (lr["series"]["lr"]["since"], lr["series"]["lr"]["value"]) == (6, 0.1 * 0.5**5)
        assert lr["series"]["lr"]["cause"]["step"] == mine[-1][1]
        return mine

    found = []
    for key in ("first", "second", "third"):
        http.post(f"{address}/attempts", json={"step": 6, "key": key}).raise_for_status()
        look = {"want": {"start": 6, "count": 4}}
        http.post(f"{address}/sync", json=look).raise_for_status()
        found.append(reasons(unique_name))
    http.post(f"{address}/take-back", json={}).raise_for_status()
    http.post(f"{address}/sync", json=look).raise_for_status()
    found.append(reasons(unique_name))
    fork = f"{unique_name}-fork"
    http.post(f"{address}/fork", json={"name": fork, "step": 6}).raise_for_status()
    http.post(f"/v1/sessions/{fork}/sync", json=look).raise_for_status()
    found.append(reasons(fork))
    assert found == [found[0]] * 5
    assert len(found[0]) == 5


def test_a_restart_forgets_no_reason(tmp_path: Path, unique_name: str) -> None:
    """After the service was killed, the same steps have the same explanations."""
    with RunningService(tmp_path / "why.db") as service, open_http(service.url) as http:
        address = f"/v1/sessions/{unique_name}/explain"
        session(http, unique_name)
        train(http, unique_name, ["nan", 1.0, 1.0, "inf", 0.5, 0.6])
        before = [http.get(address, params={"step": step}).json() for step in range(8)]
        service.kill()
        service.start()
        after = [http.get(address, params={"step": step}).json() for step in range(8)]
        assert before == after


def test_a_step_of_an_earlier_attempt_is_explained_by_what_held_then(
    http: httpx.Client, unique_name: str
) -> None:
    """Going back to step 4 keeps the reasons of the steps before it, and only those."""
    address = f"/v1/sessions/{unique_name}/explain"

    def said(step: int) -> dict[str, Any]:
        explained: dict[str, Any] = http.get(address, params={"step": step}).json()
        return explained

    session(http, unique_name)
    train(http, unique_name, [1.0, 1.0, 0.5, 0.5, 0.5, 0.5])
    before = said(3)
    assert said(5)["series"]["lr"]["since"] == 5
    restart = {"step": 4, "key": "job-2"}
    assert http.post(f"/v1/sessions/{unique_name}/attempts", json=restart).status_code == 201
    train(http, unique_name, [0.4, 0.3])
    assert said(3)["series"] == before["series"]
    assert said(3)["notes"] == ["Step 3 was sealed in attempt 1; attempt 2 began at step 4."]
    # The cut at step 4 had been decided when that step was handed out, and was restored with it.
    assert [said(step)["series"]["lr"]["since"] for step in (4, 5)] == [4, 4]
    assert said(5)["series"]["lr"]["cause"]["attempt"] == 1
    assert said(5)["series"]["lr"]["value"] == 0.025
    assert said(5)["notes"] == []


def test_a_fork_knows_the_reasons_of_the_past_that_it_shares(
    http: httpx.Client, unique_name: str
) -> None:
    """Steps before the fork are explained as in the session that trained them."""
    other = f"{unique_name}-fork"
    session(http, unique_name)
    train(http, unique_name, [1.0, 1.0, 0.5, 0.4, 0.4])
    fork = {"name": other, "step": 4}
    assert http.post(f"/v1/sessions/{unique_name}/fork", json=fork).status_code == 201
    train(http, unique_name, [0.4, 0.4])
    train(http, other, [0.3, 0.2])
    past = http.get(f"/v1/sessions/{other}/explain", params={"step": 3}).json()
    assert past["series"]["lr"]["since"] == 2
    assert past["series"]["lr"]["cause"]["seq"] is None
    assert past["series"]["lr"]["cause"]["metric"] == "loss"
    assert "before the fork." in past["series"]["lr"]["text"]
    assert past["notes"] == ["Step 3 was sealed before this session was forked from another one."]
    own = http.get(f"/v1/sessions/{other}/explain", params={"step": 5}).json()
    assert (own["series"]["lr"]["since"], own["series"]["lr"]["value"]) == (2, 0.05)
    events = http.get(f"/v1/sessions/{other}/events").json()["events"]
    assert [(each["kind"], each["at"]) for each in events] == [("created", 4), ("forked", 4)]


def test_what_an_order_that_waits_will_cause_has_no_time_yet(
    http: httpx.Client, unique_name: str
) -> None:
    """It is in no log: neither place nor time are known, and an empty text would be no time."""
    session(http, unique_name)
    path = f"/v1/sessions/{unique_name}"
    http.post(f"{path}/actions", json={"kind": "scale", "factor": 0.5, "at": 50}).raise_for_status()
    told = http.get(f"{path}/explain", params={"step": 50}).json()
    cause = told["series"]["lr"]["cause"]
    assert (cause["kind"], cause["seq"], cause["created_at"]) == ("acted", None, None)


@pytest.mark.parametrize("step", [-1, 2**53, "x"])
def test_a_step_that_is_none_is_refused(
    http: httpx.Client, unique_name: str, step: int | str
) -> None:
    """A value that cannot be a step is a problem that names the parameter."""
    session(http, unique_name)
    answer = http.get(f"/v1/sessions/{unique_name}/explain", params={"step": step})
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "step")


def test_a_step_before_the_first_is_refused(http: httpx.Client, unique_name: str) -> None:
    """A session that starts later has no explanation for earlier steps."""
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
