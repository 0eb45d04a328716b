"""How far ahead one call may seal, and what an operator can take back, over HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http, quick

COSINE = {"kind": "cosine", "total_steps": 3000}


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    with open_http(server_url) as http:
        yield http


class Run:
    """A session and the calls that use it."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        self.http = http
        self.at = f"/v1/sessions/{name}"
        body = {"name": name, "base_lr": 0.1, "schedule": COSINE, **spec}
        http.post("/v1/sessions", json=body).raise_for_status()

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Post to the session."""
        return self.http.post(f"{self.at}/{path}", json=body)

    def sync(self, **body: Any) -> dict[str, Any]:
        """Sync, and expect success."""
        answer = self.post("sync", **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def horizon(self) -> int:
        """Read the horizon."""
        return int(self.http.get(self.at).json()["horizon"])


@pytest.fixture(name="run")
def _run(http: httpx.Client, unique_name: str) -> Run:
    return Run(http, unique_name)


def test_a_long_look_seals_little(run: Run) -> None:
    """A `want` of 1,500 steps is answered with 64, so that a change can take effect soon."""
    window = run.sync(want={"start": 0, "count": 1500})
    assert len(window["series"]["lr"]) == window["horizon"] == 64
    assert run.post("actions", kind="scale", factor=0.5).json()["effective_step"] == 64


def test_a_look_far_ahead_is_told_where_to_look(run: Run) -> None:
    """It seals nothing; the error names the call that shows any step, and what a trainer sends."""
    for wish in ({"step": 500}, {"want": {"start": 500, "count": 3}}, {"step": 500, "attempt": 1}):
        answer = run.post("sync", **wish)
        assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")
        assert "GET …/lr?step=500" in answer.json()["detail"]
    assert run.horizon() == 0
    assert run.http.get(f"{run.at}/lr", params={"step": 500}).json()["sealed"] is False


def test_a_trainer_that_has_come_far_may_go_on(run: Run) -> None:
    """A trainer that ran a thousand steps elsewhere, or without the server, says where it is."""
    answer = run.sync(attempt=1, want={"start": 1000, "count": 5}, progress={"step": 1000})
    assert answer["horizon"] == 1005


def test_a_quick_trainer_has_long_windows(run: Run) -> None:
    """Twenty seconds of its steps may be sealed, counted from its progress."""
    progress = {"step": 10, "seconds_per_step": 0.1}
    answer = run.sync(attempt=1, want={"start": 20, "count": 1500}, progress=progress)
    assert answer["horizon"] == 10 + 200


def test_what_only_looks_saw_can_be_taken_back(run: Run) -> None:
    """The horizon returns to what the trainer holds, which keeps its bits and its attempt.

    An order that was carried out beyond it is pending again; the log says who took back which
    steps, and why.
    """
    held = run.sync(attempt=1, want={"start": 0, "count": 4}, progress={"step": 0})
    run.post("actions", kind="scale", factor=0.5, at=50).raise_for_status()
    looked = run.sync(want={"start": 4, "count": 1500})
    assert looked["horizon"] == 68
    shown = run.post("take-back", dry_run=True).json()
    assert (shown["horizon"], shown["until"], run.horizon()) == (4, 68, 68)
    taken = run.post("take-back", reason="somebody looked ahead").json()
    assert taken == {"horizon": 4, "until": 68, "attempt": 2, "revision": shown["revision"]}
    assert [order["at"] for order in run.http.get(f"{run.at}/actions").json()["orders"]] == [50]
    run.post("actions", kind="scale", factor=0.1, reason="now it is near").raise_for_status()
    first = {"attempt": 1, "progress": {"step": 3}}
    assert run.sync(want={"start": 0, "count": 4}, **first)["series"] == held["series"]
    following = run.sync(want={"start": 4, "count": 1}, **first)
    assert following["attempt"] == 1
    assert following["series"]["lr"][0] == pytest.approx(0.1 * looked["series"]["lr"][0])
    [event] = run.http.get(f"{run.at}/events", params={"kind": "taken_back"}).json()["events"]
    assert "the steps 4 to 67" in event["text"]
    assert "somebody looked ahead" in event["text"]
    why = run.http.get(f"{run.at}/explain", params={"step": 4}).json()["series"]["lr"]["text"]
    assert "now it is near" in why


@pytest.mark.parametrize(
    "held",
    [
        {"attempt": 1, "want": {"start": 0, "count": 40}},
        {"progress": {"step": 39}, "want": {"start": 39, "count": 1}},
        {"reports": [{"step": 39, "metrics": {"loss": 1.0}}]},
        {"applied": {"step": 39, "values": {"lr": 0.1}}},
    ],
    ids=["named-attempt", "said-progress", "reported", "applied"],
)
def test_what_a_trainer_was_given_or_has_trained_stays(run: Run, held: dict[str, Any]) -> None:
    """However a trainer shows that it has a step, that step and those before it stay as they are.

    This includes steps that a reader's call had sealed before the trainer asked.
    """
    values = run.sync(want={"start": 0, "count": 64})["series"]["lr"]
    run.sync(**held)
    taken = run.post("take-back").json()
    assert (taken["horizon"], taken["until"]) == (40, 64)
    again = run.post("take-back")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_take_back")
    assert run.sync(want={"start": 0, "count": 40})["series"]["lr"] == values[:40]


def test_a_dry_run_of_a_take_back_is_refused_where_the_call_is(run: Run) -> None:
    """An archived session refuses both."""
    run.sync(want={"start": 0, "count": 64})
    run.http.delete(run.at).raise_for_status()
    shown, taken = run.post("take-back", dry_run=True), run.post("take-back")
    assert (shown.status_code, shown.json()["code"]) == (409, "session_archived")
    assert shown.json() == taken.json()


def test_a_trainer_goes_on_over_restarts_and_take_backs(run: Run) -> None:
    """It may report under the attempt it knows until the job is restarted; then that is stale."""
    run.sync(attempt=1, want={"start": 0, "count": 2}, progress={"step": 0})
    for _ in range(2):
        run.sync(step=10)
        run.post("take-back").raise_for_status()
    report = {"attempt": 1, "reports": [{"step": 1, "metrics": {"loss": 3.0}}]}
    assert run.sync(**report)["attempt"] == 1
    history = run.http.get(f"{run.at}/history").json()
    assert history["metrics"]["loss"] == [None, 3.0]
    run.post("attempts", step=1, key="again").raise_for_status()
    assert run.post("sync", **report).json()["code"] == "stale_attempt"


def test_a_controller_decides_anew_on_what_was_measured(http: httpx.Client, unique_name: str):
    """A cut that only a reader's call caused is undone, and made again for the trainer."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5, "threshold": 0.0}
    constant = {"kind": "constant"}
    run = Run(http, unique_name, schedule=constant, controllers=[plateau], max_lookahead=100)
    run.sync(attempt=1, want={"start": 0, "count": 10}, progress={"step": 0})
    reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(2)]
    run.sync(attempt=1, reports=reports)
    assert run.sync(step=20)["lr"] == 0.05
    run.post("take-back").raise_for_status()
    more = [{"step": 2, "metrics": {"loss": 1.0}}]
    assert run.sync(attempt=1, reports=more, step=10, progress={"step": 10})["lr"] == 0.025


