"""Tokens with bounds, over HTTP against a real service: the most that an agent can change."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from pacesetter_service.api.access import ACCESS, BOUNDED, word_of
from pacesetter_service.core.bounds import BY_DEFAULT
from serving import RunningService, open_http

ADMIN = "the-admins-own-token-that-nobody-guesses"

Bounded = Callable[..., httpx.Client]


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Return a service of this module that requires tokens."""
    database = tmp_path_factory.mktemp("bounds") / "pacesetter.db"
    with RunningService(database, admin_token=ADMIN) as service:
        yield service


@pytest.fixture(name="admin", scope="module")
def _admin(server: RunningService) -> Iterator[httpx.Client]:
    """Return a client with the admin's token."""
    with open_http(server.url) as http:
        http.headers["authorization"] = f"Bearer {ADMIN}"
        yield http


_authors = itertools.count()


@pytest.fixture(name="bounded")
def _bounded(admin: httpx.Client) -> Iterator[Bounded]:
    """Return a function that makes a client of a new author, with bounds."""
    opened = []

    def made(name: str = "", **bounds: Any) -> httpx.Client:
        body = {"name": name or f"agent-{next(_authors)}", "role": "operator", "bounds": bounds}
        answer = admin.post("/v1/tokens", json=body)
        assert answer.status_code == 201, answer.text
        http = open_http(str(admin.base_url))
        http.headers["authorization"] = f"Bearer {answer.json()['token']}"
        opened.append(http)
        return http

    yield made
    for http in opened:
        http.close()


@pytest.fixture(name="session")
def _session(admin: httpx.Client, unique_name: str) -> str:
    """Return the address of a session whose rate falls linearly from 0.1 to 0 at step 1000."""
    body = {
        "name": unique_name,
        "base_lr": 0.1,
        "total_steps": 1000,
        "schedule": {"kind": "linear", "start_factor": 1.0, "end_factor": 0.1, "total_iters": 1000},
    }
    admin.post("/v1/sessions", json=body).raise_for_status()
    return f"/v1/sessions/{unique_name}"


def _order(http: httpx.Client, session: str, **body: Any) -> httpx.Response:
    return http.post(f"{session}/actions", json=body)


def _said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


REFUSED = (403, "beyond_bounds")

FACTORS: dict[str, tuple[dict[str, Any], str]] = {
    "scale up": ({"kind": "scale", "factor": 2.5}, "2.5 times"),
    "scale down": ({"kind": "scale", "factor": 0.25}, "0.25 times"),
    "set": ({"kind": "set", "lr": 0.5}, "At step 100 lr"),
    "set in the end": ({"kind": "set", "lr": 0.5, "over": 50}, "times as much"),
    "cooldown": ({"kind": "cooldown", "steps": 30, "to_fraction": 0.1}, "times as much"),
    "rewarm": ({"kind": "rewarm", "steps": 30, "factor": 0.1}, "0.1 times"),
    "hold, at the plan's end": ({"kind": "hold"}, "times as much"),
    "replace": (
        {"kind": "replace", "schedule": {"kind": "exponential", "gamma": 0.5}},
        "times as much",
    ),
    "retime": ({"kind": "retime", "total_steps": 5000}, "times as much"),
}


@pytest.mark.parametrize(("order", "why"), FACTORS.values(), ids=FACTORS)
def test_a_change_beyond_the_factors_is_refused_at_whatever_step_it_is(
    bounded: Bounded, session: str, order: dict[str, Any], why: str
) -> None:
    """A dry run is refused as the order is, both name the step, and nothing is changed."""
    agent = bounded(factor_range=[0.5, 2.0], actions=[*BY_DEFAULT, "replace", "retime"])
    for dry_run in (True, False):
        answer = _order(agent, session, **order, at=100, dry_run=dry_run)
        assert _said(answer) == REFUSED, answer.text
        assert why in answer.json()["detail"]
    assert agent.get(session).json()["revision"] == 0


def test_the_end_of_a_long_plan_is_looked_at_too(
    admin: httpx.Client, bounded: Bounded, unique_name: str
) -> None:
    """A hold that is harmless for 1000 steps is refused for its effect at the end."""
    schedule = {"kind": "cosine", "total_steps": 50_000, "min_lr": 0.001}
    body = {"name": unique_name, "base_lr": 0.1, "schedule": schedule}
    admin.post("/v1/sessions", json=body).raise_for_status()
    agent, session = bounded(factor_range=[0.5, 2.0]), f"/v1/sessions/{unique_name}"
    assert _said(_order(agent, session, kind="hold")) == REFUSED
    assert _order(bounded(factor_range=[0, 101]), session, kind="hold").status_code == 201


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "scale", "factor": 2.0},
        {"kind": "scale", "factor": 0.5},
        {"kind": "set", "lr": 0.015},
        {"kind": "rewarm", "steps": 30, "factor": 0.5},
    ],
    ids=["largest", "smallest", "set near it", "rewarm"],
)
def test_a_change_within_the_factors_is_taken(
    bounded: Bounded, session: str, order: dict[str, Any]
) -> None:
    """Only the ratio to the plan from the order's step on counts."""
    agent = bounded(factor_range=[0.5, 2.0])
    assert _said(_order(agent, session, **order, at=990)) == (201, "")


