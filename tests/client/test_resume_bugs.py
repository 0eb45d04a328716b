"""Twelve ways in which learning rates go wrong after a restart, each with what prevents it.

Real optimizers follow a real service. A job restarts as jobs do: new objects, a checkpoint that was
written to memory and read back with `weights_only`, and an attempt opened at its step.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pacesetter import Client, ConflictError, GroupError
from pacesetter.torch import RemoteLR
from serving import open_http

COSINE = {"kind": "cosine", "total_steps": 40}
PLATEAU = {"kind": "plateau", "metric": "loss", "patience": 2, "factor": 0.5, "cooldown": 1}
LOSSES = [1.0, 0.8, 0.9, 0.9, 0.9, 0.7, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.6, 0.7, 0.7, 0.7] * 2

Written = dict[str, Any]


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a plain HTTP client of the shared service."""
    with open_http(server_url) as client:
        yield client


def optimizer_of(*rates: float | torch.Tensor) -> torch.optim.Optimizer:
    """Return an optimizer with a param group for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


class Job:
    """A training: its session, its optimizer, and what it writes to disk."""

    def __init__(self, http: httpx.Client, client: Client, name: str, **spec: Any) -> None:
        self.http, self.client, self.name = http, client, name
        self.restarts = 0
        if spec:
            base = {} if "groups" in spec else {"base_lr": 0.1}
            answer = http.post("/v1/sessions", json={"name": name, **base, **spec})
            assert answer.status_code == 201, answer.text
        self.groups = tuple(spec.get("groups", ("",)))
        self.start()

    def start(self, *rates: float | torch.Tensor) -> None:
        """Begin as a new process, without anything that was in memory."""
        self.optimizer = optimizer_of(*(rates or [0.1] * len(self.groups)))
        session = self.client.session(self.name)
        self.scheduler = RemoteLR(self.optimizer, session, metric="loss")

    @property
    def held(self) -> list[float]:
        """The rates that the optimizer would use."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def update(self) -> None:
        """Update the weights once."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()

    def train(self, steps: int, losses: list[float] | None = None) -> list[float]:
        """Take steps, and return the first group's rate at each."""
        rates = []
        for _ in range(steps):
            rates.append(self.held[0])
            self.update()
            step = self.scheduler.last_epoch
            self.scheduler.step(*([losses[step]] if losses else []))
        return rates

    def write(self) -> Written:
        """Write a checkpoint, and read it back as a careful trainer does."""
        buffer = io.BytesIO()
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        torch.save(state, buffer)
        buffer.seek(0)
        written: Written = torch.load(buffer, weights_only=True)
        return written

    def come_back(self, step: int, **more: Any) -> None:
        """Open an attempt at a step, and begin anew."""
        self.restarts += 1
        body = {"step": step, "key": f"restart-{self.restarts}", **more}
        self.http.post(f"/v1/sessions/{self.name}/attempts", json=body).raise_for_status()
        self.start()

    def resume(self, written: Written, **more: Any) -> None:
        """Restart from a checkpoint."""
        self.come_back(written["scheduler"]["last_epoch"], **more)
        self.optimizer.load_state_dict(written["optimizer"])
        self.scheduler.load_state_dict(written["scheduler"])


@pytest.fixture(name="begin")
def _begin(http: httpx.Client, client: Client, unique_name: str) -> Callable[..., Job]:
    """Return a function that begins a job."""
    return lambda **spec: Job(http, client, unique_name, **spec)


def test_bug_1_a_scheduler_that_was_not_saved(begin: Callable[..., Job]) -> None:
    """For a checkpoint without a scheduler the step is enough: the service has the rest."""
    job = begin(controllers=[PLATEAU])
    whole = job.train(len(LOSSES), LOSSES)
    job.come_back(17)
    job.scheduler.load_state_dict({"last_epoch": 17})
    assert job.train(len(LOSSES) - 17, LOSSES) == whole[17:]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_bug_2_a_scheduler_that_was_saved_a_tick_early_or_late(
    begin: Callable[..., Job], moment: str
) -> None:
    """Written before its `step()` or after it, a checkpoint goes on with the step that it names."""
    job = begin(schedule=COSINE)
    whole = job.train(12)
    job.come_back(0)
    job.train(7)
    if moment == "after":
        job.update()
        job.scheduler.step()
    written = job.write()
    step = written["scheduler"]["last_epoch"]
    assert step == (8 if moment == "after" else 7)
    job.resume(written)
    assert job.train(12 - step) == whole[step:]


