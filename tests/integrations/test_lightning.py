"""The real Trainer of Lightning, driven by sessions of the real service."""

# ruff: noqa: D102 - what Lightning calls is told by Lightning

import copy
import logging
import pickle
import runpy
from collections.abc import Callable, Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from distributed.launch import on_ranks, values
from integrations import lightning_ranks
from integrations.lightning_tuned import Tuned, Unfreeze
from pacesetter import (
    Client,
    ConflictError,
    NotFoundError,
    ResumeError,
    Session,
    SessionFinishedError,
)
from pacesetter.lightning import LightningLR, PacesetterCallback
from pacesetter.torch import RemoteLR
from serving import PATIENCE, RunningService, open_http

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings(
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"
    ),
]

EXAMPLE = Path(__file__).parents[2] / "examples/integrations/lightning_module.py"
COSINE = {"kind": "cosine", "total_steps": 40}
PLATEAU = {"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 0, "threshold": 0.0}
BATCHES = 8


class Net(pl.LightningModule):
    """A line through points; it records the rate of each update.

    Args:
        schedule: makes the scheduler of its optimizer.
        more: other keys of Lightning's scheduler config.
        val_losses: the results of validations, in place of the measured ones.
    """

    def __init__(
        self,
        schedule: Callable[[torch.optim.Optimizer], Any],
        *,
        val_losses: list[float] | None = None,
        **more: Any,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(4, 1)
        self.schedule = schedule
        self.more = more
        self.val_losses = val_losses
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.validated: list[float] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=123.0, momentum=0.9)
        scheduler = {"scheduler": self.schedule(optimizer), **self.more}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, wanted = batch
        return torch.nn.functional.mse_loss(self.line(inputs), wanted)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self._loss(batch)
        self.losses.append(loss.item())
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        loss = self._loss(batch)
        if self.val_losses is not None and not self.trainer.sanity_checking:
            loss = torch.tensor(self.val_losses[self.current_epoch])
        self.log("val_loss", loss)

    def on_validation_epoch_end(self) -> None:
        self.validated.append(float(self.trainer.callback_metrics["val_loss"]))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def data(seed: int = 0, batches: int = BATCHES) -> DataLoader[Any]:
    inputs = torch.randn(4 * batches, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=4)


Fit = Callable[..., pl.Trainer]


@pytest.fixture(name="fit")
def _fit(tmp_path: Path) -> Fit:
    """Return a function that trains a module with a quiet Trainer."""

    def fit(
        module: pl.LightningModule, *callbacks: Any, ckpt: Any = None, **options: Any
    ) -> pl.Trainer:
        defaults = {
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
            "default_root_dir": tmp_path,
        }
        trainer = pl.Trainer(**{**defaults, **options}, callbacks=list(callbacks))
        trainer.fit(module, data(), data(1, 2), ckpt_path=ckpt)
        return trainer

    return fit


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


def curve(client: Client, name: str, count: int) -> list[float]:
    rates: list[float] = client.lr(name, 0, count=count)["series"]["lr"]
    return rates


def reported(client: Client, name: str, metric: str) -> dict[int, float]:
    """Return what was reported of a metric, by step."""
    history = client.history(name, points=10_000)
    found = zip(history["steps"], history["metrics"].get(metric, ()), strict=False)
    return {step: value for step, value in found if value is not None}


# -- following --


@pytest.mark.parametrize("made", [RemoteLR, LightningLR])
def test_every_update_has_the_sealed_rate(
    made: type[RemoteLR], client: Client, unique_name: str, fit: Fit
):
    """With `interval: step` the optimizer holds the next step's bits at each update."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: made(optimizer, session), interval="step")
    fit(net)
    assert net.rates == curve(client, unique_name, 3 * BATCHES)


def test_accumulated_gradients_take_one_step_an_update(client: Client, unique_name: str, fit: Fit):
    """Batches without an update do not count; what their last one logged is reported."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
    fit(net, PacesetterCallback(), accumulate_grad_batches=4)
    assert net.rates == curve(client, unique_name, 6)
    losses = [net.losses[last] for last in range(3, 24, 4)]
    assert list(reported(client, unique_name, "train_loss").items()) == list(enumerate(losses))


def test_a_frequency_holds_each_step_for_as_many_batches(
    client: Client, unique_name: str, fit: Fit
):
    """With `frequency` 2 a step is two updates, and the second one's loss is reported for it."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step", frequency=2)
    fit(net, PacesetterCallback())
    expected = curve(client, unique_name, 12)
    assert net.rates == [rate for rate in expected for _ in range(2)]
    losses = net.losses[1::2]
    assert list(reported(client, unique_name, "train_loss").items()) == list(enumerate(losses))


def test_epochs_are_steps_where_the_module_says_so(client: Client, unique_name: str, fit: Fit):
    """With `interval: epoch`, Lightning's own default, a rate holds for an epoch."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session))
    fit(net, PacesetterCallback())
    expected = curve(client, unique_name, 3)
    assert net.rates == [rate for rate in expected for _ in range(BATCHES)]


def test_the_monitor_shows_what_was_sealed(
    client: Client, unique_name: str, fit: Fit, tmp_path: Path
):
    """LearningRateMonitor logs each step's rate, beside losses that have the same step."""
    session = client.create_session(
        unique_name, base_lr=0.1, schedule=COSINE, controllers=[PLATEAU], max_lookahead=1
    )
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
    monitor = LearningRateMonitor(logging_interval="step")
    fit(
        net,
        PacesetterCallback(),
        monitor,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        max_epochs=1,
    )
    assert monitor.lrs["lr-SGD"] == net.rates
    assert not reported(client, unique_name, "lr-SGD")
    with pytest.raises(ValueError, match="before it in the trainer's callbacks"):
        fit(net, monitor, PacesetterCallback(), logger=CSVLogger(tmp_path), log_every_n_steps=1)


class ByHand(Net):
    """A module that steps optimizer and scheduler by itself, twice a batch."""

    automatic_optimization = False

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        for _ in range(2):
            loss = self._loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            scheduler.step()
        self.losses.append(loss.item())
        self.log("train_loss", loss)


def test_hand_made_loops_step_when_they_say(client: Client, unique_name: str, fit: Fit):
    """In manual optimization each `step()` counts, and losses belong to the last update."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = ByHand(lambda optimizer: LightningLR(optimizer, session), interval="step")
    fit(net, PacesetterCallback(), max_epochs=1)
    assert net.rates == curve(client, unique_name, 2 * BATCHES)
    assert reported(client, unique_name, "train_loss") == {
        2 * batch + 1: loss for batch, loss in enumerate(net.losses)
    }


def test_the_other_package_will_do(client: Client, unique_name: str, tmp_path: Path):
    """A Trainer of `pytorch_lightning` is followed as one of `lightning` is."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)

    class Line(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(4, 1)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=123.0)
            scheduler = {"scheduler": LightningLR(optimizer, session), "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            loss = self.line(batch[0]).square().mean()
            self.log("train_loss", loss)
            return loss

    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[PacesetterCallback()],
    )
    trainer.fit(Line(), data())
    assert list(reported(client, unique_name, "train_loss")) == list(range(BATCHES))


# -- reporting --


def test_metrics_are_of_the_step_that_they_were_measured_at(
    client: Client, unique_name: str, fit: Fit
):
    """Training losses belong to their updates, validations to the update before, unchanged."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
    trainer = fit(net, PacesetterCallback(), val_check_interval=4)
    trainer.validate(net, data(2, 1), verbose=False)
    train = reported(client, unique_name, "train_loss")
    assert list(train.items()) == list(enumerate(net.losses))
    ends = [3, 7, 11, 15, 19, 23]
    sanity, *validated, later = net.validated
    assert reported(client, unique_name, "val_loss") == dict(zip(ends, validated, strict=True))
    assert sanity != validated[0]
    assert later != validated[-1]
    means = reported(client, unique_name, "train_loss_epoch")
    assert means == {
        end: pytest.approx(sum(net.losses[end - 7 : end + 1]) / BATCHES) for end in (7, 15, 23)
    }


def test_what_is_validated_afterwards_is_not_reported(client: Client, unique_name: str, fit: Fit):
    """`trainer.validate()` belongs to no step, though the last one was not validated."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
    trainer = fit(net, PacesetterCallback(), check_val_every_n_epoch=2)
    trainer.validate(net, data(2, 1), verbose=False)
    session.flush()
    assert list(reported(client, unique_name, "val_loss")) == [15]


def test_epochs_report_their_means(client: Client, unique_name: str, fit: Fit):
    """With `interval: epoch` each metric has one value an epoch: its last."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    net = Net(lambda optimizer: LightningLR(optimizer, session))
    fit(net, PacesetterCallback(["train_loss", "val_loss"]), val_check_interval=4)
    means = [sum(net.losses[at : at + 8]) / BATCHES for at in (0, 8, 16)]
    train = reported(client, unique_name, "train_loss")
    assert list(train.items()) == [(e, pytest.approx(mean)) for e, mean in enumerate(means)]
    assert list(reported(client, unique_name, "val_loss").values()) == net.validated[2::2]
    assert not reported(client, unique_name, "train_loss_step")


class Seldom(Net):
    """Logs every third loss."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self._loss(batch)
        if batch_idx % 3 == 0:
            self.log("seldom", loss, on_step=True, on_epoch=False)
        return loss


def test_what_was_not_logged_anew_is_not_reported(client: Client, unique_name: str, fit: Fit):
    """Lightning keeps showing an old value; only its own step gets it."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    fit(
        Seldom(lambda optimizer: LightningLR(optimizer, session), interval="step"),
        PacesetterCallback(),
    )
    assert list(reported(client, unique_name, "seldom")) == [0, 3, 6, 8, 11, 14, 16, 19, 22]


def test_a_trainer_without_a_scheduler_of_ours_is_told(client: Client, unique_name: str, fit: Fit):
    """The callback refuses what it cannot follow properly, and says what to return."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    plain = Net(lambda optimizer: RemoteLR(optimizer, session))
    with pytest.raises(ValueError, match="LightningLR from configure_optimizers"):
        fit(plain, PacesetterCallback())
    twice = {"reduce_on_plateau": True, "monitor": "val_loss"}
    with pytest.raises(ValueError, match="leave reduce_on_plateau and monitor out"):
        fit(Net(lambda optimizer: LightningLR(optimizer, session), **twice), PacesetterCallback())


class Killing(pl.Callback):
    """Ends the server once the trainer holds all the values that it will train with."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.killed = False

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        window = trainer.lr_scheduler_configs[0].scheduler._window
        if not self.killed and window.stop > trainer.estimated_stepping_batches:
            self.killed = True
            self.service.kill()


def test_a_server_that_is_away_at_the_end_holds_nobody_up(
    service: RunningService, fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    """The training is over: reports are tried for some seconds, not for `max_wait`."""
    monkeypatch.setattr(LightningLR, "deliver", partialmethod(RemoteLR.deliver, 0.1))
    with Client(service.url, max_wait=10 * PATIENCE) as client:
        session = client.create_session("run", base_lr=0.1, schedule=COSINE)
        net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
        fit(net, PacesetterCallback(), Killing(service), max_epochs=5)
        assert "reports of session run are not delivered" in caplog.text
        service.start()
        session.flush()
        assert list(reported(client, "run", "train_loss")) == list(range(5 * BATCHES))


# -- controllers --


def plateau_by_torch(losses: list[float]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    rule = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.0)
    rates = []
    for loss in losses:
        rates.append(optimizer.param_groups[0]["lr"])
        rule.step(torch.tensor(loss))
    return rates


LOSSES = [1.0, 2.0, 0.5, 0.5, 0.25, 3.0, 0.125]


def test_a_validation_cuts_at_the_next_epoch(client: Client, unique_name: str, fit: Fit):
    """It is as with torch's ReduceLROnPlateau, though Lightning steps before it validates."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    net = Net(lambda optimizer: LightningLR(optimizer, session), val_losses=LOSSES)
    fit(net, PacesetterCallback(), max_epochs=len(LOSSES))
    assert net.rates[::BATCHES] == plateau_by_torch(LOSSES)
    assert len(set(net.rates)) == 4


def test_a_validation_cuts_at_the_next_batch(client: Client, unique_name: str, fit: Fit):
    """With `interval: step` the first update after the validation has the new rate."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step", val_losses=LOSSES)
    fit(net, PacesetterCallback(), max_epochs=len(LOSSES))
    assert net.rates == [rate for rate in plateau_by_torch(LOSSES) for _ in range(BATCHES)]


def test_lightnings_own_plateau_way_works_with_remote_lr(
    client: Client, unique_name: str, fit: Fit
):
    """`reduce_on_plateau` and `monitor` pass the metric to `RemoteLR.step`, without a callback."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    way = {"reduce_on_plateau": True, "monitor": "val_loss"}
    net = Net(lambda optimizer: RemoteLR(optimizer, session), val_losses=LOSSES, **way)
    fit(net, max_epochs=len(LOSSES))
    assert net.rates[::BATCHES] == plateau_by_torch(LOSSES)
    assert list(reported(client, unique_name, "val_loss").values()) == LOSSES[:-1] + LOSSES[-1:]


ENDING = {**PLATEAU, "at_floor": "stop", "min_lr": 0.05}


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_end_of_the_session_stops_the_trainer(
    interval: str, client: Client, unique_name: str, fit: Fit
):
    """A controller that finishes ends the training after the epoch that it saw."""
    session = client.create_session(unique_name, base_lr=0.1, controllers=[ENDING])
    net = Net(
        lambda optimizer: LightningLR(optimizer, session), interval=interval, val_losses=[1.0] * 20
    )
    trainer = fit(net, PacesetterCallback(), max_epochs=20)
    assert trainer.state.finished
    assert trainer.current_epoch == 3
    assert net.rates[::BATCHES] == [0.1, 0.1, 0.05]
    assert len(net.rates) == 3 * BATCHES


def test_the_end_of_the_session_stops_the_trainer_within_an_epoch(
    client: Client, unique_name: str, fit: Fit
):
    """A controller of the training loss ends the training after the update that it saw."""
    ending = {**ENDING, "metric": "train_loss", "mode": "max", "threshold": 1e9}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[ending])
    net = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
    trainer = fit(net, PacesetterCallback())
    assert trainer.state.finished
    assert net.rates == [0.1, 0.1, 0.05]
    other = client.create_session(unique_name + "-2", base_lr=0.1, controllers=[ending])
    net = Net(lambda optimizer: LightningLR(optimizer, other), interval="step")
    with pytest.raises(ValueError, match="min_epochs or min_steps has the trainer go on"):
        fit(net, PacesetterCallback(), min_epochs=2)


