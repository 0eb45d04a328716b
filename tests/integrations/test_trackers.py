"""Learning rates beside losses in trackers: listeners of reports, and the real libraries."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed.launch import on_ranks, values
from integrations import example, ranks, tracked
from pacesetter import Client, Session
from pacesetter._listeners import Subscription
from pacesetter.torch import RemoteLR
from serving import PATIENCE

COSINE = {"kind": "cosine", "total_steps": 100}
HERE = Path(__file__).parent


@pytest.fixture(name="client")
def _client(server_url: str) -> Any:
    """Return a client of the service that all tests share."""
    with Client(server_url) as client:
        yield client


def listen(session: Session, **options: Any) -> list[tuple[int, dict[str, float]]]:
    """Collect in a list what a listener hears."""
    heard: list[tuple[int, dict[str, float]]] = []
    session.on_report(lambda step, values: heard.append((step, values)), **options)
    return heard


def sgd(*rates: float) -> torch.optim.SGD:
    """Return an optimizer with a param group for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=0.1)


# -- listeners --


def test_a_listener_hears_metrics_beside_the_sealed_rate(client: Client, unique_name: str):
    """Tensors come as floats, with the rate of the report's step; earlier reports are not heard."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    session.report(0, loss=9.0)
    heard = listen(session)
    for step in range(100):
        session.lr(step)
        session.report(step, loss=torch.tensor(0.5), accuracy=step)
    rates = client.lr(unique_name, 0, count=100)["series"]["lr"]
    assert heard == [
        (step, {"loss": 0.5, "accuracy": float(step), "lr": rates[step]}) for step in range(100)
    ]
    assert {type(value) for _, found in heard for value in found.values()} == {float}


def test_the_step_of_a_scheduler_is_heard(client: Client, unique_name: str):
    """`RemoteLR.step(metric)` passes on all groups' rates that the metric was measured with."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.5}}
    session = client.create_session(unique_name, schedule=COSINE, groups=groups)
    heard = listen(session)
    optimizer = sgd(0.1, 0.5)
    scheduler = RemoteLR(optimizer, session, metric="loss")
    expected = []
    for step in range(100):
        body, head = (group["lr"] for group in optimizer.param_groups)
        expected.append((step, {"loss": 0.5, "body.lr": body, "head.lr": head}))
        scheduler.step(0.5)
    assert heard == expected


def test_a_report_after_the_step_knows_its_rate(client: Client, unique_name: str):
    """Where windows have a single step, a report that comes one step late has its rate too."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[plateau])
    heard = listen(session)
    optimizer = sgd(0.1)
    scheduler = RemoteLR(optimizer, session)
    used = []
    for step in range(20):
        used.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
        session.report(step, loss=1.0)
    assert [found["lr"] for _, found in heard] == used
    assert len(set(used)) > 1


def test_a_rate_that_is_not_at_hand_is_left_out(client: Client, unique_name: str):
    """Nothing is fetched for a listener: without a known rate it gets the metric alone."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    heard = listen(session)
    session.report(0, loss=0.5)
    assert heard == [(0, {"loss": 0.5})]


def test_a_listener_may_hear_of_some_steps_only(client: Client, unique_name: str):
    """Each metric counts separately, so that a rare one is not lost; going back is heard."""
    session = client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    heard = listen(session, every=10)
    for step in range(30):
        session.lr(step)
        session.report(step, loss=0.5)
        if step % 7 == 6:
            session.report(step, val_loss=0.7)
    told = {name: [step for step, found in heard if name in found] for name in ("loss", "val_loss")}
    assert told == {"loss": [0, 10, 20], "val_loss": [6, 20]}
    assert all("lr" in found for _, found in heard)
    heard.clear()
    session.restart(5)
    for step in range(5, 20):
        session.report(step, loss=0.5)
    assert [step for step, _ in heard] == [5, 15]


def test_a_metric_that_is_not_told_is_not_read():
    """A tensor on an accelerator is read only at the steps that are passed on."""

    class Scalar:
        def __float__(self) -> float:
            reads.append(None)
            return 0.5

    reads: list[None] = []
    subscription = Subscription(lambda step, values: None, every=25)
    for step in range(100):
        loss: Any = Scalar()
        subscription.tell(step, {"loss": loss}, {})
    assert len(reads) == 4


def test_an_interval_of_no_steps_is_refused(client: Client, unique_name: str):
    """The message says what to write."""
    session = client.create_session(unique_name, base_lr=0.1)
    with pytest.raises(ValueError, match="every=0: give a number of steps"):
        session.on_report(print, every=0)


