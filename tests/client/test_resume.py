"""A name that is used again: which attempt the training joins, and what happens to old steps."""

import json
import os
import pickle
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from distributed.launch import torchrun
from pacesetter import Client, ResumeError, Session, StaleAttemptError, _attempts
from pacesetter.torch import RemoteLR
from serving import PATIENCE, RunningService, open_http

RISING = {"kind": "ramp", "start": 0.0, "end": 1.0, "steps": 1000}
CUTS = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the environment says of a job."""
    for name in ("TORCHELASTIC_RUN_ID", "PACESETTER_RUN", "SLURM_JOB_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)


def _sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)


def _train(scheduler: RemoteLR, steps: int, loss: float | None = None) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step(loss)
    return seen


def _walk(session: Session, steps: range) -> list[float]:
    return [session.lr(step) for step in steps]


def _loop(session: Session, steps: int) -> list[float]:
    """Train with a loss that never improves: the rate is cut at each step from the third on."""
    seen = []
    for step in range(steps):
        seen.append(session.lr(step))
        session.report(step, loss=1.0)
    session.flush()
    return seen


def _starts(url: str, name: str) -> list[int]:
    """Return the first step of each attempt."""
    with open_http(url) as http:
        return [
            each["start"] for each in http.get(f"/v1/sessions/{name}/attempts").json()["attempts"]
        ]


@pytest.fixture(name="spec")
def _spec() -> dict[str, Any]:
    """Describe a session whose controller cuts the rate of a loss that stands still."""
    return {"base_lr": 0.1, "controllers": [CUTS]}


@pytest.fixture(name="trained")
def _trained(client: Client, unique_name: str, spec: dict[str, Any]) -> list[float]:
    """Return the rates of six steps of an earlier training."""
    return _loop(client.session(unique_name, **spec), 6)


# -- a training that begins without a policy --


def test_a_loop_run_again_is_refused_at_its_first_step(
    client: Client, unique_name: str, spec: dict[str, Any], trained: list[float]
):
    """It never trains on decisions made for the run before, and is told both ways out."""
    again = client.session(unique_name, **spec)
    for _ in range(2):  # not even once
        with pytest.raises(ResumeError) as caught:
            again.lr(0)
    said = str(caught.value)
    assert unique_name in said
    assert "handed out the steps below 6" in said
    for way in ("another name", "step=N", "resume='restart'", "resume='continue'"):
        assert way in said


@pytest.mark.parametrize("ask", ["lr", "values", "window"])
def test_however_it_asks(client: Client, unique_name: str, trained: list[float], ask: str):
    """A session that is opened by its name alone is treated alike."""
    session = client.session(unique_name)
    with pytest.raises(ResumeError):
        getattr(session._core if ask == "window" else session, ask)(3)


def test_a_scheduler_run_again_is_refused_at_its_first_step(
    client: Client, unique_name: str, spec: dict[str, Any]
):
    """Not before, as a checkpoint may be loaded; the optimizer's step was the last one."""
    _train(RemoteLR(_sgd(), client.session(unique_name, **spec)), 6, loss=1.0)
    again = RemoteLR(_sgd(), client.session(unique_name, **spec))
    for _ in range(2):
        with pytest.raises(ResumeError, match="step 0 would be trained again"):
            again.step()
    assert (again.last_epoch, again.session.attempt) == (0, 1)


def test_a_converted_scheduler_run_again_is_refused(client: Client, unique_name: str):
    """`from_torch` takes the policy, and passes it on."""

    def opened(**options: Any) -> RemoteLR:
        scheduler = StepLR(_sgd(), 3)
        return RemoteLR.from_torch(scheduler, unique_name, client=client, **options)

    rates = _train(opened(), 6)
    with pytest.raises(ResumeError):
        opened().step()
    again = opened(resume="restart")
    assert _train(again, 6) == rates
    assert again.session.attempt == 2


def test_to_begin_again_is_a_new_attempt(
    client: Client, unique_name: str, spec: dict[str, Any], trained: list[float]
):
    """The controllers start anew; their earlier decisions belong to the first attempt."""
    again = client.session(unique_name, resume="restart", **spec)
    assert _loop(again, 6) == trained
    assert again.attempt == 2
    scheduler = RemoteLR(_sgd(), client.session(unique_name, resume="restart"))
    assert _train(scheduler, 3, loss=0.0) == trained[:3]
    assert scheduler.session.attempt == 3


