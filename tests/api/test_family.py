"""Runs of a template, over HTTP: a run that departs from its family is reported, others are not."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from little_servers import answer, answering
from serving import PATIENCE, RunningService, open_http

TOTAL = 1_000

TEMPLATE: dict[str, Any] = {
    "name": "house",
    "description": "A warmup and a cosine.",
    "parameters": {"peak": {"description": "the highest rate", "default": 1e-3}},
    "spec": {
        "base_lr": {"$": "peak"},
        "total_steps": TOTAL,
        "schedule": {"kind": "warmup_cosine", "warmup_steps": 20, "total_steps": TOTAL},
    },
}

Loss = Callable[[np.ndarray], np.ndarray]


def healthy(seed: int) -> Loss:
    """Return the losses of a run by step; runs differ only in level and scatter."""
    random = np.random.default_rng(seed)
    level, scatter = 1 + 0.002 * random.normal(), 1 + 0.005 * random.normal(size=TOTAL)

    def losses(steps: np.ndarray) -> np.ndarray:
        found: np.ndarray = (2.5 + 4 * (steps + 10.0) ** -0.4) * level * scatter[steps]
        return found

    return losses


def damaged(seed: int, start: int) -> Loss:
    """Return the losses of a run whose data is partly corrupt from a step on: 4 % higher."""
    well = healthy(seed)
    return lambda steps: well(steps) * np.where(steps >= start, 1.04, 1.0)


def train(http: httpx.Client, name: str, loss: Loss, first: int = 0, until: int = TOTAL) -> None:
    """Train from one step to another, and report the loss of each."""
    path = f"/v1/sessions/{name}/sync"
    for start in range(first, until, 50):
        steps = np.arange(start, min(start + 50, until))
        want = {"start": start, "count": len(steps)}
        body: dict[str, Any] = {"want": want, "progress": {"step": start}}
        http.post(path, json=body).raise_for_status()
        reports = [
            {"step": step, "metrics": {"loss": value}}
            for step, value in zip(steps.tolist(), loss(steps).tolist(), strict=True)
        ]
        http.post(path, json={"reports": reports, "rank": 0}).raise_for_status()


def create(http: httpx.Client, name: str, **values: Any) -> None:
    """Create a session from the template."""
    body = {"name": name, "template": "house@1", "with": values}
    http.post("/v1/sessions", json=body).raise_for_status()


def departures(http: httpx.Client, name: str) -> list[dict[str, Any]]:
    """Return the recorded departures."""
    events = http.get(f"/v1/sessions/{name}/events").raise_for_status().json()["events"]
    return [each for each in events if each.get("code") == "left_family"]


def family(http: httpx.Client, name: str) -> dict[str, Any]:
    """Return where the session's only loss stands in its family."""
    [found] = http.get(f"/v1/sessions/{name}/family").raise_for_status().json()["losses"]
    return dict(found)


def wait_for(fact: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.01)


@pytest.fixture(name="told", scope="module")
def _told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, list[Any]]]:
    """Return a client of a service with six finished runs, and what its webhook received."""
    with (
        answering(lambda _: answer(204, b"")) as (receiver, seen),
        RunningService(
            Path(tmp_path_factory.mktemp("family")) / "pacesetter.db", webhook_url=receiver.url
        ) as service,
        open_http(service.url) as http,
    ):
        http.post("/v1/templates", json=TEMPLATE).raise_for_status()
        for seed in range(6):
            create(http, f"member-{seed}")
            train(http, f"member-{seed}", healthy(seed))
        yield http, seen
        assert not [each for each in service.events() if each["event"] == "lookout_failed"]


def test_a_run_that_leaves_its_family_is_told_of_once(told: tuple[httpx.Client, list[Any]]) -> None:
    """Within 5 % of the run after the fault: an event, a notice, an alarm and a problem."""
    http, seen = told
    create(http, "damaged")
    loss = damaged(100, 500)
    train(http, "damaged", loss, until=500)
    train(http, "damaged", loss, 500, 550)
    wait_for(lambda: len(departures(http, "damaged")) == 1)
    [event] = departures(http, "damaged")
    assert event["about"] == "loss"
    assert event["at"] == 550
    assert "left the family of house@1 at about step 5" in event["message"]
    assert "above what 6 finished sessions lead to expect" in event["message"]
    window = {"want": {"start": 550, "count": 50}, "progress": {"step": 550}}
    notices = http.post("/v1/sessions/damaged/sync", json=window).json()["notices"]
    assert [(each["code"], each["step"]) for each in notices] == [("left_family", 550)]
    wait_for(lambda: any(json.loads(each.body)["kind"] == "left_family" for each in seen))
    assert "Left family: loss" in http.get("/problems").text
    # It goes on as it is, and is not reported again.
    train(http, "damaged", loss, 550)
    found = family(http, "damaged")
    [departure] = found["departures"]
    assert 490 <= departure["since"] <= 540
    assert departure["found"] < 550
    assert departure["apart"] == pytest.approx(0.04, abs=0.01)
    assert departure["back"] is None
    assert len(departures(http, "damaged")) == 1