def test_an_answer_says_how_far_away_its_step_is(run: Run) -> None:
    """Steps and seconds count from the trainer's progress; if that is unknown, they are null."""
    unknown = run.post("actions", kind="scale", factor=0.9).json()
    assert (unknown["steps_away"], unknown["seconds_away"]) == (None, None)
    progress = {"step": 10, "seconds_per_step": 1000.0}
    run.sync(attempt=1, want={"start": 10, "count": 2}, progress=progress)
    answer = run.post("actions", kind="scale", factor=0.5).json()
    assert (answer["effective_step"], answer["steps_away"]) == (12, 2)
    assert answer["seconds_away"] == 2000.0
    later = run.post("actions", kind="scale", factor=0.5, at=20, dry_run=True).json()
    assert (later["steps_away"], later["seconds_away"]) == (10, 10_000.0)


@pytest.mark.parametrize("pace", [5e-324, 1e9])
def test_any_pace_that_is_taken_can_be_counted_with(run: Run, pace: float) -> None:
    """An order is answered, and the figures are shown, also at a pace that divides to infinity."""
    progress = {"step": 0, "seconds_per_step": pace}
    window = run.sync(attempt=1, want={"start": 0, "count": 5}, progress=progress)
    answer = run.post("actions", kind="scale", factor=0.5)
    assert (answer.status_code, answer.json()["effective_step"]) == (201, window["horizon"])
    assert answer.json()["steps_away"] <= window["horizon"]
    assert run.http.get("/metrics").status_code == 200


def test_a_wish_for_what_is_sealed_is_answered_whole(run: Run) -> None:
    """The bound is on sealing: a later caller reads a long window in one call."""
    run.sync(attempt=1, **quick(0, 1000))
    assert len(run.sync(want={"start": 0, "count": 1000})["series"]["lr"]) == 1000
