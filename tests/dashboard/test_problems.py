"""What the dashboard calls a problem, and what it advises."""

import re
from collections.abc import Iterator

import httpx
import pytest

from pacesetter_service.dashboard.troubles import diverging
from serving import RunningService, open_http


@pytest.fixture(name="http", scope="module")
def _http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a connection to a service for these tests alone."""
    with (
        RunningService(tmp_path_factory.mktemp("problems") / "p.db") as service,
        open_http(service.url) as http,
    ):
        http.headers["origin"] = service.url
        yield http


def sync(http: httpx.Client, name: str, step: int, count: int = 10, **more: object) -> None:
    """Sync as a trainer at a step."""
    body = {"want": {"start": step, "count": count}, "progress": {"step": step}, "attempt": 1}
    answer = http.post(f"/v1/sessions/{name}/sync", json={**body, **more})
    assert answer.status_code == 200, answer.text


def create(http: httpx.Client, name: str, **spec: object) -> None:
    """Create a session."""
    http.post("/v1/sessions", json={"name": name, "base_lr": 0.1, **spec}).raise_for_status()


def card(http: httpx.Client, name: str) -> str:
    """Return a session's entry on the page of problems, or an empty text."""
    page = http.get("/problems").text
    found = re.search(rf'<section class="card">(?:(?!</section>).)*sessions/{name}".*?</section>',
                      page, re.DOTALL)  # fmt: skip
    return found[0] if found else ""


def reports(metric: str, *values: float | str, first: int = 0) -> list[dict[str, object]]:
    """Return what a rank reports at consecutive steps."""
    return [{"step": first + step, "metrics": {metric: each}} for step, each in enumerate(values)]


def test_a_healthy_session_is_no_problem(http: httpx.Client) -> None:
    """Neither a new session nor one that runs as it should is listed."""
    create(http, "fine", schedule={"kind": "cosine", "total_steps": 100})
    sync(http, "fine", 0)
    sync(http, "fine", 10, reports=reports("loss", *(3 - 0.1 * step for step in range(10))))
    assert card(http, "fine") == ""


def test_a_metric_that_is_no_number_is_one(http: httpx.Client) -> None:
    """NaN is reported with its step."""
    create(http, "nan")
    sync(http, "nan", 0)
    sync(http, "nan", 10, reports=reports("loss", 1.0, 2.0, "nan"))
    assert "loss is nan" in card(http, "nan")
    assert "step 2" in card(http, "nan")


def test_a_watched_metric_that_never_comes_is_one(http: httpx.Client) -> None:
    """It is one until it comes."""
    rule = {"kind": "plateau", "metric": "val_loss", "patience": 2}
    create(http, "unseen", controllers=[rule], silent_after=5)
    sync(http, "unseen", 0, 1)
    for step in range(1, 9):
        sync(http, "unseen", step, 1, reports=reports("loss", 1.0, first=step - 1))
    assert "Metric never seen: val_loss" in card(http, "unseen")
    for step in range(9, 12):
        sync(http, "unseen", step, 1, reports=reports("val_loss", 1.0, first=step - 1))
    assert "never seen" not in card(http, "unseen")


def test_a_rank_with_other_values_is_one(http: httpx.Client) -> None:
    """The page of the ranks names the rank."""
    create(http, "deviates")
    sync(http, "deviates", 0)
    sync(http, "deviates", 10, applied={"step": 3, "values": {"lr": 0.5}})
    assert "Ranks train with other values" in card(http, "deviates")


def test_ranks_that_are_missing_are_one(http: httpx.Client) -> None:
    """Of four expected ranks one is there."""
    create(http, "alone", ranks=4)
    sync(http, "alone", 0)
    assert "4 ranks are expected, and 1 were heard" in card(http, "alone")


def test_a_rate_of_nothing_and_a_plan_that_is_over_are_ones(http: httpx.Client) -> None:
    """Both concern the step in training."""
    create(http, "over", schedule={"kind": "polynomial", "total_steps": 20}, total_steps=20)
    sync(http, "over", 0, 40)
    sync(http, "over", 21, 20)
    sync(http, "over", 30, reports=reports("loss", *(1.0,) * 5, first=25))
    assert "The plan is over" in card(http, "over")
    create(http, "zero")
    body = {"kind": "set", "lr": 0.0, "reason": "a mistake"}
    http.post("/v1/sessions/zero/actions", json=body).raise_for_status()
    sync(http, "zero", 0, 40)
    sync(http, "zero", 30)
    assert "lr is 0" in card(http, "zero")


