"""Merges over HTTP: weights of checkpoints, computed from the rates that a session has sealed."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http

WSD = {"kind": "wsd", "total_steps": 200, "warmup_steps": 10, "decay_steps": 50}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def sealed(http: httpx.Client, name: str, until: int, **spec: Any) -> str:
    """Create a session, seal it up to a step, and return its path."""
    fields = {"name": name, "base_lr": 0.1, "schedule": WSD, **spec}
    body = {field: value for field, value in fields.items() if value is not None}
    created = http.post("/v1/sessions", json=body)
    assert created.status_code == 201, created.text
    for step in range(0, until, 50):
        count = min(50, until - step)
        asks = {"want": {"start": step, "count": count}, "attempt": 1, "progress": {"step": step}}
        answer = http.post(f"/v1/sessions/{name}/sync", json=asks)
        assert answer.status_code == 200, answer.text
    return f"/v1/sessions/{name}"


def asked(http: httpx.Client, path: str, *steps: int, **more: Any) -> httpx.Response:
    """Ask for a merge of some checkpoints."""
    return http.get(f"{path}/merge", params={"checkpoint": list(steps), **more})


def test_a_constant_phase_is_merged_in_place_of_a_decay(
    http: httpx.Client, unique_name: str
) -> None:
    """Four checkpoints of the stable phase get weights, shares, and the decay that they replace."""
    path = sealed(http, unique_name, 150)
    found = asked(http, path, 120, 60, 150, 90, 5, shape="linear").json()
    assert [each["step"] for each in found["checkpoints"]] == [60, 90, 120, 150]
    shares = [each["share"] for each in found["checkpoints"]]
    assert shares == pytest.approx([1.0, 75.5 / 90, 45.5 / 90, 15.5 / 90])
    weights = [each["weight"] for each in found["checkpoints"]]
    assert weights == pytest.approx([14.5 / 90, 30 / 90, 30 / 90, 15.5 / 90])
    assert found["left_out"] == [{"step": 5, "reason": "the rate is constant from step 10 on only"}]
    ease = {"kind": "linear"}
    action = {"kind": "cooldown", "steps": 90, "to_fraction": 0.0, "ease": ease}
    assert found["stands_for"] == {"action": action, "at": 60}


def test_the_order_that_it_stands_for_can_be_given(http: httpx.Client, unique_name: str) -> None:
    """The session accepts the action as it is."""
    path = sealed(http, unique_name, 100)
    found = asked(http, path, 60, 80, 100, shape="cosine", floor=0.1).json()
    order = {**found["stands_for"]["action"], "at": 100}
    assert http.post(f"{path}/actions", json=order).status_code == 201


def test_a_decay_is_no_constant_phase(http: httpx.Client, unique_name: str) -> None:
    """Checkpoints of a decay, of a warmup, or around an order are refused with the reason."""
    path = sealed(http, unique_name, 190)
    refused = asked(http, path, 160, 170, 180)
    assert refused.status_code == 422
    assert "Fewer than two" in refused.text
    assert "constant from step 179 on only" in refused.text


def test_a_cut_by_a_controller_begins_another_phase(http: httpx.Client, unique_name: str) -> None:
    """What was trained before the cut is left out."""
    cut = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    path = sealed(http, unique_name, 0, schedule={"kind": "constant"}, controllers=[cut])
    for step in range(20):
        http.post(f"{path}/sync", json={"step": step})
        loss = 2.0 if step == 9 else 1.0 - step / 100
        http.post(f"{path}/sync", json={"reports": [{"step": step, "metrics": {"loss": loss}}]})
    found = asked(http, path, 5, 10, 15, 20).json()
    assert [each["step"] for each in found["checkpoints"]] == [10, 15, 20]
    assert found["left_out"][0]["reason"] == "the rate is constant from step 10 on only"


def test_groups_must_be_constant_together(http: httpx.Client, unique_name: str) -> None:
    """The phase begins where the last group becomes constant; momentum may vary."""
    groups = {
        "body": {"base_lr": 0.1, "schedule": "constant"},
        "head": {
            "base_lr": 0.01,
            "schedule": {"kind": "wsd", "total_steps": 90, "warmup_steps": 30, "decay_steps": 1},
        },
    }
    path = sealed(http, unique_name, 80, base_lr=None, schedule=None, groups=groups)
    found = asked(http, path, 10, 40, 80).json()
    assert [each["step"] for each in found["checkpoints"]] == [40, 80]


@pytest.mark.parametrize(
    ("steps", "more", "said"),
    [
        ((20,), {}, "checkpoint"),
        ((20, 20), {}, "two or more"),
        ((20, 99), {}, "leads from step 0 to step 50"),
        ((20, 40), {"shape": "steep"}, "shape"),
        ((20, 40), {"floor": 1.0}, "floor"),
        ((20, 40), {"over": 0}, "over"),
        ((20, 40), {"group": "x"}, "no such parameter"),
    ],
)
def test_what_makes_no_merge_is_refused(
    http: httpx.Client, unique_name: str, steps: tuple[int, ...], more: dict[str, Any], said: str
) -> None:
    """Each refusal says what is wrong."""
    path = sealed(http, unique_name, 50)
    answer = asked(http, path, *steps, **more)
    assert answer.status_code == 422
    assert said in answer.text


def test_a_merge_seals_nothing(http: httpx.Client, unique_name: str) -> None:
    """The horizon stays as it was."""
    path = sealed(http, unique_name, 100)
    before = http.get(path).json()
    assert asked(http, path, 60, 80, 100).status_code == 200
    assert http.get(path).json()["horizon"] == before["horizon"]


def test_of_no_session_there_is_none(http: httpx.Client) -> None:
    """An unknown name is a 404."""
    assert asked(http, "/v1/sessions/nobody", 1, 2).status_code == 404
