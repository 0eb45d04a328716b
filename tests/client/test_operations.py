"""Each operation of the two clients, once, against a real service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from both import KINDS, opened
from pacesetter import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    SessionInfo,
    StaleAttemptError,
)
from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 1000}


@pytest.fixture(name="either", scope="module", params=KINDS)
def _either(request: pytest.FixtureRequest, server_url: str) -> Iterator[Any]:
    """Return each of the clients."""
    with opened(request.param, server_url, actor="ann") as client:
        yield client


@pytest.fixture(name="session")
def _session(either: Any, unique_name: str) -> str:
    """Return the name of a new session, whose rate is 0.5 times a cosine of 1000 steps."""
    info = either.create(unique_name, base_lr=0.5, schedule=COSINE, labels={"of": unique_name})
    assert info.horizon == 0
    return unique_name


def train(url: str, name: str, steps: int) -> None:
    """Train some steps, with a loss of 1 at each."""
    path = f"/v1/sessions/{name}/sync"
    with open_http(url) as http:
        http.post(path, json={"attempt": 1, "want": {"start": 0, "count": steps}})
        reports = [{"step": step, "metrics": {"loss": 1.0}} for step in range(steps)]
        progress = {"step": steps - 1}
        body = {"attempt": 1, "reports": reports, "progress": progress}
        http.post(path, json=body).raise_for_status()


ORDERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "scale": ((0.5,), {}),
    "set": ((0.01,), {"over": 5, "ease": {"kind": "cosine"}}),
    "hold": ((), {}),
    "cooldown": ((50,), {"to_fraction": 0.1}),
    "rewarm": ((20,), {"factor": 0.25}),
    "retime": ((1500,), {"policy": "rescale"}),
    "replace": (({"kind": "linear", "total_iters": 100},), {"value": "continue"}),
    "revert": ((), {}),
    "limit": ((), {"min_lr": 1e-6, "max_lr": 1.0, "max_change": 4.0}),
}
"""How each order that suits any session is given: by position, and by keyword."""


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_reaches_the_server_as_it_was_given(either: Any, session: str, kind: str) -> None:
    """The pending order has its fields, reason, step and author; the answer names the step."""
    args, fields = ORDERS[kind]
    answer = getattr(either, kind)(session, *args, **fields, at=40, reason="to see")
    assert answer["effective_step"] == 40
    (order,) = either.orders(session)
    assert {key: order[key] for key in ("id", "at", "actor", "reason")} == {
        "id": answer["id"],
        "at": 40,
        "actor": "ann",
        "reason": "to see",
    }
    action = order["action"]
    assert action["kind"] == kind
    for value in args:
        assert value in action.values() or value.items() <= action["schedule"].items()
    for key, value in fields.items():
        assert action[key] == value or value.items() <= action[key].items()


def test_what_is_held_is_released(either: Any, session: str) -> None:
    """`release` follows `hold`, without which it would be refused."""
    with pytest.raises(InvalidRequestError, match="Nothing is held"):
        either.release(session)
    either.hold(session, at=10)
    assert either.release(session, at=20)["effective_step"] == 20


SWITCH = {
    "kind": "switch",
    "metric": "loss",
    "stages": [{"schedule": {"kind": "constant"}, "when": {"kind": "by_hand"}}],
}


def test_a_controller_is_switched(either: Any, unique_name: str) -> None:
    """`switch` moves the controller that is named to its next stage."""
    either.create(unique_name, base_lr=0.1, controllers=[SWITCH])
    assert either.switch(unique_name, 0, reason="enough")["effective_step"] == 0


def test_groups_are_named(either: Any, unique_name: str) -> None:
    """An order is for the groups that it names."""
    either.create(unique_name, groups={"body": {"base_lr": 0.1}, "head": {"base_lr": 0.2}})
    either.scale(unique_name, 0.5, groups=["head"])
    values = either.lr(unique_name, 0)
    assert (values["body.lr"], values["head.lr"]) == (0.1, 0.1)


def test_a_dry_run_changes_nothing(either: Any, session: str) -> None:
    """It returns the curves before and after, and no order is pending."""
    shown = either.scale(session, 0.5, at=100, dry_run=True)
    assert shown["after"]["series"]["lr"][0] == shown["before"]["series"]["lr"][0] / 2
    assert either.orders(session) == []


def test_any_order_can_be_written_as_the_server_takes_it(either: Any, session: str) -> None:
    """`order` sends a body; keywords are added to it."""
    body = {"kind": "scale", "factor": 0.5, "reason": "by hand"}
    assert either.order(session, body, at=30)["effective_step"] == 30
    assert either.order(session, body, dry_run=True)["warnings"]
    assert [each["reason"] for each in either.orders(session)] == ["by hand"]


@pytest.mark.parametrize("kind", [*ORDERS, "release", "switch"])
def test_an_order_is_for_the_revision_that_it_names(either: Any, session: str, kind: str) -> None:
    """It is refused if the session has another one, and none is pending."""
    args, fields = ORDERS.get(kind, ((), {}))
    with pytest.raises(ConflictError, match="revision 99"):
        getattr(either, kind)(session, *args, **fields, if_revision=99)
    assert either.orders(session) == []


def test_a_refused_order_says_which_field_it_is(either: Any, session: str) -> None:
    """`.errors` points to it; the message names it once."""
    either.limit(session, max_lr=0.6)
    with pytest.raises(InvalidRequestError) as refused:
        either.scale(session, 100)
    assert [each["pointer"] for each in refused.value.errors] == ["/factor"]
    assert str(refused.value).count("outside the limits") == 1


def test_what_a_dry_run_has_shown_is_what_is_ordered(either: Any, session: str) -> None:
    """The revision that it names is valid until something else is decided."""
    shown = either.scale(session, 0.5, dry_run=True)["revision"]
    either.order(session, {"kind": "scale", "factor": 0.5}, if_revision=shown)
    with pytest.raises(ConflictError):
        either.order(session, {"kind": "hold"}, if_revision=shown, at=50)


def test_limits_are_lifted_by_that_word_alone(either: Any, session: str) -> None:
    """An order without any limit is refused unless it is explicit."""
    with pytest.raises(InvalidRequestError, match="This would lift all limits"):
        either.limit(session)
    with pytest.raises(InvalidRequestError, match="leave it out"):
        either.limit(session, lift=True, max_lr=1.0)
    either.limit(session, max_lr=0.6)
    with pytest.raises(InvalidRequestError, match="limit"):
        either.scale(session, 2.0)
    either.limit(session, lift=True, reason="free again")
    assert either.scale(session, 2.0)["effective_step"] == 0


def test_an_order_is_known_by_its_key(either: Any, session: str) -> None:
    """The same key orders once; without one each call orders."""
    first, again = (either.scale(session, 0.5, at=30, key="mine") for _ in range(2))
    assert first["id"] == again["id"]
    assert either.scale(session, 0.5, at=30)["id"] != first["id"]
    assert len(either.orders(session)) == 2


def test_a_waiting_order_is_cancelled(either: Any, session: str) -> None:
    """It no longer waits, and cannot be cancelled twice."""
    number = either.scale(session, 0.5, at=30)["id"]
    assert either.cancel(session, number) is None
    assert either.orders(session) == []
    with pytest.raises(NotFoundError):
        either.cancel(session, number)


def test_events_of_an_unknown_kind_are_refused(either: Any, session: str) -> None:
    """Following or listing them is refused, as a wait for them would never end."""
    for follow in (False, True):
        for whose in (session, None):
            with pytest.raises(InvalidRequestError, match="acted"):
                next(iter(either.events(whose, kinds=["actd"], follow=follow)))


def test_a_record_goes_into_a_folder_that_there_is(
    either: Any, session: str, tmp_path: Path
) -> None:
    """The error names a missing folder, and not the temporary file in it."""
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*: make it first") as missing:
        either.export(session, tmp_path / "nowhere" / "record")
    assert ".part" not in str(missing.value)


def test_sessions_are_found(either: Any, session: str) -> None:
    """Lists and rows have what was created, by name, label and state."""
    info = either.get(session)
    assert isinstance(info, SessionInfo)
    label = {"labels": {"of": session}}
    assert list(either.sessions(**label)) == [info]
    assert list(either.sessions(label=f"of:{session}", status="active")) == [info]
    assert list(either.sessions(name=session[:-1] + "?", states=["running"], **label)) == [info]
    (row,) = either.status(name=session, states="running", since=3600, sort="-changed_at")
    assert row == either.status_of(session)
    assert (row["state"], row["step"], row["total_steps"]) == ("running", None, 1000)
    with pytest.raises(InvalidRequestError, match="sort"):
        list(either.status(sort="height"))


def test_a_missing_session_is_told_in_the_words_of_python(either: Any) -> None:
    """Whatever operation is called, the message names the session and no address."""
    for ask in (either.get, either.orders, either.archive, either.explain, either.columns):
        with pytest.raises(NotFoundError, match=r"no session named 'nobody'.*sessions") as caught:
            ask("nobody")
        assert "/v1" not in str(caught.value)


def test_a_description_is_refused_where_it_is_wrong(either: Any, unique_name: str) -> None:
    """`create` points at the field; an unknown keyword is never sent."""
    with pytest.raises(InvalidRequestError, match="total_steps"):
        either.create(unique_name, schedule={"kind": "cosine", "total_steps": -1}, base_lr=0.1)
    with pytest.raises(TypeError, match="has no base_rate"):
        either.create(unique_name, base_rate=0.1)


def test_pitfalls_come_with_what_was_created(either: Any, unique_name: str) -> None:
    """The session's `warnings` are what `lint` finds in its description."""
    spec = {"schedule": {"kind": "cosine", "total_steps": 10}, "total_steps": 1000, "base_lr": 0.1}
    codes = [each["code"] for each in either.create(unique_name, **spec).warnings]
    assert codes
    assert codes == [each["code"] for each in either.lint(spec)]
    assert either.lint({"base_lr": 0.1}, planned_steps=100, architecture="cnn") == []


