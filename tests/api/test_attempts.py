"""Attempts and forks over HTTP: who may go on, from which step, and what other ranks are told."""

from typing import Any

import httpx
import pytest

from serving import open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


class Job:
    """A session that its trainer uses over HTTP."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        self.http, self.name, self.at = http, name, f"/v1/sessions/{name}"
        if spec:
            body = {"name": name, "base_lr": 0.1, **spec}
            assert http.post("/v1/sessions", json=body).status_code == 201

    def sync(self, **body: Any) -> httpx.Response:
        """Call as a trainer does."""
        return self.http.post(f"{self.at}/sync", json=body)

    def train(self, start: int, end: int) -> list[float]:
        """Ask for each step and report a loss that never improves."""
        rates = []
        for step in range(start, end):
            rates.append(self.sync(step=step).raise_for_status().json()["lr"])
            self.sync(reports=[{"step": step, "metrics": {"loss": 1.0}}]).raise_for_status()
        return rates

    def open(self, step: int, key: str, **more: Any) -> httpx.Response:
        """Open or join an attempt."""
        return self.http.post(f"{self.at}/attempts", json={"step": step, "key": key, **more})

    def fork(self, name: str, step: int, **more: Any) -> httpx.Response:
        """Fork the session."""
        return self.http.post(f"{self.at}/fork", json={"name": name, "step": step, **more})


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and code of a problem; the answer must be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_the_first_rank_opens_and_the_others_join(http: httpx.Client, unique_name: str) -> None:
    """The answer is 201 once, then 200, always with the same attempt and its first step."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    rates = job.train(0, 6)
    answers = [job.open(3, "slurm-17") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]
    assert {(a.json()["attempt"], a.json()["horizon"]) for a in answers} == {(2, 3)}
    assert job.train(3, 6) == rates[3:]
    listed = http.get(f"{job.at}/attempts").json()["attempts"]
    assert [(each["attempt"], each["start"], each["key"]) for each in listed] == [
        (1, 0, ""),
        (2, 3, "slurm-17"),
    ]


def test_ranks_that_do_not_agree_are_told(http: httpx.Client, unique_name: str) -> None:
    """One key with two steps is a conflict: a rank has loaded another checkpoint."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    job.train(0, 6)
    job.open(3, "slurm-17").raise_for_status()
    answer = job.open(4, "slurm-17")
    assert problem(answer) == (409, "attempt_refused")
    assert "load the same checkpoint" in answer.json()["detail"]


def test_the_old_attempt_is_fenced(http: httpx.Client, unique_name: str) -> None:
    """It cannot seal, report or join again; its record stays readable."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    job.train(0, 6)
    job.open(3, "night").raise_for_status()
    report = [{"step": 2, "metrics": {"loss": 1.0}}]
    for body in ({"step": 3}, {"want": {"start": 3, "count": 5}}, {"reports": report}):
        assert problem(job.sync(attempt=1, **body)) == (409, "stale_attempt")
    job.open(2, "morning").raise_for_status()
    assert problem(job.open(3, "night")) == (409, "superseded_attempt")
    assert job.sync(attempt=3, step=2).status_code == 200
    read = http.get(f"{job.at}/lr", params={"step": 0, "count": 3})
    assert read.json()["sealed_until"] == 3