def test_without_the_callback_the_end_is_an_error(client: Client, unique_name: str, fit: Fit):
    """No trainer goes on by accident."""
    ending = {**ENDING, "metric": "train_loss", "mode": "max", "threshold": 1e9}
    session = client.create_session(unique_name, base_lr=0.1, controllers=[ending])
    way = {"reduce_on_plateau": True, "monitor": "train_loss", "interval": "step"}
    with pytest.raises(SessionFinishedError):
        fit(Net(lambda optimizer: LightningLR(optimizer, session), **way))


class Steered(Net):
    """Is slowed down by an operator before its eleventh update; `order` orders it."""

    order: Callable[[], None]
    ordered_at = 10

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == self.ordered_at:
            self.order()


@pytest.fixture(name="steered")
def _steered(client: Client, unique_name: str, server_url: str) -> Net:
    """Return a module whose session is steered while it trains."""
    session = client.create_session(unique_name, base_lr=0.1, max_lookahead=1)
    net = Steered(lambda optimizer: LightningLR(optimizer, session), interval="step")

    def order() -> None:
        with open_http(server_url) as http:
            body = {"kind": "scale", "factor": 0.1, "reason": "too fast"}
            http.post(f"/v1/sessions/{unique_name}/actions", json=body).raise_for_status()

    net.order = order
    return net


