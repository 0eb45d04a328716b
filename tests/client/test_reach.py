"""A running trainer is not affected by a caller that looks far ahead."""

import time
from typing import Any

import pytest

from pacesetter import Client, Session
from serving import PATIENCE, open_http

COSINE = {"kind": "cosine", "total_steps": 5000}


@pytest.fixture(name="session")
def _session(client: Client, unique_name: str) -> Session:
    return client.create_session(unique_name, base_lr=0.1, schedule=COSINE)


def post(url: str, path: str, **body: Any) -> Any:
    with open_http(url) as http:
        return http.post(path, json=body).json()


def test_a_curious_call_leaves_an_action_near(session: Session, server_url: str) -> None:
    """After a `want` of 1,500 steps, and a take-back, an order holds where the window ends."""
    path = f"/v1/sessions/{session.name}"
    used = train(session, 0, 40)
    looked = post(server_url, f"{path}/sync", want={"start": 0, "count": 1500})
    assert looked["horizon"] <= session.horizon + 64
    used |= train(session, 40, 60)
    looked = post(server_url, f"{path}/sync", want={"start": 60, "count": 1500})
    taken = post(server_url, f"{path}/take-back", reason="a curious call")
    assert taken["horizon"] < taken["until"] == looked["horizon"]
    ordered = post(server_url, f"{path}/actions", kind="scale", factor=0.5)
    assert ordered["effective_step"] == taken["horizon"]
    used |= train(session, 60, 400)
    session.report(399, loss=1.0)
    session.flush()
    shown = client_lr(server_url, path, 400)
    assert [used[step] for step in range(400)] == shown
    assert session.attempt == 1


def train(session: Session, start: int, stop: int) -> dict[int, float]:
    """Return the rate of each step, once no window under way could move the horizon."""
    used = {step: session.lr(step) for step in range(start, stop)}
    deadline = time.monotonic() + PATIENCE
    while session._core.prefetcher.busy:
        assert time.monotonic() < deadline, "the window that was ordered ahead never came"
        time.sleep(0.001)
    return used


def client_lr(url: str, path: str, count: int) -> list[float]:
    with open_http(url) as http:
        answer = http.get(f"{path}/lr", params={"step": 0, "count": count}).json()
    rates: list[float] = answer["series"]["lr"]
    return rates


def test_an_answer_to_an_action_is_near_where_steps_take_long(
    session: Session, server_url: str
) -> None:
    """With steps of minutes one step is sealed at a time, and the answer says how far it is."""
    session.lr(0)
    session._core._pace._time = time.perf_counter() - 120.0  # as if it had taken two minutes
    for step in (1, 2):
        session.lr(step)
        session._core._pace._time = time.perf_counter() - 120.0
    answer = post(server_url, f"/v1/sessions/{session.name}/actions", kind="scale", factor=0.5)
    assert answer["effective_step"] == 3
    assert answer["steps_away"] == 1
    assert answer["seconds_away"] == pytest.approx(120.0, rel=0.2)
