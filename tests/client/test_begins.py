"""Where a scheduler that has loaded nothing begins: where its session was sent, or forked."""

import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from distributed import scenarios
from distributed.launch import on_ranks, values
from pacesetter import Client, ConflictError, ResumeError, Session
from pacesetter.accelerate import AcceleratedRemoteLR
from pacesetter.torch import RemoteLR
from serving import open_http

FALLING = {"kind": "exponential", "gamma": 0.9}
CUTS = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the environment says of a job."""
    for name in ("TORCHELASTIC_RUN_ID", "PACESETTER_RUN", "SLURM_JOB_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)


def _sgd(rate: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=rate)


def _train(scheduler: RemoteLR, steps: int, loss: float | None = None) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step(loss)
    return seen


@pytest.fixture(name="curve")
def _curve(client: Client, unique_name: str) -> list[float]:
    """Train 20 steps of a session that falls, and return the rates."""
    session = client.session(unique_name, base_lr=0.1, schedule=FALLING)
    curve = _train(RemoteLR(_sgd(), session), 20)
    session.close()
    return curve


def _opened(client: Client, name: str) -> RemoteLR:
    return RemoteLR(_sgd(), client.session(name, step=10))


def _created(client: Client, name: str) -> RemoteLR:
    return RemoteLR.create(_sgd(), name, client=client, schedule=FALLING, step=10)


def _converted(client: Client, name: str) -> RemoteLR:
    return RemoteLR.from_torch(ExponentialLR(_sgd(), 0.9), name, client=client, step=10)


def _sent(client: Client, name: str) -> RemoteLR:
    session = client.session(name)
    session.restart(10)
    return RemoteLR(_sgd(), session)


def _sent_later(client: Client, name: str) -> RemoteLR:
    scheduler = RemoteLR(_sgd(), client.session(name))
    scheduler.session.restart(10)
    return scheduler


def _travelled(client: Client, name: str) -> RemoteLR:
    session: Session = pickle.loads(pickle.dumps(client.session(name, step=10)))
    return RemoteLR(_sgd(), session)


@pytest.mark.parametrize(
    "opened",
    [_opened, _created, _converted, _sent, _sent_later, _travelled],
    ids=lambda f: f.__name__,
)
def test_a_scheduler_begins_where_its_session_was_sent(
    opened: Callable[[Client, str], RemoteLR], client: Client, unique_name: str, curve: list[float]
):
    """After `step=` or `Session.restart`, in either order, it is at that step, with its rates."""
    scheduler = opened(client, unique_name)
    assert scheduler.last_epoch == 10
    assert _train(scheduler, 5) == curve[10:15]
    assert scheduler.session.attempt == 2


def test_a_scheduler_in_mid_run_follows_its_session(
    client: Client, unique_name: str, curve: list[float]
):
    """It is at step 6 when the session goes back to 2: the very next update uses step 2."""
    session = client.session(unique_name, resume="restart")
    schedulers = [RemoteLR(_sgd(), session) for _ in range(2)]
    for scheduler in schedulers:
        assert _train(scheduler, 6) == curve[:6]
    session.restart(2)
    assert [scheduler.last_epoch for scheduler in schedulers] == [2, 2]
    for scheduler in schedulers:
        assert _train(scheduler, 6) == curve[2:8]
    del scheduler, schedulers
    session.restart(4)
    assert _train(RemoteLR(_sgd(), session), 3) == curve[4:7]


def test_a_scheduler_that_was_led_back_opens_an_attempt_when_it_goes_back_itself(
    client: Client, unique_name: str, curve: list[float]
):
    """It joins the attempt that it was led to, and trains no step twice in it."""
    session = client.session(unique_name)
    scheduler = RemoteLR(_sgd(), session)
    session.restart(2)
    state = scheduler.state_dict()
    scheduler.load_state_dict({**state, "attempt": 1})
    assert session.attempt == 2
    assert _train(scheduler, 4) == curve[2:6]
    scheduler.load_state_dict(state)
    assert session.attempt == 3
    assert _train(scheduler, 4) == curve[2:6]


def test_accelerate_begins_where_the_session_was_sent(
    client: Client, unique_name: str, curve: list[float]
):
    """An `AcceleratedRemoteLR` behaves as a `RemoteLR` here."""
    optimizer = Accelerator(cpu=True).prepare(_sgd())
    scheduler = AcceleratedRemoteLR(optimizer, client.session(unique_name, step=10))
    assert scheduler.last_epoch == 10
    assert optimizer.param_groups[0]["lr"] == curve[10]


def test_all_ranks_begin_where_the_session_was_sent(
    server_url: str, unique_name: str, curve: list[float]
):
    """The other ranks get the step from the first; if one rank alone goes back, all are refused."""
    for rates, refused in values(on_ranks(2, scenarios.begin_at, server_url, unique_name, 10)):
        assert rates == [[rate.hex()] for rate in curve[10:15]]
        assert refused[0] == "ResumeError"
        assert "scheduler.restart(N)" in refused[1]


# -- forks --


@pytest.fixture(name="fork")
def _fork(server_url: str, client: Client, unique_name: str, curve: list[float]) -> str:
    """Return the name of a fork at step 10, with twice the rate, that no job has trained."""
    name = f"{unique_name}-fork"
    with open_http(server_url) as http:
        body = {"name": name, "step": 10, "description": {"base_lr": 0.2}}
        http.post(f"/v1/sessions/{unique_name}/fork", json=body).raise_for_status()
    return name


def _twice(curve: list[float]) -> Any:
    return pytest.approx([2 * rate for rate in curve], rel=1e-12)


@pytest.mark.parametrize("how", ["step", "restart", "follows"])
def test_what_continues_another_session_begins_where_it_was_sent(
    how: str, client: Client, unique_name: str, curve: list[float]
):
    """The fork is made at that step, and its scheduler begins there."""
    longer: dict[str, Any] = {"continues": unique_name, "base_lr": 0.2}
    optimizer = _sgd(0.2)
    if how == "step":
        scheduler = RemoteLR(optimizer, client.session(f"{unique_name}-2", step=10, **longer))
    else:
        session = client.session(f"{unique_name}-2", **longer)
        scheduler = RemoteLR(optimizer, session) if how == "follows" else None
        session.restart(10)
        scheduler = scheduler or RemoteLR(optimizer, session)
    assert scheduler.last_epoch == 10
    assert _train(scheduler, 5) == _twice(curve[10:15])


def test_a_fork_that_nobody_has_trained_begins_at_its_own_first_step(
    client: Client, fork: str, curve: list[float]
):
    """Its parent's steps are not trained again."""
    scheduler = RemoteLR(_sgd(0.2), client.session(fork))
    assert scheduler.last_epoch == 10
    assert _train(scheduler, 5) == _twice(curve[10:15])
    assert scheduler.session.attempt == 1


