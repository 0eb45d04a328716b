"""Training longer, or by another description, from a checkpoint; and forks that load one."""

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from pacesetter import Client, ConflictError, InvalidRequestError, ResumeError, StateMismatchError
from pacesetter.torch import RemoteLR
from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 100}
LONGER = {"kind": "cosine", "total_steps": 200}


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def _train(scheduler: RemoteLR, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.fixture(name="state")
def _state(client: Client, unique_name: str) -> dict[str, Any]:
    """Train 60 steps of a session, and return the state of step 40."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name, base_lr=0.1, schedule=COSINE))
    _train(scheduler, 40)
    state = scheduler.state_dict()
    _train(scheduler, 20)
    return state


@pytest.fixture(name="longer")
def _longer(client: Client, unique_name: str) -> str:
    """Return a new name for the continuation."""
    return f"{unique_name}-longer"


def _curve(client: Client, start: int, count: int) -> list[float]:
    curve = client.preview(LONGER, base_lr=0.1, start=start, count=count)
    rates: list[float] = curve["series"]["lr"]
    return rates


def _names(client: Client) -> set[str]:
    return {each.name for each in client.sessions()}


def _attempts(url: str, name: str) -> list[int]:
    with open_http(url) as http:
        return [
            each["start"] for each in http.get(f"/v1/sessions/{name}/attempts").json()["attempts"]
        ]


def test_a_checkpoint_is_continued_by_another_description(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """With one keyword the fork begins at the checkpoint's step, on the new curve, to the bit."""
    session = client.session(longer, continues=unique_name, schedule=LONGER, total_steps=200)
    scheduler = RemoteLR(_sgd(), session)
    assert longer not in _names(client)
    scheduler.load_state_dict(state)
    assert (session.name, session.attempt, scheduler.last_epoch) == (longer, 1, 40)
    assert _train(scheduler, 100) == _curve(client, 40, 100)
    assert session.info.spec["forked_from"]["step"] == 40
    assert client.lr(unique_name, 50)["lr"] != client.lr(longer, 50)["lr"]


def test_a_step_says_it_at_once(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """This is for loops without a scheduler."""
    session = client.session(longer, continues=unique_name, step=50, schedule=LONGER)
    assert session.name == longer
    assert [session.lr(step) for step in range(50, 60)] == _curve(client, 50, 10)


def test_nothing_is_created_before_the_step_is_known(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """A training that begins without a step is told what to do, and can still do it."""
    session = client.session(longer, continues=unique_name, schedule=LONGER)
    with pytest.raises(ResumeError, match="pass step=N"):
        session.lr(0)
    scheduler = RemoteLR(_sgd(), session)
    for _ in range(2):
        with pytest.raises(ResumeError, match=f"load the checkpoint of {unique_name}"):
            scheduler.step()
    with pytest.raises(InvalidRequestError, match="No job can go back to step 5000"):
        session.restart(5000)
    assert longer not in _names(client)
    scheduler.load_state_dict(state)
    assert _train(scheduler, 5) == _curve(client, 40, 5)


def test_a_parent_that_was_never_trained_is_no_way_around(
    client: Client, unique_name: str, longer: str
):
    """There is nothing to continue: the scheduler can be made, and its first step is refused."""
    client.session(unique_name, base_lr=0.1)
    scheduler = RemoteLR(_sgd(), client.session(longer, continues=unique_name))
    assert scheduler.get_last_lr() == [0.1]
    with pytest.raises(ResumeError, match="which step"):
        scheduler.step()


def test_the_same_call_opens_what_it_has_created(
    client: Client, server_url: str, unique_name: str, longer: str, state: dict[str, Any]
):
    """A later start loads the parent's checkpoint again, or its own, in a new attempt."""
    spec: dict[str, Any] = {"continues": unique_name, "schedule": LONGER}
    first = RemoteLR(_sgd(), client.session(longer, **spec))
    first.load_state_dict(state)
    _train(first, 20)
    own = first.state_dict()
    assert own["session"] == longer
    for attempt, loaded in ((2, state), (3, own)):
        again = RemoteLR(_sgd(), client.session(longer, **spec))
        again.load_state_dict(loaded)
        assert again.session.attempt == attempt
        assert _train(again, 30) == _curve(client, loaded["last_epoch"], 30)
    assert _attempts(server_url, longer) == [40, 40, 60]
    with pytest.raises(ResumeError):
        RemoteLR(_sgd(), client.session(longer, **spec)).step()


def test_a_name_that_continues_something_else_is_refused(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """So is the same source with another description; the message says how to go on."""
    client.session(f"{unique_name}-other", base_lr=0.1)
    with pytest.raises(ConflictError, match=f"does not continue {unique_name}"):
        client.session(f"{unique_name}-other", continues=unique_name)
    client.session(longer, continues=unique_name, step=40, schedule=LONGER)
    with pytest.raises(ConflictError, match="total_steps"):
        client.session(longer, continues=unique_name, schedule=COSINE)


def test_the_errors_name_the_one_way(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """They are another description by the old name, and the old checkpoint by another name."""
    with pytest.raises(ConflictError) as described:
        client.session(unique_name, base_lr=0.1, schedule=LONGER)
    with pytest.raises(StateMismatchError) as loaded:
        RemoteLR(_sgd(), client.session(longer, base_lr=0.1)).load_state_dict(state)
    for error in (described, loaded):
        assert f"continues={unique_name!r}" in str(error.value)
    assert "retime" in str(described.value)


def test_a_converted_scheduler_continues_too(
    client: Client, unique_name: str, longer: str, state: dict[str, Any]
):
    """This includes one that was stepped to the checkpoint's step by its own state."""
    optimizer = _sgd()
    scheduler = RemoteLR.from_torch(
        StepLR(optimizer, 50), longer, client=client, continues=unique_name
    )
    scheduler.load_state_dict(state)
    assert _train(scheduler, 20) == [0.1] * 10 + [0.1 * 0.1] * 10


# -- forks that exist already --


@pytest.fixture(name="fork")
def _fork(server_url: str, unique_name: str, state: dict[str, Any]) -> str:
    """Return the name of a fork at step 40 that no job has trained."""
    name = f"{unique_name}-fork"
    with open_http(server_url) as http:
        body = {"name": name, "step": 40}
        http.post(f"/v1/sessions/{unique_name}/fork", json=body).raise_for_status()
    return name


def test_a_fork_takes_its_parents_checkpoint(
    client: Client, server_url: str, fork: str, state: dict[str, Any]
):
    """It begins at its own step; if that was trained, it begins an attempt."""
    for starts in ([40], [40, 40]):
        scheduler = RemoteLR(_sgd(), client.session(fork))
        scheduler.load_state_dict(state)
        assert scheduler.last_epoch == 40
        assert min(_train(scheduler, 30)) > 0
        assert _attempts(server_url, fork) == starts


def test_a_fork_of_a_fork_takes_what_it_shares(
    client: Client, server_url: str, unique_name: str, fork: str, state: dict[str, Any]
):
    """The server knows the lineage over generations."""
    with open_http(server_url) as http:
        body = {"name": f"{fork}-fork", "step": 40}
        http.post(f"/v1/sessions/{fork}/fork", json=body).raise_for_status()
    scheduler = RemoteLR(_sgd(), client.session(f"{fork}-fork"))
    scheduler.load_state_dict(state)
    assert len(_train(scheduler, 5)) == 5


@pytest.mark.parametrize("step", [30, 50, 5000])
def test_a_checkpoint_of_another_step_than_the_forks_is_refused(
    client: Client, unique_name: str, fork: str, state: dict[str, Any], step: int
):
    """The parent's other steps are not the fork's, and the scheduler stays where it began."""
    scheduler = RemoteLR(_sgd(), client.session(fork))
    with pytest.raises(StateMismatchError, match=r"branched off .* at step 40"):
        scheduler.load_state_dict({**state, "last_epoch": step})
    assert client._json("GET", f"/v1/sessions/{fork}")["horizon"] == 41
    assert scheduler.last_epoch == 40
    assert scheduler.get_last_lr() == [client.lr(fork, 40)["lr"]]