def test_what_operators_ordered_stays_when_it_begins_again(
    client: Client, server_url: str, unique_name: str
):
    """It stays as in every attempt; the new attempt begins at the first step asked for."""
    _loop(client.session(unique_name, base_lr=0.1, max_lookahead=1), 6)
    client._json("POST", f"/v1/sessions/{unique_name}/actions", body={"kind": "scale", "factor": 2})
    again = client.session(unique_name, resume="restart")
    assert _walk(again, range(3, 9)) == [0.1] * 3 + [0.2] * 3
    assert _starts(server_url, unique_name) == [0, 3]


def test_to_continue_follows_what_is_sealed(
    client: Client, unique_name: str, trained: list[float], caplog: pytest.LogCaptureFixture
):
    """It gets the same values, in the same attempt, without a warning."""
    again = client.session(unique_name, resume="continue")
    assert _walk(again, range(6)) == trained
    assert again.attempt == 1
    scheduler = RemoteLR(_sgd(), client.session(unique_name, resume="continue"))
    assert _train(scheduler, 6) == trained
    assert caplog.text == ""


def test_another_policy_is_refused(client: Client, unique_name: str):
    """Nothing is created either."""
    with pytest.raises(ValueError, match="choose from error, restart, continue"):
        client.session(unique_name, base_lr=0.1, resume="rewind")
    assert unique_name not in {each.name for each in client.sessions()}


# -- a training that says where it goes on --


def test_whoever_goes_back_is_not_asked(client: Client, unique_name: str, trained: list[float]):
    """It may go back by `step=`, by `restart`, or by a checkpoint."""
    assert client.session(unique_name, step=2).lr(2) == trained[2]
    session = client.session(unique_name)
    session.restart(1)
    assert session.lr(1) == trained[1]
    scheduler = RemoteLR(_sgd(), client.session(unique_name))
    scheduler.load_state_dict({"last_epoch": 1})
    assert _train(scheduler, 1) == trained[1:2]
    assert scheduler.session.attempt == 4


def test_steps_that_nobody_has_trained_are_trained(
    client: Client, unique_name: str, trained: list[float]
):
    """A trainer may go on at the horizon."""
    again = client.session(unique_name)
    assert again.lr(6) <= trained[5]
    assert again.attempt == 1


def test_looking_is_not_training(client: Client, unique_name: str, trained: list[float]):
    """Reading is not judged, and neither is a session that another process has opened."""
    assert client.lr(unique_name, 3)["lr"] == trained[3]
    info = client.session(unique_name).info
    assert client.follow(info).lr(3) == trained[3]


def test_a_session_that_travels_is_judged_where_it_trains(
    client: Client, unique_name: str, trained: list[float]
):
    """Passing it from a driver to a worker does not bypass the check."""
    with _travelled(client.session(unique_name)) as worker, pytest.raises(ResumeError):
        worker.lr(0)
    with _travelled(client.session(unique_name, resume="restart")) as again:
        assert (again.lr(0), again.attempt) == (0.1, 2)


def test_a_session_that_has_travelled_has_begun_its_training(client: Client, unique_name: str):
    """A driver that opens it again, for a worker that trains it again, runs it again."""
    with _travelled(client.session(unique_name, base_lr=0.1)) as worker:
        worker.lr(0)
    with _travelled(client.session(unique_name)) as worker, pytest.raises(ResumeError):
        worker.lr(0)


def _travelled(session: Session) -> closing[Session]:
    """Return a session as another process gets it, with its own connections."""
    return closing(pickle.loads(pickle.dumps(session)))


# -- siblings --


@pytest.fixture(name="pair")
def _pair(client: Client, unique_name: str) -> list[RemoteLR]:
    """Return two optimizers on a session each, opened for one training."""
    spec: dict[str, Any] = {"base_lr": 0.1, "schedule": RISING}
    return [RemoteLR(_sgd(), client.session(unique_name, **spec)) for _ in range(2)]


def _in_turn(pair: list[RemoteLR], steps: int) -> None:
    for _ in range(steps):
        for scheduler in pair:
            scheduler.optimizer.step()
            scheduler.step()


def test_two_optimizers_of_one_training_share_its_attempt(pair: list[RemoteLR]):
    """Muon beside Adam: the second session of a training that has not moved is its sibling."""
    _in_turn(pair, 10)
    assert [each.session.attempt for each in pair] == [1, 1]