def test_a_session_branches_off(either: Any, session: str) -> None:
    """A fork shares what was before its step, and goes on by its own description."""
    train(either.url, session, 10)
    fork = either.fork(session, f"{session}-long", step=10, description={"total_steps": 2000})
    assert fork.first_step == 10
    assert fork.spec["total_steps"] == 2000


def test_a_session_goes_back(either: Any, session: str) -> None:
    """A restart opens one attempt for each key; a key that was overtaken is stale."""
    train(either.url, session, 10)
    assert either.restart(session, step=5, key="a").attempt == 2
    assert either.restart(session, step=5, key="a").attempt == 2
    assert either.restart(session, step=5, drop_actions=True).attempt == 3
    with pytest.raises(StaleAttemptError):
        either.restart(session, step=5, key="a")
    assert [each["start"] for each in either.attempts(session)] == [0, 5, 5]


def test_steps_that_were_only_looked_at_are_taken_back(either: Any, session: str) -> None:
    """They are open again; a second time there is nothing to take back."""
    with open_http(either.url) as http:
        http.post(f"/v1/sessions/{session}/sync", json={"want": {"start": 0, "count": 50}})
    assert either.take_back(session, dry_run=True)["until"] == 50
    taken = either.take_back(session, reason="too early")
    assert (taken["horizon"], taken["until"]) == (0, 50)
    with pytest.raises(ConflictError):
        either.take_back(session)