def test_a_listeners_error_costs_no_report(client: Client, unique_name: str):
    """A tracker's exception propagates from the report, which is delivered nevertheless."""
    session = client.create_session(unique_name, base_lr=0.1)

    @session.on_report
    def fail(step: int, values: dict[str, float]) -> None:
        raise OSError("the tracker's disk is full")

    session.lr(0)
    with pytest.raises(OSError, match="disk is full"):
        session.report(0, loss=0.5)
    session.flush()
    assert client.history(unique_name, end=1)["metrics"]["loss"] == [0.5]


def test_not_a_number_is_heard_as_it_is(client: Client, unique_name: str):
    """A diverging loss is what a curve is drawn for."""
    session = client.create_session(unique_name, base_lr=0.1)
    heard = listen(session)
    session.report(0, loss=math.inf)
    session.report(1, loss=math.nan)
    (_, first), (_, second) = heard
    assert first == {"loss": math.inf}
    assert math.isnan(second["loss"])


@pytest.mark.parametrize("reports", ["first", "mean", "each"])
def test_the_ranks_that_report_are_heard(
    reports: str, server_url: str, client: Client, unique_name: str
):
    """The first rank's listener gets its own losses, or the means; or each rank's gets its own."""
    count = 2 if reports == "each" else 1
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1, ranks=count)
    first, second = values(on_ranks(2, ranks.listen, server_url, unique_name, reports))
    rates = client.lr(unique_name, 0, count=ranks.STEPS)["series"]["lr"]
    shift = 0.5 if reports == "mean" else 0.0
    assert first == [(step, {"loss": step + shift, "lr": rates[step]}) for step in range(20)]
    if reports == "each":
        assert second == [(step, {"loss": step + 1.0, "lr": rates[step]}) for step in range(20)]
    else:
        assert second == []


# -- the libraries --


def _float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def test_tensorboard_shows_the_rate_beside_the_loss(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The example's event file, read by TensorBoard, has both at every tenth step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("PACESETTER_URL", client.url)
    monkeypatch.chdir(tmp_path)
    example.run("trackers")
    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    rates = client.lr("tracked", 0, count=200)["series"]["lr"]
    history = client.history("tracked", end=200)["metrics"]["loss"]
    for name, expected in (("lr", rates), ("loss", history)):
        shown = [(each.step, each.value) for each in events.Scalars(f"train/{name}")]
        assert shown == [(step, _float32(expected[step])) for step in range(0, 200, 10)]


def _kept(tracker: str, server_url: str, name: str, folder: Path) -> list[list[Any]]:
    """Train in a separate process, which must leave none; return what the tracker has kept."""
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "DO_NOT_TRACK": "true"}
    quiet |= {"HOME": str(folder), "TMPDIR": str(folder)}  # where they keep settings and caches
    done = subprocess.run(
        [sys.executable, HERE / "tracked.py", tracker, name, folder],
        env={**os.environ, **quiet, "PACESETTER_URL": server_url, "PYTHONPATH": str(HERE.parent)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["children"] == []
    kept: list[list[Any]] = found["kept"]
    return kept


LIVED = [*range(tracked.STEPS), *range(tracked.STEPS // 2, tracked.STEPS)]
"""The steps of the training that the trackers see, which goes back once."""


def test_wandb_shows_the_rate_beside_the_loss(
    server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """W&B's own step has each step once; over a custom step both lives are there."""
    rows = _kept("wandb", server_url, unique_name, tmp_path)
    rates = client.lr(unique_name, 0, count=tracked.STEPS)["series"]["lr"]
    over_own = [(row["step"], row["step/loss"], row["step/lr"]) for _, row in rows if "step" in row]
    assert over_own == [(step, 1.0 / (step + 1), rates[step]) for step in LIVED]
    by_wandb = [(at, row["own/loss"], row["own/lr"]) for at, row in rows if "own/loss" in row]
    assert by_wandb == [(step, 1.0 / (step + 1), rates[step]) for step in range(tracked.STEPS)]


def test_mlflow_shows_the_rate_beside_the_loss(
    server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """The run's metrics have both at each step, and both lives of the steps that had two."""
    kept = _kept("mlflow", server_url, unique_name, tmp_path)
    rates = client.lr(unique_name, 0, count=tracked.STEPS)["series"]["lr"]
    expected = [["loss", step, 1.0 / (step + 1)] for step in LIVED]
    expected += [["lr", step, rates[step]] for step in LIVED]
    assert sorted(kept) == sorted(expected)
