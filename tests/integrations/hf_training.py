"""A small training for tests of the Trainer, and what single ranks do in them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import TrainerCallback

from pacesetter import Client, ResumeError
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer

PLATEAU = {"factor": 0.5, "patience": 1, "threshold": 0.1}


class Net(nn.Module):
    """A model with parameters that decay and parameters that do not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.norm, self.head = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the Trainer expects of a model."""
        found = self.head(self.norm(self.body(x)).tanh()).squeeze(-1)
        return {"loss": (found - labels).square().mean(), "logits": found}


def examples(count: int) -> list[dict[str, torch.Tensor]]:
    """Return rows of a data set."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator)
    return [{"x": row, "labels": row.sum()} for row in inputs]


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """Rows of a data set of unknown length."""

    def __init__(self, count: int) -> None:
        self.rows = examples(count)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter(self.rows)


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    """Return arguments that log every step and report nowhere."""
    usual: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 12,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**usual, **more})


def trainer_of(
    args: TrainingArguments, *callbacks: TrainerCallback, kind: Any = PacesetterTrainer, **more: Any
) -> Any:
    """Return a trainer of a small model."""
    given = {"train_dataset": examples(24), "eval_dataset": examples(8), **more}
    return kind(model=Net(), args=args, callbacks=list(callbacks), **given)


def logged(trainer: Trainer, name: str = "learning_rate") -> list[float]:
    """Return what the Trainer has logged under a name, in order."""
    return [line[name] for line in trainer.state.log_history if name in line]


def weights(trainer: Trainer) -> list[bytes]:
    """Return the bits of the weights."""
    return [each.detach().numpy().tobytes() for each in trainer.model.parameters()]


def sealed(client: Client, name: str, count: int) -> list[float]:
    """Return the values of the first steps."""
    found: list[float] = client.lr(name, 0, count=count)["series"]["lr"]
    return found


class At(TrainerCallback):
    """Does something at the end of an update, counted from 1."""

    def __init__(self, step: int, work: Callable[[], object]) -> None:
        self.step, self.work = step, work

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Act at the chosen step."""
        if state.global_step == self.step:
            self.work()


class Losses(TrainerCallback):
    """Replaces the results of evaluations by the test's own."""

    def __init__(self, *losses: float) -> None:
        self.losses = iter(losses)

    def patch(self, trainer: Any) -> None:
        """Put the losses in place of those that are computed."""
        evaluate = trainer.evaluation_loop

        def loop(*args: Any, **kwargs: Any) -> Any:
            output = evaluate(*args, **kwargs)
            output.metrics["eval_loss"] = next(self.losses)
            return output

        trainer.evaluation_loop = loop


class Rates(TrainerCallback):
    """Records what the optimizer holds at each update."""

    def __init__(self, used: list[float]) -> None:
        self.used = used

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the optimizer's rate."""
        self.used.append(kwargs["optimizer"].param_groups[0]["lr"])


def train_on_a_rank(rank: int, url: str, name: str, folder: str) -> Any:
    """Train, once more from the middle, and try it without a checkpoint.

    Return the rates and the attempt of each training, and the last one's error.
    """
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    args = arguments(
        Path(folder),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=6,
        gradient_accumulation_steps=2,
    )
    nowhere = "http://127.0.0.1:9"
    with Client(url if rank == 0 else nowhere, retry_for=20.0, max_wait=20.0) as client:
        trained = [_train(args, client, name, start) for start in (0, 6)]
        try:
            _train(args, client, name, 0)
        except ResumeError as error:
            return [*trained, type(error).__name__]
    raise AssertionError("trained again without a word")


def _train(args: TrainingArguments, client: Client, name: str, start: int) -> Any:
    plateau = {"kind": "plateau", "metric": "eval_loss", **PLATEAU}
    used: list[float] = []
    callback = PacesetterCallback(name, client=client, controllers=[plateau])
    trainer = trainer_of(args, callback, Rates(used))
    Losses(*[1.0, 0.5, 0.5, 0.5, 0.5, 0.2][start // 2 :]).patch(trainer)
    trainer.train(resume_from_checkpoint=f"{args.output_dir}/checkpoint-6" if start else None)
    return used, trainer.lr_scheduler.session.attempt
