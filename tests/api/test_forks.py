"""Forks that are described anew: their law from the fork's first step on, and what is kept."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from pacesetter_service.core.schedules import Schedule
from serving import open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
COSINE = {"kind": "cosine", "total_steps": 20}
LONGER = {"kind": "cosine", "total_steps": 40}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


class Job:
    """A session that is used over HTTP."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        self.http, self.name, self.at = http, name, f"/v1/sessions/{name}"
        if spec:
            body = {"name": name, "base_lr": 0.1, **spec}
            http.post("/v1/sessions", json=body).raise_for_status()

    def get(self, path: str = "", **params: Any) -> Any:
        """Read a part of it."""
        return self.http.get(self.at + path, params=params).raise_for_status().json()

    def train(self, until: int, loss: float | None = None) -> None:
        """Train up to a step, and report the same loss at each."""
        for step in range(self.get()["horizon"], until):
            self.sync(rank=0, step=step)
            if loss is not None:
                self.sync(reports=[{"step": step, "metrics": {"loss": loss}}])

    def sync(self, **body: Any) -> Any:
        """Call as a trainer does."""
        return self.http.post(f"{self.at}/sync", json=body).raise_for_status().json()

    def act(self, **body: Any) -> None:
        """Order an action from the horizon on."""
        self.http.post(f"{self.at}/actions", json=body).raise_for_status()

    def ask_fork(self, name: str, step: int, **more: Any) -> httpx.Response:
        """Ask for a fork."""
        return self.http.post(f"{self.at}/fork", json={"name": name, "step": step, **more})

    def fork(self, step: int, **description: Any) -> "Job":
        """Fork the session with another description."""
        name = f"{self.name}-fork-{step}-{abs(hash(json.dumps(description, sort_keys=True)))}"
        self.ask_fork(name, step, description=description).raise_for_status()
        return Job(self.http, name)

    def rates(self, start: int, count: int) -> list[float]:
        """Return the learning rates of some steps, sealed or forecast."""
        rates: list[float] = self.get("/lr", step=start, count=count)["series"]["lr"]
        return rates


def law(spec: dict[str, Any], start: int, count: int) -> list[float]:
    """Evaluate a schedule on its own."""
    values: list[float] = (
        Schedule.parse(spec).values(np.arange(start, start + count, dtype=float), 0.1).tolist()
    )
    return values


def test_a_fork_is_trained_longer_by_its_own_law(http: httpx.Client, unique_name: str) -> None:
    """Its past is the parent's to the bit, and from the fork's step on the new law holds."""
    job = Job(http, unique_name, schedule=COSINE, total_steps=20)
    job.train(10)
    longer = job.fork(8, schedule=LONGER, total_steps=40)
    longer.train(40)
    assert longer.rates(0, 40) == law(COSINE, 0, 8) + law(LONGER, 8, 32)
    assert longer.get()["spec"]["total_steps"] == 40
    assert job.rates(0, 20) == law(COSINE, 0, 20)


def test_the_same_fork_again_is_the_same_and_another_is_a_conflict(
    http: httpx.Client, unique_name: str
) -> None:
    """So it is with creation; the conflict says how to go on by another description."""
    job = Job(http, unique_name, schedule=COSINE)
    job.train(10)
    name, body = f"{unique_name}-longer", {"description": {"schedule": LONGER}}
    assert job.ask_fork(name, 8, attempt_key="mine", **body).status_code == 201
    answer = job.ask_fork(name, 8, **body)
    assert (answer.status_code, answer.json()["attempt_key"]) == (200, "mine")
    other = job.ask_fork(name, 8, description={"schedule": COSINE, "base_lr": 0.2})
    assert (other.status_code, other.json()["code"]) == (409, "session_exists")
    assert "continues=" in other.json()["detail"]