def test_an_order_for_far_away_is_one(http: httpx.Client) -> None:
    """It is far by the pace of the trainer, or by its steps."""
    create(http, "far")
    sync(http, "far", 0, progress={"step": 0, "seconds_per_step": 1.0})
    for at, reason in ((3_000, "soon"), (90_000, "typo")):
        body = {"kind": "scale", "factor": 0.5, "at": at, "reason": reason}
        http.post("/v1/sessions/far/actions", json=body).raise_for_status()
    assert "typo" in card(http, "far")
    assert "in about 1 d" in card(http, "far")
    assert "soon" not in card(http, "far")


def test_a_failed_training_is_one(http: httpx.Client) -> None:
    """The reason that its trainer gave is shown."""
    create(http, "failed")
    sync(http, "failed", 0)
    http.post("/v1/sessions/failed/finish", json={"outcome": "failed", "reason": "out of memory"})
    assert "out of memory" in card(http, "failed")


def test_a_loss_that_goes_up_is_one(http: httpx.Client) -> None:
    """It fell, and is above where it began; the page leads to halving the rate."""
    create(http, "diverges")
    sync(http, "diverges", 0, 40)
    values = [*(3 - 0.2 * step for step in range(10)), *(2.0 + step for step in range(10))]
    sync(http, "diverges", 25, reports=reports("train_loss", *values))
    assert "The loss goes up" in card(http, "diverges")
    assert "sessions/diverges/control/scale" in card(http, "diverges")
    assert "The loss goes up" in http.get("/sessions/diverges").text


@pytest.mark.parametrize(
    "values",
    [
        [3 - 0.1 * step for step in range(20)],
        [1.0] * 20,
        [3.0, 2.0, 1.0, *(1.0 + 0.1 * (step % 3) for step in range(20))],
        [1.0, 9.0],
    ],
)
def test_noise_and_flat_losses_are_none(values: list[float]) -> None:
    """A loss that falls, stays or trembles is no divergence, and neither are two values."""
    assert not list(diverging("loss", values))


def test_what_happened_is_told_by_kind_and_by_who_it_was(http: httpx.Client) -> None:
    """The newest comes first; filters are in the address."""
    create(http, "story")
    for number, actor in enumerate(("kim", "lee", "kim")):
        body = {"kind": "scale", "factor": 0.5, "at": 100 + number, "reason": f"reason-{number}"}
        http.post("/v1/sessions/story/actions", json=body, headers={"Pacesetter-Actor": actor})
    http.delete("/v1/sessions/story/actions/1", headers={"Pacesetter-Actor": "lee"})

    def told(**query: str) -> list[str]:
        text = http.get("/sessions/story/timeline", params=query).text
        return re.findall(r'<span class="text">([^<]*)', text)

    assert told()[0].startswith("lee cancelled order 1")
    assert told()[-1].startswith("The session was created")
    assert [each.partition(" ")[0] for each in told(kind="ordered")] == ["kim", "lee", "kim"]
    assert len(told(actor="lee")) == 2
    assert len(told(actor="lee", kind="cancelled")) == 1


def test_what_happened_to_all_sessions_is_told(http: httpx.Client) -> None:
    """It is filtered by session, kind, label and actor; older events are on further pages."""
    for name in ("chronicle-1", "chronicle-2"):
        create(http, name, labels={"team": name})
    body = {"kind": "scale", "factor": 0.5, "at": 100, "reason": "<i>why</i>"}
    path = "/v1/sessions/chronicle-2/actions"
    http.post(path, json=body, headers={"Pacesetter-Actor": "kim"}).raise_for_status()

    def told(**query: str) -> list[tuple[str, str]]:
        text = http.get("/timeline", params=query).text
        return re.findall(r'sessions/([\w-]+)">[^<]*</a><span class="text">([^<]*)', text)

    every = told(session="chronicle-*")
    assert [name for name, _ in every] == ["chronicle-2", "chronicle-2", "chronicle-1"]
    assert every[0][1].startswith("kim ordered for step 100")
    assert "&lt;i&gt;why" in every[0][1]
    assert [name for name, _ in told(label="team:chronicle-1")] == ["chronicle-1"]
    assert len(told(actor="kim", session="chronicle")) == 1
    assert len(told(kind="created", session="chronicle")) == 2
    first = re.search(r'data-after="(\d+)"', http.get("/timeline").text)
    assert first is not None
    earlier = told(session="chronicle", until=str(int(first[1]) - 1))
    assert [name for name, _ in earlier] == ["chronicle-2", "chronicle-1"]