def test_a_large_change_is_saved_before(steered: Net, unique_name: str, fit: Fit, tmp_path: Path):
    """An operator's order makes a checkpoint of the last step before its change."""
    fit(steered, PacesetterCallback(dirpath=tmp_path / "saved"))
    [saved] = (tmp_path / "saved").iterdir()
    state = torch.load(saved, weights_only=True)
    changed = steered.rates.index(0.1 * 0.1)
    assert changed == state["global_step"] == state["lr_schedulers"][0]["last_epoch"] == 11
    assert saved.name == f"pacesetter-{unique_name}-step=11.ckpt"


def test_what_is_not_saved_is_warned_of(steered: Net, fit: Fit, caplog: pytest.LogCaptureFixture):
    """A trainer without checkpoints saves none, but the notice is in the log."""
    caplog.set_level(logging.INFO, "pacesetter")
    fit(steered, PacesetterCallback())
    assert "step 11: large_change: from step 11 the learning rate is scaled" in caplog.text
    assert "no checkpoint of" in caplog.text


# -- resuming --


def weights(net: Net) -> list[float]:
    return [value for tensor in net.state_dict().values() for value in tensor.flatten().tolist()]


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("controllers", [[], [PLATEAU]], ids=["open", "closed"])
def test_a_resume_repeats_the_training_bit_for_bit(
    interval: str,
    controllers: list[Any],
    client: Client,
    unique_name: str,
    fit: Fit,
    tmp_path: Path,
):
    """From the checkpoint of an epoch: the same rates, the same weights, in one new attempt."""
    spec = {"base_lr": 0.1, "schedule": COSINE, "controllers": controllers}
    client.create_session(unique_name, **spec)

    def net() -> Net:
        return Net(
            lambda optimizer: LightningLR(optimizer, client.session(unique_name)),
            interval=interval,
            val_losses=LOSSES,
        )

    whole, resumed = net(), net()
    savers = [ModelCheckpoint(tmp_path / "saved", "{epoch}", save_top_k=-1) for _ in range(2)]
    fit(whole, PacesetterCallback(), savers[0], max_epochs=6)
    metrics = reported(client, unique_name, "val_loss")
    checkpoint = tmp_path / "saved" / "epoch=2.ckpt"
    again = fit(resumed, PacesetterCallback(), savers[1], ckpt=checkpoint, max_epochs=6)
    assert resumed.rates == whole.rates[3 * BATCHES :]
    assert weights(resumed) == weights(whole)
    assert again.lr_scheduler_configs[0].scheduler.session.attempt == 2
    assert reported(client, unique_name, "val_loss") == metrics
    assert len(set(whole.rates)) > 3


