"""Ranks over HTTP: where each is, and which train with other values, with a real service."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import pytest

from serving import PATIENCE, RunningService, open_http, quick

COSINE = {"kind": "cosine", "total_steps": 1000}
WINDOW = "application/vnd.pacesetter.window"
PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


class Run:
    """A session, with the calls of its ranks and its readers."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        base = {} if "groups" in spec else {"base_lr": 0.1}
        body = {"name": name, "schedule": COSINE, **base, **spec}
        assert http.post("/v1/sessions", json=body).status_code == 201
        self.http = http
        self.path = f"/v1/sessions/{name}"

    def post(self, rank: int = 0, **body: Any) -> httpx.Response:
        """Post as a rank."""
        return self.http.post(f"{self.path}/sync", json={"rank": rank, **body})

    def sync(self, rank: int = 0, **body: Any) -> dict[str, Any]:
        """Call as a rank, and expect success."""
        response = self.post(rank, **body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def apply(self, rank: int, step: int, **values: float | str) -> dict[str, Any]:
        """Report as a rank what its optimizer used, and nothing else."""
        return self.sync(rank, applied={"step": step, "values": values})

    def values(self, step: int) -> dict[str, float]:
        """Read the values of a step."""
        answer = self.http.get(f"{self.path}/lr", params={"step": step}).json()
        return {name: value for name, value in answer.items() if name not in {"step", "sealed"}}

    def ranks(self, **params: Any) -> dict[str, Any]:
        """Read the ranks."""
        response = self.http.get(f"{self.path}/ranks", params=params)
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        return view

    def deviations(self) -> list[dict[str, Any]]:
        """Read the recorded deviations."""
        params = {"kind": "rate_deviated", "limit": 1000}
        events: list[dict[str, Any]] = self.http.get(f"{self.path}/events", params=params).json()[
            "events"
        ]
        return events


@pytest.fixture(name="start")
def _start(server_url: str, unique_name: str) -> Any:
    """Return a function that creates the test's session."""
    with open_http(server_url) as http:
        yield lambda **spec: Run(http, unique_name, **spec)


Start = Callable[..., Run]


# Where the ranks are -----------------------------------------------------------------------------


def test_ranks_of_a_session_that_no_trainer_joined_is_empty(start: Start) -> None:
    """Before the first call every expected rank is missing, and the answer says since when."""
    view = start(ranks=3).ranks()
    assert view["ranks"] == []
    assert view["summary"]["missing"] == {"count": 3, "ranks": [0, 1, 2]}
    assert (view["summary"]["seen"], view["summary"]["slowest"]) == (0, None)
    assert view["since"].endswith("+00:00")


def test_a_straggler_is_found(start: Start) -> None:
    """Of four ranks, the one that lags is the slowest, and stale beyond the given steps."""
    run = start(ranks=4)
    for rank in (0, 1, 3):
        run.sync(rank, **quick(100, 10))
    run.sync(2, want={"start": 60, "count": 10})
    view = run.ranks(max_behind=20)
    assert view["summary"]["expected"] == view["summary"]["seen"] == 4
    assert view["summary"]["newest_step"] == 99
    assert view["summary"]["slowest"]["rank"] == 2
    assert view["summary"]["stale"] == {"count": 1, "ranks": [2]}
    straggler = view["ranks"][2]
    assert (straggler["behind"], straggler["behind_horizon"]) == (40, 49)
    assert (straggler["asked"], straggler["stale"], straggler["reported"]) == (60, True, None)
    assert run.ranks()["summary"]["stale"]["count"] == 0
    run.sync(2, want={"start": 100, "count": 10})
    assert run.ranks(max_behind=20)["summary"]["stale"]["count"] == 0


def test_reports_say_where_a_rank_is(start: Start) -> None:
    """The last reported step is shown beside the window that was asked for."""
    run = start(ranks=2)
    run.sync(0, want={"start": 0, "count": 50})
    reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(20)]
    run.sync(1, reports=reports)
    [asking, reporting] = run.ranks()["ranks"]
    assert (asking["step"], asking["asked"], asking["reported"]) == (0, 0, None)
    assert (asking["trained"], reporting["trained"]) == (None, 19)
    assert (reporting["step"], reporting["asked"], reporting["reported"]) == (19, None, 19)
    assert asking["behind"] == 19


