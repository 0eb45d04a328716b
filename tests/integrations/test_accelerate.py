"""Accelerate steps what it wraps once for each process, `AcceleratedRemoteLR` once an update."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer

from distributed.launch import on_ranks, values
from integrations import example
from integrations.accelerate_ranks import BATCHES, Job, forgotten, fresh, train
from pacesetter import Client, NotFoundError, ResumeError
from pacesetter.accelerate import AcceleratedRemoteLR
from pacesetter.torch import RemoteLR


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    """Return a client of the real service; its sessions are closed with it."""
    with Client(server_url) as client:
        yield client


@pytest.fixture(name="name")
def _name(client: Client, unique_name: str) -> str:
    """Return the name of a session that falls with each step."""
    client.create_session(
        unique_name, base_lr=0.1, schedule={"kind": "cosine", "total_steps": BATCHES}
    )
    return unique_name


def sealed(client: Client, name: str, count: int) -> list[float]:
    """Return the values of the first steps."""
    found: list[float] = client.lr(name, 0, count=count)["series"]["lr"]
    return found


def test_each_update_is_one_step_in_two_processes(
    server_url: str, client: Client, name: str, tmp_path: Path
):
    """Two batches make one update, and one step of both; Accelerate's saved state continues it."""
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
    """At the end of the data, an incomplete group of batches makes an update."""
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


LONGER = {"kind": "cosine", "total_steps": 2 * BATCHES}


@pytest.fixture(name="saved")
def _saved(client: Client, name: str, tmp_path: Path) -> Path:
    """Train 12 updates, of which the state after 8 is saved; return the folder."""
    with fresh() as accelerator:
        job = Job(accelerator, client, name)
        accelerator.prepare(job.scheduler)
        job.train(last=8)
        accelerator.save_state(str(tmp_path))
        job.train(first=8, last=12)
    return tmp_path


def test_a_rerun_is_refused_unless_it_loads_or_begins_again(client: Client, name: str, saved: Path):
    """It does not go on among the old run's steps; a saved state, or `resume`, says where."""
    with fresh() as accelerator:
        job = Job(accelerator, client, name)
        accelerator.prepare(job.scheduler)
        for _ in range(2):
            with pytest.raises(ResumeError, match=r"load its checkpoint|load_state_dict"):
                job.train()
        assert (job.scheduler.last_epoch, job.session.attempt) == (0, 1)
        accelerator.load_state(str(saved))
        assert job.train(first=8) == sealed(client, name, BATCHES)[8:]
        assert job.session.attempt == 2
    with fresh() as accelerator:
        job = Job(accelerator, client, name, resume="restart")
        assert job.train() == sealed(client, name, BATCHES)
        assert job.session.attempt == 3
    with fresh() as accelerator:
        job = Job(accelerator, client, name, resume="continue")
        assert job.train() == sealed(client, name, BATCHES)
        assert job.session.attempt == 3


def test_a_saved_state_is_continued_for_longer(client: Client, name: str, saved: Path):
    """The fork begins at its step on the new curve, to the bit; its own states fit, too."""
    longer = f"{name}-longer"
    options = {"continues": name, "base_lr": 0.2, "schedule": LONGER}
    curve = client.preview(LONGER, base_lr=0.2, count=BATCHES)["series"]["lr"]
    with fresh() as accelerator:
        job = Job(accelerator, client, longer, **options)
        accelerator.prepare(job.scheduler)
        with pytest.raises(ResumeError, match=f"load the checkpoint of {name}"):
            job.train()
        with pytest.raises(NotFoundError):
            client.session(longer)
        accelerator.load_state(str(saved))
        assert job.train(first=8, last=12) == curve[8:12]
        accelerator.save_state(str(saved / "own"))
        job.train(first=12, last=15)
    for first, folder, attempt in ((12, saved / "own", 2), (8, saved, 3)):
        with fresh() as accelerator:
            job = Job(accelerator, client, longer, **options)
            accelerator.prepare(job.scheduler)
            accelerator.load_state(str(folder))
            assert job.train(first=first) == curve[first:]
            assert job.session.attempt == attempt
    assert sealed(client, longer, 8) == sealed(client, name, 8)


def test_the_optimizers_own_rate_is_that_of_what_continues(
    client: Client, name: str, saved: Path, caplog: pytest.LogCaptureFixture
):
    """Only one line says so; no warning claims that the old session's rate is used."""
    with fresh() as accelerator:
        model = torch.nn.Linear(4, 1)
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.3))
        scheduler = AcceleratedRemoteLR.create(
            optimizer, f"{name}-longer", client=client, continues=name, schedule=LONGER
        )
        accelerator.prepare(scheduler)
        accelerator.load_state(str(saved))
    curve = client.preview(LONGER, base_lr=0.3, start=8, count=1)["series"]["lr"]
    assert optimizer.param_groups[0]["lr"] == curve[0]
    assert "was made with" not in caplog.text


