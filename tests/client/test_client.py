"""The client against a real service."""

import json
import pickle
from typing import Any

import httpx
import pytest

from pacesetter import (
    Client,
    ClosedError,
    ConflictError,
    InvalidAnswerError,
    InvalidRequestError,
    NotFoundError,
)

COSINE = {"kind": "cosine", "total_steps": 100}


def test_creating_twice_opens_the_same_session(client: Client, unique_name: str):
    """All ranks may run the same line: the first creates the session, the others open it."""
    first = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    second = client.session(unique_name, schedule=COSINE, base_lr=0.1)
    third = client.session(unique_name)
    assert first.info.spec == second.info.spec == third.info.spec
    assert (first.name, first.attempt, first.series) == (unique_name, 1, ("lr",))
    assert (first.horizon, first.groups) == (0, ())


def test_a_name_taken_by_another_description_is_a_conflict(client: Client, unique_name: str):
    """A run does not silently follow another one's schedule."""
    client.create_session(unique_name, base_lr=0.1)
    with pytest.raises(ConflictError) as caught:
        client.session(unique_name, base_lr=0.2)
    assert caught.value.code == "session_exists"


def test_a_missing_session_is_not_found(client: Client, unique_name: str):
    """Opening without a description never creates one; the message names the keywords that do."""
    with pytest.raises(NotFoundError, match=r"base_lr=0\.1 and schedule=") as caught:
        client.session(unique_name)
    assert caught.value.code == "session_not_found"
    assert "POST" not in str(caught.value)
    with pytest.raises(NotFoundError, match="continues= takes the name of one that was trained"):
        client.session(f"{unique_name}-2", continues=unique_name)


def test_a_wrong_description_names_the_field(client: Client, unique_name: str):
    """The server's pointers reach the caller."""
    with pytest.raises(InvalidRequestError) as caught:
        client.session(unique_name, base_lr=0.1, schedule={"kind": "cosine", "total_steps": -1})
    assert any("total_steps" in error["pointer"] for error in caught.value.errors)


def test_everything_about_a_session_can_be_said(client: Client, unique_name: str):
    """Each keyword reaches the server under its own name."""
    plateau = {"kind": "plateau", "metric": "loss"}
    session = client.create_session(
        unique_name,
        schedule=COSINE,
        groups={"body": {"base_lr": 0.1}, "head": {"base_lr": 0.5}},
        controllers=[plateau],
        ranks=2,
        max_lookahead=7,
        total_steps=500,
        start_step=3,
        labels={"team": "vision"},
        rank=1,
    )
    spec = session.info.spec
    assert session.groups == ("body", "head")
    assert session.info.metrics == ("loss",)
    assert session.info.start_step == 3
    assert session.info.max_lookahead == 7
    assert [session.info.base_lr(group) for group in session.groups] == [0.1, 0.5]
    assert (spec["ranks"], spec["total_steps"], spec["labels"]) == (2, 500, {"team": "vision"})


def test_sessions_are_listed_page_by_page(client: Client, unique_name: str):
    """The iterator follows the page tokens to the end, and yields each session once."""
    names = [f"{unique_name}-{n:03}" for n in range(120)]
    for name in names:
        client.create_session(name, base_lr=0.1, labels={"batch": unique_name})
    listed = [info.name for info in client.sessions(label=f"batch:{unique_name}")]
    assert sorted(listed) == names


def test_an_archived_session_is_listed_as_such(client: Client, unique_name: str):
    """`archive` ends a session without hiding it."""
    session = client.create_session(unique_name, base_lr=0.1, labels={"end": unique_name})
    client.archive(unique_name)
    infos = list(client.sessions(status="archived", label=f"end:{unique_name}"))
    assert [info.name for info in infos] == [unique_name]
    with pytest.raises(ConflictError) as caught:
        session.lr(0)
    assert caught.value.code == "session_archived"