def test_a_resume_goes_on_within_an_epoch(
    client: Client, unique_name: str, fit: Fit, tmp_path: Path
):
    """A checkpoint of every third update has the step of the next one."""
    client.create_session(unique_name, base_lr=0.1, schedule=COSINE, controllers=[PLATEAU])

    def net() -> Net:
        return Net(
            lambda optimizer: LightningLR(optimizer, client.session(unique_name)), interval="step"
        )

    whole, resumed = net(), net()
    options = {"save_top_k": -1, "every_n_train_steps": 3}
    savers = [ModelCheckpoint(tmp_path / "saved", "{step}", **options) for _ in range(2)]
    fit(whole, PacesetterCallback(), savers[0], max_epochs=2)
    checkpoint = tmp_path / "saved" / "step=6.ckpt"
    fit(resumed, PacesetterCallback(), savers[1], ckpt=checkpoint, max_epochs=2)
    assert resumed.rates == whole.rates[6 : 6 + len(resumed.rates)]


# -- unfreezing --


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "resumed"])
def test_what_lightnings_own_callback_unfreezes_has_its_own_rate(
    whole: bool,
    client: Client,
    unique_name: str,
    fit: Fit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """`BackboneFinetuning` writes the rate of the group that it adds; the session's goes on."""
    client.create_session(unique_name, base_lr=0.1, schedule=COSINE)

    def callbacks() -> list[Any]:
        tuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, lambda_func=lambda _: 1.5)
        saver = ModelCheckpoint(tmp_path / "saved", "{epoch}", save_top_k=-1)
        return [tuning, PacesetterCallback(), saver]

    def net() -> Tuned:
        return Tuned(lambda optimizer: LightningLR(optimizer, client.session(unique_name)))

    module = net()
    fit(module, *callbacks(), max_epochs=4)
    curve_of_all = curve(client, unique_name, 4 * BATCHES)
    if whole:
        rates = module.rates
        added = [each for each in caplog.messages if "param group 1 was added" in each]
        assert len(added) == 1
    else:
        resumed = net()
        checkpoint = tmp_path / "saved" / "epoch=1.ckpt"
        fit(resumed, *callbacks(), ckpt=checkpoint, max_epochs=4)
        rates = module.rates[: 2 * BATCHES] + resumed.rates
    assert [each[0] for each in rates] == curve_of_all
    assert [len(each) for each in rates] == [1] * BATCHES + [2] * (3 * BATCHES)
    first = curve_of_all[BATCHES] * 0.1
    assert [each[1] for each in rates[BATCHES::BATCHES]] == pytest.approx(
        [first, first * 1.5, first * 1.5**2]
    )
    assert len(set(map(tuple, (each[1:] for each in rates)))) == 4


