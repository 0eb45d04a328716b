"""What stays the same after an operator took sealed steps back, over HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http

PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 10, "factor": 0.5}
COSINE = {"kind": "cosine", "total_steps": 6}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    with open_http(server_url) as http:
        yield http


class Run:
    """A session at a constant rate, and the calls that use it."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        self.http = http
        self.at = f"/v1/sessions/{name}"
        body = {"name": name, "base_lr": 0.1, **spec}
        http.post("/v1/sessions", json=body).raise_for_status()

    def post(self, path: str, **body: Any) -> Any:
        """Post to the session, and expect success."""
        return self.http.post(f"{self.at}/{path}", json=body).raise_for_status().json()

    def get(self, path: str, **params: Any) -> Any:
        """Read from the session, and expect success."""
        return self.http.get(f"{self.at}/{path}", params=params).raise_for_status().json()

    def trains(self, start: int, count: int, attempt: int = 1) -> Any:
        """Ask for a window as a trainer that stands at its start."""
        wish = {"start": start, "count": count}
        return self.post("sync", attempt=attempt, want=wish, progress={"step": start})

    def reports(self, *steps: int, attempt: int = 1, loss: float = 1.0) -> None:
        """Report a loss at some steps."""
        found = [{"step": step, "metrics": {"loss": loss}} for step in steps]
        self.post("sync", attempt=attempt, reports=found)

    def take_back(self, look: int) -> Any:
        """Read 20 steps ahead from a step on, and take back those that no trainer holds."""
        self.post("sync", want={"start": look, "count": 20})
        return self.post("take-back")


def test_restarts_after_a_take_back_find_what_its_trainers_reported(
    http: httpx.Client, unique_name: str
) -> None:
    """Two restarts, to below it, give the rates of a run in which nothing was taken back."""

    def rates(name: str, *, taken: bool) -> list[float]:
        run = Run(http, name, controllers=[PLATEAU], max_lookahead=64)
        run.trains(0, 20)
        if taken:
            run.take_back(20)
        run.reports(*range(20))
        for key, step in (("first", 18), ("second", 15)):
            attempt = run.post("attempts", step=step, key=key)["attempt"]
        found = []
        for step in range(15, 20):
            found += run.trains(step, 1, attempt)["series"]["lr"]
            run.reports(step, attempt=attempt)
        return found

    plain = rates(f"{unique_name}-plain", taken=False)
    assert plain == rates(f"{unique_name}-taken", taken=True)
    assert plain[0] == 0.05


def test_a_report_that_is_repeated_after_a_take_back_counts_once(
    http: httpx.Client, unique_name: str
) -> None:
    """The first report stays, in the record of the attempt that trained the step."""
    run = Run(http, unique_name, controllers=[PLATEAU], max_lookahead=64)
    run.trains(0, 3)
    run.reports(0, loss=1.0)
    run.take_back(3)
    run.reports(0, loss=7.0)
    run.reports(1, loss=2.0)
    for shown in ({}, {"attempt": 1}, {"attempt": 2}):
        assert run.get("history", end=3, **shown)["metrics"]["loss"] == [1.0, 2.0, None]
    run.trains(3, 1)
    export = http.get(f"{run.at}/export").text
    assert export.count('"line":"readings"') == 1


def codes(answer: Any) -> list[tuple[int, str]]:
    """Return the codes of a window's notices."""
    return [(each["step"], each["code"]) for each in answer["notices"]]


def test_a_take_back_makes_no_metric_unseen(http: httpx.Client, unique_name: str) -> None:
    """Trainers whose metric was measured before it are not told that it never was."""
    run = Run(http, unique_name, controllers=[PLATEAU], silent_after=10, max_lookahead=4)
    told = []
    for start in range(0, 24, 4):
        told += codes(run.trains(start, 4))
        run.reports(start + 3)
        if start == 12:
            assert run.take_back(16)["attempt"] == 2
    assert told == []


def test_what_was_told_before_a_take_back_is_not_told_again(
    http: httpx.Client, unique_name: str
) -> None:
    """Trainers that go on are told once of the plan's end and of a silent rank."""
    spec = {"schedule": COSINE, "ranks": 2, "silent_after": 5, "controllers": [PLATEAU]}
    run = Run(http, unique_name, max_lookahead=2, **spec)
    told = []
    for step in range(24):
        told += codes(run.trains(step, 1))
        run.reports(step)
        if step in {12, 17}:
            run.post("sync", want={"start": step + 1, "count": 2})
            run.post("take-back")
    assert told == [(6, "rank_silent"), (7, "plan_over")]