def test_what_controllers_cut_stays_a_factor(http: httpx.Client, unique_name: str) -> None:
    """Controllers that are described as before keep their states."""
    job = Job(http, unique_name, schedule=COSINE, controllers=[PLATEAU])
    job.train(4, loss=1.0)  # decisions before step 2 and before step 3
    longer = job.fork(3, schedule=LONGER)
    assert longer.rates(3, 1) == [value * 0.25 for value in law(LONGER, 3, 1)]
    longer.train(5, loss=1.0)
    assert longer.rates(4, 1) == [value * 0.125 for value in law(LONGER, 4, 1)]


def test_controllers_described_anew_begin_anew(http: httpx.Client, unique_name: str) -> None:
    """The factors of the old controllers no longer apply."""
    job = Job(http, unique_name, schedule=COSINE, controllers=[PLATEAU])
    job.train(4, loss=1.0)
    longer = job.fork(3, controllers=[{**PLATEAU, "patience": 1}])
    assert longer.rates(3, 1) == law(COSINE, 3, 1)
    longer.train(7, loss=1.0)  # the first is the best; two more are one too many
    assert longer.rates(5, 2) == [law(COSINE, 5, 1)[0], law(COSINE, 6, 1)[0] * 0.5]


def test_scales_stay_and_what_was_set_does_not(http: httpx.Client, unique_name: str) -> None:
    """A factor suits any law; a set value belonged to the law that was replaced."""
    job = Job(http, unique_name, schedule=COSINE)
    job.act(kind="scale", factor=0.5)
    job.train(10)
    assert job.fork(8, schedule=LONGER).rates(8, 2) == [v * 0.5 for v in law(LONGER, 8, 2)]
    job.act(kind="hold")
    job.train(14)
    assert job.fork(12, schedule=LONGER).rates(12, 2) == [v * 0.5 for v in law(LONGER, 12, 2)]
    job.act(kind="set", lr=0.7)
    job.train(18)
    assert job.rates(17, 1) == [0.7]
    assert job.fork(16, schedule=LONGER).rates(16, 2) == law(LONGER, 16, 2)


def test_what_is_described_as_before_goes_on_as_it_was(
    http: httpx.Client, unique_name: str
) -> None:
    """A longer plan alone does not end a hold."""
    job = Job(http, unique_name, schedule=COSINE, total_steps=20)
    job.train(5)
    job.act(kind="hold")
    job.train(10)
    longer = job.fork(8, total_steps=40)
    assert longer.rates(8, 4) == law(COSINE, 5, 1) * 4


def test_a_fork_with_a_law_of_its_own_can_be_restarted_and_exported(
    http: httpx.Client, unique_name: str
) -> None:
    """Its record is complete, with the parent's decisions under the parent's description."""
    job = Job(http, unique_name, schedule=COSINE, controllers=[PLATEAU])
    job.train(6, loss=1.0)
    longer = job.fork(4, schedule=LONGER, controllers=[{"kind": "greedy", "metric": "loss"}])
    longer.train(12, loss=1.0)
    before = longer.rates(0, 12)
    restarted = http.post(f"{longer.at}/attempts", json={"step": 6, "key": "k"})
    assert restarted.status_code == 201
    longer.train(12, loss=1.0)
    assert longer.rates(0, 12) == before
    record = http.get(f"{longer.at}/export").raise_for_status().content
    answer = http.post(
        "/v1/import",
        params={"name": f"{unique_name}-copy"},
        content=record,
        headers={"content-type": "application/x-ndjson"},
    )
    assert answer.status_code == 201, answer.text
    copy = Job(http, f"{unique_name}-copy")
    assert copy.rates(0, 12) == before
    for step in (3, 4, 11):
        was, is_now = (each.get("/explain", step=step)["text"] for each in (longer, copy))
        assert (
            was.splitlines()[0].partition(" Recorded")[0]
            == (is_now.splitlines()[0].partition(" Recorded")[0])
        )


