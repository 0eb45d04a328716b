"""Plans, over HTTP against a real service: the probe, the prediction and the resulting order."""

from collections.abc import Iterator
from pathlib import Path as Path_
from typing import Any

import httpx
import numpy as np
import pytest

from lawful import LAW, SEEN, SPEC, TOTAL, train
from pacesetter_service.insight.loss_law import Path
from serving import RunningService, open_http


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def plan(http: httpx.Client, name: str, **asked: Any) -> Any:
    """Return a plan."""
    answer = http.post(f"/v1/sessions/{name}/plan", json={"metric": "loss", **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(name="run")
def _run(http: httpx.Client, unique_name: str) -> Iterator[tuple[str, list[float]]]:
    """Create a training at a constant rate, and return it with its rates."""
    assert http.post("/v1/sessions", json={"name": unique_name, **SPEC}).status_code == 201
    yield unique_name, train(http, unique_name, SEEN, [])
    http.delete(f"/v1/sessions/{unique_name}")


def test_a_probe_calibrates_a_plan_whose_candidate_is_ordered(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """First a ranking and the offer of a probe; with it losses; then an order like any other."""
    name, rates = run
    first = plan(http, name)
    assert first["predicts"] == "ranking"
    assert [each["code"] for each in first["findings"]] == ["no_decay"]
    assert first["candidates"][0]["end"] is None
    offer = first["probe"]
    fork = f"{name}-probe"
    body = {"name": fork, "step": SEEN}
    assert http.post(f"/v1/sessions/{name}/fork", json=body).status_code == 201
    action = {**offer["action"], "at": SEEN}
    assert http.post(f"/v1/sessions/{fork}/actions", json=action).status_code == 201
    train(http, fork, SEEN + offer["steps"], rates)

    found = plan(http, name)
    assert found["predicts"] == "loss"
    assert found["probe"] is None
    assert {each["session"]: each["relation"] for each in found["sources"]} == {
        name: "own",
        fork: "fork",
    }
    reached = plan(
        http, name, goal="fewest_steps", loss=found["candidates"][0]["end"]["loss"] + 0.02
    )
    assert reached["candidates"][0]["total_steps"] < TOTAL
    never = plan(http, name, goal="fewest_steps", loss=1.0)
    assert [each["code"] for each in never["findings"]] == ["not_reached"]
    best, planned = found["candidates"][0], found["candidates"][-1]
    assert (best["rank"], planned["orders"]) == (1, [])
    assert best["gain"] == pytest.approx(planned["end"]["loss"] - best["end"]["loss"])
    assert best["gain"] > 0.05
    assert found["unknown"][-1].startswith("It predicts this metric only")
    assert plan(http, name)["id"] == found["id"]
    assert best["curve"]["blind"][-1] == best["blind"]
    measured = found["measured"]
    assert len(measured["steps"]) == len(measured["loss"]) == len(measured["lr"]) == 120
    assert measured["steps"][-1] < SEEN
    assert measured["lr"] == [rates[step] for step in measured["steps"]]

    applying = {"plan": found["id"], "request": {"metric": "loss"}, "candidate": 0, "reason": "why"}
    applied = http.post(f"/v1/sessions/{name}/plan/apply", json=applying)
    assert applied.status_code == 201, applied.text
    at = best["orders"][0]["at"]
    assert applied.json()["effective_steps"] == [at]
    assert applied.json()["orders"] == [1]
    whole = train(http, name, TOTAL, rates)
    lr = dict(zip(best["curve"]["steps"], best["curve"]["lr"], strict=True))
    assert all(whole[step] == value for step, value in lr.items() if step < TOTAL)
    truth = float(Path(np.array(whole)).losses(LAW, np.array([TOTAL]))[0])
    assert abs(best["end"]["loss"] - truth) < 0.03
    said = http.get(f"/v1/sessions/{name}/explain", params={"step": at}).json()["text"]
    assert f"why (plan {found['id']}: loss " in said
    again = http.post(f"/v1/sessions/{name}/plan", json={"metric": "loss"})
    assert (again.status_code, again.json()["code"]) == (422, "step_out_of_range")


def test_a_donor_of_the_same_template_calibrates_a_plan(
    http: httpx.Client, unique_name: str
) -> None:
    """A session of the same template at the same peak counts; one at another peak is left out."""
    template = {
        "name": unique_name,
        "description": "A warmup, and a constant rate.",
        "parameters": {"lr": {"description": "the peak", "default": 1e-3}},
        "spec": {**SPEC, "base_lr": {"$": "lr"}},
    }
    assert http.post("/v1/templates", json=template).status_code == 201
    names = {lr: f"{unique_name}-{lr}" for lr in (1e-3, 5e-4)}
    for lr, name in names.items():
        made = {"name": name, "template": f"{unique_name}@1", "with": {"lr": lr}}
        assert http.post("/v1/sessions", json=made).status_code == 201
        rates = train(http, name, 640, [])
        cooling = {"kind": "cooldown", "steps": 64}
        assert http.post(f"/v1/sessions/{name}/actions", json=cooling).status_code == 201
        train(http, name, 704, rates)
    own = f"{unique_name}-own"
    made = {"name": own, "template": f"{unique_name}@1"}
    assert http.post("/v1/sessions", json=made).status_code == 201
    train(http, own, 768, [])
    found = plan(http, own, steps=200, goal="budget")
    assert found["total_steps"] == 968
    assert found["predicts"] == "loss"
    assert [each["relation"] for each in found["sources"]] == ["own", "donor"]
    assert [each["session"] for each in found["left_out"]] == [names[5e-4]]


def test_what_the_law_does_not_describe_is_declined(
    http: httpx.Client, run: tuple[str, list[float]]
) -> None:
    """Several epochs, fine-tuning and what is not a loss give a reason instead of candidates."""
    name, _ = run
    cases: dict[str, dict[str, Any]] = {
        "several_epochs": {"epochs": 3.0},
        "fine_tuning": {"stage": "finetuning"},
        "not_a_loss": {"metric_kind": "other"},
        "not_falling": {"metric": "accuracy"},
    }
    for code, asked in cases.items():
        found = plan(http, name, **asked)
        assert (found["predicts"], found["candidates"]) == ("nothing", [])
        assert code in [each["code"] for each in found["findings"]]


def test_before_any_rate_above_0_there_is_nothing_to_plan_by(
    http: httpx.Client, unique_name: str
) -> None:
    """Not before the first step, nor at the first one of a warmup from 0: both are told as that."""
    warmup = {"kind": "warmup_cosine", "warmup_steps": 20, "total_steps": TOTAL}
    rule = {"kind": "plateau", "metric": "loss"}
    spec = {"name": unique_name, "base_lr": 0.1, "schedule": warmup, "controllers": [rule]}
    http.post("/v1/sessions", json=spec).raise_for_status()
    for body in ({}, {"step": 0}):
        http.post(f"/v1/sessions/{unique_name}/sync", json=body).raise_for_status()
        found = plan(http, unique_name)
        assert [each["code"] for each in found["findings"]] == ["too_few"]
        assert (found["predicts"], found["candidates"]) == ("nothing", [])
        page = http.get(f"/sessions/{unique_name}/plan", params={"metric": "loss"})
        assert page.status_code == 200


def test_candidates_can_be_named(http: httpx.Client, run: tuple[str, list[float]]) -> None:
    """They are ranked beside the current plan; one that cannot be ordered says why."""
    name, _ = run
    orders = {
        "linear": {"kind": "cooldown", "until": TOTAL, "ease": {"kind": "linear"}},
        "up": {"kind": "scale", "factor": 3.0},
    }
    asked = [
        {"label": label, "orders": [{"at": SEEN + 600, "action": action}]}
        for label, action in orders.items()
    ]
    twice = plan(http, name, candidates=[asked[0], asked[0]])
    assert [each["rank"] for each in twice["candidates"]] == [1, 2, 3]
    found = plan(http, name, candidates=asked)
    assert [each["label"] for each in found["candidates"]] == ["linear", "as planned", "up"]
    assert "above the 0.001" in found["candidates"][-1]["refused"]
    for index, status in ((1, 422), (2, 422), (9, 422)):
        applying = {
            "plan": found["id"],
            "request": {"metric": "loss", "candidates": asked},
            "candidate": index,
        }
        answer = http.post(f"/v1/sessions/{name}/plan/apply", json=applying)
        assert answer.status_code == status
        assert [each["pointer"] for each in answer.json()["errors"]] == ["/candidate"]
    other = {**applying, "plan": "0" * 16, "request": {"metric": "perplexity"}}
    answer = http.post(f"/v1/sessions/{name}/plan/apply", json=other)
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/request"]
    stale = {"plan": "0" * 16, "request": {"metric": "loss"}, "candidate": 0}
    answer = http.post(f"/v1/sessions/{name}/plan/apply", json=stale)
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_stale")
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/plan"]
    assert http.get(f"/v1/sessions/{name}/actions").json()["orders"] == []


def test_a_plan_is_applied_once_and_says_what_it_was_made_for(
    tmp_path: Path_, unique_name: str
) -> None:
    """The same call finds its orders, also after the plan was forgotten; they keep its reason.

    A service that was restarted does not know the plan, and could not compute it again.
    """
    orders = [
        {"at": SEEN + 600, "action": {"kind": "scale", "factor": 0.5}},
        {"at": SEEN + 700, "action": {"kind": "scale", "factor": 0.5}},
    ]
    shapes = [{"label": "down", "orders": orders}, {"label": "less", "orders": orders[:1]}]
    asked = {"metric": "loss", "candidates": shapes}
    database, path = tmp_path / "plans.db", f"/v1/sessions/{unique_name}/plan/apply"
    with RunningService(database) as service, open_http(service.url) as http:
        body = {"name": unique_name, **SPEC}
        http.post("/v1/sessions", json=body).raise_for_status()
        train(http, unique_name, SEEN, [])
        found = plan(http, unique_name, candidates=asked["candidates"])
        index = [each["label"] for each in found["candidates"]].index("down")
        applying = {"plan": found["id"], "request": asked, "candidate": index, "reason": "why"}
        feigned = {**applying, "request": {**asked, "metric": "accuracy"}}
        key = {"Idempotency-Key": "once"}
        first = http.post(path, json=feigned, headers=key).raise_for_status().json()
        assert first["reason"].startswith(f"why (plan {found['id']}: ranked ")
        assert "by loss at step" in first["reason"]
        assert http.post(path, json=applying, headers=key).json() == first
        others = set(range(len(found["candidates"]))) - {index}
        said = []
        for other in others:  # of the same plan, and for the same reason
            taken = http.post(path, json={**applying, "candidate": other}, headers=key)
            assert (taken.status_code, taken.json()["code"]) == (422, "action_refused")
            said += [taken.json()["detail"]] if found["candidates"][other]["orders"] else []
        assert len(said) == 1
        assert "'once' belongs to order 1" in said[0]
    with RunningService(database) as service, open_http(service.url) as http:
        again = http.post(path, json=applying, headers=key)
        assert (again.status_code, again.json()) == (201, first)
        waiting = http.get(f"/v1/sessions/{unique_name}/actions").json()["orders"]
        assert [each["reason"] for each in waiting] == [first["reason"]] * 2
        other = http.post(path, json={**applying, "reason": "another"}, headers=key)
        assert other.json()["code"] == "plan_stale"
        long = http.post(path, json={**applying, "reason": "x" * 701}, headers=key)
        assert long.status_code == 422


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"metric": "perplexity"}, "No rank has reported 'perplexity'"),
        ({"goal": "fewest_steps"}, "Give `loss`"),
        ({"goal": "budget"}, "Give `steps`"),
        ({"total_steps": 10}, "are sealed"),
        ({"total_steps": {"epochs": 2}}, "steps_per_epoch"),
        ({"group": "head"}, "no such group"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_advice(
    http: httpx.Client, run: tuple[str, list[float]], asked: dict[str, Any], says: str
) -> None:
    """Each refusal says what to write instead."""
    answer = http.post(f"/v1/sessions/{run[0]}/plan", json={"metric": "loss", **asked})
    assert answer.status_code == 422
    assert says in answer.text