def test_an_update_that_the_scaler_leaves_out_is_no_step(client: Client, name: str):
    """Its rate is kept for the next update, and no value is skipped."""
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


def test_what_is_loaded_last_leaves_the_sealed_rate(client: Client, name: str, tmp_path: Path):
    """This holds whether Accelerate or the program loads the optimizer after the scheduler."""
    with fresh() as accelerator:
        job = Job(accelerator, client, name)
        accelerator.prepare(job.scheduler)
        job.train(last=12)
        states = job.optimizer.state_dict()
        states["param_groups"][0]["lr"] = 7.0  # whatever other code has written to it
        accelerator.save_state(str(tmp_path))
        job.train(first=12)
        accelerator.load_state(str(tmp_path))
        rate = sealed(client, name, 13)[12]
        assert job.optimizer.param_groups[0]["lr"] == rate
        job.optimizer.load_state_dict(states)
        assert job.optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("declared", [True, False])
def test_a_group_may_be_added(declared: bool, client: Client, unique_name: str):
    """It is driven from its first update on, or keeps its own rate; the other goes on."""
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01}}
    client.create_session(
        unique_name, groups=groups, schedule={"kind": "cosine", "total_steps": BATCHES}
    )
    with fresh():
        weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        group = {"params": weights[:1], "name": "head"}
        optimizer = AcceleratedOptimizer(torch.optim.SGD([group], lr=0.1))
        scheduler = AcceleratedRemoteLR(optimizer, client.session(unique_name))
        rates = []
        optimizer.optimizer.register_step_post_hook(
            lambda inner, *_: rates.append([group["lr"] for group in inner.param_groups])
        )
        for step in range(12):
            if step == 5:
                name = "body" if declared else "tail"
                optimizer.add_param_group({"params": weights[1:], "name": name, "lr": 7.0})
            optimizer.step()
            scheduler.step()
    series = client.lr(unique_name, 0, count=12)["series"]
    head, body = series["head.lr"], series["body.lr"] if declared else [7.0] * 12
    added = [list(pair) for pair in zip(head, body, strict=True)]
    assert rates == [*([rate] for rate in head[:5]), *added[5:]]


def test_a_scheduler_that_is_built_again_goes_on(client: Client, name: str):
    """It continues at the last one's step, in the same attempt, with one more param group."""
    with fresh():
        weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        optimizer = AcceleratedOptimizer(torch.optim.SGD(weights[:1], lr=0.1))
        session = client.session(name)
        scheduler = AcceleratedRemoteLR(optimizer, session)
        rates = []
        for step in range(12):
            if step == 5:
                optimizer.add_param_group({"params": weights[1:], "lr": 7.0})
                scheduler = AcceleratedRemoteLR(optimizer, session, groups=["lr", "lr"])
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
    curve = sealed(client, name, 12)
    assert rates == [[rate] * (1 + (step >= 5)) for step, rate in enumerate(curve)]
    assert session.attempt == 1


def test_the_base_may_be_the_optimizers(client: Client, unique_name: str):
    """The rate is read from a prepared optimizer."""
    with fresh():
        optimizer = AcceleratedOptimizer(
            torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.3)
        )
        scheduler = AcceleratedRemoteLR.create(optimizer, unique_name, client=client)
        assert scheduler.session.info.base_lr(None) == 0.3


def test_a_plain_one_may_be_prepared_in_one_process(client: Client, name: str):
    """In one process, Accelerate's own wrapper steps once an update."""
    with fresh(gradient_accumulation_steps=2) as accelerator:
        job = Job(accelerator, client, name)
        job.scheduler = accelerator.prepare(RemoteLR(job.optimizer, job.session))
        assert job.train() == sealed(client, name, BATCHES // 2)


def test_the_optimizer_must_be_prepared(client: Client, name: str):
    """What Accelerate makes of the optimizer tells whether an update was skipped."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(TypeError, match=r"call accelerator\.prepare\(optimizer\)"):
        AcceleratedRemoteLR(optimizer, client.session(name))


def test_the_example_runs(
    server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It trains, goes back to what was saved, and says so."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    with forgotten():
        example.run("accelerate_loop")
    assert "attempt 2" in capsys.readouterr().out