def test_a_described_fork_explains_its_law(http: httpx.Client, unique_name: str) -> None:
    """Steps before the fork have the parent's description, later ones its own and what was kept."""
    job = Job(http, unique_name, schedule=COSINE, controllers=[PLATEAU])
    job.train(5, loss=1.0)
    longer = job.fork(4, schedule={"kind": "constant"}, controllers=[PLATEAU])
    longer.train(6)
    past, present = (longer.get("/explain", step=step) for step in (3, 5))
    assert past["series"]["lr"]["law"] == "cosine"
    assert "plateau #0" in past["text"]
    why = present["series"]["lr"]
    assert (why["law"], why["since"], why["cause"]["kind"]) == ("constant", 4, "forked")
    assert f"forked from {unique_name}" in present["text"]
    assert "another description of schedule" in present["text"]
    forked = longer.get("/events", kind="forked")["events"]
    assert [each["differs"] for each in forked] == [["schedule"]]
    assert forked[0]["factors"] == {"lr": 0.125}


def test_nobody_goes_back_behind_another_description(http: httpx.Client, unique_name: str) -> None:
    """Neither an attempt nor a fork can: those steps are the parent's."""
    job = Job(http, unique_name, schedule=COSINE)
    job.train(10)
    longer = job.fork(8, schedule=LONGER)
    longer.train(12)
    attempt = http.post(f"{longer.at}/attempts", json={"step": 7, "key": "k"})
    for answer in (attempt, longer.ask_fork(f"{unique_name}-deep", 7)):
        assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")
        assert "belong to the session that this one was forked from" in answer.json()["detail"]


def test_a_fork_of_a_described_fork_has_the_whole_past(
    http: httpx.Client, unique_name: str
) -> None:
    """Three laws in a row are each sealed in their own session; the origins are listed in order."""
    job = Job(http, unique_name, schedule=COSINE)
    job.train(10)
    longer = job.fork(8, schedule=LONGER)
    longer.train(16)
    last = longer.fork(12, schedule={"kind": "constant"})
    last.train(14)
    assert last.rates(0, 14) == law(COSINE, 0, 8) + law(LONGER, 8, 4) + [0.1, 0.1]
    origin = last.get()["spec"]["forked_from"]
    assert (origin["session"], origin["forked_from"]["session"]) == (longer.name, unique_name)
    for step, kind in ((7, "cosine"), (9, "cosine"), (13, "constant")):
        assert last.get("/explain", step=step)["series"]["lr"]["law"] == kind


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no law": ({"schedule": {"kind": "cosin"}}, "/description/schedule/kind"),
    "other groups": ({"groups": {"head": {"base_lr": 0.1}}}, "/description"),
    "another channel": (
        {"schedule": {"kind": "channels", "laws": {"lr": COSINE, "momentum": COSINE}}},
        "/description",
    ),
    "another start": ({"start_step": 3}, "/description/start_step"),
    "another name": ({"name": "x"}, "/description/name"),
    "a strange field": ({"colour": "red"}, "/description/colour"),
}


@pytest.mark.parametrize(("description", "pointer"), REFUSED.values(), ids=REFUSED)
def test_what_no_fork_can_be_is_refused_at_its_place(
    http: httpx.Client, unique_name: str, description: dict[str, Any], pointer: str
) -> None:
    """Nothing is created."""
    job = Job(http, unique_name, schedule=COSINE)
    job.train(10)
    answer = job.ask_fork(f"{unique_name}-child", 8, description=description)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert http.get(f"/v1/sessions/{unique_name}-child").status_code == 404


def test_what_a_fork_said_of_earlier_steps_counts_when_it_goes_back_there(
    http: httpx.Client, unique_name: str
) -> None:
    """A late loss of step 7, told to a fork from step 10, is known to its attempt from step 8."""
    job = Job(http, unique_name, schedule=COSINE, controllers=[PLATEAU])
    job.train(10)
    branch = f"{unique_name}-branch"
    job.ask_fork(branch, 10).raise_for_status()
    fork = Job(http, branch)
    fork.sync(attempt=1, reports=[{"step": 7, "metrics": {"loss": 0.5}}])
    again = {"step": 8, "key": "again"}
    http.post(f"{fork.at}/attempts", json=again).raise_for_status()
    fork.sync(attempt=2, rank=0, step=8)
    fork.sync(attempt=2, rank=0, step=9)
    seen = fork.get("/history", start=0, end=10)["metrics"]["loss"]
    assert seen[7] == 0.5


