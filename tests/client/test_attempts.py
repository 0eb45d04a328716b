"""Restarts from checkpoints: attempts, which process opens them, and which is fenced."""

import io
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch.distributed import checkpoint

from pacesetter import (
    Client,
    ConflictError,
    InvalidRequestError,
    ServerUnavailableError,
    Session,
    StaleAttemptError,
)
from pacesetter._torch.deferred import DeferredLR
from pacesetter.torch import RemoteLR
from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 1000}
PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


@pytest.fixture(autouse=True)
def _no_torchelastic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the environment says of a job."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def _walk(session: Session, steps: range) -> list[float]:
    return [session.lr(step) for step in steps]


def _train(scheduler: RemoteLR, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.fixture(name="curve")
def _curve(client: Client, unique_name: str) -> list[float]:
    """Create a session, and return its curve."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    curve: list[float] = client.forecast(unique_name, count=1000, points=1000)["series"]["lr"]
    return curve


# -- sessions --


def test_a_session_goes_on_in_its_new_attempt(client: Client, unique_name: str, curve: list[float]):
    """After going back, its windows, its number and its reports are those of the new attempt."""
    session = client.session(unique_name)
    assert _walk(session, range(100)) == curve[:100]
    session.restart(40)
    assert (session.attempt, session.horizon) == (2, 40)
    assert _walk(session, range(40, 200)) == curve[40:200]
    session.report(50, loss=0.5)
    session.flush()


def test_the_attempt_that_was_left_is_fenced(client: Client, unique_name: str, curve: list[float]):
    """A trainer of the old attempt reads what it has, and can neither seal nor report."""
    old, new = client.session(unique_name), client.session(unique_name)
    _walk(old, range(50))
    new.restart(20)
    with pytest.raises(StaleAttemptError, match="attempt 1"):
        _walk(old, range(50, 100_000))
    old.report(3, loss=1.0)
    with pytest.raises(StaleAttemptError):
        old.flush()
    assert _walk(new, range(20, 100)) == curve[20:100]


def test_the_same_key_is_the_same_attempt(client: Client, unique_name: str, curve: list[float]):
    """Ranks that share a key open one attempt together; a later key supersedes it."""
    _walk(client.session(unique_name), range(50))
    ranks = [client.session(unique_name, step=20, attempt_key="restart-1") for _ in range(3)]
    assert [rank.attempt for rank in ranks] == [2, 2, 2]
    for rank in ranks:
        assert _walk(rank, range(20, 60)) == curve[20:60]
    with pytest.raises(ConflictError, match="not 30"):
        client.session(unique_name, step=30, attempt_key="restart-1")
    assert client.session(unique_name, step=20, attempt_key="restart-2").attempt == 3
    with pytest.raises(StaleAttemptError, match="restart-1"):
        client.session(unique_name, step=20, attempt_key="restart-1")


def test_a_key_without_a_step_is_refused(client: Client):
    """An attempt needs a first step: the message asks for it."""
    with pytest.raises(ValueError, match="say where"):
        client.session("any", attempt_key="restart-1")


def test_nobody_goes_back_to_the_future(client: Client, unique_name: str, curve: list[float]):
    """A step that was never handed out is refused, and the session stays where it is."""
    session = client.session(unique_name)
    session.lr(0)
    with pytest.raises(InvalidRequestError, match="step 999"):
        session.restart(999)
    assert session.attempt == 1
    assert session.lr(1) == curve[1]


def test_reports_of_steps_to_come_again_are_dropped(
    fake_client: Client, fake: Any, caplog: pytest.LogCaptureFixture
):
    """What was measured before the new start still counts; the rest would be reported twice."""
    session = fake_client.session("fake")
    fake.fail = lambda request: httpx.Response(503) if b"reports" in request.content else None
    for step in range(30):
        session.lr(step)
        session.report(step, loss=float(step))
    session.restart(20)
    assert [step for step, _ in session._core.sync.reports.entries] == list(range(20))
    assert "goes back to step 20: 10 reports" in caplog.text
    fake.fail = None
    session.flush()


def test_the_controllers_are_as_they_were(client: Client, unique_name: str):
    """Cuts after the checkpoint are undone, and may be decided differently this time."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    for step, loss in enumerate([3.0, 2.0, 1.0, 1.0, 1.0]):
        session.lr(step)
        session.report(step, loss=loss)
    assert session.lr(5) == 0.025
    session.restart(3)
    for step, loss in enumerate([0.9, 0.8, 0.7], start=3):
        assert session.lr(step) == 0.1
        session.report(step, loss=loss)
    assert session.lr(6) == 0.1


# -- keys --


# -- RemoteLR --


def _through_torch(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_loading_a_checkpoint_opens_an_attempt(
    client: Client, unique_name: str, curve: list[float]
):
    """A new process that loads step 30 trains it again, in attempt 2, at the same rates."""
    first = RemoteLR(_sgd(), client.session(unique_name))
    _train(first, 30)
    saved = _through_torch(first.state_dict())
    _train(first, 30)
    second = RemoteLR(_sgd(), client.session(unique_name))
    second.load_state_dict(saved)
    assert (second.last_epoch, second.session.attempt) == (30, 2)
    assert _train(second, 60) == curve[30:90]
    with pytest.raises(StaleAttemptError):
        _train(first, 100_000)


def test_a_rollback_in_the_same_process_is_an_attempt_too(
    client: Client, unique_name: str, curve: list[float]
):
    """Each time it goes back, even with the same explicit key, is another attempt."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name), attempt_key="mine")
    _train(scheduler, 20)
    saved = scheduler.state_dict()
    for attempt in (2, 3, 4):
        _train(scheduler, 10)
        scheduler.load_state_dict(saved)
        assert (scheduler.session.attempt, scheduler.last_epoch) == (attempt, 20)
    assert _train(scheduler, 10) == curve[20:30]


def test_loading_the_present_state_is_no_restart(
    client: Client, unique_name: str, curve: list[float]
):
    """A trainer that loads what it has just saved stays in its attempt."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name))
    scheduler.load_state_dict(scheduler.state_dict())
    _train(scheduler, 20)
    scheduler.load_state_dict(scheduler.state_dict())
    assert scheduler.session.attempt == 1
    assert _train(scheduler, 10) == curve[20:30]


def test_a_life_that_ended_before_its_first_step_is_fenced(
    client: Client, unique_name: str, curve: list[float]
):
    """It opened an attempt and sealed nothing; the next start opens another at the same step."""
    first = RemoteLR(_sgd(), client.session(unique_name))
    _train(first, 30)
    saved = first.state_dict()
    _train(first, 30)
    dead = client.session(unique_name, step=30)
    second = RemoteLR(_sgd(), client.session(unique_name))
    second.load_state_dict(saved)
    assert (second.last_epoch, second.session.attempt) == (30, 3)
    assert _train(second, 60) == curve[30:90]
    with pytest.raises(StaleAttemptError):
        _walk(dead, range(200, 100_000))


def test_a_step_that_nobody_has_reached_is_no_restart(
    client: Client, unique_name: str, curve: list[float]
):
    """A run that joins a session at a later step begins there, in the first attempt."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name))
    scheduler.load_state_dict({"last_epoch": 500})
    assert scheduler.session.attempt == 1
    assert _train(scheduler, 10) == curve[500:510]


def test_a_checkpoint_of_the_first_step_is_a_restart_if_somebody_went_on(
    client: Client, unique_name: str, curve: list[float]
):
    """A job that begins anew in a session that was trained before trains it again."""
    first = RemoteLR(_sgd(), client.session(unique_name))
    saved = first.state_dict()
    _train(first, 20)
    second = RemoteLR(_sgd(), client.session(unique_name))
    second.load_state_dict(saved)
    assert second.session.attempt == 2
    assert _train(second, 10) == curve[:10]


def test_a_job_without_a_checkpoint_may_begin_again(
    client: Client, unique_name: str, curve: list[float]
):
    """`restart` opens the attempt that no loaded state asks for."""
    _train(RemoteLR(_sgd(), client.session(unique_name)), 20)
    scheduler = RemoteLR(_sgd(), client.session(unique_name))
    scheduler.restart(0, key="again")
    assert scheduler.session.attempt == 2
    assert _train(scheduler, 10) == curve[:10]


# -- steps that are trained before they are measured --


def _train_deferred(scheduler: DeferredLR, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.step()
        scheduler.advance()
    return seen


@pytest.fixture(name="at_horizon")
def _at_horizon(client: Client, unique_name: str) -> DeferredLR:
    """Return a scheduler that has trained step 4, and has not asked for step 5 yet."""
    session = client.create_session(
        unique_name, schedule=COSINE, base_lr=0.1, controllers=[PLATEAU]
    )
    scheduler = DeferredLR(_sgd(), session)
    _train_deferred(scheduler, 4)
    scheduler.step()
    assert scheduler.state_dict()["last_epoch"] == session.horizon == 5
    return scheduler


def test_a_checkpoint_at_the_horizon_opens_an_attempt(
    client: Client, unique_name: str, at_horizon: DeferredLR
):
    """All sealed steps have been trained; even so, the earlier job is fenced."""
    second = DeferredLR(_sgd(), client.session(unique_name))
    second.load_state_dict(_through_torch(at_horizon.state_dict()))
    assert (second.last_epoch, second.session.attempt) == (5, 2)
    with pytest.raises(StaleAttemptError):
        at_horizon.advance()


def test_who_trained_up_to_the_horizon_goes_on_there(at_horizon: DeferredLR):
    """Loading what it has just saved is no restart, and the step is not trained twice."""
    at_horizon.load_state_dict(at_horizon.state_dict())
    at_horizon.advance()
    assert (at_horizon.last_epoch, at_horizon.session.attempt) == (5, 1)


@pytest.mark.parametrize("how", ["restart", "load", "set"])
def test_a_step_that_was_trained_elsewhere_is_not_followed(how: str, at_horizon: DeferredLR):
    """A loop that sets the position has that step trained, not the one after it."""
    if how == "restart":
        at_horizon.restart(2)
    elif how == "load":
        at_horizon.load_state_dict({**at_horizon.state_dict(), "last_epoch": 2})
    else:
        at_horizon.last_epoch = 2
    at_horizon.advance()
    assert at_horizon.last_epoch == at_horizon.state_dict()["last_epoch"] == 2


@pytest.mark.filterwarnings("ignore")  # a warning of torch's, about its future
def test_a_distributed_checkpoint_takes_it(
    client: Client, unique_name: str, curve: list[float], tmp_path: Path
):
    """torch.distributed.checkpoint saves and loads the scheduler like any Stateful."""
    first = RemoteLR(_sgd(), client.session(unique_name))
    _train(first, 30)
    checkpoint.save({"lr": first}, checkpoint_id=tmp_path, no_dist=True)
    _train(first, 30)
    second = RemoteLR(_sgd(), client.session(unique_name))
    checkpoint.load({"lr": second}, checkpoint_id=tmp_path, no_dist=True)
    assert (second.last_epoch, second.session.attempt) == (30, 2)
    assert _train(second, 10) == curve[30:40]


def test_a_restart_that_fails_changes_nothing(fake_client: Client, fake: Any):
    """Without a server there is no attempt; the scheduler is where it was, and can try again."""
    scheduler = RemoteLR(_sgd(), fake_client.session("fake"))
    _train(scheduler, 5)
    fake.fail = lambda _: httpx.Response(503)
    with pytest.raises(ServerUnavailableError, match=r"away for 0\.\d+ s, the longest wait"):
        scheduler.restart(2)
    fake.fail = None
    assert scheduler.last_epoch == 5
    assert scheduler.get_last_lr() == [0.5]


# -- what the optimizer really held --


def _tracker(url: str, name: str) -> dict[str, Any]:
    """Return the service's tracker of the only rank."""
    with open_http(url) as http:
        (rank,) = http.get(f"/v1/sessions/{name}/ranks").json()["ranks"]
        found: dict[str, Any] = rank
        return found


def test_the_server_learns_what_the_optimizer_held(
    client: Client, server_url: str, unique_name: str, curve: list[float]
):
    """It is read back from the param groups and sent with a window, and agrees to the bit."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name))
    _train(scheduler, 300)
    applied = _tracker(server_url, unique_name)["applied"]
    assert applied["precision"] == "exact"
    assert [each["applied"] for each in applied["values"]] == [curve[applied["step"]]]


def test_another_rate_in_the_optimizer_shows_on_the_server(
    client: Client, server_url: str, unique_name: str, curve: list[float]
):
    """Where a second writer is tolerated, the rank is seen to deviate."""
    scheduler = RemoteLR(_sgd(), client.session(unique_name), verify=False)
    for _ in range(300):
        scheduler.optimizer.param_groups[0]["lr"] = 7.0
        scheduler.step()
    rank = _tracker(server_url, unique_name)
    assert rank["deviates"]
    assert [each["applied"] for each in rank["applied"]["values"]] == [7.0]
    assert rank["applied"]["values"][0]["sealed"] == curve[rank["applied"]["step"]]


def test_a_server_that_does_not_know_of_it_is_asked_once(
    fake_client: Client, fake: Any, caplog: pytest.LogCaptureFixture
):
    """An older server refuses the field: then it is left out, and nothing else is lost."""

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if b'"applied"' not in request.content:
            return None
        errors = [{"pointer": "/applied", "detail": "Extra inputs are not permitted"}]
        return httpx.Response(422, json={"code": "validation_failed", "errors": errors})

    fake.fail = refuse
    caplog.set_level(logging.INFO)
    optimizer = _sgd()
    optimizer.param_groups[0]["lr"] = 0.5  # as the session has it
    scheduler = RemoteLR(optimizer, fake_client.session("fake"))
    _train(scheduler, 300)
    assert sum("applied" in body for body in fake.bodies) == 1
    assert caplog.text == ""