@pytest.mark.parametrize("epoch", [1, 2])
def test_what_the_session_knows_is_unfrozen_at_its_rate(
    epoch: int,
    client: Client,
    unique_name: str,
    fit: Fit,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """It is driven from the first update on; a later resume drives both groups from the start."""
    groups = {"head": {"base_lr": 0.1}, "backbone": {"base_lr": 0.01}}
    client.create_session(unique_name, groups=groups, schedule=COSINE)

    def callbacks() -> list[Any]:
        saver = ModelCheckpoint(tmp_path / "saved", "{epoch}", save_top_k=-1)
        return [Unfreeze(epoch), PacesetterCallback(), saver]

    def net() -> Tuned:
        schedule = lambda optimizer: LightningLR(optimizer, client.session(unique_name))  # noqa: E731
        return Tuned(schedule, named="head")

    module, resumed = net(), net()
    fit(module, *callbacks(), max_epochs=4)
    series = client.lr(unique_name, 0, count=4 * BATCHES)["series"]
    expected = [
        [head, backbone] if at >= epoch * BATCHES else [head]
        for at, (head, backbone) in enumerate(
            zip(series["head.lr"], series["backbone.lr"], strict=True)
        )
    ]
    assert module.rates == expected
    fit(resumed, *callbacks(), ckpt=tmp_path / "saved" / "epoch=2.ckpt", max_epochs=4)
    assert resumed.rates == expected[3 * BATCHES :]
    assert "keeps its own" not in caplog.text


def trained(client: Client, name: str, **more: Any) -> Net:
    """Return a module that opens the session by its name, as a program does."""
    return Net(lambda optimizer: LightningLR(optimizer, client.session(name)), **more)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_rerun_is_refused_before_its_first_update(
    interval: str, client: Client, unique_name: str, fit: Fit
):
    """A fresh loop under a name that was trained needs `resume` to say what it is."""
    client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])

    def net(resume: str = "error") -> Net:
        opened = lambda optimizer: LightningLR(  # noqa: E731
            optimizer, lambda: client.session(unique_name, resume=resume)
        )
        return Net(opened, interval=interval, val_losses=LOSSES)

    first, refused = net(), net()
    fit(first, PacesetterCallback(), max_epochs=5)
    assert len(set(first.rates)) > 1
    with pytest.raises(ResumeError, match="resume='restart'"):
        fit(refused, PacesetterCallback(), max_epochs=5)
    assert refused.losses == []
    for resume, attempt in (("continue", 1), ("restart", 2)):
        again = net(resume)
        trainer = fit(again, PacesetterCallback(), max_epochs=5)
        assert again.rates == first.rates
        assert trainer.lr_scheduler_configs[0].scheduler.session.attempt == attempt