@pytest.mark.parametrize(("resume", "attempt"), [("restart", 2), ("continue", 1)])
def test_a_fork_that_is_run_again_begins_at_its_own_first_step(
    resume: str, attempt: int, client: Client, server_url: str, fork: str, curve: list[float]
):
    """Without a policy for reruns it is refused, as any session is."""
    _train(RemoteLR(_sgd(0.2), client.session(fork)), 5)
    with Client(server_url) as later:
        again = RemoteLR(_sgd(0.2), later.session(fork))
        with pytest.raises(ResumeError, match="step 10 would be trained again"):
            _train(again, 1)
        scheduler = RemoteLR(_sgd(0.2), later.session(fork, resume=resume))
        assert scheduler.last_epoch == 10
        assert _train(scheduler, 5) == _twice(curve[10:15])
        assert scheduler.session.attempt == attempt


def test_a_fork_that_its_launcher_starts_again_begins_at_its_own_first_step(
    client: Client,
    server_url: str,
    fork: str,
    curve: list[float],
    monkeypatch: pytest.MonkeyPatch,
):
    """A start that died before its first checkpoint goes on, in a new attempt."""
    monkeypatch.setenv("PACESETTER_RUN", "job")
    for life in ("1", "2"):
        monkeypatch.setenv("PACESETTER_RESTART", life)
        with Client(server_url) as one:
            scheduler = RemoteLR(_sgd(0.2), one.session(fork))
            assert _train(scheduler, 5) == _twice(curve[10:15])
    assert client.session(fork).attempt == 3  # one for the first life, one for the second


# -- begun again --


@pytest.mark.parametrize("lookahead", [1, 4])
@pytest.mark.parametrize("loop", ["scheduler", "session"])
def test_a_loop_that_begins_again_repeats_the_first_run_to_the_bit(
    loop: str,
    lookahead: int,
    client: Client,
    unique_name: str,
    caplog: pytest.LogCaptureFixture,
):
    """Its first report is accepted, so no cut comes late, and no warning is logged."""
    spec: dict[str, Any] = {"base_lr": 0.1, "controllers": [CUTS], "max_lookahead": lookahead}

    def run(**options: Any) -> list[float]:
        with client.session(unique_name, **options) as session:
            if loop == "scheduler":
                return _train(RemoteLR(_sgd(), session), 20, loss=1.0)
            seen = []
            for step in range(20):
                seen.append(session.lr(step))
                session.report(step, loss=1.0)
            return seen

    first = run(**spec)
    assert len(set(first)) > 3
    with caplog.at_level(logging.INFO, "pacesetter"):
        assert run(resume="restart") == first
    assert [each.message for each in caplog.records if each.levelno > logging.INFO] == []
    assert "begins again at step 0" in caplog.text
    measured = client.history(unique_name)["metrics"]["loss"]
    assert measured[0] == 1.0


def test_a_server_that_has_handed_out_nothing_says_so(
    client: Client, server_url: str, unique_name: str
):
    """The message does not count steps from 0 to -1."""
    client.create_session(unique_name, base_lr=0.1)
    with open_http(server_url) as http:
        told = {"reports": [{"step": 0, "metrics": {"loss": 1.0}}]}
        for said in (told, {"applied": {"step": 0, "values": {"lr": 0.1}}}):
            answer = http.post(f"/v1/sessions/{unique_name}/sync", json={"attempt": 1, **said})
            assert answer.status_code == 422
            assert "no step has been handed out yet" in answer.json()["detail"]
        back = {"step": 5, "key": "k"}
        answer = http.post(f"/v1/sessions/{unique_name}/attempts", json=back)
        assert "no step has been handed out yet" in answer.json()["detail"]


# -- adopted in mid-run --


def test_a_training_that_was_adopted_in_mid_run_says_how_to_resume(
    client: Client, server_url: str, unique_name: str
):
    """Its lines describe a training from step 0, so the error names the step and the right way."""
    torchs = StepLR(_sgd(), 3, 0.5)
    for _ in range(4):
        torchs.optimizer.step()
        torchs.step()
    scheduler = RemoteLR.from_torch(torchs, unique_name, client=client)
    _train(scheduler, 4)
    state, rest = scheduler.state_dict(), _train(scheduler, 4)
    with Client(server_url) as later:
        with pytest.raises(ConflictError, match=r"start_step \(0 here, 4 there\)") as refused:
            RemoteLR.from_torch(StepLR(_sgd(), 3, 0.5), unique_name, client=later)
        assert f"client.session('{unique_name}')" in str(refused.value)
        again = RemoteLR(_sgd(), later.session(unique_name))
        again.load_state_dict(state)
        assert _train(again, 4) == rest
