"""A body that is frozen at first, and Lightning's callbacks that unfreeze it."""

# ruff: noqa: D102 - what Lightning calls is told by Lightning

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning


class Tuned(pl.LightningModule):
    """A head on a frozen backbone; it notes the rates of each update.

    Args:
        schedule: makes the scheduler of its optimizer.
        named: the name of its first param group.
    """

    def __init__(
        self, schedule: Callable[[torch.optim.Optimizer], Any], *, named: str | None = None
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)
        self.schedule = schedule
        self.named = named
        self.rates: list[list[float]] = []

    def configure_optimizers(self) -> Any:
        group: dict[str, Any] = {"params": list(self.head.parameters())}
        if self.named is not None:
            group["name"] = self.named
        optimizer = torch.optim.SGD([group], lr=0.1, momentum=0.9)
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        inputs, wanted = batch
        return torch.nn.functional.mse_loss(self.head(self.backbone(inputs)), wanted)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        pass

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])


class Unfreeze(BaseFinetuning):
    """Adds the backbone at an epoch, under a name that the session knows."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(
        self, pl_module: Any, epoch: int, optimizer: torch.optim.Optimizer
    ) -> None:
        if epoch == self.epoch:
            self.make_trainable(pl_module.backbone)
            group = {"params": list(pl_module.backbone.parameters()), "name": "backbone"}
            optimizer.add_param_group(group)