def test_reading_seals_nothing(client: Client, unique_name: str):
    """`lr` and `forecast` look ahead without sealing."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    assert client.lr(unique_name, 0) == {"step": 0, "lr": 0.1, "sealed": False}
    assert client.lr(unique_name, 0, count=3)["series"]["lr"][0] == 0.1
    curve = client.forecast(unique_name, count=101, points=11)
    assert curve["series"]["lr"][0] == 0.1
    assert abs(curve["series"]["lr"][-1]) < 1e-12
    assert client.session(unique_name).horizon == 0
    session.lr(0)
    assert client.lr(unique_name, 0)["sealed"] is True


def test_a_schedule_can_be_seen_before_it_is_used(client: Client):
    """`preview` draws a curve without a session."""
    curve = client.preview(COSINE, base_lr=0.1, count=3)
    assert curve["steps"] == [0, 1, 2]
    assert curve["series"]["lr"][0] == 0.1
    assert client.schedules()


def test_the_server_says_who_it_is(client: Client):
    """`version` needs no session."""
    assert client.version()["api"] == "v1"


def test_a_name_cannot_reach_another_path(fake_client: Client, fake: Any):
    """Slashes and dots in a name are quoted: the server refuses it, and no path is traversed."""
    fake_client.archive("../../livez?x=1#y")
    assert fake.requests[0].url.raw_path == b"/v1/sessions/..%2F..%2Flivez%3Fx%3D1%23y"


def test_a_name_is_a_text(fake_client: Client, fake: Any):
    """A name of another type is refused before anything is sent."""
    with pytest.raises(TypeError, match="not by 7"):
        fake_client.get(7)  # type: ignore[arg-type]
    assert not fake.requests


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    """The argument comes first, then `PACESETTER_URL`, then this machine."""
    monkeypatch.delenv("PACESETTER_URL", raising=False)
    assert Client().url == "http://127.0.0.1:7070"
    monkeypatch.setenv("PACESETTER_URL", "http://pace:1/")
    assert Client().url == "http://pace:1"
    assert Client("http://other:2").url == "http://other:2"


@pytest.mark.parametrize(
    "change",
    [
        {"series": []},
        {"series": [1]},
        {"series": "lr"},
        {"attempt": "1"},
        {"attempt": True},
        {"name": None},
        {"name": "another"},
        {"max_window": None},
        {"max_lookahead": 1.5},
        {"spec": []},
    ],
)
def test_a_session_described_wrongly_is_refused(change: dict[str, Any], fake: Any):
    """A server of another version is detected when the session is opened."""
    answer = {**fake.description(), **change}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    with pytest.raises(InvalidAnswerError, match="versions that fit"):
        Client("http://fake", transport=transport).session("fake")


def test_pages_that_never_end_are_refused():
    """A page that names itself as the next one is refused."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"sessions": [], "next_page_token": "again"})

    with pytest.raises(InvalidAnswerError, match="no page"):
        list(Client("http://fake", transport=httpx.MockTransport(handler)).sessions())


def test_closing_the_client_closes_its_sessions(client: Client, unique_name: str):
    """Reports are delivered, and a session that is used again says that it is closed."""
    session = client.create_session(unique_name, base_lr=0.1)
    session.lr(0)
    client.close()
    with pytest.raises(ClosedError, match="open it again"):
        session.lr(1_000_000)
    with pytest.raises(ClosedError):
        client.version()


def test_clients_and_sessions_can_be_pickled(client: Client, unique_name: str):
    """A copy in another process has its own connections, and is made without a network."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    copy = pickle.loads(pickle.dumps(session))
    assert copy is not session
    assert [copy.lr(step) for step in range(20)] == [session.lr(step) for step in range(20)]
    copy.close()


def test_nothing_but_what_was_given_is_sent(fake_client: Client, fake: Any):
    """So the server's defaults hold, today's and tomorrow's."""
    fake_client.create_session("fake", base_lr=0.5)
    sent = json.loads(fake.requests[0].content)
    assert sent.pop("attempt_key")  # the session's owner, which is no part of its description
    assert sent == {"name": "fake", "base_lr": 0.5}