def test_bug_3_a_scheduler_that_is_rebuilt_with_another_length(
    begin: Callable[..., Job], client: Client
) -> None:
    """The curve is not silently rescaled: another description of the session is a conflict."""
    job = begin(schedule=COSINE)
    whole = job.train(20)
    longer = {**COSINE, "total_steps": 400}
    with pytest.raises(ConflictError, match=r"differs in schedule\.total_steps"):
        client.create_session(job.name, schedule=longer, base_lr=0.1)
    job.come_back(10)
    job.scheduler.load_state_dict({"last_epoch": 10})
    assert job.train(10) == whole[10:]


@pytest.mark.parametrize("last", ["optimizer", "scheduler"])
def test_bug_4_a_scheduler_that_is_not_the_optimizers(begin: Callable[..., Job], last: str) -> None:
    """Whichever is loaded last, the optimizer holds the step's rates, and the next step's next."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.4, "schedule": COSINE}}
    job = begin(groups=groups)
    job.train(9)
    written = job.write()
    before = job.held
    whole = [job.held[1], *(job.train(1) and job.held[1] for _ in range(5))]
    job.come_back(9)
    for name in sorted(("optimizer", "scheduler"), key=lambda each: each == last):
        getattr(job, name).load_state_dict(written[name])
    assert job.held == before
    assert job.scheduler.get_last_lr() == before
    for rate in whole:
        assert job.held[1] == rate
        job.train(1)


def test_bug_5_a_clock_in_another_unit(begin: Callable[..., Job]) -> None:
    """Lengths in epochs become steps by the session's own numbers; no call takes an epoch."""
    lengths = {"kind": "step", "step_size": {"epochs": 2}, "gamma": 0.5}
    job = begin(schedule=lengths, steps_per_epoch=5)
    assert job.train(30) == [0.1] * 10 + [0.05] * 10 + [0.025] * 10
    untold = RemoteLR(job.optimizer, job.client.session(job.name))
    with pytest.raises(TypeError, match="an epoch is not accepted"):
        untold.step(3)
    job.come_back(15)
    job.scheduler.load_state_dict({"last_epoch": 15})
    for micro in range(4 * 10):  # of four micro-batches one is an update
        if micro % 4 == 3:
            job.update()
            job.scheduler.step()
    assert (job.scheduler.last_epoch, job.held) == (25, [0.025])


def test_bug_6_a_step_that_was_skipped(begin: Callable[..., Job]) -> None:
    """Where the scaler skips an update, the rate of that step is used by the next one."""
    job = begin(schedule=COSINE)
    whole = job.train(10)
    job.come_back(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    used = []
    for batch in range(12):
        [parameter] = job.optimizer.param_groups[0]["params"]
        loss = parameter.sum() * (float("inf") if batch in (3, 7) else 1.0)
        scaler.scale(loss).backward()
        before, rate = parameter.detach().clone(), job.held[0]
        scaler.step(job.optimizer)
        scaler.update()
        if not torch.equal(before, parameter):
            used.append(rate)
            job.scheduler.step()
        job.optimizer.zero_grad()
    assert used == whole
    job.resume(job.write())
    assert job.scheduler.last_epoch == 10


def test_bug_7_another_number_of_ranks(begin: Callable[..., Job]) -> None:
    """More processes do not make the clock go faster; what they do to the rate is a stated rule."""
    job = begin(schedule=COSINE, batch_size=64, batch_scaling="linear")
    whole = job.train(20)
    job.come_back(8, batch_size=256)
    others = [RemoteLR(optimizer_of(0.1), job.client.session(job.name)) for _ in range(3)]
    ranks = [job.scheduler, *others]
    for rank in ranks:
        rank.load_state_dict({"last_epoch": 8})
    for step in range(8, 20):
        assert {rank.get_last_lr()[0] for rank in ranks} == {whole[step] * 4.0}
        for rank in ranks:
            rank.step()
    events = job.http.get(f"/v1/sessions/{job.name}/events").json()["events"]
    assert any("batch size 64 -> 256, linear rule" in event["text"] for event in events)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 11, 13, 20, 31])