def test_a_job_that_its_launcher_starts_again_goes_on(
    client: Client, unique_name: str, fit: Fit, monkeypatch: pytest.MonkeyPatch
):
    """If it died before its first checkpoint, it trains its steps again, in a new attempt."""
    client.create_session(unique_name, base_lr=0.1, controllers=[PLATEAU])
    monkeypatch.setenv("PACESETTER_RUN", unique_name)
    rates = []
    for life in (0, 1):
        monkeypatch.setenv("PACESETTER_RESTART", str(life))
        net = trained(client, unique_name, interval="step", val_losses=LOSSES)
        trainer = fit(net, PacesetterCallback(), max_epochs=3)
        session = trainer.lr_scheduler_configs[0].scheduler.session
        # What the first life takes over is an attempt, recognised by its key.
        assert session.attempt == 2 + life
        rates.append(net.rates)
    assert rates[0] == rates[1]


@pytest.mark.parametrize("lazily", [True, False])
def test_a_training_goes_on_for_longer_from_a_checkpoint(
    lazily: bool, client: Client, unique_name: str, fit: Fit, tmp_path: Path
):
    """With `continues` and `ckpt_path`, rates are the new description's from its step on."""
    longer, name = {"kind": "cosine", "total_steps": 90}, f"{unique_name}-longer"

    def net(session: str, **spec: Any) -> Net:
        def schedule(optimizer: torch.optim.Optimizer) -> LightningLR:
            def open_session() -> Session:
                return client.session(session, **spec)

            return LightningLR(optimizer, open_session if lazily else open_session())

        return Net(schedule, interval="step")

    def callbacks() -> list[Any]:
        saver = ModelCheckpoint(tmp_path / "saved", "{epoch}", save_top_k=-1)
        return [PacesetterCallback(), saver]

    fit(net(unique_name, base_lr=0.1, schedule=COSINE), *callbacks(), max_epochs=2)
    checkpoint = tmp_path / "saved" / "epoch=1.ckpt"
    with pytest.raises(ConflictError, match=f"continues='{unique_name}'"):
        fit(net(unique_name, base_lr=0.1, schedule=longer), *callbacks(), ckpt=checkpoint)
    with pytest.raises(ResumeError, match="not known yet from which step"):
        fit(net(name, continues=unique_name, schedule=longer), PacesetterCallback())
    resumed = net(name, continues=unique_name, schedule=longer)
    trainer = fit(resumed, *callbacks(), ckpt=checkpoint, max_epochs=4)
    session = trainer.lr_scheduler_configs[0].scheduler.session
    assert (session.name, session.attempt) == (name, 1)
    new = client.preview(longer, base_lr=0.1, count=4 * BATCHES)["series"]["lr"]
    assert resumed.rates == new[2 * BATCHES :]