def test_what_was_fetched_ahead_is_not_trained(start: Start) -> None:
    """The newest trained step is the one before the step that the trainer is training."""
    run = start()
    run.sync(0, want={"start": 0, "count": 50}, progress={"step": 0})
    assert run.ranks()["summary"]["newest_step"] is None
    run.sync(0, want={"start": 50, "count": 50}, progress={"step": 30})
    view = run.ranks()
    assert (view["summary"]["newest_step"], view["ranks"][0]["trained"]) == (29, 29)
    assert view["ranks"][0]["step"] == 50


def test_who_was_not_told_of_a_change_is_not_current(start: Start) -> None:
    """After an order only the ranks that have called since know the newest revision."""
    run = start(ranks=2)
    for rank in (0, 1):
        run.sync(rank, step=5)
    run.http.post(f"{run.path}/actions", json={"kind": "scale", "factor": 0.5}).raise_for_status()
    run.sync(1, step=6)
    view = run.ranks()
    assert view["summary"]["current"] == 1
    assert [rank["revision"] < view["revision"] for rank in view["ranks"]] == [True, False]


def test_silence_is_measured(start: Start) -> None:
    """Each rank's last call has its time; with a patience of zero every rank is stale."""
    run = start()
    run.sync(0, step=5)
    view = run.ranks(stale_after=0)
    [rank] = view["ranks"]
    assert 0 <= rank["seconds_ago"] < PATIENCE
    assert rank["last_call"] >= view["since"]
    assert view["summary"]["stale"]["ranks"] == [0]


def test_many_ranks_come_in_pages(start: Start) -> None:
    """Together they hold every rank once, in order, and each page has the whole summary."""
    run = start(ranks=25)
    for rank in range(25):
        run.sync(rank, step=rank)
    found, token = [], ""
    while token is not None:
        view = run.ranks(limit=10, page_token=token)
        assert view["summary"]["seen"] == 25
        found += [rank["rank"] for rank in view["ranks"]]
        token = view["next_page_token"]
    assert found == list(range(25))


def test_a_made_up_page_is_refused(start: Start) -> None:
    """A token that no page gave, and a page of more than a thousand ranks, are refused."""
    run = start()
    for params in ({"page_token": "x"}, {"page_token": "OTk5OTk5"}, {"limit": 1001}):
        answer = run.http.get(f"{run.path}/ranks", params=params)
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] == "validation_failed"


def test_no_session_has_no_ranks(start: Start) -> None:
    """An unknown session is a 404."""
    answer = start().http.get("/v1/sessions/nobody/ranks")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


def test_a_rank_that_waits_is_heard(start: Start) -> None:
    """A rank whose step awaits a measurement is not silent, though it has no value yet."""
    run = start(
        ranks=2,
        controllers=[PLATEAU],
        reaction={"decide_every": 1, "timeout": 600.0},
        schedule="constant",
    )
    run.sync(0, step=0)
    with ThreadPoolExecutor(1) as pool, open_http(str(run.http.base_url)) as another:
        waiting = pool.submit(another.post, f"{run.path}/sync", json={"rank": 1, "step": 1})
        give_up = monotonic() + PATIENCE
        while len(ranks := run.ranks()["ranks"]) < 2 and monotonic() < give_up:
            sleep(0.01)
        for rank in (0, 1):
            run.sync(rank, reports=[{"step": 0, "metrics": {"loss": 1.0}}])
        assert waiting.result().status_code in {200, 503}
    assert [rank["asked"] for rank in ranks] == [0, 1]


# What they apply --------------------------------------------------------------------------------


def test_who_applies_what_was_sealed_agrees(start: Start) -> None:
    """Equal bits are exact, values from a tensor agree as float32; nothing is recorded."""
    run = start(groups={"body": {"base_lr": 0.1}, "head": {"base_lr": 0.3}})
    run.sync(step=10)
    sealed = run.values(7)
    run.apply(0, 7, **sealed)
    run.apply(1, 7, **{name: float(np.float32(value)) for name, value in sealed.items()})
    run.apply(2, 7, **{"head.lr": sealed["head.lr"]})
    view = run.ranks()
    assert [rank["applied"]["precision"] for rank in view["ranks"]] == ["exact", "float32", "exact"]
    assert [len(rank["applied"]["values"]) for rank in view["ranks"]] == [2, 2, 1]
    assert not any(rank["deviates"] for rank in view["ranks"])
    assert (run.deviations(), run.http.get(run.path).json()["revision"]) == ([], 0)