def test_without_a_range_only_kinds_bound_a_change(bounded: Bounded, session: str) -> None:
    """A token without factors allows any factor."""
    assert _order(bounded(), session, kind="scale", factor=50).status_code == 201


def test_kinds_that_are_not_allowed_are_refused_with_those_that_are(
    bounded: Bounded, session: str
) -> None:
    """By default an agent may change the height and stop the clock, and nothing else."""
    for kind in ("limit", "replace", "revert", "switch", "retime"):
        more = {"replace": {"schedule": "constant"}, "retime": {"total_steps": 900}}.get(kind, {})
        answer = _order(bounded(), session, kind=kind, **more)
        assert _said(answer) == (403, "not_allowed"), answer.text
        assert all(each in answer.json()["detail"] for each in (kind, "scale", "hold"))
    assert _said(_order(bounded(actions=["hold"]), session, kind="scale", factor=0.5)) == (
        403,
        "not_allowed",
    )
    assert _order(bounded(actions=["hold"]), session, kind="hold").status_code == 201


def test_changes_are_counted_by_the_steps_that_they_hold_from(
    bounded: Bounded, session: str
) -> None:
    """No window of that length holds more, in any order; the refusal names a free step."""
    agent = bounded(changes={"count": 2, "per_steps": 100})
    for at in (50, 149):
        assert _order(agent, session, kind="scale", factor=0.9, at=at).status_code == 201
    for at in (50, 100, 149):
        answer = _order(agent, session, kind="scale", factor=0.9, at=at)
        assert _said(answer) == REFUSED
        assert "from step 150 on" in answer.json()["detail"]
    assert _order(agent, session, kind="scale", factor=0.9, at=150).status_code == 201
    assert _said(_order(agent, session, kind="scale", factor=0.9, at=248)) == REFUSED
    assert _order(agent, session, kind="scale", factor=0.9, at=249).status_code == 201