def rehearsed(job: Job, step: int, **more: Any) -> dict[str, Any]:
    """Return the dry run of a fork."""
    answer = job.ask_fork(f"{job.name}-trial", step, dry_run=True, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_dry_run_shows_what_the_fork_is_then(http: httpx.Client, unique_name: str) -> None:
    """Nothing is created; both curves equal to the bit those of the two sessions afterwards."""
    job = Job(http, unique_name, schedule=COSINE, total_steps=20, controllers=[PLATEAU])
    job.train(12, loss=1.0)
    job.act(kind="scale", factor=0.5)
    job.train(14, loss=1.0)
    description = {"schedule": LONGER, "total_steps": 40}
    found = rehearsed(job, 13, description=description)
    assert http.get(f"/v1/sessions/{unique_name}-trial").status_code == 404
    assert found["revision"] == job.get()["revision"]
    fork = job.fork(13, **description)
    steps = found["after"]["steps"]
    assert steps == found["before"]["steps"]
    assert steps == list(range(13, 13 + len(steps)))
    assert steps[-1] == 39
    assert found["after"]["series"]["lr"] == fork.rates(13, len(steps))
    assert found["before"]["series"]["lr"] == job.rates(13, len(steps))
    [(series, factor)] = found["kept"].items()
    assert series == "lr"
    assert factor == found["after"]["series"]["lr"][0] / law(LONGER, 13, 1)[0]


def test_a_dry_run_refuses_what_the_fork_would(http: httpx.Client, unique_name: str) -> None:
    """These are a step beyond the horizon, a taken name, fields a fork lacks, and other series."""
    job = Job(http, unique_name, schedule=COSINE)
    job.train(5)
    asked: list[tuple[int, str, int, dict[str, Any]]] = [
        (422, f"{unique_name}-x", 9, {}),
        (409, unique_name, 3, {}),
        (422, f"{unique_name}-x", 3, {"description": {"name": "y"}}),
        (422, f"{unique_name}-x", 3, {"description": {"groups": {"a": {}}}}),
        (422, f"{unique_name}-x", 3, {"description": {"schedule": {"kind": "cosin"}}}),
    ]
    for status, name, step, more in asked:
        dry, real = (job.ask_fork(name, step, dry_run=each, **more) for each in (True, False))
        assert dry.status_code == status, dry.text
        assert {**dry.json(), "instance": ""} == {**real.json(), "instance": ""}


def test_a_dry_run_names_pitfalls_and_finds_the_fork_that_is_there(
    http: httpx.Client, unique_name: str
) -> None:
    """It works again once the fork was made, and its warnings name what is unusual."""
    job = Job(http, unique_name, schedule=COSINE, total_steps=20)
    job.train(5)
    body = {"description": {"total_steps": 1000}}
    assert any("total_steps" in each for each in rehearsed(job, 5, **body)["warnings"])
    job.ask_fork(f"{unique_name}-trial", 5, **body).raise_for_status()
    assert rehearsed(job, 5, **body)["start"] == 5


@pytest.mark.parametrize("description", [None, {"base_lr": 0.2}])
def test_too_long_a_line_of_forks_is_refused_as_what_it_is(
    http: httpx.Client, unique_name: str, description: dict[str, Any] | None
) -> None:
    """Nothing is said of schedules, which are not to blame, but what can be done instead.

    What stands in the way is the line itself: the last of it is forked no more, and goes on.
    """
    job = Job(http, unique_name, schedule=COSINE)
    for number in range(100):
        name = f"{unique_name}-{number}"
        forked = job.ask_fork(name, 0, description=description)
        if forked.status_code == 422:
            break
        forked.raise_for_status()
        job = Job(http, name)
    assert number >= 32
    assert "is a fork of a fork" in forked.json()["detail"]
    assert "start_step" in forked.json()["detail"]
    job.train(2)
    assert job.get()["horizon"] == 2