def test_who_applies_something_else_is_recorded_once(start: Start) -> None:
    """It is one event and one notice until it ends, and another one when it returns."""
    run = start(ranks=3)
    run.sync(want={"start": 0, "count": 10})
    lr = run.values(3)["lr"]
    answer = run.apply(2, 3, lr=0.5)
    [notice] = answer["notices"]
    assert notice["code"] == "rate_deviated"
    assert f"Rank 2 trained step 3 with lr = 0.5, but {lr!r} was sealed" in notice["message"]
    for step in (3, 4, 5):
        assert run.apply(2, step, lr=0.5)["notices"] == []
    [event] = run.deviations()
    assert (event["rank"], event["step"], event["series"]) == (2, 3, "lr")
    assert (event["applied"], event["sealed"]) == (0.5, lr)
    view = run.ranks()
    assert view["summary"]["deviating"] == {"count": 1, "ranks": [2]}
    [rank] = [rank for rank in view["ranks"] if rank["deviates"]]
    assert rank["applied"] == {
        "step": 5,
        "precision": "differs",
        "differing": 1,
        "values": [
            {
                "series": "lr",
                "applied": 0.5,
                "sealed": run.values(5)["lr"],
                "precision": "differs",
            }
        ],
    }
    run.apply(2, 6, **run.values(6))
    assert run.ranks()["summary"]["deviating"] == {"count": 0, "ranks": []}
    assert len(run.deviations()) == 1
    run.apply(2, 7, lr=0.5)
    assert [event["step"] for event in run.deviations()] == [3, 7]


def test_a_deviation_is_in_the_window_of_its_call(start: Start) -> None:
    """A rank's notice lies in its window, whether the window is new, old or binary."""
    run = start(ranks=3)
    run.sync(want={"start": 0, "count": 10})
    used = {"step": 9, "values": {"lr": 0.5}}
    fresh = run.sync(0, want={"start": 10, "count": 10}, applied=used)
    assert [notice["step"] for notice in fresh["notices"]] == [10]
    old = run.sync(1, want={"start": 0, "count": 5}, applied=used)
    assert [notice["step"] for notice in old["notices"]] == [4]
    answer = run.http.post(
        f"{run.path}/sync",
        json={"rank": 2, "want": {"start": 12, "count": 3}, "applied": used},
        headers={"accept": WINDOW},
    )
    head = json.loads(answer.content.partition(b"\n")[0])
    assert [(each["code"], each["step"]) for each in head["notices"]] == [("rate_deviated", 14)]
    # Whichever rank reaches that horizon is told of every deviation found below it.
    seen = run.sync(0, want={"start": 10, "count": 11})["notices"]
    assert [notice["step"] for notice in seen] == [10, 20, 20]


def test_a_rate_that_is_no_number_is_recorded(start: Start) -> None:
    """An optimizer that trains with NaN is the clearest deviation of all."""
    run = start()
    run.sync(step=5)
    run.apply(0, 5, lr="nan")
    [event] = run.deviations()
    assert event["applied"] == "nan"
    [rank] = run.ranks()["ranks"]
    assert rank["applied"]["values"][0]["applied"] == "nan"


def test_every_rank_and_series_is_recorded_for_itself(start: Start) -> None:
    """Two ranks that are wrong in two groups make four events."""
    run = start(groups={"body": {"base_lr": 0.1}, "head": {"base_lr": 0.3}})
    run.sync(step=5)
    for _ in range(3):
        for rank in (4, 5):
            run.apply(rank, 5, **{"body.lr": 1.0, "head.lr": 2.0})
    found = {(event["rank"], event["series"]) for event in run.deviations()}
    assert found == {(rank, series) for rank in (4, 5) for series in ("body.lr", "head.lr")}
    assert len(run.deviations()) == 4


def test_calls_at_the_same_time_record_a_deviation_once(start: Start) -> None:
    """A call that is repeated while its first copy is being written makes no second event."""
    run = start()
    run.sync(step=5)
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(lambda _: run.apply(0, 5, lr=9.0), range(32)):
            assert answer["horizon"] == 6
    assert len(run.deviations()) == 1


