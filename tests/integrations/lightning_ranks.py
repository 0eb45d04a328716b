"""What each rank of a Lightning training does in the tests; `distributed.launch` starts them."""

# ruff: noqa: D102 - what Lightning calls is told by Lightning

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.lightning import LightningLR, PacesetterCallback


class Line(pl.LightningModule):
    """A line through points that differ on each rank."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(4, 1)
        self.url, self.session_name = url, name
        self.rates: list[str] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=123.0)
        session = open_session(Client(self.url, max_wait=20), self.session_name)
        scheduler = LightningLR(optimizer, session)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = (self.line(batch[0]) - batch[1]).square().mean()
        self.log("train_loss", loss, sync_dist=True)
        self.log("seen_by_first", loss, rank_zero_only=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("val_loss", batch[0].mean() + self.current_epoch, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"].hex())


def train(rank: int, url: str, name: str, folder: str) -> tuple[list[str], list[str], int, bool]:
    """Train, and train again from the first epoch's checkpoint.

    Returns:
        The rates of both trainings, the attempt of the second, whether both have the same weights.
    """
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= ranks | {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "-", "MASTER_PORT": "0"}
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=4)
    nets = []
    for ckpt in (None, Path(folder) / "epoch=0.ckpt"):
        net = Line(url, name)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_epochs=3,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[PacesetterCallback(), ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
        )
        trainer.fit(net, data, data, ckpt_path=ckpt)
        nets.append(net)
        attempt = trainer.lr_scheduler_configs[0].scheduler.session.attempt
    first, second = nets
    same = all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    return first.rates, second.rates, attempt, same