def test_a_cancelled_change_counts_and_a_repeated_one_does_not(
    bounded: Bounded, session: str
) -> None:
    """An agent that cancels its orders gains none, and a retry costs none."""
    agent = bounded(changes={"count": 1, "per_steps": 100})
    body, key = {"kind": "scale", "factor": 0.9, "at": 50}, {"idempotency-key": "once"}
    first, again = (agent.post(f"{session}/actions", json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert agent.delete(f"{session}/actions/{first.json()['id']}").status_code == 204
    assert _said(_order(agent, session, kind="hold", at=60)) == REFUSED


def test_another_token_of_the_same_author_shares_the_count(bounded: Bounded, session: str) -> None:
    """A replacement token brings no new changes; another author has a separate count."""
    changes = {"count": 1, "per_steps": 1000}
    for name, status in (("rita", 201), ("rita", 403), ("robert", 201)):
        agent = bounded(name, changes=changes)
        assert _order(agent, session, kind="scale", factor=0.9).status_code == status


def test_the_count_outlives_the_service_and_a_restart_of_the_job(
    server: RunningService, admin: httpx.Client, bounded: Bounded, session: str
) -> None:
    """It is in the session's record: neither a new process nor a new attempt resets it."""
    agent = bounded(changes={"count": 1, "per_steps": 1000})
    want = {"attempt": 1, "progress": {"step": 0}, "want": {"start": 0, "count": 8}}
    admin.post(f"{session}/sync", json=want).raise_for_status()
    assert _order(agent, session, kind="scale", factor=0.9).json()["effective_step"] == 8
    server.kill()
    server.start()
    assert _said(_order(agent, session, kind="hold")) == REFUSED
    body = {"step": 2, "key": "again"}
    admin.post(f"{session}/attempts", json=body).raise_for_status()
    assert _said(_order(agent, session, kind="hold")) == REFUSED


def test_the_count_goes_along_with_an_export(
    admin: httpx.Client, bounded: Bounded, session: str
) -> None:
    """An imported session counts what was counted before its export."""
    agent = bounded(changes={"count": 1, "per_steps": 1000})
    _order(agent, session, kind="scale", factor=0.9).raise_for_status()
    record = admin.get(f"{session}/export").content
    copy = f"{session}-copy"
    lines = {"content-type": "application/x-ndjson"}
    name = copy.rpartition("/")[2]
    admin.post(f"/v1/import?name={name}", content=record, headers=lines).raise_for_status()
    assert _said(_order(agent, copy, kind="hold")) == REFUSED


def test_it_cancels_its_own_orders_alone(
    admin: httpx.Client, bounded: Bounded, session: str
) -> None:
    """An agent cannot cancel what an operator has ordered."""
    number = _order(admin, session, kind="cooldown", steps=10, at=500).json()["id"]
    assert _said(bounded().delete(f"{session}/actions/{number}")) == REFUSED
    assert len(admin.get(f"{session}/actions").json()["orders"]) == 1


@pytest.mark.parametrize("call", [call for call, needed in ACCESS.items() if needed != "public"])
def test_it_makes_no_call_that_changes_anything_unless_that_is_allowed(
    bounded: Bounded, call: str
) -> None:
    """A new call is refused until it is classified; calls that read are let through."""
    method, _, path = call.partition(" ")
    asked = bounded().stream(
        method,
        re.sub(r"{\w+}", "1", path.replace("{name}", "nowhere")),
        headers={"content-type": "application/json"},
        **({"content": "{}"} if method in ("POST", "PATCH") else {}),
    )
    with asked as answer:  # a feed that is let through never ends
        if answer.is_error:
            answer.read()
    word = word_of(method, path)
    if ACCESS[call] == "admin":
        assert _said(answer) == (403, "forbidden")
    elif word == "":
        assert answer.status_code not in (401, 403)
    else:
        assert _said(answer) == (403, "not_allowed")
        assert word is None or repr(word) in answer.json()["detail"]


def test_forks_restarts_and_taking_back_can_be_allowed(
    admin: httpx.Client, bounded: Bounded, session: str
) -> None:
    """Each is allowed by its own word, and by no other."""
    admin.get(f"{session}/lr?step=0")
    admin.post(f"{session}/sync", json={"want": {"start": 0, "count": 4}}).raise_for_status()
    bodies = {
        "fork": {"name": session.rpartition("/")[2] + "-fork", "step": 1},
        "take_back": {"dry_run": True},
        "restart": {"step": 1, "key": "again"},
    }
    paths = {word: call.rpartition("/")[2] for call, word in BOUNDED.items() if word}
    assert set(paths) == set(bodies)
    for word, body in bodies.items():
        others = [each for each in bodies if each != word]
        path = f"{session}/{paths[word]}"
        assert _said(bounded(actions=others).post(path, json=body)) == (403, "not_allowed")
        assert bounded(actions=[word]).post(path, json=body).status_code in (200, 201)


def test_bounds_are_shown_in_lists(admin: httpx.Client, bounded: Bounded) -> None:
    """Defaults are included; a token without bounds shows none."""
    bounded("shown", factor_range=[0.5, 2.0], changes={"count": 3, "per_steps": 1000})
    admin.post("/v1/tokens", json={"name": "unbound", "role": "viewer"}).raise_for_status()
    listed = {each["name"]: each["bounds"] for each in admin.get("/v1/tokens").json()["tokens"]}
    assert listed["unbound"] is None
    assert listed["shown"] == {
        "factor_range": [0.5, 2.0],
        "changes": {"count": 3, "per_steps": 1000},
        "actions": list(BY_DEFAULT),
    }


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ({"role": "trainer", "bounds": {}}, "'operator'"),
        ({"role": "admin", "bounds": {}}, "'operator'"),
        ({"bounds": {"factor_range": [2.0, 0.5]}}, "with 1 between"),
        ({"bounds": {"factor_range": [2.0, 3.0]}}, "with 1 between"),
        ({"bounds": {"actions": ["scal"]}}, "Did you mean 'scale'"),
        ({"bounds": {"actions": ["zzzz"]}}, "take_back"),
        ({"bounds": {"changes": {"count": 0, "per_steps": 5}}}, "/bounds/changes/count"),
        ({"bounds": {"changes": {"count": 257, "per_steps": 5}}}, "256"),
        ({"bounds": {"factors": [1, 2]}}, "factor_range"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(
    admin: httpx.Client, token: dict[str, Any], why: str
) -> None:
    """The refusal has the place, and what would be right."""
    answer = admin.post("/v1/tokens", json={"name": "odd", "role": "operator", **token})
    assert answer.status_code == 422
    assert why in answer.text


def test_an_order_can_be_for_one_revision_alone(admin: httpx.Client, session: str) -> None:
    """An order that a dry run has shown is refused once something else was decided."""
    shown = _order(admin, session, kind="scale", factor=0.5, dry_run=True).json()["revision"]
    assert _order(admin, session, kind="hold", at=900).status_code == 201
    body = {"kind": "scale", "factor": 0.5, "if_revision": shown}
    assert _said(_order(admin, session, **body)) == (409, "revision_changed")
    assert _said(_order(admin, session, **body, dry_run=True)) == (409, "revision_changed")
    assert _order(admin, session, **{**body, "if_revision": shown + 1}).status_code == 201
