"""Actions over HTTP: ordered, previewed, listed, cancelled and refused."""

from typing import Any

import httpx
import pytest

from serving import open_http, quick

COSINE = {"kind": "cosine", "total_steps": 100}
GROUPS = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.4}}
STAGES = {
    "kind": "switch",
    "metric": "loss",
    "stages": [{"when": {"kind": "by_hand"}, "schedule": COSINE}],
}

EVERY_KIND: list[dict[str, Any]] = [
    {"kind": "set", "lr": 0.05},
    {"kind": "set", "lr": 0.05, "over": {"epochs": 1}, "ease": "cosine"},
    {"kind": "scale", "factor": 0.5},
    {"kind": "cooldown", "until": {"fraction": 0.9}, "to_fraction": 0.1},
    {"kind": "rewarm", "steps": 5},
    {"kind": "hold"},
    {"kind": "retime", "total_steps": {"epochs": 8}},
    {"kind": "replace", "schedule": {"kind": "step", "step_size": 5}, "value": "continue"},
    {"kind": "revert"},
    {"kind": "limit", "max_lr": 0.5},
    {"kind": "switch"},
]


@pytest.fixture(name="http")
def _http(server_url: str) -> Any:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


class Run:
    """A session that is used over HTTP."""

    def __init__(self, http: httpx.Client, name: str, **spec: Any) -> None:
        self.http, self.at = http, f"/v1/sessions/{name}"
        base = {} if "groups" in spec else {"base_lr": 0.1}
        created = http.post("/v1/sessions", json={"name": name, **base, **spec})
        assert created.status_code == 201, created.text

    def act(self, key: str = "", actor: str = "", **body: Any) -> httpx.Response:
        """Send an action."""
        headers = {"Idempotency-Key": key, "Pacesetter-Actor": actor}
        headers = {name: value for name, value in headers.items() if value}
        return self.http.post(f"{self.at}/actions", json=body, headers=headers)

    def seal(self, start: int, count: int) -> dict[str, list[float]]:
        """Ask for steps as a trainer does, window by window, since a window ends with the plan."""
        series: dict[str, list[float]] = {}
        given = 0
        while given < count:
            wish = quick(start + given, count - given)
            answer = self.http.post(f"{self.at}/sync", json=wish).raise_for_status().json()
            for name, values in answer["series"].items():
                series.setdefault(name, []).extend(values)
            given = len(next(iter(series.values())))
        return series

    def waiting(self) -> list[dict[str, Any]]:
        """Return the pending orders."""
        orders: list[dict[str, Any]] = self.http.get(f"{self.at}/actions").json()["orders"]
        return orders

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        found: list[dict[str, Any]] = self.http.get(f"{self.at}/events").json()["events"]
        return [each for each in found if each["kind"] in kinds]


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and code of a problem; the answer must be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("body", EVERY_KIND, ids=lambda body: "-".join(map(str, body))[:30])
def test_every_kind_is_taken_and_does_what_its_dry_run_showed(
    http: httpx.Client, unique_name: str, body: dict[str, Any]
) -> None:
    """The previewed curve is later sealed to the bit, if nothing else happens."""
    lengths = {"total_steps": 100, "steps_per_epoch": 10, "max_lookahead": 1000}
    run = Run(http, unique_name, schedule=COSINE, controllers=[STAGES], **lengths)
    run.seal(0, 7)
    shown = run.act(**body, at=20, dry_run=True)
    assert shown.status_code == 201
    assert run.waiting() == []
    answer = run.act(**body, at=20)
    taken = answer.json()
    assert (answer.status_code, taken["id"], taken["revision"]) == (201, 1, 1)
    assert taken["effective_step"] == shown.json()["effective_step"] == 20
    values = run.seal(7, 113)["lr"]
    curve = shown.json()["after"]
    pairs = zip(curve["steps"], curve["series"]["lr"], strict=True)
    inside = [(step, lr) for step, lr in pairs if step < 120]
    assert len(inside) > 10
    assert [lr for _, lr in inside] == [values[step - 7] for step, _ in inside]
    assert run.waiting() == []