def test_ranks_are_shown_one_by_one(either: Any, session: str) -> None:
    """Ranks that called come from all pages; `limit` bounds how many are returned."""
    train(either.url, session, 10)
    found = either.ranks(session, stale_after=60, max_behind=1000)
    assert found["summary"]["seen"] == len(found["ranks"]) == 1
    assert "next_page_token" not in found
    assert either.ranks(session, limit=0)["ranks"] == []


def test_a_training_is_said_to_be_over(either: Any, session: str) -> None:
    """It is finished with the given reason, and its labels can still be changed."""
    ended = either.finish(session, outcome="failed", reason="out of money", step=0)
    assert (ended.state, ended.ended["reason"]) == ("failed", "out of money")
    assert either.relabel(session, {"of": None, "end": "bitter"}).spec["labels"] == {
        "end": "bitter"
    }


def test_a_session_is_put_away(either: Any, session: str) -> None:
    """It is archived, pruned when it is old, and purged for good."""
    old = {"older_than": 0, "states": ["active"], "labels": {"of": session}}
    (put,) = either.prune(**old, dry_run=True)
    assert (put["name"], put["step"]) == (session, "archive")
    with pytest.raises(ConflictError):
        either.purge(session)
    assert either.archive(session) is None
    assert either.get(session).status == "archived"
    either.purge(session, dry_run=True)
    assert either.purge(session) is None
    with pytest.raises(NotFoundError):
        either.get(session)