def test_a_search_for_a_rate_creates_nothing(
    client: Client, unique_name: str, fit: Fit, tmp_path: Path
):
    """`Tuner.lr_find` before `fit` leaves no trace; the training has the rate that it found."""

    class Tuned(Net):
        lr = 0.01

    def schedule(optimizer: torch.optim.Optimizer) -> LightningLR:
        spec: Any = {"base_lr": module.lr, "schedule": COSINE}
        return LightningLR(optimizer, lambda: client.session(unique_name, **spec))

    module = Tuned(schedule, interval="step")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[PacesetterCallback()],
    )
    found = Tuner(trainer).lr_find(module, data(), data(1, 2), num_training=30, update_attr=True)
    assert found is not None
    assert len(found.results["lr"]) > 10
    assert module.lr != Tuned.lr
    with pytest.raises(NotFoundError):
        client.session(unique_name)
    module.rates.clear()
    trainer.fit(module, data(), data(1, 2))
    session = trainer.lr_scheduler_configs[0].scheduler.session
    assert (session.attempt, session.info.base_lr(None)) == (1, module.lr)
    assert module.rates == curve(client, unique_name, 2 * BATCHES)
    assert list(reported(client, unique_name, "train_loss")) == list(range(2 * BATCHES))


def test_what_would_never_be_opened_is_told(client: Client, unique_name: str, fit: Fit):
    """Without the callback nothing opens the session before the first update."""
    net = Net(lambda optimizer: LightningLR(optimizer, lambda: client.session(unique_name)))
    with pytest.raises(ValueError, match="name it in the trainer's callbacks"):
        fit(net)


