"""A Trainer that makes more updates than were planned: the rate never rises again."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from integrations.hf_training import Net, arguments, examples
from pacesetter import Client
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


class Hungry(Net):
    """Runs out of memory with more than four rows in a batch."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Fail as CUDA does, which is how the Trainer recognises it."""
        if len(x) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x, labels)


def planned(step: int, total: int = 8) -> float:
    """Return the rate of transformers' cosine schedule, which rises again past its end."""
    return 0.01 * max(0.0, 0.5 * (1.0 + math.cos(math.pi * step / total)))


def rates(trainer: PacesetterTrainer) -> list[float]:
    """Return the rate of each update, as logged by the Trainer."""
    return [line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line]


def test_more_epochs_than_planned_keep_the_last_rate(
    client: Client, unique_name: str, tmp_path: Path
) -> None:
    """Eight updates are planned and fourteen made: later ones have the rate of the plan's end."""
    callback = PacesetterCallback(unique_name, client=client, total_steps=8)
    args = arguments(tmp_path, max_steps=14, lr_scheduler_type="cosine")
    trainer = PacesetterTrainer(
        model=Net(), args=args, train_dataset=examples(64), callbacks=[callback]
    )
    trainer.train()
    expected = [planned(step) for step in range(8)] + [0.0] * 6
    assert client.lr(unique_name, 0, count=14)["series"]["lr"] == pytest.approx(expected)
    assert max(planned(step) for step in range(8, 14)) > planned(6)
    codes = [event.get("code") for event in client.events(unique_name)]
    assert codes.count("plan_over") == 1


def test_a_batch_size_that_was_found_keeps_the_last_rate(
    client: Client, unique_name: str, tmp_path: Path
) -> None:
    """`auto_find_batch_size` halves the batch and makes twice the planned updates."""
    callback = PacesetterCallback(unique_name, client=client, total_steps=8)
    args = arguments(
        tmp_path,
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        auto_find_batch_size=True,
        lr_scheduler_type="cosine",
    )
    trainer = PacesetterTrainer(
        model=Hungry(), args=args, train_dataset=examples(32), callbacks=[callback]
    )
    trainer.train()
    assert trainer.state.global_step > 8
    logged = rates(trainer)
    assert logged == sorted(logged, reverse=True)
    expected = [planned(step) for step in range(8)]
    values = client.lr(unique_name, 0, count=trainer.state.global_step)["series"]["lr"]
    assert values == pytest.approx([*expected, *[0.0] * (len(values) - 8)])