def test_without_a_step_an_action_holds_from_the_first_that_is_not_sealed(
    http: httpx.Client, unique_name: str
) -> None:
    """The answer names that step, and sealed values stay."""
    run = Run(http, unique_name)
    assert run.seal(0, 9)["lr"] == [0.1] * 9
    assert run.act(kind="set", lr=0.05).json()["effective_step"] == 9
    assert run.seal(5, 8)["lr"] == [0.1] * 4 + [0.05] * 4


def test_who_ordered_what_and_why_can_be_read(http: httpx.Client, unique_name: str) -> None:
    """The list shows it while the order waits, and the log when it was ordered and carried out."""
    run = Run(http, unique_name)
    run.act(kind="scale", factor=0.5, reason="too hot", at=4, actor="ann@night")
    [order] = run.waiting()
    assert (order["id"], order["at"], order["actor"]) == (1, 4, "ann@night")
    assert (order["reason"], order["text"]) == ("too hot", "scaled by 0.5: too hot")
    assert order["action"]["factor"] == 0.5
    run.seal(0, 5)
    ordered, acted = run.events("ordered", "acted")
    for event in (ordered, acted):
        assert "ann@night" in event["text"]
        assert "scaled by 0.5: too hot" in event["text"]
        assert event["at"] == 4


def test_a_repeated_call_is_one_order(http: httpx.Client, unique_name: str) -> None:
    """With an Idempotency-Key the answer is the same, before and after the order is carried out."""
    run = Run(http, unique_name)
    first = run.act("once", kind="scale", factor=0.5, at=3).json()
    for _ in range(2):
        again = run.act("once", kind="scale", factor=0.5, at=3).json()
        assert (again["id"], again["effective_step"]) == (first["id"], 3)
        run.seal(0, 6)
    assert run.seal(5, 1)["lr"] == [0.05]
    assert run.act("once", kind="scale", factor=0.5, at=30, dry_run=True).status_code == 201


def test_a_cancelled_order_is_gone(http: httpx.Client, unique_name: str) -> None:
    """It is cancelled by its number, once, and only while it waits."""
    run = Run(http, unique_name)
    number = run.act(kind="scale", factor=0.5, at=3).json()["id"]
    assert http.delete(f"{run.at}/actions/{number}").status_code == 204
    assert problem(http.delete(f"{run.at}/actions/{number}")) == (404, "order_not_found")
    assert run.seal(0, 6)["lr"] == [0.1] * 6
    done = run.act(kind="scale", factor=0.5, at=6).json()["id"]
    run.seal(6, 1)
    assert problem(http.delete(f"{run.at}/actions/{done}")) == (404, "order_not_found")


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "sealed past": ({"kind": "hold", "at": 4}, (422, "step_out_of_range"), "is 5"),
    "unknown group": (
        {"kind": "hold", "groups": ["tail"]},
        (422, "action_refused"),
        "body, head",
    ),
    "beyond the limits": (
        {"kind": "set", "lr": 3.0, "over": 10},
        (422, "action_refused"),
        "`limit`",
    ),
    "nothing held": ({"kind": "release"}, (422, "action_refused"), "Use `hold`"),
    "no stages": ({"kind": "switch"}, (422, "action_refused"), "use `replace`"),
    "unknown kind": ({"kind": "holt"}, (422, "validation_failed"), "Did you mean 'hold'?"),
    "unknown field": (
        {"kind": "scale", "factor": 0.5, "foctor": 1},
        (422, "validation_failed"),
        "There is no such field",
    ),
    "unknown length": (
        {"kind": "rewarm", "steps": {"epochs": 3}},
        (422, "action_refused"),
        "steps_per_epoch",
    ),
    "limits without room": (
        {"kind": "limit", "min_lr": 0.5, "max_lr": 0.1},
        (422, "validation_failed"),
        "swap them",
    ),
    "no limits": ({"kind": "limit"}, (422, "action_refused"), '"lift": true'),
    "no limit but the least there is": (
        {"kind": "limit", "min_lr": 0},
        (422, "action_refused"),
        '"lift": true',
    ),
    "limits that are lifted": (
        {"kind": "limit", "lift": True, "max_change": 2.0},
        (422, "validation_failed"),
        "leave it out",
    ),
    "no room for a group": (
        {"kind": "limit", "max_lr": 0.1, "groups": ["body"]},
        (422, "validation_failed"),
        "leave `groups` out",
    ),
}