def test_two_optimizers_go_back_in_one_attempt(
    client: Client, unique_name: str, pair: list[RemoteLR]
):
    """This holds in a new process and in this one; going back once more is one more attempt."""
    _in_turn(pair, 10)
    states = [each.state_dict() for each in pair]
    _in_turn(pair, 10)
    resumed = [RemoteLR(_sgd(), client.session(unique_name)) for _ in range(2)]
    for attempt, schedulers in ((2, resumed), (3, resumed)):
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)
        assert [each.session.attempt for each in schedulers] == [attempt, attempt]
        _in_turn(schedulers, 5)
    assert {each.last_epoch for each in resumed} == {15}
    with pytest.raises(StaleAttemptError):
        _in_turn(pair, 10_000)


def test_two_optimizers_on_one_session_go_back_in_one_attempt(client: Client, unique_name: str):
    """The second optimizer finds the session in the attempt already."""
    session = client.session(unique_name, base_lr=0.1, schedule=RISING)
    pair = [RemoteLR(_sgd(), session) for _ in range(2)]
    _in_turn(pair, 10)
    states = [each.state_dict() for each in pair]
    again = client.session(unique_name)
    resumed = [RemoteLR(_sgd(), again) for _ in range(2)]
    for attempt in (2, 3):
        for scheduler, state in zip(resumed, states, strict=True):
            scheduler.load_state_dict(state)
        _in_turn(resumed, 5)
        assert again.attempt == attempt


def test_two_optimizers_begin_again_in_one_attempt(
    client: Client, unique_name: str, pair: list[RemoteLR]
):
    """The policy opens one attempt for a training, and not one for each of its sessions."""
    _in_turn(pair, 10)
    again = [RemoteLR(_sgd(), client.session(unique_name, resume="restart")) for _ in range(2)]
    _in_turn(again, 5)
    assert [each.session.attempt for each in again] == [2, 2]


def test_a_setup_that_is_run_twice_is_one_training(client: Client, unique_name: str):
    """The cell that makes the scheduler may run again before the one that trains."""
    for _ in range(3):
        scheduler = RemoteLR(_sgd(), client.session(unique_name, base_lr=0.1))
    _train(scheduler, 5)
    assert scheduler.session.attempt == 1


# -- launchers --


def _env(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_x/none_1/attempt_0/0/error.json",
    "WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "1",
}


def test_ranks_of_one_life_go_on_beside_each_other(
    client: Client, unique_name: str, trained: list[float], monkeypatch: pytest.MonkeyPatch
):
    """Each rank that opens the session by itself begins it again in the attempt that they share."""
    _env(monkeypatch, **TORCHRUN)
    ranks = [client.session(unique_name, rank=rank, resume="restart") for rank in range(2)]
    assert [rank.lr(0) for rank in ranks] == [0.1, 0.1]
    assert [rank.attempt for rank in ranks] == [2, 2]