def test_bug_8_a_plateau_that_forgets(begin: Callable[..., Job], step: int) -> None:
    """Bad measurements, best and cooldown come back: the rates are torch's without a restart."""
    job = begin(controllers=[PLATEAU])
    reference = optimizer_of(0.1)
    torchs = ReduceLROnPlateau(reference, patience=2, factor=0.5, cooldown=1)
    expected = []
    for loss in LOSSES:
        expected.append(reference.param_groups[0]["lr"])
        torchs.step(loss)
    assert len(set(expected)) > 3
    assert job.train(len(LOSSES), LOSSES) == expected
    job.come_back(step)
    job.scheduler.load_state_dict({"last_epoch": step})
    written = job.write()
    assert job.train(len(LOSSES) - step, LOSSES) == expected[step:]
    job.resume(written)
    assert job.train(len(LOSSES) - step, LOSSES) == expected[step:]


def test_bug_9_another_number_of_param_groups(begin: Callable[..., Job]) -> None:
    """An optimizer whose groups are not the session's is refused, not partly driven."""
    floors = {"body": 0.01, "head": 0.02}
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.4}}
    job = begin(groups=groups, controllers=[{**PLATEAU, "patience": 0, "min_lr": floors}])
    job.train(12, [1.0] * 12)
    assert job.held == [0.01, 0.02]
    written = job.write()
    for rates in ((0.1,), (0.1, 0.4, 0.4)):
        with pytest.raises(GroupError):
            job.start(*rates)
    job.resume(written)
    assert job.held == [0.01, 0.02]


def test_bug_10_an_override_that_the_checkpoint_wins_over(begin: Callable[..., Job]) -> None:
    """What an operator orders holds, whatever rate is in the checkpoint that is loaded."""
    job = begin(schedule=COSINE, max_lookahead=1)
    job.train(12)
    written = job.write()
    job.resume(written)
    order = {"kind": "set", "lr": 0.003, "reason": "override"}
    answer = job.http.post(f"/v1/sessions/{job.name}/actions", json=order).json()
    assert answer["effective_step"] == job.client.session(job.name).horizon
    job.train(2)
    assert job.held == [0.003]
    again = job.write()
    again["optimizer"]["param_groups"][0]["lr"] = 123.0
    job.resume(again)
    assert job.held == [0.003]
    assert job.train(3) == [0.003] * 3


def test_bug_11_one_rank_that_decides_alone(
    begin: Callable[..., Job],
) -> None:
    """A cut needs the readings of all ranks, and reaches all of them at one step."""
    rule = {**PLATEAU, "patience": 0, "cooldown": 0}
    job = begin(controllers=[rule], ranks=2)
    at = f"/v1/sessions/{job.name}/sync"

    def rates(step: int) -> list[float]:
        answers = [job.http.post(at, json={"step": step, "rank": rank}) for rank in (0, 1)]
        return [answer.json()["lr"] for answer in answers]

    def report(rank: int, step: int, loss: float) -> None:
        body = {"rank": rank, "reports": [{"step": step, "metrics": {"loss": loss}}]}
        job.http.post(at, json=body).raise_for_status()

    for step in range(4):
        assert rates(step) == [0.1, 0.1]
        report(0, step, 1.0)  # by itself this rank would have cut three times
    assert rates(4) == [0.1, 0.1]
    job.come_back(3)
    report(1, 1, 1.0)
    report(1, 2, 1.0)
    assert rates(3) == [0.05, 0.05]


def test_bug_12_a_rate_that_is_a_tensor(begin: Callable[..., Job]) -> None:
    """It stays the same tensor through steps and restarts: compiled code keeps reading it."""
    job = begin(schedule=COSINE)
    whole = job.train(12)
    job.come_back(6)
    rate = torch.tensor(0.1, dtype=torch.float64)
    job.start(rate)
    job.scheduler.load_state_dict({"last_epoch": 6})
    held = job.optimizer.param_groups[0]["lr"]
    assert isinstance(held, torch.Tensor)
    for step in range(6, 12):
        assert job.optimizer.param_groups[0]["lr"] is held
        assert held.item() == whole[step]
        job.update()
        job.scheduler.step()