def test_what_only_a_look_was_told_is_told_to_trainers(
    http: httpx.Client, unique_name: str
) -> None:
    """A notice of a step that was taken back comes with that step again."""
    run = Run(http, unique_name, schedule=COSINE)
    run.trains(0, 6)
    run.post("sync", want={"start": 6, "count": 1})
    looked = run.post("sync", want={"start": 7, "count": 4})
    assert codes(looked) == [(7, "plan_over")]
    run.post("take-back")
    assert codes(run.trains(6, 1)) == []
    assert codes(run.trains(7, 4)) == [(7, "plan_over")]


def test_a_rank_that_is_late_is_told_what_was_before_a_take_back(
    http: httpx.Client, unique_name: str
) -> None:
    """A window below the take-back keeps its notices; the next one has none."""
    run = Run(http, unique_name, ranks=2)
    run.trains(0, 4)
    run.post("actions", kind="scale", factor=0.1, at=30)
    before = codes(run.trains(4, 4))
    run.take_back(8)
    assert codes(run.trains(4, 4)) == before == [(4, "large_change")]
    assert codes(run.trains(8, 4)) == []


def test_an_attempt_that_is_carried_is_read_as_its_trainers_got_it(
    http: httpx.Client, unique_name: str
) -> None:
    """Under its number each step has the one value that `sync` gave, while it runs and after."""
    run = Run(http, unique_name, controllers=[PLATEAU], max_lookahead=64)
    got = run.trains(0, 10)["series"]["lr"]
    looked = run.post("sync", want={"start": 10, "count": 20})["series"]["lr"]
    run.post("take-back")
    run.post("actions", kind="scale", factor=0.5, at=12)
    for start in (10, 15):
        got += run.trains(start, 5)["series"]["lr"]
    run.take_back(20)
    got += run.trains(20, 5)["series"]["lr"]
    assert got[10:20] != looked[:10]

    def read_back() -> None:
        for attempt in (1, 2, 3):
            history = run.get("history", attempt=attempt, end=25)
            assert (history["attempt"], history["series"]["lr"]) == (attempt, got)
            values = run.get("lr", step=0, count=25, attempt=attempt)
            assert values["series"]["lr"] == got
            assert run.get("lr", step=20, attempt=attempt)["lr"] == got[20]
            table = run.get("export", attempt=attempt, end=25, **{"as": "table"})
            assert table["schedule"]["levels"] == got

    read_back()
    run.post("attempts", step=5, key="again")
    run.post("actions", kind="scale", factor=0.5)
    run.trains(5, 20, attempt=4)
    read_back()
    assert run.get("lr", step=20, attempt=4)["lr"] != got[20]


def test_the_ranks_of_an_attempt_that_is_carried_are_there(
    http: httpx.Client, unique_name: str
) -> None:
    """Its ranks are neither missing nor earlier, before and after they call again."""
    run = Run(http, unique_name, ranks=2)
    for rank in (0, 1):
        run.post("sync", rank=rank, attempt=1, want={"start": 0, "count": 4}, progress={"step": 2})
    run.take_back(4)
    for trained in (1, 2):
        view = run.get("ranks")
        found = view["summary"]
        assert (found["seen"], found["newest_step"]) == (2, trained)
        assert found["missing"]["count"] == found["earlier_attempts"]["count"] == 0
        assert [each["attempt"] for each in view["ranks"]] == [2, 2]
        assert all(each["behind"] is not None for each in view["ranks"])
        run.reports(2)


def test_a_deviation_that_goes_on_over_a_take_back_is_recorded_once(
    http: httpx.Client, unique_name: str
) -> None:
    """The process is the same, so the log does not repeat what it trains with."""
    run = Run(http, unique_name)
    run.trains(0, 4)
    other = {"step": 3, "values": {"lr": 0.7}}
    run.post("sync", attempt=1, applied=other)
    run.take_back(4)
    run.post("sync", attempt=1, applied=other)
    events = run.get("events", kind="rate_deviated")["events"]
    assert [(each["rank"], each["step"]) for each in events] == [(0, 3)]
    assert run.get("ranks")["summary"]["deviating"]["ranks"] == [0]