def test_what_was_told_before_is_not_told_with_many_deviations(start: Start) -> None:
    """Of eight deviations in one call four are told, and nothing old in place of the others."""
    groups = {f"g{number}": {"base_lr": 0.1} for number in range(8)}
    run = start(groups=groups)
    run.sync(want={"start": 0, "count": 10}, progress={"step": 0})
    order = {"kind": "scale", "factor": 0.1}
    run.http.post(f"{run.path}/actions", json=order).raise_for_status()
    window = run.sync(want={"start": 10, "count": 10}, progress={"step": 10})
    assert [each["code"] for each in window["notices"]] == ["large_change"]
    used = {"step": 15, "values": {f"{name}.lr": 0.5 for name in groups}}
    window = run.sync(applied=used, want={"start": 20, "count": 10}, progress={"step": 20})
    assert [each["code"] for each in window["notices"]] == ["rate_deviated"] * 4
    assert len(run.deviations()) == 8


def test_a_thousand_wrong_groups_are_no_flood(start: Start) -> None:
    """For a rank that is wrong everywhere some series are recorded, and all are counted."""
    run = start(groups={f"g{number}": {"base_lr": 0.1} for number in range(200)})
    run.sync(step=5)
    for step in range(5):
        run.apply(0, step, **{f"g{number}.lr": 9.0 for number in range(200)})
    assert len(run.deviations()) == 8
    assert run.ranks()["ranks"][0]["applied"]["differing"] == 200


def test_old_steps_are_compared_with_the_record(start: Start) -> None:
    """What memory has dropped is read from the database, to the bit."""
    run = start(schedule={"kind": "exponential", "gamma": 0.9999})
    for begin in range(0, 40_000, 10_000):
        run.sync(**quick(begin, 10_000))
    run.apply(0, 17, **run.values(17))
    assert run.ranks()["ranks"][0]["applied"]["precision"] == "exact"
    run.apply(0, 18, **run.values(17))
    assert [event["sealed"] for event in run.deviations()] == [run.values(18)["lr"]]


# What is refused ---------------------------------------------------------------------------------


def test_a_series_that_is_not_there_is_refused(start: Start) -> None:
    """The refusal points at it and lists the series; nothing of the call is kept."""
    run = start(groups={"body": {"base_lr": 0.1}, "head": {"base_lr": 0.3}})
    run.sync(step=5)
    applied = {"step": 5, "values": {"body.lr": 9.0, "heat.lr": 0.3}}
    answer = run.post(0, applied=applied, want={"start": 0, "count": 100})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/applied/values/heat.lr"
    assert "Did you mean 'head.lr'? Known here: body.lr, head.lr" in error["detail"]
    assert run.deviations() == []
    assert run.http.get(run.path).json()["horizon"] == 6


@pytest.mark.parametrize("step", [6, 10**9])
def test_a_step_that_was_not_handed_out_is_refused(start: Start, step: int) -> None:
    """No rank can have applied a value that is not sealed, even one that the same call asks for."""
    run = start()
    run.sync(step=5)
    answer = run.post(applied={"step": step, "values": {"lr": 0.1}}, step=6)
    assert (answer.status_code, answer.json()["code"]) == (422, "step_out_of_range")
    assert "handed out so far are 0 to 5" in answer.json()["detail"]


def test_a_step_before_the_first_one_is_refused(start: Start) -> None:
    """A session that begins later has no earlier values."""
    run = start(start_step=100)
    run.sync(step=105)
    answer = run.post(applied={"step": 99, "values": {"lr": 0.1}})
    assert answer.json()["code"] == "step_out_of_range"


@pytest.mark.parametrize(
    "applied",
    [
        {"step": 5},
        {"values": {"lr": 0.1}},
        {"step": 5, "values": {}},
        {"step": 5, "values": {"lr": "fast"}},
        {"step": 5, "values": {"lr": None}},
        {"step": -1, "values": {"lr": 0.1}},
        {"step": 5, "values": {"lr": 0.1}, "rank": 3},
        [],
    ],
    ids=str,
)
def test_a_malformed_field_is_pointed_at(start: Start, applied: object) -> None:
    """A field that is missing, unknown or not a number is named."""
    run = start()
    run.sync(step=5)
    answer = run.post(applied=applied)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["pointer"].startswith("/applied")