@pytest.mark.parametrize(("body", "expected", "hint"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("dry_run", [False, True], ids=["given", "rehearsed"])
def test_what_can_not_be_ordered_is_a_problem_that_says_what_to_do(
    http: httpx.Client,
    unique_name: str,
    body: dict[str, Any],
    expected: tuple[int, str],
    hint: str,
    dry_run: bool,
) -> None:
    """A dry run is refused as well, and the session goes on as if nothing had been asked."""
    run = Run(http, unique_name, groups=GROUPS, limits={"max_lr": 1.0})
    run.seal(0, 5)
    answer = run.act(**body, dry_run=dry_run)
    assert problem(answer) == expected
    assert hint in answer.text.replace('\\"', '"')
    assert run.waiting() == []
    assert run.seal(5, 2) == {"body.lr": [0.1] * 2, "head.lr": [0.4] * 2}


def test_an_archived_session_takes_no_order(http: httpx.Client, unique_name: str) -> None:
    """Ordering and cancelling are both a conflict."""
    run = Run(http, unique_name)
    run.act(kind="hold", at=5)
    http.delete(run.at)
    assert problem(run.act(kind="hold")) == (409, "session_archived")
    assert problem(http.delete(f"{run.at}/actions/1")) == (409, "session_archived")


def test_a_finished_session_takes_no_order(http: httpx.Client, unique_name: str) -> None:
    """The answer says why it ended."""
    stop = {"kind": "spike_guard", "metric": "loss", "max_trips": 0, "then": "stop"}
    run = Run(http, unique_name, controllers=[stop])
    run.seal(0, 1)
    body = {"reports": [{"step": 0, "metrics": {"loss": "nan"}}], "step": 1}
    assert problem(http.post(f"{run.at}/sync", json=body)) == (409, "session_finished")
    assert problem(run.act(kind="hold")) == (409, "session_finished")


FALLING = {"kind": "ramp", "end": -0.1, "steps": 300}

WARNED: dict[str, tuple[dict[str, Any], str]] = {
    "a large change": ({"kind": "scale", "factor": 0.1}, "save a checkpoint before it"),
    "above the limits": (
        {"kind": "replace", "schedule": {"kind": "linear", "end_factor": 20.0, "total_iters": 50}},
        "outside the limits",
    ),
    "below zero": (
        {"kind": "replace", "schedule": FALLING},
        "nothing could be sealed from there on",
    ),
    "too long": ({"kind": "cooldown", "steps": 90}, "but the session ends at step 80"),
    "too late": ({"kind": "hold", "at": 90}, "but the session ends at step 80"),
    "one that waits": ({"kind": "hold", "at": 20}, "Order 1 still waits for step 40"),
}


@pytest.mark.parametrize(("body", "warning"), WARNED.values(), ids=WARNED)
def test_a_dry_run_warns(
    http: httpx.Client, unique_name: str, body: dict[str, Any], warning: str
) -> None:
    """It warns of what is allowed but may be a mistake."""
    run = Run(http, unique_name, total_steps=80, limits={"max_lr": 1.5})
    run.act(kind="scale", factor=0.9, at=40)
    answer = run.act(**body, dry_run=True)
    assert answer.status_code == 201, answer.text
    assert any(warning in each for each in answer.json()["warnings"]), answer.json()["warnings"]
    quiet = run.act(kind="scale", factor=0.9, at=60, dry_run=True).json()
    assert quiet["warnings"] == []


def test_a_curve_ends_where_nobody_could_train(http: httpx.Client, unique_name: str) -> None:
    """An answer has neither NaN nor infinity; the curve before that point is shown."""
    run = Run(http, unique_name)
    law = {"kind": "exponential", "gamma": 10.0}
    shown = run.act(kind="replace", schedule=law, dry_run=True).json()
    assert 200 < shown["after"]["steps"][-1] < 310
    assert shown["before"]["series"]["lr"][0] == 0.1