def test_orders_survive_a_restart_or_are_dropped(http: httpx.Client, unique_name: str) -> None:
    """The caller who restarts decides; the log says which orders were kept."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    for at in (2, 4, 40):
        body = {"kind": "scale", "factor": 0.9, "at": at}
        http.post(f"{job.at}/actions", json=body).raise_for_status()
    job.train(0, 6)
    job.open(3, "first").raise_for_status()
    assert [order["at"] for order in http.get(f"{job.at}/actions").json()["orders"]] == [4, 40]
    job.open(3, "second", drop_actions=True).raise_for_status()
    assert http.get(f"{job.at}/actions").json()["orders"] == []
    opened = [
        event
        for event in http.get(f"{job.at}/events").json()["events"]
        if event["kind"] == "attempt_opened"
    ]
    assert [event.get("kept", []) for event in opened] == [[2, 3], []]


def test_a_batch_size_that_is_refused_opens_nothing(http: httpx.Client, unique_name: str) -> None:
    """The conflict leaves the running attempt running."""
    job = Job(http, unique_name, batch_scaling="refuse", batch_size=64)
    job.sync(want={"start": 0, "count": 10}).raise_for_status()
    answer = job.open(5, "bigger", batch_size=128)
    assert problem(answer) == (409, "batch_refused")
    assert job.sync(attempt=1, step=10).status_code == 200
    assert len(http.get(f"{job.at}/attempts").json()["attempts"]) == 1


def test_a_rank_that_joins_with_another_batch_size_is_told(
    http: httpx.Client, unique_name: str
) -> None:
    """All ranks of one restart must name the same batch size, or none."""
    job = Job(http, unique_name, batch_scaling="linear", batch_size=64)
    job.sync(want={"start": 0, "count": 10}).raise_for_status()
    job.open(5, "bigger", batch_size=128).raise_for_status()
    assert problem(job.open(5, "bigger", batch_size=256)) == (409, "attempt_refused")
    assert job.open(5, "bigger", batch_size=128).status_code == 200
    assert job.open(5, "bigger").status_code == 200


def test_a_batch_size_said_in_a_report_scales_the_rate(
    http: httpx.Client, unique_name: str
) -> None:
    """It scales once, from the horizon on, however many ranks say it; the log names both sizes."""
    job = Job(http, unique_name, batch_scaling="sqrt", batch_size=64)
    job.sync(want={"start": 0, "count": 10}).raise_for_status()
    for rank in range(4):
        window = job.sync(rank=rank, batch_size=256, want={"start": 8, "count": 4}).json()
        assert window["series"]["lr"] == [0.1, 0.1, 0.2, 0.2]
    log = http.get(f"{job.at}/events").json()["events"]
    assert [each["kind"] for each in log] == ["created", "batch_resized", "ordered", "acted"]
    assert log[1]["text"] == "From step 10 on, 256 samples are in one step, where there were 64."


def test_a_batch_size_that_a_session_refuses_is_told_and_nothing_is_kept(
    http: httpx.Client, unique_name: str
) -> None:
    """The report in the same call is not kept either."""
    job = Job(http, unique_name, batch_scaling="refuse", batch_size=64)
    job.sync(want={"start": 0, "count": 10}).raise_for_status()
    report = [{"step": 3, "metrics": {"loss": 1.0}}]
    answer = job.sync(batch_size=128, reports=report, want={"start": 10, "count": 1})
    assert problem(answer) == (409, "batch_refused")
    assert job.sync().json()["horizon"] == 10
    assert http.get(f"{job.at}/history").json()["metrics"] == {}


def test_another_batch_size_scales_the_rate(http: httpx.Client, unique_name: str) -> None:
    """The session's rule applies from the attempt's first step on, and its order says so."""
    job = Job(http, unique_name, batch_scaling="linear", batch_size=64)
    job.sync(want={"start": 0, "count": 10}).raise_for_status()
    job.open(5, "bigger", batch_size=128).raise_for_status()
    [order] = http.get(f"{job.at}/actions").json()["orders"]
    assert (order["at"], order["actor"]) == (5, "batch_scaling")
    assert order["reason"] == "batch size 64 -> 128, linear rule"
    window = job.sync(want={"start": 3, "count": 6}).json()
    assert window["series"]["lr"] == [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "never handed out": ({"step": 7, "key": "k"}, (422, "step_out_of_range")),
    "no key": ({"step": 3, "key": ""}, (422, "validation_failed")),
    "no step": ({"key": "k"}, (422, "validation_failed")),
    "a strange field": ({"step": 3, "key": "k", "drop": True}, (422, "validation_failed")),
    "no batch": ({"step": 3, "key": "k", "batch_size": 0}, (422, "validation_failed")),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_restart_is_a_problem(
    http: httpx.Client, unique_name: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """The running attempt goes on."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    job.train(0, 6)
    assert problem(http.post(f"{job.at}/attempts", json=body)) == expected
    assert job.sync(attempt=1, step=6).status_code == 200


def test_an_archived_session_takes_no_restart(http: httpx.Client, unique_name: str) -> None:
    """It is a conflict, as for every change; the session can still be forked."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    job.train(0, 6)
    http.delete(job.at)
    assert problem(job.open(3, "late")) == (409, "session_archived")
    assert job.fork(f"{unique_name}-child", 3).status_code == 201


def test_a_fork_shares_the_past_and_goes_on_by_itself(http: httpx.Client, unique_name: str) -> None:
    """This allows several cooldowns from one stable phase, and leaves the source as it was."""
    job = Job(http, unique_name, max_lookahead=1000)
    source = job.sync(want={"start": 0, "count": 20}).json()["series"]["lr"]
    for steps in (5, 10):
        name = f"{unique_name}-{steps}"
        answer = job.fork(name, 15, labels={"cooldown": str(steps)})
        assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/sessions/{name}")
        origin = answer.json()["spec"]["forked_from"]
        assert origin == {"session": unique_name, "step": 15, "forked_from": None}
        assert job.fork(name, 15, labels={"cooldown": str(steps)}).status_code == 200
        assert problem(job.fork(name, 14)) == (409, "session_exists")
        body = {"kind": "cooldown", "steps": steps, "ease": "linear"}
        http.post(f"/v1/sessions/{name}/actions", json=body).raise_for_status()
        child = Job(http, name)
        child.sync(want={"start": 15, "count": 20}).raise_for_status()
        whole = child.sync(want={"start": 0, "count": 35}).json()["series"]["lr"]
        assert whole[:16] == [*source[:15], 0.1]
        assert whole[15 + steps :] == [0.0] * (20 - steps)
    assert job.sync(want={"start": 0, "count": 20}).json()["series"]["lr"] == source


def test_a_fork_needs_a_step_that_was_handed_out(http: httpx.Client, unique_name: str) -> None:
    """It also needs a valid name."""
    job = Job(http, unique_name, controllers=[PLATEAU])
    job.train(0, 6)
    assert problem(job.fork(f"{unique_name}-child", 7)) == (422, "step_out_of_range")
    assert problem(job.fork("/", 3)) == (422, "validation_failed")