def test_a_rerun_in_one_life_of_a_launched_process_is_refused(
    client: Client, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """The script has started it again, and not the launcher."""
    _env(monkeypatch, **TORCHRUN)
    _train(RemoteLR(_sgd(), client.session(unique_name, base_lr=0.1)), 5)
    with pytest.raises(ResumeError):
        RemoteLR(_sgd(), client.session(unique_name)).step()
    again = RemoteLR(_sgd(), client.session(unique_name, resume="restart"))
    _train(again, 5)
    assert again.session.attempt == 2


def test_a_session_made_beforehand_is_known_by_later_lives(
    client: Client, server_url: str, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """Once opened by name under a launcher, it belongs to that job."""
    client._json("POST", "/v1/sessions", body={"name": unique_name, "base_lr": 0.1})
    _env(monkeypatch, **TORCHRUN)
    _train(RemoteLR(_sgd(), client.session(unique_name)), 5)
    _env(monkeypatch, TORCHELASTIC_RESTART_COUNT="1")
    with Client(server_url) as later:
        scheduler = RemoteLR(_sgd(), later.session(unique_name))
        assert _train(scheduler, 5) == [0.1] * 5
    assert scheduler.session.attempt == 3


def _scaled(patch: pytest.MonkeyPatch, trainings: dict[Any, Any], ranks: int) -> None:
    """Act as a process of a life that torchrun has started on two nodes, with what it remembers."""
    patch.setattr(_attempts, "_trainings", trainings)
    _env(patch, TORCHELASTIC_RUN_ID="rdzv", TORCHELASTIC_RESTART_COUNT="0", RANK="0")
    _env(patch, WORLD_SIZE=str(ranks), GROUP_WORLD_SIZE="2")


@pytest.mark.parametrize("steps", [0, 3])
def test_a_job_that_goes_back_to_its_number_of_workers_lives_on(
    client: Client, unique_name: str, monkeypatch: pytest.MonkeyPatch, steps: int
):
    """A first rank that opens for all draws a new key; what is left of older lives is fenced."""
    lives: list[tuple[int, dict[Any, Any], Session]] = []
    for ranks in (16, 24, 16, 16, 24, 16):
        memory: dict[Any, Any] = {}
        _scaled(monkeypatch, memory, ranks)
        with client.for_all_ranks():
            session = client.session(unique_name, base_lr=0.1, schedule=RISING)
        for step in range(steps):
            session.lr(step)
        lives.append((ranks, memory, session))
    assert session.attempt == 5  # the second 16 in a row is named as the first, and follows it
    for ranks, memory, older in lives[:2]:
        _scaled(monkeypatch, memory, ranks)
        with pytest.raises(StaleAttemptError):
            older.lr(500)  # which it did not get in time
        if ranks == 24 and not steps:  # with a name of its own, and no training that has moved
            with client.for_all_ranks(), pytest.raises(StaleAttemptError):
                client.session(unique_name)
    assert session.lr(steps) == pytest.approx(steps / 1000)


def test_a_rank_alone_is_told_why_its_key_is_over(
    client: Client, unique_name: str, monkeypatch: pytest.MonkeyPatch
):
    """It cannot know whether it belongs to the old life of that name, and takes no session away."""
    for ranks in (16, 24):
        _scaled(monkeypatch, {}, ranks)
        client.session(unique_name, base_lr=0.1, schedule=RISING).lr(0)
    _scaled(monkeypatch, {}, 16)
    with pytest.raises(StaleAttemptError, match=r"open_session.*restart\(step, key="):
        client.session(unique_name, base_lr=0.1, schedule=RISING).lr(0)


def _torchrun(ranks: int, folder: Path, url: str, name: str, *options: str) -> list[dict[str, Any]]:
    """Run `rerun.py` with one restart to spare; return what each rank of its last life has seen."""
    command = [*torchrun(forks=ranks == 1), f"--nproc-per-node={ranks}"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]  # named "none", any port
    command += ["--nnodes=1", "--max-restarts=1", "--monitor-interval=0.1"]
    script = HERE.parent / "distributed" / "rerun.py"
    done = subprocess.run(
        [*command, str(script), url, name, str(folder), *options],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    life = max(int(path.name.partition("-")[0]) for path in folder.glob("*.json"))
    return [json.loads((folder / f"{life}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_that_its_launcher_starts_again_goes_on_and_a_rerun_does_not(
    ranks: int, client: Client, server_url: str, unique_name: str, tmp_path: Path
):
    """A worker that dies before the first checkpoint costs an attempt.

    The command given again is another training, however many restarts torchrun had left.
    """
    client._json(
        "POST", "/v1/sessions", body={"name": unique_name, "base_lr": 0.1, "schedule": RISING}
    )
    curve = client.forecast(unique_name, count=20)["series"]["lr"]
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
    for rank in _torchrun(ranks, first, server_url, unique_name, "--dies-at=7"):
        assert (rank["rates"], rank["failed"]) == (curve, "")
    assert _starts(server_url, unique_name) == [0, 0, 0]
    for rank in _torchrun(ranks, again, server_url, unique_name):
        assert (rank["failed"], rank["rates"]) == ("ResumeError", curve[:1])
    assert _starts(server_url, unique_name) == [0, 0, 0]


# -- sessions that were opened by a file --


@pytest.mark.parametrize("resume", ["error", "restart", "continue"])
def test_what_was_opened_by_a_file_is_judged_when_the_server_answers(
    service: RunningService, tmp_path: Path, resume: str
):
    """If another training began meanwhile, it is treated as any session that was trained before."""
    path = tmp_path / "run.json"
    with Client(service.url) as client:
        client._json("POST", "/v1/sessions", body={"name": "run", "base_lr": 0.1})
        client.export_bootstrap("run", path)
        _loop(client.session("run"), 50)
    service.kill()
    with Client(service.url, retry_for=0.1, max_wait=PATIENCE, on_outage="forecast") as client:
        session = client.session("run", bootstrap=path, resume=resume)
        assert _walk(session, range(5)) == [0.1] * 5
        assert not session._core.met
        service.start()
        if resume == "error":
            with pytest.raises(ResumeError, match="step 0 would be trained again"):
                _walk(session, range(5, 100_000))
            return
        session.report(2, loss=0.5)
        session.flush()
        assert session.attempt == (2 if resume == "restart" else 1)
