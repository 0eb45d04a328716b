"""Accelerate steps what it wraps once for each process; `AcceleratedRemoteLR` once an update."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer

from distributed.launch import on_ranks, values
from integrations.accelerate_ranks import BATCHES, Job, fresh, train
from integrations.example import printed
from pacesetter import Client
from pacesetter.accelerate import AcceleratedRemoteLR
from pacesetter.torch import RemoteLR


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    """Give a client of the real service; its sessions are closed with it."""
    with Client(server_url) as client:
        yield client


@pytest.fixture(name="name")
def _name(client: Client, unique_name: str) -> str:
    """Give the name of a session that falls with each step."""
    client.create_session(
        unique_name, base_lr=0.1, schedule={"kind": "cosine", "total_steps": BATCHES}
    )
    return unique_name


def sealed(client: Client, name: str, count: int) -> list[float]:
    """Give the values of the first steps."""
    found: list[float] = client.lr(name, 0, count=count)["series"]["lr"]
    return found


def test_each_update_is_one_step_in_two_processes(
    server_url: str, client: Client, name: str, tmp_path: Path
):
    """Two batches are one update, and one step of both; what Accelerate saves goes on there."""
    one, other = values(on_ranks(2, train, server_url, name, str(tmp_path)))
    assert one == other
    first, second, again, alike, attempt, refused = one
    assert first + second == sealed(client, name, 10)
    assert again == second
    assert alike
    assert attempt == 2
    assert "AcceleratedRemoteLR" in refused


@pytest.mark.parametrize("batches", [1, 3])
def test_accumulated_batches_are_one_step(batches: int, client: Client, name: str):
    """The end of the data makes an update of what there is."""
    with fresh(gradient_accumulation_steps=batches) as accelerator:
        job = Job(accelerator, client, name)
        updates = -(-BATCHES // batches)
        assert job.train() == sealed(client, name, updates)
        assert job.scheduler.last_epoch == updates


@pytest.mark.parametrize("prepared", [True, False])
def test_a_saved_state_is_gone_back_to(prepared: bool, client: Client, name: str, tmp_path: Path):
    """Prepared with the rest or registered by itself, it is saved, and loading opens an attempt."""
    with fresh() as accelerator:
        job = Job(accelerator, client, name)
        (accelerator.prepare if prepared else accelerator.register_for_checkpointing)(job.scheduler)
        job.train(last=12)
        accelerator.save_state(str(tmp_path))
        rest, weights = job.train(first=12), job.weights
        accelerator.load_state(str(tmp_path))
        assert job.scheduler.last_epoch == 12
        assert job.train(first=12) == rest
        assert job.weights == weights
        assert job.session.attempt == 2


def test_an_update_that_the_scaler_leaves_out_is_no_step(client: Client, name: str):
    """Its rate is held for the update that comes after it, and no value is passed over."""
    with fresh():
        parameter = torch.nn.Parameter(torch.ones(2))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        optimizer = AcceleratedOptimizer(torch.optim.SGD([parameter], lr=0.1), scaler=scaler)
        scheduler = AcceleratedRemoteLR(optimizer, client.session(name))
        steps = []
        for factor in (1.0, float("inf"), 1.0, float("inf"), float("inf"), 1.0):
            scaler.scale((parameter * factor).sum()).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            steps.append(scheduler.last_epoch)
        assert steps == [1, 1, 2, 2, 2, 3]
        assert optimizer.param_groups[0]["lr"] == sealed(client, name, 4)[3]


def test_a_plain_one_may_be_prepared_in_one_process(client: Client, name: str):
    """Where there is one process, Accelerate's own wrapper steps once an update."""
    with fresh(gradient_accumulation_steps=2) as accelerator:
        job = Job(accelerator, client, name)
        job.scheduler = accelerator.prepare(RemoteLR(job.optimizer, job.session))
        assert job.train() == sealed(client, name, BATCHES // 2)


def test_the_optimizer_must_be_prepared(client: Client, name: str):
    """Whether an update was left out is known by what Accelerate makes of the optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(TypeError, match=r"call accelerator\.prepare\(optimizer\)"):
        AcceleratedRemoteLR(optimizer, client.session(name))


def test_the_example_runs(server_url: str, tmp_path: Path):
    """It trains, goes back to what was saved, and says so."""
    assert "attempt 2" in printed("accelerate_loop", server_url, tmp_path)