def test_a_run_that_keeps_to_its_family_is_not_told_of(
    told: tuple[httpx.Client, list[Any]],
) -> None:
    """It is judged to its end, and its losses lie in the band."""
    http, _ = told
    create(http, "healthy")
    train(http, "healthy", healthy(101))
    found = family(http, "healthy")
    assert found["judged"]
    assert len(found["members"]) >= 6
    assert found["departures"] == []
    curve = found["curve"]
    assert curve["steps"][-1] == TOTAL - 1
    within = [
        low <= loss <= high
        for low, loss, high in zip(curve["low"], curve["losses"], curve["high"], strict=True)
    ]
    assert all(within)
    assert 0 < found["least"] < 0.03
    assert departures(http, "healthy") == []


def test_what_an_operator_orders_is_no_departure(told: tuple[httpx.Client, list[Any]]) -> None:
    """A run is judged up to the step from which its rates are no longer the family's."""
    http, _ = told
    create(http, "steered")
    loss = damaged(102, 400)
    train(http, "steered", loss, until=400)
    order = {"kind": "scale", "factor": 0.3, "at": 400, "reason": "to see"}
    http.post("/v1/sessions/steered/actions", json=order).raise_for_status()
    train(http, "steered", loss, 400)
    found = family(http, "steered")
    assert found["until"] == 400
    assert found["departures"] == []
    assert departures(http, "steered") == []


def test_where_there_is_no_family_it_says_so(told: tuple[httpx.Client, list[Any]]) -> None:
    """The reason may be no template, too few members, or no loss."""
    http, _ = told
    http.post("/v1/sessions", json={"name": "alone", "base_lr": 0.1}).raise_for_status()
    assert family(http, "alone")["reason"] == "no_template"
    create(http, "silent")
    assert family(http, "silent")["reason"] == "no_loss"
    body = {**TEMPLATE, "name": "new-house"}
    http.post("/v1/templates", json=body).raise_for_status()
    made = {"name": "first", "template": "new-house@1"}
    http.post("/v1/sessions", json=made).raise_for_status()
    train(http, "first", damaged(103, 300), until=600)
    found = family(http, "first")
    assert (found["judged"], found["reason"], found["members"]) == (False, "few_members", [])
    assert found["curve"] is None
    assert departures(http, "first") == []


def test_forks_of_one_run_are_no_family(told: tuple[httpx.Client, list[Any]]) -> None:
    """Sessions that share steps are alike for that reason, and count as one member."""
    http, _ = told
    http.post("/v1/templates", json={**TEMPLATE, "name": "tree"}).raise_for_status()
    http.post("/v1/sessions", json={"name": "trunk", "template": "tree@1"}).raise_for_status()
    train(http, "trunk", healthy(1))
    for seed in range(5):
        body = {"name": f"branch-{seed}", "step": 600}
        http.post("/v1/sessions/trunk/fork", json=body).raise_for_status()
        train(http, f"branch-{seed}", healthy(seed), 600)
    http.post("/v1/sessions", json={"name": "seed", "template": "tree@1"}).raise_for_status()
    train(http, "seed", healthy(9), until=500)
    found = family(http, "seed")
    assert found["reason"] == "few_members"
    assert len(found["members"]) == 1
    assert family(http, "branch-0")["members"] == []


def test_a_run_whose_last_losses_come_late_is_a_member_then(
    told: tuple[httpx.Client, list[Any]],
) -> None:
    """All of it was handed out before it was measured, and it was looked at in between."""
    http, _ = told
    create(http, "late")
    train(http, "late", healthy(104), until=900)
    body = {"want": {"start": 900, "count": 100}, "progress": {"step": 960}}
    http.post("/v1/sessions/late/sync", json=body).raise_for_status()
    create(http, "asking")
    train(http, "asking", healthy(105), until=500)
    assert "late" not in family(http, "asking")["members"]
    train(http, "late", healthy(104), 900)
    assert "late" in family(http, "asking")["members"]


def test_a_plan_of_another_length_is_looked_at_anew(tmp_path: Path) -> None:
    """Its hundredths are different steps, so earlier observations are not mixed with them."""
    law = {"kind": "wsd", "total_steps": TOTAL, "warmup_steps": 20, "decay_steps": 200}
    template = {**TEMPLATE, "spec": {"base_lr": {"$": "peak"}, "schedule": law}}
    with RunningService(tmp_path / "pacesetter.db") as service:
        with open_http(service.url) as http:
            http.post("/v1/templates", json=template).raise_for_status()
            for seed in range(6):
                create(http, f"member-{seed}")
                train(http, f"member-{seed}", healthy(seed))
            create(http, "longer")
            train(http, "longer", healthy(7), until=500)
            assert family(http, "longer")["judged"]
            order = {"kind": "retime", "total_steps": 2 * TOTAL, "reason": "longer"}
            http.post("/v1/sessions/longer/actions", json=order).raise_for_status()
            train(http, "longer", healthy(7), 500, 900)
            remembered = family(http, "longer")
        service.stop()
        service.start()
        with open_http(service.url) as http:
            assert family(http, "longer") == remembered
            assert departures(http, "longer") == []
