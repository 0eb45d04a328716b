"""Lightning: a module whose rate follows a warmup, halved where the validation stops improving.

Start a server first: `pacesetter serve`. The training is then resumed from its first checkpoint, in
a new attempt, and trains as it did before.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from pacesetter import Client
from pacesetter.distributed import open_session
from pacesetter.lightning import LightningLR, PacesetterCallback

EPOCHS = 4
Batch = list[torch.Tensor]


class Line(pl.LightningModule):
    """Fits a line to noisy points."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(8, 1)
        self.rates: list[float] = []

    def configure_optimizers(self) -> dict[str, Any]:
        """Make the optimizer, and the scheduler in place of one of torch's."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        session = open_session(
            Client(),
            "lightning-module",
            base_lr=0.1,
            schedule={"kind": "warmup", "steps": 20, "schedule": "constant"},
            controllers=[
                {"kind": "plateau", "metric": "val_loss", "factor": 0.5, "patience": 0},
            ],
        )
        scheduler = LightningLR(optimizer, session)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def training_step(self, batch: Batch) -> torch.Tensor:
        """Log the loss as with any other scheduler: it is reported."""
        loss = torch.nn.functional.mse_loss(self.line(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Log what the session's controller watches."""
        self.log("val_loss", torch.nn.functional.mse_loss(self.line(batch[0]), batch[1]))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the rate of the update."""
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_validation_end(self) -> None:
        """Print how it stands."""
        if not self.trainer.sanity_checking:
            loss = float(self.trainer.callback_metrics["val_loss"])
            print(f"step {self.global_step:3}  lr {self.rates[-1]:.4f}  val_loss {loss:.4f}")


def data(seed: int, rows: int) -> DataLoader[Any]:
    """Make points near a line."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 8, generator=draw)
    noise = torch.randn(rows, 1, generator=draw)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True) + noise), batch_size=16)


def fit(folder: str, checkpoint: Path | None = None) -> Line:
    """Train, from a checkpoint if there is one."""
    module = Line()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[PacesetterCallback(), ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
    )
    trainer.fit(module, data(0, 320), data(1, 64), ckpt_path=checkpoint)
    return module


def main() -> None:
    """Train, then train again from the end of the first epoch."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        whole = fit(folder)
        print("again, from the first checkpoint:")
        resumed = fit(folder, Path(folder) / "epoch=0.ckpt")
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    same = all(torch.equal(one, other) for one, other in pairs)
    print(f"the weights of both are {'the same, to the bit' if same else 'different'}")


if __name__ == "__main__":
    main()