def test_a_rank_beyond_all_ranks_is_refused(start: Start) -> None:
    """It may ask for values, but no event is recorded for it, as it could not be remembered."""
    run = start()
    run.sync(step=5)
    run.sync(70_000, step=5)
    answer = run.post(70_000, applied={"step": 5, "values": {"lr": 9.0}})
    assert answer.json()["errors"][0]["pointer"] == "/rank"
    assert [rank["rank"] for rank in run.ranks()["ranks"]] == [0]


def test_an_archived_session_compares_nothing(start: Start) -> None:
    """It can be read, and takes no more reports on what was applied."""
    run = start()
    run.sync(step=5)
    run.http.delete(run.path).raise_for_status()
    answer = run.post(applied={"step": 5, "values": {"lr": 0.1}})
    assert answer.json()["code"] == "session_archived"


# Attempts, restarts ------------------------------------------------------------------------------


def test_what_an_old_attempt_applied_is_not_compared_with_the_new_one(start: Start) -> None:
    """A fenced process is refused, and neither it nor its past deviates in the new attempt."""
    run = start(ranks=2)
    run.sync(0, attempt=1, want={"start": 0, "count": 50})
    run.sync(1, attempt=1, step=49)
    before = run.values(30)["lr"]
    run.http.post(f"{run.path}/attempts", json={"step": 20, "key": "again"}).raise_for_status()
    run.http.post(f"{run.path}/actions", json={"kind": "scale", "factor": 0.5}).raise_for_status()
    run.sync(0, attempt=2, want={"start": 20, "count": 20})
    assert run.values(30)["lr"] != before
    answer = run.post(1, attempt=1, applied={"step": 30, "values": {"lr": before}})
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_attempt")
    assert run.deviations() == []
    view = run.ranks()
    assert (view["summary"]["seen"], view["summary"]["newest_step"]) == (1, 19)
    assert view["summary"]["earlier_attempts"] == {"count": 1, "ranks": [1]}
    assert view["summary"]["missing"] == {"count": 1, "ranks": [1]}
    run.sync(1, attempt=2, step=30, applied={"step": 30, "values": {"lr": before}})
    [event] = run.deviations()
    assert (event["attempt"], event["rank"], event["applied"]) == (2, 1, before)


def test_the_steps_before_an_attempt_are_those_it_began_with(start: Start) -> None:
    """What the job applied before it went back is compared with what was sealed then."""
    run = start()
    run.sync(want={"start": 0, "count": 50})
    run.http.post(f"{run.path}/attempts", json={"step": 20, "key": "again"}).raise_for_status()
    run.apply(0, 19, **run.values(19))
    assert run.ranks()["ranks"][0]["applied"]["precision"] == "exact"


def test_after_a_restart_of_the_service_no_rank_is_known(service: RunningService) -> None:
    """The list starts again and says when; recorded deviations stay, and are not repeated."""
    with open_http(service.url) as http:
        run = Run(http, "run", ranks=2)
        run.sync(0, step=5)
        run.apply(1, 5, lr=9.0)
        began = run.ranks()["since"]
    service.kill()
    service.start()
    with open_http(service.url) as http:
        run.http = http
        view = run.ranks()
        assert view["ranks"] == []
        assert view["since"] > began
        assert len(run.deviations()) == 1
        for _ in range(2):
            run.apply(1, 5, lr=9.0)
        assert len(run.deviations()) == 1
        run.apply(1, 5, **run.values(5))
        assert run.ranks()["summary"]["deviating"]["ranks"] == []
        run.apply(1, 5, lr=9.0)
        assert len(run.deviations()) == 2
        assert run.ranks()["summary"]["deviating"]["ranks"] == [1]


def test_the_field_is_documented(start: Start) -> None:
    """The OpenAPI document describes `applied`, and the ranks."""
    document = start().http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["SyncRequest"]["properties"]["applied"]["anyOf"][0]["$ref"].endswith("AppliedIn")
    assert "float32" in schemas["AppliedIn"]["description"]
    assert "get" in document["paths"]["/v1/sessions/{name}/ranks"]