def test_a_session_begins_in_its_first_attempt(client: Client, unique_name: str, fit: Fit):
    """So it does where two optimizers share it: the other scheduler is no earlier life."""
    session = client.create_session(unique_name, base_lr=0.1, schedule=COSINE)

    class Pair(ByHand):
        def configure_optimizers(self) -> Any:
            made = [super(Pair, self).configure_optimizers() for _ in range(2)]
            return [m["optimizer"] for m in made], [m["lr_scheduler"] for m in made]

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
                optimizer.zero_grad()
                self.manual_backward(self._loss(batch))
                optimizer.step()
                scheduler.step()

    for attempt in (1, 2):
        pair = Pair(lambda optimizer: LightningLR(optimizer, session), interval="step")
        fit(pair, PacesetterCallback(), max_epochs=1)
        expected = curve(client, unique_name, BATCHES)
        assert pair.rates == [rate for rate in expected for _ in range(2)]
        assert session.attempt == attempt


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("controllers", [[], [PLATEAU]], ids=["open", "closed"])
def test_a_second_fit_goes_on_where_the_first_ended(
    interval: str, controllers: list[Any], client: Client, unique_name: str, fit: Fit
):
    """With more epochs it continues as the trainer does; an attempt is opened there."""
    client.create_session(unique_name, base_lr=0.1, schedule=COSINE, controllers=controllers)
    net = trained(client, unique_name, interval=interval, val_losses=LOSSES)
    trainer = fit(net, PacesetterCallback(), max_epochs=2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(net, data(), data(1, 2))
    steps = 4 * BATCHES if interval == "step" else 4
    held = 1 if interval == "step" else BATCHES
    expected = curve(client, unique_name, steps)
    assert net.rates == [rate for rate in expected for _ in range(held)]
    session = trainer.lr_scheduler_configs[0].scheduler.session
    assert (session.attempt, session.info.horizon) == (2, steps // 2)
    assert list(reported(client, unique_name, "train_loss")) == list(range(steps))


def test_a_second_fit_saves_its_own_step(steered: Net, unique_name: str, fit: Fit, tmp_path: Path):
    """A callback that has followed another scheduler of the session uses the present one's step."""
    callback = PacesetterCallback(dirpath=tmp_path / "saved")
    for ordered_at in (10, 5):
        steered.ordered_at = ordered_at
        fit(steered, callback, max_epochs=2)
    saved = sorted((tmp_path / "saved").iterdir())
    steps = (0, 11, 6)  # a notice of the first order is repeated to the second attempt
    assert [each.name for each in saved] == [
        f"pacesetter-{unique_name}-step={step}.ckpt" for step in steps
    ]
    for each, step in zip(saved, steps, strict=True):
        state = torch.load(each, weights_only=True)
        assert state["global_step"] == state["lr_schedulers"][0]["last_epoch"] == step


def test_what_was_trained_elsewhere_is_not_reported(client: Client, unique_name: str):
    """A scheduler that has moved has trained nothing there yet."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = LightningLR(optimizer, client.create_session(unique_name, base_lr=0.1))
    saved = scheduler.state_dict()
    for move in (lambda: scheduler.load_state_dict(saved), lambda: scheduler.restart(0)):
        scheduler.step()
        assert scheduler.trained == 0
        move()
        assert scheduler.trained is None


# -- copies --


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))], ids=["deep", "pickle"]
)
def test_a_copy_of_the_callback_follows_for_itself(
    copied: Callable[[PacesetterCallback], PacesetterCallback],
    client: Client,
    unique_name: str,
    fit: Fit,
):
    """It has the options, and none of the schedulers, so that it can go to another process."""
    client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    callback = PacesetterCallback(["val_loss"])
    fit(trained(client, unique_name, interval="step"), callback, max_epochs=1)
    again = lambda optimizer: LightningLR(  # noqa: E731
        optimizer, client.session(unique_name, resume="restart")
    )
    fit(Net(again, interval="step"), copied(callback))
    assert list(reported(client, unique_name, "val_loss")) == [7, 15, 23]
    assert not reported(client, unique_name, "train_loss")


def test_one_name_is_no_collection_of_names():
    """It would be taken for its letters, and nothing would be reported."""
    with pytest.raises(TypeError, match=r'pass a collection, metrics=\["val_loss"\]'):
        PacesetterCallback("val_loss")


# -- ranks --


@pytest.mark.slow
def test_spawned_ranks_take_the_callback_along(
    client: Client, unique_name: str, server_url: str, fit: Fit
):
    """`ddp_spawn` pickles the trainer with all its callbacks."""
    client.create_session(unique_name, base_lr=0.1, schedule=COSINE)
    line = lightning_ranks.Line(server_url, unique_name)
    fit(line, PacesetterCallback(), strategy="ddp_spawn", devices=2, max_epochs=1)
    assert list(reported(client, unique_name, "train_loss")) == list(range(BATCHES // 2))


def test_all_ranks_of_ddp_train_alike(
    client: Client, unique_name: str, server_url: str, tmp_path: Path
):
    """Two gloo ranks hold the same bits, cut together, and open one attempt to resume."""
    spec = {"base_lr": 0.1, "schedule": COSINE, "controllers": [PLATEAU]}
    client.create_session(unique_name, **spec)
    outcomes = on_ranks(2, lightning_ranks.train, server_url, unique_name, str(tmp_path))
    first, second = values(outcomes)
    assert first == second
    whole, resumed, attempt, same = first
    assert len(whole) == 12
    assert resumed == whole[4:] == [rate.hex() for rate in curve(client, unique_name, 12)[4:]]
    assert attempt == 3  # the launched job has taken the session in one, and resumed in the next
    assert same
    assert list(reported(client, unique_name, "val_loss")) == [3, 7, 11]
    plain = client.preview(COSINE, base_lr=0.1, count=12)["series"]["lr"]
    assert [rate.hex() for rate in plain[:8]] + [(r / 2).hex() for r in plain[8:]] == whole


# -- the example --


def test_the_example_runs(
    server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It resumes in a new attempt, prints the same again, and has the same weights."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    again = lines.index("again, from the first checkpoint:")
    assert again == 4
    assert lines[again + 1 : -1] == lines[1:again]
    assert lines[-1] == "the weights of both are the same, to the bit"


def test_a_training_begins_where_its_session_was_sent(fit: Fit, client: Client, unique_name: str):
    """It follows `step=`, without a checkpoint of Lightning's; so does a second training of it."""
    client.session(unique_name, base_lr=0.1, schedule=COSINE).lr(20)
    session = client.session(unique_name, step=4)
    for attempt in (2, 3):
        module = Net(lambda optimizer: LightningLR(optimizer, session), interval="step")
        fit(module, PacesetterCallback(), max_epochs=1)
        assert module.rates == curve(client, unique_name, 4 + BATCHES)[4:]
        assert session.attempt == attempt


def test_a_fork_begins_at_its_own_first_step(fit: Fit, client: Client, unique_name: str):
    """Opened by its name in a later process, it trains none of its parent's steps."""
    client.session(unique_name, base_lr=0.1, schedule=COSINE).lr(20)
    name = f"{unique_name}-fork"
    client.session(name, continues=unique_name, base_lr=0.2, step=4)
    module = Net(lambda optimizer: LightningLR(optimizer, client.session(name)), interval="step")
    fit(module, PacesetterCallback(), max_epochs=1)
    assert module.rates == curve(client, name, 4 + BATCHES)[4:]
    with Client(client.url) as later:
        again = Net(lambda optimizer: LightningLR(optimizer, later.session(name)), interval="step")
        with pytest.raises(ResumeError, match="step 4 would be trained again"):
            fit(again, PacesetterCallback(), max_epochs=1)
